//! Who uses the volume, or did when it was copied: heartbeats, locks, journals.

use crate::address::FdAddress;
use crate::heartbeat::{Heartbeat, HeartbeatRegion, heartbeats, in_use_notes, watch};
use crate::journal::{Journal, journal_notes, journal_of};
use crate::lock::LockState;
use crate::superblock::Version;
use crate::vmfs::Vmfs;
use adit_core::{Finding, Interrupt, NodeId, Place, Result};
use std::time::Duration;

impl Vmfs {
    /// Shape of the heartbeat region.
    pub fn heartbeat_region(&self) -> HeartbeatRegion {
        let (_, slots, slot_size_bytes) = self.superblock().heartbeats();
        HeartbeatRegion { slot_size_bytes, slots: u32::try_from(slots).unwrap_or(0) }
    }

    /// Every heartbeat slot, in order, read now.
    ///
    /// Errors: those of the volume.
    pub fn heartbeats(&self) -> Result<Vec<Heartbeat>> {
        heartbeats(self.volume().as_ref(), self.heartbeat_region())
    }

    /// Reads the heartbeats twice, `pause` apart, and gives those that changed: hosts that have
    /// the volume open now. An image never changes; 16 s are enough for any live host.
    ///
    /// Errors: those of the volume; `Interrupted`.
    pub fn live_heartbeats(
        &self,
        pause: Duration,
        interrupt: &Interrupt,
    ) -> Result<Vec<Heartbeat>> {
        watch(self.volume(), self.heartbeat_region(), pause, interrupt)
    }

    /// The lock of a node, judged by the heartbeats as they are now.
    ///
    /// Errors: `NotFound`; those of the volume.
    pub fn lock(&self, node: NodeId) -> Result<LockState> {
        let fd = self.descriptor(FdAddress::of_node(node)?)?;
        Ok(fd.lock()?.judge(self.heartbeat_region(), &self.heartbeats()?))
    }

    /// The journal a heartbeat names, compared with the disk. `None` if it names none.
    ///
    /// Errors: `Corrupt` when its records contradict themselves; those of the volume.
    pub fn journal(&self, heartbeat: &Heartbeat) -> Result<Option<Journal>> {
        let (major, size_bytes) = (self.superblock().raw.major, self.journal_size_bytes());
        journal_of(self.volume().as_ref(), heartbeat, major, size_bytes)
    }

    /// Size of a journal: one file block, on VMFS6 a journal block. Unit: bytes.
    fn journal_size_bytes(&self) -> u64 {
        match self.superblock().version {
            Version::Vmfs6 => self.superblock().raw.journal_block_size.into(),
            _ => self.superblock().block_size.get(),
        }
    }

    /// What heartbeats and journals say: `vmfs-in-use`, `vmfs-heartbeat-state`,
    /// `vmfs-journal-pending`, `vmfs-journal-differs`, `vmfs-journal-damaged`.
    pub(crate) fn read_use_notes(&self) -> Vec<Finding> {
        let slots = match self.heartbeats() {
            Ok(slots) => slots,
            Err(error) => {
                let mut note = Finding::from_error("vmfs-heartbeats-unreadable", &error);
                note.severity = adit_core::Severity::Warning;
                note.place.get_or_insert_with(|| Place::new("heartbeat region"));
                return vec![note];
            }
        };
        let mut notes = in_use_notes(&slots);
        let (major, size_bytes) = (self.superblock().raw.major, self.journal_size_bytes());
        notes.extend(journal_notes(self.volume().as_ref(), &slots, major, size_bytes));
        notes
    }
}
