//! Nodes: what a directory entry says of a file.

use crate::chain::Runs;
use crate::layout::{SLOT_BYTES, attribute};
use crate::map::FileMap;
use crate::shape::Variant;
use crate::volume::Fat;
use adit_core::bytes::narrow;
use adit_core::{
    Disk, DiskExt, Error, Metadata, NodeId, NodeKind, Place, Problem, Result, Timestamp,
};
use std::sync::Arc;

/// The root directory, which no entry names.
pub(crate) const ROOT: NodeId = NodeId(1);

/// What an entry says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Node {
    /// Byte of the volume where its entry stands.
    pub id: NodeId,
    pub attributes: u16,
    /// First cluster; 0 where there is none.
    pub first: u32,
    /// The clusters are side by side, and the FAT says nothing of them.
    pub contiguous: bool,
    /// Unit: bytes.
    pub length: u64,
    /// Bytes past this one are zeros. Unit: bytes.
    pub valid: u64,
    pub created: Option<Timestamp>,
    pub modified: Option<Timestamp>,
    pub accessed: Option<Timestamp>,
}

impl Node {
    pub(crate) fn is_directory(&self) -> bool {
        self.attributes & attribute::DIRECTORY != 0
    }

    pub(crate) fn kind(&self) -> NodeKind {
        if self.is_directory() { NodeKind::Directory } else { NodeKind::File }
    }

    pub(crate) fn place(&self) -> Place {
        Place::new("directory entry").byte(self.id.0)
    }

    fn root(first: u32) -> Node {
        Node {
            id: ROOT,
            attributes: attribute::DIRECTORY,
            first,
            contiguous: false,
            length: 0,
            valid: 0,
            created: None,
            modified: None,
            accessed: None,
        }
    }
}

impl Fat {
    /// Reads the entry of a node.
    ///
    /// Errors: `NotFound` where no entry stands; `Corrupt` where a damaged one does.
    pub(crate) fn node(&self, id: NodeId) -> Result<Node> {
        let shape = self.shape();
        if id == ROOT {
            return Ok(Node::root(shape.root_cluster));
        }
        let fixed = shape.root_offset..shape.root_offset.saturating_add(shape.root_bytes);
        let inside = fixed.contains(&id.0) || shape.cluster_at(id.0).is_some();
        let place = || Place::new("directory entry").byte(id.0);
        if !inside || !id.0.is_multiple_of(SLOT_BYTES) {
            return Err(Error::not_found(format!("no entry stands at byte {:#x}", id.0)));
        }
        match shape.variant {
            Variant::ExFat => crate::entryset::read(self, id.0).map(|set| set.node),
            _ => {
                let bytes = self.disk().read_vec(id.0, narrow(SLOT_BYTES).unwrap_or(0));
                let bytes = bytes.map_err(|error| error.at(place()))?;
                crate::short::node(self, &bytes, id.0)?.ok_or_else(|| {
                    let detail = format!("no file's entry stands at byte {:#x}", id.0);
                    Error::not_found(detail).at(place())
                })
            }
        }
    }

    /// Reads the entry of a directory.
    ///
    /// Errors: as `node`; `Invalid` where it is no directory.
    pub(crate) fn directory(&self, id: NodeId) -> Result<Node> {
        let node = self.node(id)?;
        if node.is_directory() {
            return Ok(node);
        }
        let detail = format!("the entry at byte {:#x} is no directory", id.0);
        Err(Error::invalid(Problem::BadValue, detail))
    }

    /// Where the bytes of a node are.
    pub(crate) fn runs(&self, node: &Node) -> Runs {
        let shape = self.shape();
        if node.id == ROOT && shape.root_bytes > 0 {
            return Runs::one(shape.root_offset, shape.root_bytes);
        }
        // Directories of FAT have no length: their chain tells.
        let open_ended =
            node.id == ROOT || (node.is_directory() && shape.variant != Variant::ExFat);
        if open_ended {
            return self.chain(node.first, None);
        }
        let clusters = shape.clusters_of(node.length);
        if node.contiguous {
            return self.contiguous(node.first, clusters);
        }
        self.chain(node.first, Some(clusters))
    }

    /// The bytes of a file as a disk.
    pub(crate) fn data(&self, node: &Node) -> Arc<dyn Disk> {
        let name = format!("{} file at byte {:#x}", self.shape().variant.title(), node.id.0);
        let runs = Arc::new(self.runs(node));
        FileMap::open(name, Arc::clone(self.disk()), runs, node.length, node.valid)
    }

    pub(crate) fn metadata_of(&self, node: &Node) -> Metadata {
        let shape = self.shape();
        let (mut size_bytes, mut allocated_bytes) =
            (node.length, shape.clusters_of(node.length).saturating_mul(shape.cluster_bytes.get()));
        if node.is_directory() {
            let runs = self.runs(node);
            (size_bytes, allocated_bytes) = (runs.length(), runs.length());
        }
        let read_only = node.attributes & attribute::READ_ONLY != 0;
        Metadata {
            node: node.id,
            kind: node.kind(),
            size_bytes,
            allocated_bytes,
            block_size_bytes: shape.cluster_bytes.get(),
            links: 1,
            // On a directory Windows uses the attribute for something else.
            mode: match node.kind() {
                NodeKind::Directory => 0o755,
                _ if read_only => 0o444,
                _ => 0o644,
            },
            uid: 0,
            gid: 0,
            modified: node.modified,
            changed: None,
            accessed: node.accessed,
            created: node.created,
            generation: 0,
        }
    }
}
