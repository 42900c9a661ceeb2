//! VMDK images: descriptors, the files they name, and chains of them.

use crate::model::{FileInfo, FilePath, Image, ImageExtent, ImageKind, Location, Role};
use crate::place::{Beside, Found, Places};
use adit_core::{
    DiskExt, Error, FileSystem, Finding, Fork, Interrupt, Kind, Limits, NodeId, NodeKind, Place,
    Problem, Result,
};
use adit_vmdk::{Access, Descriptor, ExtentLine, ExtentType, SECTOR_BYTES};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

const PREFIX_BYTES: usize = 64 << 10;
const NOTES_MAX: usize = 200;

/// Content identity of every disk of ESXi that was never written to: it tells none from another.
const UNWRITTEN: &str = "fffffffe";

/// Every image that was read, each one once.
pub(crate) struct Images<'a> {
    fs: &'a dyn FileSystem,
    places: &'a Places<'a>,
    limits: &'a Limits,
    interrupt: &'a Interrupt,
    read: HashMap<NodeId, Result<Arc<Image>>>,
    /// Descriptors that a machine reaches.
    pub(crate) used: HashSet<NodeId>,
    /// Files that some image names as an extent or as its list of changed blocks.
    pub(crate) named: HashSet<NodeId>,
}

impl<'a> Images<'a> {
    pub(crate) fn new(
        fs: &'a dyn FileSystem,
        places: &'a Places<'a>,
        limits: &'a Limits,
        interrupt: &'a Interrupt,
    ) -> Self {
        let (read, used, named) = (HashMap::new(), HashSet::new(), HashSet::new());
        Images { fs, places, limits, interrupt, read, used, named }
    }

    /// The image whose descriptor is at `node`.
    ///
    /// Errors: `Corrupt` if that is no descriptor; whatever reading fails with.
    pub(crate) fn image(&mut self, node: NodeId, path: &FilePath) -> Result<Arc<Image>> {
        self.interrupt.check()?;
        if let Some(known) = self.read.get(&node) {
            return known.clone();
        }
        let image = self.load(node, path).map(Arc::new);
        if let Ok(image) = &image {
            // A sparse extent with its descriptor inside names itself.
            let files = image.files.iter().map(|(file, _)| *file);
            self.named.extend(files.filter(|file| *file != node));
        }
        self.read.insert(node, image.clone());
        image
    }

    /// The images from `leaf` down to the base, or to one that `known` has already.
    /// What breaks the chain goes to `notes`.
    ///
    /// Errors: `Interrupted`.
    pub(crate) fn chain(
        &mut self,
        leaf: &Found,
        known: &mut HashSet<NodeId>,
        notes: &mut Vec<Finding>,
    ) -> Result<Vec<Arc<Image>>> {
        let mut chain: Vec<Arc<Image>> = Vec::new();
        let mut visited = HashSet::new();
        let mut next = leaf.clone();
        while let (Some(node), Some(path)) = (next.node, next.location.path()) {
            if !visited.insert(node) {
                let text = format!("the chain of images comes back to {path}");
                notes.push(Finding::error("inventory-chain-loop", text));
                break;
            }
            if chain.len() as u64 >= self.limits.chain_length_max {
                let text = format!("the chain is longer than {}", self.limits.chain_length_max);
                notes.push(Finding::error("inventory-chain-length", text));
                break;
            }
            let image = match self.image(node, path) {
                Err(error) if error.kind() == Kind::Interrupted => return Err(error),
                Err(error) => {
                    notes.push(unreadable(path, &error));
                    break;
                }
                Ok(image) => image,
            };
            if let Some(child) = chain.last()
                && !same_parent(child, &image, &next, notes)
            {
                break;
            }
            self.used.insert(node);
            let parent = match known.insert(node) {
                true => self.parent(&image, notes),
                false => None,
            };
            chain.push(image);
            let Some(parent) = parent else { break };
            next = parent;
        }
        Ok(chain)
    }

