//! Heartbeats: which hosts had the volume open, and where their journals are.
//!
//! A host that has the volume open rewrites its slot about every three seconds. An image shows
//! one moment of that: a slot in use says that the volume *was* open when it was copied, never
//! that somebody uses it now. Only [`watch`] on a live device can tell.

use crate::layout::HEARTBEAT_OFFSET;
use adit_core::bytes::{narrow, until_nul, wide};
use adit_core::{Disk, DiskExt, Finding, Interrupt, Place, Result, on_disk, vmware_uuid};
use std::sync::Arc;
use std::time::{Duration, Instant};

const STATE_FREE: u32 = 0xABCD_EF01;
const STATE_IN_USE: u32 = 0xABCD_EF02;

on_disk! {
    /// A heartbeat slot.
    pub struct HeartbeatSlot (512 bytes, little_endian) {
        /// 0xABCDEF01 free, 0xABCDEF02 in use.
        0x00 state: u32,
        /// Its own place. Unit: bytes of the volume.
        0x04 offset: u64,
        /// One more at every change of state.
        0x0c generation: u64,
        /// When the slot was last rewritten. Unit: µs of the host's uptime.
        0x14 stamp_us: u64,
        /// The host that holds the slot, zero when free.
        0x1c owner: [u8; 16],
        /// Address of the host's journal: a file block, on VMFS6 a journal block.
        0x2c journal_address: u32,
        /// Raw major version of the host's driver.
        0x30 driver_major: u32,
        /// Minor version of the host's driver.
        0x34 driver_minor: u8,
        /// How the host locks: 0 VMFS3, 3 shared VMFS 5 and 6, 1 local volumes.
        0x35 lock_implementation: u8,
        /// The host's IP address as text.
        0x36 ip: [u8; 46],
        /// Where the journal is. Unit: bytes of the volume.
        0x64 journal_offset: u64,
        /// The host that replays the journal of a dead one.
        0x6c replaying_host: [u8; 16],
        /// Heartbeat slot of the replaying host. Unit: bytes of the volume.
        0x94 replaying_heartbeat: u64,
        /// Generation of that slot.
        0x9c replaying_generation: u64,
    }
}

/// What a slot says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeartbeatState {
    /// Nobody holds it.
    Free,
    /// A host holds it, or held it when the volume was copied.
    InUse,
    /// Neither of the two known values; a third, "being replayed", is said to exist.
    Unknown(u32),
}

/// One slot of the heartbeat region.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    /// Number of the slot.
    pub index: u32,
    /// Where it was read. Unit: bytes of the volume.
    pub offset: u64,
    /// Its fields.
    pub slot: HeartbeatSlot,
}

impl Heartbeat {
    /// What the slot says of itself.
    pub fn state(&self) -> HeartbeatState {
        match self.slot.state {
            STATE_FREE => HeartbeatState::Free,
            STATE_IN_USE => HeartbeatState::InUse,
            other => HeartbeatState::Unknown(other),
        }
    }

    /// Whether a host holds it, or held it when the volume was copied.
    pub fn in_use(&self) -> bool {
        self.state() == HeartbeatState::InUse
    }

    /// Whether some host ever used the slot.
    pub fn ever_used(&self) -> bool {
        self.slot.generation != 0 || self.state() != HeartbeatState::Free
    }

    /// The holder's identity as VMware prints it, empty if there is none.
    pub fn owner_uuid(&self) -> String {
        if self.slot.owner == [0; 16] { String::new() } else { vmware_uuid(&self.slot.owner) }
    }

    /// The IP address of the last holder, empty if it left none.
    pub fn ip(&self) -> String {
        let text = String::from_utf8_lossy(until_nul(&self.slot.ip));
        text.chars().filter(|c| !c.is_control()).collect()
    }

    /// Uptime of the host at its last heartbeat.
    pub fn uptime(&self) -> Duration {
        Duration::from_micros(self.slot.stamp_us)
    }

    /// Where the host's journal is, if it has one. Unit: bytes of the volume.
    pub fn journal_offset(&self) -> Option<u64> {
        (self.in_use() && self.slot.journal_address != 0).then_some(self.slot.journal_offset)
    }

    /// The host in a person's words: identity and, if known, address.
    pub fn host(&self) -> String {
        let uuid = match self.owner_uuid() {
            none if none.is_empty() => "an unnamed host".to_owned(),
            uuid => format!("host {uuid}"),
        };
        match self.ip() {
            none if none.is_empty() => uuid,
            ip => format!("{uuid} ({ip})"),
        }
    }

