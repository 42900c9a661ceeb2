//! From a descriptor and its files to a disk.

use crate::directory::Budget;
use crate::sparse::{ExtentHeader, SparseFacts};
use crate::{Access, Descriptor, ExtentLine, ExtentType, Purpose, Reference, SECTOR_BYTES};
use adit_core::{
    Concat, Disk, DiskExt, Error, Finding, Kind, Piece, Place, Problem, Result, Slice,
};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

type Resolve<'a> = &'a mut dyn FnMut(&Reference) -> Result<Arc<dyn Disk>>;

/// A VMDK as a disk.
#[derive(Clone, Debug)]
pub struct Opened {
    /// The virtual disk.
    pub disk: Arc<dyn Disk>,
    /// What is missing or odd. Where an extent is missing the disk is `Lost`, and reads beside
    /// it succeed.
    pub notes: Vec<Finding>,
    /// The descriptor; none for a sparse extent that was opened without one.
    pub descriptor: Option<Descriptor>,
    /// What the headers of the sparse extents say, in the order of the extents.
    pub sparse: Vec<SparseFacts>,
}

impl Opened {
    /// Says of every note where it comes from.
    pub(crate) fn named(mut self, layer: &str) -> Opened {
        self.notes.iter_mut().for_each(|note| note.trail.push(layer.to_owned()));
        self
    }
}

/// Opens the disk that `descriptor` describes; `name` is what to call it.
///
/// `resolve` finds a file by its reference, or refuses. For `Purpose::Extent` it gives the bytes
/// of the file, and is asked once for every name. `NotFound`, `Io`, `Corrupt` and `Lost` from it
/// make that extent `Lost`, unless nothing at all is left; other errors end the opening.
///
/// For `Purpose::Parent` it gives the parent's *virtual disk*, not its file, and has had
/// [`Descriptor::accepts_parent`] compare the identities. It is asked at most once, and only by
/// a disk with a parent; any error of it ends the opening, because zeros must not stand in for
/// the parent's data. The name is empty where the descriptor knows its parent by
/// [`Descriptor::parent_uuid`] alone.
///
/// Errors: `Unsupported` for raw device mappings, encrypted disks, and flat disks that claim a
/// parent; `Corrupt` for a disk of no sectors, and for extents smaller than their lines.
pub fn open(
    name: &str,
    descriptor: &Descriptor,
    resolve: &mut dyn FnMut(&Reference) -> Result<Arc<dyn Disk>>,
) -> Result<Opened> {
    let layer = format!("VMDK {name}");
    match assemble(&layer, descriptor.clone(), None, resolve) {
        Ok(opened) => Ok(opened.named(&layer)),
        Err(error) => Err(error.in_layer(layer)),
    }
}

/// Opens the disk of a descriptor; `own` is the file the descriptor was found in.
pub(crate) fn assemble(
    layer: &str,
    descriptor: Descriptor,
    own: Option<Arc<dyn Disk>>,
    resolve: Resolve<'_>,
) -> Result<Opened> {
    check_readable(&descriptor)?;
    let own = match own {
        Some(file) => own_line(&descriptor)?.map(|index| (index, file)),
        None => None,
    };
    let mut assembly = Assembly {
        layer,
        descriptor: &descriptor,
        own,
        files: Files {
            resolve,
            opened: HashMap::new(),
            first_failure: None,
            found: false,
            sparse: HashSet::new(),
        },
        parent: None,
        budget: Budget::new(&descriptor.limits),
        size_bytes: 0,
        pieces: Vec::with_capacity(descriptor.extents.len()),
        sparse: Vec::new(),
        notes: descriptor.notes.clone(),
    };
    for (index, extent) in descriptor.extents.iter().enumerate() {
        assembly.push(index, extent)?;
        assembly.size_bytes = assembly.size_bytes.saturating_add(extent.size_bytes());
    }
    let Assembly { files, pieces, sparse, notes, .. } = assembly;
    match files.first_failure {
        Some(error) if !files.found => Err(error),
        _ => {
            let disk = Concat::open(layer, pieces)?;
            Ok(Opened { disk, notes, descriptor: Some(descriptor), sparse })
        }
    }
}

