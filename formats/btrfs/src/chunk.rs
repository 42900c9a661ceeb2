//! Chunks: from addresses to places on devices, profile by profile.

use crate::layout::{RawChunk, RawStripe, group};
use adit_core::bytes::wide;
use adit_core::{Error, Place, Problem, Result};
use std::num::NonZeroU64;

/// Most stripes with parity that are read: finding out which of them is wrong takes the square
/// of their number.
const PARITY_STRIPES_MAX: usize = 64;

/// How a chunk is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Layout {
    /// Every stripe holds all of it.
    Copies,
    /// Striped; each piece stands in so many stripes side by side.
    Striped {
        /// Copies of each piece.
        copies: NonZeroU64,
    },
    /// Striped, with so many stripes of each row for parity.
    Parity(u64),
}

/// A chunk's place on a device.
#[derive(Clone, Debug)]
pub(crate) struct Stripe {
    /// Number of the device.
    pub devid: u64,
    /// First byte on the device.
    pub offset: u64,
    /// Identity of the device.
    pub uuid: [u8; 16],
}

/// A piece of the address space, and where its bytes are. Units: bytes.
#[derive(Clone, Debug)]
pub(crate) struct Piece {
    /// For how many bytes the answer holds.
    pub length: u64,
    /// Stripe and byte on its device, copy by copy.
    pub copies: Vec<(usize, u64)>,
    /// The row the piece is in, where there is parity: data first, then parity.
    pub row: Vec<(usize, u64)>,
    /// Which of the row it is.
    pub index: usize,
}

/// A range of the address space.
#[derive(Clone, Debug)]
pub struct Chunk {
    /// First byte.
    pub(crate) logical: u64,
    /// Number of bytes.
    pub(crate) length: u64,
    /// What it holds and how it is laid out.
    pub(crate) kind: u64,
    pub(crate) layout: Layout,
    pub(crate) stripe_len: NonZeroU64,
    pub(crate) stripes: Vec<Stripe>,
}

impl Chunk {
    /// Checks a chunk item.
    ///
    /// Errors: `Corrupt`; `Unsupported` for layouts that are not known.
    pub(crate) fn parse(logical: u64, bytes: &[u8]) -> Result<Chunk> {
        let at = |field: &'static str| Place::new("chunk").index(logical).field(field);
        let raw = RawChunk::read(bytes).map_err(|error| error.at(at("length")))?;
        let bad =
            |field, detail: String| Err(Error::corrupt(Problem::BadValue, detail).at(at(field)));
        if raw.length == 0 || logical.checked_add(raw.length).is_none() {
            return bad("length", format!("{} bytes", raw.length));
        }
        let stripe_len = match NonZeroU64::new(raw.stripe_len) {
            Some(length) if length.is_power_of_two() && raw.stripe_len <= 1 << 30 => length,
            _ => return bad("stripe_len", format!("pieces of {} bytes", raw.stripe_len)),
        };
        let rest = bytes.get(RawChunk::SIZE..).unwrap_or(&[]);
        let count = usize::from(raw.num_stripes);
        if count == 0 || rest.len() / RawStripe::SIZE < count {
            return bad("num_stripes", format!("{count} stripes in {} bytes", rest.len()));
        }
        let mut stripes = Vec::with_capacity(count);
        for stripe in rest.chunks_exact(RawStripe::SIZE).take(count) {
            let stripe = RawStripe::read(stripe)?;
            let (devid, offset, uuid) = (stripe.devid, stripe.offset, stripe.dev_uuid);
            if offset.checked_add(raw.length).is_none() {
                return bad("stripe", format!("a stripe at {offset:#x}"));
            }
            stripes.push(Stripe { devid, offset, uuid });
        }
        let layout = layout(&raw, count).map_err(|error| error.at(at("type")))?;
        Ok(Chunk { logical, length: raw.length, kind: raw.kind, layout, stripe_len, stripes })
    }

    /// First address behind it.
    pub(crate) fn end(&self) -> u64 {
        self.logical.saturating_add(self.length)
    }