    /// The slot as a place in the volume.
    pub fn place(&self) -> Place {
        Place::new("heartbeat").index(self.index.into()).byte(self.offset)
    }
}

/// Shape of the heartbeat region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeartbeatRegion {
    /// Distance from slot to slot. Unit: bytes.
    pub slot_size_bytes: u64,
    /// Number of slots.
    pub slots: u32,
}

impl HeartbeatRegion {
    /// The region of a volume of this raw major version.
    ///
    /// Units: `mda_bytes` is the metadata alignment, which VMFS 3 and 5 do not have.
    pub fn of(major: u32, mda_bytes: u64) -> Self {
        if major >= 24 {
            HeartbeatRegion { slot_size_bytes: mda_bytes.max(512), slots: 1024 }
        } else {
            HeartbeatRegion { slot_size_bytes: 512, slots: 2048 }
        }
    }

    /// Length of the region. Unit: bytes.
    pub fn size_bytes(&self) -> u64 {
        self.slot_size_bytes.saturating_mul(self.slots.into())
    }

    /// Number of the slot that holds this byte of the volume.
    pub fn slot_at(&self, volume_offset: u64) -> Option<u32> {
        let within = volume_offset.checked_sub(HEARTBEAT_OFFSET)?;
        let slot = u32::try_from(within.checked_div(self.slot_size_bytes)?).ok()?;
        (slot < self.slots).then_some(slot)
    }

    /// Where a slot is. Unit: bytes of the volume.
    pub fn offset_of(&self, slot: u32) -> u64 {
        HEARTBEAT_OFFSET.saturating_add(self.slot_size_bytes.saturating_mul(u64::from(slot)))
    }
}

/// Reads every slot, in large reads.
///
/// Errors: those of the volume.
pub fn heartbeats(volume: &dyn Disk, region: HeartbeatRegion) -> Result<Vec<Heartbeat>> {
    const READ_BYTES: u64 = 1 << 20;
    let slot_bytes = narrow(region.slot_size_bytes).unwrap_or(usize::MAX).max(512);
    let per_read = READ_BYTES.checked_div(wide(slot_bytes)).unwrap_or(1).max(1);
    let mut found = Vec::new();
    let mut next = 0;
    while next < region.slots {
        let slots = u32::try_from(per_read).unwrap_or(1).min(region.slots.saturating_sub(next));
        let length = slot_bytes.saturating_mul(adit_core::bytes::index(slots));
        let bytes = volume.read_vec(region.offset_of(next), length)?;
        for (index, raw) in (next..).zip(bytes.chunks_exact(slot_bytes)) {
            let slot = HeartbeatSlot::read(raw)?;
            found.push(Heartbeat { index, offset: region.offset_of(index), slot });
        }
        next = next.saturating_add(slots);
    }
    Ok(found)
}

/// Reads the slots twice, `pause` apart, and gives those that changed: hosts that live now.
///
/// A host rewrites its slot about every 3 s and counts as dead after 16 s. The disk must not
/// answer from a cache of its own, or nothing ever changes.
/// Errors: those of the volume; `Interrupted`.
pub fn watch(
    volume: &Arc<dyn Disk>,
    region: HeartbeatRegion,
    pause: Duration,
    interrupt: &Interrupt,
) -> Result<Vec<Heartbeat>> {
    const STEP: Duration = Duration::from_millis(50);
    let before = heartbeats(volume.as_ref(), region)?;
    let start = Instant::now();
    while let Some(left) = pause.checked_sub(start.elapsed()).filter(|left| !left.is_zero()) {
        interrupt.check()?;
        std::thread::sleep(left.min(STEP));
    }
    let after = heartbeats(volume.as_ref(), region)?;
    let changed = before.iter().zip(after).filter(|(old, new)| old.slot != new.slot);
    Ok(changed.map(|(_, new)| new).collect())
}

/// What heartbeats say of the use the volume was in: `vmfs-in-use` and, for a value no version
/// explains, `vmfs-heartbeat-state`.
pub fn in_use_notes(heartbeats: &[Heartbeat]) -> Vec<Finding> {
    heartbeats.iter().filter_map(in_use_note).collect()
}

