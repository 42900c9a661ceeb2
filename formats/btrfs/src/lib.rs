//! btrfs, on one device or several, as a [`FileSystem`], with the tree log applied in memory.
//!
//! - [`probe`], [`Member`], [`Btrfs`]: is it one, one of its devices, the file system.
//! - [`layout`]: every on-disk structure with its offsets, nothing else.
//! - [`Superblock`], `checksum`: raw bytes to checked structures.
//! - `chunk`, `parity`, `pool`, `logical`: from the one address space to the devices, copy by copy.
//! - `key`, `node`, `tree`: B-trees, with what the log changes laid over them.
//! - `roots`: subvolumes, and where they hang; `inode`, `directory`, `attributes`: what is in one.
//! - `extent`, `compression`, `lzo`, `sums`, [`FileMap`]: from a file to its bytes.
//! - `log`: what was synced and not yet committed.
//! - `allocated`, `space`, `check`, `inspect`: what is used, what is damaged, what stands where.
//!
//! Reading order: `superblock` → `chunk` → `pool` → `tree` → `roots` → `inode` → `extent` → `log`.
//!
//! Everything is read-only, nothing is trusted: every node and every sector with a checksum is
//! verified, and where one copy is wrong the others are tried before anything is called lost.
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

mod allocated;
mod attributes;
mod check;
mod checksum;
mod chunk;
mod compression;
mod details;
mod directory;
mod extent;
mod filesystem;
mod inode;
mod inspect;
mod key;
pub mod layout;
mod log;
mod logical;
mod lzo;
mod map;
mod member;
mod names;
mod node;
mod parity;
mod pool;
mod roots;
mod space;
mod sums;
mod superblock;
mod tree;
mod volume;

pub use checksum::Checksum;
pub use key::Key;
pub use map::FileMap;
pub use member::Member;
pub use superblock::{Superblock, probe};
pub use volume::Btrfs;
