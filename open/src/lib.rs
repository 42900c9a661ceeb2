//! How a name becomes a layer.
//!
//! A [`Locator`] such as `lun.img//p1//web01/web01.vmdk//p2` is resolved by an [`Opener`],
//! one step at a time: [`formats`] is the table of what can be recognised, [`span`] finds the
//! other devices of a spanned volume, [`references`] decides which files an image may name.
#![forbid(unsafe_code)]

mod formats;
mod locator;
mod opened;
mod opener;
mod options;
mod references;
mod span;

pub use formats::{FORMATS, Format};
pub use locator::Locator;
pub use opened::{At, Fact, Files, LayerInfo, Opened, Origin};
pub use opener::Opener;
pub use options::{OpenOptions, ReferencePolicy};
