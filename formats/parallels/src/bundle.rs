//! From a descriptor and its files to a disk.

use crate::descriptor::{BundleImage, ImageType, Storage};
use crate::{Descriptor, Guid, Image, Reference};
use adit_core::{Concat, Disk, Error, Finding, Kind, Piece, Place, Problem, Result, Slice};
use std::collections::HashSet;
use std::sync::Arc;

/// A bundle as a disk.
#[derive(Clone, Debug)]
pub struct Opened {
    /// The virtual disk.
    pub disk: Arc<dyn Disk>,
    /// The state that was opened.
    pub guid: Guid,
    /// What is missing or odd, each with the file it is about. Where a file is missing, the disk
    /// is `Lost`, and reads beside it succeed.
    pub notes: Vec<Finding>,
    /// The expanding images that were opened, storage by storage, the newest first.
    pub images: Vec<(Reference, Image)>,
}

/// Opens the disk that `descriptor` describes, in its newest state or in that of a snapshot;
/// `name` is what to call it.
///
/// `resolve` finds the bytes of a file by its reference, or refuses; it is asked once for every
/// file that is needed. `NotFound`, `Io`, `Corrupt` and `Lost` from it make the whole part of the
/// disk `Lost` that the file belongs to, unless nothing at all is left; other errors end the
/// opening.
///
/// Errors: `NotFound` for an unknown snapshot; `Unsupported` for encrypted disks and image types
/// that are not known; `Corrupt` for broken chains, and for a file that is named twice.
pub fn open(
    name: &str,
    descriptor: &Descriptor,
    snapshot: Option<Guid>,
    resolve: &mut dyn FnMut(&Reference) -> Result<Arc<dyn Disk>>,
) -> Result<Opened> {
    let layer = format!("Parallels disk {name}");
    assemble(&layer, descriptor, snapshot, resolve).map_err(|error| error.in_layer(layer))
}

struct Assembly<'a> {
    layer: &'a str,
    descriptor: &'a Descriptor,
    chain: Vec<Guid>,
    resolve: &'a mut dyn FnMut(&Reference) -> Result<Arc<dyn Disk>>,
    named: HashSet<Vec<u8>>,
    notes: Vec<Finding>,
    images: Vec<(Reference, Image)>,
}

fn assemble(
    layer: &str,
    descriptor: &Descriptor,
    snapshot: Option<Guid>,
    resolve: &mut dyn FnMut(&Reference) -> Result<Arc<dyn Disk>>,
) -> Result<Opened> {
    if let Some(engine) = descriptor.encryption {
        return Err(Error::unsupported(format!("the disk is encrypted (engine {engine})"))
            .at(Place::new("disk descriptor").field("Engine"))
            .advise("decrypt it with the product that holds the key"));
    }
    let guid = match snapshot {
        Some(guid) => guid,
        None => descriptor.top()?,
    };
    let chain = descriptor.chain(guid)?;
    let notes = descriptor.notes.clone();
    let (named, images) = (HashSet::new(), Vec::new());
    let mut assembly = Assembly { layer, descriptor, chain, resolve, named, notes, images };
    let (mut pieces, mut failure, mut found) = (Vec::new(), None, false);
    let mut end_bytes = 0u64;
    for (index, storage) in descriptor.storages.iter().enumerate() {
        end_bytes = end_bytes.saturating_add(storage.size_bytes());
        match assembly.storage(index, storage) {
            Ok(disk) => {
                found = true;
                pieces.push(Piece::part(disk, 0, storage.size_bytes()));
            }
            Err(error) if survivable(&error) => {
                let mut note = Finding::from_error("parallels-file-missing", &error);
                note.trail.push(layer.to_owned());
                assembly.notes.push(note);
                failure.get_or_insert_with(|| error.clone());
                pieces.push(Piece::lost(storage.size_bytes(), error));
            }
            Err(error) => return Err(error),
        }
    }
    if let Some(error) = failure.filter(|_| !found) {
        return Err(error);
    }
    let missing = descriptor.size_bytes().saturating_sub(end_bytes);
    if missing > 0 {
        let error = Error::lost("the descriptor has no storage for this part of the disk");
        pieces.push(Piece::lost(missing, error.at(Place::new("disk descriptor"))));
    }
    let disk = Concat::open(layer, pieces)?;
    Ok(Opened { disk, guid, notes: assembly.notes, images: assembly.images })
}

