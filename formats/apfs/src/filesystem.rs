//! The file system as everything else sees it.

use crate::compressed::{ATTRIBUTE_MAX, Packed, size_of};
use crate::container::{Apfs, Names};
use crate::layout::{flag, record};
use crate::map::FileMap;
use crate::records::{Attribute, Inode, ROOT, entry, moment};
use crate::volume::Volume;
use adit_core::bytes::{narrow, until_nul, wide};
use adit_core::on_disk::Value;
use adit_core::{
    Cursor, Detail, DirEntry, DirPage, Disk, DiskExt, Error, FileSystem, Finding, Fork, Identity,
    MemoryDisk, Metadata, Name, NodeId, NodeKind, Problem, Result, Space, Xattr,
};
use std::collections::HashMap;
use std::sync::{Arc, PoisonError};

/// Entries of a page.
const PAGE: usize = 8192;
/// Directories whose names are remembered.
const KNOWN_MAX: usize = 8;
/// Bits of a node's number that are the volume's own.
const OWN_BITS: u32 = 56;
/// The directory of volumes.
const VOLUMES: NodeId = NodeId(1);
const SYMLINK: &[u8] = b"com.apple.fs.symlink";
const DECMPFS: &[u8] = b"com.apple.decmpfs";
const RESOURCE_FORK: &[u8] = b"com.apple.ResourceFork";

impl FileSystem for Apfs {
    fn identity(&self) -> Identity {
        let only = self.volumes.first().filter(|_| self.volumes.len() == 1);
        let label = only.map(|only| String::from_utf8_lossy(&only.name()).into_owned());
        Identity {
            format: "APFS".to_owned(),
            label: label.unwrap_or_default(),
            uuid: uuid(only.map_or(&self.superblock.uuid, |only| &only.superblock.uuid)),
            created: only.and_then(|only| moment(only.superblock.formatted)),
        }
    }

    fn notes(&self) -> Vec<Finding> {
        self.notes.all()
    }

    fn root(&self) -> NodeId {
        if self.volumes.len() == 1 { node_of(0, ROOT) } else { VOLUMES }
    }

    fn lookup(&self, dir: NodeId, name: &Name) -> Result<NodeId> {
        match name.as_bytes() {
            b"." => Ok(dir),
            b".." => self.parent(dir),
            _ => self.names(dir)?.get(name).copied().ok_or_else(|| {
                Error::not_found(format!("there is no {name:?} in directory {}", dir.0))
            }),
        }
    }

    fn read_dir(&self, dir: NodeId, from: Cursor) -> Result<DirPage> {
        if dir == VOLUMES {
            return Ok(self.volume_page());
        }
        let (number, volume) = self.volume(dir)?;
        let inode = self.inode(dir)?;
        if inode.kind()? != NodeKind::Directory {
            let detail = format!("node {} is no directory", dir.0);
            return Err(Error::invalid(Problem::BadValue, detail));
        }
        let mut page = DirPage::default();
        let mut at = 0u64;
        let scanned =
            volume.records(&self.blocks, inode.number, record::NAME, &mut |key, value| {
                at = at.saturating_add(1);
                if at <= from.0 {
                    return Ok(true);
                }
                if page.entries.len() >= PAGE || at > self.limits.directory_entries_max {
                    page.next = Some(Cursor(at.saturating_sub(1)));
                    return Ok(false);
                }
                match entry(key, value, volume.hashed()) {
                    Ok((name, node, kind)) => page.entries.push(DirEntry {
                        name,
                        node: node_of(number, node),
                        kind,
                        after: Cursor(at),
                    }),
                    Err(error) => page.problems.push(error),
                }
                Ok(true)
            });
        if let Err(error) = scanned {
            page.problems.push(error);
            page.next = None;
        }
        Ok(page)
    }

    fn metadata(&self, node: NodeId) -> Result<Metadata> {
        if node == VOLUMES {
            return Ok(self.volumes_metadata());
        }
        let (_, volume) = self.volume(node)?;
        let inode = self.inode(node)?;
        let kind = inode.kind()?;
        let size_bytes = match kind {
            NodeKind::Symlink => wide(self.read_link(node)?.len()),
            NodeKind::File if compressed(&inode) => {
                let attributes = volume.attributes(&self.blocks, inode.number)?;
                here(&attributes, DECMPFS).and_then(size_of).unwrap_or(inode.size)
            }
            NodeKind::File => inode.size,
            _ => 0,
        };
        let raw = &inode.raw;
        Ok(Metadata {
            node,
            kind,
            size_bytes,
            allocated_bytes: inode.allocated,
            block_size_bytes: self.blocks.wide(),
            links: if kind == NodeKind::Directory { 2 } else { raw.links.max(1) },
            mode: u32::from(raw.mode & 0o7777),
            uid: raw.owner,
            gid: raw.group,
            modified: moment(raw.modified),
            changed: moment(raw.changed),
            accessed: moment(raw.accessed),
            created: moment(raw.created),
            generation: raw.generation.into(),
        })
    }

