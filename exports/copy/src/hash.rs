//! SHA-256, BLAKE3 and the block hash, in threads beside the copy and over a fixed set of buffers.

use adit_core::{Error, Kind, Problem, Result};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread::JoinHandle;

/// Block of the [`BlockHash`]. Unit: bytes.
pub const HASH_BLOCK_BYTES: usize = 64 << 10;

/// The hashes of a file, in lower-case hexadecimal.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hashes {
    /// SHA-256 of the whole content, holes as zeros; none when the holes are too many to hash.
    pub sha256: Option<String>,
    /// BLAKE3 of the whole content, holes as zeros; none when the holes are too many to hash.
    pub blake3: Option<String>,
    /// The block hash; always there. See [`BlockHash`].
    pub data_blake3: String,
}

/// A hash of content that costs nothing for zeros, however they are stored.
///
/// The content is cut into blocks of 64 KiB from its first byte on; the last is filled up with
/// zeros. Blocks of zeros only are left out. The hash is
/// `BLAKE3( le64(offset) ‖ BLAKE3(block) … le64(size) )`: for every other block, in order, its
/// offset in bytes and the 32-byte BLAKE3 of its 65536 bytes, and at the end the size in bytes.
///
/// Two files of equal content have equal block hashes whatever is a hole in them.
#[derive(Debug)]
pub struct BlockHash {
    all: blake3::Hasher,
    block: Vec<u8>,
    /// Offset of the block that is being filled.
    start: u64,
    filled: usize,
}

impl Default for BlockHash {
    fn default() -> Self {
        BlockHash { all: blake3::Hasher::new(), block: Vec::new(), start: 0, filled: 0 }
    }
}

impl BlockHash {
    /// Takes bytes at an offset, which must not lie before the end of earlier ones. What is
    /// passed over is zero.
    ///
    /// Units: `offset` in bytes of the content.
    pub fn feed(&mut self, offset: u64, bytes: &[u8]) {
        let grid = HASH_BLOCK_BYTES as u64;
        let (mut at, mut rest) = (offset, bytes);
        while !rest.is_empty() {
            let start = at / grid * grid;
            if start != self.start {
                self.close();
                self.start = start;
            }
            let skip = (at - start) as usize;
            let (now, later) = rest.split_at(rest.len().min(HASH_BLOCK_BYTES - skip));
            if now.len() == HASH_BLOCK_BYTES {
                self.record(start, now);
            } else {
                if self.block.is_empty() {
                    self.block.resize(HASH_BLOCK_BYTES, 0);
                }
                self.block[self.filled..skip.max(self.filled)].fill(0);
                self.block[skip..skip + now.len()].copy_from_slice(now);
                self.filled = skip + now.len();
            }
            at += now.len() as u64;
            rest = later;
        }
    }

    /// The hash of a content of this size.
    pub fn finish(mut self, size_bytes: u64) -> String {
        self.close();
        self.all.update(&size_bytes.to_le_bytes());
        self.all.finalize().to_hex().to_string()
    }

    fn close(&mut self) {
        if self.filled > 0 {
            let mut block = std::mem::take(&mut self.block);
            block[self.filled..].fill(0);
            self.record(self.start, &block);
            self.block = block;
            self.filled = 0;
        }
    }

    fn record(&mut self, start: u64, block: &[u8]) {
        if !adit_core::bytes::all_zero(block) {
            self.all.update(&start.to_le_bytes());
            self.all.update(blake3::hash(block).as_bytes());
        }
    }
}

/// A page-aligned buffer that threads hand on.
#[derive(Debug)]
pub(crate) struct Buffer {
    bytes: Vec<u8>,
    start: usize,
    length: usize,
}

impl Buffer {
    pub(crate) const CAPACITY: usize = 1 << 20;

    pub(crate) fn new() -> Self {
        let bytes = vec![0; Self::CAPACITY + 4096];
        let start = bytes.as_ptr().align_offset(4096).min(4096);
        Buffer { bytes, start, length: 0 }
    }

