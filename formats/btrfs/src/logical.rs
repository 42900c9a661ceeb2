//! The address space as a disk: every read is verified, and other copies are tried.

use crate::chunk::{Chunk, Piece};
use crate::sums::Sums;
use crate::volume::Btrfs;
use adit_core::bytes::{narrow, wide};
use adit_core::{
    Disk, DiskExt, Error, Extent, ExtentKind, Geometry, Hop, Kind, Next, Place, Problem,
    ReadRequest, Result, read_each,
};
use std::os::fd::BorrowedFd;
use std::sync::Arc;

/// Read and verified at once. Unit: bytes.
const WINDOW: usize = 1 << 20;

/// The address space of data.
#[derive(Debug)]
pub(crate) struct Logical {
    pub fs: Arc<Btrfs>,
    /// Whether what it holds has checksums.
    pub verified: bool,
}

impl Logical {
    fn sector(&self) -> usize {
        narrow(self.fs.superblock().sector_size.get()).unwrap_or(4096)
    }

    /// Reads whole sectors, at most a window.
    fn read_sectors(&self, buf: &mut [u8], at: u64) -> Result<()> {
        let pool = &self.fs.forest.pool;
        let count = buf.len().checked_div(self.sector()).unwrap_or(0);
        let sums = match self.verified {
            true => Some(self.fs.data_sums(at, count)?),
            false => None,
        };
        let (mut address, mut rest, mut first) = (at, buf, 0usize);
        while !rest.is_empty() {
            let chunk = pool.chunk(address)?;
            let piece = chunk.piece(address);
            let length = narrow(piece.length).map_or(rest.len(), |length| length.min(rest.len()));
            let (now, later) = rest.split_at_mut(length);
            match &sums {
                Some(sums) => self.read_verified(now, address, sums, first)?,
                None => self.read_unverified(now, address)?,
            }
            first = first.saturating_add(length.checked_div(self.sector()).unwrap_or(0));
            address = address.saturating_add(wide(length));
            rest = later;
            if length == 0 {
                return Err(Error::corrupt(Problem::BadValue, "a piece of no bytes"));
            }
        }
        Ok(())
    }

    fn read_unverified(&self, buf: &mut [u8], at: u64) -> Result<()> {
        let mut first_error = None;
        for way in 0..self.fs.forest.pool.ways(at)? {
            match self.fs.forest.pool.read(at, buf, way) {
                Ok(()) => return Ok(()),
                Err(error) => first_error = first_error.or(Some(error)),
            }
        }
        let error = first_error.unwrap_or_else(|| Error::lost("there is no copy"));
        Err(error.at(Place::new("data").byte(at)))
    }

    /// Reads one piece; `first` is the number of its first sector among the checksums.
    fn read_verified(&self, buf: &mut [u8], at: u64, sums: &Sums, first: usize) -> Result<()> {
        let pool = &self.fs.forest.pool;
        let sector = self.sector();
        let count = buf.len().checked_div(sector).unwrap_or(0);
        let mut good = vec![false; count];
        let mut other = Vec::new();
        let mut first_error: Option<Error> = None;
        for way in 0..pool.ways(at)? {
            let read = if way == 0 {
                pool.read(at, buf, way)
            } else {
                other.resize(buf.len(), 0);
                pool.read(at, &mut other, way)
            };
            if let Err(error) = read {
                first_error = first_error.or(Some(error));
                continue;
            }
            for (number, slot) in buf.chunks_exact_mut(sector).enumerate() {
                let is_good = good.get(number).copied().unwrap_or(true);
                let from = number.saturating_mul(sector);
                let candidate = other.get(from..from.saturating_add(sector)).unwrap_or(&[]);
                if is_good {
                    continue;
                }
                let address = at.saturating_add(wide(from));
                let bytes = if way == 0 { &*slot } else { candidate };
                match self.matches(bytes, sums.of(first.saturating_add(number)), address) {
                    Ok(()) => {
                        if way > 0 {
                            slot.copy_from_slice(candidate);
                        }
                        good.get_mut(number).into_iter().for_each(|good| *good = true);
                    }
                    Err(error) => first_error = first_error.or(Some(error)),
                }
            }
            if good.iter().all(|good| *good) {
                if let Some(error) = &first_error {
                    self.fs.forest.note_copy(error, "data", at);
                }
                return Ok(());
            }
        }
        let error = first_error.unwrap_or_else(|| Error::lost("there is no copy"));
        Err(match error.problem() {
            Problem::BadChecksum => {
                let place = error.place().cloned().unwrap_or_default();
                Error::new(Kind::Lost, Problem::BadChecksum, error.detail().to_owned())
                    .at(place)
                    .advise("`adit check` lists every damaged place; restore the file")
            }
            _ => error.at(Place::new("data").byte(at)),
        })
    }

