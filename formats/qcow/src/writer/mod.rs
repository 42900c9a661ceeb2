//! Writing into QCOW2 images.
//!
//! [`Writer::open`] takes the file of an image, and whoever is below it. What is written goes
//! through core's engine: data first, and at a flush, stage by stage, refcounts, what names
//! their blocks, L2 tables, the L1 table, and at last the refcounts of what nothing names any
//! more. After a power cut there are refcounts that are too high, never some that are too low.
//!
//! `map` is what the engine sees → `place` decides → `state` holds L1 and L2 → `counts` holds
//! refcounts and finds free clusters → `pages` holds pieces of tables.

mod alter;
mod bitmaps;
mod compact;
mod counts;
mod head;
mod map;
mod pages;
mod place;
mod resize;
mod sealed;
mod snapshots;
mod state;
mod width;

pub use compact::Compacted;
pub use map::WriterMap;
pub(crate) use width::{bits, set_bits};

use crate::codec::Codec;
use crate::crypt::Encrypt;
use crate::layout::incompatible;
use crate::{Encryption, Image, Purpose, snapshot};
use adit_core::{
    Check, Disk, DiskExt, Error, Extent, Finding, Geometry, Hop, ImageFile, Interrupt, Kind,
    Limits, Place, Problem, ReadRequest, Result, Severity, Writable, WritableDisk,
};
use counts::REPAIR;
use state::State;
use std::ops::Range;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex, RwLock};

/// What an image that is to be written needs beside its own file.
#[derive(Clone, Debug, Default)]
pub struct WriterParts {
    /// The disk in the backing file, where the image names one.
    pub backing: Option<Arc<dyn Disk>>,
    /// The external data file, where the image names one.
    pub data: Option<Arc<dyn ImageFile>>,
}

/// A QCOW2 image that can be written.
///
/// Dropping it writes nothing: what was not flushed is as after a power cut.
#[derive(Debug)]
pub struct Writer(Writable<WriterMap>);

impl Writer {
    /// Opens the image in `file` for writing; `name` is what to call it.
    ///
    /// Errors: `Unsupported` for version 1 and for encrypted images; `Corrupt` for images that
    /// must be repaired first; `NotFound` when `parts` lacks a file that the image needs.
    pub fn open(
        name: &str,
        file: Arc<dyn ImageFile>,
        parts: WriterParts,
        limits: &Limits,
    ) -> Result<Writer> {
        Self::open_with(name, file, parts, None, limits)
    }

    /// As [`Writer::open`], for an image encrypted with LUKS, whose clusters `cipher` encrypts.
    ///
    /// Errors: as `open`; `Unsupported` for the older AES; `Invalid` if it is not encrypted.
    pub fn open_encrypted(
        name: &str,
        file: Arc<dyn ImageFile>,
        parts: WriterParts,
        cipher: Arc<dyn Encrypt>,
        limits: &Limits,
    ) -> Result<Writer> {
        Self::open_with(name, file, parts, Some(cipher), limits)
    }

    fn open_with(
        name: &str,
        file: Arc<dyn ImageFile>,
        parts: WriterParts,
        cipher: Option<Arc<dyn Encrypt>>,
        limits: &Limits,
    ) -> Result<Writer> {
        let layer = format!("QCOW2 {name}");
        let map = open(layer.clone(), file, parts, cipher, limits);
        map.map(|map| Writer(Writable::new(map))).map_err(|error| error.in_layer(layer))
    }
}

fn open(
    layer: String,
    file: Arc<dyn ImageFile>,
    parts: WriterParts,
    cipher: Option<Arc<dyn Encrypt>>,
    limits: &Limits,
) -> Result<WriterMap> {
    let disk: Arc<dyn Disk> = Arc::<dyn ImageFile>::clone(&file);
    let image = Image::open(Arc::clone(&disk), limits)?;
    check_writable(&image)?;
    check_cipher(&image, cipher.is_some())?;
    let (mut files, mut disks, mut backing) = (vec![file], vec![Arc::clone(&disk)], None);
    for reference in image.references() {
        match (reference.purpose, &parts.backing, &parts.data) {
            (Purpose::Backing, Some(below), _) => backing = Some(Arc::clone(below)),
            (Purpose::Data, _, Some(data)) => {
                files.push(Arc::clone(data));
                disks.push(Arc::<dyn ImageFile>::clone(data));
            }
            (purpose, ..) => return Err(crate::image::missing(purpose, &reference)),
        }
    }
    let sealed = cipher.is_some();
    if let (Some(cipher), Some(file)) = (cipher, files.first()) {
        let file = Arc::clone(file);
        let seen = Arc::new(sealed::SealedFile { file, cipher, partial: Mutex::default() });
        disks.push(Arc::<sealed::SealedFile>::clone(&seen));
        files.push(seen);
    }
    let header = image.header.clone();
    let mut state = State::open(&disk, header, limits)?;
    protect(&mut state, &disk, limits)?;
    refuse_short(&image, &state, &disk)?;
    Ok(WriterMap {
        writes_through: image.data_file_is_raw(),
        name: layer,
        sealed,
        codec: Codec::new(state.header.compression),
        cluster: state.header.cluster,
        size_bytes: AtomicU64::new(state.header.size_bytes),
        data_end: AtomicU64::new(disks.last().map_or(0, |disk| disk.size_bytes())),
        files,
        disks,
        backing,
        live: Mutex::default(),
        tracks: AtomicBool::new(false),
        limits: limits.clone(),
        state: RwLock::new(state),
    })
}

