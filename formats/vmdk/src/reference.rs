//! The files a descriptor names.

use crate::Descriptor;

/// Why a descriptor names a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Purpose {
    /// It holds this extent.
    Extent(usize),
    /// It is the parent's descriptor, or a sparse file that holds one.
    Parent,
    /// It lists changed blocks.
    ChangeTrack,
}

/// A file that a descriptor names. Hostile text until a policy has looked at it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// The name as it stands, in the descriptor's own bytes: relative to the descriptor's
    /// directory, or absolute. Empty for a parent that is known by its identity alone.
    pub name: Vec<u8>,
    /// What it is needed for.
    pub purpose: Purpose,
}

impl Reference {
    /// The name for a person.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.name).into_owned()
    }
}

impl Descriptor {
    /// Every file the descriptor names, extents first and in their order.
    ///
    /// A parent is among them only if the disk has one, and names it.
    pub fn references(&self) -> Vec<Reference> {
        let extents = self.extents.iter().enumerate().filter_map(|(index, extent)| {
            let name = extent.file.clone()?;
            Some(Reference { name, purpose: Purpose::Extent(index) })
        });
        let change_track = self.change_track_path.clone();
        let change_track =
            change_track.map(|name| Reference { name, purpose: Purpose::ChangeTrack });
        let parent = self.parent_reference().filter(|parent| !parent.name.is_empty());
        extents.chain(parent).chain(change_track).collect()
    }
}
