//! `adit inspect --os`: which operating system is on a guest's disks.

use super::shown;
use crate::exit;
use crate::output::{self, Out, put_bytes};
use crate::session::Session;
use adit_core::{Result, Severity};
use adit_open::GuestDisks;
use adit_os::{Found, Mount, Survey, System, Volume};
use serde_json::{Map, Value, json};
use std::ffi::{OsStr, OsString};

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
    let mut guest = GuestDisks::default();
    for place in places {
        let found = session.opener.guest_disks(session.open(place)?)?;
        guest.disks.extend(found.disks);
        guest.notes.extend(found.notes);
    }
    let Survey { volumes, notes } = Survey::of(&session.opener, guest, &session.interrupt)?;
    let systems = adit_os::recognise(&volumes, &session.opener.options().limits)?;
    if systems.is_empty() {
        return Err(adit_os::none_on(&volumes));
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

/// The full name of a part of a volume.
fn place(index: Option<usize>, path: &[u8], volumes: &[Volume]) -> Option<String> {
    let mut place = volumes.get(index?)?.locator.clone();
    place.push_str(&adit_trees::shown(path));
    Some(place)
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
    line("root", &place(Some(system.root), &system.root_path, volumes).unwrap_or_default());
    for mount in &system.mounts {
        let at = adit_trees::shown(&mount.at);
        let source = match &mount.found {
            Found::Volume(index) => place(Some(*index), &mount.path, volumes).unwrap_or_default(),
            Found::Likely(index) => {
                let place = place(Some(*index), &mount.path, volumes).unwrap_or_default();
                match mount.source.is_empty() {
                    true => place,
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
    map.insert("path".into(), json!(place(mount.found.volume(), &mount.path, volumes)));
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
        "root": place(Some(system.root), &system.root_path, volumes),
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
