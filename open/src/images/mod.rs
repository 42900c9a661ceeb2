//! Disk images: from a file to the disk in it, through all the files that takes.
//!
//! Every format has a file here that says in the words of [`Image`] what its crate offers.
//! [`chain`] walks from an image to its parents and puts the disk together from the last parent
//! up; [`named`] keeps the parents the user named, [`facts`] gives facts their stable names.

pub(crate) mod asif;
mod chain;
mod facts;
mod named;
pub(crate) mod parallels;
pub(crate) mod qcow;
pub(crate) mod qed;
mod raw;
pub(crate) mod vdi;
pub(crate) mod vhd;
pub(crate) mod vhdx;
pub(crate) mod vmdk;

pub(crate) use chain::{Below, below, check, headers, open, parent_of};

use crate::{Fact, Secret};
use adit_core::{Disk, Error, Finding, Inspect, Interrupt, Kind, Problem, Result};
use std::fmt::Debug;
use std::sync::Arc;

/// An image whose headers were read; no other file was opened yet.
pub(crate) trait Image: Debug {
    /// What it calls itself: `"QCOW2"`, `"VMDK monolithicSparse"`.
    fn format(&self) -> String;
    /// The files it cannot do without, apart from its extents.
    fn wants(&self) -> Vec<Wanted>;
    /// Who it is, for its children.
    fn identity(&self) -> Identity;
    /// Whether the image of this identity is its parent, and what is to be said about it.
    ///
    /// Errors: `Corrupt` with both identities if it is another one.
    fn accepts(&self, parent: &Identity) -> Result<Vec<Finding>>;
    /// Checks every invariant the format has; `extent` finds files with parts of it.
    fn check(&self, extent: Find<'_>, report: Report<'_>, interrupt: &Interrupt) -> Result<()>;
    /// Shows its structures, if the format has that.
    fn inspect(&self) -> Option<&dyn Inspect>;
    /// The disk; `name` is what to call the image, `extent` finds files with parts of it.
    fn disk(&self, name: &str, parts: Parts, extent: Find<'_>) -> Result<Contents>;
}

/// Takes what a check finds.
pub(crate) type Report<'a> = &'a mut dyn FnMut(Finding);

/// Finds the file of an extent by its name.
pub(crate) type Find<'a> = &'a mut dyn FnMut(&[u8]) -> Result<Arc<dyn Disk>>;

/// A file that an image wants.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wanted {
    /// Whether it holds the image's own data, rather than what lies below it.
    pub is_data: bool,
    /// The names to try, in order; none if it is known by its identity alone, or not at all.
    pub names: Vec<Vec<u8>>,
    /// Who it is, for a person; if set, the image can tell whether a file is the right one.
    pub identity: Option<String>,
    /// What it must be.
    pub expect: Expect,
}

/// What a wanted file must be.
#[derive(Clone, Debug, Default)]
pub(crate) enum Expect {
    /// Raw bytes, whatever they look like.
    Raw,
    /// An image of one of these formats, by their names in the table.
    Format(&'static [&'static str]),
    /// Of a format that is not read.
    Unknown(String),
    /// The child does not say.
    #[default]
    Guess,
}

/// Who an image is.
#[derive(Clone, Debug)]
pub(crate) enum Identity {
    /// The format has none.
    None,
    Vmdk {
        cid: u32,
        uuid: Option<String>,
    },
    Vhd(adit_vhd::ParentIdentity),
    Vhdx(adit_vhdx::ParentIdentity),
    Vdi(adit_vdi::ParentIdentity),
}

/// The disks in the files that were found.
#[derive(Clone, Debug, Default)]
pub(crate) struct Parts {
    pub parent: Option<Arc<dyn Disk>>,
    pub data: Option<Arc<dyn Disk>>,
    /// What may open an encrypted image.
    pub secrets: Vec<Secret>,
}

/// What an image holds.
#[derive(Clone, Debug)]
pub(crate) struct Contents {
    pub disk: Arc<dyn Disk>,
    pub facts: Vec<(&'static str, Fact)>,
    pub notes: Vec<Finding>,
}

/// The error for a parent of another format than the child's, which [`Expect`] keeps away.
fn other_format() -> Error {
    Error::corrupt(Problem::Mismatch, "the parent is an image of another format")
}

/// A text file, whole.
///
/// Errors: `Limit`.
fn text_of(file: &Arc<dyn Disk>, limits: &adit_core::Limits) -> Result<Vec<u8>> {
    use adit_core::DiskExt;
    let size = file.size_bytes();
    if size > limits.text_bytes_max {
        let detail = format!("the descriptor is too long: {size} bytes");
        return Err(Error::limit("text_bytes_max", detail));
    }
    file.read_vec(0, usize::try_from(size).unwrap_or(0))
}

/// Whether another file may be the one that is wanted, after this error.
fn is_not_the_one(error: &Error) -> bool {
    matches!(error.kind(), Kind::NotFound | Kind::Denied) || error.problem() == Problem::Mismatch
}
