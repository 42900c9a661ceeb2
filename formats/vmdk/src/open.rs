//! From a descriptor and its files to a disk.

use crate::{Access, Descriptor, ExtentLine, ExtentType, Purpose, Reference, SECTOR_BYTES};
use adit_core::{Concat, Disk, DiskExt, Error, Finding, Kind, Piece, Place, Problem, Result};
use std::collections::HashMap;
use std::sync::Arc;

/// A VMDK as a disk.
#[derive(Clone, Debug)]
pub struct Opened {
    /// The virtual disk.
    pub disk: Arc<dyn Disk>,
    /// What is missing or odd. Where an extent is missing the disk is `Lost`, and reads beside
    /// it succeed.
    pub notes: Vec<Finding>,
}

/// Opens the disk that `descriptor` describes; `name` is what to call it.
///
/// `resolve` finds a file by its reference, or refuses. It is asked once for every name of an
/// extent. `NotFound`, `Io`, `Corrupt` and `Lost` from it make that extent `Lost`, unless
/// nothing at all is left; other errors end the opening.
///
/// Errors: `Unsupported` for sparse extents, raw device mappings, disks with a parent, and
/// encrypted disks; `Corrupt` for a disk of no sectors.
pub fn open(
    name: &str,
    descriptor: &Descriptor,
    resolve: &mut dyn FnMut(&Reference) -> Result<Arc<dyn Disk>>,
) -> Result<Opened> {
    let layer = format!("VMDK {name}");
    match assemble(&layer, descriptor, resolve) {
        Ok(mut opened) => {
            opened.notes.iter_mut().for_each(|note| note.trail.push(layer.clone()));
            Ok(opened)
        }
        Err(error) => Err(error.in_layer(layer)),
    }
}

fn assemble(
    layer: &str,
    descriptor: &Descriptor,
    resolve: &mut dyn FnMut(&Reference) -> Result<Arc<dyn Disk>>,
) -> Result<Opened> {
    check_readable(descriptor)?;
    let mut files = Files { resolve, opened: HashMap::new(), first_failure: None, found: false };
    let mut notes = descriptor.notes.clone();
    let mut pieces = Vec::with_capacity(descriptor.extents.len());
    for (index, extent) in descriptor.extents.iter().enumerate() {
        push_extent(&mut pieces, extent, index, &mut files, &mut notes)?;
    }
    match files.first_failure {
        Some(error) if !files.found => Err(error),
        _ => Ok(Opened { disk: Concat::open(layer, pieces)?, notes }),
    }
}

/// Refuses what would read as something else than the guest sees.
fn check_readable(descriptor: &Descriptor) -> Result<()> {
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
        || matches!(extent.kind, ExtentType::Flat | ExtentType::Vmfs | ExtentType::Zero)
}

fn unread(extent: &ExtentLine) -> Error {
    let file = extent.file.as_deref().map(String::from_utf8_lossy).unwrap_or_default();
    let word = extent.kind.word();
    let error = match extent.kind {
        ExtentType::Sparse | ExtentType::VmfsSparse | ExtentType::SeSparse => {
            Error::unsupported(format!("{file:?} is {word}: sparse VMDK extents are not read yet"))
                .advise("read the disk it was made from, if there is one, or convert it")
        }
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
    error.at(Place::new("VMDK descriptor, line").index(extent.line).field("extent"))
}

fn push_extent(
    pieces: &mut Vec<Piece>,
    extent: &ExtentLine,
    index: usize,
    files: &mut Files<'_>,
    notes: &mut Vec<Finding>,
) -> Result<()> {
    let size = extent.size_bytes();
    let file = match &extent.file {
        Some(file) if extent.access != Access::None && extent.kind != ExtentType::Zero => file,
        hidden => {
            if let Some(name) = hidden {
                let name = String::from_utf8_lossy(name);
                let text = format!("extent {name:?} is hidden from the guest: it reads as zeros");
                notes.push(Finding::info("vmdk-extent-hidden", text));
            }
            pieces.push(Piece::zero(size));
            return Ok(());
        }
    };
    let place = || Place::new("VMDK descriptor, line").index(extent.line).field("extent");
    let reference = Reference { name: file.clone(), purpose: Purpose::Extent(index) };
    let disk = match files.open(&reference)? {
        Ok(disk) => disk,
        Err(error) => {
            let text = format!("extent {:?} is missing: {}", reference.text(), error.detail());
            notes.push(
                Finding::error("vmdk-extent-missing", text.clone())
                    .at(place())
                    .advise("put the file beside the descriptor; all else can be read"),
            );
            let lost = Error::new(Kind::Lost, error.problem(), text).at(place());
            pieces.push(Piece::lost(size, lost));
            return Ok(());
        }
    };
    // The parser has seen that offset and size together fit.
    let offset = extent.offset_sectors.saturating_mul(SECTOR_BYTES);
    let held = disk.size_bytes().saturating_sub(offset).min(size);
    pieces.push(Piece::part(disk, offset, held));
    let missing = size.saturating_sub(held);
    if missing > 0 {
        let text = format!(
            "extent {:?} is {missing} bytes shorter than the {size} it should have",
            reference.text()
        );
        notes.push(Finding::error("vmdk-extent-short", text.clone()).at(place()));
        let lost = Error::new(Kind::Lost, Problem::Truncated, text).at(place());
        pieces.push(Piece::lost(missing, lost));
    }
    Ok(())
}

/// The files of the extents, each opened once.
struct Files<'a> {
    resolve: &'a mut dyn FnMut(&Reference) -> Result<Arc<dyn Disk>>,
    opened: HashMap<Vec<u8>, Result<Arc<dyn Disk>>>,
    first_failure: Option<Error>,
    found: bool,
}

impl Files<'_> {
    /// The file, or why this extent must do without; other failures end the opening.
    fn open(&mut self, reference: &Reference) -> Result<Result<Arc<dyn Disk>>> {
        if let Some(known) = self.opened.get(&reference.name) {
            return Ok(known.clone());
        }
        let outcome = (self.resolve)(reference);
        match &outcome {
            Ok(_) => self.found = true,
            Err(error) => match error.kind() {
                Kind::NotFound | Kind::Io | Kind::Corrupt | Kind::Lost => {
                    self.first_failure.get_or_insert_with(|| error.clone());
                }
                _ => return Err(error.clone()),
            },
        }
        self.opened.insert(reference.name.clone(), outcome.clone());
        Ok(outcome)
    }
}
