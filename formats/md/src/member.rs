//! One device of an array.

use crate::layout::MAGIC;
use crate::superblock::{Role, Superblock, Version};
use adit_core::bytes::u32_le;
use adit_core::{Disk, DiskExt, Error, Finding, Limits, Place, Problem, Result};
use std::sync::Arc;

/// Whether `disk` is a member of an md array. Reads four bytes at up to four places.
///
/// Errors: those of reading; a disk too short to be one is no error.
pub fn probe(disk: &Arc<dyn Disk>) -> Result<bool> {
    for version in Version::ALL {
        let Some(at) = version.at(disk.size_bytes()) else { continue };
        let head = disk.read_prefix(at, 12)?;
        let major = u32_le(&head, 4);
        let fits = match version {
            Version::V0_90 => major == Some(0) && matches!(u32_le(&head, 8), Some(90 | 91)),
            _ => major == Some(1),
        };
        if u32_le(&head, 0) == Some(MAGIC) && fits {
            return Ok(true);
        }
    }
    Ok(false)
}

/// One device of an array, read.
#[derive(Clone, Debug)]
pub struct Member {
    pub(crate) label: String,
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) superblock: Superblock,
    pub(crate) notes: Vec<Finding>,
}

impl Member {
    /// Reads the superblock of a device. Where there are several whole ones, as after an array
    /// was made anew, the one that was updated last is taken and the others noted.
    ///
    /// Errors: `Corrupt` when the only superblock is damaged; `Unsupported` for unknown features;
    /// `Limit`.
    pub fn open(disk: Arc<dyn Disk>, limits: &Limits) -> Result<Member> {
        let mut whole: Vec<Superblock> = Vec::new();
        let mut problem = None;
        for version in Version::ALL {
            match Superblock::read(&disk, version) {
                Ok(found) => whole.extend(found),
                Err(error) => problem = problem.or(Some(error)),
            }
        }
        // The first of equals: `max_by_key` would take the last.
        whole.reverse();
        let newest = whole.iter().max_by_key(|superblock| superblock.updated).cloned();
        let Some(superblock) = newest else {
            return Err(problem.unwrap_or_else(|| {
                Error::corrupt(Problem::BadMagic, "there is no md superblock")
                    .at(Place::new("md superblock"))
            }));
        };
        if u64::from(superblock.raid_disks) > limits.members_max {
            let detail = format!("an array of {} members", superblock.raid_disks);
            return Err(Error::limit("members_max", detail));
        }
        let mut notes = Vec::new();
        let label = format!("device {}", superblock.device_uuid);
        for other in whole.iter().filter(|other| other.version != superblock.version) {
            let text = format!(
                "{label} also holds a superblock {} of array {}; the newer one, {}, is used",
                other.version, other.array_uuid, superblock.version
            );
            notes.push(Finding::warning("md-superblocks", text));
        }
        if let Some(error) = problem {
            let mut note = Finding::from_error("md-superblock-damaged", &error);
            note.severity = adit_core::Severity::Warning;
            notes.push(note);
        }
        Ok(Member { label, disk, superblock, notes })
    }

    /// Names the device as a person knows it, for messages.
    pub fn with_label(mut self, label: impl Into<String>) -> Self {
        self.label = label.into();
        self
    }

    /// How a person knows the device.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// The device itself.
    pub fn disk(&self) -> &Arc<dyn Disk> {
        &self.disk
    }

    /// UUID of the array, as mdadm prints it.
    pub fn array_uuid(&self) -> &str {
        &self.superblock.array_uuid
    }

    /// UUID of the device, as mdadm prints it; for version 0.90 its number in the array.
    pub fn device_uuid(&self) -> &str {
        &self.superblock.device_uuid
    }

    /// How many members the array has, spares not counted.
    pub fn member_count(&self) -> u32 {
        self.superblock.raid_disks
    }

    /// What the device is in the array, by its own superblock.
    pub fn role(&self) -> Role {
        self.superblock.role()
    }

    /// Version of its superblock.
    pub fn version(&self) -> Version {
        self.superblock.version
    }

    /// Counts the changes of the array's state; members that are behind are stale.
    pub fn events(&self) -> u64 {
        self.superblock.events
    }
}
