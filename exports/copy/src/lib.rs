//! The engine behind `adit cp` and `adit cat`: bytes out of any layer, onto the host.
//!
//! - [`copy_disk`]: a range of a disk to any writable disk; holes never read, data in the kernel.
//! - [`copy_file`]: the same under a name, atomically; verified, resumed, salvaged.
//! - [`copy_tree`]: directories, files and links, never outside the folder they are copied to.
//! - [`stream`]: a range of a disk to a pipe, socket or file.
//! - [`Manifest`], [`LossMap`]: what was copied with its hashes, and what could not be.
#![forbid(unsafe_code)]

mod copier;
mod copy;
mod file;
mod folder;
mod hash;
mod manifest;
mod resume;
mod salvage;
mod small;
mod sparse;
mod stream;
mod tree;
mod verify;
mod work;

pub use copy::{Copied, CopyOptions, copy_disk};
pub use file::{Source, copy_file};
pub use hash::{BlockHash, HASH_BLOCK_BYTES, Hashes};
pub use manifest::{Attributes, FileEntry, Manifest, Moment, Skipped};
pub use resume::SourceIdentity;
pub use salvage::{LossMap, Losses, LostRange};
pub use sparse::Sparse;
pub use stream::{Streamed, stream};
pub use tree::{TreeOptions, TreeReport, copy_tree};
