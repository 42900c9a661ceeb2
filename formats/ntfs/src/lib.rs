//! NTFS 1.2, 3.0 and 3.1: a Windows volume as a [`FileSystem`].
//!
//! The volume is one [`Disk`] whose byte 0 is the boot sector.
//!
//! - [`probe`], [`Ntfs::open`]: is it one, and open it. [`Ntfs`] is the file system.
//! - [`layout`]: every on-disk structure with its offsets, nothing else.
//! - [`Boot`]: the checked boot sector; all sizes come from it.
//! - [`Record`], [`Attribute`], [`FileName`]: MFT records, verified by their update sequence.
//! - [`Node`]: a file with its attribute list; [`Ntfs::stream`] puts a [`Stream`] together.
//! - [`StreamMap`]: from an offset in a stream to the volume: resident, run lists, holes,
//!   LZNT1; `wof` does the same for files that `compact` packed (XPRESS, LZX).
//! - `index`, `directory`: from a name to a record. `reparse`: links and foreign filters.
//! - `log`, `volume`: in what state the volume was left; nothing is replayed.
//! - [`Ntfs::records`]: every record in one sequential sweep. `check`: all of it compared.
//!
//! A node's number is its file reference: the record number in the low 48 bits, the sequence
//! number above, which tells a file from an earlier one in the same record. A number without
//! sequence is any file in that record.
//!
//! Reading order: `boot` → `ntfs` → `mft` → `record` → `node` → `stream` → `map` → `directory`.
//!
//! Everything is read-only, nothing is trusted: a torn record loses its own file, a bad run its
//! own clusters.
//!
//! [`FileSystem`]: adit_core::FileSystem
//! [`Disk`]: adit_core::Disk
#![forbid(unsafe_code)]
#![deny(
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]
#![cfg_attr(
    test,
    allow(
        clippy::arithmetic_side_effects,
        clippy::as_conversions,
        clippy::indexing_slicing,
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic
    )
)]

mod allocated;
mod bits;
mod boot;
mod check;
mod deleted;
mod details;
mod directory;
mod filesystem;
mod fixup;
mod index;
mod inspect;
pub mod layout;
mod log;
mod lznt1;
mod lzx;
mod map;
mod mft;
mod names;
mod node;
mod ntfs;
mod record;
mod reparse;
mod runlist;
mod security;
mod space;
mod stream;
mod volume;
mod wof;
mod xpress;

pub use boot::Boot;
pub use deleted::Deleted;
pub use details::StreamInfo;
pub use log::{LogState, Pending, Stale};
pub use map::StreamMap;
pub use mft::Records;
pub use node::Node;
pub use ntfs::{Ntfs, probe};
pub use record::{Attribute, Attributes, Body, FileName, Record};
pub use reparse::Reparse;
pub use runlist::{Backing, Piece};
pub use security::Standard;
pub use stream::{Content, Stream};
pub use volume::VolumeInfo;
