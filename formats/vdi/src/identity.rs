//! Who an image is, and who its parent must be.

use adit_core::{Error, Place, Problem, Result, guid};

/// The two identities of an image. Bytes as they stand in the file; as text they are GUIDs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ParentIdentity {
    /// Given when the image was created.
    pub uuid_create: [u8; 16],
    /// Given whenever somebody began to write to it.
    pub uuid_modify: [u8; 16],
}

/// What a file is needed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Purpose {
    /// The parent of a differencing image.
    Parent,
}

/// A file that an image needs. VDI stores no names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// Always empty: look for a file of this identity, or ask the machine's settings.
    pub name: Vec<u8>,
    /// What it is needed for.
    pub purpose: Purpose,
    /// Who it must be.
    pub identity: ParentIdentity,
}

impl Reference {
    /// The reference for a person: the UUID in VirtualBox's form.
    pub fn text(&self) -> String {
        text(&self.identity.uuid_create)
    }
}

/// Compares a parent with what its child expects.
///
/// A child that recorded no modification is content with the right image in any state.
pub(crate) fn compare(wanted: &ParentIdentity, found: &ParentIdentity) -> Result<()> {
    if wanted.uuid_create != found.uuid_create {
        let (wanted, found) = (text(&wanted.uuid_create), text(&found.uuid_create));
        return Err(Error::corrupt(
            Problem::Mismatch,
            format!("the parent is {{{wanted}}}, but this image is {{{found}}}"),
        )
        .at(Place::new("VDI header").field("uuid_link").byte(0x1a8))
        .advise("find the image of that UUID; another one gives other data"));
    }
    if wanted.uuid_modify != [0; 16] && wanted.uuid_modify != found.uuid_modify {
        let (wanted, found) = (text(&wanted.uuid_modify), text(&found.uuid_modify));
        return Err(Error::corrupt(
            Problem::Mismatch,
            format!(
                "the parent was in state {{{wanted}}} when the child was made, but is in state \
                 {{{found}}}: somebody wrote to it"
            ),
        )
        .at(Place::new("VDI header").field("uuid_parent_modify").byte(0x1b8))
        .advise("restore the parent as it was; the child shows wrong data on another state"));
    }
    Ok(())
}

/// A UUID as VirtualBox prints it.
pub(crate) fn text(uuid: &[u8; 16]) -> String {
    guid(uuid).to_ascii_lowercase()
}
