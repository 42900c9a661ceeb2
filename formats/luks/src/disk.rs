//! The plain text of an encrypted disk.

use crate::cipher::Cipher;
use crate::header::Segment;
use adit_core::bytes::wide;
use adit_core::{
    Disk, DiskExt, Error, Extent, ExtentKind, Geometry, Hop, Next, Place, Problem, ReadRequest,
    Result, read_each,
};
use std::os::fd::BorrowedFd;
use std::sync::Arc;

/// An encrypted disk that was unlocked. Reads decrypt whole sectors in the reader's buffer.
#[derive(Debug)]
pub(crate) struct Decrypted {
    name: String,
    below: Arc<dyn Disk>,
    cipher: Cipher,
    geometry: Geometry,
    /// Where the first sector stands below. Unit: bytes.
    offset: u64,
    tweak: u64,
}

impl Decrypted {
    pub fn open(
        name: String,
        below: Arc<dyn Disk>,
        cipher: Cipher,
        segment: &Segment,
    ) -> Result<Arc<dyn Disk>> {
        let there = below.size_bytes().checked_sub(segment.offset).ok_or_else(|| {
            let detail = format!(
                "data begin at byte {}, but the disk ends at {}",
                segment.offset,
                below.size_bytes()
            );
            Error::corrupt(Problem::Truncated, detail)
                .at(Place::new("LUKS segment"))
                .in_layer(name.clone())
        })?;
        let sector = wide(cipher.sector_bytes());
        // A last sector that is not whole cannot be decrypted, and never was there.
        let size = segment.length.unwrap_or(there);
        let size_bytes = size.saturating_sub(size.checked_rem(sector).unwrap_or(0));
        let geometry = Geometry {
            size_bytes,
            sector_size_bytes: u32::try_from(cipher.sector_bytes()).unwrap_or(512),
            ..below.geometry()
        };
        let (offset, tweak) = (segment.offset, segment.tweak);
        Ok(Arc::new(Decrypted { name, below, cipher, geometry, offset, tweak }))
    }

    fn sector(&self) -> u64 {
        wide(self.cipher.sector_bytes()).max(512)
    }

    /// Reads whole sectors.
    fn read_whole(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        if buf.is_empty() {
            return Ok(());
        }
        let below = self.offset.saturating_add(offset);
        let there = self.below.size_bytes();
        if below.checked_add(wide(buf.len())).is_none_or(|end| end > there) {
            let detail = format!("the disk ends at byte {there} of its encrypted sectors");
            return Err(Error::new(adit_core::Kind::Lost, Problem::Truncated, detail)
                .at(Place::new("device end").byte(there)));
        }
        self.below.read_at(buf, below)?;
        self.cipher.decrypt((offset / 512).wrapping_add(self.tweak), buf)
    }

    /// Reads part of one sector, by way of a sector on the stack.
    fn read_part(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let mut room = [0u8; 4096];
        let within = offset.checked_rem(self.sector()).unwrap_or(0);
        let sector = room.get_mut(..self.cipher.sector_bytes()).unwrap_or_default();
        self.read_whole(sector, offset.saturating_sub(within))?;
        let from = adit_core::bytes::narrow(within).unwrap_or(0);
        let part = sector.get(from..from.saturating_add(buf.len()));
        let part =
            part.ok_or_else(|| Error::invalid(Problem::OutOfRange, "the read leaves its sector"))?;
        buf.copy_from_slice(part);
        Ok(())
    }

    fn read(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let sector = self.sector();
        let left = |at: u64| sector.saturating_sub(at.checked_rem(sector).unwrap_or(0));
        let (mut at, mut rest) = (offset, buf);
        while !rest.is_empty() {
            let here = left(at);
            let length = wide(rest.len());
            let aligned = here == sector;
            let take = match aligned {
                // All whole sectors at once.
                true if length >= sector => {
                    length.saturating_sub(length.checked_rem(sector).unwrap_or(0))
                }
                _ => here.min(length),
            };
            let take_here = adit_core::bytes::narrow(take).unwrap_or(rest.len()).min(rest.len());
            let (now, later) = rest.split_at_mut(take_here);
            if aligned && take >= sector {
                self.read_whole(now, at)?;
            } else {
                self.read_part(now, at)?;
            }
            at = at.saturating_add(take);
            rest = later;
        }
        Ok(())
    }
}

impl Disk for Decrypted {
    fn geometry(&self) -> Geometry {
        self.geometry
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.check_range(offset, wide(buf.len()))
            .and_then(|()| self.read(buf, offset))
            .map_err(|error| error.in_layer(self.name.clone()))
    }

    fn read_batch(&self, batch: &mut [ReadRequest<'_>]) -> Result<()> {
        read_each(self, batch)
    }

    fn extent_at(&self, offset: u64) -> Result<Extent> {
        self.check_range(offset, 1).map_err(|error| error.in_layer(self.name.clone()))?;
        let left = self.size_bytes().saturating_sub(offset);
        let at = self.offset.saturating_add(offset);
        if at >= self.below.size_bytes() {
            let lost = Error::new(
                adit_core::Kind::Lost,
                Problem::Truncated,
                "the disk ends before its encrypted sectors do",
            );
            return Ok(Extent { offset, length: left, kind: ExtentKind::Lost(lost) });
        }
        let below = self.below.extent_at(at)?;
        let length = below.length.clamp(1, left);
        // Holes below are no zeros here: what was never written decrypts to noise.
        let kind = match below.kind {
            ExtentKind::Lost(error) => ExtentKind::Lost(error.in_layer(self.name.clone())),
            _ => ExtentKind::Data,
        };
        Ok(Extent { offset, length, kind })
    }

    fn as_file(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn explain(&self, offset: u64) -> Result<Hop> {
        self.check_range(offset, 1).map_err(|error| error.in_layer(self.name.clone()))?;
        let step = format!("sector {}, decrypted with {}", offset / 512, self.cipher.spec());
        let next = Next::Disk(Arc::clone(&self.below), self.offset.saturating_add(offset));
        Ok(Hop { layer: self.name.clone(), offset, steps: vec![step], next })
    }
}
