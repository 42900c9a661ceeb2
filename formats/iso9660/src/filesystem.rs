//! The file system as everything else sees it.

use crate::descriptors::Tree;
use crate::node::Node;
use crate::time;
use crate::volume::Iso;
use adit_core::on_disk::Value;
use adit_core::{
    Cursor, Detail, DirPage, Disk, DiskExt, Error, FileSystem, Finding, Fork, Identity, MemoryDisk,
    Metadata, Name, NodeId, NodeKind, Problem, Result, Space, Xattr,
};
use std::ops::Range;
use std::sync::Arc;

impl FileSystem for Iso {
    fn identity(&self) -> Identity {
        let volume = self.volume();
        let label = match self.tree() {
            Tree::Joliet => {
                let pairs = volume.raw.volume.as_chunks::<2>().0;
                let units: Vec<u16> = pairs.iter().map(|two| u16::from_be_bytes(*two)).collect();
                String::from_utf16_lossy(&units)
            }
            _ => String::from_utf8_lossy(&volume.raw.volume).into_owned(),
        };
        let primary = &self.descriptors().primary.raw;
        let zero = |digits: &[u8; 17]| digits.iter().take(16).all(|byte| matches!(byte, b'0' | 0));
        let digits = if zero(&primary.modified) { primary.created } else { primary.modified };
        let format = match self.tree() {
            Tree::Plain => "ISO9660".to_owned(),
            tree => format!("ISO9660 with {}", tree.title()),
        };
        Identity {
            format,
            label: label.trim_end_matches([' ', '\0']).to_owned(),
            uuid: if zero(&digits) { String::new() } else { dashed(&digits) },
            created: time::long(&primary.created),
        }
    }

    fn notes(&self) -> Vec<Finding> {
        self.notes_so_far()
    }

    fn root(&self) -> NodeId {
        self.root_id()
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
        let node = self.node(link)?;
        match (node.kind, node.rock.target) {
            (NodeKind::Symlink, Some(target)) => Ok(target),
            (NodeKind::Symlink, None) => {
                let detail = "the target of the link is missing or damaged";
                Err(Error::corrupt(Problem::Missing, detail).at(node.record.place()))
            }
            _ => {
                let detail = format!("the record at byte {:#x} is no link's", link.0);
                Err(Error::invalid(Problem::BadValue, detail))
            }
        }
    }

    fn open(&self, file: NodeId, fork: &Fork) -> Result<Arc<dyn Disk>> {
        let node = self.node(file)?;
        if let Fork::Named(name) = fork {
            return Err(Error::not_found(format!("ISO9660 files have no stream {name:?}")));
        }
        match (node.kind, node.rock.target.as_ref()) {
            (NodeKind::File, _) => self.data(&node),
            (NodeKind::Symlink, Some(target)) => {
                Ok(MemoryDisk::open(format!("link at byte {:#x}", file.0), target.clone()))
            }
            (NodeKind::Directory, _) => {
                let detail = format!("the record at byte {:#x} is a directory's", file.0);
                Err(Error::invalid(Problem::BadValue, detail))
            }
            (kind, _) => {
                let detail = format!("a {} has no bytes here", kind.word());
                Err(Error::unsupported(detail))
            }
        }
    }

    fn xattrs(&self, node: NodeId) -> Result<Vec<Xattr>> {
        self.node(node).map(|_| Vec::new())
    }

    fn details(&self, node: NodeId) -> Result<Vec<Detail>> {
        Ok(details(self, &self.node(node)?))
    }

    fn space(&self) -> Result<Space> {
        let block = self.volume().block_bytes.get();
        Ok(Space {
            block_size_bytes: block,
            total_bytes: self.volume().size_bytes(),
            free_bytes: 0,
            nodes_total: 0,
            nodes_free: 0,
        })
    }
}

impl Iso {
    /// Every range that may hold something: all of the disk, because the format does not say
    /// what it leaves free.
    ///
    /// Units: bytes.
    /// Errors: those of `each`.
    pub fn allocated(&self, each: &mut dyn FnMut(Range<u64>) -> Result<()>) -> Result<()> {
        match self.disk().size_bytes() {
            0 => Ok(()),
            size => each(0..size),
        }
    }
}

/// Digits as `2024-02-29-12-34-56-78`, which is how other tools name a disc.
fn dashed(digits: &[u8; 17]) -> String {
    let text: String = digits.iter().take(16).map(|byte| char::from(*byte)).collect();
    let part = |range: Range<usize>| text.get(range).unwrap_or("").to_owned();
    let rest = (4..16usize).step_by(2).map(|at| part(at..at.saturating_add(2)));
    std::iter::once(part(0..4)).chain(rest).collect::<Vec<_>>().join("-")
}

/// Everything particular to ISO9660 about a node. The names are stable.
fn details(fs: &Iso, node: &Node) -> Vec<Detail> {
    let sections: Vec<Value> =
        node.sections.iter().take(64).map(|section| Value::Uint(section.offset)).collect();
    let mut details = vec![
        ("tree", Value::Text(fs.tree().title().into())),
        ("record_offset", Value::Uint(node.record.offset)),
        ("flags", Value::Text(format!("{:#04x}", node.record.raw.flags))),
        ("section_offsets", Value::List(sections)),
        ("stored_bytes", Value::Uint(node.length)),
    ];
    if node.record.raw.attribute_blocks > 0 {
        let blocks = u64::from(node.record.raw.attribute_blocks);
        details.push(("attribute_blocks", Value::Uint(blocks)));
    }
    if let Some(serial) = node.rock.attributes.and_then(|unix| unix.serial) {
        details.push(("serial", Value::Uint(serial.into())));
    }
    if let (NodeKind::CharDevice | NodeKind::BlockDevice, Some((major, minor))) =
        (node.kind, node.rock.device)
    {
        details.push(("device_major", Value::Uint(major.into())));
        details.push(("device_minor", Value::Uint(minor.into())));
    }
    if let Some(packed) = &node.rock.packed {
        let name = String::from_utf8_lossy(&packed.algorithm).into_owned();
        details.push(("packed", Value::Text(format!("zisofs {name}"))));
    }
    if node.interleaved {
        details.push(("interleaved", Value::Text("with other files; not read".into())));
    }
    if node.id == fs.root_id() {
        let images = fs.boot().iter().map(|image| {
            let text = format!("{}, {}", image.platform_name(), image.media_name());
            Value::Text(format!("{text}, at byte {:#x}", image.offset))
        });
        details.push(("boot_images", Value::List(images.collect())));
    }
    details.into_iter().map(|(name, value)| Detail { name, value }).collect()
}
