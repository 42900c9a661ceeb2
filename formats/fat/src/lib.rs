//! FAT12, FAT16, FAT32 and exFAT as a [`FileSystem`].
//!
//! - [`probe`], [`Fat::open`]: is it one, and open it. [`Fat`] is the file system.
//! - [`layout`]: every on-disk structure with its offsets, nothing else.
//! - `bpb`, `exboot`: the two boot sectors, checked, into one [`Shape`].
//! - `table`, [`Runs`], [`FileMap`]: from a first cluster to the bytes of a file.
//! - `scan`, `short`, `entryset`: directory slots, and what the two families make of them.
//! - `upcase`, `names`, `codepage`: names, and when two of them are the same.
//! - `directory`: pages and lookups. `bitmap`, `space`: what is allocated.
//! - `check`, `inspect`: what is damaged, and what stands where.
//!
//! Reading order: `bpb` → `volume` → `table` → `chain` → `scan` → `short` → `directory`.
//!
//! The two families share clusters, chains, directory slots of 32 bytes and the way to number
//! nodes: FAT has no inodes, so a node is the byte of the volume where its entry stands.
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

mod bitmap;
mod bpb;
mod chain;
mod check;
mod codepage;
mod directory;
mod entryset;
mod exboot;
mod filesystem;
mod inspect;
pub mod layout;
mod map;
mod names;
mod node;
mod notes;
mod scan;
mod shape;
mod short;
mod space;
mod table;
mod time;
mod upcase;
mod volume;

pub use chain::{Piece, Runs};
pub use map::FileMap;
pub use shape::{Shape, Variant};
pub use volume::{Fat, probe};