/// The line of the extent that holds the descriptor itself, which is often called something
/// else there: the only sparse one. `None` if there are several; then their names tell.
pub(crate) fn own_line(descriptor: &Descriptor) -> Result<Option<usize>> {
    let mut lines = descriptor.extents.iter().enumerate().filter(|(_, line)| is_sparse(line));
    match (lines.next(), lines.next()) {
        (Some((index, _)), None) => Ok(Some(index)),
        (Some(_), Some(_)) => Ok(None),
        (None, _) => Err(Error::corrupt(
            Problem::Mismatch,
            "the descriptor inside a sparse extent describes no sparse extent",
        )
        .at(Place::new("embedded descriptor"))),
    }
}

/// Refuses what would read as something else than the guest sees.
pub(crate) fn check_readable(descriptor: &Descriptor) -> Result<()> {
    if descriptor.size_bytes == 0 {
        return Err(Error::corrupt(Problem::BadValue, "the extents have no sectors"));
    }
    if let Some(filter) = descriptor.encryption() {
        return Err(Error::unsupported(format!("the disk is encrypted ({filter})"))
            .advise("decrypt it with the product that holds the key"));
    }
    if let Some(extent) = descriptor.extents.iter().find(|extent| !is_read(extent)) {
        return Err(unread(extent));
    }
    if descriptor.extents.iter().any(is_sparse) {
        return Ok(());
    }
    let hint = descriptor.parent_hint.as_deref().map(String::from_utf8_lossy);
    if let Some(cid) = descriptor.parent_cid {
        let parent = hint.unwrap_or_else(|| "a parent it does not name".into());
        return Err(Error::unsupported(format!(
            "it holds only what differs from {parent} (CID {cid:08x}), but its extents are flat"
        ))
        .at(Place::new("VMDK descriptor").field("parentCID")));
    }
    if let Some(uuid) = descriptor.parent_uuid() {
        let detail = format!("it holds only what differs from the image with uuid {uuid}");
        return Err(
            Error::unsupported(detail).at(Place::new("VMDK descriptor").field("ddb.uuid.parent"))
        );
    }
    Ok(())
}

fn is_read(extent: &ExtentLine) -> bool {
    extent.access == Access::None
        || is_sparse(extent)
        || matches!(extent.kind, ExtentType::Flat | ExtentType::Vmfs | ExtentType::Zero)
}

pub(crate) fn is_sparse(extent: &ExtentLine) -> bool {
    let kinds = [ExtentType::Sparse, ExtentType::VmfsSparse, ExtentType::SeSparse];
    extent.access != Access::None && kinds.contains(&extent.kind)
}

fn unread(extent: &ExtentLine) -> Error {
    let file = extent.file.as_deref().map(String::from_utf8_lossy).unwrap_or_default();
    let word = extent.kind.word();
    let error = match extent.kind {
        ExtentType::VmfsRdm | ExtentType::VmfsRdmp => Error::unsupported(format!(
            "{file:?} is {word}: it maps a whole device (LUN), which holds the data"
        ))
        .advise("open the mapped device itself; the mapping file's details name it"),
        ExtentType::VmfsRaw => {
            Error::unsupported(format!("{file:?} is {word}: the data is on that device"))
                .advise("open the device itself")
        }
        _ => Error::unsupported(format!("extents of type {word} are not known")),
    };
    error.at(place(extent))
}

/// A disk that is being put together.
struct Assembly<'a> {
    layer: &'a str,
    descriptor: &'a Descriptor,
    /// The extent that needs no resolving.
    own: Option<(usize, Arc<dyn Disk>)>,
    files: Files<'a>,
    /// The parent's virtual disk, once it was needed.
    parent: Option<Arc<dyn Disk>>,
    budget: Budget,
    /// Size of the extents so far.
    size_bytes: u64,
    pieces: Vec<Piece>,
    sparse: Vec<SparseFacts>,
    notes: Vec<Finding>,
}

