//! Nodes: a directory record, what is behind it, and the records that carry it on.

use crate::layout::record_flag;
use crate::map::{FileMap, Section};
use crate::record::Record;
use crate::rockridge::RockRidge;
use crate::time;
use crate::volume::Iso;
use crate::zisofs;
use adit_core::bytes::wide;
use adit_core::{
    Disk, DiskExt, Error, Finding, Metadata, NodeId, NodeKind, Place, Problem, Result,
};
use std::sync::Arc;

/// A file or directory.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub id: NodeId,
    pub kind: NodeKind,
    pub record: Record,
    pub rock: RockRidge,
    /// Where its bytes are.
    pub sections: Vec<Section>,
    /// Unit: bytes.
    pub length: u64,
    pub interleaved: bool,
}

impl Iso {
    /// Where a directory's own record stands, which is its number.
    pub(crate) fn directory_id(&self, block: u64) -> NodeId {
        NodeId(self.block_offset(block))
    }

    pub(crate) fn root_id(&self) -> NodeId {
        self.directory_id(self.volume().root.data_block())
    }

    /// The node a record of a directory leads to.
    pub(crate) fn id_of(&self, record: &Record, rock: &RockRidge) -> NodeId {
        if let Some(child) = rock.child {
            return self.directory_id(child.into());
        }
        if record.is_directory() {
            return self.directory_id(self.extent(record).0);
        }
        NodeId(record.offset)
    }

    /// First block and length of a record's data. Where the two byte orders differ, the one
    /// that lies on the disk counts, first the little-endian one.
    pub(crate) fn extent(&self, record: &Record) -> (u64, u64) {
        let here = (record.data_block(), u64::from(record.raw.size));
        let Some((extent, size)) = record.other else { return here };
        let text = "the numbers in both byte orders differ in a directory record";
        let finding = Finding::warning("iso9660-byte-orders", text).at(record.place());
        self.notes().add(finding);
        let there =
            (u64::from(extent).saturating_add(record.raw.attribute_blocks.into()), size.into());
        let inside = |(block, length): (u64, u64)| {
            self.block_offset(block).saturating_add(length) <= self.disk().size_bytes()
        };
        if !inside(here) && inside(there) { there } else { here }
    }

    /// What a record is.
    pub(crate) fn kind_of(&self, record: &Record, rock: &RockRidge) -> NodeKind {
        if record.is_directory() || rock.child.is_some() {
            return NodeKind::Directory;
        }
        match rock.kind() {
            Some(NodeKind::Directory) | None => NodeKind::File,
            Some(kind) => kind,
        }
    }

    /// Reads the record of a node, and those that carry it on.
    ///
    /// Errors: `Corrupt`; `NotFound` for what is no record at all.
    pub(crate) fn node(&self, id: NodeId) -> Result<Node> {
        let size = self.disk().size_bytes();
        if id.0 >= size {
            return Err(Error::not_found(format!("no record stands at byte {:#x}", id.0)));
        }
        let record = self.record_at(id.0)?;
        if record.is_parent() {
            return Err(Error::not_found(format!("no file's record stands at byte {:#x}", id.0)));
        }
        let rock = self.rock_ridge_of(&record, id == self.root_id())?;
        let kind = self.kind_of(&record, &rock);
        let mut node = Node {
            id,
            kind,
            rock,
            sections: Vec::new(),
            length: 0,
            interleaved: false,
            record: record.clone(),
        };
        if kind == NodeKind::Directory && !record.is_self() {
            let detail = "no directory starts here";
            return Err(Error::corrupt(Problem::BadValue, detail).at(record.place()));
        }
        let mut next = record;
        for _ in 0..self.limits().pieces_max {
            let (block, length) = self.extent(&next);
            let offset = self.block_offset(block);
            node.interleaved |= next.raw.unit_blocks != 0 || next.raw.gap_blocks != 0;
            node.sections.push(Section { start: node.length, offset, length });
            node.length = node.length.saturating_add(length);
            if !next.has(record_flag::MORE) || kind == NodeKind::Directory {
                return Ok(node);
            }
            let last = next.place();
            next = self.following(&next).map_err(|error| error.at(last.clone()))?;
            if next.name != node.record.name {
                let detail = "the file goes on in the next record, which is another file's";
                return Err(Error::corrupt(Problem::Missing, detail).at(last));
            }
        }
        Err(Error::limit("pieces_max", "a file goes on over too many records")
            .at(Place::new("directory record").byte(id.0)))
    }

