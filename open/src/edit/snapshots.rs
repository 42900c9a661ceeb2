//! Snapshots that an image keeps inside itself.

use super::{Risks, open_file, qcow};
use crate::Opener;
use crate::formats::recognise_image;
use adit_core::{Error, Result, WritableImage};
use std::path::Path;

/// What to do with a snapshot inside an image.
#[derive(Clone, Copy, Debug)]
pub enum SnapshotWork<'a> {
    /// Take one of this name.
    Take(&'a str),
    /// Delete the one with this id, or else this name.
    Delete(&'a str),
    /// Return the disk to it; what was written since is gone.
    Apply(&'a str),
}

/// A snapshot inside an image.
#[derive(Clone, Debug)]
pub struct InnerSnapshot {
    /// Unique within the image.
    pub id: String,
    /// What the user called it.
    pub name: String,
    /// When it was taken. Unit: seconds since 1970.
    pub seconds: u32,
    /// Length of the disk then. Unit: bytes.
    pub size_bytes: u64,
    /// State of the machine stored with it. Unit: bytes.
    pub state_bytes: u64,
}

impl Opener {
    /// Takes, deletes or applies a snapshot inside an image.
    ///
    /// Errors: as [`Opener::edit`]; `Unsupported` for formats that keep none inside; `NotFound`.
    pub fn snapshot_inside(&self, path: &Path, risks: Risks, work: SnapshotWork<'_>) -> Result<()> {
        self.refuse_without_snapshots(path)?;
        if !risks.children && matches!(work, SnapshotWork::Apply(_)) {
            self.refuse_parents(path)?;
        }
        let file = open_file(path, risks)?;
        let parent = self.below(path)?.parent.map(|(_, chain)| chain.disk);
        self.with_given(path, file, parent, risks, |given| {
            let image = qcow::open(given)?;
            match work {
                SnapshotWork::Take(name) => image.create_snapshot(name)?,
                SnapshotWork::Delete(name) => image.delete_snapshot(name)?,
                SnapshotWork::Apply(name) => image.apply_snapshot(name)?,
            }
            image.close()
        })
    }

    /// The snapshots inside an image, in the order of its table.
    ///
    /// Errors: those of reading it; `Unsupported` for formats that keep none inside.
    pub fn snapshots_inside(&self, path: &Path) -> Result<Vec<InnerSnapshot>> {
        self.refuse_without_snapshots(path)?;
        let file = self.host_source(path)?.disk;
        let list = adit_qcow::Image::open(file, &self.options().limits)?.snapshots()?;
        let shown = |one: adit_qcow::Snapshot| InnerSnapshot {
            id: one.id_text(),
            name: one.name_text(),
            seconds: one.date_seconds,
            size_bytes: one.disk_size_bytes,
            state_bytes: one.vm_state_bytes,
        };
        Ok(list.into_iter().map(shown).collect())
    }

    fn refuse_without_snapshots(&self, path: &Path) -> Result<()> {
        let source = self.host_source(path)?;
        match recognise_image(&source.disk)? {
            Some(format) if format.name == "qcow" => Ok(()),
            format => {
                let what = format.map_or("a raw disk", |format| format.title);
                Err(Error::unsupported(format!("{what} keeps no snapshots inside"))
                    .in_layer(path.display().to_string())
                    .advise("`adit snapshot IMAGE OVERLAY` takes one beside it"))
            }
        }
    }
}
