//! From the text of a descriptor to what it says.

use crate::descriptor::{BundleImage, Descriptor, ImageType, Storage};
use crate::layout::SECTOR_BYTES;
use crate::xml::{Event, Xml};
use crate::{Guid, Snapshot};
use adit_core::bytes::wide;
use adit_core::{Error, Finding, Limits, Place, Problem, Result};
use std::collections::HashSet;

/// The outermost element.
pub(crate) const ROOT: &str = "Parallels_disk_image";

/// Reads a descriptor.
pub(crate) fn read(text: &[u8], limits: &Limits) -> Result<Descriptor> {
    if wide(text.len()) > limits.text_bytes_max {
        let detail = format!("a descriptor of {} bytes", text.len());
        return Err(Error::limit("text_bytes_max", detail));
    }
    let mut reader = Reader::new(limits);
    let mut xml = Xml::new(text)?;
    while let Some(event) = xml.next()? {
        match event {
            Event::Open(name) => reader.open(name)?,
            Event::Text(text) => reader.text.extend_from_slice(&text),
            Event::Close => reader.close()?,
        }
    }
    reader.finish()
}

/// What was read so far.
struct Reader {
    found: Descriptor,
    /// Elements that are open, each with a slash before it, in lower case.
    path: String,
    /// Text since the last tag.
    text: Vec<u8>,
    /// Single values that were read in the element that may hold them.
    seen: HashSet<String>,
    storage: Option<(Option<u64>, Option<u64>, Vec<BundleImage>)>,
    image: (Option<Guid>, Option<ImageType>, Vec<u8>),
    shot: (Option<Guid>, Option<Guid>),
    images: u64,
    /// Whether the outermost element was met.
    begun: bool,
}

impl Reader {
    fn new(limits: &Limits) -> Reader {
        Reader {
            found: Descriptor { limits: limits.clone(), ..Descriptor::default() },
            path: String::new(),
            text: Vec::new(),
            seen: HashSet::new(),
            storage: None,
            image: (None, None, Vec::new()),
            shot: (None, None),
            images: 0,
            begun: false,
        }
    }

    fn open(&mut self, name: &[u8]) -> Result<()> {
        if self.path.is_empty() && !name.eq_ignore_ascii_case(ROOT.as_bytes()) {
            let name = String::from_utf8_lossy(name).into_owned();
            let detail = format!("begins with <{name}>, not <{ROOT}>");
            return Err(Error::corrupt(Problem::BadMagic, detail).at(place(ROOT)));
        }
        if self.path.is_empty() && std::mem::replace(&mut self.begun, true) {
            let detail = "there are two descriptors in one file";
            return Err(Error::corrupt(Problem::Ambiguous, detail).at(place(ROOT)));
        }
        self.path.push('/');
        self.path.push_str(&String::from_utf8_lossy(name).to_ascii_lowercase());
        self.text.clear();
        match self.path.strip_prefix(PREFIX).unwrap_or("") {
            "/storagedata/storage" => {
                self.forget("/storagedata/storage/");
                self.storage = Some((None, None, Vec::new()));
            }
            "/storagedata/storage/image" => {
                self.forget("/storagedata/storage/image/");
                self.image = (None, None, Vec::new());
            }
            "/snapshots/shot" => {
                self.forget("/snapshots/shot/");
                self.shot = (None, None);
            }
            _ => {}
        }
        Ok(())
    }

    /// Lets the single values of an element appear again.
    fn forget(&mut self, under: &str) {
        self.seen.retain(|path| !path.starts_with(under));
    }

    fn close(&mut self) -> Result<()> {
        let text = std::mem::take(&mut self.text);
        let mut path = std::mem::take(&mut self.path);
        self.value(path.strip_prefix(PREFIX).unwrap_or(""), text.trim_ascii())?;
        path.truncate(path.rfind('/').unwrap_or(0));
        self.path = path;
        Ok(())
    }

