//! Makers of disk images for tests.
//!
//! A reader tested only against itself proves nothing, so everything here is
//! written a second time, from the format descriptions alone, and depends on
//! none of the formats it bears witness about.
//!
//! - [`store`]: where an image is written, a sparse file or memory.
//! - [`power`]: files on a medium that loses power, and every state that may leave.
//! - [`model`]: a byte array beside a writable disk, and random work on both.
//! - [`vmfs`]: VMFS 3, 5 and 6 volumes, with files, folders, locks and damage.
//!
//! A maker is a test tool: it panics, with the reason, when asked for
//! something the format cannot hold.

#![forbid(unsafe_code)]

pub mod model;
pub mod power;
pub mod random;
pub mod store;
pub mod vmfs;

mod bytes;

pub use model::Model;
pub use power::World;
pub use store::{Memory, Store};
pub use vmfs::Vmfs;
