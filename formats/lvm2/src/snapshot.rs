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

/// The map of a snapshot.
#[derive(Debug)]
pub(crate) struct Store {
    name: String,
    geometry: Geometry,
    /// Origin, then store.
    origin: Arc<dyn Disk>,
    store: Arc<dyn Disk>,
    chunk: u64,
    /// Old and new chunk, in order of the old one.
    exceptions: Vec<(u64, u64)>,
}

impl Store {
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
        if header.magic == 0 {
            // Device mapper writes the header at first use; before, the snapshot is its origin.
            let geometry = Geometry { size_bytes, ..origin.geometry() };
            let map = Store { name, geometry, origin, store, chunk, exceptions: Vec::new() };
            return Ok(Arc::new(Mapped::new(map)));
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
        let exceptions = exceptions(&store, chunk, limits)?;
        let geometry = Geometry { size_bytes, ..origin.geometry() };
        Ok(Arc::new(Mapped::new(Store { name, geometry, origin, store, chunk, exceptions })))
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
        let chunk = offset.checked_div(self.chunk).unwrap_or(0);
        let start = chunk.saturating_mul(self.chunk);
        let next = self.exceptions.partition_point(|(old, _)| *old < chunk);
        let kind = match self.exceptions.get(next) {
            Some((old, new)) if *old == chunk => {
                let offset = new.saturating_mul(self.chunk);
                return Ok(Run {
                    start,
                    length: self.chunk,
                    kind: RunKind::Stored { source: 1, offset },
                });
            }
            _ => RunKind::Stored { source: 0, offset: start },
        };
        let end = self
            .exceptions
            .get(next)
            .map_or(self.geometry.size_bytes, |(old, _)| old.saturating_mul(self.chunk));
        Ok(Run { start, length: end.saturating_sub(start).max(self.chunk), kind })
    }

    fn source(&self, index: usize) -> Option<&Arc<dyn Disk>> {
        [&self.origin, &self.store].get(index).copied()
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
        let chunk = offset.checked_div(self.chunk).unwrap_or(0);
        Ok(vec![match run.kind {
            RunKind::Stored { source: 1, .. } => format!("chunk {chunk}: copied to the store"),
            _ => format!("chunk {chunk}: not changed since, read from the origin"),
        }])
    }
}
