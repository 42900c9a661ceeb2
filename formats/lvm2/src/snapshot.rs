//! Copy-on-write snapshots of the older kind: an origin, and a store of the chunks that changed.
//!
//! The store begins with a header chunk. Then come areas: a chunk of exceptions, pairs of an
//! old and a new chunk number, followed by as many chunks of data. An exception whose new chunk
//! is 0 ends the list.

use crate::layout::{STORE_MAGIC, StoreHeader};
use adit_core::bytes::{narrow, u64_le, wide};
use adit_core::{
    Disk, DiskExt, Error, ExtentMap, Geometry, Limits, Mapped, Place, Problem, Result, Run, RunKind,
};
use std::sync::Arc;

/// Length of an exception. Unit: bytes.
const EXCEPTION: u64 = 16;
/// Largest chunk LVM makes: 512 KiB; more is taken as damage.
const CHUNK_MAX: u64 = 16 << 20;

/// The map of a snapshot, and of a cache: an origin some of whose chunks are elsewhere.
#[derive(Debug)]
pub(crate) struct Store {
    name: String,
    geometry: Geometry,
    chunks: Chunks,
}

/// Which chunks of an origin are in a store.
#[derive(Debug)]
pub(crate) struct Chunks {
    pub origin: Arc<dyn Disk>,
    pub store: Arc<dyn Disk>,
    /// Unit: bytes, not 0.
    pub chunk: u64,
    /// Chunk of the origin and of the store, in order of the former.
    pub moved: Vec<(u64, u64)>,
    /// What is said of a chunk in the store, and of any other.
    pub words: [&'static str; 2],
}

impl Store {
    /// A disk of these chunks.
    pub fn over(name: String, size_bytes: u64, chunks: Chunks) -> Arc<dyn Disk> {
        let geometry = Geometry { size_bytes, ..chunks.origin.geometry() };
        Arc::new(Mapped::new(Store { name, geometry, chunks }))
    }

    pub fn open(
        name: String,
        store: Arc<dyn Disk>,
        origin: Arc<dyn Disk>,
        chunk: u64,
        size_bytes: u64,
        limits: &Limits,
    ) -> Result<Arc<dyn Disk>> {
        let place = || Place::new("snapshot store");
        let header = store.read_prefix(0, StoreHeader::SIZE)?;
        let header = StoreHeader::read(&header).map_err(|error| error.at(place()))?;
        let bad = |problem, field: &'static str, detail: String| {
            Err(Error::corrupt(problem, detail).at(place().field(field)))
        };
        let words = ["copied to the store", "not changed since, read from the origin"];
        let over = |moved| {
            let chunks = Chunks { origin, store: Arc::clone(&store), chunk, moved, words };
            Store::over(name, size_bytes, chunks)
        };
        if header.magic == 0 {
            // Device mapper writes the header at first use; before, the snapshot is its origin.
            return Ok(over(Vec::new()));
        }
        if header.magic != STORE_MAGIC {
            return bad(Problem::BadMagic, "magic", "the store has no header".into());
        }
        if header.valid != 1 {
            return Err(Error::lost("the snapshot overflowed its store and is invalid")
                .at(place().field("valid")));
        }
        if header.version != 1 {
            let detail = format!("snapshot stores of version {}", header.version);
            return Err(Error::unsupported(detail).at(place().field("version")));
        }
        let own = u64::from(header.chunk).saturating_mul(512);
        if own != chunk || chunk == 0 || chunk > CHUNK_MAX {
            let detail = format!("chunks of {own} bytes, {chunk} by the group's metadata");
            return bad(Problem::Mismatch, "chunk_size", detail);
        }
        Ok(over(exceptions(&store, chunk, limits)?))
    }
}

/// Reads all exceptions.
fn exceptions(store: &Arc<dyn Disk>, chunk: u64, limits: &Limits) -> Result<Vec<(u64, u64)>> {
    let place = |at: u64| Place::new("snapshot exceptions").byte(at);
    let per_area = chunk / EXCEPTION;
    let chunk_length = narrow(chunk).unwrap_or(0);
    let mut list: Vec<(u64, u64)> = Vec::new();
    let mut at = chunk;
    let chunks = store.size_bytes().checked_div(chunk).unwrap_or(0);
    'areas: while at.saturating_add(chunk) <= store.size_bytes() {
        let area = store.read_vec(at, chunk_length).map_err(|error| error.at(place(at)))?;
        for pair in area.chunks_exact(16) {
            let (old, new) = (u64_le(pair, 0).unwrap_or(0), u64_le(pair, 8).unwrap_or(0));
            if new == 0 {
                break 'areas;
            }
            if new >= chunks {
                let detail = format!("old chunk {old} is said to be at {new} of {chunks}");
                return Err(Error::corrupt(Problem::OutOfRange, detail).at(place(at)));
            }
            list.push((old, new));
        }
        if wide(list.len()).saturating_mul(EXCEPTION) > limits.table_bytes_max {
            let detail = format!("more than {} exceptions", list.len());
            return Err(Error::limit("table_bytes_max", detail).at(place(at)));
        }
        let area = per_area.saturating_add(1).checked_mul(chunk);
        at = area.and_then(|area| at.checked_add(area)).unwrap_or(u64::MAX);
    }
    // A chunk may be copied once only; were it there twice, the later pair would be newer.
    list.sort_by_key(|(old, _)| *old);
    if let Some(pair) =
        list.windows(2).find(|pair| pair.first().map(|p| p.0) == pair.last().map(|p| p.0))
    {
        let detail = format!("chunk {} was copied twice", pair.first().map_or(0, |p| p.0));
        return Err(Error::corrupt(Problem::Overlaps, detail).at(place(chunk)));
    }
    Ok(list)
}

impl ExtentMap for Store {
    fn geometry(&self) -> Geometry {
        self.geometry
    }

    fn lookup(&self, offset: u64, _at_most: u64) -> Result<Run> {
        let Chunks { chunk: length, moved, .. } = &self.chunks;
        let chunk = offset.checked_div(*length).unwrap_or(0);
        let start = chunk.saturating_mul(*length);
        let next = moved.partition_point(|(old, _)| *old < chunk);
        if let Some((_, new)) = moved.get(next).filter(|(old, _)| *old == chunk) {
            let offset = new.saturating_mul(*length);
            return Ok(Run { start, length: *length, kind: RunKind::Stored { source: 1, offset } });
        }
        let end = moved
            .get(next)
            .map_or(self.geometry.size_bytes, |(old, _)| old.saturating_mul(*length));
        let kind = RunKind::Stored { source: 0, offset: start };
        Ok(Run { start, length: end.saturating_sub(start).max(*length), kind })
    }

    fn source(&self, index: usize) -> Option<&Arc<dyn Disk>> {
        [&self.chunks.origin, &self.chunks.store].get(index).copied()
    }

    fn parent(&self) -> Option<&Arc<dyn Disk>> {
        None
    }

    fn decode(&self, _run: &Run, _buf: &mut [u8]) -> Result<()> {
        Err(Error::unsupported("a snapshot encodes nothing"))
    }

    fn name(&self) -> String {
        self.name.clone()
    }

    fn steps(&self, offset: u64) -> Result<Vec<String>> {
        let run = self.lookup(offset, 1)?;
        let chunk = offset.checked_div(self.chunks.chunk).unwrap_or(0);
        let [moved, other] = self.chunks.words;
        let word =
            if matches!(run.kind, RunKind::Stored { source: 1, .. }) { moved } else { other };
        Ok(vec![format!("chunk {chunk}: {word}")])
    }
}
