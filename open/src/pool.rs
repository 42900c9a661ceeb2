//! File systems that lie on several devices by themselves: btrfs.
//!
//! One device leads to the others as a member of a volume does: those the user named, and the
//! other partitions of the table it was found in.

use crate::group::{GroupFormat, GroupMember, own};
use crate::guest::Guest;
use crate::{Opened, Opener};
use adit_core::{Disk, Error, Result};
use std::any::Any;
use std::sync::Arc;

/// The devices of a btrfs. They hold a file system, never a table of volumes.
pub(crate) const BTRFS: GroupFormat = GroupFormat {
    member: "device of a btrfs",
    probe: adit_btrfs::probe,
    read: |disk, name, limits| {
        Ok(Box::new(adit_btrfs::Member::open(disk, limits)?.with_label(name)))
    },
    assemble: |_, _| Err(Error::unsupported("a btrfs is no table of volumes")),
};

impl GroupMember for adit_btrfs::Member {
    fn group(&self) -> String {
        self.fsid()
    }

    fn identity(&self) -> String {
        self.device_uuid()
    }

    fn members(&self) -> usize {
        usize::try_from(self.device_count()).unwrap_or(usize::MAX).max(1)
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

impl Opener {
    /// The file system that the disk here is a device of.
    pub(crate) fn in_pool(&self, here: &Opened, disk: Arc<dyn Disk>) -> Result<Guest> {
        let members = own(self.members_of(here, disk, &BTRFS)?);
        Ok(Guest::btrfs(adit_btrfs::Btrfs::assemble(members, &self.options().limits)?))
    }
}
