//! Heartbeats, and the locks that name them.

use super::Checker;
use super::pointers::Claim;
use crate::heartbeat::{Heartbeat, HeartbeatState, heartbeats};
use crate::layout::LockRaw;
use crate::lock::{Hold, LockKind, LockMode};
use adit_core::{Finding, Place, Result};

impl Checker<'_> {
    pub(super) fn heartbeats(&mut self) -> Result<()> {
        let slots = match heartbeats(self.fs.volume().as_ref(), self.region()) {
            Ok(slots) => slots,
            Err(error) => {
                let place = Place::new("heartbeat region");
                return self.failed("vmfs-heartbeats-unreadable", place, error);
            }
        };
        for slot in &slots {
            self.slot(slot);
        }
        self.heartbeats = slots;
        Ok(())
    }

    fn slot(&mut self, slot: &Heartbeat) {
        if slot.slot.offset != slot.offset {
            let text = format!("says it stands at byte {:#x}", slot.slot.offset);
            self.error("vmfs-heartbeat-offset", slot.place(), text);
        }
        let leftover = slot.slot.owner != [0; 16] || slot.slot.journal_address != 0;
        if slot.state() == HeartbeatState::Free && leftover {
            let text = "is free and still names a host or a journal";
            self.warning("vmfs-heartbeat-leftover", slot.place(), text);
        }
        if let HeartbeatState::Unknown(state) = slot.state() {
            let text = format!("state {state:#010x} is neither free nor in use");
            self.error("vmfs-heartbeat-state", slot.place(), text);
        }
    }

    /// Checks a lock block that stands at `offset` of the volume.
    pub(super) fn lock(&mut self, lock: &LockRaw, kind: LockKind, offset: u64, place: &Place) {
        if lock.lock_type != kind.type_value() {
            let text =
                format!("lock type is {:#010x}, not {:#010x}", lock.lock_type, kind.type_value());
            self.error("vmfs-lock-type", place.clone(), text);
            return;
        }
        if lock.offset != offset {
            let text = format!("its lock says it stands at byte {:#x}", lock.offset);
            self.error("vmfs-lock-offset", place.clone(), text);
        }
        if let LockMode::Unknown(mode) = LockMode::of(lock.mode) {
            let text = format!("lock mode {mode} is unknown");
            self.error("vmfs-lock-mode", place.clone(), text);
            return;
        }
        if lock.mode == 0 && lock.owner != [0; 16] {
            let text = "its lock is free and still names a host as its owner";
            self.warning("vmfs-lock-owner", place.clone(), text);
        }
        let state = lock.judge(self.region(), &self.heartbeats);
        if state.state == Hold::Stale {
            let holder = state.holder();
            let text = format!(
                "{} lock names heartbeat {:#x} generation {}, which is no longer in use",
                state.mode.word(),
                holder.map_or(0, |h| h.heartbeat_offset),
                holder.map_or(0, |h| h.heartbeat_generation),
            );
            self.report.add(Finding::warning("vmfs-stale-lock", text).at(place.clone()).advise(
                "the host that held it is gone; the next host that wants it breaks the lock",
            ));
        }
    }

    /// The journals of heartbeats in use own a block each.
    pub(super) fn journals(&mut self) {
        let in_use: Vec<Heartbeat> =
            self.heartbeats.iter().filter(|h| h.journal_offset().is_some()).cloned().collect();
        for heartbeat in in_use {
            let owner = Claim { owner: None, place: heartbeat.place() };
            self.claim_journal(&owner, heartbeat.slot.journal_address.into());
        }
    }
}
