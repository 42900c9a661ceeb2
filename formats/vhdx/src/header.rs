//! The two headers, and which of them counts.

use crate::checksum::crc32c_without;
use crate::layout::{HEADER_BYTES, HEADER_OFFSETS, MIB, RawHeader, SIGNATURE};
use adit_core::{Disk, DiskExt, Error, Finding, Place, Problem, Result};
use std::ops::Range;

/// The header that counts.
#[derive(Clone, Debug)]
pub(crate) struct Header {
    pub raw: RawHeader,
    /// Where it stands. Unit: bytes.
    pub offset: u64,
}

impl Header {
    /// Reads both headers; the valid one with the higher sequence number counts.
    ///
    /// Errors: `Corrupt`, `Unsupported` for an unknown version.
    pub fn read(file: &dyn Disk, notes: &mut Vec<Finding>) -> Result<Header> {
        if file.read_prefix(0, SIGNATURE.len())? != SIGNATURE {
            return Err(Error::corrupt(Problem::BadMagic, "is not \"vhdxfile\"")
                .at(Place::new("file identifier").byte(0)));
        }
        let [first, second] = HEADER_OFFSETS.map(|at| one(file, at));
        let chosen = match (first, second) {
            (Ok((a, bytes_a)), Ok((b, bytes_b))) => {
                let (x, y) = (a.raw.sequence_number, b.raw.sequence_number);
                if x == y && bytes_a != bytes_b {
                    return Err(Error::corrupt(
                        Problem::Ambiguous,
                        format!("two different headers have the sequence number {x}"),
                    )
                    .at(Place::new("header").field("sequence_number")));
                }
                if x >= y { a } else { b }
            }
            (Ok((header, _)), Err(error)) | (Err(error), Ok((header, _))) => {
                notes.push(
                    Finding::warning(
                        "vhdx-header-damaged",
                        format!("one of two headers is damaged ({error}); the other is used"),
                    )
                    .advise("a writer that opens the image repairs it"),
                );
                header
            }
            (Err(error), Err(_)) => return Err(error),
        };
        chosen.check(file.size_bytes())?;
        Ok(chosen)
    }

    /// Whether the log holds changes that the file lacks.
    pub fn is_dirty(&self) -> bool {
        self.raw.log_guid != [0; 16]
    }

    /// Where the log is. Unit: bytes.
    pub fn log(&self) -> Range<u64> {
        let start = self.raw.log_offset;
        start..start.saturating_add(u64::from(self.raw.log_length))
    }

    fn check(&self, file_bytes: u64) -> Result<()> {
        let at = |field: &'static str| Place::new("header").field(field).byte(self.offset);
        if self.raw.version != 1 {
            let text = format!("version {} of VHDX", self.raw.version);
            return Err(Error::unsupported(text).at(at("version")));
        }
        if !self.is_dirty() {
            return Ok(());
        }
        if self.raw.log_version != 0 {
            let text = format!("version {} of the log", self.raw.log_version);
            return Err(Error::unsupported(text).at(at("log_version")));
        }
        let log = self.log();
        let aligned = log.start.is_multiple_of(MIB) && log.end.is_multiple_of(MIB);
        if !aligned || log.start < MIB || log.is_empty() {
            return Err(Error::corrupt(
                Problem::Misaligned,
                format!("{:#x} bytes at {:#x} are no whole MiB", self.raw.log_length, log.start),
            )
            .at(at("log_offset")));
        }
        if log.end > file_bytes {
            return Err(Error::corrupt(
                Problem::Truncated,
                format!("the log ends at byte {:#x} of {file_bytes:#x}", log.end),
            )
            .at(at("log_offset")));
        }
        Ok(())
    }
}

fn one(file: &dyn Disk, offset: u64) -> Result<(Header, Vec<u8>)> {
    let place = Place::new("header").byte(offset);
    let bytes = file.read_prefix(offset, HEADER_BYTES)?;
    let raw = RawHeader::read(&bytes).map_err(|error| error.at(place.clone()))?;
    if &raw.signature != b"head" {
        return Err(Error::corrupt(Problem::BadMagic, "is not \"head\"").at(place));
    }
    let sum = crc32c_without(&bytes, 4);
    if sum != raw.checksum {
        return Err(Error::corrupt(
            Problem::BadChecksum,
            format!("is {:#010x} where the bytes give {sum:#010x}", raw.checksum),
        )
        .at(place.field("checksum")));
    }
    Ok((Header { raw, offset }, bytes))
}
