//! What is done with whole trees of any file system.
//!
//! - [`walk`]: a tree in order, with what is known of every node.
//! - [`diff`]: what was added, removed and changed between two trees.
//! - [`find`]: what has some name, kind, size or age; [`Glob`] is a pattern of names.
//! - [`tar`]: a tree as a POSIX archive, with attributes, holes and hard links.
//! - [`hash_tree`], [`hash_one`]: a manifest of hashes; [`Expected`] is one that was read.
//! - [`used`]: which parts of a disk are in use; [`UsedOnly`] is the disk without the others.
//! - [`undelete`]: deleted files, and how much of each may still be its own.
//! - [`HostTree`]: a folder of the host as a file system, to compare with.
//! - [`first_difference`]: two disks, read only where nothing else decides.
#![forbid(unsafe_code)]

mod diff;
mod find;
mod glob;
mod hash;
mod hashes;
mod host;
mod pool;
mod same;
mod tar;
mod undelete;
mod used;
mod verify;
mod walk;

pub use diff::{Aspect, DiffOptions, Difference, Summary, Which, diff};
pub use find::{Hit, Query, find};
pub use glob::Glob;
pub use hash::hash_disk;
pub use hashes::{HashedNode, HashesHead, HashesTail, hash_one, hash_tree};
pub use host::HostTree;
pub use same::{Effort, first_difference};
pub use tar::{LeftOut, TarOptions, TarReport, tar};
pub use undelete::{Confidence, DeletedFile, undelete};
pub use used::{Used, UsedOnly, UsedPart, UsedState, used};
pub use verify::{Expected, Verdict, sum_line_of};
pub use walk::{Found, Go, Step, Tree, shown, walk};

use adit_core::{FileSystem, NodeId, Result, on_disk::Value};

/// The numbers of a device node; nothing where the file system does not know them.
pub(crate) fn device(fs: &dyn FileSystem, node: NodeId) -> Result<Option<(u64, u64)>> {
    let details = fs.details(node)?;
    let number = |name| {
        details.iter().find(|detail| detail.name == name).and_then(|detail| match detail.value {
            Value::Uint(number) => Some(number),
            _ => None,
        })
    };
    Ok(number("device_major").zip(number("device_minor")))
}