    /// Where an image's parent is; a parent that cannot be found goes to `notes`.
    fn parent(&self, image: &Image, notes: &mut Vec<Finding>) -> Option<Found> {
        let path = &image.path;
        if image.parent_cid.is_none() {
            let uuid = image.parent_uuid.as_ref()?;
            let text = format!(
                "{path} differs from the image with uuid {uuid}, whose file it does not name"
            );
            notes.push(Finding::error("inventory-parent-unnamed", text));
            return None;
        }
        let Some(hint) = &image.parent_hint else {
            let text = format!("{path} has a parent and does not name it");
            notes.push(Finding::error("inventory-parent-unnamed", text));
            return None;
        };
        let shown = String::from_utf8_lossy(hint);
        let found = self.places.find(path.directory(), hint, Beside::Always);
        // A linked clone may have the name of its parent in another place.
        let found = match found {
            Ok(found) if found.node == Some(image.node) && !found.is_here() => {
                self.places.find(path.directory(), hint, Beside::Never)
            }
            found => found,
        };
        match found {
            Err(error) => notes.push(Finding::from_error("inventory-parent-missing", &error)),
            Ok(found) if found.node.is_some() => return Some(found),
            Ok(Found { location: Location::Elsewhere { datastore }, .. }) => {
                let text = format!("the parent of {path}, {shown:?}, is on {datastore:?}");
                notes.push(
                    Finding::error("inventory-parent-elsewhere", text)
                        .advise("open that datastore too, or bring the file here"),
                );
            }
            Ok(_) => {
                let text = format!("the parent of {path}, {shown:?}, is missing");
                notes.push(Finding::error("inventory-parent-missing", text));
            }
        }
        None
    }

    fn load(&self, node: NodeId, path: &FilePath) -> Result<Image> {
        let metadata = self.fs.metadata(node)?;
        if metadata.kind != NodeKind::File {
            let what = format!("it is a {}, not a descriptor", metadata.kind.word());
            return Err(Error::corrupt(Problem::BadMagic, what));
        }
        let (text, inside) = self.text(node)?;
        let descriptor = Descriptor::parse(&text, self.limits)?;
        let info = FileInfo {
            path: path.clone(),
            role: Role::Disk,
            size_bytes: metadata.size_bytes,
            allocated_bytes: metadata.allocated_bytes,
        };
        let mut draft = Draft {
            notes: descriptor.notes.clone(),
            files: vec![(node, info)],
            counted: HashSet::from([node]),
        };
        let embedded = inside && descriptor.extents.len() == 1;
        let mut extents = Vec::with_capacity(descriptor.extents.len());
        for line in &descriptor.extents {
            self.interrupt.check()?;
            let found = match (&line.file, embedded) {
                (None, _) => None,
                // Inside an extent the name is often wrong; the extent is the file itself.
                (Some(_), true) => {
                    let location = Location::Here { path: path.clone() };
                    Some(Found { location, node: Some(node) })
                }
                (Some(name), false) => self.locate(path, name, &mut draft),
            };
            extents.push(self.extent(line, found, path, &mut draft));
        }
        let change_tracking = descriptor.change_track_path.as_deref().and_then(|name| {
            let found = self.locate(path, name, &mut draft)?;
            self.measure(&found, &mut draft);
            Some(found.location)
        });
        let mut counted = HashSet::new();
        let allocated_bytes = extents
            .iter()
            .filter(|extent| extent.node.is_some_and(|node| counted.insert(node)))
            .filter_map(|extent| extent.allocated_bytes)
            .fold(0u64, u64::saturating_add);
        Ok(Image {
            path: path.clone(),
            node,
            kind: kind(&descriptor),
            size_bytes: descriptor.size_bytes,
            allocated_bytes,
            cid: descriptor.cid.map(|cid| format!("{cid:08x}")),
            parent_cid: descriptor.parent_cid.map(|cid| format!("{cid:08x}")),
            parent: descriptor.parent_hint.as_deref().map(lossy),
            parent_uuid: descriptor.parent_uuid().map(|uuid| uuid.into_owned()),
            encryption: descriptor.encryption().map(|filter| filter.into_owned()),
            create_type: descriptor.create_type,
            parent_hint: descriptor.parent_hint,
            extents,
            change_tracking,
            notes: draft.notes,
            files: draft.files,
        })
    }

