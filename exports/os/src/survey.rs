//! The file systems on a guest's disks, found by looking into everything.

use crate::model::Volume;
use crate::{OsTree, System, recognise};
use adit_core::{Error, Finding, Interrupt, Problem, Result, Volume as Slice};
use adit_open::{At, Fact, GuestDisks, GuestSystem, Opened, Opener};
use std::collections::HashSet;

/// Volumes in volumes in volumes: no deeper than this.
const DEPTH_MAX: u32 = 8;

/// What was found on the disks of a guest.
#[derive(Debug)]
pub struct Survey {
    /// Its file systems, in the order of its disks.
    pub volumes: Vec<Volume>,
    /// What was not looked into, and why.
    pub notes: Vec<Finding>,
}

impl Survey {
    /// Looks into every volume of every disk. What cannot be opened is in the notes.
    ///
    /// Errors: `NotFound` without a disk; that of a sole disk; `Limit`; `Interrupted`.
    pub fn of(opener: &Opener, disks: GuestDisks, interrupt: &Interrupt) -> Result<Survey> {
        let GuestDisks { disks, notes } = disks;
        let is_sole = disks.len() == 1;
        let mut look = Look {
            opener,
            interrupt,
            groups: HashSet::new(),
            survey: Survey { volumes: Vec::new(), notes },
        };
        if disks.is_empty() {
            let why = look.survey.notes.first().map(|note| format!(": {}", note.text));
            let why = why.unwrap_or_default();
            return Err(Error::not_found(format!("the guest has no disk that can be opened{why}"))
                .advise("`--member PLACE` names disks"));
        }
        let mut opened = Vec::new();
        for (number, disk) in disks.into_iter().enumerate() {
            let name = disk.locator.to_string();
            match look.contents(disk) {
                Ok(disk) => opened.push((number, disk)),
                Err(error) if is_sole => return Err(error.in_layer(name)),
                Err(error) => look.unread(&name, &error),
            }
        }
        let parts: Vec<Vec<Slice>> = match opened.len() {
            // What is on one disk alone finds its neighbours by itself.
            0 | 1 => vec![Vec::new(); opened.len()],
            _ => opened.iter().map(|(_, disk)| look.slices(disk)).collect(),
        };
        for (index, (number, disk)) in opened.into_iter().enumerate() {
            let others = parts.iter().enumerate().filter(|(other, _)| *other != index);
            let others: Vec<Slice> = others.flat_map(|(_, slices)| slices.clone()).collect();
            let about = About { disk: number, ..About::default() };
            let depth = if is_sole { 0 } else { 1 };
            look.visit(disk.among(&others), &about, depth)?;
        }
        Ok(look.survey)
    }
}

/// Opens the system on the disks of a guest: what `//:os` in a place means.
///
/// Errors: `NotFound` where there is none; `Invalid` with the choices where there are several.
pub fn open_system(opener: &Opener, disks: GuestDisks, which: &str) -> Result<GuestSystem> {
    let Survey { volumes, mut notes } = Survey::of(opener, disks, &Interrupt::default())?;
    let systems = recognise(&volumes, &opener.options().limits)?;
    let system = choose(&systems, which, &volumes, &notes)?;
    let tree = OsTree::open(system, &volumes)?;
    let mut facts: Vec<(&'static str, Fact)> = [
        ("kind", system.family.word()),
        ("version", &system.version),
        ("hostname", &system.hostname),
        ("architecture", &system.architecture),
        ("machine_id", &system.machine_id),
    ]
    .into_iter()
    .filter(|(_, value)| !value.is_empty())
    .map(|(key, value)| (key, Fact::Text(value.to_owned())))
    .collect();
    let mounts = system.mounts.iter().filter_map(|mount| {
        let volume = volumes.get(mount.found.volume()?)?;
        Some(format!("{} {}", String::from_utf8_lossy(&mount.at), volume.locator))
    });
    facts.push(("mounts", Fact::List(mounts.collect())));
    notes.extend(system.notes.iter().cloned());
    notes.extend(adit_core::FileSystem::notes(&*tree));
    Ok(GuestSystem { fs: tree, name: system.name.clone(), facts, notes })
}

/// The system that is meant: the only one, or that of this number, id or host name.
fn choose<'a>(
    systems: &'a [System],
    which: &str,
    volumes: &[Volume],
    notes: &[Finding],
) -> Result<&'a System> {
    if systems.is_empty() {
        let mut error = none_on(volumes);
        if let Some(note) = notes.first() {
            error = error.advise(note.text.clone());
        }
        return Err(error);
    }
    let is_meant = |(index, system): &(usize, &System)| {
        which.is_empty()
            || which.parse() == Ok(index + 1)
            || which.eq_ignore_ascii_case(&system.id)
            || which.eq_ignore_ascii_case(&system.hostname)
    };
    let meant: Vec<_> = systems.iter().enumerate().filter(is_meant).collect();
    let names: Vec<_> = systems
        .iter()
        .enumerate()
        .map(|(index, system)| {
            let place = volumes.get(system.root).map_or("", |volume| &volume.locator);
            format!("{}: {} on {place}", index + 1, system.name)
        })
        .collect();
    match meant.as_slice() {
        [(_, system)] => Ok(system),
        [] => Err(Error::not_found(format!("no system is called {which:?}"))
            .advise(format!("there is {}", names.join("; ")))),
        _ => {
            let detail = format!("there are several systems: {}", names.join("; "));
            Err(Error::invalid(Problem::Ambiguous, detail).advise("name one, for example //:os=1"))
        }
    }
}

