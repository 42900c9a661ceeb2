//! VMDK virtual disks: a descriptor, which is text, and the extents it names.
//!
//! - [`probe`]: what a file is, from its first bytes.
//! - [`Descriptor`]: the text, read with the tolerance real files need.
//! - [`Descriptor::references`]: the files it names. This crate opens none of them.
//! - [`open`]: the disk, once somebody has found those files. [`Descriptor::accepts_parent`]
//!   tells whether a parent is the right one.
//! - [`check_sparse`]: every table of a sparse extent, and every compressed grain.
//! - [`Structures`]: header fields, keys and entries, to be shown.
//! - [`Files`]: a disk with all its extents, to be checked.
//! - [`Writer`]: a disk to write to; [`create`] makes a new one, [`repair()`] mends an extent.
//! - [`open_sparse`]: a sparse file that was opened by itself; [`embedded_descriptor`] is the
//!   text in it.
//!
//! Files, in order: `probe` → `descriptor` (lines, with `extent` for the extent lines) →
//! `reference` and `parent` → `open`, which joins flat extents, zeros and what `sparse` opens:
//! `hosted` (with `stream`), `cowd` and `sesparse` read headers (`layout`) and a `directory`;
//! `grains` maps through `tables`, and `inflate` decodes grains. `check` and `whole` verify them,
//! `inspect` shows them.
//! `writer` changes images in place; `write` lays out new ones front to back, for converters.
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

mod check;
mod cowd;
mod descriptor;
mod directory;
mod extent;
mod grains;
mod hosted;
mod inflate;
mod inspect;
mod layout;
mod open;
mod parent;
mod probe;
mod reference;
mod sesparse;
mod sparse;
mod stream;
mod tables;
mod whole;
pub mod write;
mod writer;

pub use check::check_sparse;
pub use descriptor::{Descriptor, Entry};
pub use extent::{Access, ExtentLine, ExtentType};
pub use inspect::Structures;
pub use open::{Opened, open};
pub use probe::{Embedded, Kind, embedded, probe};
pub use reference::{Purpose, Reference};
pub use sparse::{SparseFacts, embedded_descriptor, open_sparse};
pub use whole::Files;
pub use writer::create::{CreateOptions, Subformat, create};
pub use writer::repair::{RepairOptions, Repaired, repair};
pub use writer::{Compacted, Writer, identity};

/// Unit of every number in a descriptor. Unit: bytes.
pub const SECTOR_BYTES: u64 = 512;

/// `parentCID` of a disk without parent.
pub const NO_PARENT: u32 = 0xffff_ffff;
