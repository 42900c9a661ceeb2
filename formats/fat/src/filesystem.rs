//! The file system as everything else sees it.

use crate::layout::attribute;
use crate::node::{Node, ROOT};
use crate::volume::Fat;
use adit_core::bytes::wide;
use adit_core::on_disk::Value;
use adit_core::{
    Cursor, Detail, DirPage, Disk, Error, FileSystem, Finding, Fork, Identity, Metadata, Name,
    NodeId, Problem, Result, Space, Xattr,
};
use std::sync::Arc;

impl FileSystem for Fat {
    fn identity(&self) -> Identity {
        Identity {
            format: self.shape().variant.title().to_owned(),
            label: self.label().to_owned(),
            uuid: self.shape().serial_text(),
            created: None,
        }
    }

    fn notes(&self) -> Vec<Finding> {
        self.notes_so_far()
    }

    fn root(&self) -> NodeId {
        ROOT
    }

    fn lookup(&self, dir: NodeId, name: &Name) -> Result<NodeId> {
        let dir = self.directory(dir)?;
        match name.as_bytes() {
            b"." => Ok(dir.id),
            b".." => self.parent(&dir),
            _ => self.find_name(&dir, name),
        }
    }

    fn read_dir(&self, dir: NodeId, from: Cursor) -> Result<DirPage> {
        Ok(self.page(&self.directory(dir)?, from))
    }

    fn metadata(&self, node: NodeId) -> Result<Metadata> {
        Ok(self.metadata_of(&self.node(node)?))
    }

    fn read_link(&self, link: NodeId) -> Result<Vec<u8>> {
        let detail = format!("{} has no symbolic links", self.shape().variant.title());
        self.node(link)?;
        Err(Error::invalid(Problem::BadValue, detail))
    }

    fn open(&self, file: NodeId, fork: &Fork) -> Result<Arc<dyn Disk>> {
        let node = self.node(file)?;
        if let Fork::Named(name) = fork {
            return Err(Error::not_found(format!("FAT files have no stream {name:?}")));
        }
        if node.is_directory() {
            let detail = format!("the entry at byte {:#x} is a directory", node.id.0);
            return Err(Error::invalid(Problem::BadValue, detail));
        }
        Ok(self.data(&node))
    }

    fn xattrs(&self, node: NodeId) -> Result<Vec<Xattr>> {
        self.node(node).map(|_| Vec::new())
    }

    fn details(&self, node: NodeId) -> Result<Vec<Detail>> {
        Ok(details(self, &self.node(node)?))
    }

    fn space(&self) -> Result<Space> {
        self.space_of()
    }
}

/// Everything particular to FAT about a node. The names are stable.
fn details(fs: &Fat, node: &Node) -> Vec<Detail> {
    let runs = fs.runs(node);
    let letters: String = attribute::LETTERS
        .iter()
        .filter(|(bit, _)| node.attributes & bit != 0)
        .map(|(_, letter)| *letter)
        .collect();
    let mut details = vec![
        ("entry_offset", Value::Uint(node.id.0)),
        ("attributes", Value::Text(format!("{:#04x}", node.attributes))),
        ("attributes_letters", Value::Text(letters)),
        ("first_cluster", Value::Uint(node.first.into())),
        ("pieces", Value::Uint(wide(runs.pieces().len()))),
    ];
    if fs.shape().variant == crate::shape::Variant::ExFat {
        let mapping = if node.contiguous { "contiguous" } else { "chain" };
        details.push(("mapping", Value::Text(mapping.into())));
        details.push(("valid_bytes", Value::Uint(node.valid)));
    }
    if let Some(error) = runs.broken() {
        details.push(("damage", Value::Text(error.to_string())));
    }
    details.into_iter().map(|(name, value)| Detail { name, value }).collect()
}
