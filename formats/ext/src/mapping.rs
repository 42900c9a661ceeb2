//! One question for both ways of mapping: what lies at a block of a file?

use crate::inode::Inode;
use crate::layout::inode_flags;
use crate::volume::{Ext, disk_ends};
use adit_core::{DiskExt, Error, Place, Problem};

/// Blocks of a file that are all of one kind.
#[derive(Clone, Debug)]
pub(crate) struct Stretch {
    /// How many, from the block that was asked for; at least 1.
    pub(crate) length: u64,
    /// What they are.
    pub(crate) what: What,
}

/// What a stretch is.
#[derive(Clone, Debug)]
pub(crate) enum What {
    /// Nothing.
    Hole,
    /// Allocated, never written.
    Unwritten,
    /// These blocks of the disk, as they stand there.
    Block(u64),
    /// These blocks of the disk, but the journal has a newer copy of the one and only.
    Logged(u64),
    /// Out of reach.
    Lost(Error),
}

impl Ext {
    /// What lies at a block of a file, within the file system and with the journal's copies.
    pub(crate) fn stretch(&self, inode: &Inode, logical: u64) -> Stretch {
        let mut stretch = if let Some(stretch) = self.journal().fast.stretch(inode, logical) {
            stretch
        } else if inode.has(inode_flags::EXTENTS) {
            self.extent_at_block(inode, logical)
        } else {
            self.pointer_at_block(inode, logical)
        };
        stretch.length = stretch.length.min(self.journal().fast.silent_for(inode, logical));
        let What::Block(block) = stretch.what else { return stretch };
        let superblock = self.superblock();
        let first = superblock.own_block();
        let here = superblock.blocks.saturating_sub(block);
        if here == 0 || block <= first {
            let detail = format!(
                "file block {logical} is block {block}, which no file can have (of {})",
                superblock.blocks
            );
            let place = inode.ino.place().byte(inode.offset);
            let error = Error::corrupt(Problem::OutOfRange, detail).at(place);
            return Stretch { length: stretch.length, what: What::Lost(error) };
        }
        stretch.length = stretch.length.min(here).max(1);
        let held = self.disk().size_bytes() / superblock.block_size;
        if let Some(logged) = self.overlay().next(block, stretch.length) {
            if logged == block {
                return Stretch { length: 1, what: What::Logged(block) };
            }
            stretch.length = logged.saturating_sub(block).max(1);
        }
        if block >= held {
            let end = self.block_offset(block.saturating_add(1));
            let error = disk_ends(end, self.disk().size_bytes())
                .at(Place::new("block").index(block).byte(self.block_offset(block)));
            return Stretch { length: stretch.length, what: What::Lost(error) };
        }
        stretch.length = stretch.length.min(held.saturating_sub(block)).max(1);
        stretch
    }
}
