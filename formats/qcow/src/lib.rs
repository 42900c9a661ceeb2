//! QCOW virtual disks: version 1, and QCOW2 in its versions 2 and 3.
//!
//! - [`probe`]: the version, from the first bytes.
//! - [`Image::open`]: header and header extensions, checked; no table is read.
//! - [`Image::references`]: the backing file and the data file it names. This crate opens neither.
//! - [`Image::disk`]: the disk, once somebody has found those files.
//! - [`Image::snapshots`], [`Image::disk_of_snapshot`]: the disk as it was.
//! - [`Image::bitmaps`], [`Image::dirty`]: which ranges were written since a backup.
//! - [`create`]: a new image. [`Writer::open`]: an image to be written, and all that is done to
//!   one as a whole: size, parent, snapshots, bitmaps, compacting.
//! - `Check` of [`Image`]: what contradicts itself, and what is wasted. [`repair`]: both put right.
//!
//! Files, in order: `layout` (structures) → `header` with `extension` and `feature` → `image` →
//! `snapshot`, `bitmap`, `facts`; and the way of a byte: `map` → `table` (L1, L2) → `entry` → `codec`.
//! `power` is the arithmetic of power-of-two units. `write` lays out new images for converters;
//! `writer` changes images in place. `scan` walks over everything for `check` and `repair`.
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

mod bitmap;
mod check;
mod codec;
mod create;
mod crypt;
mod entry;
mod extension;
mod facts;
mod feature;
mod header;
mod image;
mod inspect;
pub mod layout;
mod map;
mod power;
mod repair;
mod scan;
mod snapshot;
mod table;
pub mod write;
mod writer;

pub use bitmap::Bitmap;
pub use codec::Compression;
pub use create::{CreateOptions, DataFile, Preallocation, create};
pub use crypt::{Decrypt, Encrypt};
pub use header::{Encryption, probe};
pub use image::{Image, Parts, Purpose, Reference, SnapshotSize};
pub use repair::{RepairOptions, Repaired, repair};
pub use snapshot::Snapshot;
pub use writer::{Compacted, Writer, WriterMap, WriterParts};
