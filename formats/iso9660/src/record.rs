//! Directory records: raw bytes to a checked record.

use crate::layout::{DirectoryRecord, DirectoryRecordBe, record_flag};
use adit_core::bytes::{narrow, wide};
use adit_core::{Error, Place, Problem, Result};

/// A checked record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub raw: DirectoryRecord,
    /// Where it stands. Unit: bytes.
    pub offset: u64,
    /// As it stands there.
    pub name: Vec<u8>,
    /// What follows the name.
    pub system: Vec<u8>,
    /// The numbers in the other byte order, where they differ.
    pub other: Option<(u32, u32)>,
}

impl Record {
    /// Reads the record at the start of `bytes`.
    ///
    /// Errors: `Corrupt` where it leaves `bytes` or its name leaves it.
    pub(crate) fn parse(bytes: &[u8], offset: u64) -> Result<Record> {
        let place = || Place::new("directory record").byte(offset);
        let raw = DirectoryRecord::read(bytes).map_err(|error| error.at(place()))?;
        let be = DirectoryRecordBe::read(bytes)?;
        let (length, name_length) = (usize::from(raw.length), usize::from(raw.name_length));
        let end = DirectoryRecord::SIZE.saturating_add(name_length);
        if length > bytes.len() || end > length || name_length == 0 {
            let detail = format!(
                "a record of {length} bytes with a name of {name_length}, where {} are left",
                bytes.len()
            );
            return Err(Error::corrupt(Problem::BadValue, detail).at(place()));
        }
        let name = bytes.get(DirectoryRecord::SIZE..end).unwrap_or(&[]).to_vec();
        // A pad byte makes the length of the name odd, so that what follows is aligned.
        let start = end.saturating_add(usize::from(name_length % 2 == 0));
        let system = bytes.get(start..length).unwrap_or(&[]).to_vec();
        let differ = be.extent != raw.extent || be.size != raw.size;
        let other = differ.then_some((be.extent, be.size));
        Ok(Record { raw, offset, name, system, other })
    }

    pub(crate) fn is_directory(&self) -> bool {
        self.has(record_flag::DIRECTORY)
    }

    pub(crate) fn has(&self, flag: u8) -> bool {
        self.raw.flags & flag != 0
    }

    /// Whether it stands for its own directory.
    pub(crate) fn is_self(&self) -> bool {
        self.name == [0]
    }

    /// Whether it stands for the directory above.
    pub(crate) fn is_parent(&self) -> bool {
        self.name == [1]
    }

    pub(crate) fn place(&self) -> Place {
        Place::new("directory record").byte(self.offset)
    }

    /// First block of its data, past the blocks of attributes.
    pub(crate) fn data_block(&self) -> u64 {
        u64::from(self.raw.extent).saturating_add(self.raw.attribute_blocks.into())
    }
}

/// Goes through the records of some sectors.
#[derive(Debug)]
pub(crate) struct Records<'a> {
    bytes: &'a [u8],
    /// Where `bytes` starts on the disk. Unit: bytes.
    offset: u64,
    at: usize,
}

/// No record stands across the end of a sector. Unit: bytes.
const SECTOR: usize = 2048;

impl<'a> Records<'a> {
    pub(crate) fn new(bytes: &'a [u8], offset: u64, at: usize) -> Records<'a> {
        Records { bytes, offset, at }
    }

    /// Where the next record starts in `bytes`.
    pub(crate) fn at(&self) -> usize {
        self.at
    }
}

impl Iterator for Records<'_> {
    type Item = Result<Record>;

    fn next(&mut self) -> Option<Result<Record>> {
        loop {
            let length = usize::from(*self.bytes.get(self.at)?);
            let sector_end =
                self.at.saturating_add(1).checked_next_multiple_of(SECTOR)?.min(self.bytes.len());
            if length == 0 {
                self.at = sector_end;
                continue;
            }
            let offset = self.offset.saturating_add(wide(self.at));
            let record = Record::parse(self.bytes.get(self.at..sector_end)?, offset);
            // After nonsense nobody can tell where the next record starts in this sector.
            self.at = match &record {
                Ok(_) => self.at.saturating_add(length),
                Err(_) => sector_end,
            };
            return Some(record);
        }
    }
}

/// A number in both byte orders as it stands in system use entries: the little-endian one.
pub(crate) fn both_u32(bytes: &[u8], at: usize) -> Option<u32> {
    adit_core::bytes::u32_le(bytes, at)
}

/// A length as `usize`.
pub(crate) fn size(value: u64) -> usize {
    narrow(value).unwrap_or(usize::MAX)
}
