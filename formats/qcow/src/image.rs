//! An image that was opened, and the disks it holds.

use crate::bitmap::{self, Bitmap};
use crate::codec::{Codec, Compression};
use crate::crypt::{Decrypt, EncryptedMap};
use crate::header::{Encryption, Header, L1Place, check_l1};
use crate::layout::{autoclear, incompatible};
use crate::map::QcowMap;
use crate::snapshot::{self, Snapshot};
use crate::table::Tables;
use adit_core::bytes::narrow;
use adit_core::{Disk, DiskExt, Error, Kind, Limits, Mapped, Place, Problem, Result};
use std::ops::Range;
use std::sync::Arc;

/// Why an image names a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Purpose {
    /// It holds what this image does not.
    Backing,
    /// It holds the clusters of this image.
    Data,
}

/// A file that an image names. Hostile text until a policy has looked at it: besides a path it
/// may be `json:{…}`, or a protocol and a colon.
///
/// QCOW stores no identity of these files, so nothing can be compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// The name as it stands: relative to the directory of the image, or absolute. Empty for a
    /// data file that the image needs and does not name.
    pub name: Vec<u8>,
    /// What it is needed for.
    pub purpose: Purpose,
    /// The format of the file in QEMU's words (`raw`, `qcow2`, `vmdk`). Without one the format
    /// would have to be guessed, which lets a guest choose it.
    pub format: Option<Vec<u8>>,
}

impl Reference {
    /// The name for a person.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.name).into_owned()
    }
}

/// The files that were found for the references.
#[derive(Clone, Debug, Default)]
pub struct Parts {
    /// The disk in the backing file.
    pub backing: Option<Arc<dyn Disk>>,
    /// The data file.
    pub data: Option<Arc<dyn Disk>>,
}

/// How large the disk of a snapshot is; it differs where the disk was resized since.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SnapshotSize {
    /// As large as it was when the snapshot was taken. Nothing is lost.
    #[default]
    Then,
    /// As large as the disk is now, cut or filled with zeros: what `qemu-img convert -l` gives.
    Now,
}

/// A QCOW image of any version, its header checked.
#[derive(Clone, Debug)]
pub struct Image {
    file: Arc<dyn Disk>,
    limits: Limits,
    pub(crate) header: Header,
    pub(crate) backing_name: Option<Vec<u8>>,
    cipher: Option<Arc<dyn Decrypt>>,
}

impl Image {
    /// Reads header and header extensions of `file`.
    ///
    /// Errors: `Unsupported` for other versions and for incompatible features that are not
    /// known, by name; `Corrupt` for values the format does not allow. Encrypted images open;
    /// their disks need [`Image::with_cipher`].
    pub fn open(file: Arc<dyn Disk>, limits: &Limits) -> Result<Image> {
        let header = Header::open(file.as_ref())?;
        let l1_end = header.l1.offset.saturating_add(header.l1.entries.saturating_mul(8));
        if l1_end > file.size_bytes() {
            let detail = format!("it ends at {l1_end:#x}, the file at {:#x}", file.size_bytes());
            return Err(Error::corrupt(Problem::Truncated, detail)
                .at(Place::new("L1 table").byte(header.l1.offset))
                .advise("the file is shorter than its own tables say; get a complete copy"));
        }
        let backing_name = match &header.backing {
            None => None,
            Some(range) => {
                let length = narrow(range.end.saturating_sub(range.start)).unwrap_or(0);
                let place = Place::new("QCOW header").field("backing file name").byte(range.start);
                if range.end > file.size_bytes() {
                    let detail = "the file ends inside the name of the backing file";
                    return Err(Error::corrupt(Problem::Truncated, detail).at(place));
                }
                Some(file.read_vec(range.start, length)?)
            }
        };
        Ok(Image { file, limits: limits.clone(), header, backing_name, cipher: None })
    }

    /// Gives an encrypted image what decrypts it.
    pub fn with_cipher(mut self, cipher: Arc<dyn Decrypt>) -> Image {
        self.cipher = Some(cipher);
        self
    }

    /// The files this image needs.
    pub fn references(&self) -> Vec<Reference> {
        let mut found = Vec::new();
        if self.header.needs(incompatible::DATA_FILE) {
            let name = self.header.extensions.data_file.clone().unwrap_or_default();
            found.push(Reference { name, purpose: Purpose::Data, format: Some(b"raw".to_vec()) });
        }
        if let Some(name) = self.backing_name.clone() {
            let format = self.header.extensions.backing_format.clone();
            found.push(Reference { name, purpose: Purpose::Backing, format });
        }
        found
    }

    /// The disk as it is now; `name` is what to call the image.
    ///
    /// Errors: `Denied` for encrypted images without a cipher; `NotFound` when `parts` lacks a file that
    /// the image needs; `Corrupt`.
    pub fn disk(&self, name: &str, parts: Parts) -> Result<Arc<dyn Disk>> {
        let layer = self.layer(name);
        self.map(layer.clone(), self.header.l1, self.header.size_bytes, parts)
            .map_err(|error| error.in_layer(layer))
    }

