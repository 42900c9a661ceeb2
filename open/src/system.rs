//! `//:os`: the operating system of a guest, its file systems put together as it mounts them.
//!
//! Which disks a guest has, its `.vmx` says; what is on them, and which system that is, is for
//! whoever registers a [`SystemOpener`].

use crate::references;
use crate::source::Source;
use crate::{At, Fact, Files, LayerInfo, Opened, Opener};
use adit_core::{
    DiskExt, Error, FileSystem, Finding, Kind, NodeKind, Problem, Result, Severity, Volume,
};
use adit_vmx::{DeviceKind, Vmx};
use std::sync::Arc;

/// How a step into a guest's system starts. `./:os` is a file of that name.
const STEP: &[u8] = b":os";

/// Finds the system on the disks of a guest. The text is what stands behind `:os=`, if anything.
pub type SystemOpener = fn(&Opener, GuestDisks, &str) -> Result<GuestSystem>;

/// The disks of a guest, in the order it sees them.
#[derive(Clone, Debug, Default)]
pub struct GuestDisks {
    /// The disks, unopened.
    pub disks: Vec<Opened>,
    /// Why there are not more.
    pub notes: Vec<Finding>,
}

/// A guest's system as one tree.
#[derive(Clone, Debug)]
pub struct GuestSystem {
    /// Its file systems under one root.
    pub fs: Arc<dyn FileSystem>,
    /// What it calls itself.
    pub name: String,
    /// Facts for `info`.
    pub facts: Vec<(&'static str, Fact)>,
    /// What could not be read, or is not there.
    pub notes: Vec<Finding>,
}

/// `:os/etc` as what is asked for (`:os=2` asks for `2`) and the path inside.
pub(crate) fn split_step(step: &[u8]) -> Option<(&[u8], &[u8])> {
    let rest = step.strip_prefix(STEP)?;
    let cut = rest.iter().position(|&byte| byte == b'/').unwrap_or(rest.len());
    let (which, path) = rest.split_at(cut);
    match which.split_first() {
        None => Some((b"", path)),
        Some((b'=', which)) if !which.is_empty() => Some((which, path)),
        Some(_) => None,
    }
}

/// The part of a step that stays in front of a path: `:os` of `:os/etc`.
pub(crate) fn prefix_of(step: &[u8]) -> Option<&[u8]> {
    let (_, path) = split_step(step)?;
    step.get(..step.len() - path.len())
}

impl Opener {
    /// The system of the guest whose disk, file system or `.vmx` is here.
    pub(crate) fn in_system(&self, mut here: Opened, which: &[u8]) -> Result<Opened> {
        let open = self.options().systems.ok_or_else(|| {
            Error::unsupported("nothing that knows operating systems was registered")
        })?;
        let disks = self.guest_disks(here.clone())?;
        let which = String::from_utf8_lossy(which);
        let system = open(self, disks, &which)?;
        let step = match which.is_empty() {
            true => ":os".to_owned(),
            false => format!(":os={which}"),
        };
        here.locator = here.locator.step(step.as_bytes());
        here.notes.extend(system.notes);
        here.layers.push(LayerInfo {
            format: system.name,
            locator: here.locator.clone(),
            facts: system.facts,
        });
        let root = system.fs.root();
        // A guest's absolute links start at its own root.
        let files = Files { link_roots: vec![Vec::new()], ..Files::of(system.fs) };
        here.at = At::Node { files, node: root, parent: root, path: Vec::new() };
        Ok(here)
    }

