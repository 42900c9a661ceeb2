//! How a name becomes a layer.
//!
//! A [`Locator`] such as `lun.img//p1//web01/web01.vmdk//p2` is resolved by an [`Opener`],
//! one step at a time: [`formats`] is the table of what can be recognised, [`images`] opens disk
//! images with all the files they need, [`references`] decides which files those may be, and
//! [`span`] finds the other devices of a spanned volume.
#![forbid(unsafe_code)]

mod describe;
mod edit;
mod formats;
mod group;
mod guest;
mod images;
mod locator;
mod opened;
mod opener;
mod options;
mod pool;
mod references;
mod remote;
mod secret;
mod select;
mod source;
mod span;
mod system;
mod verify;

pub use edit::{
    Blank, Edit, EditParent, InnerSnapshot, ParentState, Relative, Repair, Repaired, Risks,
    SnapshotWork,
};
pub use formats::{FORMATS, Format};
pub use guest::{EachRange, Guest};
pub use locator::Locator;
pub use opened::{At, Fact, Files, LayerInfo, Opened, Origin};
pub use opener::Opener;
pub use options::{NamedParent, OpenOptions, ReferencePolicy};
pub use remote::Remote;
pub use secret::Secret;
pub use system::{GuestDisks, GuestSystem, SystemOpener};
