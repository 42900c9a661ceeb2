//! All devices as one address space, every byte with all its copies.

use crate::chunk::{Chunk, Layout, Piece, Stripe};
use crate::layout::RawDevItem;
use crate::member::Member;
use crate::parity::Way;
use crate::superblock::{Superblock, uuid};
use adit_core::bytes::{narrow, wide};
use adit_core::{DiskExt, Error, Finding, Kind, Place, Problem, Result};
use std::sync::{Mutex, PoisonError};

/// Notes taken while reading are kept up to this number.
const NOTES_MAX: usize = 64;

/// The devices, the chunks, and what was noticed while reading them.
#[derive(Debug)]
pub(crate) struct Pool {
    pub superblock: Superblock,
    /// The devices that are here; the first is the one that was opened.
    pub members: Vec<Member>,
    /// Sorted by address, without overlaps.
    pub chunks: Vec<Chunk>,
    /// All devices the file system says it has.
    pub devices: Vec<RawDevItem>,
    notes: Mutex<Vec<Finding>>,
}

impl Pool {
    /// The devices, with no chunks yet.
    pub fn new(superblock: Superblock, members: Vec<Member>) -> Pool {
        let notes = members.iter().flat_map(|member| member.notes.clone()).collect();
        Pool {
            superblock,
            members,
            chunks: Vec::new(),
            devices: Vec::new(),
            notes: Mutex::new(notes),
        }
    }

    /// Keeps a note that came up while reading; every place once.
    pub fn note(&self, finding: Finding) {
        let mut notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        let known = |note: &Finding| note.code == finding.code && note.place == finding.place;
        if notes.len() < NOTES_MAX && !notes.iter().any(known) {
            notes.push(finding);
        }
    }

    /// What is worth saying so far.
    pub fn notes(&self) -> Vec<Finding> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes the chunks, which must not overlap.
    ///
    /// Errors: `Corrupt`.
    pub fn set_chunks(&mut self, mut chunks: Vec<Chunk>) -> Result<()> {
        chunks.sort_by_key(|chunk| chunk.logical);
        for pair in chunks.windows(2) {
            if let [a, b] = pair
                && a.end() > b.logical
            {
                let detail = format!("the chunks at {:#x} and {:#x}", a.logical, b.logical);
                return Err(Error::corrupt(Problem::Overlaps, detail)
                    .at(Place::new("chunk").index(b.logical)));
            }
        }
        self.chunks = chunks;
        Ok(())
    }

    /// First address behind all chunks.
    pub fn size(&self) -> u64 {
        self.chunks.last().map_or(0, Chunk::end)
    }

    /// The chunk that holds an address.
    ///
    /// Errors: `Corrupt` where there is none.
    pub fn chunk(&self, logical: u64) -> Result<&Chunk> {
        let index = self.chunks.partition_point(|chunk| chunk.logical <= logical);
        let chunk = index.checked_sub(1).and_then(|index| self.chunks.get(index));
        chunk.filter(|chunk| logical < chunk.end()).ok_or_else(|| {
            let detail = format!("no chunk holds address {logical:#x}");
            Error::corrupt(Problem::OutOfRange, detail).at(Place::new("chunk tree"))
        })
    }

    /// The device a stripe is on, if it is here.
    pub fn member(&self, stripe: &Stripe) -> Option<&Member> {
        self.members.iter().find(|member| member.superblock.raw.dev_uuid == stripe.uuid)
    }

    /// How many ways there are to the bytes at an address.
    pub fn ways(&self, logical: u64) -> Result<usize> {
        let chunk = self.chunk(logical)?;
        let count = chunk.stripes.len();
        Ok(match chunk.layout {
            Layout::Copies => count,
            Layout::Striped { copies } => narrow(copies.get()).unwrap_or(1),
            Layout::Parity(1) => 2,
            // Itself, by P, by Q, and by both without each of the others.
            Layout::Parity(_) => count,
        })
    }

