//! The lock block at the start of each cluster entry and FD.

use crate::bytes::{put, put32, put64};

use super::layout::Kind;

/// How a lock is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// One writer.
    Exclusive = 1,
    /// Any number of readers.
    SharedReadOnly = 2,
    /// Several writers that agreed to share.
    MultiWriter = 3,
}

/// The fields of a lock that are not zero.
#[derive(Debug, Clone)]
pub(crate) struct Lock {
    pub kind: Kind,
    /// Its own volume offset.
    pub at: u64,
    pub token: u64,
    pub mtime: u64,
    /// Heartbeat offset and generation of the last or present holder.
    pub holder: (u64, u64),
    pub mode: Option<Mode>,
    pub owner: [u8; 16],
}

impl Lock {
    pub(crate) fn free(kind: Kind, at: u64, token: u64, mtime: u64) -> Self {
        Self { kind, at, token, mtime, holder: (0, 0), mode: None, owner: [0; 16] }
    }

    pub(crate) fn write(&self, block: &mut [u8]) {
        put32(block, 0x00, 0x10c0_0000 + self.kind as u64);
        put64(block, 0x04, self.at);
        put64(block, 0x0c, self.holder.0);
        put64(block, 0x14, self.holder.1);
        put64(block, 0x1c, self.token);
        put64(block, 0x38, self.mtime);
        let Some(mode) = self.mode else { return };
        put32(block, 0x24, mode as u64);
        if mode == Mode::Exclusive {
            put(block, 0x28, &self.owner);
            return;
        }
        put32(block, 0x40, 1);
        put64(block, 0x44, self.holder.0);
        put64(block, 0x4c, self.holder.1);
        put(block, 0x54, &self.owner);
        put32(block, 0x164, 1);
    }
}
