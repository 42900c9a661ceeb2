//! Content to hashes: SHA-256, BLAKE3 and the block hash in one pass.

use adit_copy::{BlockHash, Hashes};
use adit_core::{Disk, DiskExt, Error, Interrupt, Kind, Leaf, LeafKind, Problem, Progress, Result};
use sha2::{Digest, Sha256};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

/// How much is read at once. Unit: bytes.
const PART_BYTES: u64 = 1 << 20;
/// From this size on SHA-256 has a thread of its own. Unit: bytes.
const THREAD_BYTES_MIN: u64 = 4 << 20;
/// With more holes than this the whole content is not hashed: it would take hours. Unit: bytes.
pub(crate) const HOLES_BYTES_MAX: u64 = 64 << 30;

static ZEROS: [u8; 1 << 20] = [0; 1 << 20];

/// Hashes everything on a disk.
///
/// Holes count as zeros and are not read. With more than 64 GiB of them only the block hash is
/// made, and the others are none.
///
/// Errors: those of reading, `Lost` among them: no hash is made of bytes that are not there;
/// `Interrupted`.
pub fn hash_disk(
    disk: &Arc<dyn Disk>,
    progress: &dyn Progress,
    interrupt: &Interrupt,
) -> Result<Hashes> {
    let runs = runs(disk, interrupt)?;
    let holes: u64 = runs.iter().filter(|run| !run.data).map(|run| run.length).sum();
    let whole = holes <= HOLES_BYTES_MAX;
    let threaded = whole && disk.size_bytes() >= THREAD_BYTES_MIN;
    if !threaded {
        let mut sha256 = whole.then(Sha256::new);
        let mut own = Own::new(whole);
        read(disk, &runs, progress, interrupt, &mut |part| {
            if let Some(sha256) = &mut sha256 {
                part.each(|bytes| sha256.update(bytes));
            }
            own.take(part);
            Ok(())
        })?;
        let sha256 = sha256.map(|hash| hex(&hash.finalize()));
        return Ok(own.finish(sha256, disk.size_bytes()));
    }
    let (parts, work) = sync_channel::<Part>(4);
    std::thread::scope(|scope| {
        let sha256 = scope.spawn(|| sha256_of(work));
        let mut own = Own::new(true);
        let done = read(disk, &runs, progress, interrupt, &mut |part| {
            send(&parts, part.clone())?;
            own.take(part);
            Ok(())
        });
        drop(parts);
        let sha256 = sha256.join().map_err(|_| died())?;
        done?;
        Ok(own.finish(Some(sha256), disk.size_bytes()))
    })
}

fn send(parts: &SyncSender<Part>, part: Part) -> Result<()> {
    parts.send(part).map_err(|_| died())
}

fn died() -> Error {
    Error::new(Kind::Io, Problem::Unreadable, "a hashing thread died")
}

fn sha256_of(work: Receiver<Part>) -> String {
    let mut hash = Sha256::new();
    while let Ok(part) = work.recv() {
        part.each(|bytes| hash.update(bytes));
    }
    hex(&hash.finalize())
}

/// What one thread makes while it reads.
struct Own {
    blake3: Option<blake3::Hasher>,
    blocks: BlockHash,
}

impl Own {
    fn new(whole: bool) -> Own {
        Own { blake3: whole.then(blake3::Hasher::new), blocks: BlockHash::default() }
    }

    fn take(&mut self, part: Part) {
        if let Some(blake3) = &mut self.blake3 {
            part.each(|bytes| {
                blake3.update(bytes);
            });
        }
        if let Part::Bytes(offset, bytes) = part {
            self.blocks.feed(offset, &bytes);
        }
    }

    fn finish(self, sha256: Option<String>, size_bytes: u64) -> Hashes {
        let blake3 = self.blake3.map(|hash| hash.finalize().to_hex().to_string());
        Hashes { sha256, blake3, data_blake3: self.blocks.finish(size_bytes) }
    }
}

#[derive(Clone)]
enum Part {
    Bytes(u64, Arc<Vec<u8>>),
    Zeros(u64),
}