    /// Room for `length` bytes, at most the capacity.
    pub(crate) fn room(&mut self, length: usize) -> &mut [u8] {
        self.length = length.min(Self::CAPACITY);
        &mut self.bytes[self.start..self.start + self.length]
    }

    pub(crate) fn filled(&self) -> &[u8] {
        &self.bytes[self.start..self.start + self.length]
    }
}

#[derive(Clone)]
enum Work {
    Bytes { offset: u64, buffer: Arc<Buffer> },
    Zeros(u64),
}

/// Hashing threads behind a fixed set of buffers.
#[derive(Debug)]
pub(crate) struct HashPipe {
    lines: Vec<SyncSender<Work>>,
    sha256: Option<JoinHandle<String>>,
    blake3: JoinHandle<(Option<String>, BlockHash)>,
    free: Receiver<Buffer>,
    back: Sender<Buffer>,
    end: u64,
    size_bytes: u64,
    whole: bool,
}

impl HashPipe {
    const BUFFERS: usize = 8;

    /// Starts the threads. Without `whole` only the block hash is made.
    pub(crate) fn start(size_bytes: u64, whole: bool) -> Result<Self> {
        let (back, free) = channel();
        for _ in 0..Self::BUFFERS {
            let _ = back.send(Buffer::new());
        }
        let (to_blake3, work) = sync_channel(Self::BUFFERS);
        let returns = back.clone();
        let blake3 = spawn("blake3", move || hash_blake3(work, returns, whole))?;
        let mut lines = vec![to_blake3];
        let mut sha256 = None;
        if whole {
            let (to_sha256, work) = sync_channel(Self::BUFFERS);
            let returns = back.clone();
            sha256 = Some(spawn("sha256", move || hash_sha256(work, returns))?);
            lines.push(to_sha256);
        }
        Ok(HashPipe { lines, sha256, blake3, free, back, end: 0, size_bytes, whole })
    }

    /// A free buffer; waits until the hashes are done with one.
    pub(crate) fn buffer(&self) -> Result<Buffer> {
        self.free.recv().map_err(|_| died())
    }

    /// Hands in bytes at an offset not before the end of earlier ones; a gap is zeros.
    pub(crate) fn feed(&mut self, offset: u64, buffer: Buffer) -> Result<()> {
        self.zeros_until(offset)?;
        let length = buffer.filled().len() as u64;
        self.send(Work::Bytes { offset, buffer: Arc::new(buffer) })?;
        self.end = offset.saturating_add(length);
        Ok(())
    }

    /// Gives a buffer back unused.
    pub(crate) fn put_back(&self, buffer: Buffer) {
        let _ = self.back.send(buffer);
    }

    /// Ends the content and waits for the hashes.
    pub(crate) fn finish(mut self) -> Result<Hashes> {
        self.zeros_until(self.size_bytes)?;
        self.lines.clear();
        let sha256 = self.sha256.take().map(JoinHandle::join).transpose().map_err(|_| died())?;
        let (blake3, blocks) = self.blake3.join().map_err(|_| died())?;
        Ok(Hashes { sha256, blake3, data_blake3: blocks.finish(self.size_bytes) })
    }

    fn zeros_until(&mut self, offset: u64) -> Result<()> {
        let zeros = offset.saturating_sub(self.end);
        if self.whole && zeros > 0 {
            self.send(Work::Zeros(zeros))?;
        }
        self.end = self.end.max(offset);
        Ok(())
    }

    fn send(&self, work: Work) -> Result<()> {
        self.lines.iter().try_for_each(|line| line.send(work.clone()).map_err(|_| died()))?;
        // The threads may be done with it already; then the last hold is this one.
        if let Work::Bytes { buffer, .. } = work {
            give_back(buffer, &self.back);
        }
        Ok(())
    }
}

fn hash_sha256(work: Receiver<Work>, back: Sender<Buffer>) -> String {
    let mut hash = Sha256::new();
    for work in work {
        match work {
            Work::Zeros(count) => each_zero(count, |zeros| hash.update(zeros)),
            Work::Bytes { buffer, .. } => {
                hash.update(buffer.filled());
                give_back(buffer, &back);
            }
        }
    }
    hex(&hash.finalize())
}