/// Whether the disk is worth having without the file.
fn survivable(error: &Error) -> bool {
    matches!(error.kind(), Kind::NotFound | Kind::Io | Kind::Corrupt | Kind::Lost)
}

impl Assembly<'_> {
    /// One part of the disk: its images from the newest to the oldest that is needed.
    fn storage(&mut self, index: usize, storage: &Storage) -> Result<Arc<dyn Disk>> {
        let mut layers = Vec::new();
        for guid in self.chain.clone() {
            let Some(image) = storage.images.iter().find(|image| image.guid == guid) else {
                let detail = format!("has no image for {guid}");
                return Err(Error::corrupt(Problem::Missing, detail).at(place(index)));
            };
            let reference = image.reference(index);
            let file = self.file(&reference)?;
            match &image.kind {
                ImageType::Expanding => layers.push(self.expanding(reference, file)?),
                ImageType::Plain => {
                    // A plain image holds every byte; nothing below it shows.
                    let base = self.plain(image, file, storage.size_bytes());
                    return stack(layers, Some(base)).ok_or_else(nothing);
                }
                ImageType::Other(word) => {
                    return Err(
                        Error::unsupported(format!("an image of type {word:?}")).at(place(index))
                    );
                }
            }
        }
        for (name, image) in &layers {
            if image.size_bytes() != storage.size_bytes() {
                let text = format!(
                    "holds {} bytes of a part of {} bytes",
                    image.size_bytes(),
                    storage.size_bytes()
                );
                let mut note = Finding::warning("parallels-image-size", text).at(place(index));
                note.trail = vec![name.clone(), self.layer.to_owned()];
                self.notes.push(note);
            }
        }
        stack(layers, None).ok_or_else(nothing)
    }

    fn file(&mut self, reference: &Reference) -> Result<Arc<dyn Disk>> {
        if !self.named.insert(reference.name.clone()) {
            // Not survivable: one of its two places shows another's data.
            return Err(Error::new(
                Kind::Invalid,
                Problem::Cycle,
                format!("the file {:?} is named twice", reference.text()),
            )
            .at(place(reference.storage)));
        }
        (self.resolve)(reference).map_err(|error| {
            error.at(place(reference.storage)).in_layer(format!("file {:?}", reference.text()))
        })
    }

    fn expanding(&mut self, reference: Reference, file: Arc<dyn Disk>) -> Result<(String, Image)> {
        let name = reference.text();
        let image = Image::open(file, &self.descriptor.limits)
            .map_err(|error| error.in_layer(format!("Parallels image {name}")))?;
        for mut note in image.notes() {
            note.trail.extend([format!("Parallels image {name}"), self.layer.to_owned()]);
            self.notes.push(note);
        }
        self.images.push((reference, image.clone()));
        Ok((name, image))
    }

    fn plain(&self, image: &BundleImage, file: Arc<dyn Disk>, bytes: u64) -> Arc<dyn Disk> {
        let name = String::from_utf8_lossy(&image.file).into_owned();
        Slice::open(format!("plain image {name}"), file, 0, bytes)
    }
}

/// The images on each other; `layers` has the newest first.
fn stack(layers: Vec<(String, Image)>, base: Option<Arc<dyn Disk>>) -> Option<Arc<dyn Disk>> {
    let mut below = base;
    for (name, image) in layers.into_iter().rev() {
        below = Some(image.disk(&name, below.take()));
    }
    below
}

fn nothing() -> Error {
    Error::corrupt(Problem::Missing, "the chain has no image")
}

fn place(storage: usize) -> Place {
    Place::new("storage").index(adit_core::bytes::wide(storage))
}