    /// Reads by one way; the range may cross pieces and chunks.
    ///
    /// Errors: `Lost` where a device is missing or too short.
    pub fn read(&self, logical: u64, buf: &mut [u8], way: usize) -> Result<()> {
        let (mut at, mut rest) = (logical, buf);
        while !rest.is_empty() {
            let chunk = self.chunk(at)?;
            let piece = chunk.piece(at);
            let length = narrow(piece.length).map_or(rest.len(), |length| length.min(rest.len()));
            if length == 0 {
                return Err(Error::corrupt(Problem::BadValue, "a piece of no bytes"));
            }
            let (now, later) = rest.split_at_mut(length);
            self.read_piece(chunk, &piece, now, way)?;
            at = at.saturating_add(wide(length));
            rest = later;
        }
        Ok(())
    }

    fn read_piece(&self, chunk: &Chunk, piece: &Piece, buf: &mut [u8], way: usize) -> Result<()> {
        if let Some((stripe, physical)) = piece.copies.get(way) {
            return self.read_stripe(chunk, *stripe, buf, *physical);
        }
        let parity = match chunk.layout {
            Layout::Parity(parity) => narrow(parity).unwrap_or(0),
            _ => 0,
        };
        let data = piece.row.len().saturating_sub(parity);
        let mut ways = vec![Way::P];
        if parity == 2 {
            ways.push(Way::Q);
            ways.extend((0..data).filter(|at| *at != piece.index).map(Way::Both));
        }
        let way = way.checked_sub(1).filter(|_| parity > 0).and_then(|way| ways.get(way));
        let Some(way) = way else {
            return Err(Error::lost("there is no further copy"));
        };
        let mut blocks = Vec::new();
        for at in way.needs(data, piece.index) {
            let Some((stripe, physical)) = piece.row.get(at) else {
                return Err(Error::lost("there is no such parity"));
            };
            let mut block = vec![0; buf.len()];
            self.read_stripe(chunk, *stripe, &mut block, *physical)?;
            blocks.push((at, block));
        }
        let rebuilt = way.rebuild(data, piece.index, &blocks);
        buf.iter_mut().zip(rebuilt).for_each(|(to, from)| *to = from);
        Ok(())
    }

    fn read_stripe(&self, chunk: &Chunk, stripe: usize, buf: &mut [u8], at: u64) -> Result<()> {
        let Some(stripe) = chunk.stripes.get(stripe) else {
            return Err(Error::corrupt(Problem::OutOfRange, "a chunk lacks a stripe"));
        };
        let member = self.member(stripe).ok_or_else(|| missing(stripe.devid, &stripe.uuid))?;
        let end = at.saturating_add(wide(buf.len()));
        let size = member.disk.size_bytes();
        if end > size {
            let detail = format!("{} ends at {size:#x}, before {end:#x}", member.label);
            return Err(Error::new(Kind::Lost, Problem::Truncated, detail)
                .advise("get a complete copy of the device"));
        }
        member.disk.read_at(buf, at).map_err(|error| error.in_layer(member.label.clone()))
    }

    /// The error of the first way to bytes that no way leads to, if no device that holds them is
    /// here; nothing where a read is worth trying.
    pub fn lost(&self, chunk: &Chunk, piece: &Piece) -> Option<Error> {
        let here = |(stripe, _): &(usize, u64)| {
            chunk.stripes.get(*stripe).is_some_and(|stripe| self.member(stripe).is_some())
        };
        if piece.copies.iter().any(here) {
            return None;
        }
        let gone = piece.row.iter().filter(|place| !here(place)).count();
        if let Layout::Parity(parity) = chunk.layout
            && wide(gone) <= parity
        {
            return None;
        }
        let first = piece.copies.first().and_then(|(stripe, _)| chunk.stripes.get(*stripe))?;
        Some(missing(first.devid, &first.uuid))
    }
}

/// The error for what only a missing device holds.
pub(crate) fn missing(devid: u64, identity: &[u8; 16]) -> Error {
    Error::lost(format!("device {devid} ({}) is missing", uuid(identity)))
        .advise("name it with `--member IMAGE`")
}
