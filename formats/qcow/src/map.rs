//! The extent map: an offset of the disk → L1 → L2 → cluster.

use crate::codec::Codec;
use crate::entry::{Packed, Unit};
use crate::power::Power;
use crate::table::{L2Slice, Tables};
use adit_core::bytes::{narrow, wide};
use adit_core::{Disk, DiskExt, Error, ExtentMap, Geometry, Place, Problem, Result, Run, RunKind};
use std::sync::Arc;

/// One state of a QCOW disk.
#[derive(Debug)]
pub(crate) struct QcowMap {
    pub(crate) name: String,
    pub(crate) size_bytes: u64,
    pub(crate) cluster: Power,
    pub(crate) tables: Tables,
    pub(crate) codec: Codec,
    /// The image file, which holds compressed clusters.
    pub(crate) file: Arc<dyn Disk>,
    /// Where plain clusters are: the image file, or the external data file.
    pub(crate) data: Arc<dyn Disk>,
    pub(crate) backing: Option<Arc<dyn Disk>>,
}

/// A piece of the disk that is all of one kind. Units: bytes.
pub(crate) struct Span {
    pub(crate) start: u64,
    pub(crate) end: u64,
    pub(crate) unit: Unit,
}

impl Span {
    /// Takes `next` in, if it carries this span on.
    pub(crate) fn join(&mut self, next: &Span) -> bool {
        let joins = match (&self.unit, &next.unit) {
            (Unit::Unallocated, Unit::Unallocated)
            | (Unit::ZeroPlain, Unit::ZeroPlain)
            | (Unit::ZeroAllocated, Unit::ZeroAllocated) => true,
            (Unit::Data(host), Unit::Data(then)) => {
                host.checked_add(self.end.saturating_sub(self.start)) == Some(*then)
            }
            _ => false,
        };
        if joins {
            self.end = next.end;
        }
        joins
    }
}

impl ExtentMap for QcowMap {
    fn geometry(&self) -> Geometry {
        let geometry = Geometry::of_size(self.size_bytes);
        let cluster = u32::try_from(self.cluster.size()).unwrap_or(geometry.io_size_bytes);
        Geometry { io_size_bytes: geometry.io_size_bytes.max(cluster), ..geometry }
    }

    fn lookup(&self, offset: u64, at_most: u64) -> Result<Run> {
        if offset >= self.size_bytes {
            let detail = format!("{offset:#x} is past a disk of {} bytes", self.size_bytes);
            return Err(Error::invalid(Problem::OutOfRange, detail));
        }
        let end = offset.saturating_add(at_most.max(1)).min(self.size_bytes);
        let mut slice = None;
        let mut span = self.span_at(offset, end, &mut slice);
        while span.end < end {
            // Most of a large disk is nowhere: entries of zeros, which need no closer look.
            if let (Unit::Unallocated, Some(held)) = (&span.unit, &slice) {
                let empty = self.tables.empty_entries(held, span.end);
                let after = span.end.saturating_add(self.cluster.times(empty));
                span.end = after.min(self.size_bytes);
                if span.end >= end {
                    break;
                }
            }
            let next = self.span_at(span.end, end, &mut slice);
            if !span.join(&next) {
                break;
            }
        }
        Ok(self.run(span))
    }

    fn source(&self, index: usize) -> Option<&Arc<dyn Disk>> {
        (index == 0).then_some(&self.data)
    }

    fn parent(&self) -> Option<&Arc<dyn Disk>> {
        self.backing.as_ref()
    }

    fn decode(&self, run: &Run, buf: &mut [u8]) -> Result<()> {
        let RunKind::Encoded { token } = run.kind else {
            return Err(Error::invalid(Problem::BadValue, "the run is not compressed"));
        };
        let packed = self.tables.kind().packed(token);
        unpack(&self.codec, self.file.as_ref(), packed, self.cluster, buf)
    }

    fn name(&self) -> String {
        self.name.clone()
    }

    fn steps(&self, offset: u64) -> Result<Vec<String>> {
        let l1_index = self.tables.l1_span().index(offset);
        let Some(table) = self.tables.l2_table(l1_index)? else {
            return Ok(vec![format!("L1 entry {l1_index}: no table")]);
        };
        let found = self.tables.entry(&self.tables.slice(table, offset)?, offset)?;
        let mut entry = format!("L2 entry {} = {:#018x}", found.index, found.raw.word);
        if found.raw.bitmap != 0 {
            entry.push_str(&format!(", subclusters {:#018x}", found.raw.bitmap));
        }
        Ok(vec![format!("L1 entry {l1_index}: table at {table:#x}"), entry])
    }
}

