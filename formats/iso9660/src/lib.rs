//! ISO9660 as a [`FileSystem`]: Rock Ridge, Joliet, plain names, zisofs.
//!
//! - [`probe`], [`Iso::open`]: is it one, and open it. [`Iso`] is the file system.
//! - [`layout`]: every on-disk structure with its offsets, nothing else.
//! - `descriptors`: what stands from sector 16 on; which tree of names is the best.
//! - `record`, `susp`, `rockridge`: a directory record, what is hidden behind its name, and what
//!   that means.
//! - `node`, `directory`: from a place to a file, from a name to a place.
//! - [`FileMap`], `zisofs`: from a file to its bytes.
//! - `boot`: El Torito. `check`, `inspect`: what is damaged, and what stands where.
//!
//! Reading order: `descriptors` → `volume` → `record` → `susp` → `rockridge` → `node`.
//!
//! A node is the byte of the disk where its directory record stands; for a directory that is its
//! own first record, which all the records that name it lead to.
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

mod boot;
mod check;
mod descriptors;
mod directory;
mod filesystem;
mod inspect;
pub mod layout;
mod map;
mod node;
mod notes;
mod record;
mod rockridge;
mod susp;
mod time;
mod volume;
mod zisofs;

pub use boot::BootImage;
pub use descriptors::Tree;
pub use map::FileMap;
pub use volume::{Iso, probe};
pub use zisofs::ZisofsMap;
