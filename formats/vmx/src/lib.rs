//! The settings of a virtual machine: `.vmx`, and its snapshots: `.vmsd`.
//!
//! Both are dictionaries, `key = "value"` a line. [`Dictionary`] reads the lines and keeps
//! every one; [`Vmx`] and [`Snapshots`] give names to those that matter here:
//!
//! - [`Dictionary`]: keys without regard to case, `|22` escapes, the encoding, what is odd.
//! - [`Vmx`]: name, guest, hardware, and the [`VmxDisk`]s with the file each one names.
//! - [`Snapshots`]: the tree of a `.vmsd`, with the disks each [`Snapshot`] froze.
//!
//! Nothing is opened: file names stay the bytes they are, for others to resolve.
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

mod devices;
mod dictionary;
mod escape;
mod machine;
mod notes;
mod snapshots;
mod tree;

pub use devices::{DeviceKind, VmxDisk};
pub use dictionary::{Dictionary, Entry};
pub use machine::Vmx;
pub use snapshots::{Snapshot, SnapshotDisk, Snapshots};