/// Fills `buf` from the compressed cluster at `packed`, or from its front.
pub(crate) fn unpack(
    codec: &Codec,
    file: &dyn Disk,
    packed: Packed,
    cluster: Power,
    buf: &mut [u8],
) -> Result<()> {
    let place = || Place::new("compressed cluster").byte(packed.offset);
    let left = file.size_bytes().saturating_sub(packed.offset);
    let (held, complete) = (packed.length.min(left), packed.length <= left);
    // An entry cannot ask for more than twice a cluster.
    let length = narrow(held).ok_or_else(|| Error::limit("table_bytes_max", "a cluster"))?;
    let decode = |cluster: &mut [u8]| {
        let read = |data: &mut [u8]| file.read_at(data, packed.offset);
        codec.decode(length, complete, cluster, read).map_err(|error| error.at(place()))
    };
    if wide(buf.len()) == cluster.size() {
        return decode(buf);
    }
    // The last cluster of the disk, of which only the front is wanted.
    let mut whole = vec![0; narrow(cluster.size()).unwrap_or(0)];
    decode(&mut whole)?;
    let front = whole
        .get(..buf.len())
        .ok_or_else(|| Error::invalid(Problem::OutOfRange, "a run is longer than its cluster"))?;
    buf.copy_from_slice(front);
    Ok(())
}

/// Why data behind the end of a file cannot be had.
pub(crate) fn past_end(host: u64, size: u64) -> Error {
    let detail = format!("the data is at {host:#x}, and the file ends at {size:#x}");
    Error::corrupt(Problem::OutOfRange, detail)
        .at(Place::new("end of file").byte(size))
        .advise("the file is shorter than its own tables say; get a complete copy")
}

impl QcowMap {
    /// The span at `offset`: from there, or from the start of a compressed cluster, to the end
    /// of what one entry says. `slice` is what the last call looked at.
    fn span_at(&self, offset: u64, end: u64, slice: &mut Option<L2Slice>) -> Span {
        let held = slice.take().filter(|held| self.tables.covers(held, offset));
        let here = match held {
            Some(held) => held,
            None => match self.open_slice(offset, end) {
                Ok(opened) => opened,
                Err(span) => return span,
            },
        };
        let start = self.cluster.floor(offset);
        let within = self.cluster.within(offset);
        let (unit, range) = match self.tables.entry(&here, offset) {
            Ok(found) => {
                let (unit, range) = self.tables.kind().piece(found.raw, start, within);
                let place = || {
                    Place::new("L2 table")
                        .index(here.l1_index)
                        .field(format!("entry {}", found.index))
                        .byte(found.byte)
                };
                match unit {
                    Unit::Bad(error) => (Unit::Bad(error.at(place())), range),
                    unit => (unit, range),
                }
            }
            Err(error) => (Unit::Bad(error), 0..self.cluster.size()),
        };
        *slice = Some(here);
        let end = start.saturating_add(range.end).min(self.size_bytes);
        match unit {
            Unit::Compressed(_) => Span { start, end, unit },
            Unit::Data(host) => {
                let skip = within.saturating_sub(range.start);
                Span { start: offset, end, unit: Unit::Data(host.saturating_add(skip)) }
            }
            unit => Span { start: offset, end, unit },
        }
    }

    /// The slice of the L2 table for `offset`; or, where there is none, the span that is so.
    fn open_slice(&self, offset: u64, end: u64) -> Result<L2Slice, Span> {
        let span = self.tables.l1_span();
        let l1_index = span.index(offset);
        let until = |next: u64, unit| Span {
            start: offset,
            end: span.times(next).min(self.size_bytes),
            unit,
        };
        let after = l1_index.saturating_add(1);
        match self.tables.l2_table(l1_index) {
            Err(error) => Err(until(after, Unit::Bad(error))),
            Ok(None) => Err(until(self.tables.empty_until(l1_index, end), Unit::Unallocated)),
            Ok(Some(table)) => {
                self.tables.slice(table, offset).map_err(|error| until(after, Unit::Bad(error)))
            }
        }
    }

    fn run(&self, span: Span) -> Run {
        let mut length = span.end.saturating_sub(span.start);
        let kind = match span.unit {
            Unit::Unallocated if self.backing.is_some() => RunKind::Parent,
            Unit::Unallocated | Unit::ZeroPlain => RunKind::Hole,
            Unit::ZeroAllocated => RunKind::Zero,
            Unit::Bad(error) => RunKind::Lost(error),
            Unit::Compressed(word) => {
                let packed = self.tables.kind().packed(word);
                match packed.offset < self.file.size_bytes() {
                    true => RunKind::Encoded { token: word },
                    false => RunKind::Lost(past_end(packed.offset, self.file.size_bytes())),
                }
            }
            Unit::Data(host) => {
                let left = self.data.size_bytes().saturating_sub(host);
                if left == 0 {
                    RunKind::Lost(past_end(host, self.data.size_bytes()))
                } else {
                    length = length.min(left);
                    RunKind::Stored { source: 0, offset: host }
                }
            }
        };
        Run { start: span.start, length, kind }
    }
}
