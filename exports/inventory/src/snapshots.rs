//! The snapshots of a machine, with the files they need.

use crate::catalogue::File;
use crate::images::Images;
use crate::machine::{Draft, Survey};
use crate::model::{FrozenDisk, Location, Role, SnapshotInfo, SnapshotTree};
use crate::place::Beside;
use adit_core::{FileSystemExt, Finding, Result};
use adit_vmx::{Snapshot, SnapshotDisk, Snapshots};

impl Survey<'_> {
    /// Reads the `.vmsd` beside a machine's settings, if there is one.
    ///
    /// Errors: `Interrupted`.
    pub(crate) fn snapshots(
        &self,
        settings: &File,
        images: &mut Images<'_>,
        draft: &mut Draft,
    ) -> Result<Option<SnapshotTree>> {
        let mut candidates: Vec<&File> = self
            .catalogue
            .beside(settings)
            .iter()
            .filter(|file| file.role == Role::Snapshots)
            .collect();
        candidates.sort_by_key(|file| file.stem() != settings.stem());
        let Some(file) = candidates.first() else { return Ok(None) };
        let read = self
            .fs
            .read_file(file.node, self.limits.text_bytes_max)
            .and_then(|text| Snapshots::parse(&text, self.limits));
        let snapshots = match read {
            Ok(snapshots) => snapshots,
            Err(error) => {
                let mut note = Finding::from_error("inventory-snapshots-unreadable", &error);
                note.text = format!("{} cannot be read: {}", file.path, error.detail());
                draft.notes.push(note);
                return Ok(None);
            }
        };
        draft.notes.extend(snapshots.problems);
        let mut roots = Vec::with_capacity(snapshots.roots.len());
        for root in &snapshots.roots {
            roots.push(self.snapshot(root, settings, images, draft)?);
        }
        Ok(Some(SnapshotTree { path: file.path.clone(), current: snapshots.current, roots }))
    }

    /// One snapshot and those below it, as deep as the parser let them be.
    fn snapshot(
        &self,
        snapshot: &Snapshot,
        settings: &File,
        images: &mut Images<'_>,
        draft: &mut Draft,
    ) -> Result<SnapshotInfo> {
        let mut disks = Vec::with_capacity(snapshot.disks.len());
        for disk in &snapshot.disks {
            disks.push(self.frozen(disk, snapshot, settings, images, draft)?);
        }
        if let Some(name) = &snapshot.state_file
            && let Ok(found) = self.places.find(settings.path.directory(), name, Beside::IfMissing)
            && found.node.is_none()
        {
            let text = format!(
                "the state of snapshot {:?}, {:?}, is missing",
                snapshot.name,
                String::from_utf8_lossy(name)
            );
            draft.notes.push(Finding::warning("inventory-snapshot-state-missing", text));
        }
        let mut children = Vec::with_capacity(snapshot.children.len());
        for child in &snapshot.children {
            children.push(self.snapshot(child, settings, images, draft)?);
        }
        Ok(SnapshotInfo {
            uid: snapshot.uid,
            name: snapshot.name.clone(),
            description: snapshot.description.clone(),
            created: snapshot.created.map(|created| created.seconds),
            state_file: snapshot
                .state_file
                .as_deref()
                .map(|name| String::from_utf8_lossy(name).into_owned()),
            disks,
            children,
        })
    }

    fn frozen(
        &self,
        disk: &SnapshotDisk,
        snapshot: &Snapshot,
        settings: &File,
        images: &mut Images<'_>,
        draft: &mut Draft,
    ) -> Result<FrozenDisk> {
        let file_name = String::from_utf8_lossy(&disk.file_name).into_owned();
        let found = self.find(settings, &disk.file_name, draft);
        if found.node.is_none() && matches!(found.location, Location::Missing { .. }) {
            let text = format!("disk {file_name:?} of snapshot {:?} is missing", snapshot.name);
            draft.notes.push(Finding::error("inventory-snapshot-disk-missing", text));
        }
        // Chains of the present disks were walked before; here only what branches off is new.
        let chain = images.chain(&found, &mut draft.known, &mut draft.notes)?;
        chain.iter().for_each(|image| draft.take(image));
        Ok(FrozenDisk { controller: disk.node.clone(), file_name, location: found.location })
    }
}
