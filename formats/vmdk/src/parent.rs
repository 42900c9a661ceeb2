//! Parents: whether a disk has one, and whether it is this one.

use crate::{Descriptor, Purpose, Reference};
use adit_core::{Error, Place, Problem, Result};
use std::borrow::Cow;

impl Descriptor {
    /// Whether the disk holds only what differs from a parent.
    pub fn has_parent(&self) -> bool {
        self.parent_cid.is_some() || self.parent_uuid().is_some()
    }

    /// Identity of this image, as VirtualBox writes it.
    pub fn uuid(&self) -> Option<Cow<'_, str>> {
        self.text("ddb.uuid.image").filter(|uuid| !digits(uuid).is_empty())
    }

    /// Identity of the parent image, where a disk names its parent only so (VirtualBox).
    pub fn parent_uuid(&self) -> Option<Cow<'_, str>> {
        self.text("ddb.uuid.parent")
            .filter(|uuid| uuid.chars().any(|c| c.is_ascii_hexdigit() && c != '0'))
    }

    /// How the parent is named; its name is empty where only its identity is known.
    pub fn parent_reference(&self) -> Option<Reference> {
        let name = self.parent_hint.clone().unwrap_or_default();
        self.has_parent().then_some(Reference { name, purpose: Purpose::Parent })
    }

    /// Checks that a parent is the one this disk was made from, and was not changed since.
    ///
    /// `parent_cid` is the parent's [`Descriptor::cid`] (0 if it has none), `parent_uuid` its
    /// [`Descriptor::uuid`].
    ///
    /// Errors: `Corrupt` with both values if one of them differs; `Invalid` for a disk without
    /// parent.
    pub fn accepts_parent(&self, parent_cid: u32, parent_uuid: Option<&str>) -> Result<()> {
        if !self.has_parent() {
            return Err(Error::invalid(Problem::Mismatch, "the disk has no parent"));
        }
        if let Some(expected) = self.parent_cid.filter(|&expected| expected != parent_cid) {
            let detail = format!(
                "it was made from a parent with CID {expected:08x}, but this one has {parent_cid:08x}"
            );
            return Err(mismatch("parentCID", detail).advise(
                "the parent was changed after the snapshot, or is another disk; \
                 its data below the snapshot cannot be trusted",
            ));
        }
        let Some(expected) = self.parent_uuid() else { return Ok(()) };
        match parent_uuid {
            Some(found) if digits(found) == digits(&expected) => Ok(()),
            // The CID has matched already.
            None if self.parent_cid.is_some() => Ok(()),
            found => {
                let found = found.unwrap_or("none");
                let detail = format!(
                    "it was made from the image with uuid {expected}, but this one has {found}"
                );
                Err(mismatch("ddb.uuid.parent", detail))
            }
        }
    }

    /// Where the descriptor says that there is a parent.
    pub(crate) fn parent_place(&self) -> Place {
        let field = if self.parent_cid.is_some() { "parentCID" } else { "ddb.uuid.parent" };
        Place::new("VMDK descriptor").field(field)
    }
}

fn mismatch(field: &'static str, detail: String) -> Error {
    Error::corrupt(Problem::Mismatch, detail).at(Place::new("VMDK descriptor").field(field))
}

/// A uuid without its punctuation.
fn digits(uuid: &str) -> String {
    uuid.chars().filter(char::is_ascii_hexdigit).map(|c| c.to_ascii_lowercase()).collect()
}
