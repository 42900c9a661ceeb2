//! Lock blocks: who may change a cluster or a file.

use crate::heartbeat::{Heartbeat, HeartbeatRegion};
use crate::layout::{LOCK_TYPE, LockRaw};
use adit_core::{Result, on_disk, vmware_uuid};

on_disk! {
    /// One holder of a shared lock.
    pub struct LockHolder (32 bytes, little_endian) {
        /// Heartbeat slot of the holder. Unit: bytes of the volume.
        0x00 heartbeat_offset: u64,
        /// Generation of that slot.
        0x08 heartbeat_generation: u64,
        /// The host.
        0x10 owner: [u8; 16],
    }
}

/// What a lock guards; the low bits of its type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LockKind {
    /// A file descriptor.
    Descriptor,
    /// A cluster of file blocks, on VMFS6 of small file blocks.
    FileBlocks,
    /// A cluster of sub-blocks.
    SubBlocks,
    /// A cluster of pointer blocks.
    PointerBlocks,
    /// A cluster of file descriptors.
    Descriptors,
    /// A cluster of secondary pointer blocks.
    SecondaryPointerBlocks,
    /// A cluster of journal blocks.
    JournalBlocks,
    /// A cluster of large file blocks.
    LargeFileBlocks,
    /// A slot of the unmap file.
    Unmap,
}

impl LockKind {
    /// The type field of such a lock.
    pub fn type_value(self) -> u32 {
        LOCK_TYPE
            | match self {
                LockKind::Descriptor => 1,
                LockKind::FileBlocks => 2,
                LockKind::SubBlocks => 3,
                LockKind::PointerBlocks => 4,
                LockKind::Descriptors => 5,
                LockKind::SecondaryPointerBlocks => 6,
                LockKind::JournalBlocks => 7,
                LockKind::LargeFileBlocks => 8,
                LockKind::Unmap => 9,
            }
    }

    /// The kind a type field stands for.
    pub fn of(type_value: u32) -> Option<LockKind> {
        use LockKind::*;
        [
            Descriptor,
            FileBlocks,
            SubBlocks,
            PointerBlocks,
            Descriptors,
            SecondaryPointerBlocks,
            JournalBlocks,
            LargeFileBlocks,
            Unmap,
        ]
        .into_iter()
        .find(|kind| kind.type_value() == type_value)
    }
}

/// How a lock is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockMode {
    /// By nobody.
    Free,
    /// By one host.
    Exclusive,
    /// By readers.
    SharedReadOnly,
    /// By several writers.
    MultiWriter,
    /// A value no version explains.
    Unknown(u32),
}

impl LockMode {
    /// The mode a field stands for.
    pub fn of(value: u32) -> LockMode {
        match value {
            0 => LockMode::Free,
            1 => LockMode::Exclusive,
            2 => LockMode::SharedReadOnly,
            3 => LockMode::MultiWriter,
            other => LockMode::Unknown(other),
        }
    }

    /// The stable lower-case word used in text and `--json`.
    pub fn word(self) -> &'static str {
        match self {
            LockMode::Free => "free",
            LockMode::Exclusive => "exclusive",
            LockMode::SharedReadOnly => "shared-read-only",
            LockMode::MultiWriter => "multi-writer",
            LockMode::Unknown(_) => "unknown",
        }
    }
}

/// Who a lock names as its holder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// The host as VMware prints it, empty if the lock names none.
    pub host_uuid: String,
    /// The host's IP address, empty if its heartbeat is gone or holds none.
    pub ip: String,
    /// Its heartbeat slot. Unit: bytes of the volume.
    pub heartbeat_offset: u64,
    /// Generation of the slot when the lock was taken.
    pub heartbeat_generation: u64,
    /// Whether that slot is still in use in the same generation.
    pub live: bool,
}

/// Whether a lock is held as far as an image can tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hold {
    /// Nobody holds it.
    Free,
    /// The holder's heartbeat is in use in the same generation.
    Held,
    /// The holder's heartbeat is free or belongs to a later generation: the host is gone.
    Stale,
}

impl Hold {
    /// The stable lower-case word used in text and `--json`.
    pub fn word(self) -> &'static str {
        match self {
            Hold::Free => "free",
            Hold::Held => "held",
            Hold::Stale => "stale",
        }
    }
}

/// A lock, judged by the heartbeat table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LockState {
    /// How it is taken.
    pub mode: LockMode,
    /// Whom it names; several for shared modes, none when free.
    pub holders: Vec<Holder>,
    /// Whether it is held.
    pub state: Hold,
    /// Where the lock block is. Unit: bytes of the volume.
    pub offset: u64,
}

impl LockState {
    /// The first holder, the only one of an exclusive lock.
    pub fn holder(&self) -> Option<&Holder> {
        self.holders.first()
    }
}

impl LockRaw {
    /// What it guards, if the type is known.
    pub fn lock_kind(&self) -> Option<LockKind> {
        LockKind::of(self.lock_type)
    }

    /// The holders a shared lock lists, at most the eight there is room for.
    pub fn listed_holders(&self) -> Vec<LockHolder> {
        let count = adit_core::bytes::index(self.holders);
        let raw = self.holder_list.chunks_exact(LockHolder::SIZE).take(count);
        raw.filter_map(|raw| LockHolder::read(raw).ok()).collect()
    }

