//! Makers of disk images for tests.
//!
//! A reader tested only against itself proves nothing, so everything here is
//! written a second time, from the format descriptions alone, and depends on
//! none of the crates it bears witness about.
//!
//! - [`store`]: where an image is written, a sparse file or memory.
//! - [`vmfs`]: VMFS 3, 5 and 6 volumes, with files, folders, locks and damage.
//!
//! A maker is a test tool: it panics, with the reason, when asked for
//! something the format cannot hold.

#![forbid(unsafe_code)]

pub mod store;
pub mod vmfs;

mod bytes;

pub use store::{Memory, Store};
pub use vmfs::Vmfs;
