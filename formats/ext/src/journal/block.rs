//! Blocks of the log: tags of a descriptor, numbers of a revoke block, checksums of all.

use super::scan::Log;
use crate::crc;
use crate::layout::{JournalCommit, journal_features};
use adit_core::bytes::{u16_be, u32_be, u64_be};

/// Length of what a commit block says. Unit: bytes.
const COMMIT_BYTES: usize = 64;

const ESCAPED: u32 = 1;
const SAME_UUID: u32 = 2;
const DELETED: u32 = 4;
const LAST: u32 = 8;

/// A tag: the data block that follows is a copy of `block`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tag {
    pub(super) block: u64,
    pub(super) escaped: bool,
    pub(super) deleted: bool,
    checksum: u32,
}

impl Log {
    fn has(&self, feature: u32) -> bool {
        self.raw.block_type != 3 && self.raw.feature_incompat & feature != 0
    }

    pub(super) fn has_checksums(&self) -> bool {
        self.has(journal_features::CSUM_V2 | journal_features::CSUM_V3)
    }

    pub(super) fn has_commit_sum(&self) -> bool {
        self.raw.block_type != 3 && self.raw.feature_compat & journal_features::CHECKSUM != 0
    }

    /// Whether fast commits may follow the log.
    pub fn has_fast_commits(&self) -> bool {
        self.has(journal_features::FAST_COMMIT)
    }

    fn tag_size(&self) -> usize {
        if self.has(journal_features::CSUM_V3) {
            return 16;
        }
        let base = if self.has(journal_features::CSUM_V2) { 10 } else { 8 };
        if self.has(journal_features::SIXTY_FOUR_BIT) { base | 4 } else { base }
    }

    /// The tags of a descriptor block.
    pub(super) fn tags(&self, bytes: &[u8]) -> Vec<Tag> {
        let size = self.tag_size();
        let tail = if self.has_checksums() { 4 } else { 0 };
        let end = bytes.len().saturating_sub(tail);
        let mut tags = Vec::new();
        let mut at = 12usize;
        while at.saturating_add(size) <= end {
            let Some((tag, flags)) = self.tag(bytes, at) else { break };
            tags.push(tag);
            if flags & LAST != 0 {
                break;
            }
            let uuid = if flags & SAME_UUID == 0 { 16 } else { 0 };
            at = at.saturating_add(size).saturating_add(uuid);
        }
        tags
    }

    fn tag(&self, bytes: &[u8], at: usize) -> Option<(Tag, u32)> {
        let low: u64 = u32_be(bytes, at)?.into();
        let wide = self.has(journal_features::SIXTY_FOUR_BIT);
        let high = if wide { u64::from(u32_be(bytes, at.checked_add(8)?)?) << 32 } else { 0 };
        let (flags, checksum) = if self.has(journal_features::CSUM_V3) {
            (u32_be(bytes, at.checked_add(4)?)?, u32_be(bytes, at.checked_add(12)?)?)
        } else {
            let checksum = u16_be(bytes, at.checked_add(4)?)?;
            (u16_be(bytes, at.checked_add(6)?)?.into(), checksum.into())
        };
        let (escaped, deleted) = (flags & ESCAPED != 0, flags & DELETED != 0);
        Some((Tag { block: high | low, escaped, deleted, checksum }, flags))
    }

    /// The blocks a revoke block names.
    pub(super) fn revoked(&self, bytes: &[u8]) -> Vec<u64> {
        let tail = if self.has_checksums() { 4 } else { 0 };
        let used = adit_core::bytes::index(u32_be(bytes, 12).unwrap_or(0));
        let end = used.min(bytes.len().saturating_sub(tail));
        let list = bytes.get(16..end).unwrap_or(&[]);
        if self.has(journal_features::SIXTY_FOUR_BIT) {
            list.chunks_exact(8).filter_map(|entry| u64_be(entry, 0)).collect()
        } else {
            list.chunks_exact(4).filter_map(|entry| u32_be(entry, 0)).map(u64::from).collect()
        }
    }

    /// Whether the checksum at the end of a descriptor or revoke block is right.
    pub(super) fn verify_tail(&self, bytes: &[u8]) -> bool {
        let at = bytes.len().saturating_sub(4);
        !self.has_checksums()
            || u32_be(bytes, at) == Some(crc::crc32c_without(self.seed, bytes, at, 4))
    }

    /// Whether a data block is the one its tag was written for.
    pub(super) fn verify_data(&self, tag: &Tag, sequence: u32, bytes: &[u8]) -> bool {
        if !self.has_checksums() {
            return true;
        }
        let sum = crc::crc32c(crc::crc32c(self.seed, &sequence.to_be_bytes()), bytes);
        let mask = if self.has(journal_features::CSUM_V3) { u32::MAX } else { 0xffff };
        sum & mask == tag.checksum
    }

    /// Whether a commit block is whole; `sum` is that of the blocks before it.
    pub(super) fn verify_commit(&self, bytes: &[u8], sum: u32) -> bool {
        let Ok(commit) = JournalCommit::read(bytes) else { return false };
        if self.has_checksums() {
            // A block that was torn behind its first sector commits as well: all it says is there,
            // and zeros follow. The kernel takes it so.
            let mut head = bytes.to_vec();
            head.get_mut(COMMIT_BYTES..).unwrap_or(&mut []).fill(0);
            let right =
                |bytes: &[u8]| crc::crc32c_without(self.seed, bytes, 0x10, 4) == commit.checksum;
            return right(bytes) || right(&head);
        }
        if !self.has_commit_sum() {
            return true;
        }
        let none = commit.checksum_type == 0 && commit.checksum_size == 0 && commit.checksum == 0;
        none || (commit.checksum_type == 1 && commit.checksum_size == 4 && commit.checksum == sum)
    }
}