    fn value(&mut self, path: &str, text: &[u8]) -> Result<()> {
        let leaf = SINGLE.contains(&path);
        if leaf && !self.seen.insert(path.to_owned()) {
            let detail = "stands there twice";
            return Err(Error::corrupt(Problem::Ambiguous, detail).at(place(path)));
        }
        match path {
            "/disk_parameters/disk_size" => self.found.size_sectors = Some(number(path, text)?),
            "/disk_parameters/logicsectorsize" if number(path, text)? != SECTOR_BYTES => {
                let detail = format!("sectors of {} bytes", number(path, text)?);
                return Err(Error::unsupported(detail).at(place(path)));
            }
            "/disk_parameters/name" => {
                self.found.name = String::from_utf8_lossy(text).into_owned();
            }
            "/disk_parameters/uid" => self.found.uid = Guid::parse(text),
            "/disk_parameters/encryption/engine" if !text.is_empty() => {
                self.found.encryption = Some(guid(path, text)?).filter(|guid| !guid.is_null());
            }
            "/storagedata/storage/start" => {
                let value = number(path, text)?;
                self.storage.as_mut().map(|storage| storage.0.insert(value));
            }
            "/storagedata/storage/end" => {
                let value = number(path, text)?;
                self.storage.as_mut().map(|storage| storage.1.insert(value));
            }
            "/storagedata/storage/image/guid" => self.image.0 = Some(guid(path, text)?),
            "/storagedata/storage/image/type" => self.image.1 = Some(image_type(text)),
            "/storagedata/storage/image/file" => self.image.2 = text.to_vec(),
            "/storagedata/storage/image" => self.end_image()?,
            "/storagedata/storage" => self.end_storage()?,
            "/snapshots/topguid" => {
                self.found.top = Some(guid(path, text)?).filter(|guid| !guid.is_null());
            }
            "/snapshots/shot/guid" => self.shot.0 = Some(guid(path, text)?),
            "/snapshots/shot/parentguid" => self.shot.1 = Some(guid(path, text)?),
            "/snapshots/shot" => self.end_shot()?,
            _ => {}
        }
        Ok(())
    }

    fn end_image(&mut self) -> Result<()> {
        let (guid, kind, file) = std::mem::take(&mut self.image);
        let missing = |what| missing("Image", what);
        let guid = guid.ok_or_else(|| missing("GUID"))?;
        let kind = kind.ok_or_else(|| missing("Type"))?;
        if file.is_empty() {
            return Err(missing("File"));
        }
        if file.len() > FILE_BYTES_MAX || file.contains(&0) {
            let detail = format!("is no name of a file: {} bytes, or a NUL", file.len());
            return Err(Error::corrupt(Problem::BadValue, detail).at(place("File")));
        }
        self.images = self.images.saturating_add(1);
        if self.images > self.found.limits.pieces_max {
            let detail = format!("more than {} images", self.found.limits.pieces_max);
            return Err(Error::limit("pieces_max", detail).at(place("Image")));
        }
        if let Some((_, _, images)) = &mut self.storage {
            images.push(BundleImage { guid, kind, file });
        }
        Ok(())
    }

    fn end_storage(&mut self) -> Result<()> {
        let Some((start, end, images)) = self.storage.take() else { return Ok(()) };
        let start = start.ok_or_else(|| missing("Storage", "Start"))?;
        let end = end.ok_or_else(|| missing("Storage", "End"))?;
        if end <= start || end > u64::MAX / SECTOR_BYTES {
            let detail = format!("goes from sector {start} to {end}");
            return Err(Error::corrupt(Problem::BadValue, detail).at(place("Storage")));
        }
        let mut guids = HashSet::new();
        if let Some(twice) = images.iter().find(|image| !guids.insert(image.guid)) {
            let detail = format!("has two images {}", twice.guid);
            return Err(Error::corrupt(Problem::Ambiguous, detail).at(place("Storage")));
        }
        if wide(self.found.storages.len()) >= self.found.limits.pieces_max {
            let detail = format!("more than {} storages", self.found.limits.pieces_max);
            return Err(Error::limit("pieces_max", detail).at(place("Storage")));
        }
        self.found.storages.push(Storage { start, end, images });
        Ok(())
    }

    fn end_shot(&mut self) -> Result<()> {
        let (guid, parent) = std::mem::take(&mut self.shot);
        let guid = guid.ok_or_else(|| missing("Shot", "GUID"))?;
        let parent = parent.ok_or_else(|| missing("Shot", "ParentGUID"))?;
        if wide(self.found.snapshots.len()) >= self.found.limits.pieces_max {
            let detail = format!("more than {} snapshots", self.found.limits.pieces_max);
            return Err(Error::limit("pieces_max", detail).at(place("Shot")));
        }
        self.found.snapshots.push(Snapshot { guid, parent: Some(parent).filter(|p| !p.is_null()) });
        Ok(())
    }

