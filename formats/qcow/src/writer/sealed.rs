//! The clusters of an encrypted image, as the engine writes them: plain bytes go in, what the
//! file holds is ciphertext. Sectors are numbered by their place in the file, so only LUKS fits.

use crate::crypt::Encrypt;
use adit_core::bytes::{narrow, wide};
use adit_core::{
    Disk, DiskExt, Extent, ExtentKind, Geometry, Hop, ImageFile, Next, ReadRequest, Result,
    WritableDisk, read_each,
};
use std::ops::Range;
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex, PoisonError};

const SECTOR_BYTES: u64 = 512;
/// What is encrypted at a time. Unit: bytes.
const PIECE_BYTES: u64 = 64 << 10;

/// The file of an image, seen through its cipher.
#[derive(Debug)]
pub(super) struct SealedFile {
    pub file: Arc<dyn ImageFile>,
    pub cipher: Arc<dyn Encrypt>,
    /// Held while a part of a sector changes: two writers may share one.
    pub partial: Mutex<()>,
}

fn floor(at: u64) -> u64 {
    at & !SECTOR_BYTES.saturating_sub(1)
}

impl SealedFile {
    /// Whole sectors, decrypted; what lies past the end of the file reads as zeros.
    fn plain(&self, start: u64, length: u64) -> Result<Vec<u8>> {
        let length = narrow(length).unwrap_or(0);
        let mut buf = self.file.read_prefix(start, length)?;
        let whole = floor(wide(buf.len()));
        buf.truncate(narrow(whole).unwrap_or(0));
        self.cipher.decrypt(start / SECTOR_BYTES, &mut buf)?;
        buf.resize(length, 0);
        Ok(buf)
    }

    fn seal(&self, buf: &mut [u8], start: u64) -> Result<()> {
        self.cipher.encrypt(start / SECTOR_BYTES, buf)?;
        self.file.write_at(buf, start)
    }

    /// A part of one sector.
    fn write_part(&self, buf: &[u8], offset: u64) -> Result<()> {
        let _alone = self.partial.lock().unwrap_or_else(PoisonError::into_inner);
        let start = floor(offset);
        let mut sector = self.plain(start, SECTOR_BYTES)?;
        let at = narrow(offset.saturating_sub(start)).unwrap_or(0);
        if let Some(part) = sector.get_mut(at..at.saturating_add(buf.len())) {
            part.copy_from_slice(buf);
        }
        self.seal(&mut sector, start)
    }
}

impl Disk for SealedFile {
    fn geometry(&self) -> Geometry {
        self.file.geometry()
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.check_range(offset, wide(buf.len()))?;
        let start = floor(offset);
        let end = offset.saturating_add(wide(buf.len()));
        if start == offset && floor(end) == end {
            self.file.read_at(buf, offset)?;
            return self.cipher.decrypt(start / SECTOR_BYTES, buf);
        }
        let length = end.saturating_sub(start).next_multiple_of(SECTOR_BYTES);
        let whole = self.plain(start, length)?;
        let at = narrow(offset.saturating_sub(start)).unwrap_or(0);
        buf.copy_from_slice(whole.get(at..at.saturating_add(buf.len())).unwrap_or_default());
        Ok(())
    }

    fn read_batch(&self, batch: &mut [ReadRequest<'_>]) -> Result<()> {
        read_each(self, batch)
    }

    fn extent_at(&self, offset: u64) -> Result<Extent> {
        // Holes of the file are ciphertext like any other.
        self.check_range(offset, 1)?;
        let length = self.size_bytes().saturating_sub(offset);
        Ok(Extent { offset, length, kind: ExtentKind::Data })
    }

    fn as_file(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn explain(&self, offset: u64) -> Result<Hop> {
        let layer = "decrypted clusters of the image".to_owned();
        Ok(Hop { layer, offset, steps: Vec::new(), next: Next::Here })
    }
}

impl WritableDisk for SealedFile {
    fn write_at(&self, buf: &[u8], offset: u64) -> Result<()> {
        let (mut at, mut rest) = (offset, buf);
        while !rest.is_empty() {
            let left = wide(rest.len());
            let inside = at.saturating_sub(floor(at));
            let length = match inside == 0 && left >= SECTOR_BYTES {
                true => floor(left).min(PIECE_BYTES),
                false => left.min(SECTOR_BYTES.saturating_sub(inside)),
            };
            let (now, later) = rest.split_at(narrow(length).unwrap_or(0).min(rest.len()));
            if inside == 0 && length >= SECTOR_BYTES {
                self.seal(&mut now.to_vec(), at)?;
            } else {
                self.write_part(now, at)?;
            }
            at = at.saturating_add(length);
            rest = later;
        }
        Ok(())
    }

    fn write_zeroes(&self, range: Range<u64>) -> Result<()> {
        let mut at = range.start;
        while at < range.end {
            let length = range.end.saturating_sub(at).min(PIECE_BYTES);
            self.write_at(&vec![0; narrow(length).unwrap_or(0)], at)?;
            at = at.saturating_add(length);
        }
        Ok(())
    }

    fn discard(&self, _range: Range<u64>) -> Result<()> {
        // What was freed would read as noise; clusters are let go of by the file itself.
        Ok(())
    }

    fn flush(&self) -> Result<()> {
        self.file.flush()
    }
}

impl ImageFile for SealedFile {
    fn set_size(&self, size_bytes: u64) -> Result<()> {
        self.file.set_size(size_bytes)
    }
}
