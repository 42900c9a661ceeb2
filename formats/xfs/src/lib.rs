//! XFS, versions 4 and 5, as a [`FileSystem`], with the log applied in memory.
//!
//! - [`probe`], [`Xfs::open`]: is it one, and open it. [`Xfs`] is the file system.
//! - [`layout`]: every on-disk structure with its offsets, nothing else.
//! - [`Superblock`], [`Inode`]: raw bytes to checked structures; addresses.
//! - `log`, [`Overlay`]: what was committed and not yet written home, as newer sectors.
//! - `bmap`, [`FileMap`]: from a file to its bytes.
//! - `directory`, `dirdata`, `dablock`: from a name to an inode, by its hash.
//! - `attributes`, `acl`, `symlink`: attributes and links.
//! - `group`, `space`, `orphans`: allocation groups, what is free, what has no name any more.
//! - `check`, `inspect`: what is damaged, and what stands where.
//!
//! Reading order: `superblock` → `volume` → `log` → `inode` → `bmap` → `directory`.
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
mod attributes;
mod bmap;
mod check;
mod crc;
mod dablock;
mod details;
mod dirdata;
mod directory;
mod filesystem;
mod group;
mod inode;
mod inspect;
pub mod layout;
pub mod log;
mod map;
mod orphans;
mod overlay;
mod space;
mod superblock;
mod symlink;
mod volume;

pub use inode::Inode;
pub use log::Log;
pub use map::FileMap;
pub use overlay::Overlay;
pub use superblock::Superblock;
pub use volume::{Xfs, probe};
