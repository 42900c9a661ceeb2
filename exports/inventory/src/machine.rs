//! One machine, from its settings.

use crate::LockState;
use crate::catalogue::{Catalogue, File};
use crate::images::Images;
use crate::model::{Drive, FileInfo, FilePath, Image, Location, Machine, MachineDisk};
use crate::place::{Beside, Found, Places};
use crate::power::{Signs, power};
use adit_core::{FileSystem, FileSystemExt, Finding, Limits, NodeId, Place, Result};
use adit_vmx::{DeviceKind, Vmx, VmxDisk};
use std::collections::{BTreeMap, HashSet};

/// What every machine is read with.
pub(crate) struct Survey<'a> {
    pub(crate) fs: &'a dyn FileSystem,
    pub(crate) limits: &'a Limits,
    pub(crate) catalogue: &'a Catalogue,
    pub(crate) places: &'a Places<'a>,
}

/// What gathers while a machine is read.
#[derive(Default)]
pub(crate) struct Draft {
    pub(crate) notes: Vec<Finding>,
    /// Images of this machine that were walked.
    pub(crate) known: HashSet<NodeId>,
    /// Files that a disk of this machine names rightly: no other may have them by their name.
    claimed: HashSet<NodeId>,
    files: BTreeMap<NodeId, FileInfo>,
    noted: HashSet<NodeId>,
    /// Images in the chains of its disks, shared ones as often as they occur.
    chained: u64,
}

impl Draft {
    /// Counts an image's files among the machine's, and its findings.
    pub(crate) fn take(&mut self, image: &Image) {
        for (node, file) in &image.files {
            self.files.entry(*node).or_insert_with(|| file.clone());
        }
        if self.noted.insert(image.node) {
            self.notes.extend(image.notes.iter().cloned());
        }
    }
}

impl Survey<'_> {
    /// Reads a machine.
    ///
    /// Errors: if its settings cannot be read; `Interrupted`.
    pub(crate) fn machine(
        &self,
        settings: &File,
        images: &mut Images<'_>,
        lock_state: &LockState<'_>,
    ) -> Result<Machine> {
        let text = self.fs.read_file(settings.node, self.limits.text_bytes_max)?;
        let vmx = Vmx::parse(&text, self.limits)?;
        let mut draft = Draft { notes: vmx.notes.clone(), ..Draft::default() };
        let beside = self.catalogue.beside(settings);
        for file in beside {
            draft.files.insert(file.node, file.info());
        }
        self.claim(&vmx, settings, &mut draft);
        let (mut disks, mut drives) = (Vec::new(), Vec::new());
        for device in &vmx.disks {
            if device.kind == DeviceKind::Disk {
                disks.push(self.disk(device, settings, images, &mut draft)?);
            } else {
                drives.push(drive(device));
            }
        }
        let snapshots = self.snapshots(settings, images, &mut draft)?;
        if snapshots.as_ref().is_none_or(|tree| tree.roots.is_empty()) {
            note_unknown_deltas(&disks, &mut draft.notes);
        }
        let suspend = vmx.suspend_file.as_ref().map(|name| {
            let found = self.find(settings, name, &mut draft);
            (String::from_utf8_lossy(name).into_owned(), found.location)
        });
        if let Some((name, Location::Missing { .. })) = &suspend {
            let text = format!("the settings resume from {name:?}, which is missing");
            draft.notes.push(Finding::warning("inventory-suspend-missing", text));
        }
        let in_use = disks.iter().filter(|disk| disk.present);
        let signs = Signs {
            settings,
            files: beside,
            images: in_use.clone().filter_map(|disk| disk.chain.first().cloned()).collect(),
            suspend,
        };
        let sum = |sizes: &mut dyn Iterator<Item = u64>| sizes.fold(0, u64::saturating_add);
        Ok(Machine {
            power: power(&signs, lock_state),
            provisioned_bytes: sum(&mut in_use.filter_map(|disk| disk.size_bytes)),
            allocated_bytes: sum(&mut draft.files.values().map(|file| file.allocated_bytes)),
            path: settings.path.clone(),
            display_name: vmx.display_name,
            guest_os: vmx.guest_os,
            uuid_bios: vmx.uuid_bios,
            uuid_location: vmx.uuid_location,
            hw_version: vmx.hw_version,
            memory_mib: vmx.memory_mib,
            vcpus: vmx.vcpus,
            firmware: vmx.firmware,
            annotations: vmx.annotations,
            template: settings.path.0.to_ascii_lowercase().ends_with(b".vmtx"),
            encrypted: vmx.encrypted,
            disks,
            drives,
            snapshots,
            files: sorted(draft.files),
            notes: draft.notes,
        })
    }

    /// Follows a name in a machine's settings.
    pub(crate) fn find(&self, settings: &File, name: &[u8], draft: &mut Draft) -> Found {
        let directory = settings.path.directory();
        self.places.find(directory, name, Beside::IfMissing).unwrap_or_else(|error| {
            let path = FilePath(name.to_vec());
            let mut note = Finding::from_error("inventory-unreadable", &error);
            note.text = format!("{path} cannot be found: {}", error.detail());
            draft.notes.push(note);
            Found { location: Location::Missing { path }, node: None }
        })
    }

    fn claim(&self, vmx: &Vmx, settings: &File, draft: &mut Draft) {
        for device in vmx.disks.iter().filter(|device| device.kind == DeviceKind::Disk) {
            let directory = settings.path.directory();
            // What fails here fails again where it is noted.
            let found = self.places.find(directory, &device.file_name, Beside::Never).ok();
            draft.claimed.extend(found.and_then(|found| found.node));
        }
    }

    fn disk(
        &self,
        device: &VmxDisk,
        settings: &File,
        images: &mut Images<'_>,
        draft: &mut Draft,
    ) -> Result<MachineDisk> {
        let file_name = String::from_utf8_lossy(&device.file_name).into_owned();
        let mut found = self.find(settings, &device.file_name, draft);
        if let (Some(node), Location::Beside { path }) = (found.node, &found.location)
            && draft.claimed.contains(&node)
        {
            found = Found { location: Location::Missing { path: path.clone() }, node: None };
        }
        if draft.chained >= self.limits.pieces_max {
            found.node = None;
            let text = format!("its disks have more than {} images", self.limits.pieces_max);
            draft.notes.push(Finding::error("inventory-too-many-images", text));
        }
        if let Some(note) = misplaced(&found.location, &file_name) {
            draft.notes.push(note.at(Place::new(device.controller.clone())));
        }
        let before = draft.notes.len();
        // A fresh set: disks of one machine may share a base, and each wants its whole chain.
        let mut known = HashSet::new();
        let chain = images.chain(&found, &mut known, &mut draft.notes)?;
        draft.chained = draft.chained.saturating_add(chain.len() as u64);
        let whole = chain
            .last()
            .is_some_and(|base| base.parent_cid.is_none() && base.parent_uuid.is_none());
        for note in draft.notes.iter_mut().skip(before).filter(|note| note.place.is_none()) {
            note.place = Some(Place::new(device.controller.clone()));
        }
        draft.known.extend(known);
        chain.iter().for_each(|image| draft.take(image));
        let mut counted = HashSet::new();
        let extents = chain.iter().flat_map(|image| &image.extents);
        let allocated_bytes = extents
            .filter(|extent| extent.node.is_some_and(|node| counted.insert(node)))
            .filter_map(|extent| extent.allocated_bytes)
            .fold(0u64, u64::saturating_add);
        Ok(MachineDisk {
            controller: device.controller.clone(),
            controller_model: device.controller_model.clone(),
            present: device.present,
            mode: device.mode.clone(),
            kind: chain.first().map(|leaf| leaf.kind),
            size_bytes: chain.first().map(|leaf| leaf.size_bytes),
            complete: whole && chain.iter().all(|image| image.complete()),
            file_name,
            location: found.location,
            allocated_bytes,
            chain,
        })
    }
}

