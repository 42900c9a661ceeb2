//! Streams (`streamOptimized`): the footer, and the markers in front of grains.

use crate::SECTOR_BYTES;
use crate::directory::{Budget, bytes_of};
use crate::hosted::Hosted;
use crate::inflate::Coding;
use crate::layout::{
    HostedHeader, MARKER_DATA, MARKER_DIRECTORY, MARKER_END, MARKER_FOOTER, MARKER_PROGRESS,
    MARKER_TABLE, Marker,
};
use adit_core::bytes::{narrow, wide};
use adit_core::{
    Disk, DiskExt, Error, ExtentMap, Finding, Geometry, Kind, Place, Problem, Result, Run, RunKind,
};
use std::sync::Arc;

/// How far before the end of the file the footer is looked for. Unit: bytes.
const PADDING_MAX: u64 = 64 << 10;

/// Finds the footer: the last sector that is not all zeros, for the end marker is. Unit: bytes.
///
/// Errors: `Corrupt` if there is none.
pub(crate) fn footer_at(file: &Arc<dyn Disk>) -> Result<u64> {
    let size = file.size_bytes();
    let end = size.checked_div(SECTOR_BYTES).unwrap_or(0).saturating_mul(SECTOR_BYTES);
    let start = end.saturating_sub(PADDING_MAX);
    let length = narrow(end.saturating_sub(start)).unwrap_or(0);
    let tail = file.read_vec(start, length)?;
    let last = tail.chunks(HostedHeader::SIZE).rposition(|sector| sector.iter().any(|&b| b != 0));
    let at = start.saturating_add(wide(last.unwrap_or(0)).saturating_mul(SECTOR_BYTES));
    let missing = || {
        Error::corrupt(Problem::Missing, "the file does not end with a footer")
            .at(Place::new("stream footer").byte(at))
            .advise("the file was cut short; get a complete copy")
    };
    if at == 0 || last.is_none() {
        return Err(missing());
    }
    let raw = HostedHeader::read(&file.read_prefix(at, HostedHeader::SIZE)?)?;
    if &raw.magic == b"KDMV" { Ok(at) } else { Err(missing()) }
}

/// Reads the footer.
///
/// Errors: `Corrupt` if there is none, or it says something else than the header.
pub(crate) fn footer(file: &Arc<dyn Disk>, header: &Hosted) -> Result<Hosted> {
    let at = footer_at(file)?;
    let place = || Place::new("stream footer").byte(at);
    let footer = Hosted::read(file, at).map_err(|error| error.at(place()))?;
    let key = |hosted: &Hosted| {
        let raw = &hosted.raw;
        (raw.capacity, raw.grain_size, raw.table_entries, raw.flags, raw.compression)
    };
    if key(&footer) != key(header) {
        let detail = format!("the footer says {:?}, the header {:?}", key(&footer), key(header));
        return Err(Error::corrupt(Problem::Mismatch, detail).at(place()));
    }
    if footer.directory_at_end() {
        let detail = "the footer does not say where the grain directory is";
        return Err(Error::corrupt(Problem::BadValue, detail).at(place()));
    }
    Ok(footer)
}

/// A stream whose directory is lost, by its markers.
#[derive(Debug)]
pub(crate) struct MarkerMap {
    name: String,
    size_bytes: u64,
    file: Arc<dyn Disk>,
    coding: Coding,
    parent: Option<Arc<dyn Disk>>,
    /// Grain and the sector of its marker, ascending.
    grains: Vec<(u32, u32)>,
    /// From this byte on, what is not listed may have been cut off; and why.
    cut: Option<(u64, Error)>,
}

/// What a walk along the markers found.
#[derive(Debug, Default)]
struct Walked {
    grains: Vec<(u32, u32)>,
    ascending: bool,
    /// Why the walk did not reach the end marker.
    stopped: Option<Error>,
}