    /// Its profile as mkfs.btrfs names it.
    pub(crate) fn profile(&self) -> &'static str {
        match self.kind & group::PROFILES {
            0 => "single",
            group::RAID0 => "raid0",
            group::RAID1 => "raid1",
            group::DUP => "dup",
            group::RAID10 => "raid10",
            group::RAID5 => "raid5",
            group::RAID6 => "raid6",
            group::RAID1C3 => "raid1c3",
            group::RAID1C4 => "raid1c4",
            _ => "unknown",
        }
    }

    /// What it holds, in words.
    pub(crate) fn contents(&self) -> &'static str {
        let bits = self.kind & (group::DATA | group::SYSTEM | group::METADATA);
        match bits {
            group::DATA => "data",
            group::SYSTEM => "system",
            group::METADATA => "metadata",
            _ => "data and metadata",
        }
    }

    /// How many stripes hold what a row of pieces holds.
    fn columns(&self) -> NonZeroU64 {
        let count = wide(self.stripes.len());
        let columns = match self.layout {
            Layout::Copies => 1,
            Layout::Striped { copies } => count / copies,
            Layout::Parity(parity) => count.saturating_sub(parity),
        };
        NonZeroU64::new(columns).unwrap_or(NonZeroU64::MIN)
    }

    /// Bytes of each device it takes.
    pub(crate) fn stripe_bytes(&self) -> u64 {
        self.length / self.columns()
    }

    /// Bytes on devices for each byte of data: over, under.
    pub(crate) fn cost(&self) -> (u64, u64) {
        (wide(self.stripes.len()), self.columns().get())
    }

    /// Where the bytes from address `logical` on are.
    pub(crate) fn piece(&self, logical: u64) -> Piece {
        let offset = logical.saturating_sub(self.logical);
        let left = self.length.saturating_sub(offset);
        let within = offset % self.stripe_len;
        let number = offset / self.stripe_len;
        let columns = self.columns();
        let (row, column) = (number / columns, number % columns);
        let down = row.saturating_mul(self.stripe_len.get()).saturating_add(within);
        let place = |index: u64, down: u64| {
            let index = usize::try_from(index).unwrap_or(usize::MAX);
            let offset = self.stripes.get(index).map_or(u64::MAX, |stripe| stripe.offset);
            (index, offset.saturating_add(down))
        };
        let length = left.min(self.stripe_len.get().saturating_sub(within));
        match self.layout {
            Layout::Copies => {
                let all = 0..wide(self.stripes.len());
                let copies = all.map(|index| place(index, offset)).collect();
                Piece { length: left, copies, row: Vec::new(), index: 0 }
            }
            Layout::Striped { copies } => {
                let first = column.saturating_mul(copies.get());
                let all = first..first.saturating_add(copies.get());
                let copies = all.map(|index| place(index, down)).collect();
                Piece { length, copies, row: Vec::new(), index: 0 }
            }
            Layout::Parity(_) => {
                // The columns move on by one device with every row; parity comes last.
                let count = NonZeroU64::new(wide(self.stripes.len())).unwrap_or(NonZeroU64::MIN);
                let turned = |column: u64| place(row.saturating_add(column) % count, down);
                let members: Vec<_> = (0..count.get()).map(turned).collect();
                let index = usize::try_from(column).unwrap_or(usize::MAX);
                let copies = members.get(index).copied().into_iter().collect();
                Piece { length, copies, row: members, index }
            }
        }
    }

    /// Whether everything can still be read without some stripes.
    pub(crate) fn survives(&self, missing: impl Fn(&Stripe) -> bool) -> bool {
        let gone = |stripes: &[Stripe]| stripes.iter().filter(|stripe| missing(stripe)).count();
        match self.layout {
            Layout::Copies => gone(&self.stripes) < self.stripes.len(),
            Layout::Striped { copies } => {
                let copies = usize::try_from(copies.get()).unwrap_or(1).max(1);
                self.stripes.chunks(copies).all(|group| gone(group) < copies)
            }
            Layout::Parity(parity) => wide(gone(&self.stripes)) <= parity,
        }
    }
}