    /// The disk as it was in the snapshot with that id, or else with that name.
    ///
    /// Errors: as `disk`; `NotFound` and `Invalid` for what [`Image::snapshots`] does not name
    /// once.
    pub fn disk_of_snapshot(
        &self,
        name: &str,
        wanted: &str,
        size: SnapshotSize,
        parts: Parts,
    ) -> Result<Arc<dyn Disk>> {
        let layer = format!("{}@{wanted}", self.layer(name));
        let open = || {
            let snapshots = self.snapshots()?;
            let snapshot = snapshot::find(&snapshots, wanted.as_bytes())?;
            check_l1(snapshot.l1, snapshot.disk_size_bytes, &self.header, "snapshot table")?;
            let size_bytes = match size {
                SnapshotSize::Then => snapshot.disk_size_bytes,
                SnapshotSize::Now => self.header.size_bytes,
            };
            self.map(layer.clone(), snapshot.l1, size_bytes, parts)
        };
        open().map_err(|error| error.in_layer(layer.clone()))
    }

    /// The internal snapshots, in the order of the table.
    ///
    /// Errors: `Corrupt`, `Limit`.
    pub fn snapshots(&self) -> Result<Vec<Snapshot>> {
        snapshot::read(self.file.as_ref(), &self.header, &self.limits)
    }

    /// The dirty bitmaps, in the order of the directory.
    ///
    /// Errors: `Corrupt`, `Limit`.
    pub fn bitmaps(&self) -> Result<Vec<Bitmap>> {
        let clean = self.header.autoclear & autoclear::BITMAPS != 0;
        match &self.header.extensions.bitmaps {
            None => Ok(Vec::new()),
            Some(place) => bitmap::read(self.file.as_ref(), place, clean, &self.limits),
        }
    }

    /// Reports the ranges that `bitmap` of this image calls dirty, in order and joined.
    ///
    /// Units: bytes of the disk.
    /// Errors: `Lost` for a bitmap that is not consistent: take everything as changed;
    /// `Corrupt`. After an error what was reported is not all.
    pub fn dirty(&self, bitmap: &Bitmap, report: &mut dyn FnMut(Range<u64>)) -> Result<()> {
        let file = self.file.as_ref();
        bitmap::dirty(file, bitmap, self.header.cluster, self.header.size_bytes, report)
    }

    /// 1, 2 or 3.
    pub fn version(&self) -> u32 {
        self.header.version
    }

    /// Virtual size. Unit: bytes.
    pub fn size_bytes(&self) -> u64 {
        self.header.size_bytes
    }

    /// Unit of allocation. Unit: bytes.
    pub fn cluster_size_bytes(&self) -> u64 {
        self.header.cluster.size()
    }

    /// How its clusters are encrypted, if they are.
    pub fn encryption(&self) -> Option<Encryption> {
        self.header.encryption
    }

    /// How compressed clusters are compressed; there may be none.
    pub fn compression(&self) -> Compression {
        self.header.compression
    }

    /// How many internal snapshots the header announces.
    pub fn snapshot_count(&self) -> u32 {
        self.header.snapshots
    }

    /// Whether the data file alone is the whole raw disk.
    pub fn data_file_is_raw(&self) -> bool {
        self.header.needs(incompatible::DATA_FILE)
            && self.header.autoclear & autoclear::DATA_FILE_RAW != 0
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.limits
    }

    pub(crate) fn file(&self) -> &Arc<dyn Disk> {
        &self.file
    }

    fn layer(&self, name: &str) -> String {
        let format = if self.header.version == 1 { "QCOW" } else { "QCOW2" };
        format!("{format} {name}")
    }

    fn map(
        &self,
        layer: String,
        l1: L1Place,
        size_bytes: u64,
        parts: Parts,
    ) -> Result<Arc<dyn Disk>> {
        let (mut backing, mut data) = (None, Arc::clone(&self.file));
        for reference in self.references() {
            match (reference.purpose, &parts.backing, &parts.data) {
                (Purpose::Backing, Some(disk), _) => backing = Some(Arc::clone(disk)),
                (Purpose::Data, _, Some(disk)) => data = Arc::clone(disk),
                (purpose, ..) => return Err(missing(purpose, &reference)),
            }
        }
        let plain = QcowMap {
            name: layer,
            size_bytes,
            cluster: self.header.cluster,
            tables: Tables::open(&self.file, &self.header, l1, size_bytes, &self.limits)?,
            codec: Codec::new(self.header.compression),
            file: Arc::clone(&self.file),
            data,
            backing,
        };
        match (self.header.encryption, self.cipher.clone()) {
            (None, _) => Ok(Arc::new(Mapped::new(plain))),
            (Some(encryption), Some(cipher)) => {
                Ok(Arc::new(Mapped::new(EncryptedMap { plain, cipher, encryption })))
            }
            (Some(encryption), None) => {
                let detail = format!("the image is encrypted ({})", encryption.word());
                Err(Error::new(Kind::Denied, Problem::Missing, detail)
                    .at(Place::new("QCOW header").field("crypt_method"))
                    .advise("give its passphrase"))
            }
        }
    }

    /// Where the LUKS header of an image encrypted with it stands. Units: bytes of the file.
    pub fn luks_header(&self) -> Option<Range<u64>> {
        self.header.extensions.luks.clone()
    }
}

pub(crate) fn missing(purpose: Purpose, reference: &Reference) -> Error {
    let what = match purpose {
        Purpose::Backing => "backing file",
        Purpose::Data => "data file",
    };
    Error::not_found(format!("its {what} {:?} was not given", reference.text()))
        .at(Place::new("QCOW header").field(what))
        .advise(format!("name the {what} yourself"))
}