    fn read_link(&self, link: NodeId) -> Result<Vec<u8>> {
        let (_, volume) = self.volume(link)?;
        let inode = self.inode(link)?;
        let attributes = volume.attributes(&self.blocks, inode.number)?;
        let target =
            here(&attributes, SYMLINK).filter(|_| matches!(inode.kind(), Ok(NodeKind::Symlink)));
        target.map(|target| until_nul(target).to_vec()).ok_or_else(|| {
            let detail = format!("node {} is no symbolic link", link.0);
            Error::invalid(Problem::BadValue, detail)
        })
    }

    fn open(&self, file: NodeId, fork: &Fork) -> Result<Arc<dyn Disk>> {
        let (number, volume) = self.volume(file)?;
        let inode = self.inode(file)?;
        let attributes = volume.attributes(&self.blocks, inode.number)?;
        if let Fork::Named(name) = fork {
            return self.attribute_disk(number, &attributes, name.as_bytes())?.ok_or_else(|| {
                Error::not_found(format!("node {} has no attribute {name:?}", file.0))
            });
        }
        match inode.kind()? {
            NodeKind::File if compressed(&inode) && here(&attributes, DECMPFS).is_some() => {
                let fork = self.attribute_disk(number, &attributes, RESOURCE_FORK)?;
                let packed = Packed::open(here(&attributes, DECMPFS).unwrap_or_default(), fork)?;
                Ok(FileMap::packed(self.shared()?, number, inode.number, packed))
            }
            NodeKind::File => {
                Ok(FileMap::open(self.shared()?, number, inode.raw.stream, inode.size))
            }
            NodeKind::Symlink => {
                Ok(MemoryDisk::open(format!("link {}", inode.number), self.read_link(file)?))
            }
            kind => {
                let detail =
                    format!("inode {} is a {}, which has no bytes here", inode.number, kind.word());
                Err(Error::unsupported(detail))
            }
        }
    }

    fn xattrs(&self, node: NodeId) -> Result<Vec<Xattr>> {
        if node == VOLUMES {
            return Ok(Vec::new());
        }
        let (number, volume) = self.volume(node)?;
        let attributes = volume.attributes(&self.blocks, self.inode(node)?.number)?;
        let packed = here(&attributes, DECMPFS).is_some();
        let mut found = Vec::new();
        for (name, value) in &attributes {
            let own = name.as_bytes() == SYMLINK
                || packed && (name.as_bytes() == DECMPFS || name.as_bytes() == RESOURCE_FORK);
            let value = match value {
                _ if own => continue,
                Attribute::Here(value) => value.clone(),
                // Longer ones are to be had as streams.
                Attribute::Stream(_, size) if *size > ATTRIBUTE_MAX => continue,
                Attribute::Stream(stream, size) => {
                    let disk = FileMap::open(self.shared()?, number, *stream, *size);
                    disk.read_vec(0, narrow(*size).unwrap_or(0))?
                }
            };
            found.push(Xattr { name: name.clone(), value });
        }
        Ok(found)
    }

    fn details(&self, node: NodeId) -> Result<Vec<Detail>> {
        if node == VOLUMES {
            return Ok(Vec::new());
        }
        let inode = self.inode(node)?;
        let mut details = vec![
            ("inode", inode.number),
            ("parent_inode", inode.raw.parent),
            ("stream", inode.raw.stream),
            ("bsd_flags", inode.raw.bsd_flags.into()),
            ("internal_flags", inode.raw.internal_flags),
        ];
        if let Some(device) = inode.device {
            // As macOS packs them.
            details.push(("device_major", u64::from(device >> 24)));
            details.push(("device_minor", u64::from(device & 0x00ff_ffff)));
        }
        let uint = |(name, value)| Detail { name, value: Value::Uint(value) };
        Ok(details.into_iter().map(uint).collect())
    }

    fn space(&self) -> Result<Space> {
        let block = self.blocks.wide();
        let used = self
            .volumes
            .iter()
            .fold(0u64, |sum, volume| sum.saturating_add(volume.superblock.allocated_blocks));
        let free = self.blocks.block_count.saturating_sub(used);
        Ok(Space {
            block_size_bytes: block,
            total_bytes: self.blocks.end(),
            free_bytes: free.saturating_mul(block),
            nodes_total: 0,
            nodes_free: 0,
        })
    }
}

impl Apfs {
    /// The volume that a node is of, with its number.
    pub(crate) fn volume(&self, node: NodeId) -> Result<(usize, &Volume)> {
        let number = (node.0 >> OWN_BITS).checked_sub(1).and_then(narrow);
        number.and_then(|number| Some((number, self.volumes.get(number)?))).ok_or_else(|| {
            Error::invalid(Problem::OutOfRange, format!("there is no node {}", node.0))
        })
    }

