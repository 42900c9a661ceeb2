//! VMFS 3, 5 and 6, shared and local (VMFS-L): a datastore as a [`FileSystem`].
//!
//! The volume is one [`Disk`] whose byte 0 is the volume's byte 0; the volume manager that may
//! lie below it is another crate's business.
//!
//! - [`probe`], [`Vmfs::open`]: is it one, and open it. [`Vmfs`] is the file system.
//! - [`layout`]: every on-disk structure with its offsets, nothing else.
//! - [`Superblock`]: the checked volume header; all sizes come from it.
//! - [`Address`], [`FdAddress`]: what pointers and directory entries hold.
//! - [`ResourceFile`], [`Cluster`]: the system files that hand out blocks and FDs.
//! - [`FileDescriptor`], [`PointerWalk`], [`Pointers`], [`FileMap`]: from a file to its bytes.
//! - [`directory`], [`hash`]: from a name to an FD.
//! - [`heartbeat`], [`lock`], [`journal`]: who uses the volume, or did when it was copied.
//! - [`Owner`]: the way back, from a byte of the volume to what owns it.
//! - `check`: every invariant of the format; reports, never repairs.
//!
//! Reading order: `superblock` → `vmfs` → `system` → `descriptor` → `map` → `directory`.
//!
//! Everything is read-only, nothing is trusted: a damaged pointer loses its own block, a damaged
//! entry its own name.
//!
//! [`FileSystem`]: adit_core::FileSystem
//! [`Disk`]: adit_core::Disk
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
    allow(
        clippy::arithmetic_side_effects,
        clippy::as_conversions,
        clippy::indexing_slicing,
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic
    )
)]

mod address;
mod check;
mod cluster;
mod clusters;
mod descriptor;
mod details;
pub mod directory;
mod filesystem;
pub mod hash;
pub mod heartbeat;
mod in_use;
mod inspect;
pub mod journal;
pub mod layout;
pub mod lock;
mod map;
mod owner;
mod paths;
mod pointers;
mod rdm;
mod resource;
mod space;
mod superblock;
mod system;
mod vmfs;

pub use address::{Address, FdAddress, Target, Width};
pub use cluster::{Cluster, ClusterMeta, LARGE_BLOCK_CONVERTED};
pub use clusters::Clusters;
pub use descriptor::{Addressing, FileDescriptor, FileType};
pub use map::FileMap;
pub use owner::{Owner, Structure};
pub use pointers::{FilePointer, PointerStep, PointerWalk, Pointers, Slot};
pub use rdm::ScsiId;
pub use resource::{ResourceFile, ResourceHeader, ResourceKind};
pub use superblock::{Superblock, Version};
pub use vmfs::{Vmfs, probe};
