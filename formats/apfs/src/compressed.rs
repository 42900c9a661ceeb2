//! Files whose data stand compressed in their attributes.
//!
//! Source: public descriptions of `com.apple.decmpfs`; files made by macOS.

use adit_core::bytes::{array, narrow, u32_le, u64_le, wide};
use adit_core::{Disk, DiskExt, Error, Place, Problem, Result, Run, RunKind};
use std::io::{Read, Write};
use std::ops::Range;
use std::sync::Arc;

/// Bytes that are compressed together.
const PIECE: u64 = 65536;
/// The longest packed piece: of data that cannot be packed, and some more.
const PACKED_MAX: u64 = PIECE * 2;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Codec {
    Plain,
    Zlib,
    Lzvn,
    Lzfse,
}

impl Codec {
    fn name(self) -> &'static str {
        match self {
            Codec::Plain => "not packed",
            Codec::Zlib => "zlib",
            Codec::Lzvn => "LZVN",
            Codec::Lzfse => "LZFSE",
        }
    }
}

#[derive(Debug)]
enum Held {
    /// In the attribute.
    Here(Vec<u8>),
    /// In the resource fork, piece by piece.
    Fork(Arc<dyn Disk>, Vec<Range<u64>>),
}

/// A file's compressed data.
#[derive(Debug)]
pub(crate) struct Packed {
    /// Unpacked. Unit: bytes.
    pub size: u64,
    codec: Codec,
    held: Held,
}

impl Packed {
    /// From the attribute `com.apple.decmpfs` and the resource fork.
    ///
    /// Errors: `Unsupported` for other ways of packing; `Corrupt`.
    pub fn open(attribute: &[u8], fork: Option<Arc<dyn Disk>>) -> Result<Packed> {
        let place = || Place::new("com.apple.decmpfs");
        let bad = |detail: &str| Error::corrupt(Problem::BadValue, detail).at(place());
        let head = (array::<4>(attribute, 0), u32_le(attribute, 4), u64_le(attribute, 8));
        let (Some(magic), Some(kind), Some(size)) = head else {
            return Err(bad("an attribute too short"));
        };
        if &magic != b"fpmc" {
            return Err(bad("no signature"));
        }
        let (codec, in_fork) = match kind {
            1 | 9 => (Codec::Plain, false),
            3 => (Codec::Zlib, false),
            4 => (Codec::Zlib, true),
            7 => (Codec::Lzvn, false),
            8 => (Codec::Lzvn, true),
            10 => (Codec::Plain, true),
            11 => (Codec::Lzfse, false),
            12 => (Codec::Lzfse, true),
            other => {
                return Err(
                    Error::unsupported(format!("compression {other} of a file")).at(place())
                );
            }
        };
        if !in_fork {
            if size > PIECE {
                return Err(bad("more than one piece in an attribute"));
            }
            let held = Held::Here(attribute.get(16..).unwrap_or_default().to_vec());
            return Ok(Packed { size, codec, held });
        }
        let fork = fork.ok_or_else(|| bad("its resource fork is missing"))?;
        let pieces = pieces(&fork, codec, size)?;
        Ok(Packed { size, codec, held: Held::Fork(fork, pieces) })
    }

    pub fn run(&self, offset: u64) -> Run {
        let number = offset / PIECE;
        let start = number.saturating_mul(PIECE);
        let length = self.size.saturating_sub(start).clamp(1, PIECE);
        Run { start, length, kind: RunKind::Encoded { token: number } }
    }

    pub fn step(&self, offset: u64) -> String {
        format!("piece {} of 64 KiB, {}", offset / PIECE, self.codec.name())
    }

    /// Unpacks a piece into `buf`, which is exactly as long.
    pub fn unpack(&self, number: u64, buf: &mut [u8]) -> Result<()> {
        let place = || Place::new("compressed piece").index(number);
        let bytes = match &self.held {
            Held::Here(bytes) => bytes.clone(),
            Held::Fork(fork, pieces) => {
                let piece =
                    narrow(number).and_then(|number| pieces.get(number)).ok_or_else(|| {
                        Error::corrupt(Problem::Missing, "the piece is not there").at(place())
                    })?;
                let length = piece.end.saturating_sub(piece.start);
                fork.read_vec(piece.start, narrow(length).unwrap_or(0))?
            }
        };
        unpack(self.codec, &bytes, buf).map_err(|error| error.at(place()))
    }
}

