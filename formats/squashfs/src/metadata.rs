//! Packed blocks of metadata, and reading across them.

use crate::layout::METADATA_BYTES;
use crate::volume::Squash;
use adit_core::bytes::{array, u16_le, wide};
use adit_core::{DiskExt, Error, Place, Problem, Result};
use std::sync::Arc;

/// Set in the length of a block that is stored as it is.
const AS_IT_IS: u16 = 0x8000;

fn place(position: u64) -> Place {
    Place::new("metadata block").byte(position)
}

/// Where something stands in a table: a packed block, and a byte of what it unpacks to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct At {
    /// Unit: bytes of the disk.
    pub block: u64,
    /// Unit: bytes.
    pub offset: usize,
}

impl At {
    /// A reference as it stands on disk: the block's place in its table, then the byte.
    pub(crate) fn of(table: u64, reference: u64) -> At {
        let offset = usize::try_from(reference & 0xffff).unwrap_or(0);
        At { block: table.saturating_add(reference >> 16), offset }
    }
}

impl Squash {
    /// An unpacked block; its first two bytes tell how long it is on disk, with its header.
    fn block(&self, position: u64) -> Result<Arc<[u8]>> {
        self.metadata_cache().load(position, || self.load_block(position))
    }

    fn load_block(&self, position: u64) -> Result<Vec<u8>> {
        let head = self.read_disk(position, 2).map_err(|error| error.at(place(position)))?;
        let header = u16_le(&head, 0).unwrap_or(0);
        let size = header & !AS_IT_IS;
        if size == 0 || usize::from(size) > METADATA_BYTES {
            let detail = format!("a metadata block cannot have {size} bytes");
            return Err(Error::corrupt(Problem::BadValue, detail).at(place(position)));
        }
        let stored = self.read_disk(position.saturating_add(2), size.into());
        let stored = stored.map_err(|error| error.at(place(position)))?;
        let mut block = size.saturating_add(2).to_le_bytes().to_vec();
        if header & AS_IT_IS != 0 {
            block.extend_from_slice(&stored);
            return Ok(block);
        }
        block.resize(METADATA_BYTES.saturating_add(2), 0);
        let (_, room) = block.split_at_mut(2);
        let length = self.superblock().codec.unpack(&stored, room);
        let length = length.map_err(|error| error.at(place(position)))?;
        block.truncate(length.saturating_add(2));
        Ok(block)
    }

    /// Reads from the disk within the file system.
    ///
    /// Errors: `Corrupt` past its end; `Lost` past the end of the disk.
    pub(crate) fn read_disk(&self, offset: u64, length: u64) -> Result<Vec<u8>> {
        let end = offset.saturating_add(length);
        let (used, size) = (self.superblock().raw.bytes_used, self.disk().size_bytes());
        if end > used {
            let detail = format!("ends at byte {end:#x}, the file system at {used:#x}");
            return Err(Error::corrupt(Problem::OutOfRange, detail));
        }
        if end > size {
            let detail = format!("the disk ends at byte {size:#x}");
            let error = Error::new(adit_core::Kind::Lost, Problem::Truncated, detail);
            return Err(error.advise("the image is cut short; get a complete copy"));
        }
        self.disk().read_vec(offset, usize::try_from(length).unwrap_or(usize::MAX))
    }
}

/// Reads metadata across blocks.
#[derive(Debug)]
pub(crate) struct Reader<'a> {
    fs: &'a Squash,
    at: At,
    held: Option<Arc<[u8]>>,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(fs: &'a Squash, at: At) -> Reader<'a> {
        Reader { fs, at, held: None }
    }

    /// Where it is.
    pub(crate) fn at(&self) -> At {
        self.at
    }

    /// Bytes of the block it is in, from where it is on; the next block's where they are none.
    fn rest(&mut self) -> Result<&[u8]> {
        loop {
            let block = match self.held.take() {
                Some(block) => block,
                None => self.fs.block(self.at.block)?,
            };
            let unpacked = block.len().saturating_sub(2);
            if self.at.offset < unpacked {
                let block = self.held.insert(block);
                return Ok(block.get(self.at.offset.saturating_add(2)..).unwrap_or(&[]));
            }
            // Only the last block of a table is shorter than the others.
            if unpacked < METADATA_BYTES || self.at.offset > unpacked {
                let detail = format!(
                    "byte {} is wanted of {unpacked} that the block unpacks to",
                    self.at.offset
                );
                let error = Error::corrupt(Problem::OutOfRange, detail);
                return Err(error.at(place(self.at.block)));
            }
            let stored = u64::from(u16_le(&block, 0).unwrap_or(0));
            self.at = At { block: self.at.block.saturating_add(stored), offset: 0 };
        }
    }

    /// Reads so many bytes, which the caller has bounded.
    pub(crate) fn bytes(&mut self, count: usize) -> Result<Vec<u8>> {
        let mut bytes = Vec::with_capacity(count.min(METADATA_BYTES));
        while bytes.len() < count {
            let rest = self.rest()?;
            let now = rest.len().min(count.saturating_sub(bytes.len()));
            bytes.extend_from_slice(rest.get(..now).unwrap_or(&[]));
            self.at.offset = self.at.offset.saturating_add(now);
        }
        Ok(bytes)
    }

    /// Reads a few bytes.
    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let bytes = self.bytes(N)?;
        array::<N>(&bytes, 0).ok_or_else(|| Error::corrupt(Problem::Truncated, "is cut short"))
    }

    /// Passes over so many bytes.
    pub(crate) fn skip(&mut self, count: u64) -> Result<()> {
        let mut left = count;
        while left > 0 {
            let now = wide(self.rest()?.len()).min(left);
            self.at.offset = self.at.offset.saturating_add(usize::try_from(now).unwrap_or(0));
            left = left.saturating_sub(now);
        }
        Ok(())
    }
}