    /// The text of a descriptor, and whether it stands inside an extent.
    fn text(&self, node: NodeId) -> Result<(Vec<u8>, bool)> {
        let disk = self.fs.open(node, &Fork::Data)?;
        let prefix = disk.read_prefix(0, PREFIX_BYTES)?;
        let (range, inside) = match adit_vmdk::probe(&prefix) {
            Some(adit_vmdk::Kind::Descriptor) => (0..disk.size_bytes(), false),
            Some(adit_vmdk::Kind::Sparse) => {
                let embedded = adit_vmdk::embedded(&prefix)
                    .filter(|e| !e.range.is_empty() && e.range.end <= disk.size_bytes());
                let none =
                    || Error::corrupt(Problem::Missing, "the sparse extent holds no descriptor");
                (embedded.ok_or_else(none)?.range, true)
            }
            Some(adit_vmdk::Kind::ChangeTracking) => {
                let detail = "it is a list of changed blocks";
                return Err(Error::invalid(Problem::BadMagic, detail));
            }
            Some(kind) => {
                let detail = format!("it is a {}, not a descriptor", kind.word());
                return Err(Error::corrupt(Problem::BadMagic, detail));
            }
            None => {
                return Err(Error::corrupt(Problem::BadMagic, "it is no VMDK descriptor"));
            }
        };
        let length = range.end.saturating_sub(range.start);
        if length > self.limits.text_bytes_max {
            let detail = format!("the descriptor has {length} bytes");
            return Err(Error::limit("text_bytes_max", detail));
        }
        let length = usize::try_from(length)
            .map_err(|_| Error::limit("text_bytes_max", "the descriptor exceeds memory"))?;
        Ok((disk.read_prefix(range.start, length)?, inside))
    }

    fn locate(&self, image: &FilePath, name: &[u8], draft: &mut Draft) -> Option<Found> {
        match self.places.find(image.directory(), name, Beside::IfMissing) {
            Ok(found) => Some(found),
            Err(error) => {
                draft.note(unreadable(&FilePath(name.to_vec()), &error));
                Some(Found {
                    location: Location::Missing { path: FilePath(name.to_vec()) },
                    node: None,
                })
            }
        }
    }

    /// Length and space of a file, which then counts among the image's.
    fn measure(&self, found: &Found, draft: &mut Draft) -> Option<(NodeKind, u64, u64)> {
        let (node, path) = (found.node?, found.location.path()?);
        match self.fs.metadata(node) {
            Err(error) => {
                draft.note(unreadable(path, &error));
                None
            }
            Ok(metadata) => {
                if draft.counted.insert(node) {
                    let info = FileInfo {
                        path: path.clone(),
                        role: Role::Disk,
                        size_bytes: metadata.size_bytes,
                        allocated_bytes: metadata.allocated_bytes,
                    };
                    draft.files.push((node, info));
                }
                Some((metadata.kind, metadata.size_bytes, metadata.allocated_bytes))
            }
        }
    }

    fn extent(
        &self,
        line: &ExtentLine,
        found: Option<Found>,
        image: &FilePath,
        draft: &mut Draft,
    ) -> ImageExtent {
        let measured = found.as_ref().and_then(|found| self.measure(found, draft));
        let unneeded = line.access == Access::None || line.kind == ExtentType::Zero;
        let flat = matches!(line.kind, ExtentType::Flat | ExtentType::Vmfs);
        let end =
            line.offset_sectors.saturating_mul(SECTOR_BYTES).saturating_add(line.size_bytes());
        let short = measured
            .filter(|(kind, size, _)| flat && *kind == NodeKind::File && *size < end)
            .map(|(_, size, _)| end.saturating_sub(size));
        let name = line.file.as_deref().map(lossy).unwrap_or_default();
        let place = || Place::new("extent").index(line.line);
        if !unneeded && measured.is_none() {
            let text = match found.as_ref().map(|found| &found.location) {
                Some(Location::Elsewhere { datastore }) => {
                    format!("extent {name:?} of {image} is on {datastore:?}")
                }
                _ => format!("extent {name:?} of {image} is missing"),
            };
            draft.note(Finding::error("inventory-extent-missing", text).at(place()));
        } else if let Some(missing) = short.filter(|_| !unneeded) {
            let text = format!("extent {name:?} of {image} is {missing} bytes too short");
            draft.note(Finding::error("inventory-extent-short", text).at(place()));
        }
        ImageExtent {
            name,
            kind: line.kind.word().to_owned(),
            node: found.as_ref().and_then(|found| found.node),
            location: found.map(|found| found.location),
            size_bytes: line.size_bytes(),
            file_bytes: measured.map(|(_, size, _)| size),
            allocated_bytes: measured.map(|(_, _, allocated)| allocated),
            complete: unneeded || (measured.is_some() && short.is_none()),
        }
    }
}

