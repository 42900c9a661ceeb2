//! The engine behind `adit convert`: any disk, as a new image file of another format.
//!
//! - [`convert`]: reads holes never, decodes and encodes on all processors, writes with one
//!   thread, in the order of the disk; the file has its name only once it is whole.
//! - [`ConvertOptions`], [`Format`], [`Compression`]: what is made; [`Converted`]: what came of it.
//! - [`compare`]: whether two disks hold the same bytes, by extents.
//!
//! The format crates say where everything goes (`write::Builder` and its like) and do no I/O;
//! this crate moves the bytes. Files, in order: `options` → `convert` → `plan` (what has to be
//! read) → `engine` (threads, buffers, order) with `encode` (and `probe`), `layout` (one face for all formats),
//! `write` and `hash` → `reopen` and `compare`, which verify; `resume` keeps the journal of a
//! conversion that can be carried on, with `places` (where items went) and the state of `hash` in it, `device` writes over a block
//! device, `cache` keeps the page cache for others.
#![forbid(unsafe_code)]

mod buffer;
mod cache;
mod compare;
mod convert;
mod device;
mod encode;
mod engine;
mod hash;
mod layout;
mod options;
mod places;
mod plan;
mod probe;
mod reopen;
mod resume;
mod tree;
mod write;

pub use compare::compare;
pub use convert::convert;
pub use options::{Cache, Compression, ConvertOptions, Converted, Format};
