//! Files packed by zisofs: blocks of zlib behind a table of where each starts.

use crate::rockridge::Packed;
use adit_core::bytes::{narrow, u32_le, u64_le};
use adit_core::{
    Disk, DiskExt, Error, ExtentMap, Geometry, Limits, Mapped, Place, Problem, Result, Run,
    RunKind, TableCache,
};
use std::sync::Arc;

const MAGIC_1: [u8; 8] = [0x37, 0xe4, 0x53, 0x96, 0xc9, 0xdb, 0xd6, 0x07];
const MAGIC_2: [u8; 8] = [0xef, 0x22, 0x55, 0xa1, 0xbc, 0x1b, 0x95, 0xa0];
/// Smallest and largest block. Unit: bytes, as powers of two.
const BLOCK_SHIFTS: std::ops::RangeInclusive<u8> = 15..=20;
/// Part of the table that is read at once. Unit: bytes.
const TABLE_PART: u64 = 4096;

/// The map behind an open file that is packed.
#[derive(Debug)]
pub struct ZisofsMap {
    stored: Arc<dyn Disk>,
    size: u64,
    block: u64,
    header: u64,
    /// Length of an entry of the table. Unit: bytes.
    pointer: u64,
    cache: TableCache<u64>,
}

/// A packed file as the disk of what it holds.
///
/// Errors: `Corrupt` where its header is not what the directory says; `Unsupported` for other
/// packings than zlib.
pub(crate) fn open(
    stored: Arc<dyn Disk>,
    packed: &Packed,
    limits: &Limits,
) -> Result<Arc<dyn Disk>> {
    let place = || Place::new("zisofs header");
    let head = stored.read_prefix(0, 24)?;
    let bad = |problem, detail: &str| Error::corrupt(problem, detail).at(place());
    let (size, shift, header, pointer) = match &packed.algorithm {
        b"pz" if head.starts_with(&MAGIC_1) => {
            let size = u32_le(&head, 8).map(u64::from);
            (size, head.get(13), head.get(12), 4)
        }
        b"PZ" if head.starts_with(&MAGIC_2) => {
            if let Some(algorithm) = head.get(10).filter(|algorithm| **algorithm != 1) {
                let detail = format!("packed by algorithm {algorithm} of zisofs, not by zlib");
                return Err(Error::unsupported(detail).at(place()));
            }
            (u64_le(&head, 12), head.get(11), head.get(9), 8)
        }
        b"pz" | b"PZ" => {
            return Err(bad(Problem::BadMagic, "is not there, though the directory says so"));
        }
        other => {
            let detail =
                format!("files packed as {:?} are not read", String::from_utf8_lossy(other));
            return Err(Error::unsupported(detail).at(place()));
        }
    };
    let header = header.map(|words| u64::from(*words).saturating_mul(4));
    let same = size == Some(packed.size)
        && shift == Some(&packed.block_shift)
        && header == Some(packed.header_bytes);
    if !same {
        return Err(bad(Problem::Mismatch, "is not what the directory says of the file"));
    }
    if !BLOCK_SHIFTS.contains(&packed.block_shift) {
        return Err(bad(Problem::OutOfRange, "names a block size that cannot be"));
    }
    let block = 1u64.checked_shl(packed.block_shift.into()).unwrap_or(1 << 15);
    let map = ZisofsMap {
        stored,
        size: packed.size,
        block,
        header: packed.header_bytes,
        pointer,
        cache: TableCache::new(limits),
    };
    let table = packed.size.div_ceil(block).saturating_add(1).saturating_mul(pointer);
    if map.header.saturating_add(table) > map.stored.size_bytes() && packed.size > 0 {
        return Err(bad(Problem::Truncated, "promises more blocks than the file can hold"));
    }
    Ok(Arc::new(Mapped::new(map)))
}

