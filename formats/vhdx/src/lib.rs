//! VHDX virtual disks of Hyper-V: dynamic, fixed and differencing, clean or with a log that
//! waits to be replayed. AVHDX files, its checkpoints, are the same.
//!
//! - [`probe`]: what a file is, from its first bytes.
//! - [`Image::open`]: headers, log, region table and metadata, checked.
//! - [`Image::references`]: the names of the parent. This crate opens none of them.
//! - [`Image::accepts_parent`]: whether what was found under a name is the parent.
//! - [`Image::disk`]: the disk.
//!
//! Files, in order: `layout` → `header` (which of two counts) → `log` and `patch` (the file as
//! its log says) → `regions` → `metadata`, `locator` → `image` → `map`. `checksum` serves them,
//! `check` and `inspect` stand beside them, `write` lays out new images front to back, and
//! [`writer`] changes those there are.
//!
//! # The log
//!
//! An image whose host crashed, or has it open, is inconsistent without its log. Reading must
//! not change it, so its log is replayed in memory: what it changes is laid over the file, 4 KiB
//! at a time, and everything else reads through that.
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
mod checksum;
mod header;
mod image;
mod inspect;
mod layout;
mod locator;
mod log;
mod map;
mod metadata;
mod patch;
mod regions;
pub mod write;
pub mod writer;

pub use image::Image;
pub use locator::{NameSource, ParentIdentity, Purpose, Reference};

/// Whether a file is a VHDX, from its first 8 bytes. Its headers may be damaged all the same.
///
/// Source: MS-VHDX 2.2.1.
pub fn probe(prefix: &[u8]) -> bool {
    prefix.starts_with(layout::SIGNATURE)
}
