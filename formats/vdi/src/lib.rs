//! VDI virtual disks of VirtualBox, and of QEMU, which writes them too: dynamic, fixed and
//! differencing.
//!
//! - [`probe`]: whether a file is one, from its first bytes.
//! - [`Image::open`]: the header, checked; the block map is not read.
//! - [`Image::references`]: the identity of the parent. It has no name here: VirtualBox keeps the
//!   paths of a chain in its machine settings.
//! - [`Image::accepts_parent`]: whether a file that was found is the parent.
//! - [`Image::disk`]: the disk.
//! - `Check` for [`Image`]: every entry of the block map, and whether two share a block.
//!
//! Files, in order: `layout` → `header` → `image` (with `identity` for parents) → `entries` (the
//! block map, a page at a time) → `map`; `check` and `inspect` beside them;
//! `write` lays out new images.
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
    allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)
)]

mod check;
mod entries;
mod header;
mod identity;
mod image;
mod inspect;
pub mod layout;
mod map;
pub mod write;

pub use header::{Type, probe};
pub use identity::{ParentIdentity, Purpose, Reference};
pub use image::Image;
