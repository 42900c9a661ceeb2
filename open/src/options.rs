//! What the user decides about opening.

use crate::Remote;
use crate::Secret;
use crate::SystemOpener;
use adit_core::{Error, Limits, Problem, Result};
use adit_io::ReadPolicy;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
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

/// A parent, or a data file, that the user names: images are not asked where it is, but who.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedParent {
    /// The image it is for: its file name or its full place. Without one, it is for the next
    /// image whose parent is not found.
    pub child: Option<OsString>,
    /// Where the file is: a place, as everywhere.
    pub place: OsString,
}

impl NamedParent {
    /// Reads `CHILD=PLACE` or `PLACE`. A text that is a file of the host is a place.
    ///
    /// Errors: `Invalid` where one side of the `=` is empty.
    pub fn parse(text: &OsStr) -> Result<NamedParent> {
        let bytes = text.as_bytes();
        let cut = bytes.iter().position(|&byte| byte == b'=');
        let Some(cut) = cut.filter(|_| !std::path::Path::new(text).exists()) else {
            return Ok(NamedParent { child: None, place: text.to_owned() });
        };
        let (child, place) = (&bytes[..cut], &bytes[cut + 1..]);
        if child.is_empty() || place.is_empty() {
            let detail = format!("{:?} is not CHILD=PLACE", text.to_string_lossy());
            return Err(Error::invalid(Problem::BadValue, detail));
        }
        let own = |bytes| OsStr::from_bytes(bytes).to_owned();
        Ok(NamedParent { child: Some(own(child)), place: own(place) })
    }
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
    /// Parents and data files that images cannot name, or must not.
    pub parents: Vec<NamedParent>,
    /// Parents are taken for the right ones though their identity says otherwise. For changing
    /// what an image says of its parent, not for reading it.
    pub parents_unchecked: bool,
    /// The source is a raw disk; never look for an image format or a split in it.
    pub raw: bool,
    /// Snapshots inside an image are as large as its disk is now, cut or filled with zeros, as
    /// `qemu-img convert -l` gives them; otherwise as large as when they were taken.
    pub snapshots_of_size_now: bool,
    /// What opens encrypted disks, tried one after the other.
    pub secrets: Vec<Secret>,
    /// How failed reads are tried again.
    pub reads: ReadPolicy,
    /// Who opens places that are named by URI.
    pub remotes: Vec<Remote>,
    /// Who opens the operating systems of guests.
    pub systems: Option<SystemOpener>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parent_is_named_with_or_without_its_child() {
        let parse = |text| NamedParent::parse(OsStr::new(text));
        let named = parse("d2.qcow2=/a=b/d1.qcow2").unwrap();
        assert_eq!(named.child.unwrap(), "d2.qcow2");
        assert_eq!(named.place, "/a=b/d1.qcow2");
        assert_eq!(parse("d1.qcow2").unwrap().child, None);
        assert!(parse("=x").is_err() && parse("x=").is_err());
    }
}