    pub(crate) fn inode(&self, node: NodeId) -> Result<Inode> {
        let (_, volume) = self.volume(node)?;
        volume.inode(&self.blocks, node.0 & own())
    }

    fn parent(&self, dir: NodeId) -> Result<NodeId> {
        if dir == VOLUMES || dir == self.root() {
            return Ok(dir);
        }
        let inode = self.inode(dir)?;
        if inode.number == ROOT {
            return Ok(self.root());
        }
        let (number, _) = self.volume(dir)?;
        Ok(node_of(number, inode.raw.parent))
    }

    /// All names of a directory, remembered for some.
    fn names(&self, dir: NodeId) -> Result<Names> {
        let lock = || self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, names)) = lock().iter().find(|(known, _)| *known == dir) {
            return Ok(Arc::clone(names));
        }
        let mut names = HashMap::new();
        let mut from = Some(Cursor::default());
        let mut problem = None;
        while let Some(cursor) = from {
            let page = self.read_dir(dir, cursor)?;
            problem = problem.or_else(|| page.problems.into_iter().next());
            names.extend(page.entries.into_iter().map(|entry| (entry.name, entry.node)));
            from = page.next.filter(|next| *next > cursor);
        }
        match problem {
            // What cannot be read may have been the name.
            Some(error) if names.is_empty() => return Err(error),
            Some(error) => self.notes.add(Finding::from_error("apfs-directory", &error)),
            None => {}
        }
        let names = Arc::new(names);
        let mut known = lock();
        if known.len() >= KNOWN_MAX {
            known.remove(0);
        }
        known.push((dir, Arc::clone(&names)));
        Ok(names)
    }

    fn attribute_disk(
        &self,
        volume: usize,
        attributes: &[(Name, Attribute)],
        name: &[u8],
    ) -> Result<Option<Arc<dyn Disk>>> {
        let found = attributes.iter().find(|(known, _)| known.as_bytes() == name);
        Ok(match found {
            Some((name, Attribute::Here(bytes))) => {
                Some(MemoryDisk::open(name.to_string(), bytes.clone()))
            }
            Some((_, Attribute::Stream(stream, size))) => {
                Some(FileMap::open(self.shared()?, volume, *stream, *size))
            }
            None => None,
        })
    }

    fn volume_page(&self) -> DirPage {
        let mut page = DirPage::default();
        for (number, volume) in self.volumes.iter().enumerate() {
            // Two volumes may have one name, and any name may hold a slash.
            let name: Vec<u8> =
                volume.name().iter().map(|byte| if *byte == b'/' { b':' } else { *byte }).collect();
            let twice = page.entries.iter().any(|other| other.name.as_bytes() == name);
            let name = if twice || name.is_empty() {
                [&name[..], format!("#{number}").as_bytes()].concat()
            } else {
                name
            };
            match Name::new(name) {
                Ok(name) => page.entries.push(DirEntry {
                    name,
                    node: node_of(number, ROOT),
                    kind: NodeKind::Directory,
                    after: Cursor(wide(number).saturating_add(1)),
                }),
                Err(error) => page.problems.push(error),
            }
        }
        page
    }

    fn volumes_metadata(&self) -> Metadata {
        Metadata {
            node: VOLUMES,
            kind: NodeKind::Directory,
            size_bytes: 0,
            allocated_bytes: 0,
            block_size_bytes: self.blocks.wide(),
            links: 2,
            mode: 0o555,
            uid: 0,
            gid: 0,
            modified: None,
            changed: None,
            accessed: None,
            created: None,
            generation: 0,
        }
    }
}

fn own() -> u64 {
    (1u64 << OWN_BITS).wrapping_sub(1)
}

/// Numbers stay what they are in the first volume's view: the volume stands above them.
pub(crate) fn node_of(volume: usize, number: u64) -> NodeId {
    NodeId((wide(volume).saturating_add(1) << OWN_BITS) | (number & own()))
}

fn compressed(inode: &Inode) -> bool {
    inode.raw.bsd_flags & flag::COMPRESSED != 0
}

fn here<'a>(attributes: &'a [(Name, Attribute)], name: &[u8]) -> Option<&'a [u8]> {
    attributes.iter().find_map(|(known, value)| match value {
        Attribute::Here(bytes) if known.as_bytes() == name => Some(bytes.as_slice()),
        _ => None,
    })
}

fn uuid(bytes: &[u8; 16]) -> String {
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let part = |range: std::ops::Range<usize>| hex.get(range).unwrap_or_default().to_owned();
    [part(0..8), part(8..12), part(12..16), part(16..20), part(20..32)].join("-")
}
