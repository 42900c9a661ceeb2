//! SHA-256, BLAKE3 and the block hash of the disk's content, in threads beside the writer.
//!
//! Their state can be kept in the journal of a conversion and taken up again.

use crate::buffer::Buffer;
use crate::tree::{Blocks, Tree, hex, unhex};
use adit_copy::Hashes;
use adit_core::{Disk, Error, Kind, Problem, Result};
use sha2::digest::common::hazmat::{SerializableState, SerializedState};
use sha2::{Digest, Sha256};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread::JoinHandle;

/// What BLAKE3 is fed with at a time. Unit: bytes.
const GROUP_BYTES: usize = 64 << 10;

/// What is hashed: the disk's size, and whether its holes are few enough. Without `whole` only
/// the block hash is made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hashing {
    pub size_bytes: u64,
    pub whole: bool,
}

#[derive(Debug)]
enum Work {
    Bytes(Arc<Buffer>),
    /// Asks for the state.
    Mark(Sender<String>),
}

/// Hashing threads; buffers go back to their pool when both are done with them.
#[derive(Debug)]
pub(crate) struct HashPipe {
    lines: Vec<SyncSender<Work>>,
    sha256: Option<JoinHandle<Sha>>,
    blake3: JoinHandle<Blake>,
    back: Sender<Buffer>,
    size_bytes: u64,
}

impl HashPipe {
    /// Starts the threads, from the beginning or where `so_far` was kept, with the offset up to
    /// which it reaches.
    ///
    /// Errors: `Corrupt` for a state that is none; those of the source.
    pub fn start(
        hashing: Hashing,
        so_far: Option<(&str, u64)>,
        source: &dyn Disk,
        back: Sender<Buffer>,
    ) -> Result<Self> {
        let Hashing { size_bytes, whole } = hashing;
        let (sha, blake) = match so_far {
            None => (whole.then(Sha::default), Blake::new(whole)),
            Some((text, end)) => reopen(text, end, whole, source)?,
        };
        let (to_blake3, work) = sync_channel::<Work>(4);
        let returns = back.clone();
        let blake3 = spawn("blake3", move || blake.serve(work, &returns))?;
        let (mut lines, mut sha256) = (vec![to_blake3], None);
        if let Some(sha) = sha {
            let (to_sha256, work) = sync_channel::<Work>(4);
            let returns = back.clone();
            sha256 = Some(spawn("sha256", move || sha.serve(work, &returns))?);
            lines.push(to_sha256);
        }
        Ok(HashPipe { lines, sha256, blake3, back, size_bytes })
    }

    /// Hands in what was read, in the order of the disk; gaps are zeros.
    pub fn feed(&self, buffer: Buffer) -> Result<()> {
        let buffer = Arc::new(buffer);
        for line in &self.lines {
            line.send(Work::Bytes(Arc::clone(&buffer))).map_err(|_| died())?;
        }
        give_back(buffer, &self.back);
        Ok(())
    }

    /// The state after all that was handed in, as one word.
    pub fn state(&self) -> Result<String> {
        let mut words = Vec::new();
        for line in &self.lines {
            let (send, answer) = channel();
            line.send(Work::Mark(send)).map_err(|_| died())?;
            words.push(answer.recv().map_err(|_| died())?);
        }
        Ok(words.join("/"))
    }

    /// Waits for the hashes.
    pub fn finish(mut self) -> Result<Hashes> {
        self.lines.clear();
        let size = self.size_bytes;
        let sha256 = self.sha256.take().map(JoinHandle::join).transpose().map_err(|_| died())?;
        let blake = self.blake3.join().map_err(|_| died())?;
        let (blake3, data_blake3) = blake.finish(size);
        Ok(Hashes { sha256: sha256.map(|sha| sha.finish(size)), blake3, data_blake3 })
    }
}

#[derive(Debug, Default)]
struct Sha {
    hash: Sha256,
    end: u64,
}

impl Sha {
    fn serve(mut self, work: Receiver<Work>, back: &Sender<Buffer>) -> Sha {
        for work in work {
            match work {
                Work::Bytes(buffer) => {
                    for range in &buffer.ranges {
                        each_zero(range.start - self.end, |zeros| self.hash.update(zeros));
                        self.hash.update(&buffer.raw[buffer.place(range)]);
                        self.end = range.end;
                    }
                    give_back(buffer, back);
                }
                Work::Mark(answer) => {
                    let _ = answer.send(hex(&self.hash.serialize()));
                }
            }
        }
        self
    }

    fn finish(mut self, size_bytes: u64) -> String {
        each_zero(size_bytes - self.end, |zeros| self.hash.update(zeros));
        hex(&self.hash.finalize())
    }
}

#[derive(Debug)]
struct Blake {
    whole: Option<Tree>,
    blocks: Blocks,
    end: u64,
}

impl Blake {
    fn new(whole: bool) -> Blake {
        let whole = whole.then(|| Tree::new(GROUP_BYTES));
        Blake { whole, blocks: Blocks::default(), end: 0 }
    }