/// Follows the markers from the first grain to the end of the stream.
///
/// Errors: `Corrupt` if a grain stands twice; `Limit` past `list_steps_max`.
pub(crate) fn by_markers(
    name: &str,
    file: &Arc<dyn Disk>,
    header: &Hosted,
    coding: &Coding,
    parent: Option<Arc<dyn Disk>>,
    budget: &mut Budget,
    notes: &mut Vec<Finding>,
) -> Result<MarkerMap> {
    let mut walked = walk(file, header, coding, budget)?;
    walked.grains.sort_unstable();
    let twice = walked.grains.windows(2).find_map(|pair| match pair {
        [a, b] if a.0 == b.0 => Some(a.0),
        _ => None,
    });
    if let Some(grain) = twice {
        let detail = format!("the stream holds grain {grain} twice");
        return Err(Error::corrupt(Problem::Overlaps, detail).at(Place::new("grain marker")));
    }
    budget.take(wide(walked.grains.len()).saturating_mul(8))?;
    let from = match walked.grains.last() {
        Some(&(grain, _)) if walked.ascending => {
            u64::from(grain).saturating_add(1).saturating_mul(header.grain_bytes)
        }
        _ => 0,
    };
    let cut = walked.stopped.map(|error| (from, error));
    if let Some((from, error)) = &cut {
        let text = format!(
            "the stream ends without its end marker ({}); what it does not hold from byte \
             {from:#x} of the extent on is lost",
            error.detail()
        );
        let mut note = Finding::error("vmdk-stream-cut", text).advise("get a complete copy");
        note.place = error.place().cloned();
        notes.push(note);
    }
    Ok(MarkerMap {
        name: name.to_owned(),
        size_bytes: header.capacity_bytes,
        file: Arc::clone(file),
        coding: coding.clone(),
        parent,
        grains: walked.grains,
        cut,
    })
}

fn walk(
    file: &Arc<dyn Disk>,
    header: &Hosted,
    coding: &Coding,
    budget: &mut Budget,
) -> Result<Walked> {
    let mut walked = Walked { ascending: true, ..Walked::default() };
    let mut directory_passed = false;
    // The first grain follows the overhead; where that is missing, the descriptor.
    let mut at = match header.raw.overhead {
        0 => header.descriptor.end.max(SECTOR_BYTES),
        sectors => bytes_of(sectors, "overhead")?,
    };
    loop {
        budget.marker_steps_left = budget.marker_steps_left.checked_sub(1).ok_or_else(|| {
            Error::limit("list_steps_max", "too many markers stand in the stream")
                .at(Place::new("marker").byte(at))
        })?;
        match step(file, header, coding, at) {
            Ok(Step::End) => {
                if !directory_passed && !ends_here(file, header, at) {
                    let detail = "zeros follow where the stream should go on";
                    let error = Error::corrupt(Problem::Truncated, detail);
                    walked.stopped = Some(error.at(Place::new("marker").byte(at)));
                }
                return Ok(walked);
            }
            Ok(Step::Skip { next, directory }) => {
                directory_passed |= directory;
                at = next;
            }
            Ok(Step::Grain { number, sector, next }) => {
                walked.ascending &= walked.grains.last().is_none_or(|last| last.0 < number);
                walked.grains.push((number, sector));
                at = next;
            }
            Err(error) => {
                walked.stopped = Some(error.at(Place::new("marker").byte(at)));
                return Ok(walked);
            }
        }
    }
}

/// Whether the end marker at `at` is one, though no directory went before it. A copy that was
/// broken off is often filled up with zeros, as an end marker is.
fn ends_here(file: &Arc<dyn Disk>, header: &Hosted, at: u64) -> bool {
    let left = file.size_bytes().saturating_sub(at);
    left <= if header.directory_at_end() { SECTOR_BYTES } else { PADDING_MAX }
}

enum Step {
    End,
    /// `directory`: what follows stands behind the last grain.
    Skip {
        next: u64,
        directory: bool,
    },
    Grain {
        number: u32,
        sector: u32,
        next: u64,
    },
}

