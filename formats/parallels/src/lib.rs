//! Parallels virtual disks: single expanding images of both kinds, and the bundles of images that
//! a `DiskDescriptor.xml` describes.
//!
//! - [`probe`]: what a file is, from its first bytes.
//! - [`Image::open`], [`Image::disk`]: one expanding image, a file by itself or of a bundle.
//! - [`Descriptor::parse`]: storages, images and snapshots of a bundle.
//! - [`Descriptor::references`]: the files it names. This crate opens none of them.
//! - [`open`]: the disk of a bundle, or one of its snapshots, once somebody has found the files.
//! - [`write::Builder`], [`write::plain`]: a new expanding image, a bundle of one plain image.
//! - `Check` for [`Image`]: every entry of the table, and whether clusters overlap.
//!
//! Files, in order: `layout` → `header` → `image` → `entries` (the table, a page at a time) →
//! `map`, `check`, `inspect`; and for bundles: `xml` → `reader` → `descriptor` → `snapshot` (chains by
//! GUID) → `bundle`.
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

mod bundle;
mod check;
mod descriptor;
mod entries;
mod guid;
mod header;
mod image;
mod inspect;
pub mod layout;
mod map;
mod probe;
mod reader;
mod snapshot;
pub mod write;
mod xml;

pub use bundle::{Opened, open};
pub use descriptor::{BundleImage, Descriptor, ImageType, Reference, Storage};
pub use guid::Guid;
pub use header::Variant;
pub use image::Image;
pub use probe::{Kind, probe};
pub use snapshot::Snapshot;