impl Part {
    fn each(&self, mut take: impl FnMut(&[u8])) {
        match self {
            Part::Bytes(_, bytes) => take(bytes),
            Part::Zeros(length) => {
                let mut left = *length;
                while left > 0 {
                    let now = left.min(ZEROS.len() as u64);
                    take(&ZEROS[..now as usize]);
                    left -= now;
                }
            }
        }
    }
}

struct Run {
    offset: u64,
    length: u64,
    data: bool,
}

/// Data and holes in order, neighbours joined.
fn runs(disk: &Arc<dyn Disk>, interrupt: &Interrupt) -> Result<Vec<Run>> {
    let (size, mut at, mut runs) = (disk.size_bytes(), 0, Vec::<Run>::new());
    while at < size {
        interrupt.check()?;
        let leaf = Leaf::find(disk, at)?;
        let length = leaf.length.clamp(1, size - at);
        let data = match leaf.kind {
            LeafKind::Lost(error) => return Err(error),
            LeafKind::Hole | LeafKind::Zero => false,
            LeafKind::Stored { .. } => true,
        };
        match runs.last_mut() {
            Some(last) if last.data == data => last.length += length,
            _ => runs.push(Run { offset: at, length, data }),
        }
        at += length;
    }
    Ok(runs)
}

fn read(
    disk: &Arc<dyn Disk>,
    runs: &[Run],
    progress: &dyn Progress,
    interrupt: &Interrupt,
    take: &mut dyn FnMut(Part) -> Result<()>,
) -> Result<()> {
    for run in runs {
        if !run.data {
            take(Part::Zeros(run.length))?;
            progress.advance(run.length);
            continue;
        }
        let (mut at, end) = (run.offset, run.offset + run.length);
        while at < end {
            interrupt.check()?;
            let length = (end - at).min(PART_BYTES);
            let bytes = disk.read_vec(at, length as usize)?;
            take(Part::Bytes(at, Arc::new(bytes)))?;
            progress.advance(length);
            at += length;
        }
    }
    Ok(())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use adit_core::{Concat, MemoryDisk, Piece, Quiet};

    fn hashes(disk: &Arc<dyn Disk>) -> Result<Hashes> {
        hash_disk(disk, &Quiet, &Interrupt::default())
    }

    #[test]
    fn holes_and_stored_zeros_hash_the_same_with_and_without_a_thread() {
        for size in [10_000u64, 9 << 20] {
            let data = MemoryDisk::open("data", vec![7; 5000]);
            let hole = Concat::open(
                "file",
                vec![Piece::zero(4096), Piece::whole(Arc::clone(&data)), Piece::zero(size)],
            );
            let mut bytes = vec![0; 4096];
            bytes.extend(vec![7; 5000]);
            bytes.resize(bytes.len() + size as usize, 0);
            let sha256 = hex(&Sha256::digest(&bytes));
            let blake3 = blake3::hash(&bytes).to_hex().to_string();
            let stored = MemoryDisk::open("stored", bytes);
            let (a, b) = (hashes(&hole.unwrap()).unwrap(), hashes(&stored).unwrap());
            assert_eq!(a, b);
            assert_eq!((a.sha256, a.blake3), (Some(sha256), Some(blake3)));
        }
    }

    #[test]
    fn nothing_hashes_to_the_well_known_value() {
        let nothing = hashes(&MemoryDisk::open("nothing", Vec::new())).unwrap();
        // sha256sum < /dev/null
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(nothing.sha256.as_deref(), Some(empty));
    }

    #[test]
    fn nothing_is_hashed_of_what_is_lost_and_holes_without_end_cost_nothing() {
        let lost = Piece::lost(5000, Error::lost("gone"));
        let disk = Concat::open("file", vec![Piece::zero(10), lost]).unwrap();
        assert_eq!(hashes(&disk).unwrap_err().kind(), Kind::Lost);
        let huge = Concat::open("huge", vec![Piece::zero(1 << 50)]).unwrap();
        let found = hashes(&huge).unwrap();
        assert!(found.sha256.is_none() && found.blake3.is_none() && found.data_blake3.len() == 64);
    }
}