    fn finish(mut self) -> Result<Descriptor> {
        let found = &mut self.found;
        found.storages.sort_by_key(|storage| storage.start);
        if found.storages.is_empty() {
            return Err(missing("StorageData", "Storage"));
        }
        let mut at = 0;
        for storage in &found.storages {
            let problem = match storage.start.cmp(&at) {
                std::cmp::Ordering::Equal => None,
                std::cmp::Ordering::Less => Some(Problem::Overlaps),
                std::cmp::Ordering::Greater => Some(Problem::Missing),
            };
            if let Some(problem) = problem {
                let detail = format!("starts at sector {}, not at {at}", storage.start);
                return Err(Error::corrupt(problem, detail).at(place("Storage")));
            }
            at = storage.end;
        }
        let mut guids = HashSet::new();
        if let Some(twice) = found.snapshots.iter().find(|shot| !guids.insert(shot.guid)) {
            let detail = format!("there are two snapshots {}", twice.guid);
            return Err(Error::corrupt(Problem::Ambiguous, detail).at(place("Snapshots")));
        }
        check_size(found, at)?;
        Ok(self.found)
    }
}

/// Compares the size the descriptor gives with that of its storages.
fn check_size(found: &mut Descriptor, end: u64) -> Result<()> {
    let Some(said) = found.size_sectors.filter(|&said| said != end) else { return Ok(()) };
    if said > u64::MAX / SECTOR_BYTES {
        let detail = format!("is {said} sectors");
        return Err(Error::corrupt(Problem::BadValue, detail).at(place("Disk_size")));
    }
    let text = format!("is {said} sectors, but the storages end at sector {end}");
    let advice = if said > end { "what is behind them cannot be read" } else { "all are read" };
    found.notes.push(
        Finding::warning("parallels-size-mismatch", text).at(place("Disk_size")).advise(advice),
    );
    Ok(())
}

/// Longest name of a file, which is what systems allow. Unit: bytes.
const FILE_BYTES_MAX: usize = 4096;

/// What every path begins with.
const PREFIX: &str = "/parallels_disk_image";

/// Elements that appear at most once where they appear.
const SINGLE: &[&str] = &[
    "/disk_parameters/disk_size",
    "/disk_parameters/logicsectorsize",
    "/disk_parameters/encryption/engine",
    "/storagedata/storage/start",
    "/storagedata/storage/end",
    "/storagedata/storage/image/guid",
    "/storagedata/storage/image/type",
    "/storagedata/storage/image/file",
    "/snapshots/topguid",
    "/snapshots/shot/guid",
    "/snapshots/shot/parentguid",
];

fn place(field: &str) -> Place {
    let last = field.rsplit('/').next().unwrap_or(field);
    Place::new("disk descriptor").field(last.to_owned())
}

fn missing(element: &str, what: &str) -> Error {
    Error::corrupt(Problem::Missing, format!("has no <{what}>")).at(place(element))
}

fn number(path: &str, text: &[u8]) -> Result<u64> {
    let parsed = std::str::from_utf8(text).ok().and_then(|text| text.parse().ok());
    parsed.ok_or_else(|| {
        let detail = format!("is {:?}, not a number", shortened(text));
        Error::corrupt(Problem::BadValue, detail).at(place(path))
    })
}

fn guid(path: &str, text: &[u8]) -> Result<Guid> {
    Guid::parse(text).ok_or_else(|| {
        let detail = format!("is {:?}, not a GUID", shortened(text));
        Error::corrupt(Problem::BadValue, detail).at(place(path))
    })
}

fn image_type(text: &[u8]) -> ImageType {
    if text.eq_ignore_ascii_case(b"Compressed") {
        ImageType::Expanding
    } else if text.eq_ignore_ascii_case(b"Plain") {
        ImageType::Plain
    } else {
        ImageType::Other(shortened(text))
    }
}

/// Hostile text, short enough for a message.
fn shortened(text: &[u8]) -> String {
    String::from_utf8_lossy(text.get(..64).unwrap_or(text)).into_owned()
}
