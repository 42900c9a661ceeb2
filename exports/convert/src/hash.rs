//! SHA-256, BLAKE3 and the block hash of the disk's content, in threads beside the writer.

use crate::buffer::Buffer;
use adit_copy::{BlockHash, Hashes};
use adit_core::{Error, Kind, Problem, Result};
use sha2::{Digest, Sha256};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, SyncSender, sync_channel};
use std::thread::JoinHandle;

type Work = Arc<Buffer>;

/// Hashing threads; buffers go back to their pool when both are done with them.
#[derive(Debug)]
pub(crate) struct HashPipe {
    lines: Vec<SyncSender<Work>>,
    sha256: Option<JoinHandle<String>>,
    blake3: JoinHandle<(Option<String>, BlockHash)>,
    back: Sender<Buffer>,
    size_bytes: u64,
}

impl HashPipe {
    /// Starts the threads. Without `whole` only the block hash is made.
    pub fn start(size_bytes: u64, whole: bool, back: Sender<Buffer>) -> Result<Self> {
        let (to_blake3, work) = sync_channel::<Work>(4);
        let returns = back.clone();
        let blake3 = spawn("blake3", move || hash_blake3(work, &returns, whole, size_bytes))?;
        let mut lines = vec![to_blake3];
        let mut sha256 = None;
        if whole {
            let (to_sha256, work) = sync_channel::<Work>(4);
            let returns = back.clone();
            sha256 = Some(spawn("sha256", move || hash_sha256(work, &returns, size_bytes))?);
            lines.push(to_sha256);
        }
        Ok(HashPipe { lines, sha256, blake3, back, size_bytes })
    }

    /// Hands in what was read, in the order of the disk; gaps are zeros.
    pub fn feed(&self, buffer: Buffer) -> Result<()> {
        let buffer = Arc::new(buffer);
        for line in &self.lines {
            line.send(Arc::clone(&buffer)).map_err(|_| died())?;
        }
        give_back(buffer, &self.back);
        Ok(())
    }

    /// Waits for the hashes.
    pub fn finish(mut self) -> Result<Hashes> {
        self.lines.clear();
        let sha256 = self.sha256.take().map(JoinHandle::join).transpose().map_err(|_| died())?;
        let (blake3, blocks) = self.blake3.join().map_err(|_| died())?;
        Ok(Hashes { sha256, blake3, data_blake3: blocks.finish(self.size_bytes) })
    }
}

fn hash_sha256(work: Receiver<Work>, back: &Sender<Buffer>, size_bytes: u64) -> String {
    let (mut hash, mut end) = (Sha256::new(), 0);
    for buffer in work {
        for range in &buffer.ranges {
            each_zero(range.start - end, |zeros| hash.update(zeros));
            hash.update(&buffer.raw[buffer.place(range)]);
            end = range.end;
        }
        give_back(buffer, back);
    }
    each_zero(size_bytes - end, |zeros| hash.update(zeros));
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn hash_blake3(
    work: Receiver<Work>,
    back: &Sender<Buffer>,
    whole: bool,
    size_bytes: u64,
) -> (Option<String>, BlockHash) {
    let (mut hash, mut blocks, mut end) = (blake3::Hasher::new(), BlockHash::default(), 0);
    for buffer in work {
        for range in &buffer.ranges {
            let bytes = &buffer.raw[buffer.place(range)];
            if whole {
                each_zero(range.start - end, |zeros| {
                    hash.update(zeros);
                });
                hash.update(bytes);
            }
            blocks.feed(range.start, bytes);
            end = range.end;
        }
        give_back(buffer, back);
    }
    if whole {
        each_zero(size_bytes - end, |zeros| {
            hash.update(zeros);
        });
    }
    (whole.then(|| hash.finalize().to_hex().to_string()), blocks)
}

/// Of the threads that share a buffer exactly one finds itself the last.
fn give_back(buffer: Work, back: &Sender<Buffer>) {
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