/// Reads one marker; `next` lies behind it, always.
fn step(file: &Arc<dyn Disk>, header: &Hosted, coding: &Coding, at: u64) -> Result<Step> {
    let bad = |what: String| Error::corrupt(Problem::BadValue, what);
    let marker = Marker::read(&file.read_prefix(at, Marker::SIZE)?)?;
    if marker.size == 0 {
        let length = match marker.kind {
            MARKER_END if marker.value == 0 => return Ok(Step::End),
            // Some writers leave the number of sectors out.
            MARKER_TABLE if marker.value == 0 => header.entries.saturating_mul(4),
            MARKER_DIRECTORY if marker.value == 0 => header.tables.saturating_mul(4),
            MARKER_FOOTER if marker.value == 0 => SECTOR_BYTES,
            MARKER_TABLE | MARKER_DIRECTORY | MARKER_FOOTER | MARKER_PROGRESS => {
                bytes_of(marker.value, "value")?
            }
            kind => return Err(bad(format!("a marker is of kind {kind}"))),
        };
        let next = at.checked_add(SECTOR_BYTES).and_then(|at| at.checked_add(length));
        let next = next.and_then(|next| next.checked_next_multiple_of(SECTOR_BYTES));
        let next = next.ok_or_else(|| bad(format!("{length} bytes should follow")))?;
        let directory = matches!(marker.kind, MARKER_DIRECTORY | MARKER_FOOTER);
        return Ok(Step::Skip { next, directory });
    }
    let size = u64::from(marker.size);
    if size > coding.length_max() {
        return Err(bad(format!("{size} bytes are announced for a grain")));
    }
    let grain_sectors = header.raw.grain_size.max(1);
    let aligned = marker.value.checked_rem(grain_sectors) == Some(0);
    if marker.value >= header.raw.capacity || !aligned {
        return Err(bad(format!("a grain of sector {} cannot be", marker.value)));
    }
    let number = marker.value.checked_div(grain_sectors).and_then(|n| u32::try_from(n).ok());
    let sector = at.checked_div(SECTOR_BYTES).and_then(|sector| u32::try_from(sector).ok());
    let (Some(number), Some(sector)) = (number, sector) else {
        return Err(Error::unsupported("the stream is larger than its tables could say"));
    };
    let end = at.saturating_add(MARKER_DATA).saturating_add(size);
    if end > file.size_bytes() {
        return Err(Error::corrupt(Problem::Truncated, "the file ends within a grain"));
    }
    let next = end.checked_next_multiple_of(SECTOR_BYTES).unwrap_or(u64::MAX);
    Ok(Step::Grain { number, sector, next })
}

impl MarkerMap {
    fn absent(&self, start: u64, end: u64) -> Run {
        let kind = if self.parent.is_some() { RunKind::Parent } else { RunKind::Hole };
        match &self.cut {
            Some((from, _)) if start < *from => {
                Run { start, length: end.min(*from).saturating_sub(start), kind }
            }
            Some((_, error)) => {
                let detail = format!("the stream was cut off: {}", error.detail());
                let lost = Error::new(Kind::Lost, Problem::Truncated, detail)
                    .at(error.place().cloned().unwrap_or_default());
                let kind = RunKind::Lost(lost);
                Run { start, length: end.saturating_sub(start), kind }
            }
            None => Run { start, length: end.saturating_sub(start), kind },
        }
    }

    fn start_of(&self, grain: u32) -> u64 {
        u64::from(grain).saturating_mul(self.coding.grain_bytes)
    }
}

impl ExtentMap for MarkerMap {
    fn geometry(&self) -> Geometry {
        Geometry::of_size(self.size_bytes)
    }

    fn lookup(&self, offset: u64, _at_most: u64) -> Result<Run> {
        let after = self.grains.partition_point(|&(grain, _)| self.start_of(grain) <= offset);
        let next = self.grains.get(after).map_or(self.size_bytes, |next| self.start_of(next.0));
        let before = after.checked_sub(1).and_then(|index| self.grains.get(index));
        let Some(&(grain, sector)) = before else { return Ok(self.absent(offset, next)) };
        let start = self.start_of(grain);
        let end = start.saturating_add(self.coding.grain_bytes).min(self.size_bytes);
        if offset >= end {
            return Ok(self.absent(offset, next));
        }
        let token = u64::from(sector).saturating_mul(SECTOR_BYTES);
        let length = end.saturating_sub(start);
        Ok(Run { start, length, kind: RunKind::Encoded { token } })
    }

    fn source(&self, index: usize) -> Option<&Arc<dyn Disk>> {
        (index == 0).then_some(&self.file)
    }

    fn parent(&self) -> Option<&Arc<dyn Disk>> {
        self.parent.as_ref()
    }

    fn decode(&self, run: &Run, buf: &mut [u8]) -> Result<()> {
        let RunKind::Encoded { token } = run.kind else {
            return Err(Error::unsupported("the run is not compressed"));
        };
        self.coding.decode(&self.file, token, run.start, buf)
    }

    fn name(&self) -> String {
        self.name.clone()
    }

    fn steps(&self, _offset: u64) -> Result<Vec<String>> {
        Ok(vec![format!("one of {} markers in the stream", self.grains.len())])
    }
}