/// The error for disks that hold no system.
pub fn none_on(volumes: &[Volume]) -> Error {
    let detail = match volumes.len() {
        0 => "no file system that is read".to_owned(),
        count => format!("none of {count} file systems has the files of an operating system"),
    };
    Error::not_found(detail).advise(
        "name all disks of the guest: its .vmx, or further disks with --member; `adit info` \
         tells what each holds",
    )
}

/// What is known of a volume before it is opened.
#[derive(Clone, Default)]
struct About {
    disk: usize,
    name: String,
    group: String,
    part_uuid: String,
    part_label: String,
    crypt_uuid: String,
    offset: Option<u64>,
    disk_uuid: String,
}

struct Look<'a> {
    opener: &'a Opener,
    interrupt: &'a Interrupt,
    /// Tables that lie on several disks, and were seen on one of them.
    groups: HashSet<(&'static str, String)>,
    survey: Survey,
}

impl Look<'_> {
    /// The disk in an image; a raw disk is one already.
    fn contents(&self, mut here: Opened) -> Result<Opened> {
        for _ in 0..DEPTH_MAX {
            let is_file = match &here.at {
                At::Disk { .. } => true,
                At::Node { files, node, .. } => {
                    files.fs.metadata(*node)?.kind != adit_core::NodeKind::Directory
                }
                At::Volumes { .. } => false,
            };
            if !is_file || !self.opener.is_image(&here)? {
                return Ok(here);
            }
            here = self.opener.enter(here)?;
        }
        Ok(here)
    }

    /// The disk as a whole and its partitions: what may be a member of something larger.
    fn slices(&self, here: &Opened) -> Vec<Slice> {
        let mut slices = Vec::new();
        if let At::Disk { disk, .. } = &here.at {
            slices.push(Slice {
                name: here.locator.to_string(),
                label: String::new(),
                uuid: String::new(),
                kind: String::new(),
                offset: None,
                disk: disk.clone(),
            });
        }
        // Errors are met again, and reported, when the disk is looked into.
        if let Ok(Opened { at: At::Volumes { table, .. }, locator, .. }) =
            self.opener.enter(here.clone())
            && !is_group(table.format)
        {
            slices.extend(table.volumes.into_iter().map(|volume| {
                let name = locator.step(volume.name.as_bytes()).to_string();
                Slice { name, ..volume }
            }));
        }
        slices
    }

    fn visit(&mut self, here: Opened, about: &About, depth: u32) -> Result<()> {
        self.interrupt.check()?;
        if depth > DEPTH_MAX {
            return Err(Error::limit("layers_max", "volumes are nested too deeply"));
        }
        let locator = here.locator.to_string();
        match &here.at {
            At::Node { files, node, .. } => {
                let fs = files.fs.clone();
                if files.guest.is_none() && files.vmfs.is_none() && *node != fs.root() {
                    return Ok(());
                }
                let about = about.clone();
                self.survey.volumes.push(Volume {
                    locator,
                    fs,
                    name: about.name,
                    group: about.group,
                    part_uuid: about.part_uuid,
                    part_label: about.part_label,
                    crypt_uuid: about.crypt_uuid,
                    offset: about.offset,
                    disk_uuid: about.disk_uuid,
                    disk: about.disk,
                });
                Ok(())
            }
            At::Disk { .. } => match self.opener.enter(here) {
                Ok(inside) => {
                    let mut about = about.clone();
                    if let Some(uuid) = crypt_uuid(&inside) {
                        about.crypt_uuid = uuid;
                    }
                    self.visit(inside, &about, depth + 1)
                }
                Err(error) if depth == 0 => Err(error),
                Err(error) => {
                    self.unread(&locator, &error);
                    Ok(())
                }
            },
            At::Volumes { table, .. } => {
                let group = match table.format {
                    "LVM2" => group_name(&here),
                    "Linux md" => "md".to_owned(),
                    _ => String::new(),
                };
                // A group on several disks shows its volumes on each.
                let mut is_new = || self.groups.insert((table.format, table.uuid.clone()));
                if is_group(table.format) && !table.uuid.is_empty() && !is_new() {
                    return Ok(());
                }
                for volume in &table.volumes {
                    let about = About {
                        disk: about.disk,
                        name: volume.name.clone(),
                        group: group.clone(),
                        part_uuid: volume.uuid.clone(),
                        part_label: volume.label.clone(),
                        crypt_uuid: String::new(),
                        offset: volume.offset,
                        disk_uuid: table.uuid.clone(),
                    };
                    self.visit(self.opener.volume(&here, volume), &about, depth + 1)?;
                }
                Ok(())
            }
        }
    }

    /// Swap, unknown contents and damage alike: worth a word, and no reason to stop.
    fn unread(&mut self, locator: &str, error: &Error) {
        let text = format!("{locator} is not looked into: {}", error.detail());
        self.survey.notes.push(Finding::info("os-volume-unread", text));
    }
}

fn is_group(format: &str) -> bool {
    matches!(format, "LVM2" | "Linux md" | "LDM")
}

/// The identity of the encrypted volume that was just opened.
fn crypt_uuid(here: &Opened) -> Option<String> {
    let layer = here.layers.last().filter(|layer| layer.format.starts_with("LUKS"))?;
    layer.facts.iter().find_map(|(key, fact)| match fact {
        Fact::Text(text) if *key == "uuid" => Some(text.clone()),
        _ => None,
    })
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
