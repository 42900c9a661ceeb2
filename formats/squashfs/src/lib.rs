//! squashfs 4 as a [`FileSystem`], with every codec it knows.
//!
//! - [`probe`], [`Squash::open`]: is it one, and open it. [`Squash`] is the file system.
//! - [`layout`]: every on-disk structure with its offsets, nothing else.
//! - `superblock`, `metadata`, `tables`: the header, packed blocks of 8 KiB, what is found by
//!   number in them.
//! - `codec`, `xz`, `lzo`: from packed bytes to bytes, into a buffer whose size is known before.
//! - [`Inode`], `directory`, `xattr`: from a name to a file.
//! - [`FileMap`]: from a file to its bytes. `check`, `inspect`: what is damaged, what is where.
//!
//! Reading order: `superblock` → `volume` → `metadata` → `inode` → `map` → `directory`.
//!
//! A node is where its inode stands: the position of its packed block in the inode table times
//! 65536, plus its place in the block, plus 1.
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

mod check;
mod codec;
mod directory;
mod filesystem;
mod inode;
mod inspect;
pub mod layout;
mod lzo;
mod map;
mod metadata;
mod notes;
mod superblock;
mod tables;
mod volume;
mod xattr;
mod xz;

pub use codec::Codec;
pub use inode::{Body, Inode};
pub use map::FileMap;
pub use superblock::Superblock;
pub use volume::{Squash, probe};
