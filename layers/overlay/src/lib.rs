//! Copy-on-write over any disk, and stacks of layers that change while they are used.
//!
//! - [`Temporary`]: an overlay that is forgotten: a file without a name, and a bitmap.
//! - [`Live`]: a disk whose layers are added, merged and changed under running readers and
//!   writers: [`Live::pause`], [`Live::push`] (a snapshot), [`Live::swap`], [`Live::resize`].
//! - [`Job`]: [`Live::commit`] and [`Live::flatten`] in the background, while writes go on.
//!
//! What is kept is an image of some format; the caller opens it and hands it over as a [`Layer`].
#![forbid(unsafe_code)]

mod bitmap;
mod copy;
mod gate;
mod job;
mod layer;
mod live;
mod ranges;
mod temporary;

pub use job::{Job, JobKind, JobState};
pub use layer::{Access, Layer};
pub use live::Live;
pub use temporary::{BLOCK_BYTES, Temporary};