impl ZisofsMap {
    /// Where a block starts in the packed file.
    fn start_of(&self, block: u64) -> Result<u64> {
        let at = self.header.saturating_add(block.saturating_mul(self.pointer));
        let (part, within) = (at / TABLE_PART, at % TABLE_PART);
        // A part of the table overlaps the next by one entry.
        let bytes = self.cache.load(part, || {
            let length = narrow(TABLE_PART.saturating_add(8)).unwrap_or(0);
            self.stored.read_prefix(part.saturating_mul(TABLE_PART), length)
        })?;
        let within = narrow(within).unwrap_or(usize::MAX);
        let value = match self.pointer {
            4 => u32_le(&bytes, within).map(u64::from),
            _ => u64_le(&bytes, within),
        };
        value.ok_or_else(|| {
            let place = Place::new("zisofs table").index(block);
            Error::corrupt(Problem::Truncated, "ends early").at(place)
        })
    }

    /// Where a block stands in the packed file; nothing for one of zeros.
    fn stored_at(&self, block: u64) -> Result<Option<(u64, u64)>> {
        let (start, end) = (self.start_of(block)?, self.start_of(block.saturating_add(1))?);
        let length = end.checked_sub(start);
        // What zlib makes of noise is hardly longer than the noise.
        let most = self.block.saturating_mul(2).saturating_add(4096);
        match length.filter(|length| *length <= most && end <= self.stored.size_bytes()) {
            Some(0) => Ok(None),
            Some(length) => Ok(Some((start, length))),
            None => {
                let detail = format!("block from {start:#x} to {end:#x} cannot be");
                let place = Place::new("zisofs table").index(block);
                Err(Error::corrupt(Problem::OutOfRange, detail).at(place))
            }
        }
    }
}

impl ExtentMap for ZisofsMap {
    fn geometry(&self) -> Geometry {
        Geometry::of_size(self.size)
    }

    fn lookup(&self, offset: u64, _at_most: u64) -> Result<Run> {
        let block = offset.checked_div(self.block).unwrap_or(0);
        let start = block.saturating_mul(self.block);
        let length = self.size.saturating_sub(start).min(self.block);
        let kind = match self.stored_at(block) {
            Ok(Some(_)) => RunKind::Encoded { token: block },
            Ok(None) => RunKind::Hole,
            Err(error) => RunKind::Lost(error),
        };
        Ok(Run { start, length, kind })
    }

    fn source(&self, index: usize) -> Option<&Arc<dyn Disk>> {
        (index == 0).then_some(&self.stored)
    }

    fn parent(&self) -> Option<&Arc<dyn Disk>> {
        None
    }

    fn decode(&self, run: &Run, buf: &mut [u8]) -> Result<()> {
        let RunKind::Encoded { token } = run.kind else {
            return Err(Error::unsupported("only packed blocks are encoded"));
        };
        let place = || Place::new("zisofs block").index(token);
        let Some((start, length)) = self.stored_at(token)? else {
            buf.fill(0);
            return Ok(());
        };
        let packed = self.stored.read_vec(start, narrow(length).unwrap_or(0))?;
        let mut inflate = flate2::Decompress::new(true);
        let done = inflate.decompress(&packed, buf, flate2::FlushDecompress::Finish);
        let filled = usize::try_from(inflate.total_out()) == Ok(buf.len());
        match done {
            Ok(flate2::Status::StreamEnd) if filled => Ok(()),
            Ok(_) => {
                let detail = format!("unpacks to another length than {} bytes", buf.len());
                Err(Error::corrupt(Problem::Mismatch, detail).at(place()))
            }
            Err(error) => {
                let detail = format!("cannot be unpacked: {error}");
                Err(Error::corrupt(Problem::BadChecksum, detail).at(place()))
            }
        }
    }

    fn name(&self) -> String {
        "zisofs file".to_owned()
    }

    fn steps(&self, offset: u64) -> Result<Vec<String>> {
        let block = offset.checked_div(self.block).unwrap_or(0);
        let text = match self.stored_at(block)? {
            Some((start, length)) => {
                format!("block {block} is packed into {length} bytes at {start:#x} of the file")
            }
            None => format!("block {block} holds nothing but zeros"),
        };
        Ok(vec![text])
    }
}
