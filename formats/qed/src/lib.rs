//! QED images of QEMU: a header, one table of tables, clusters. Read only; qcow2 replaced them.
//!
//! - [`probe`]: whether a file is one, from its first bytes.
//! - [`Image::open`]: the header, checked. No table is read.
//! - [`Image::backing`]: the name of the file below, for whoever may open it.
//! - [`Image::disk`]: the disk. `Check` and `Inspect` for [`Image`] look at every table.
//!
//! Files, in order: `layout` → `image` (the header) → `map` (tables, a page at a time) → `check`.
#![forbid(unsafe_code)]
#![deny(
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

mod check;
mod image;
mod layout;
mod map;

pub use image::{Backing, Image};

/// Whether a file is a QED image, from its first bytes, of which 4 are enough.
pub fn probe(prefix: &[u8]) -> bool {
    prefix.starts_with(layout::MAGIC)
}
