//! From an offset of the disk to the chunk that holds it.

use crate::Image;
use crate::layout::{CHUNK_MASK, GROUP_ENTRIES};
use adit_core::bytes::{narrow, u64_be};
use adit_core::{
    Disk, DiskExt, Error, ExtentMap, Geometry, Kind, Place, Problem, Result, Run, RunKind,
    TableCache,
};
use std::sync::Arc;

/// Part of a table that is read and kept together. Unit: bytes.
const PAGE_BYTES: u64 = 32 << 10;

/// The map of an image.
#[derive(Debug)]
pub(crate) struct ChunkMap {
    pub name: String,
    pub image: Image,
    pub entries: Entries,
}

/// The table, a page at a time.
#[derive(Debug)]
pub(crate) struct Entries {
    file: Arc<dyn Disk>,
    table: Option<u64>,
    cache: TableCache<u64>,
}

/// The page that was read last, so that a walk asks the cache once a page.
type Cursor = Option<(u64, Arc<[u8]>)>;

impl Entries {
    pub fn new(image: &Image) -> Entries {
        let (file, cache) = (Arc::clone(&image.file), TableCache::new(&image.limits));
        Entries { file, table: image.table, cache }
    }

    /// Which chunk of the file holds chunk `number` of the disk; 0 if none does.
    fn chunk(&self, number: u64, cursor: &mut Cursor) -> Result<u64> {
        let Some(table) = self.table else { return Ok(0) };
        let within = index_of(number).saturating_mul(8);
        let start = within & !PAGE_BYTES.saturating_sub(1);
        let at = table.saturating_add(start);
        let page = match cursor {
            Some((known, page)) if *known == at => page,
            _ => {
                let length = narrow(PAGE_BYTES).unwrap_or(0);
                let page = self.cache.load(at, || self.file.read_vec(at, length))?;
                &cursor.insert((at, page)).1
            }
        };
        let value = narrow(within.saturating_sub(start)).and_then(|at| u64_be(page, at));
        Ok(value.unwrap_or(0) & CHUNK_MASK)
    }

    fn place(&self, number: u64) -> Place {
        let index = index_of(number);
        let byte = self.table.unwrap_or(0).saturating_add(index.saturating_mul(8));
        Place::new("table").field(format!("entry {index}")).byte(byte)
    }
}

/// Which entry of the table is for a chunk of the disk: behind every group stands another.
fn index_of(number: u64) -> u64 {
    number.saturating_add(number / GROUP_ENTRIES)
}

impl ChunkMap {
    fn number(&self, offset: u64) -> u64 {
        offset.checked_div(self.image.chunk_bytes()).unwrap_or(0)
    }

    fn run(&self, start: u64, end: u64, kind: RunKind) -> Run {
        Run { start, length: end.min(self.image.size_bytes()).saturating_sub(start), kind }
    }
}

impl ExtentMap for ChunkMap {
    fn geometry(&self) -> Geometry {
        Geometry::of_size(self.image.size_bytes())
    }

    fn lookup(&self, offset: u64, at_most: u64) -> Result<Run> {
        let chunk = self.image.chunk_bytes().max(1);
        let number = self.number(offset);
        let mut cursor = None;
        let first = self.entries.chunk(number, &mut cursor)?;
        let last = offset.saturating_add(at_most).min(self.image.size_bytes()).div_ceil(chunk);
        let mut next = number.saturating_add(1);
        while next < last {
            // What cannot be read there is the next lookup's business.
            let Ok(follow) = self.entries.chunk(next, &mut cursor) else { break };
            let count = next.saturating_sub(number);
            if follow != if first == 0 { 0 } else { first.saturating_add(count) } {
                break;
            }
            next = next.saturating_add(1);
        }
        let (start, end) = (number.saturating_mul(chunk), next.saturating_mul(chunk));
        if first == 0 {
            return Ok(self.run(start, end, RunKind::Hole));
        }
        let at = first.saturating_mul(chunk);
        let end = end.min(self.image.size_bytes());
        let held = self.image.file.size_bytes().saturating_sub(at);
        let split = start.saturating_add(held).min(end);
        if offset < split {
            return Ok(self.run(start, split, RunKind::Stored { source: 0, offset: at }));
        }
        let detail = format!("chunk {first} of the file and what follows is past its end");
        let error = Error::new(Kind::Lost, Problem::Truncated, detail)
            .at(self.entries.place(number))
            .advise("the image is shorter than its table says; get a complete copy");
        Ok(self.run(split, end, RunKind::Lost(error)))
    }

    fn source(&self, index: usize) -> Option<&Arc<dyn Disk>> {
        (index == 0).then_some(&self.image.file)
    }

    fn parent(&self) -> Option<&Arc<dyn Disk>> {
        None
    }

    fn decode(&self, _run: &Run, _buf: &mut [u8]) -> Result<()> {
        Err(Error::unsupported("an ASIF image encodes nothing"))
    }

    fn name(&self) -> String {
        self.name.clone()
    }

    fn steps(&self, offset: u64) -> Result<Vec<String>> {
        let number = self.number(offset);
        let index = index_of(number);
        Ok(vec![match self.entries.chunk(number, &mut None)? {
            0 => format!("table entry {index}: none"),
            chunk => format!("table entry {index}: chunk {chunk} of the file"),
        }])
    }
}
