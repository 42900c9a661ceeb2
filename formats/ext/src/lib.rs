//! ext2, ext3 and ext4 as a [`FileSystem`], with the journal applied in memory.
//!
//! - [`probe`], [`Ext::open`]: is it one, and open it. [`Ext`] is the file system.
//! - [`layout`]: every on-disk structure with its offsets, nothing else.
//! - [`Superblock`], [`Group`], [`Inode`]: raw bytes to checked structures.
//! - [`journal`]: what was committed and not yet written home, as positions of newer blocks.
//! - `extents`, `indirect`, `mapping`, [`FileMap`]: from a file to its bytes.
//! - `directory`, `dirblock`, `htree`, [`hash`]: from a name to an inode.
//! - `xattr`, `acl`: attributes, and small files that stand in one.
//! - `check`, `inspect`: what is damaged, and what stands where.
//!
//! Reading order: `superblock` → `volume` → `journal` → `inode` → `mapping` → `directory`.
//!
//! Everything is read-only, nothing is trusted: a block with a wrong checksum loses itself, and
//! what lies elsewhere can still be read.
//!
//! [`FileSystem`]: adit_core::FileSystem
#![forbid(unsafe_code)]
#![deny(
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]
#![cfg_attr(
    test,
    allow(
        clippy::arithmetic_side_effects,
        clippy::as_conversions,
        clippy::indexing_slicing,
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic
    )
)]

mod acl;
mod allocated;
mod check;
mod crc;
mod deleted;
mod details;
mod dirblock;
mod directory;
mod encrypted;
mod extents;
mod filesystem;
mod group;
pub mod hash;
mod htree;
mod indirect;
mod inode;
mod inspect;
pub mod journal;
pub mod layout;
mod map;
mod mapping;
mod orphans;
mod space;
mod superblock;
mod volume;
mod xattr;

pub use deleted::Deleted;
pub use group::Group;
pub use inode::{Ino, Inode};
pub use journal::Journal;
pub use map::FileMap;
pub use superblock::Superblock;
pub use volume::{Ext, probe};