fn in_use_note(heartbeat: &Heartbeat) -> Option<Finding> {
    let finding = match heartbeat.state() {
        HeartbeatState::Free => return None,
        HeartbeatState::InUse => Finding::info(
            "vmfs-in-use",
            format!(
                "{} had the volume open when this copy was made, or has it open now",
                heartbeat.host()
            ),
        )
        .advise("normal for a copy of a LUN; on a live device, files that are written now may read torn"),
        HeartbeatState::Unknown(state) => Finding::warning(
            "vmfs-heartbeat-state",
            format!("state {state:#010x} is neither free nor in use; a host may be replaying a journal"),
        ),
    };
    Some(finding.at(heartbeat.place()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use adit_core::MemoryDisk;

    /// A slot as a host wrote it, found in a VMFS5 volume of an ESXi host.
    fn slot_bytes() -> Vec<u8> {
        let mut raw = vec![0; 512];
        let head = [
            0x02, 0xef, 0xcd, 0xab, 0x00, 0x20, 0x34, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 0xfd,
            0xa0, 0xf3, 0xa2, 0x38, 0, 0, 0, 0xeb, 0xb8, 0x5e, 0x68, 0x90, 0x38, 0x3e, 0x7f, 0x44,
            0x45, 0xbc, 0x24, 0x11, 0xb1, 0x7e, 0x28, 0xc1, 0x7e, 1, 0, 0x0e, 0, 0, 0, 0x51, 3,
        ];
        raw[..head.len()].copy_from_slice(&head);
        raw[0x36..0x40].copy_from_slice(b"10.0.0.229");
        raw[0x64..0x6c].copy_from_slice(&0x5fb0_0000u64.to_le_bytes());
        raw
    }

    #[test]
    fn a_slot_in_use_names_its_host_and_journal() {
        let slot = HeartbeatSlot::read(&slot_bytes()).unwrap();
        let heartbeat = Heartbeat { index: 528, offset: 0x34_2000, slot };
        assert!(heartbeat.in_use());
        assert_eq!(heartbeat.host(), "host 685eb8eb-7f3e3890-4544-bc2411b17e28 (10.0.0.229)");
        assert_eq!(heartbeat.journal_offset(), Some(0x5fb0_0000));
        assert_eq!(heartbeat.slot.generation, 5);
        assert_eq!(heartbeat.uptime().as_secs(), 243_252);
        assert_eq!(heartbeat.slot.offset, heartbeat.offset);
    }

    #[test]
    fn all_slots_are_read_and_found_at_their_own_place() {
        let region = HeartbeatRegion::of(14, 0);
        let mut volume = vec![0u8; 0x40_0000];
        let at = usize::try_from(region.offset_of(528)).unwrap();
        volume[at..at + 512].copy_from_slice(&slot_bytes());
        let disk = MemoryDisk::open("volume", volume);
        let all = heartbeats(disk.as_ref(), region).unwrap();
        assert_eq!(all.len(), 2048);
        assert_eq!(all.iter().filter(|h| h.in_use()).count(), 1);
        assert_eq!(all[528].slot.offset, all[528].offset);
        assert_eq!(region.slot_at(0x34_2001), Some(528));
        assert_eq!(region.slot_at(0x40_0000), None);
    }

    #[test]
    fn a_volume_that_ends_inside_the_region_is_an_error_not_a_panic() {
        let disk = MemoryDisk::open("volume", vec![0; 0x30_1000]);
        assert!(heartbeats(disk.as_ref(), HeartbeatRegion::of(24, 4096)).is_err());
    }

    #[test]
    fn a_disk_nobody_writes_to_shows_no_changed_slot() {
        let disk = MemoryDisk::open("volume", vec![0; 0x40_0000]);
        let region = HeartbeatRegion::of(14, 0);
        let changed = watch(&disk, region, Duration::from_millis(1), &Interrupt::default());
        assert_eq!(changed.unwrap(), []);
    }

    #[test]
    fn use_is_information_and_an_unknown_state_a_warning() {
        let mut slot = HeartbeatSlot::read(&slot_bytes()).unwrap();
        let in_use = Heartbeat { index: 0, offset: 0x30_0000, slot: slot.clone() };
        slot.state = 0xABCD_EF03;
        let odd = Heartbeat { index: 1, offset: 0x30_0200, slot };
        let codes: Vec<_> = in_use_notes(&[in_use, odd]).iter().map(|f| f.code).collect();
        assert_eq!(codes, ["vmfs-in-use", "vmfs-heartbeat-state"]);
    }
}