fn layout(raw: &RawChunk, count: usize) -> Result<Layout> {
    let profile = raw.kind & group::PROFILES;
    let bad = || {
        let detail =
            format!("{count} stripes, {} of them copies, in {profile:#x}", raw.sub_stripes);
        Err(Error::corrupt(Problem::BadValue, detail))
    };
    if raw.kind & !(group::PROFILES | group::DATA | group::SYSTEM | group::METADATA) != 0 {
        return Err(Error::unsupported(format!("a chunk of type {:#x}", raw.kind)));
    }
    Ok(match profile {
        0 if count == 1 => Layout::Copies,
        group::DUP if count == 2 => Layout::Copies,
        group::RAID1 if count == 2 => Layout::Copies,
        group::RAID1C3 if count == 3 => Layout::Copies,
        group::RAID1C4 if count == 4 => Layout::Copies,
        group::RAID0 => Layout::Striped { copies: NonZeroU64::MIN },
        group::RAID10 => {
            let copies = NonZeroU64::new(raw.sub_stripes.into());
            match copies.filter(|copies| copies.get() <= 4 && wide(count) % *copies == 0) {
                Some(copies) => Layout::Striped { copies },
                None => return bad(),
            }
        }
        group::RAID5 | group::RAID6 if count > PARITY_STRIPES_MAX => {
            return Err(Error::unsupported(format!("parity over {count} stripes")));
        }
        group::RAID5 if count >= 2 => Layout::Parity(1),
        group::RAID6 if count >= 3 => Layout::Parity(2),
        _ => return bad(),
    })
}

/// The chunks of the array in the superblock.
///
/// Errors: `Corrupt`.
pub(crate) fn system_chunks(array: &[u8]) -> Result<Vec<Chunk>> {
    use crate::key::{KEY_BYTES, Key};
    let at = || Place::new("superblock").field("sys_chunk_array");
    let cut = || Error::corrupt(Problem::Truncated, "its chunks are cut off").at(at());
    let mut chunks = Vec::new();
    let mut rest = array;
    while !rest.is_empty() {
        let key = Key::read(rest, 0).ok_or_else(cut)?;
        let body = rest.get(KEY_BYTES..).ok_or_else(cut)?;
        if key.kind != crate::layout::item::CHUNK_ITEM {
            let detail = format!("an item {key} among its chunks");
            return Err(Error::corrupt(Problem::BadValue, detail).at(at()));
        }
        let raw = RawChunk::read(body).map_err(|_| cut())?;
        let stripes = usize::from(raw.num_stripes).saturating_mul(RawStripe::SIZE);
        let length = RawChunk::SIZE.saturating_add(stripes);
        let item = body.get(..length).ok_or_else(cut)?;
        chunks.push(Chunk::parse(key.offset, item)?);
        rest = body.get(length..).unwrap_or(&[]);
    }
    Ok(chunks)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(kind: u64, count: u16, sub: u16) -> Chunk {
        let mut bytes = vec![0; RawChunk::SIZE];
        let raw = RawChunk {
            length: 12 << 20,
            owner: 2,
            stripe_len: 65536,
            kind,
            io_align: 0,
            io_width: 0,
            sector_size: 4096,
            num_stripes: count,
            sub_stripes: sub,
        };
        raw.write(&mut bytes).unwrap();
        for devid in 1..=u64::from(count) {
            let mut stripe = vec![0; 32];
            let raw = RawStripe { devid, offset: devid << 30, dev_uuid: [0; 16] };
            raw.write(&mut stripe).unwrap();
            bytes.extend(stripe);
        }
        Chunk::parse(1 << 40, &bytes).unwrap()
    }

    #[test]
    fn raid10_puts_pairs_side_by_side() {
        let chunk = chunk(group::DATA | group::RAID10, 4, 2);
        let piece = chunk.piece((1 << 40) + 3 * 65536 + 10);
        assert_eq!(piece.length, 65526);
        assert_eq!(piece.copies, [(2, (3 << 30) + 65546), (3, (4 << 30) + 65546)]);
        assert!(chunk.survives(|stripe| stripe.devid % 2 == 0));
        assert!(!chunk.survives(|stripe| stripe.devid <= 2));
    }

    #[test]
    fn raid6_moves_on_by_a_device_with_every_row() {
        let chunk = chunk(group::DATA | group::RAID6, 5, 1);
        // Three columns of data: piece 7 is row 2, column 1.
        let piece = chunk.piece((1 << 40) + 7 * 65536);
        assert_eq!(piece.copies, [(3, (4 << 30) + 2 * 65536)]);
        let stripes: Vec<usize> = piece.row.iter().map(|(index, _)| *index).collect();
        assert_eq!((stripes, piece.index), (vec![2, 3, 4, 0, 1], 1));
    }
}
