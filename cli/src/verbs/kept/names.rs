//! What an overlay calls the disk it stands on.

use super::{Below, folder_of};
use crate::session::Session;
use crate::verbs::map::disk_of;
use adit_core::{Disk, DiskExt, Error, ParentRecord, Problem, Result};
use adit_open::Opened;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What precedes the name of a place that no other tool opens.
const SCHEME: &[u8] = b"adit:";

/// A disk that overlays stand on.
#[derive(Clone, Debug)]
pub struct Base {
    /// It.
    pub disk: Arc<dyn Disk>,
    /// What an overlay records of it.
    pub record: ParentRecord,
    /// The file of the host it is, if other tools can open that.
    plain: Option<PathBuf>,
}

impl Base {
    /// Whether the overlay in `file` means this disk.
    pub fn is_meant(&self, below: &Below, file: &Path) -> bool {
        if below.name == self.record.name {
            return true;
        }
        let Some(plain) = &self.plain else { return false };
        let named = folder_of(file).join(OsStr::from_bytes(&below.name));
        // Another tool may have recorded the way from the overlay to it.
        named.canonicalize().is_ok_and(|named| named == *plain)
            && below.format.as_deref().is_none_or(|word| word == self.record.format)
    }

    /// What the overlay in `file` records: of a disk in the same folder its name alone, so that
    /// both can be moved together.
    pub fn record_for(&self, file: &Path) -> ParentRecord {
        record_beside(&self.record, self.plain.as_deref(), file)
    }

    /// The same under filters.
    pub fn with_disk(self, disk: Arc<dyn Disk>) -> Base {
        Base { disk, ..self }
    }
}

/// The record of a file of the host, shortened where the overlay in `file` lies beside it.
pub fn record_beside(record: &ParentRecord, plain: Option<&Path>, file: &Path) -> ParentRecord {
    let folder = folder_of(file).canonicalize().ok();
    let name = plain.filter(|plain| plain.parent() == folder.as_deref()).and_then(Path::file_name);
    // A colon would make it a protocol for other tools.
    match name.filter(|name| !name.as_bytes().contains(&b':')) {
        Some(name) => ParentRecord { name: name.as_bytes().to_vec(), ..record.clone() },
        None => record.clone(),
    }
}

/// Opens a place for overlays to stand on.
pub fn base_of(session: &Session, path: &OsStr) -> Result<(Base, Opened)> {
    let opened = session.open_disk(path)?;
    let (disk, opened) = disk_of(session, opened)?;
    let failed = |why| Error::io(Problem::Unreadable, opened.locator.to_string(), &why);
    let is_host = opened.locator.steps.iter().all(Vec::is_empty)
        && opened.locator.host.exists()
        && session.common.member.is_empty();
    let format = format_word(&opened).filter(|_| is_host);
    let (name, plain) = match &format {
        Some(_) => {
            let whole = opened.locator.host.canonicalize().map_err(failed)?;
            (whole.as_os_str().as_bytes().to_vec(), Some(whole))
        }
        None => {
            let mut whole = opened.locator.clone();
            // A server of another machine has no path.
            if let Ok(host) = whole.host.canonicalize() {
                whole.host = host;
            }
            while whole.steps.last().is_some_and(Vec::is_empty) {
                whole.steps.pop();
            }
            ([SCHEME, &whole.to_os_string().into_vec()].concat(), None)
        }
    };
    let record = ParentRecord {
        name,
        absolute: None,
        format: format.unwrap_or("raw").to_owned(),
        identity: Vec::new(),
        size_bytes: disk.size_bytes(),
    };
    Ok((Base { disk, record, plain }, opened))
}

/// QEMU's word for the format of what was opened, if it has one.
pub fn format_word(opened: &Opened) -> Option<&'static str> {
    // Of a chain, the image itself comes first after the bare file.
    let image = opened.layers.iter().find(|layer| layer.format != "raw");
    let Some(layer) = image else {
        let pieces =
            opened.layers.iter().any(|layer| layer.facts.iter().any(|it| it.0 == "pieces"));
        return (!pieces).then_some("raw");
    };
    Some(match layer.format.as_str() {
        "QCOW2" => "qcow2",
        "QCOW" => "qcow",
        other => match other.split(' ').next()? {
            "VMDK" => "vmdk",
            "VHDX" => "vhdx",
            "VHD" => "vpc",
            "VDI" => "vdi",
            _ => return None,
        },
    })
}

/// The place that the lowest of these overlays stands on: one that `adit` opens.
pub fn bottom_of(below: &Below, file: &Path) -> OsString {
    match below.name.strip_prefix(SCHEME) {
        Some(place) => OsString::from_vec(place.to_vec()),
        None => folder_of(file).join(OsStr::from_bytes(&below.name)).into_os_string(),
    }
}
