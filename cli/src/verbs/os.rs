//! `adit inspect --os`: which operating system is on a guest's disks.

use super::shown;
use crate::exit;
use crate::output::{self, Out, put_bytes};
use crate::session::Session;
use adit_core::{Error, Finding, Result, Severity};
use adit_open::{At, Fact, Opened};
use adit_os::{Found, Mount, System, Volume};
use serde_json::{Map, Value, json};
use std::ffi::{OsStr, OsString};

/// Volumes in volumes in volumes: no deeper than this.
const DEPTH_MAX: u32 = 6;

/// Shows the systems on one or several disks of a guest.
pub fn run(session: &Session, first: &OsStr, more: &[String]) -> u8 {
    let more = more.iter().map(OsString::from);
    let places: Vec<OsString> = std::iter::once(first.to_owned()).chain(more).collect();
    match show(session, &places) {
        Ok(code) => code,
        Err(error) => {
            session.fail(&format!("find an operating system on {}", shown(first)), &error)
        }
    }
}

fn show(session: &Session, places: &[OsString]) -> Result<u8> {
    let mut survey = Survey { session, volumes: Vec::new(), notes: Vec::new() };
    for (disk, place) in places.iter().enumerate() {
        let opened = session.open(place)?;
        survey.visit(opened, &About { disk, ..About::default() }, 0)?;
    }
    let Survey { volumes, notes, .. } = survey;
    let systems = adit_os::recognise(&volumes, &session.opener.options().limits)?;
    if systems.is_empty() {
        let detail = match volumes.len() {
            0 => "no file system that is read".to_owned(),
            count => format!("none of {count} file systems has the files of an operating system"),
        };
        return Err(Error::not_found(detail).advise(
            "name all disks of the guest: adit inspect --os FIRST SECOND; `adit info` tells what each holds",
        ));
    }
    let mut out = Out::new();
    if session.common.json {
        out.json(&json!({
            "schema": "adit.os/1",
            "paths": places.iter().map(|place| shown(place)).collect::<Vec<_>>(),
            "systems": systems.iter().map(|s| system_json(s, &volumes)).collect::<Vec<_>>(),
            "volumes": volumes.iter().map(volume_json).collect::<Vec<_>>(),
            "notes": output::notes_json(&notes),
        }));
    } else {
        for (index, system) in systems.iter().enumerate() {
            if index > 0 {
                out.line("");
            }
            text(&mut out, system, &volumes);
        }
    }
    out.finish();
    let all = systems.iter().flat_map(|system| &system.notes).chain(&notes);
    let mut code = exit::GOOD;
    for note in all {
        if note.severity == Severity::Error {
            code = exit::PARTIAL;
        }
        if !session.common.json && !session.common.quiet {
            eprintln!("{note}");
        }
    }
    Ok(code)
}

/// What is known of a volume before it is opened.
#[derive(Clone, Default)]
struct About {
    disk: usize,
    name: String,
    group: String,
    part_uuid: String,
    part_label: String,
    offset: Option<u64>,
    disk_uuid: String,
}

struct Survey<'a> {
    session: &'a Session,
    volumes: Vec<Volume>,
    notes: Vec<Finding>,
}