    /// The disks of the guest that is here: those its `.vmx` names, or this one, and the ones the
    /// user named beside. A disk that cannot be opened is in the notes.
    ///
    /// Errors: those of reading the `.vmx`; `Invalid` for a directory that is no file system's root.
    pub fn guest_disks(&self, here: Opened) -> Result<GuestDisks> {
        let here = self.follow(here)?;
        let mut found = GuestDisks::default();
        match self.settings(&here)? {
            Some((file, settings)) => self.disks_of(&file, &settings, &mut found),
            None => {
                if let At::Node { files, node, path, .. } = &here.at
                    && !path.is_empty()
                    && files.fs.metadata(*node)?.kind == NodeKind::Directory
                {
                    return Err(Error::invalid(Problem::BadValue, "a folder is no guest")
                        .advise("name the guest's .vmx or its disk; a file called :os is ./:os"));
                }
                found.disks.push(here);
            }
        }
        let mut plain = self.clone();
        plain.options_mut().members.clear();
        for place in &self.options().members {
            found.disks.push(plain.open(place.as_os_str())?);
        }
        Ok(found)
    }

    /// The settings of a machine, if that is what is here.
    fn settings(&self, here: &Opened) -> Result<Option<(Source, Vmx)>> {
        if matches!(here.at, At::Volumes { .. }) {
            return Ok(None);
        }
        let Some(file) = Source::of(here)? else { return Ok(None) };
        if !file.name().to_ascii_lowercase().ends_with(b".vmx") {
            return Ok(None);
        }
        let limits = &self.options().limits;
        let size_bytes = file.disk.size_bytes();
        if size_bytes > limits.text_bytes_max {
            let detail = format!("settings of {size_bytes} bytes are too long");
            return Err(Error::limit("text_bytes_max", detail));
        }
        let length = usize::try_from(size_bytes).unwrap_or(usize::MAX);
        let text = file.disk.read_prefix(0, length)?;
        let settings = Vmx::parse(&text, limits);
        let settings = settings.map_err(|error| error.in_layer(here.locator.to_string()))?;
        Ok(Some((file, settings)))
    }

    fn disks_of(&self, file: &Source, settings: &Vmx, found: &mut GuestDisks) {
        let is_disk = |disk: &&adit_vmx::VmxDisk| disk.present && disk.kind == DeviceKind::Disk;
        for disk in settings.disks.iter().filter(is_disk) {
            match references::resolve(&disk.file_name, file, self.options()) {
                Ok(Source { disk, origin, locator }) => found.disks.push(Opened {
                    locator,
                    at: At::Disk { disk, origin },
                    layers: Vec::new(),
                    notes: Vec::new(),
                    beside: Vec::new(),
                    around: Vec::new(),
                }),
                Err(error) => {
                    let name = String::from_utf8_lossy(&disk.file_name);
                    let mut note = Finding::from_error("os-disk-missing", &error);
                    note.severity = match error.kind() {
                        Kind::NotFound | Kind::Denied => Severity::Warning,
                        _ => Severity::Error,
                    };
                    note.text = format!("disk {} ({name}): {}", disk.controller, note.text);
                    found
                        .notes
                        .push(note.advise("`--member PLACE` names a disk that is elsewhere"));
                }
            }
        }
    }

    /// The place of one volume of a table.
    pub fn volume(&self, table: &Opened, volume: &Volume) -> Opened {
        crate::opener::pick(table.clone(), volume)
    }
}

impl Opened {
    /// The same place, knowing volumes on other disks of the same guest, where members of what
    /// lies on several disks may be.
    pub fn among(mut self, volumes: &[Volume]) -> Opened {
        self.around = volumes.to_vec();
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_into_the_system_is_told_from_a_name_like_it() {
        assert_eq!(split_step(b":os"), Some((&b""[..], &b""[..])));
        assert_eq!(split_step(b":os/etc/x"), Some((&b""[..], &b"/etc/x"[..])));
        assert_eq!(split_step(b":os=2/etc"), Some((&b"2"[..], &b"/etc"[..])));
        for other in [&b":oslo"[..], b"./:os", b"os", b":os=", b"p1"] {
            assert_eq!(split_step(other), None);
        }
        assert_eq!(prefix_of(b":os=2/etc"), Some(&b":os=2"[..]));
    }
}
