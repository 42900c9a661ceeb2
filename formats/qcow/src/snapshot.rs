//! Internal snapshots.

use crate::header::{Header, L1Place};
use crate::layout::SnapshotEntry;
use crate::power::Power;
use adit_core::bytes::{narrow, u64_be, wide};
use adit_core::{Disk, DiskExt, Error, Limits, Place, Problem, Result};
use std::ops::Range;

/// A snapshot inside an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Unique within the image, a number in all images seen.
    pub id: Vec<u8>,
    /// What the user called it; need not be unique, may be empty.
    pub name: Vec<u8>,
    /// When it was taken. Unit: seconds since 1970.
    pub date_seconds: u32,
    /// Rest of the date. Unit: nanoseconds.
    pub date_nanoseconds: u32,
    /// How long the guest had run. Unit: nanoseconds.
    pub vm_clock_nanoseconds: u64,
    /// Size of the machine state stored with it, 0 if there is none. Unit: bytes.
    pub vm_state_bytes: u64,
    /// Size of the disk then. Unit: bytes.
    pub disk_size_bytes: u64,
    pub(crate) l1: L1Place,
    /// Where its entry stands. Unit: bytes of the file.
    pub(crate) entry: Range<u64>,
}

impl Snapshot {
    /// The id for a person.
    pub fn id_text(&self) -> String {
        String::from_utf8_lossy(&self.id).into_owned()
    }

    /// The name for a person.
    pub fn name_text(&self) -> String {
        String::from_utf8_lossy(&self.name).into_owned()
    }
}

/// Bounds of QEMU.
const EXTRA_BYTES_MAX: u32 = 1024;
const TABLE_BYTES_MAX: u64 = 64 << 20;
const PADDING: Power = Power::new(3);

/// Reads the snapshot table.
///
/// Errors: `Corrupt` where the file ends inside it; `Limit`.
pub(crate) fn read(file: &dyn Disk, header: &Header, limits: &Limits) -> Result<Vec<Snapshot>> {
    read_with_length(file, header, limits).map(|(snapshots, _)| snapshots)
}

/// Reads the snapshot table, and tells how long it is. Unit: bytes.
pub(crate) fn read_with_length(
    file: &dyn Disk,
    header: &Header,
    limits: &Limits,
) -> Result<(Vec<Snapshot>, u64)> {
    let mut found = Vec::new();
    let mut at = header.snapshots_offset;
    let bytes_max = TABLE_BYTES_MAX.min(limits.table_bytes_max);
    for index in 0..u64::from(header.snapshots) {
        let place = Place::new("snapshot table").index(index).byte(at);
        let (mut snapshot, length) =
            read_one(file, header, at).map_err(|error| error.at(place.clone()))?;
        snapshot.entry = at..at.saturating_add(length);
        found.push(snapshot);
        at = at.saturating_add(length);
        if at.saturating_sub(header.snapshots_offset) > bytes_max {
            let detail = format!("a snapshot table of more than {bytes_max} bytes");
            return Err(Error::limit("table_bytes_max", detail).at(place));
        }
    }
    Ok((found, at.saturating_sub(header.snapshots_offset)))
}

fn read_one(file: &dyn Disk, header: &Header, at: u64) -> Result<(Snapshot, u64)> {
    let raw = SnapshotEntry::read(&file.read_prefix(at, SnapshotEntry::SIZE)?)?;
    if raw.extra_data_size > EXTRA_BYTES_MAX {
        let detail = format!("{} bytes of extra data; 1024 are allowed", raw.extra_data_size);
        return Err(Error::corrupt(Problem::TooMany, detail));
    }
    let extra = narrow(u64::from(raw.extra_data_size)).unwrap_or(0);
    let id_end = extra.saturating_add(usize::from(raw.id_size));
    let end = id_end.saturating_add(usize::from(raw.name_size));
    let tail = file.read_prefix(at.saturating_add(wide(SnapshotEntry::SIZE)), end)?;
    let part = |from, to| {
        tail.get(from..to).ok_or_else(|| {
            Error::corrupt(Problem::Truncated, "the file ends inside the snapshot table")
        })
    };
    let (extra, id, name) = (part(0, extra)?, part(extra, id_end)?, part(id_end, end)?);
    let state = u64_be(extra, 0).unwrap_or(u64::from(raw.vm_state_size));
    let snapshot = Snapshot {
        id: id.to_vec(),
        name: name.to_vec(),
        date_seconds: raw.date_seconds,
        date_nanoseconds: raw.date_nanoseconds,
        vm_clock_nanoseconds: raw.vm_clock,
        vm_state_bytes: state,
        disk_size_bytes: u64_be(extra, 8).unwrap_or(header.size_bytes),
        l1: L1Place { offset: raw.l1_table_offset, entries: u64::from(raw.l1_size) },
        entry: 0..0,
    };
    let length = PADDING.times(PADDING.count(wide(SnapshotEntry::SIZE.saturating_add(end))));
    Ok((snapshot, length))
}

/// The snapshot with that id, or else with that name.
///
/// Errors: `NotFound`, listing those there are; `Invalid` when several have that name.
pub(crate) fn find<'a>(snapshots: &'a [Snapshot], wanted: &[u8]) -> Result<&'a Snapshot> {
    if let Some(snapshot) = snapshots.iter().find(|snapshot| snapshot.id == wanted) {
        return Ok(snapshot);
    }
    let text = String::from_utf8_lossy(wanted);
    let mut named = snapshots.iter().filter(|snapshot| snapshot.name == wanted);
    match (named.next(), named.next()) {
        (Some(snapshot), None) => Ok(snapshot),
        (Some(_), Some(_)) => {
            let detail = format!("several snapshots are called {text:?}");
            Err(Error::invalid(Problem::Ambiguous, detail).advise("name it by its id"))
        }
        (None, _) => {
            const LISTED: usize = 20;
            let list: Vec<String> = snapshots
                .iter()
                .take(LISTED)
                .map(|snapshot| format!("{} ({:?})", snapshot.id_text(), snapshot.name_text()))
                .collect();
            let error = Error::not_found(format!("there is no snapshot {text:?}"));
            Err(match list.is_empty() {
                true => error.advise("the image has no snapshots"),
                false => error.advise(format!("there are: {}", list.join(", "))),
            })
        }
    }
}