impl Assembly<'_> {
    fn push(&mut self, index: usize, extent: &ExtentLine) -> Result<()> {
        let size = extent.size_bytes();
        let file = match &extent.file {
            Some(file) if extent.access != Access::None && extent.kind != ExtentType::Zero => file,
            hidden => {
                if let Some(name) = hidden {
                    let name = String::from_utf8_lossy(name);
                    let text =
                        format!("extent {name:?} is hidden from the guest: it reads as zeros");
                    self.notes.push(Finding::info("vmdk-extent-hidden", text));
                }
                self.pieces.push(Piece::zero(size));
                return Ok(());
            }
        };
        let reference = Reference { name: file.clone(), purpose: Purpose::Extent(index) };
        let own = self.own.as_ref().filter(|own| own.0 == index);
        let disk = match own.map(|own| Arc::clone(&own.1)) {
            Some(disk) => disk,
            None => match self.files.open(&reference, extent)? {
                Ok(disk) => disk,
                Err(error) => {
                    self.missing(extent, &reference, &error);
                    return Ok(());
                }
            },
        };
        if is_sparse(extent) {
            return self.push_sparse(index, extent, &reference, &disk);
        }
        self.push_flat(extent, &reference, disk);
        Ok(())
    }

    fn missing(&mut self, extent: &ExtentLine, reference: &Reference, error: &Error) {
        let text = format!("extent {:?} is missing: {}", reference.text(), error.detail());
        self.notes.push(
            Finding::error("vmdk-extent-missing", text.clone())
                .at(place(extent))
                .advise("put the file beside the descriptor; all else can be read"),
        );
        let lost = Error::new(Kind::Lost, error.problem(), text).at(place(extent));
        self.pieces.push(Piece::lost(extent.size_bytes(), lost));
    }

    fn push_flat(&mut self, extent: &ExtentLine, reference: &Reference, disk: Arc<dyn Disk>) {
        self.files.found = true;
        let size = extent.size_bytes();
        // The parser has seen that offset and size together fit.
        let offset = extent.offset_sectors.saturating_mul(SECTOR_BYTES);
        let held = disk.size_bytes().saturating_sub(offset).min(size);
        self.pieces.push(Piece::part(disk, offset, held));
        let missing = size.saturating_sub(held);
        if missing > 0 {
            let text = format!(
                "extent {:?} is {missing} bytes shorter than the {size} it should have",
                reference.text()
            );
            self.notes.push(Finding::error("vmdk-extent-short", text.clone()).at(place(extent)));
            let lost = Error::new(Kind::Lost, Problem::Truncated, text).at(place(extent));
            self.pieces.push(Piece::lost(missing, lost));
        }
    }

    fn push_sparse(
        &mut self,
        index: usize,
        extent: &ExtentLine,
        reference: &Reference,
        file: &Arc<dyn Disk>,
    ) -> Result<()> {
        if !self.files.sparse.insert(reference.name.clone()) {
            let detail = format!("{:?} is named as two sparse extents", reference.text());
            return Err(Error::corrupt(Problem::Overlaps, detail).at(place(extent)));
        }
        if extent.size_sectors == 0 {
            return Ok(());
        }
        // A parent that is missing ends the opening: it is below every extent.
        let parent = self.parent_below(extent.size_bytes())?;
        let named = |error: Error| error.in_layer(format!("VMDK extent {:?}", reference.text()));
        match self.sparse_disk(index, extent, reference, file, parent).map_err(named) {
            Ok(disk) => {
                self.files.found = true;
                self.pieces.push(Piece::part(disk, 0, extent.size_bytes()));
            }
            Err(error) if can_do_without(&error) => {
                let mut note = Finding::from_error("vmdk-extent-damaged", &error);
                note.text = format!("extent {:?} is lost: {}", reference.text(), note.text);
                self.notes.push(note);
                self.pieces.push(Piece::lost(extent.size_bytes(), error.clone()));
                self.files.first_failure.get_or_insert(error);
            }
            Err(error) => return Err(error.at(place(extent))),
        }
        Ok(())
    }

    fn sparse_disk(
        &mut self,
        index: usize,
        extent: &ExtentLine,
        reference: &Reference,
        file: &Arc<dyn Disk>,
        parent: Option<Arc<dyn Disk>>,
    ) -> Result<Arc<dyn Disk>> {
        if extent.offset_sectors != 0 {
            let detail = "a sparse extent that does not start with its file is not known";
            return Err(Error::unsupported(detail).at(place(extent)));
        }
        let sparse = ExtentHeader::read(file)?;
        let size = extent.size_bytes();
        if sparse.capacity_bytes() < size {
            let capacity = sparse.capacity_bytes();
            let detail =
                format!("its header knows {capacity} bytes, but the descriptor promises {size}");
            return Err(Error::corrupt(Problem::Mismatch, detail).at(place(extent)));
        }
        let name = format!("VMDK extent {:?}", reference.text());
        let mut notes = Vec::new();
        let disk = sparse.open(&name, file, parent, &mut self.budget, &mut notes);
        notes.iter_mut().for_each(|note| note.trail.push(name.clone()));
        self.notes.append(&mut notes);
        self.sparse.push(sparse.facts(index));
        disk
    }

    /// The part of the parent below the extent that comes next and has `size` bytes.
    fn parent_below(&mut self, size: u64) -> Result<Option<Arc<dyn Disk>>> {
        let Some(reference) = self.descriptor.parent_reference() else { return Ok(None) };
        let parent = match &self.parent {
            Some(parent) => Arc::clone(parent),
            None => {
                let parent = (self.files.resolve)(&reference)
                    .map_err(|error| error.at(self.descriptor.parent_place()))?;
                self.note_size(&parent);
                self.parent = Some(Arc::clone(&parent));
                parent
            }
        };
        let start = self.size_bytes;
        if start == 0 {
            return Ok(Some(parent));
        }
        // Past its end the parent reads as zeros, which an empty slice does too.
        let held = parent.size_bytes().saturating_sub(start).min(size);
        let name = format!("{}, parent from byte {start:#x} on", self.layer);
        Ok(Some(Slice::open(name, parent, start, held)))
    }

    fn note_size(&mut self, parent: &Arc<dyn Disk>) {
        let (ours, theirs) = (self.descriptor.size_bytes, parent.size_bytes());
        if ours != theirs {
            let text = format!("the parent has {theirs} bytes, the disk {ours}");
            self.notes
                .push(Finding::info("vmdk-parent-size", text).at(self.descriptor.parent_place()));
        }
    }
}

