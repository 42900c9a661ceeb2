//! The Apple File System, read.
//!
//! 1. [`probe`] tells whether a disk holds an APFS container.
//! 2. [`Apfs::open`] finds the newest whole checkpoint and the volumes of it. A container of one
//!    volume shows that volume's tree; one of several shows a directory of them.
//! 3. Every block of metadata is verified by its checksum; a damaged one loses what it holds.
//!
//! What is read and refused: `README.md` beside this crate.
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

mod btree;
mod check;
mod compressed;
mod container;
mod filesystem;
mod inspect;
pub mod layout;
mod map;
mod notes;
mod object;
mod records;
mod volume;

pub use container::{Apfs, probe};
pub use map::FileMap;
