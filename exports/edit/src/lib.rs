//! What is done to whole images, whatever their formats: the data moved by `adit commit`,
//! `flatten` and `rebase`.
//!
//! - [`commit`]: what an overlay holds, into the image below it.
//! - [`flatten`]: what an image reads from below, into the image itself.
//! - [`rebase`]: so that an image reads the same over another parent.
//!
//! All three only add data before anything points elsewhere: cut short at any moment they leave
//! images that read as before, and can be run again. `own` tells what an image itself stores,
//! `pieces` moves bytes on several threads.
#![forbid(unsafe_code)]

mod commit;
mod flatten;
mod own;
mod pieces;
mod rebase;

pub use commit::commit;
pub use flatten::flatten;
pub use own::{Own, OwnKind, own};
pub use rebase::rebase;

/// What was moved. Units: bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moved {
    /// Data that was read and written.
    pub data_bytes: u64,
    /// Ranges that were made to read as zeros.
    pub zero_bytes: u64,
}