fn misplaced(location: &Location, name: &str) -> Option<Finding> {
    let (code, text) = match location {
        Location::Here { .. } => return None,
        Location::Beside { path } => {
            let text = format!("disk {name:?} is not where it should be; {path} was taken");
            return Some(Finding::warning("inventory-disk-moved", text));
        }
        Location::Elsewhere { datastore } => {
            ("inventory-disk-elsewhere", format!("disk {name:?} is on {datastore:?}"))
        }
        Location::Missing { .. } => ("inventory-disk-missing", format!("disk {name:?} is missing")),
    };
    Some(Finding::error(code, text))
}

fn drive(device: &VmxDisk) -> Drive {
    Drive {
        controller: device.controller.clone(),
        kind: match &device.kind {
            DeviceKind::Disk => "disk".to_owned(),
            DeviceKind::CdRom => "cd-rom".to_owned(),
            DeviceKind::Floppy => "floppy".to_owned(),
            DeviceKind::Passthrough => "passthrough".to_owned(),
            DeviceKind::Other(word) => word.clone(),
        },
        present: device.present,
        file_name: String::from_utf8_lossy(&device.file_name).into_owned(),
    }
}

/// Deltas on a base of the same directory come from snapshots. Without any snapshot they are
/// left over from one that was not removed whole. (A base elsewhere makes a linked clone.)
fn note_unknown_deltas(disks: &[MachineDisk], notes: &mut Vec<Finding>) {
    for disk in disks {
        let deltas = disk
            .chain
            .windows(2)
            .filter(|pair| pair[0].path.directory() == pair[1].path.directory())
            .count();
        if deltas > 0 {
            let text = format!("the disk stands on {deltas} deltas, but no snapshot is described");
            notes.push(
                Finding::warning("inventory-consolidate", text)
                    .at(Place::new(disk.controller.clone()))
                    .advise("every image of the chain is needed; consolidate in the product"),
            );
        }
    }
}

fn sorted(files: BTreeMap<NodeId, FileInfo>) -> Vec<FileInfo> {
    let mut files: Vec<FileInfo> = files.into_values().collect();
    files.sort_by(|a, b| a.path.cmp(&b.path));
    files
}
