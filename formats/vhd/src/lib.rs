//! VHD virtual disks: fixed, dynamic and differencing, of Virtual PC, Hyper-V, XenServer and
//! all who write like them.
//!
//! - [`probe`]: what a file is, from both its ends.
//! - [`Image::open`]: the footer and the headers, checked.
//! - [`Image::references`]: the names of the parent. This crate opens none of them.
//! - [`Image::accepts_parent`]: whether what was found under a name is the parent.
//! - [`Image::disk`]: the disk.
//!
//! Files, in order: `layout` → `footer` (which copy counts) → `header` → `locator` (names of
//! the parent), `batmap` (which blocks are full) → `image` → `map`; `check` and `inspect` stand
//! beside them, `write` lays out new images front to back, and [`writer`] changes those there are.
//!
//! # What a clear bit means
//!
//! Every block starts with a bitmap of its sectors. In a differencing image a clear bit means
//! the parent's data, in a dynamic one zeros: tapdisk does not clean a new block, so the bytes
//! under a clear bit are those of whoever had the space before.
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

mod batmap;
mod check;
mod footer;
mod header;
mod image;
mod inspect;
mod layout;
mod locator;
mod map;
mod probe;
pub mod write;
pub mod writer;

pub use footer::Kind;
pub use image::{Image, SizeRule};
pub use locator::{NameSource, ParentIdentity, Purpose, Reference};
pub use probe::{SUFFIX_BYTES, is_damaged, probe};
