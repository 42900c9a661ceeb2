//! What the user decides about opening.

use adit_core::Limits;
use adit_io::ReadPolicy;
use std::path::PathBuf;

/// Which files an image may name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReferencePolicy {
    /// Only files in the image's own directory.
    #[default]
    Directory,
    /// Any file of the file system the image lies in; on the host, never outside the directory.
    Datastore,
}

/// What the user decides about opening.
#[derive(Clone, Debug, Default)]
pub struct OpenOptions {
    /// Bounds on what an image may ask for.
    pub limits: Limits,
    /// Further devices or images that may be members of a spanned volume.
    pub members: Vec<PathBuf>,
    /// Further datastores that symbolic links may lead to.
    pub datastores: Vec<PathBuf>,
    /// Which files an image may name.
    pub references: ReferencePolicy,
    /// The source is a raw disk; never look for an image format or a split in it.
    pub raw: bool,
    /// How failed reads are tried again.
    pub reads: ReadPolicy,
}
