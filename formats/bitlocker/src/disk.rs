//! The plain text of an unlocked volume.

use crate::sectors::Sectors;
use adit_core::bytes::{narrow, wide};
use adit_core::{
    Disk, DiskExt, Error, Extent, ExtentKind, Geometry, Hop, Next, Place, Problem, ReadRequest,
    Result, read_each,
};
use std::os::fd::BorrowedFd;
use std::sync::Arc;

/// A piece of the plain disk.
#[derive(Debug, Clone)]
pub(crate) struct Segment {
    pub start: u64,
    pub end: u64,
    pub source: Source,
}

/// Where the bytes of a piece come from.
#[derive(Debug, Clone)]
pub(crate) enum Source {
    /// BitLocker's own place; the file system does not use it.
    Zero,
    /// As they stand below, from that byte on.
    Clear(u64),
    /// Encrypted below, from that byte on.
    Cipher(u64),
    /// These.
    Bytes(Arc<[u8]>),
}

/// A volume that was unlocked. Reads decrypt whole sectors in the reader's buffer.
pub(crate) struct Plain {
    name: String,
    below: Arc<dyn Disk>,
    sectors: Option<Sectors>,
    segments: Vec<Segment>,
}

impl std::fmt::Debug for Plain {
    /// Without the key.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Plain({}, {} segments)", self.name, self.segments.len())
    }
}

impl Plain {
    pub fn open(
        name: String,
        below: Arc<dyn Disk>,
        sectors: Option<Sectors>,
        segments: Vec<Segment>,
    ) -> Result<Arc<dyn Disk>> {
        Ok(Arc::new(Plain { name, below, sectors, segments }))
    }

    fn segment(&self, offset: u64) -> Result<&Segment> {
        let at = self.segments.partition_point(|segment| segment.end <= offset);
        self.segments.get(at).filter(|segment| segment.start <= offset).ok_or_else(|| {
            Error::invalid(Problem::OutOfRange, format!("byte {offset} is in no piece"))
        })
    }

    fn read(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let (mut at, mut rest) = (offset, buf);
        while !rest.is_empty() {
            let segment = self.segment(at)?;
            let left = narrow(segment.end.saturating_sub(at)).unwrap_or(usize::MAX);
            let (now, later) = rest.split_at_mut(left.min(rest.len()));
            let within = at.saturating_sub(segment.start);
            match &segment.source {
                Source::Zero => now.fill(0),
                Source::Clear(from) => self.below.read_at(now, from.saturating_add(within))?,
                Source::Cipher(from) => self.decrypted(now, from.saturating_add(within))?,
                Source::Bytes(bytes) => {
                    let from = narrow(within).unwrap_or(usize::MAX);
                    let bytes = bytes.get(from..from.saturating_add(now.len()));
                    now.copy_from_slice(bytes.ok_or_else(|| {
                        Error::invalid(Problem::OutOfRange, "the read leaves its piece")
                    })?);
                }
            }
            at = at.saturating_add(wide(now.len()));
            rest = later;
        }
        Ok(())
    }

    /// Encrypted bytes from byte `at` below; parts of sectors by way of the stack.
    fn decrypted(&self, buf: &mut [u8], at: u64) -> Result<()> {
        let Some(sectors) = &self.sectors else {
            return Err(Error::invalid(Problem::BadValue, "no key for an encrypted piece"));
        };
        let length = u64::from(sectors.sector_bytes()).max(512);
        let past = |at: u64| at.checked_rem(length).unwrap_or(0);
        let (mut at, mut rest) = (at, buf);
        while !rest.is_empty() {
            let within = past(at);
            let whole = wide(rest.len()).saturating_sub(past(wide(rest.len())));
            let take = if within == 0 && whole > 0 {
                whole
            } else {
                length.saturating_sub(within).min(wide(rest.len()))
            };
            let (now, later) =
                rest.split_at_mut(narrow(take).unwrap_or(rest.len()).min(rest.len()));
            if within == 0 && whole > 0 {
                self.below.read_at(now, at)?;
                sectors.decrypt(at, now);
            } else {
                let mut room = [0u8; 4096];
                let sector = room.get_mut(..narrow(length).unwrap_or(512)).unwrap_or_default();
                let start = at.saturating_sub(within);
                self.below.read_at(sector, start)?;
                sectors.decrypt(start, sector);
                let from = narrow(within).unwrap_or(0);
                let part = sector.get(from..from.saturating_add(now.len()));
                now.copy_from_slice(part.ok_or_else(|| {
                    Error::invalid(Problem::OutOfRange, "the read leaves its sector")
                })?);
            }
            at = at.saturating_add(take);
            rest = later;
        }
        Ok(())
    }
}

impl Disk for Plain {
    fn geometry(&self) -> Geometry {
        self.below.geometry()
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
        let segment = self.segment(offset)?;
        let left = segment.end.saturating_sub(offset);
        let within = offset.saturating_sub(segment.start);
        let (from, clear) = match &segment.source {
            Source::Zero => {
                return Ok(Extent { offset, length: left, kind: ExtentKind::Zero });
            }
            Source::Bytes(_) => {
                return Ok(Extent { offset, length: left, kind: ExtentKind::Data });
            }
            Source::Clear(from) => (from, true),
            Source::Cipher(from) => (from, false),
        };
        let at = from.saturating_add(within);
        if clear {
            let disk = Arc::clone(&self.below);
            let kind = ExtentKind::Verbatim { disk, offset: at };
            return Ok(Extent { offset, length: left, kind });
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
        let segment = self.segment(offset)?;
        let within = offset.saturating_sub(segment.start);
        let below = |from: u64| Next::Disk(Arc::clone(&self.below), from.saturating_add(within));
        let (step, next) = match &segment.source {
            Source::Zero => ("BitLocker's own area, zeros to the file system", Next::Zero),
            Source::Bytes(_) => ("boot sector as it was before encryption", below(0)),
            Source::Clear(from) => ("not encrypted", below(*from)),
            Source::Cipher(from) => ("decrypted by sectors", below(*from)),
        };
        let place = Place::new(step).byte(offset).to_string();
        Ok(Hop { layer: self.name.clone(), offset, steps: vec![place], next })
    }
}