    /// Whether it is held, by the rule hosts use: mode not 0, and the slot it names in use in
    /// the same generation.
    ///
    /// `heartbeats` are all slots in order, as [`crate::heartbeat::heartbeats`] reads them.
    pub fn judge(&self, region: HeartbeatRegion, heartbeats: &[Heartbeat]) -> LockState {
        let mode = LockMode::of(self.mode);
        let mut holders = Vec::new();
        if mode != LockMode::Free {
            let first = LockHolder {
                heartbeat_offset: self.heartbeat_offset,
                heartbeat_generation: self.heartbeat_generation,
                owner: self.owner,
            };
            let mut named = vec![first];
            for listed in self.listed_holders() {
                if !named.contains(&listed) {
                    named.push(listed);
                }
            }
            // A shared lock may name its holders in the list alone.
            if named.len() > 1 {
                named.retain(|holder| holder.heartbeat_offset != 0);
            }
            holders = named.iter().map(|holder| holder.judge(region, heartbeats)).collect();
        }
        let state = match mode {
            LockMode::Free => Hold::Free,
            _ if holders.iter().any(|holder| holder.live) => Hold::Held,
            _ => Hold::Stale,
        };
        LockState { mode, holders, state, offset: self.offset }
    }
}

impl LockHolder {
    fn judge(&self, region: HeartbeatRegion, heartbeats: &[Heartbeat]) -> Holder {
        let slot = region
            .slot_at(self.heartbeat_offset)
            .filter(|&slot| region.offset_of(slot) == self.heartbeat_offset)
            .and_then(|slot| heartbeats.get(adit_core::bytes::index(slot)));
        let same = slot.filter(|slot| slot.slot.generation == self.heartbeat_generation);
        let named = self.owner != [0; 16];
        Holder {
            host_uuid: if named { vmware_uuid(&self.owner) } else { String::new() },
            ip: same.map(Heartbeat::ip).unwrap_or_default(),
            heartbeat_offset: self.heartbeat_offset,
            heartbeat_generation: self.heartbeat_generation,
            live: same.is_some_and(Heartbeat::in_use),
        }
    }
}

/// Decodes a lock block and judges it in one step.
///
/// Errors: `Corrupt` when `raw` is shorter than a lock block.
pub fn lock_state(
    raw: &[u8],
    region: HeartbeatRegion,
    heartbeats: &[Heartbeat],
) -> Result<LockState> {
    Ok(LockRaw::read(raw)?.judge(region, heartbeats))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::heartbeat::HeartbeatSlot;

    fn slots(state: u32, generation: u64) -> Vec<Heartbeat> {
        let mut raw = vec![0; 512];
        raw[..4].copy_from_slice(&state.to_le_bytes());
        raw[0x0c..0x14].copy_from_slice(&generation.to_le_bytes());
        raw[0x36..0x3e].copy_from_slice(b"10.1.2.3");
        let slot = HeartbeatSlot::read(&raw).unwrap();
        let region = HeartbeatRegion::of(24, 4096);
        (0..region.slots)
            .map(|index| Heartbeat { index, offset: region.offset_of(index), slot: slot.clone() })
            .collect()
    }

    fn lock(mode: u32) -> Vec<u8> {
        let mut raw = vec![0; 512];
        raw[..4].copy_from_slice(&0x10C0_0001u32.to_le_bytes());
        raw[0x0c..0x14].copy_from_slice(&0x34_0000u64.to_le_bytes());
        raw[0x14] = 5;
        raw[0x24] = mode.to_le_bytes()[0];
        raw[0x28..0x38].copy_from_slice(&[0x11; 16]);
        raw
    }

    fn state(raw: &[u8], slots: &[Heartbeat]) -> LockState {
        lock_state(raw, HeartbeatRegion::of(24, 4096), slots).unwrap()
    }

    #[test]
    fn a_lock_is_held_while_its_slot_lives_in_the_same_generation() {
        let held = state(&lock(1), &slots(0xABCD_EF02, 5));
        assert_eq!((held.state, held.mode), (Hold::Held, LockMode::Exclusive));
        assert_eq!(held.holder().unwrap().ip, "10.1.2.3");
        assert_eq!(held.holder().unwrap().host_uuid, "11111111-11111111-1111-111111111111");
    }

    #[test]
    fn a_lock_of_a_free_or_later_slot_is_stale() {
        assert_eq!(state(&lock(1), &slots(0xABCD_EF01, 5)).state, Hold::Stale);
        assert_eq!(state(&lock(1), &slots(0xABCD_EF02, 6)).state, Hold::Stale);
    }

    #[test]
    fn a_free_lock_keeps_the_slot_of_its_last_holder_and_is_free_all_the_same() {
        let free = state(&lock(0), &slots(0xABCD_EF02, 5));
        assert_eq!((free.state, free.holder()), (Hold::Free, None));
    }

    #[test]
    fn a_shared_lock_lists_its_holders_and_a_hostile_count_is_bounded() {
        let mut raw = lock(2);
        raw[0x0c..0x14].fill(0);
        raw[0x40..0x44].fill(0xff);
        raw[0x44..0x4c].copy_from_slice(&0x34_0000u64.to_le_bytes());
        raw[0x4c] = 5;
        raw[0x54..0x64].fill(0x22);
        let shared = state(&raw, &slots(0xABCD_EF02, 5));
        assert_eq!((shared.state, shared.mode), (Hold::Held, LockMode::SharedReadOnly));
        assert_eq!(shared.holders.len(), 1);
        assert_eq!(LockRaw::read(&raw).unwrap().listed_holders().len(), 8);
    }

    #[test]
    fn a_slot_offset_outside_the_region_is_no_holder_alive() {
        let mut raw = lock(1);
        raw[0x0c..0x14].fill(0xff);
        assert_eq!(state(&raw, &slots(0xABCD_EF02, 5)).state, Hold::Stale);
    }

    #[test]
    fn every_kind_has_its_own_type_value() {
        for low in 1..=9u32 {
            let value = 0x10C0_0000 | low;
            assert_eq!(LockKind::of(value).unwrap().type_value(), value);
        }
        assert_eq!(LockKind::of(0x10C0_000A), None);
    }
}
