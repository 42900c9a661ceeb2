//! Overlays that are kept: QCOW2 files over anything that has bytes.
//!
//! Over a file of the host an overlay records that file and its format, as any tool would. Over
//! something deeper it records `adit:` and the place, which no other tool opens by itself; `adit
//! overlay info` tells how it can.

mod keeper;
mod names;

pub use keeper::{FileKeeper, TemporaryKeeper};
pub use names::{Base, base_of, bottom_of};

use names::record_beside;

use crate::session::Session;
use adit_core::{Disk, DiskExt, Error, ImageFile, Limits, ParentRecord, Problem, Result};
use adit_io::{ReadPolicy, Sharing, WritableFile};
use adit_open::{NamedParent, Opener};
use adit_overlay::Layer;
use adit_qcow::{CreateOptions, Image, Purpose, Writer, WriterParts};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Overlays that may stand on each other.
const CHAIN_MAX: usize = 256;

/// What an overlay records of what it stands on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Below {
    /// The name as it stands.
    pub name: Vec<u8>,
    /// The format, in QEMU's word.
    pub format: Option<String>,
}

/// What the overlay in a file records; nothing if it stands on nothing.
///
/// Errors: those of opening; `Invalid` if it is no QCOW2 image.
pub fn below(file: &Path, limits: &Limits) -> Result<Option<Below>> {
    let disk = adit_io::open(file, &ReadPolicy::default())?;
    let image = Image::open(disk, limits)
        .map_err(|error| error.in_layer(format!("overlay {}", file.display())))?;
    let references = image.references();
    let backing = references.into_iter().find(|it| it.purpose == Purpose::Backing);
    Ok(backing.map(|it| Below {
        name: it.name,
        format: it.format.map(|word| String::from_utf8_lossy(&word).into_owned()),
    }))
}

/// Overlays that stand on each other, and the files they are kept in, both bottom first.
#[derive(Debug, Default)]
pub struct Kept {
    /// The layers above the base.
    pub layers: Vec<Layer>,
    /// Their files.
    pub files: Vec<PathBuf>,
}

/// Makes a new overlay, or opens the one that is there with those it stands on, over `base`.
///
/// Errors: `Invalid` if it stands on another disk; `Busy` if another program holds it.
pub fn open_or_create(file: &Path, base: &Base, limits: &Limits) -> Result<Kept> {
    if file.symlink_metadata().is_err() {
        let image = create(file, &base.record_for(file), base.disk.size_bytes())?;
        let layers = vec![open(file, image, &base.disk, limits)?];
        return Ok(Kept { layers, files: vec![file.to_path_buf()] });
    }
    open_existing(file, base, limits)
}

/// Opens an overlay that is there, with those it stands on.
///
/// Errors: as [`open_or_create`].
pub fn open_existing(file: &Path, base: &Base, limits: &Limits) -> Result<Kept> {
    let mut kept = Kept { layers: Vec::new(), files: chain(file, base, limits)? };
    kept.files.reverse();
    for path in &kept.files {
        let below = kept.layers.last().map_or(&base.disk, Layer::disk);
        let image: Arc<dyn ImageFile> = Arc::new(WritableFile::open(path, Sharing::Alone)?);
        let layer = open(path, image, below, limits)?;
        kept.layers.push(layer);
    }
    Ok(kept)
}

