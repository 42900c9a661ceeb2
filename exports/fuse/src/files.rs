//! Files that are open, one for each inode however often it is open.

use adit_core::{Disk, Error, FileSystem, Fork, NodeId, Problem, Result};
use fuser::BackingId;
use std::collections::HashMap;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

/// Pieces in which a read that failed is tried again, to save what lies before the damage.
/// Units: bytes.
const PIECES_BYTES: [usize; 2] = [4096, 512];

/// An open file.
#[derive(Debug)]
pub(crate) struct OpenFile {
    pub(crate) node: NodeId,
    pub(crate) disk: Arc<dyn Disk>,
    /// What `stat` says. The disk may be shorter; the rest then cannot be read.
    pub(crate) size_bytes: u64,
    /// The host file the kernel reads by itself, once that has been tried.
    pub(crate) backing: OnceLock<Option<BackingId>>,
}

impl OpenFile {
    /// Opens the unnamed stream of a node.
    pub(crate) fn open(fs: &dyn FileSystem, node: NodeId) -> Result<OpenFile> {
        let size_bytes = fs.metadata(node)?.size_bytes;
        let disk = fs.open(node, &Fork::Data)?;
        Ok(OpenFile { node, disk, size_bytes, backing: OnceLock::new() })
    }

    /// Reads into a buffer that is kept between reads, up to the end of the file.
    ///
    /// `may_be_short`: after a failure, give what lies before it. Only for reads past the page
    /// cache; in the page cache the kernel takes a short answer for the end of the file.
    pub(crate) fn read<'b>(
        &self,
        buffer: &'b mut Vec<u8>,
        offset: u64,
        size: u32,
        may_be_short: bool,
    ) -> Result<&'b [u8]> {
        let left = self.size_bytes.saturating_sub(offset);
        let too_large = |_| Error::invalid(Problem::OutOfRange, "a read larger than memory");
        let length = usize::try_from(left.min(size.into())).map_err(too_large)?;
        if buffer.len() < length {
            buffer.resize(length, 0);
        }
        let buffer = &mut buffer[..length];
        if length == 0 {
            return Ok(buffer);
        }
        let Err(error) = self.disk.read_at(buffer, offset) else { return Ok(buffer) };
        let sound = if may_be_short { self.read_before_damage(buffer, offset) } else { 0 };
        if sound == 0 { Err(self.explained(error, offset, length)) } else { Ok(&buffer[..sound]) }
    }

    /// Fills `buffer` up to the first bytes that cannot be had, and tells how far that is.
    fn read_before_damage(&self, buffer: &mut [u8], offset: u64) -> usize {
        let mut done = 0;
        for piece in PIECES_BYTES {
            while done < buffer.len() {
                let at = offset + done as u64;
                // Pieces end on multiples of their size, as damage does.
                let to_border = piece - usize::try_from(at % piece as u64).unwrap_or(0);
                let end = buffer.len().min(done + to_border);
                if self.disk.read_at(&mut buffer[done..end], at).is_err() {
                    break;
                }
                done = end;
            }
        }
        done
    }

    /// A disk shorter than its file refuses as for a reader's mistake; here bytes are missing.
    fn explained(&self, error: Error, offset: u64, length: usize) -> Error {
        let held = self.disk.geometry().size_bytes;
        if offset.saturating_add(length as u64) <= held {
            return error;
        }
        let detail =
            format!("the file should have {} bytes, but {held} are there", self.size_bytes);
        Error::lost(detail)
    }
}

/// The open files by inode, which is also their handle.
#[derive(Debug, Default)]
pub(crate) struct OpenFiles {
    by_inode: RwLock<HashMap<u64, Opened>>,
}

#[derive(Debug)]
struct Opened {
    file: Arc<OpenFile>,
    times: u64,
}

impl OpenFiles {
    /// The file of an inode, opened if it is not yet.
    ///
    /// No lock is held while the source works, so one that hangs holds up nothing else.
    pub(crate) fn open(
        &self,
        inode: u64,
        open: impl FnOnce() -> Result<OpenFile>,
    ) -> Result<Arc<OpenFile>> {
        if let Some(file) = self.again(inode) {
            return Ok(file);
        }
        let file = Arc::new(open()?);
        let mut files = self.by_inode.write().unwrap_or_else(PoisonError::into_inner);
        let opened = files.entry(inode).or_insert(Opened { file, times: 0 });
        opened.times += 1;
        Ok(Arc::clone(&opened.file))
    }

    fn again(&self, inode: u64) -> Option<Arc<OpenFile>> {
        let mut files = self.by_inode.write().unwrap_or_else(PoisonError::into_inner);
        let opened = files.get_mut(&inode)?;
        opened.times += 1;
        Some(Arc::clone(&opened.file))
    }

    pub(crate) fn find(&self, handle: u64) -> Option<Arc<OpenFile>> {
        let files = self.by_inode.read().unwrap_or_else(PoisonError::into_inner);
        files.get(&handle).map(|opened| Arc::clone(&opened.file))
    }

    /// One handle less; the last one closes the file.
    pub(crate) fn release(&self, handle: u64) {
        let mut files = self.by_inode.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(opened) = files.get_mut(&handle) {
            opened.times -= 1;
            if opened.times == 0 {
                let closed = files.remove(&handle);
                drop(files);
                drop(closed);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use adit_core::{Concat, Kind, MemoryDisk, Piece};

    fn file(pieces: Vec<Piece>, size_bytes: u64) -> OpenFile {
        let disk = Concat::open("pieces", pieces).unwrap();
        OpenFile { node: NodeId(2), disk, size_bytes, backing: OnceLock::new() }
    }

    fn sound(length: usize, with: u8) -> Piece {
        Piece::whole(MemoryDisk::open("memory", vec![with; length]))
    }

    #[test]
    fn a_read_past_the_page_cache_gives_what_lies_before_lost_bytes() {
        let lost = Piece::lost(1024, Error::lost("a member is missing"));
        let file = file(vec![sound(10_240, 7), lost, sound(5000, 9)], 16_264);
        let mut buffer = Vec::new();
        assert_eq!(file.read(&mut buffer, 0, 16_384, true).unwrap(), vec![7; 10_240]);
        assert_eq!(file.read(&mut buffer, 11_264, 16_384, true).unwrap(), vec![9; 5000]);
        let error = file.read(&mut buffer, 10_240, 4096, true).unwrap_err();
        assert_eq!((error.kind(), error.detail()), (Kind::Lost, "a member is missing"));
    }

    #[test]
    fn a_read_for_the_page_cache_is_never_short() {
        let lost = Piece::lost(512, Error::lost("gone"));
        let file = file(vec![sound(8192, 7), lost], 8704);
        let mut buffer = Vec::new();
        assert!(file.read(&mut buffer, 0, 8704, false).is_err());
        assert_eq!(file.read(&mut buffer, 0, 8192, false).unwrap().len(), 8192);
    }

    #[test]
    fn bytes_the_disk_does_not_have_are_lost_and_not_zero() {
        let file = file(vec![sound(1000, 7)], 3000);
        let mut buffer = Vec::new();
        assert_eq!(file.read(&mut buffer, 2000, 4096, false).unwrap_err().kind(), Kind::Lost);
        assert!(file.read(&mut buffer, 3000, 4096, false).unwrap().is_empty());
    }
}
