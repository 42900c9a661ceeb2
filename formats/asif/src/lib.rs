//! ASIF images of macOS 26 (Apple sparse images): a header, two directories of tables, chunks.
//! Read only.
//!
//! - [`probe`]: whether a file is one, from its first bytes.
//! - [`Image::open`]: the header and the directory that counts, checked.
//! - [`Image::disk`]: the disk. `Inspect` for [`Image`] shows header and directories.
//!
//! Files, in order: `layout` → `image` → `map`.
//!
//! Nobody documents the format: README.md tells what is observed and what is inferred.
#![forbid(unsafe_code)]
#![deny(
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

mod image;
mod layout;
mod map;

pub use image::Image;

/// Whether a file is an ASIF image, from its first bytes, of which 4 are enough.
pub fn probe(prefix: &[u8]) -> bool {
    prefix.starts_with(layout::MAGIC)
}
