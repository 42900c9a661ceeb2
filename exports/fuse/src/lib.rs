//! Mounts file systems and disks of any layer through FUSE; disks may be writable.
//!
//! - [`mount`]: a [`Source`] on a directory; the [`Mounted`] it gives waits, unmounts, and
//!   unmounts when dropped.
//! - [`answer`]: the same on a connection that somebody else has made.
//! - [`Source`]: the tree of a file system, a folder of it, or a disk with its partitions as files.
//! - [`MountOptions`]: who may look, whom files belong to, how much is cached.
//! - [`Incident`]: what could not be read so far. Programs only see `EIO`; the reason stays here.
//!
//! Inside: `server` answers the kernel; `tree` turns nodes into inodes and metadata into
//! attributes; `files` and `folders` hold what is open; `passthrough` lets the kernel read a host
//! file by itself; `disks` makes a flat directory of a disk; `deep` goes on inside disk files; `errno` is the one table from
//! [`adit_core::Kind`] to error numbers.
//!
//! Nothing is ever filled with zeros for want of data: a read of lost bytes fails, and only
//! there; a directory with damaged entries lists the others and then fails.
#![forbid(unsafe_code)]

mod deep;
mod disks;
mod errno;
mod files;
mod folders;
mod incidents;
mod mounted;
mod options;
mod passthrough;
mod seek;
mod server;
mod table;
mod tree;
mod unmount;
mod writers;
mod xattrs;

pub use deep::{FileAt, Inside, Level};
pub use disks::NamedDisk;
pub use incidents::Incident;
pub use mounted::{Mounted, Source, answer, mount};
pub use options::{MountOptions, Owner};
pub use server::SERVER_ATTRIBUTE;
pub use writers::NamedRange;
