//! A volume, still locked, and the way to the disk behind it.

pub use crate::keys::Protector;

use crate::disk::{Plain, Segment, Source};
use crate::header::{self, Layout, Start};
use crate::metadata::Metadata;
use crate::sectors::{self, Sectors};
use crate::{entries, keys};
use adit_core::{Disk, DiskExt, Error, Finding, Kind, Limits, Place, Problem, Result, Severity};
use std::ops::Range;
use std::sync::Arc;

/// Whether `disk` begins as a volume encrypted with BitLocker. Reads one sector.
///
/// Errors: those of reading; a disk too short to be one is no error.
pub fn probe(disk: &Arc<dyn Disk>) -> Result<bool> {
    Ok(header::layout(&disk.read_prefix(0, 512)?).is_some())
}

/// An encrypted volume, still locked.
#[derive(Debug)]
pub struct BitLocker {
    disk: Arc<dyn Disk>,
    start: Start,
    metadata: Metadata,
    notes: Vec<Finding>,
}

/// Bytes at the start that Windows Vista leaves in the clear.
const VISTA_CLEAR: u64 = 8192;

impl BitLocker {
    /// Reads the volume's first sector and the first whole copy of its metadata.
    ///
    /// Errors: `Corrupt` when no copy is whole; `Unsupported`.
    pub fn open(disk: Arc<dyn Disk>, _limits: &Limits) -> Result<BitLocker> {
        let start = header::parse(&disk.read_prefix(0, 512)?)?;
        let mut notes = Vec::new();
        let mut offsets = start.metadata.clone();
        let mut tried = 0;
        let mut found = None;
        // A damaged copy of Windows Vista's layout leaves nothing that names the others.
        while let Some(offset) = offsets.get(tried).copied() {
            tried = tried.saturating_add(1);
            match Metadata::read(&disk, offset) {
                Ok(metadata) if found.is_none() => {
                    if start.layout == Layout::Vista {
                        offsets.extend(metadata.block.copies.iter().filter(|at| **at != offset));
                    }
                    found = Some(metadata);
                }
                Ok(_) => {}
                Err(error) => {
                    let note = Finding::from_error("bitlocker-metadata", &error);
                    let advice = "another copy is whole and used; nothing is lost";
                    notes.push(Finding { severity: Severity::Warning, ..note }.advise(advice));
                }
            }
        }
        let metadata = found.ok_or_else(|| {
            let reasons: Vec<String> = notes.iter().map(|note| note.text.clone()).collect();
            Error::corrupt(Problem::BadChecksum, reasons.join("; "))
                .at(Place::new("BitLocker metadata"))
                .advise("no copy is whole; without one no key opens the volume")
        })?;
        Ok(BitLocker { disk, start, metadata, notes })
    }

    /// Identity of the volume.
    pub fn volume_id(&self) -> String {
        entries::guid(&self.metadata.list.volume)
    }

    /// What Windows called the volume and its machine.
    pub fn description(&self) -> String {
        self.metadata.description()
    }

    /// The cipher, in words.
    pub fn cipher(&self) -> String {
        sectors::name(self.metadata.cipher())
    }

