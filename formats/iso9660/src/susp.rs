//! System use entries: what stands behind the name of a record, and where it goes on.

use crate::record::both_u32;
use crate::volume::Iso;
use adit_core::bytes::wide;
use adit_core::{DiskExt, Error, Place, Problem, Result};

/// Areas that may follow a record.
const AREAS_MAX: u32 = 64;
/// Longest area. Unit: bytes.
const AREA_BYTES_MAX: u64 = 32 << 10;
/// All areas of a record together. Unit: bytes.
const TOTAL_BYTES_MAX: u64 = 128 << 10;

/// An entry: two letters, version, the rest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub signature: [u8; 2],
    pub version: u8,
    /// All of it, from the signature on.
    pub bytes: Vec<u8>,
}

impl Entry {
    /// What follows the header.
    pub(crate) fn data(&self) -> &[u8] {
        self.bytes.get(4..).unwrap_or(&[])
    }
}

/// Entries that must be whole: without one of them a file would be shown wrongly.
const KNOWN: [&[u8; 2]; 11] =
    [b"SP", b"CE", b"PX", b"PN", b"SL", b"NM", b"CL", b"PL", b"RE", b"TF", b"ZF"];

/// Where entries go on: block, offset in it, length.
type Next = Option<(u32, u32, u32)>;

/// All entries of an area, and where it goes on.
fn area(bytes: &[u8], entries: &mut Vec<Entry>) -> Result<Next> {
    let (mut at, mut next) = (0usize, None);
    while let Some([a, b, length, version]) = adit_core::bytes::array::<4>(bytes, at) {
        let end = at.saturating_add(length.into());
        let Some(whole) = bytes.get(at..end).filter(|whole| whole.len() >= 4) else {
            if KNOWN.contains(&&[a, b]) {
                let name = String::from_utf8_lossy(&[a, b]).into_owned();
                let detail = format!("entry {name} of {length} bytes leaves its area");
                return Err(Error::corrupt(Problem::Truncated, detail));
            }
            break;
        };
        match [a, b] {
            [b'S', b'T'] => break,
            [b'C', b'E'] => {
                next = both_u32(whole, 4)
                    .zip(both_u32(whole, 12))
                    .zip(both_u32(whole, 20))
                    .map(|((block, offset), length)| (block, offset, length));
            }
            [b'P', b'D'] => {}
            signature => {
                entries.push(Entry { signature, version, bytes: whole.to_vec() });
            }
        }
        at = end;
    }
    Ok(next)
}

impl Iso {
    /// The entries behind a record's name, `skip` bytes into it.
    ///
    /// Errors: `Corrupt` where the entries go on outside the disk, or for ever. What was read
    /// until then is lost with it: half of a name would be wrong.
    pub(crate) fn entries(&self, system: &[u8], skip: usize) -> Result<Vec<Entry>> {
        let mut entries = Vec::new();
        let mut next = area(system.get(skip..).unwrap_or(&[]), &mut entries)?;
        let (mut areas, mut total) = (0u32, 0u64);
        while let Some((block, within, length)) = next {
            let length = u64::from(length);
            let at = self.block_offset(block.into()).saturating_add(within.into());
            let place = || Place::new("continuation area").byte(at);
            areas = areas.saturating_add(1);
            total = total.saturating_add(length);
            if areas > AREAS_MAX || length > AREA_BYTES_MAX || total > TOTAL_BYTES_MAX {
                let detail = format!("{areas} areas of {total} bytes follow one record");
                return Err(Error::corrupt(Problem::TooMany, detail).at(place()));
            }
            if at.saturating_add(length) > self.disk().size_bytes() {
                let detail = format!("{length} bytes lie past the end of the disk");
                return Err(Error::corrupt(Problem::OutOfRange, detail).at(place()));
            }
            let end = at.saturating_add(length);
            let mut bytes = Vec::new();
            while wide(bytes.len()) < length {
                // Areas of neighbouring files share sectors.
                let from = at.saturating_add(wide(bytes.len()));
                bytes.extend(self.sector_from(from, end).map_err(|error| error.at(place()))?);
            }
            let before = wide(entries.len());
            next = area(&bytes, &mut entries).map_err(|error| error.at(place()))?;
            if wide(entries.len()) == before && next.is_none() && length > 0 {
                let empty = adit_core::bytes::all_zero(&bytes);
                if !empty && !matches!(bytes.get(..2), Some(b"ST" | b"PD")) {
                    let detail = "holds no entries";
                    return Err(Error::corrupt(Problem::BadValue, detail).at(place()));
                }
            }
        }
        Ok(entries)
    }
}