impl Survey<'_> {
    fn visit(&mut self, here: Opened, about: &About, depth: u32) -> Result<()> {
        self.session.interrupt.check()?;
        if depth > DEPTH_MAX {
            return Err(Error::limit("layers_max", "volumes are nested too deeply"));
        }
        let locator = here.locator.to_string();
        match &here.at {
            At::Node { files, .. } => {
                let known = |volume: &Volume| {
                    !about.group.is_empty()
                        && volume.group == about.group
                        && volume.name == about.name
                };
                // A group on several disks shows its volumes on each.
                if !self.volumes.iter().any(known) {
                    let about = about.clone();
                    self.volumes.push(Volume {
                        locator,
                        fs: files.fs.clone(),
                        name: about.name,
                        group: about.group,
                        part_uuid: about.part_uuid,
                        part_label: about.part_label,
                        offset: about.offset,
                        disk_uuid: about.disk_uuid,
                        disk: about.disk,
                    });
                }
                Ok(())
            }
            At::Disk { .. } => match self.session.opener.enter(here) {
                Ok(inside) => self.visit(inside, about, depth + 1),
                Err(error) if depth == 0 => Err(error),
                Err(error) => {
                    self.unread(&locator, &error);
                    Ok(())
                }
            },
            At::Volumes { table, .. } => {
                let group = match table.format {
                    "LVM2" => group_name(&here),
                    _ => String::new(),
                };
                for volume in &table.volumes {
                    let about = About {
                        disk: about.disk,
                        name: volume.name.clone(),
                        group: group.clone(),
                        part_uuid: volume.uuid.clone(),
                        part_label: volume.label.clone(),
                        offset: volume.offset,
                        disk_uuid: table.uuid.clone(),
                    };
                    let place = here.locator.step(volume.name.as_bytes()).to_os_string();
                    match self.session.opener.open(&place) {
                        Ok(inside) => self.visit(inside, &about, depth + 1)?,
                        Err(error) => self.unread(&shown(&place), &error),
                    }
                }
                Ok(())
            }
        }
    }

    /// Swap, unknown contents and damage alike: worth a word, and no reason to stop.
    fn unread(&mut self, locator: &str, error: &Error) {
        let text = format!("{locator} is not looked into: {}", error.detail());
        self.notes.push(Finding::info("os-volume-unread", text));
    }
}

/// The name of the group that was just opened.
fn group_name(here: &Opened) -> String {
    let facts = here.layers.last().map(|layer| layer.facts.as_slice()).unwrap_or_default();
    let name = facts.iter().find_map(|(key, fact)| match fact {
        Fact::Text(text) if *key == "name" => Some(text.clone()),
        _ => None,
    });
    name.unwrap_or_default()
}

fn place(index: Option<usize>, volumes: &[Volume]) -> Option<&str> {
    volumes.get(index?).map(|volume| volume.locator.as_str())
}

fn text(out: &mut Out, system: &System, volumes: &[Volume]) {
    out.line(&system.name);
    let mut line = |name: &str, value: &str| {
        if !value.is_empty() {
            out.line(format!("  {name:<13} {value}"));
        }
    };
    line("kind", system.family.word());
    line("version", &system.version);
    line("host", &system.hostname);
    line("architecture", &system.architecture);
    line("machine id", &system.machine_id);
    line("kernels", &system.kernels.join(", "));
    line("root", place(Some(system.root), volumes).unwrap_or_default());
    for mount in &system.mounts {
        let at = adit_trees::shown(&mount.at);
        let source = match &mount.found {
            Found::Volume(index) => place(Some(*index), volumes).unwrap_or_default().to_owned(),
            Found::Likely(index) => {
                let place = place(Some(*index), volumes).unwrap_or_default();
                match mount.source.is_empty() {
                    true => place.to_owned(),
                    false => format!("{place}, likely ({})", mount.source),
                }
            }
            Found::Missing => format!("missing: {}", mount.source),
            Found::NotOnDisk => continue,
        };
        line("mount", &format!("{at:<14} {source}"));
    }
}

fn mount_json(mount: &Mount, volumes: &[Volume]) -> Value {
    let mut map = Map::new();
    put_bytes(&mut map, "at", &mount.at);
    map.insert("source".into(), json!(mount.source));
    map.insert("format".into(), json!(mount.format));
    map.insert("state".into(), mount.found.word().into());
    map.insert("path".into(), json!(place(mount.found.volume(), volumes)));
    Value::Object(map)
}

fn system_json(system: &System, volumes: &[Volume]) -> Value {
    let missing = system.mounts.iter().filter(|mount| mount.found == Found::Missing);
    json!({
        "family": system.family.word(),
        "name": system.name,
        "id": system.id,
        "version": system.version,
        "hostname": system.hostname,
        "architecture": system.architecture,
        "machine_id": system.machine_id,
        "kernels": system.kernels,
        "root": place(Some(system.root), volumes),
        "mounts": system.mounts.iter().map(|m| mount_json(m, volumes)).collect::<Vec<_>>(),
        "missing": missing.map(|mount| &mount.source).collect::<Vec<_>>(),
        "notes": output::notes_json(&system.notes),
    })
}

fn volume_json(volume: &Volume) -> Value {
    let identity = volume.fs.identity();
    json!({
        "path": volume.locator,
        "format": identity.format,
        "label": identity.label,
        "uuid": identity.uuid,
        "part_uuid": volume.part_uuid,
    })
}