    fn serve(mut self, work: Receiver<Work>, back: &Sender<Buffer>) -> Blake {
        for work in work {
            match work {
                Work::Bytes(buffer) => {
                    for range in &buffer.ranges {
                        let bytes = &buffer.raw[buffer.place(range)];
                        if let Some(tree) = &mut self.whole {
                            each_zero(range.start - self.end, |zeros| tree.update(zeros));
                            tree.update(bytes);
                        }
                        self.blocks.feed(range.start, bytes);
                        self.end = range.end;
                    }
                    give_back(buffer, back);
                }
                Work::Mark(answer) => {
                    let _ = answer.send(self.state());
                }
            }
        }
        self
    }

    fn state(&self) -> String {
        let whole = self.whole.as_ref().map_or("-".to_owned(), Tree::closed);
        format!("{whole}/{}", self.blocks.closed(self.end).0)
    }

    fn finish(self, size_bytes: u64) -> (Option<String>, String) {
        let whole = self.whole.map(|mut tree| {
            each_zero(size_bytes - self.end, |zeros| tree.update(zeros));
            tree.finish().to_hex().to_string()
        });
        (whole, self.blocks.finish(size_bytes))
    }
}

/// The state of [`HashPipe::state`]. What lies behind the last whole group is read again, which
/// is less than three groups.
fn reopen(text: &str, end: u64, whole: bool, source: &dyn Disk) -> Result<(Option<Sha>, Blake)> {
    let bad = || Error::corrupt(Problem::BadValue, "a state of hashes that is none");
    let mut words = text.split('/');
    let mut word = || words.next().ok_or_else(bad);
    let (tree, blocks) = (word()?, word()?);
    let mut blake = Blake { end, ..Blake::new(false) };
    if whole {
        blake.whole = Some(Tree::reopen(GROUP_BYTES, tree).ok_or_else(bad)?);
    }
    blake.blocks = Blocks::reopen(blocks).ok_or_else(bad)?;
    let grid = GROUP_BYTES as u64;
    let blocks_from = end / grid * grid;
    let from = blake.whole.as_ref().map_or(blocks_from, |tree| tree.closed_bytes());
    // The last group is only closed by what follows it.
    if from > blocks_from || end - from > grid {
        return Err(bad());
    }
    let mut again = vec![0; (end - from) as usize];
    source.read_at(&mut again, from)?;
    if let Some(tree) = &mut blake.whole {
        tree.update(&again);
    }
    blake.blocks.feed(blocks_from, &again[(blocks_from - from) as usize..]);
    let sha = match whole {
        false => None,
        true => {
            let state = unhex(word()?).ok_or_else(bad)?;
            let state = SerializedState::<Sha256>::try_from(&state[..]).map_err(|_| bad())?;
            Some(Sha { hash: Sha256::deserialize(&state).map_err(|_| bad())?, end })
        }
    };
    Ok((sha, blake))
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

#[cfg(test)]
mod tests {
    use super::*;
    use adit_core::{DiskExt, MemoryDisk};

    fn buffer(content: &[u8], range: std::ops::Range<u64>) -> Buffer {
        let mut buffer = Buffer::default();
        buffer.raw.extend_from_slice(&content[range.start as usize..range.end as usize]);
        buffer.hold(vec![range]);
        buffer
    }

    #[test]
    fn hashes_that_were_kept_go_on_as_if_nothing_had_been() {
        let mut content: Vec<u8> = (0..700_000u32).map(|at| ((at * 7) >> 3) as u8).collect();
        content[300_000..400_000].fill(0);
        let source = MemoryDisk::open("source", content.clone());
        let size_bytes = source.size_bytes();
        let ranges =
            [0..65_536, 65_536..200_000, 200_000..300_000, 400_000..458_752, 500_000..700_000];
        content[458_752..500_000].fill(0);
        let source = MemoryDisk::open("source", content.clone());
        for whole in [true, false] {
            let hashing = Hashing { size_bytes, whole };
            let mut kept: Option<(String, u64)> = None;
            let mut last = None;
            for range in &ranges {
                let (back, _free) = channel();
                let so_far = kept.as_ref().map(|(text, end)| (text.as_str(), *end));
                let pipe = HashPipe::start(hashing, so_far, &*source, back).unwrap();
                pipe.feed(buffer(&content, range.clone())).unwrap();
                kept = Some((pipe.state().unwrap(), range.end));
                last = Some(pipe.finish().unwrap());
            }
            let hashes = last.unwrap();
            let sha256 = whole.then(|| hex(&Sha256::digest(&content)));
            let blake3 = whole.then(|| blake3::hash(&content).to_hex().to_string());
            let mut blocks = adit_copy::BlockHash::default();
            blocks.feed(0, &content);
            let data_blake3 = blocks.finish(size_bytes);
            assert_eq!(hashes, Hashes { sha256, blake3, data_blake3 });
        }
    }

    #[test]
    fn a_state_that_is_none_is_refused() {
        let source = MemoryDisk::open("source", vec![1; 1 << 20]);
        for text in ["", "-", "0./0..", "9.00/0..", "0./0../00", "0./1../00"] {
            let error = reopen(text, 200_000, true, &*source).unwrap_err();
            assert_eq!(error.kind(), Kind::Corrupt, "{text:?}");
        }
    }
}
