//! What all layers of adit speak.
//!
//! A format translates, the engine moves bytes, the opener decides, the exports serve.
//! This crate holds the nouns they share and nothing that knows a format:
//!
//! - [`Disk`]: a run of bytes addressed from 0; [`WritableDisk`] is the same, writable.
//! - [`ExtentMap`]: what a format implements; [`Mapped`] turns it into a [`Disk`].
//! - [`WritableMap`]: what a writable format implements; [`Writable`] makes a [`WritableDisk`] of it.
//! - [`FileSystem`]: names to nodes; opening a file gives a [`Disk`], so stacks nest without end.
//! - [`VolumeTable`]: a list of named slices (partitions, logical volumes).
//! - [`Error`], [`Finding`]: what went wrong and where; [`Limits`]: how much a hostile image may ask for.
//! - [`on_disk!`]: on-disk structures with visible offsets.
//!
//! Why the traits look as they do: `docs/decisions/0001-core-traits.md`.
#![forbid(unsafe_code)]

pub mod bytes;
mod cache;
mod claims;
mod concat;
mod disk;
mod error;
mod extent;
mod finding;
mod fs;
mod fs_ext;
mod interrupt;
mod leaves;
mod limits;
mod map;
mod memory;
pub mod on_disk;
mod slice;
mod uuid;
mod volumes;
mod write;

pub use cache::TableCache;
pub use concat::{Concat, Piece, PieceKind};
pub use disk::{Disk, DiskExt, Geometry, Hop, Next, ReadRequest, WritableDisk, read_each};
pub use error::{Error, Kind, Place, Problem, Result};
pub use extent::{Extent, ExtentKind, Extents, Leaf, LeafKind};
pub use finding::{Finding, Severity};
pub use fs::{
    Cursor, Detail, DirEntry, DirPage, FileSystem, Fork, Identity, Metadata, Name, NodeId,
    NodeKind, Space, Timestamp, Xattr,
};
pub use fs_ext::{FileSystemExt, FindOptions, Walk, WalkEntry};
pub use interrupt::{Interrupt, Progress, Quiet};
pub use leaves::Leaves;
pub use limits::Limits;
pub use map::{ExtentMap, Mapped, Run, RunKind};
pub use memory::MemoryDisk;
pub use slice::Slice;
pub use uuid::{guid, vmware_uuid};
pub use volumes::{Check, Inspect, Inspected, Volume, VolumeTable};
pub use write::{
    Change, Fresh, ImageFile, ParentRecord, Placement, Stage, Unmap, Unmapped, Writable,
    WritableImage, WritableMap,
};
