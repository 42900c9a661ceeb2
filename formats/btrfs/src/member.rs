//! One device of a file system.

use crate::superblock::{Superblock, uuid};
use adit_core::{Disk, Finding, Limits, Result};
use std::sync::Arc;

/// A device that carries a superblock of btrfs.
#[derive(Clone, Debug)]
pub struct Member {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) superblock: Superblock,
    pub(crate) label: String,
    pub(crate) notes: Vec<Finding>,
}

impl Member {
    /// Reads the superblock of a device.
    ///
    /// Errors: as [`Superblock::load`].
    pub fn open(disk: Arc<dyn Disk>, _limits: &Limits) -> Result<Member> {
        let (superblock, notes) = Superblock::load(disk.as_ref())?;
        let label = format!("device {}", superblock.raw.devid);
        Ok(Member { disk, superblock, label, notes })
    }

    /// Gives it the name its user knows it by.
    pub fn with_label(mut self, label: impl Into<String>) -> Member {
        let label = label.into();
        if !label.is_empty() {
            self.label = label;
        }
        self
    }

    /// Identity of the file system it belongs to.
    pub fn fsid(&self) -> String {
        uuid(&self.superblock.raw.fsid)
    }

    /// Identity of the device.
    pub fn device_uuid(&self) -> String {
        uuid(&self.superblock.raw.dev_uuid)
    }

    /// How many devices the file system has.
    pub fn device_count(&self) -> u64 {
        self.superblock.raw.num_devices
    }
}
