//! What each fuzz target does with its input. A target returns; a panic is a finding.
//!
//! [`TARGETS`] names them all, so that ordinary tests can replay every reproducer.
#![forbid(unsafe_code)]

mod fuse;
mod guests;
mod images;
mod patched;
mod servers;
mod tables;
mod text;
mod vmfs;

pub use fuse::fuse;
pub use guests::{guest, volume};
pub use images::{image_model, qcow, vhd, vhdx, vmdk_sparse};
pub use servers::{control, nbd};
pub use tables::{lvm, partitions};
pub use text::{locator, vmdk, vmsd, vmx};
pub use vmfs::{descriptors, directories, heartbeats, journal, resources, superblock};

/// A target: its name, and what it runs.
pub type Target = (&'static str, fn(&[u8]));

/// Every target by name.
pub const TARGETS: &[Target] = &[
    ("fuse", fuse),
    ("partitions", partitions),
    ("lvm", lvm),
    ("superblock", superblock),
    ("resources", resources),
    ("descriptors", descriptors),
    ("directories", directories),
    ("journal", journal),
    ("heartbeats", heartbeats),
    ("locator", locator),
    ("vmx", vmx),
    ("vmsd", vmsd),
    ("vmdk", vmdk),
    ("qcow", qcow),
    ("vhd", vhd),
    ("vhdx", vhdx),
    ("vmdk_sparse", vmdk_sparse),
    ("image_model", image_model),
    ("guest", guest),
    ("volume", volume),
    ("nbd", nbd),
    ("control", control),
];