pub(crate) fn place(extent: &ExtentLine) -> Place {
    let file = extent.file.as_deref().map(String::from_utf8_lossy).unwrap_or_default();
    Place::new("VMDK descriptor, line").index(extent.line).field(format!("extent {file:?}"))
}

/// The files of the extents, each opened once.
struct Files<'a> {
    resolve: &'a mut dyn FnMut(&Reference) -> Result<Arc<dyn Disk>>,
    opened: HashMap<Vec<u8>, Result<Arc<dyn Disk>>>,
    first_failure: Option<Error>,
    /// Whether any extent could be opened.
    found: bool,
    /// Names of the sparse extents: a file is the whole of one.
    sparse: HashSet<Vec<u8>>,
}

impl Files<'_> {
    /// The file, or why this extent must do without; other failures end the opening.
    fn open(
        &mut self,
        reference: &Reference,
        extent: &ExtentLine,
    ) -> Result<Result<Arc<dyn Disk>>> {
        if let Some(known) = self.opened.get(&reference.name) {
            return Ok(known.clone());
        }
        let outcome = (self.resolve)(reference).map_err(|error| error.at(place(extent)));
        match &outcome {
            Err(error) if can_do_without(error) => {
                self.first_failure.get_or_insert_with(|| error.clone());
            }
            Err(error) => return Err(error.clone()),
            Ok(_) => {}
        }
        self.opened.insert(reference.name.clone(), outcome.clone());
        Ok(outcome)
    }
}

/// Whether an extent that fails so is lost, rather than the whole disk.
fn can_do_without(error: &Error) -> bool {
    matches!(error.kind(), Kind::NotFound | Kind::Io | Kind::Corrupt | Kind::Lost)
}
