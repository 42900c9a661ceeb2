//! VMDK virtual disks: a descriptor, which is text, and the extents it names.
//!
//! - [`probe`]: what a file is, from its first bytes.
//! - [`Descriptor`]: the text, read with the tolerance real files need.
//! - [`Descriptor::references`]: the files it names. This crate opens none of them.
//! - [`open`]: the disk, once somebody has found those files. Flat extents and zeros are read;
//!   sparse ones are refused by name.
//!
//! Files, in order: `probe` → `descriptor` (lines, with `extent` for the extent lines) →
//! `reference` → `open`.
#![forbid(unsafe_code)]
#![deny(
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::indexing_slicing))]

mod descriptor;
mod extent;
mod open;
mod probe;
mod reference;

pub use descriptor::{Descriptor, Entry};
pub use extent::{Access, ExtentLine, ExtentType};
pub use open::{Opened, open};
pub use probe::{Embedded, Kind, embedded, probe};
pub use reference::{Purpose, Reference};

/// Unit of every number in a descriptor. Unit: bytes.
pub const SECTOR_BYTES: u64 = 512;

/// `parentCID` of a disk without parent.
pub const NO_PARENT: u32 = 0xffff_ffff;
