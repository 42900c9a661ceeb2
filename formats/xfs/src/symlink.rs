//! Targets of symbolic links, in the inode and in blocks.

use crate::bmap::{What, check_self};
use crate::inode::{ForkKind, Inode, place};
use crate::layout::SYMLINK_MAGIC;
use crate::volume::Xfs;
use adit_core::bytes::{narrow, u32_be, u64_be, wide};
use adit_core::{Error, NodeKind, Place, Problem, Result};

/// No target is longer.
const TARGET_MAX: u64 = 1024;
/// Header of a block of a target, in version 5.
const HEADER: usize = 56;

impl Xfs {
    /// Where a symbolic link leads.
    ///
    /// Errors: `Invalid` for anything else; `Corrupt`.
    pub(crate) fn target(&self, inode: &Inode) -> Result<Vec<u8>> {
        if inode.kind() != Some(NodeKind::Symlink) {
            let detail = format!("inode {} is no symbolic link", inode.ino);
            return Err(Error::invalid(Problem::BadValue, detail));
        }
        if inode.is_local() {
            return inode.local().map(<[u8]>::to_vec);
        }
        if inode.raw.size > TARGET_MAX {
            let detail = format!("a link target cannot have {} bytes", inode.raw.size);
            let at = place(inode.ino).field("size").byte(inode.offset);
            return Err(Error::corrupt(Problem::OutOfRange, detail).at(at));
        }
        self.remote_target(inode, narrow(inode.raw.size).unwrap_or(0))
    }

    fn remote_target(&self, inode: &Inode, length: usize) -> Result<Vec<u8>> {
        let superblock = self.superblock();
        let size = superblock.block_size.get();
        let room = |target: &Vec<u8>| length.saturating_sub(target.len());
        let mut target = Vec::with_capacity(length);
        let mut logical = 0u64;
        while room(&target) > 0 {
            let stretch = self.stretch(inode, ForkKind::Data, logical);
            let offset = match stretch.what {
                What::Stored(offset) => offset,
                What::Lost(error) => return Err(error),
                What::Hole | What::Unwritten(_) => {
                    let detail = "the target of the link is not allocated";
                    return Err(Error::corrupt(Problem::Missing, detail).at(place(inode.ino)));
                }
            };
            // A target stands in as many blocks as it needs, under one header per extent.
            let header = if superblock.is_v5() { wide(HEADER) } else { 0 };
            let needed = wide(room(&target)).saturating_add(header).div_ceil(size);
            let blocks = stretch.length.min(needed).max(1);
            let extent = narrow(blocks.saturating_mul(size)).unwrap_or(0);
            let (bytes, changed) = self.metadata_at(offset, extent)?;
            let at = || Place::new("link target").index(inode.ino).byte(offset);
            let part = if superblock.is_v5() {
                self.check_target(inode, &bytes, changed, offset, target.len())
                    .map_err(|error| error.at(at()))?
            } else {
                bytes.as_slice()
            };
            if part.is_empty() {
                let detail = "a block of the link's target is empty";
                return Err(Error::corrupt(Problem::BadValue, detail).at(at()));
            }
            target.extend_from_slice(part.get(..room(&target).min(part.len())).unwrap_or(&[]));
            logical = logical.saturating_add(blocks);
        }
        Ok(target)
    }

    fn check_target<'a>(
        &self,
        inode: &Inode,
        bytes: &'a [u8],
        changed: bool,
        offset: u64,
        done: usize,
    ) -> Result<&'a [u8]> {
        let bad = |what: &str| Err(Error::corrupt(Problem::Mismatch, what.to_owned()));
        if u32_be(bytes, 0) != Some(SYMLINK_MAGIC) {
            return Err(Error::corrupt(Problem::BadMagic, "a block of a link's target"));
        }
        check_self(self.superblock(), bytes, changed, 0xc, 0x28, 0x10, offset)?;
        if u64_be(bytes, 0x20) != Some(inode.ino) {
            return bad("the target of the link belongs to another inode");
        }
        if u32_be(bytes, 4).map(u64::from) != Some(wide(done)) {
            return bad("the target of the link is out of order");
        }
        let length = u32_be(bytes, 8).and_then(|length| narrow(length.into())).unwrap_or(0);
        match bytes.get(HEADER..).and_then(|body| body.get(..length)) {
            Some(part) => Ok(part),
            None => bad("the target of the link is longer than its block"),
        }
    }
}
