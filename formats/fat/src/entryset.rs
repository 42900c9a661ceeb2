//! Directory entries of exFAT: sets of a file, its stream and its name.

use crate::chain::Runs;
use crate::layout::{FileEntry, SLOT_BYTES, StreamEntry, slot};
use crate::node::Node;
use crate::scan::{Entries, Found, Slot, Step};
use crate::time::zoned;
use crate::volume::Fat;
use adit_core::bytes::{narrow, u16_le, wide};
use adit_core::{DiskExt, Error, NodeId, Place, Problem, Result};

/// Units of a name in one slot.
const UNITS_PER_SLOT: usize = 15;
const NO_FAT_CHAIN: u8 = 2;
const ALLOCATION_POSSIBLE: u8 = 1;

/// A checked set.
#[derive(Clone, Debug)]
pub(crate) struct Set {
    pub name: Vec<u16>,
    pub node: Node,
}

/// Of all slots of a set but the checksum itself.
fn checksum(bytes: &[u8]) -> u16 {
    let counts = |at: usize| at != 2 && at != 3;
    bytes
        .iter()
        .enumerate()
        .filter(|(at, _)| counts(*at))
        .fold(0u16, |sum, (_, byte)| sum.rotate_right(1).wrapping_add(u16::from(*byte)))
}

/// Checks a set, whose slots are end to end in `bytes`.
fn parse(fs: &Fat, bytes: &[u8], position: u64) -> Result<Set> {
    let bad = |problem, detail: String| Err(Error::corrupt(problem, detail));
    let file = FileEntry::read(bytes)?;
    let sum = checksum(bytes);
    if sum != file.checksum {
        let detail = format!("entry set has checksum {sum:#06x}, not {:#06x}", file.checksum);
        return bad(Problem::BadChecksum, detail);
    }
    let (_, rest) = bytes.split_at_checked(32).unwrap_or((bytes, &[]));
    let stream = StreamEntry::read(rest)?;
    if stream.kind != slot::STREAM {
        return bad(Problem::BadValue, "the file's entry has no stream behind it".to_owned());
    }
    let mut name = Vec::new();
    for piece in
        rest.chunks_exact(32).skip(1).take_while(|piece| piece.first() == Some(&slot::NAME))
    {
        name.extend(
            (0..UNITS_PER_SLOT)
                .filter_map(|index| u16_le(piece, index.saturating_mul(2).saturating_add(2))),
        );
    }
    let length = usize::from(stream.name_length);
    if length == 0 || name.len() < length {
        let detail = format!("a name of {length} characters, of which {} are there", name.len());
        return bad(Problem::Truncated, detail);
    }
    name.truncate(length);
    let size = stream.length;
    let limit = fs.shape().cluster_bytes.get().saturating_mul(fs.shape().clusters.into());
    if stream.flags & ALLOCATION_POSSIBLE == 0 && (stream.cluster != 0 || size != 0) {
        let detail = "a file without allocation has clusters".to_owned();
        return bad(Problem::BadValue, detail);
    }
    if size > limit || stream.valid_length > size {
        let detail = format!("{size} bytes, of which {} are valid", stream.valid_length);
        return bad(Problem::OutOfRange, detail);
    }
    let node = Node {
        id: NodeId(position),
        attributes: file.attributes,
        first: stream.cluster,
        contiguous: stream.flags & NO_FAT_CHAIN != 0,
        length: size,
        valid: stream.valid_length,
        created: zoned(file.created, file.created_fine, file.created_zone),
        modified: zoned(file.modified, file.modified_fine, file.modified_zone),
        accessed: zoned(file.accessed, 0, file.accessed_zone),
    };
    Ok(Set { name, node })
}

fn place(position: u64) -> Place {
    Place::new("entry set").byte(position)
}

/// The next file or directory, or what cannot be read.
pub(crate) fn step(entries: &mut Entries<'_>) -> Option<Result<Found, Error>> {
    loop {
        let first = match entries.scan.step()? {
            Step::Gap(error) => return Some(Err(error)),
            Step::Slot(slot) => slot,
        };
        let [kind, ..] = first.bytes;
        if kind == 0 {
            return None;
        }
        if kind & slot::IN_USE == 0 || kind & slot::SECONDARY != 0 {
            // Free, or left over from a set whose start is gone.
            continue;
        }
        if kind == slot::FILE {
            return Some(set_at(entries, &first).map_err(|error| error.at(place(first.position))));
        }
        let known = matches!(kind, slot::BITMAP | slot::UPCASE | slot::LABEL);
        if !known && kind & slot::BENIGN == 0 {
            let detail = format!("directory entries of type {kind:#04x} are not known");
            return Some(Err(Error::unsupported(detail).at(place(first.position))));
        }
    }
}