fn hash_blake3(
    work: Receiver<Work>,
    back: Sender<Buffer>,
    whole: bool,
) -> (Option<String>, BlockHash) {
    let (mut hash, mut blocks) = (blake3::Hasher::new(), BlockHash::default());
    for work in work {
        match work {
            Work::Zeros(count) => each_zero(count, |zeros| {
                hash.update(zeros);
            }),
            Work::Bytes { offset, buffer } => {
                if whole {
                    hash.update(buffer.filled());
                }
                blocks.feed(offset, buffer.filled());
                give_back(buffer, &back);
            }
        }
    }
    (whole.then(|| hash.finalize().to_hex().to_string()), blocks)
}

/// Of the threads that share a buffer exactly one finds itself the last.
fn give_back(buffer: Arc<Buffer>, back: &Sender<Buffer>) {
    if let Some(buffer) = Arc::into_inner(buffer) {
        let _ = back.send(buffer);
    }
}

fn each_zero(mut count: u64, mut take: impl FnMut(&[u8])) {
    static ZEROS: [u8; 256 << 10] = [0; 256 << 10];
    while count > 0 {
        let now = count.min(ZEROS.len() as u64);
        take(&ZEROS[..now as usize]);
        count -= now;
    }
}

fn spawn<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<JoinHandle<T>> {
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(work)
        .map_err(|error| Error::io(Problem::Unreadable, "starting a hashing thread", &error))
}

fn died() -> Error {
    Error::new(Kind::Io, Problem::Unreadable, "a hashing thread died")
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The definition, word for word and over the whole content in memory.
    fn by_definition(content: &[u8]) -> String {
        let mut all = Vec::new();
        for (index, block) in content.chunks(65536).enumerate() {
            let mut block = block.to_vec();
            block.resize(65536, 0);
            if block.iter().any(|&b| b != 0) {
                all.extend((index as u64 * 65536).to_le_bytes());
                all.extend(blake3::hash(&block).as_bytes());
            }
        }
        all.extend((content.len() as u64).to_le_bytes());
        blake3::hash(&all).to_hex().to_string()
    }

    #[test]
    fn the_block_hash_is_the_same_however_the_bytes_arrive() {
        let mut content = vec![0u8; 300_001];
        for (i, byte) in content.iter_mut().enumerate() {
            if (70_000..71_000).contains(&i) || i > 190_000 {
                *byte = (i % 251) as u8;
            }
        }
        let expected = by_definition(&content);
        for step in [1, 777, 4096, 65_535, 65_536, 65_537, 300_001] {
            for skip_zeros in [false, true] {
                let mut hash = BlockHash::default();
                for (i, part) in content.chunks(step).enumerate() {
                    if !(skip_zeros && part.iter().all(|&b| b == 0)) {
                        hash.feed((i * step) as u64, part);
                    }
                }
                assert_eq!(hash.finish(300_001), expected, "step {step}, skip {skip_zeros}");
            }
        }
    }

    #[test]
    fn a_pipe_hashes_gaps_as_zeros() {
        let mut pipe = HashPipe::start(3, true).unwrap();
        let mut buffer = pipe.buffer().unwrap();
        buffer.room(1).copy_from_slice(b"x");
        pipe.feed(1, buffer).unwrap();
        let hashes = pipe.finish().unwrap();
        assert_eq!(hashes.blake3.unwrap(), blake3::hash(b"\0x\0").to_hex().to_string());
        assert_eq!(hashes.data_blake3, by_definition(b"\0x\0"));
        // printf '\0x\0' | sha256sum
        let expected = std::process::Command::new("sh")
            .args(["-c", "printf '\\000x\\000' | sha256sum"])
            .output()
            .unwrap();
        let expected = String::from_utf8(expected.stdout).unwrap();
        assert_eq!(hashes.sha256.as_deref(), expected.split(' ').next());
    }
}
