//! From an offset of the disk to the cluster that holds it.

use crate::entries::{Cursor, Entries};
use crate::header::Header;
use adit_core::{Disk, DiskExt, Error, ExtentMap, Geometry, Kind, Problem, Result, Run, RunKind};
use std::sync::Arc;

/// Entries one lookup looks at before it answers with what it has.
const LOOK_AHEAD_ENTRIES: u64 = 1 << 20;

/// The map of an expanding image.
#[derive(Debug)]
pub(crate) struct ClusterMap {
    pub name: String,
    pub file: Arc<dyn Disk>,
    pub parent: Option<Arc<dyn Disk>>,
    pub header: Header,
    pub entries: Entries,
}

/// What an entry says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cluster {
    /// The parent's data, or zeros without one.
    Free,
    /// At this byte of the file.
    At(u64),
    /// Over the header or the table.
    Bad(u64),
}

impl Cluster {
    pub fn of(entry: u32, header: &Header) -> Cluster {
        match header.cluster_at(entry) {
            0 => Cluster::Free,
            at if at < header.table_end() => Cluster::Bad(at),
            at => Cluster::At(at),
        }
    }
}

impl ClusterMap {
    fn index_of(&self, offset: u64) -> u64 {
        // The header was checked: no cluster is empty.
        offset.checked_div(self.header.cluster_bytes).unwrap_or(0)
    }

    /// First byte of the disk that cluster `index` covers, or the end of the disk.
    fn start_of(&self, index: u64) -> u64 {
        index.saturating_mul(self.header.cluster_bytes).min(self.header.size_bytes)
    }

    fn cluster(&self, index: u64, cursor: &mut Cursor) -> Result<Cluster> {
        Ok(Cluster::of(self.entries.entry(index, cursor)?, &self.header))
    }

    /// Whether `next` carries on a run of `length` clusters that begins with `first`.
    fn joins(&self, first: Cluster, length: u64, next: Cluster) -> bool {
        match (first, next) {
            (Cluster::Free, Cluster::Free) => true,
            (Cluster::At(at), Cluster::At(then)) => {
                let bytes = length.checked_mul(self.header.cluster_bytes);
                bytes.and_then(|bytes| at.checked_add(bytes)) == Some(then)
            }
            _ => false,
        }
    }

    /// A run of the file, or what is lost of it where the file ends early.
    fn stored(&self, source: u64, start: u64, end: u64, offset: u64) -> Run {
        let file_bytes = self.file.size_bytes();
        let split = start.saturating_add(file_bytes.saturating_sub(source)).min(end);
        if offset < split {
            return run(start, split, RunKind::Stored { source: 0, offset: source });
        }
        let missing = source.saturating_add(split.saturating_sub(start));
        let error = Error::new(
            Kind::Lost,
            Problem::Truncated,
            format!("its data is at byte {missing:#x}, but the file ends at {file_bytes:#x}"),
        )
        .at(self.entries.place(self.index_of(offset)))
        .advise("the image is shorter than its table says; get a complete copy");
        run(split, end, RunKind::Lost(error))
    }
}

impl ExtentMap for ClusterMap {
    fn geometry(&self) -> Geometry {
        Geometry::of_size(self.header.size_bytes)
    }

    fn lookup(&self, offset: u64, at_most: u64) -> Result<Run> {
        let index = self.index_of(offset);
        let mut cursor = Cursor::default();
        let first = self.cluster(index, &mut cursor)?;
        let wanted = offset.saturating_add(at_most).div_ceil(self.header.cluster_bytes.max(1));
        let last = wanted.min(self.entries.count()).min(index.saturating_add(LOOK_AHEAD_ENTRIES));
        let mut next = index.saturating_add(1);
        while next < last {
            // What cannot be read there is the next lookup's business.
            let Ok(follow) = self.cluster(next, &mut cursor) else { break };
            if !self.joins(first, next.saturating_sub(index), follow) {
                break;
            }
            next = next.saturating_add(1);
        }
        let (start, end) = (self.start_of(index), self.start_of(next));
        Ok(match first {
            Cluster::Free if self.parent.is_some() => run(start, end, RunKind::Parent),
            Cluster::Free => run(start, end, RunKind::Hole),
            Cluster::At(at) => self.stored(at, start, end, offset),
            Cluster::Bad(at) => {
                let error = bad_cluster(at, &self.header).at(self.entries.place(index));
                run(start, end, RunKind::Lost(error))
            }
        })
    }

    fn source(&self, index: usize) -> Option<&Arc<dyn Disk>> {
        (index == 0).then_some(&self.file)
    }

    fn parent(&self) -> Option<&Arc<dyn Disk>> {
        self.parent.as_ref()
    }

    fn decode(&self, _run: &Run, _buf: &mut [u8]) -> Result<()> {
        Err(Error::unsupported("a Parallels image encodes nothing"))
    }

    fn name(&self) -> String {
        self.name.clone()
    }

    fn steps(&self, offset: u64) -> Result<Vec<String>> {
        let index = self.index_of(offset);
        let entry = self.entries.entry(index, &mut Cursor::default())?;
        Ok(vec![match Cluster::of(entry, &self.header) {
            Cluster::Free => format!("table entry {index}: no cluster"),
            Cluster::At(at) | Cluster::Bad(at) => {
                format!("table entry {index} = {entry:#x}: cluster at byte {at:#x}")
            }
        }])
    }
}

/// A cluster where no cluster can be.
pub(crate) fn bad_cluster(at: u64, header: &Header) -> Error {
    Error::corrupt(
        Problem::Overlaps,
        format!(
            "puts the cluster at byte {at:#x}, inside the table, which ends at {:#x}",
            header.table_end()
        ),
    )
    .advise("this cluster cannot be read; the others can")
}

fn run(start: u64, end: u64, kind: RunKind) -> Run {
    Run { start, length: end.saturating_sub(start), kind }
}