/// What gathers while an image is read.
struct Draft {
    notes: Vec<Finding>,
    files: Vec<(NodeId, FileInfo)>,
    counted: HashSet<NodeId>,
}

impl Draft {
    /// Keeps a finding; of thousands of extents the first ones say it all.
    fn note(&mut self, note: Finding) {
        match self.notes.len() {
            0..NOTES_MAX => self.notes.push(note),
            NOTES_MAX => {
                let text = "more like these were left out";
                self.notes.push(Finding::info("inventory-more-notes", text));
            }
            _ => {}
        }
    }
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn unreadable(path: &FilePath, error: &Error) -> Finding {
    let mut finding = Finding::from_error("inventory-unreadable", error);
    finding.text = format!("{path} cannot be read: {}", error.detail());
    finding
}

/// Compares a child with what was found as its parent. False if that is another image, which
/// merely has the name.
fn same_parent(child: &Image, image: &Image, found: &Found, notes: &mut Vec<Finding>) -> bool {
    let (wanted, has) = (child.parent_cid.as_deref(), image.cid.as_deref());
    let matches = wanted == has;
    let beside = !found.is_here();
    if beside && matches && wanted == Some(UNWRITTEN) {
        let text = format!(
            "the parent of {} is missing; {} has its name, but no content identity to prove it",
            child.path, image.path
        );
        notes.push(Finding::error("inventory-parent-missing", text));
        return false;
    }
    if beside {
        let hint = child.parent.as_deref().unwrap_or_default();
        let text = format!(
            "the parent of {} is not at {hint:?}; {} lies beside it",
            child.path, image.path
        );
        notes.push(Finding::warning("inventory-parent-moved", text));
    }
    if !matches {
        let text = format!(
            "{} was made from content {}, but {} now holds content {}",
            child.path,
            wanted.unwrap_or("-"),
            image.path,
            has.unwrap_or("-")
        );
        notes.push(
            Finding::error("inventory-cid-mismatch", text).advise(
                "the parent was written to after the snapshot; the disk may be inconsistent",
            ),
        );
    }
    if child.size_bytes != image.size_bytes {
        let text = format!(
            "{} has {} bytes, its parent {} has {}",
            child.path, child.size_bytes, image.path, image.size_bytes
        );
        notes.push(Finding::warning("inventory-chain-size", text));
    }
    matches || !beside
}

fn kind(descriptor: &Descriptor) -> ImageKind {
    let word = descriptor.create_type.to_ascii_lowercase();
    let physical = word.contains("passthrough") || word.contains("rdmp");
    let one = |line: &ExtentLine| match line.kind {
        ExtentType::Flat | ExtentType::Vmfs if descriptor.thin() => ImageKind::Thin,
        ExtentType::Flat if word.contains("device") => ImageKind::RawDevice,
        ExtentType::Flat | ExtentType::Vmfs => ImageKind::Flat,
        ExtentType::Zero => ImageKind::Zero,
        ExtentType::Sparse => ImageKind::Sparse,
        ExtentType::VmfsSparse => ImageKind::VmfsSparse,
        ExtentType::SeSparse => ImageKind::SeSparse,
        ExtentType::VmfsRdm if physical => ImageKind::RdmPhysical,
        ExtentType::VmfsRdm => ImageKind::RdmVirtual,
        ExtentType::VmfsRdmp => ImageKind::RdmPhysical,
        ExtentType::VmfsRaw => ImageKind::RawDevice,
        ExtentType::Other(_) => ImageKind::Mixed,
    };
    let mut kinds = descriptor.extents.iter().map(one).filter(|kind| *kind != ImageKind::Zero);
    let first = kinds.next().unwrap_or(ImageKind::Zero);
    if kinds.all(|kind| kind == first) { first } else { ImageKind::Mixed }
}