/// Refuses what cannot be written safely.
pub(crate) fn check_writable(image: &Image) -> Result<()> {
    let at = |field| Place::new("QCOW header").field(field);
    let header = &image.header;
    if header.version == 1 {
        return Err(Error::unsupported("writing into QCOW version 1")
            .at(at("version"))
            .advise("convert it to qcow2, and write into that"));
    }
    if header.encryption == Some(Encryption::Aes) {
        return Err(Error::unsupported("writing into an image encrypted with the older AES")
            .at(at("crypt_method"))
            .advise("convert it, and write into the new image"));
    }
    if header.needs(incompatible::CORRUPT) {
        let detail = "a writer found the image damaged and marked it so";
        return Err(Error::corrupt(Problem::Refused, detail)
            .at(at("incompatible_features"))
            .advise("repair it first, and compare what matters with a backup"));
    }
    if header.needs(incompatible::DIRTY) {
        let detail = "the image was not closed, so its refcounts may be wrong";
        return Err(Error::corrupt(Problem::Refused, detail)
            .at(at("incompatible_features"))
            .advise(REPAIR));
    }
    Ok(())
}

/// Whoever writes into an encrypted image must be able to encrypt, and nobody else may.
fn check_cipher(image: &Image, given: bool) -> Result<()> {
    let place = Place::new("QCOW header").field("crypt_method");
    match (image.header.encryption, given) {
        (Some(_), false) => {
            let detail = "it is encrypted, and no secret was given";
            Err(Error::new(Kind::Denied, Problem::Missing, detail).at(place))
        }
        (None, true) => {
            let detail = "a cipher is given, but the image is not encrypted";
            Err(Error::invalid(Problem::Mismatch, detail).at(place))
        }
        // Ciphertext does not shrink, and nobody writes such; what it would mean is not known.
        (Some(_), true) if image.header.needs(incompatible::DATA_FILE) => {
            Err(Error::unsupported("an encrypted image with an external data file").at(place))
        }
        _ => Ok(()),
    }
}

/// How many clusters behind the end of the file are looked at.
const BEHIND_END: u64 = 1 << 15;

/// Refuses an image whose file was cut short: once it grows again, what was lost would read as
/// zeros. Clusters that are counted there and that nothing names are a power cut's leaks.
fn refuse_short(image: &Image, state: &State, file: &Arc<dyn Disk>) -> Result<()> {
    let first = state.header.cluster.index(file.size_bytes());
    let mut counted = false;
    for cluster in first..first.saturating_add(BEHIND_END) {
        counted = counted || state.counts.count(cluster)? > 0;
    }
    if !counted {
        return Ok(());
    }
    let mut worst: Option<Finding> = None;
    let mut keep = |finding: Finding| {
        if finding.severity == Severity::Error && worst.is_none() {
            worst = Some(finding);
        }
    };
    image.check(&mut keep, &Interrupt::default())?;
    match worst {
        None => Ok(()),
        Some(finding) => {
            let detail = format!("the file ends before what its tables name: {}", finding.text);
            let place = finding.place.unwrap_or_else(|| Place::new("end of file"));
            Err(Error::corrupt(Problem::Truncated, detail).at(place).advise(
                "get a complete copy; `adit convert` and `adit cp --salvage` save what is there",
            ))
        }
    }
}

/// Keeps snapshots and bitmaps from being taken for free space, whatever the refcounts say.
fn protect(state: &mut State, file: &Arc<dyn Disk>, limits: &Limits) -> Result<()> {
    for snapshot in snapshot::read(file.as_ref(), &state.header, limits)? {
        let length = snapshot.l1.entries.saturating_mul(8);
        if snapshot.l1.offset.saturating_add(length) > file.size_bytes() {
            continue;
        }
        let place = state.clusters(snapshot.l1.offset, length);
        state.counts.mark_table(place, true);
    }
    if let Some(bitmaps) = &state.header.extensions.bitmaps {
        let end = bitmaps.directory_offset.saturating_add(bitmaps.directory_size);
        if end <= file.size_bytes() {
            let place = state.clusters(bitmaps.directory_offset, bitmaps.directory_size);
            state.counts.mark_table(place, true);
        }
    }
    Ok(())
}

impl Disk for Writer {
    fn geometry(&self) -> Geometry {
        self.0.geometry()
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.0.read_at(buf, offset)
    }

    fn read_batch(&self, batch: &mut [ReadRequest<'_>]) -> Result<()> {
        self.0.read_batch(batch)
    }

    fn extent_at(&self, offset: u64) -> Result<Extent> {
        self.0.extent_at(offset)
    }

    fn as_file(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn explain(&self, offset: u64) -> Result<Hop> {
        self.0.explain(offset)
    }
}

impl WritableDisk for Writer {
    fn write_at(&self, buf: &[u8], offset: u64) -> Result<()> {
        self.0.write_at(buf, offset)
    }

    fn write_zeroes(&self, range: Range<u64>) -> Result<()> {
        self.0.write_zeroes(range)
    }

    fn discard(&self, range: Range<u64>) -> Result<()> {
        self.0.discard(range)
    }

    fn flush(&self) -> Result<()> {
        self.0.flush()
    }
}