    /// The record behind a record.
    fn following(&self, record: &Record) -> Result<Record> {
        let after = record.offset.saturating_add(record.raw.length.into());
        if let Ok(next) = self.record_at(after)
            && !after.is_multiple_of(crate::layout::SECTOR_BYTES)
        {
            return Ok(next);
        }
        self.record_at(after.next_multiple_of(crate::layout::SECTOR_BYTES))
    }

    /// Reads a node that must be a directory.
    ///
    /// Errors: `Invalid` where it is none.
    pub(crate) fn directory(&self, id: NodeId) -> Result<Node> {
        let node = self.node(id)?;
        if node.kind == NodeKind::Directory {
            return Ok(node);
        }
        let detail = format!("the record at byte {:#x} is no directory's", id.0);
        Err(Error::invalid(Problem::BadValue, detail))
    }

    /// The directory that holds a directory, as its second record says.
    pub(crate) fn recorded_parent(&self, dir: &Node) -> Result<NodeId> {
        let above = self.following(&dir.record)?;
        if !above.is_parent() {
            let detail = "the second record of a directory is not that of the one above";
            return Err(Error::corrupt(Problem::BadValue, detail).at(above.place()));
        }
        let rock = self.rock_ridge_of(&above, false)?;
        Ok(match rock.parent {
            Some(block) => self.directory_id(block.into()),
            None => self.directory_id(self.extent(&above).0),
        })
    }

    /// The bytes of a file as they stand, packed or not.
    pub(crate) fn stored(&self, node: &Node) -> Arc<dyn Disk> {
        let name = format!("ISO9660 file at byte {:#x}", node.id.0);
        FileMap::open(name, Arc::clone(self.disk()), node.sections.clone(), node.length)
    }

    /// The bytes of a file.
    ///
    /// Errors: `Unsupported` for interleaved files and unknown packings.
    pub(crate) fn data(&self, node: &Node) -> Result<Arc<dyn Disk>> {
        if node.interleaved {
            let detail = "the file is interleaved with others";
            return Err(Error::unsupported(detail).at(node.record.place()));
        }
        match &node.rock.packed {
            Some(packed) => zisofs::open(self.stored(node), packed, self.limits())
                .map_err(|error| error.at(node.record.place())),
            None => Ok(self.stored(node)),
        }
    }

    pub(crate) fn metadata_of(&self, node: &Node) -> Metadata {
        let rock = &node.rock;
        let unix = rock.attributes;
        let recorded = time::short(&node.record.raw.date);
        let size_bytes = match (node.kind, &rock.packed, &rock.target) {
            (NodeKind::Symlink, _, Some(target)) => wide(target.len()),
            (NodeKind::File, Some(packed), _) => packed.size,
            (NodeKind::File | NodeKind::Directory, ..) => node.length,
            _ => 0,
        };
        let block = self.volume().block_bytes;
        let plain = if node.kind == NodeKind::Directory { 0o555 } else { 0o444 };
        Metadata {
            node: node.id,
            kind: node.kind,
            size_bytes,
            allocated_bytes: node.length.div_ceil(block.get()).saturating_mul(block.get()),
            block_size_bytes: block.get(),
            links: unix.map_or(1, |unix| unix.links),
            mode: unix.map_or(plain, |unix| unix.mode & 0o7777),
            uid: unix.map_or(0, |unix| unix.uid),
            gid: unix.map_or(0, |unix| unix.gid),
            modified: rock.modified.or(recorded),
            changed: rock.changed,
            accessed: rock.accessed,
            created: rock.created,
            generation: 0,
        }
    }
}