/// The overlay and those it stands on, the top first, down to the one that stands on `base`.
fn chain(file: &Path, base: &Base, limits: &Limits) -> Result<Vec<PathBuf>> {
    let mut chain = vec![file.to_path_buf()];
    loop {
        let top = &chain[chain.len() - 1];
        let Some(below) = below(top, limits)? else {
            let detail = format!("{} stands on nothing", top.display());
            return Err(Error::invalid(Problem::Mismatch, detail)
                .advise("it holds a whole disk: serve it by itself, with --writable"));
        };
        if base.is_meant(&below, top) {
            return Ok(chain);
        }
        let beside = beside(top, &below.name).filter(|path| path.is_file());
        let Some(next) = beside.filter(|_| below.format.as_deref() == Some("qcow2")) else {
            let (is, wanted) = (shown(&below.name), shown(&base.record.name));
            let detail = format!("{} stands on {is}, not on {wanted}", top.display());
            return Err(Error::invalid(Problem::Mismatch, detail)
                .advise("name the disk it was made for, or another overlay file"));
        };
        if chain.contains(&next) || chain.len() >= CHAIN_MAX {
            let detail = format!("the overlays below {} lead in a circle", file.display());
            return Err(Error::corrupt(Problem::Cycle, detail));
        }
        chain.push(next);
    }
}

/// An opener that follows the overlay in `file` and those below it to where they lead. Whoever
/// made an overlay said what it stands on, so that is opened wherever it is; what stands further
/// down obeys the policy for references.
///
/// Errors: those of opening the overlays.
pub fn opener_for(session: &Session, file: &Path) -> Result<Opener> {
    let mut options = session.opener.options().clone();
    let mut top = file.to_path_buf();
    for _ in 0..CHAIN_MAX {
        let Some(below) = below(&top, &options.limits)? else { break };
        let place = bottom_of(&below, &top);
        let child = Some(top.file_name().unwrap_or_default().to_owned());
        options.parents.push(NamedParent { child, place: place.clone() });
        if below.format.as_deref() != Some("qcow2") {
            break;
        }
        top = PathBuf::from(place);
    }
    Ok(Opener::new(options))
}

/// A file in the folder of another, by a name without a way.
pub fn beside(file: &Path, name: &[u8]) -> Option<PathBuf> {
    let plain = !name.is_empty() && !name.contains(&b'/') && !name.starts_with(b"adit:");
    plain.then(|| folder_of(file).join(OsStr::from_bytes(name)))
}

/// The folder of a file.
pub fn folder_of(file: &Path) -> &Path {
    match file.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// A new overlay file; nothing is left of it if that fails.
fn create(path: &Path, below: &ParentRecord, size_bytes: u64) -> Result<Arc<dyn ImageFile>> {
    let file: Arc<dyn ImageFile> = Arc::new(WritableFile::create(path)?);
    let backing = Some(below.clone());
    // Parts of clusters that are there one by one: a small write over the disk below stores little
    // more than itself, and reads nothing to fill a cluster up.
    let options =
        CreateOptions { size_bytes, backing, extended_l2: true, ..CreateOptions::default() };
    adit_qcow::create(&file, None, &options)
        .and_then(|()| sync_folder(path))
        .inspect_err(|_| drop(std::fs::remove_file(path)))?;
    Ok(file)
}

fn open(
    path: &Path,
    image: Arc<dyn ImageFile>,
    below: &Arc<dyn Disk>,
    limits: &Limits,
) -> Result<Layer> {
    let name = path.display().to_string();
    let parts = WriterParts { backing: Some(Arc::clone(below)), data: None };
    let writer = Writer::open(&name, image, parts, limits)?;
    if writer.size_bytes() < below.size_bytes() {
        let detail = format!(
            "{name} has {} bytes, what it stands on {}",
            writer.size_bytes(),
            below.size_bytes()
        );
        return Err(Error::invalid(Problem::Mismatch, detail)
            .advise("the disk below has changed since the overlay was made"));
    }
    Ok(Layer::image(name, Arc::new(writer)))
}

/// Makes names in the folder of a file durable.
fn sync_folder(path: &Path) -> Result<()> {
    let folder = folder_of(path);
    std::fs::File::open(folder).and_then(|folder| folder.sync_all()).map_err(|why| {
        Error::io(
            Problem::Unwritable,
            format!("making names in {} durable", folder.display()),
            &why,
        )
    })
}

fn shown(name: &[u8]) -> String {
    String::from_utf8_lossy(name).into_owned()
}