fn set_at(entries: &mut Entries<'_>, first: &Slot) -> Result<Found> {
    let [_, count, ..] = first.bytes;
    let mut bytes = first.bytes.to_vec();
    for _ in 0..count {
        match entries.scan.step() {
            Some(Step::Slot(next)) if next.bytes.first().is_some_and(|k| is_secondary(*k)) => {
                bytes.extend_from_slice(&next.bytes);
            }
            Some(Step::Slot(next)) => {
                // What stands here belongs to somebody else.
                entries.scan.back_to(next.at);
                let detail = format!("entry set of {count} ends early");
                return Err(Error::corrupt(Problem::Truncated, detail));
            }
            Some(Step::Gap(error)) => return Err(error),
            None => {
                let detail = format!("entry set of {count} leaves the directory");
                return Err(Error::corrupt(Problem::Truncated, detail));
            }
        }
    }
    let set = parse(entries.fs, &bytes, first.position)?;
    Ok(Found { name: set.name, alias: None, node: set.node, after: entries.scan.at() })
}

fn is_secondary(kind: u8) -> bool {
    kind & (slot::IN_USE | slot::SECONDARY) == slot::IN_USE | slot::SECONDARY
}

/// Reads the set that starts at a byte of the volume.
///
/// A set that crosses into the next cluster goes on in the one beside it or in the one the FAT
/// names, depending on its directory; the checksum tells which.
///
/// Errors: `NotFound` where no set starts; `Corrupt` where neither way gives a sound one.
pub(crate) fn read(fs: &Fat, position: u64) -> Result<Set> {
    let shape = fs.shape();
    let disk = fs.disk();
    let head = disk.read_vec(position, 32).map_err(|error| error.at(place(position)))?;
    let (kind, count) = match head.as_slice() {
        [kind, count, ..] => (*kind, u64::from(*count)),
        _ => (0, 0),
    };
    if kind != slot::FILE {
        let detail = format!("no file's entry stands at byte {position:#x}");
        return Err(Error::not_found(detail).at(place(position)));
    }
    let wanted = count.saturating_add(1).saturating_mul(SLOT_BYTES);
    let Some(cluster) = shape.cluster_at(position) else {
        return Err(Error::not_found(format!("no cluster holds byte {position:#x}")));
    };
    let end = shape.cluster_offset(cluster).saturating_add(shape.cluster_bytes.get());
    let here = end.saturating_sub(position).min(wanted);
    let bytes = disk.read_vec(position, narrow(here).unwrap_or(0));
    let bytes = bytes.map_err(|error| error.at(place(position)))?;
    if here == wanted {
        return parse(fs, &bytes, position).map_err(|error| error.at(place(position)));
    }
    let rest = wanted.saturating_sub(here);
    let more = shape.clusters_of(rest);
    let start = shape.cluster_offset(cluster);
    let beside = fs.contiguous(cluster, more.saturating_add(1));
    let chained = fs.chain(cluster, Some(more.saturating_add(1)));
    let mut worst = Error::corrupt(Problem::Truncated, "the entry set leaves its directory");
    for runs in [chained, beside] {
        let within = position.saturating_sub(start);
        match read_over(fs, &runs, within, wanted).and_then(|bytes| parse(fs, &bytes, position)) {
            Ok(set) => return Ok(set),
            Err(error) => worst = error,
        }
    }
    Err(worst.at(place(position)))
}

/// Reads bytes that may stand in several pieces.
fn read_over(fs: &Fat, runs: &Runs, from: u64, length: u64) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    while wide(bytes.len()) < length {
        let at = from.saturating_add(wide(bytes.len()));
        let (Some(piece), Some(position)) = (runs.at(at), runs.position(at)) else {
            let detail = "the entry set leaves its directory";
            return Err(Error::corrupt(Problem::Truncated, detail));
        };
        let left = piece.start.saturating_add(piece.length).saturating_sub(at);
        let now = left.min(length.saturating_sub(wide(bytes.len())));
        bytes.extend(fs.disk().read_vec(position, narrow(now).unwrap_or(0))?);
    }
    Ok(bytes)
}
