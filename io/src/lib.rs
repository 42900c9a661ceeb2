//! Where bytes come from and go to on the host.
//!
//! - [`open`]: a regular file or block device as a read-only [`adit_core::Disk`].
//! - [`ReadPolicy`]: how often a failed read is tried again; [`RetryCounters`] tell what came of it.
//! - [`open_split`]: `disk.001`, `disk.002`, … joined into one disk, given any of them.
//! - [`Target`]: a new host file that has its final name only once it is whole.
//! - [`WritableFile`]: an existing file or device to write an image into, kept from other programs.
//! - [`read_text`]: a small file, read whole within a bound.
//!
//! The kernel's page cache is the only cache here, and nothing here knows a format.
#![forbid(unsafe_code)]

mod file;
mod pieces;
mod place;
mod retry;
mod split;
mod target;
mod writable;

pub use file::{FileDisk, open, read_text};
pub use retry::{ReadPolicy, RetryCounters};
pub use split::{Split, open_split};
pub use target::{Finish, Keep, Overwrite, Target};
pub use writable::{Sharing, WritableFile};