    fn matches(&self, bytes: &[u8], sum: Option<&[u8]>, address: u64) -> Result<()> {
        let place = || Place::new("data").byte(address);
        let checksum = self.fs.superblock().checksum;
        let Some(sum) = sum else {
            let detail = "there is no checksum of data that must have one";
            return Err(Error::corrupt(Problem::Missing, detail).at(place()));
        };
        if checksum.matches(bytes, sum) {
            return Ok(());
        }
        let detail = format!("no copy matches its {}{}", checksum.word(), self.where_is(address));
        Err(Error::corrupt(Problem::BadChecksum, detail).at(place()))
    }

    /// The first place of an address, in words.
    fn where_is(&self, address: u64) -> String {
        let Ok(chunk) = self.fs.forest.pool.chunk(address) else { return String::new() };
        let piece = chunk.piece(address);
        let first = piece.copies.first().and_then(|(index, physical)| {
            chunk.stripes.get(*index).map(|stripe| (stripe.devid, *physical))
        });
        first.map_or(String::new(), |(devid, physical)| {
            format!("; the first is on device {devid} at byte {physical:#x}")
        })
    }

    fn piece(&self, offset: u64) -> Result<(&Chunk, Piece)> {
        let chunk = self.fs.forest.pool.chunk(offset)?;
        Ok((chunk, chunk.piece(offset)))
    }
}

impl Disk for Logical {
    fn geometry(&self) -> Geometry {
        Geometry::of_size(self.fs.forest.pool.size())
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.check_range(offset, wide(buf.len()))?;
        let sector = self.sector();
        let unit = self.fs.superblock().sector_size;
        let (mut at, mut rest) = (offset, buf);
        while !rest.is_empty() {
            let within = narrow(at % unit).unwrap_or(0);
            let length = if within != 0 || rest.len() < sector {
                rest.len().min(sector.saturating_sub(within))
            } else {
                let window = rest.len().min(WINDOW);
                window.saturating_sub(window % unit_of(sector))
            };
            let (now, later) = rest.split_at_mut(length);
            if length.checked_rem(sector) == Some(0) && within == 0 {
                self.read_sectors(now, at)?;
            } else {
                let mut whole = vec![0; sector];
                self.read_sectors(&mut whole, at.saturating_sub(wide(within)))?;
                let part = whole.get(within..).unwrap_or(&[]);
                now.iter_mut().zip(part).for_each(|(to, from)| *to = *from);
            }
            at = at.saturating_add(wide(length));
            rest = later;
        }
        Ok(())
    }

    fn read_batch(&self, batch: &mut [ReadRequest<'_>]) -> Result<()> {
        read_each(self, batch)
    }

    fn extent_at(&self, offset: u64) -> Result<Extent> {
        self.check_range(offset, 1)?;
        let (chunk, piece) = match self.piece(offset) {
            Ok(found) => found,
            Err(error) => {
                let next = self.fs.forest.pool.chunks.iter().map(|chunk| chunk.logical);
                let next = next.filter(|start| *start > offset).min();
                let end = next.unwrap_or_else(|| self.size_bytes());
                let length = end.saturating_sub(offset).max(1);
                return Ok(Extent { offset, length, kind: ExtentKind::Lost(error) });
            }
        };
        let kind = match self.fs.forest.pool.lost(chunk, &piece) {
            Some(error) => ExtentKind::Lost(error.at(Place::new("data").byte(offset))),
            None => ExtentKind::Data,
        };
        Ok(Extent { offset, length: piece.length.max(1), kind })
    }

    fn as_file(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn explain(&self, offset: u64) -> Result<Hop> {
        let (chunk, piece) = self.piece(offset)?;
        let mut steps = vec![format!(
            "chunk {:#x}, {} bytes of {}, {}",
            chunk.logical,
            chunk.length,
            chunk.contents(),
            chunk.profile()
        )];
        let mut next = Next::Here;
        for (index, physical) in &piece.copies {
            let Some(stripe) = chunk.stripes.get(*index) else { continue };
            let member = self.fs.forest.pool.member(stripe);
            let name = member.map_or("missing", |member| member.label.as_str());
            steps.push(format!("device {} ({name}), byte {physical:#x}", stripe.devid));
            if let (Next::Here, Some(member)) = (&next, member) {
                next = Next::Disk(Arc::clone(&member.disk), *physical);
            }
        }
        if let Some(error) = self.fs.forest.pool.lost(chunk, &piece) {
            next = Next::Lost(error);
        }
        Ok(Hop { layer: "btrfs address space".into(), offset, steps, next })
    }
}

fn unit_of(sector: usize) -> std::num::NonZeroUsize {
    std::num::NonZeroUsize::new(sector).unwrap_or(std::num::NonZeroUsize::MIN)
}