/// Where the pieces stand in a resource fork.
fn pieces(fork: &Arc<dyn Disk>, codec: Codec, size: u64) -> Result<Vec<Range<u64>>> {
    let bad = |detail: &str| {
        Error::corrupt(Problem::OutOfRange, detail).at(Place::new("com.apple.ResourceFork"))
    };
    let count = size.div_ceil(PIECE);
    // A table of eight bytes for a piece, bounded by the fork itself.
    if count.saturating_mul(4) > fork.size_bytes() {
        return Err(bad("fewer bytes than pieces"));
    }
    let mut found = Vec::new();
    if codec == Codec::Zlib {
        // A resource fork: the data's offset, the data's length, the number of pieces.
        let head = fork.read_prefix(0, 4)?;
        let base = array::<4>(&head, 0).map(u32::from_be_bytes).map_or(0, u64::from);
        let base = base.saturating_add(4);
        let table =
            fork.read_prefix(base, narrow(count.saturating_mul(8)).unwrap_or(0).saturating_add(4))?;
        if u64::from(u32_le(&table, 0).unwrap_or(0)) != count {
            return Err(bad("another number of pieces than the file's length gives"));
        }
        for entry in table.get(4..).unwrap_or_default().chunks_exact(8) {
            let (at, length) = (u32_le(entry, 0).unwrap_or(0), u32_le(entry, 4).unwrap_or(0));
            let start = base.saturating_add(at.into());
            found.push(start..start.saturating_add(length.into()));
        }
    } else {
        // Offsets one after another; the first is also the table's length.
        let length = narrow(count.saturating_add(1).saturating_mul(4)).unwrap_or(0);
        let table = fork.read_prefix(0, length)?;
        let offsets: Vec<u64> =
            table.chunks_exact(4).map(|raw| u32_le(raw, 0).unwrap_or(0).into()).collect();
        found.extend(offsets.windows(2).filter_map(|pair| match pair {
            [start, end] => Some(*start..*end),
            _ => None,
        }));
    }
    let fits = |piece: &Range<u64>| {
        piece.start < piece.end
            && piece.end <= fork.size_bytes()
            && piece.end.saturating_sub(piece.start) <= PACKED_MAX
    };
    if wide(found.len()) != count || !found.iter().all(fits) {
        return Err(bad("a piece leaves the fork"));
    }
    Ok(found)
}

fn unpack(codec: Codec, bytes: &[u8], buf: &mut [u8]) -> Result<()> {
    let bad = |detail: String| Error::corrupt(Problem::BadValue, detail);
    let marked = match codec {
        Codec::Plain => true,
        Codec::Zlib => bytes.first().is_some_and(|first| first & 15 == 15),
        Codec::Lzvn => bytes.first() == Some(&6),
        Codec::Lzfse => bytes.first() == Some(&0xff),
    };
    if marked {
        // Kept as it was, after one byte that says so.
        let skip: usize = if codec == Codec::Plain && bytes.len() == buf.len() { 0 } else { 1 };
        let plain = bytes.get(skip..skip.saturating_add(buf.len()));
        buf.copy_from_slice(plain.ok_or_else(|| bad("a piece too short".to_owned()))?);
        return Ok(());
    }
    match codec {
        Codec::Zlib => {
            let mut reader = flate2::read::ZlibDecoder::new(bytes);
            reader.read_exact(buf).map_err(|error| bad(format!("zlib: {error}")))
        }
        Codec::Lzfse => decode(bytes, buf),
        // A stream of one block, as the decoder wants it.
        _ => {
            let raw = u32::try_from(buf.len()).unwrap_or(u32::MAX).to_le_bytes();
            let packed = u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes();
            let stream = [&b"bvxn"[..], &raw, &packed, bytes, b"bvx$"].concat();
            decode(&stream, buf)
        }
    }
}

/// Room that never grows.
struct Room<'a> {
    buf: &'a mut [u8],
    used: usize,
}

impl Write for Room<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let end = self.used.saturating_add(bytes.len());
        let room = self.buf.get_mut(self.used..end).ok_or(std::io::ErrorKind::WriteZero)?;
        room.copy_from_slice(bytes);
        self.used = end;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn decode(stream: &[u8], buf: &mut [u8]) -> Result<()> {
    let wanted = buf.len();
    let mut room = Room { buf, used: 0 };
    let decoded = lzfse_rust::LzfseRingDecoder::default().decode(&mut { stream }, &mut room);
    let bad = |detail: String| Error::corrupt(Problem::BadValue, detail);
    decoded.map_err(|error| bad(format!("LZFSE: {error}")))?;
    if room.used == wanted {
        return Ok(());
    }
    Err(bad(format!("{} bytes where {wanted} belong", room.used)))
}

/// How long the attribute says that its file is.
pub(crate) fn size_of(attribute: &[u8]) -> Option<u64> {
    (array::<4>(attribute, 0)? == *b"fpmc").then(|| u64_le(attribute, 8)).flatten()
}

/// Bytes of an attribute that are read whole.
pub(crate) const ATTRIBUTE_MAX: u64 = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_piece_never_outgrows_its_room() {
        let stored: Vec<u8> = [&b"\x78\x01"[..], &[0; 4]].concat();
        assert!(unpack(Codec::Zlib, &stored, &mut [0; 100]).is_err());
        assert!(unpack(Codec::Lzvn, b"\x00\x00", &mut [0; 100]).is_err());
        assert!(unpack(Codec::Lzfse, b"bvx2\xff\xff\xff\xff", &mut [0; 100]).is_err());
        let mut plain = [0; 3];
        unpack(Codec::Zlib, b"\xffabc", &mut plain).unwrap();
        assert_eq!(&plain, b"abc");
    }
}