    /// Which system's layout.
    pub fn layout(&self) -> &'static str {
        self.start.layout.word()
    }

    /// Who may open the volume.
    ///
    /// Errors: `Corrupt`.
    pub fn protectors(&self) -> Result<Vec<Protector>> {
        Ok(keys::locks(&self.metadata)?.iter().map(|lock| lock.protector).collect())
    }

    /// What was noticed on reading: damaged copies of the metadata.
    pub fn notes(&self) -> &[Finding] {
        &self.notes
    }

    /// The disk, where nothing is needed: protection is suspended, or nothing is encrypted.
    ///
    /// Errors: as [`BitLocker::unlock`].
    pub fn unlock_suspended(&self) -> Result<Option<Arc<dyn Disk>>> {
        self.refuse_used_only()?;
        if self.metadata.cipher() == 0 {
            return self.plain(None).map(Some);
        }
        match keys::clear(&self.metadata)? {
            Some(key) => self.plain(Some(self.sectors(&key)?)).map(Some),
            None => Ok(None),
        }
    }

    /// The disk behind a password, a recovery password, or the bytes of a `.BEK` file.
    ///
    /// Errors: `Denied` when it opens no lock; `Unsupported`, `Corrupt`.
    pub fn unlock(&self, secret: &[u8]) -> Result<Arc<dyn Disk>> {
        self.refuse_used_only()?;
        let key = keys::unlock(&self.metadata, secret)?.ok_or_else(|| self.denied())?;
        self.plain(Some(self.sectors(&key)?))
    }

    pub(crate) fn disk(&self) -> &Arc<dyn Disk> {
        &self.disk
    }

    pub(crate) fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    pub(crate) fn start(&self) -> &Start {
        &self.start
    }

    fn title(&self) -> String {
        format!("BitLocker volume {}", self.volume_id())
    }

    fn sectors(&self, key: &[u8]) -> Result<Sectors> {
        Sectors::open(self.metadata.cipher(), key, self.start.sector_bytes)
            .map_err(|error| error.in_layer(self.title()))
    }

    fn denied(&self) -> Error {
        let names: Vec<String> =
            self.protectors().unwrap_or_default().iter().map(|known| known.name()).collect();
        let detail = format!("the secret opens none of its locks: {}", names.join(", "));
        Error::new(Kind::Denied, Problem::Refused, detail)
            .advise(
                "a password or the 48 digits of a recovery password go into `--passphrase-file`, \
                 a .BEK file into `--key-file`; a security chip's key is not on the disk",
            )
            .in_layer(self.title())
    }

    /// Which sectors are encrypted is told by a bitmap that is not read.
    fn refuse_used_only(&self) -> Result<()> {
        if self.start.used_only && self.metadata.cipher() != 0 {
            let detail = "BitLocker volume whose encryption of used space is not finished";
            return Err(Error::unsupported(detail)
                .at(Place::new("BitLocker volume header").byte(0))
                .advise("let Windows finish the encryption, or suspend and decrypt it there")
                .in_layer(self.title()));
        }
        Ok(())
    }

    /// The plain disk: what is encrypted and where, without what BitLocker added.
    fn plain(&self, sectors: Option<Sectors>) -> Result<Arc<dyn Disk>> {
        let size = self.disk.size_bytes();
        let mut segments = Segments { all: Vec::new(), size };
        let region = self.metadata.region_bytes();
        let block = &self.metadata.block;
        for copy in block.copies {
            segments.add(copy..copy.saturating_add(region), Source::Zero)?;
        }
        let boundary = match (&sectors, self.start.layout) {
            (None, _) => 0,
            (Some(_), Layout::Vista) => size,
            (Some(_), _) => block.encrypted_bytes.min(size),
        };
        let sector = u64::from(self.start.sector_bytes);
        if boundary.checked_rem(sector) != Some(0) && boundary != size {
            let detail = format!("encrypted to byte {boundary}, which is no end of a sector");
            return Err(Error::corrupt(Problem::Misaligned, detail)
                .at(Place::new("BitLocker metadata").field("encrypted size"))
                .in_layer(self.title()));
        }
        let from = match self.metadata.moved(self.start.sector_bytes) {
            Some((at, length)) => {
                segments.moved(at, length, boundary)?;
                length
            }
            None => {
                let mut first = self.disk.read_vec(0, 512)?;
                // As it was: another signature, and the place of the MFT's mirror.
                splice(&mut first, 3, b"NTFS    ");
                splice(&mut first, 0x38, &block.moved.to_le_bytes());
                segments.add(0..512, Source::Bytes(first.into()))?;
                segments.add(512..VISTA_CLEAR, Source::Clear(512))?;
                VISTA_CLEAR
            }
        };
        segments.fill(from, boundary);
        Plain::open(self.title(), Arc::clone(&self.disk), sectors, segments.all)
    }
}

fn splice(into: &mut [u8], at: usize, bytes: &[u8]) {
    if let Some(room) = into.get_mut(at..at.saturating_add(bytes.len())) {
        room.copy_from_slice(bytes);
    }
}

/// Pieces of the plain disk as they are found.
struct Segments {
    all: Vec<Segment>,
    size: u64,
}

impl Segments {
    /// Adds a piece, cut to the disk.
    ///
    /// Errors: `Corrupt` where it meets another.
    fn add(&mut self, range: Range<u64>, source: Source) -> Result<()> {
        let range = range.start.min(self.size)..range.end.min(self.size);
        if range.is_empty() {
            return Ok(());
        }
        let meets = |other: &Segment| other.start < range.end && range.start < other.end;
        if self.all.iter().any(meets) {
            let detail = format!("bytes {} to {} are claimed twice", range.start, range.end);
            return Err(
                Error::corrupt(Problem::Overlaps, detail).at(Place::new("BitLocker layout"))
            );
        }
        self.all.push(Segment { start: range.start, end: range.end, source });
        self.all.sort_by_key(|segment| segment.start);
        Ok(())
    }

    /// The first sectors stand at `at`; where they stand, the plain disk has nothing.
    fn moved(&mut self, at: u64, length: u64, boundary: u64) -> Result<()> {
        let inside = at.checked_add(length).is_some_and(|end| end <= self.size);
        if !inside || at < length {
            let detail = format!("the first {length} bytes are said to stand at byte {at}");
            return Err(Error::corrupt(Problem::OutOfRange, detail)
                .at(Place::new("BitLocker metadata").field("volume header")));
        }
        let source = if at < boundary { Source::Cipher(at) } else { Source::Clear(at) };
        self.add(0..length, source)?;
        self.add(at..at.saturating_add(length), Source::Zero)
    }

    /// Everything else, from byte `from`: encrypted before the boundary, clear after it.
    fn fill(&mut self, from: u64, boundary: u64) {
        let mut at = from;
        let mut filled = Vec::with_capacity(self.all.len().saturating_mul(3));
        let known = std::mem::take(&mut self.all);
        let ends = known.iter().map(|segment| segment.start).chain([self.size]);
        let mut gaps = Vec::new();
        for (end, next) in ends.zip(known.iter().map(|segment| segment.end).chain([self.size])) {
            if at < end {
                gaps.push(at..end);
            }
            at = at.max(next);
        }
        for gap in gaps {
            let middle = boundary.clamp(gap.start, gap.end);
            let halves = [
                (gap.start..middle, Source::Cipher(gap.start)),
                (middle..gap.end, Source::Clear(middle)),
            ];
            for (range, source) in halves {
                if !range.is_empty() {
                    filled.push(Segment { start: range.start, end: range.end, source });
                }
            }
        }
        filled.extend(known);
        filled.sort_by_key(|segment| segment.start);
        self.all = filled;
    }
}
