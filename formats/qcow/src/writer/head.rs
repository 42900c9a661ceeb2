//! Rewriting the header cluster: fields, extensions, and the name of the backing file.
//!
//! A sector reaches the medium whole or not at all. What changes is therefore brought into the
//! first sector where it fits, and a name that does not is written beside the old one before.

use super::state::State;
use crate::create::put_extension;
use crate::layout::{ExtensionHead, extension};
use adit_core::bytes::{narrow, u32_be, wide};
use adit_core::{Change, Disk, DiskExt, Error, Place, Problem, Result, Stage};
use std::ops::Range;

/// What the header is to say of the backing file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Backing {
    pub(crate) name: Vec<u8>,
    /// Empty: not recorded.
    pub(crate) format: Vec<u8>,
}

/// A header cluster, taken apart.
#[derive(Debug)]
pub(crate) struct Head {
    /// The fields.
    fields: Vec<u8>,
    extensions: Vec<(u32, Vec<u8>)>,
    /// Where extensions and the name stand now. Unit: bytes.
    old_extensions: Range<u64>,
    old_name: Range<u64>,
    cluster_bytes: u64,
    backing: Option<Backing>,
}

const SECTOR: u64 = 512;
const NAME_BYTES_MAX: usize = 1023;
const VERSION_2_BYTES: u64 = 72;
const VERSION_3_BYTES: u64 = 104;

impl Head {
    /// Reads the header cluster as it stands on the medium.
    pub(crate) fn read(file: &dyn Disk, state: &State) -> Result<Head> {
        let cluster_bytes = state.cluster().size();
        let bytes = file.read_prefix(0, narrow(cluster_bytes).unwrap_or(0))?;
        let length = match state.header.version {
            2 => VERSION_2_BYTES,
            _ => u64::from(u32_be(&bytes, 100).unwrap_or(0)),
        };
        let fields = part(&bytes, 0..length)?;
        let old_name = state.header.backing.clone().unwrap_or(0..0);
        let mut area = bytes.clone();
        if !old_name.is_empty() {
            area.truncate(narrow(old_name.start).unwrap_or(0));
        }
        let (mut extensions, mut at) = (Vec::new(), length);
        while let Some(kind) = u32_be(&area, narrow(at).unwrap_or(0)) {
            let start = at.saturating_add(wide(ExtensionHead::SIZE));
            if kind == extension::END {
                at = start;
                break;
            }
            let size = u32_be(&area, narrow(at.saturating_add(4)).unwrap_or(0)).unwrap_or(0);
            let end = start.saturating_add(u64::from(size));
            extensions.push((kind, part(&area, start..end)?));
            at = end.next_multiple_of(8);
        }
        let backing = match old_name.is_empty() {
            true => None,
            false => {
                let format = extensions.iter().find(|(kind, _)| *kind == extension::BACKING_FORMAT);
                let format = format.map(|(_, data)| data.clone()).unwrap_or_default();
                Some(Backing { name: part(&bytes, old_name.clone())?, format })
            }
        };
        let old_extensions = length..at;
        Ok(Head { fields, extensions, old_extensions, old_name, cluster_bytes, backing })
    }

    /// What it says of the backing file.
    pub(crate) fn backing(&self) -> Option<&Backing> {
        self.backing.as_ref()
    }

    /// Names another backing file, or none.
    ///
    /// Errors: `Invalid` for names that are too long.
    pub(crate) fn set_backing(&mut self, backing: Option<Backing>) -> Result<()> {
        if let Some(backing) = &backing
            && !(1..=NAME_BYTES_MAX).contains(&backing.name.len())
        {
            let detail = format!("a name of {} bytes; 1 to 1023 are allowed", backing.name.len());
            return Err(Error::invalid(Problem::OutOfRange, detail).at(place()));
        }
        self.extensions.retain(|(kind, _)| *kind != extension::BACKING_FORMAT);
        if let Some(backing) = backing.as_ref().filter(|it| !it.format.is_empty()) {
            self.extensions.insert(0, (extension::BACKING_FORMAT, backing.format.clone()));
        }
        self.backing = backing;
        Ok(())
    }

    /// Replaces the data of an extension, or takes it out.
    pub(crate) fn set_extension(&mut self, wanted: u32, data: Option<Vec<u8>>) {
        self.extensions.retain(|(kind, _)| *kind != wanted);
        if let Some(data) = data {
            self.extensions.push((wanted, data));
        }
    }

    /// Changes bytes of the fields.
    pub(crate) fn set_field(&mut self, at: usize, bytes: &[u8]) {
        if let Some(room) = self.fields.get_mut(at..).and_then(|it| it.get_mut(..bytes.len())) {
            room.copy_from_slice(bytes);
        }
    }

    /// From version 2 to 3.
    pub(crate) fn make_version_3(&mut self) {
        self.fields.resize(narrow(VERSION_3_BYTES).unwrap_or(104), 0);
        self.set_field(4, &3u32.to_be_bytes());
        // Refcounts of 16 bits, all that version 2 has.
        self.set_field(96, &4u32.to_be_bytes());
        self.set_field(100, &104u32.to_be_bytes());
    }

    /// What brings it to the medium, and where the name then stands.
    ///
    /// Errors: `Invalid` where the first cluster cannot hold it.
    pub(crate) fn write(mut self) -> Result<(Vec<Stage>, Option<Range<u64>>)> {
        let mut front = self.front();
        if wide(front.len()) > SECTOR {
            // Names of feature bits are for people alone.
            let (names, needed): (Vec<_>, Vec<_>) = std::mem::take(&mut self.extensions)
                .into_iter()
                .partition(|(kind, _)| *kind == extension::FEATURE_NAMES);
            self.extensions = needed;
            if wide(self.front().len()) > SECTOR {
                self.extensions.extend(names);
            }
            front = self.front();
        }
        let Some(backing) = self.backing.take() else {
            set(&mut front, 8, &[0; 12]);
            return self.fits(wide(front.len())).map(|()| (vec![vec![at(0, front)]], None));
        };
        let (name, end) = (backing.name, wide(front.len()));
        let length = wide(name.len());
        let start = self.room(end, length);
        self.fits(start.saturating_add(length))?;
        set(&mut front, 8, &start.to_be_bytes());
        set(&mut front, 16, &u32::try_from(length).unwrap_or(0).to_be_bytes());
        let placed = Some(start..start.saturating_add(length));
        if start == end {
            front.extend(name);
            return Ok((vec![vec![at(0, front)]], placed));
        }
        Ok((vec![vec![at(start, name)], vec![at(0, front)]], placed))
    }

    /// Fields and extensions.
    fn front(&self) -> Vec<u8> {
        let mut bytes = self.fields.clone();
        for (kind, data) in &self.extensions {
            put_extension(&mut bytes, *kind, data);
        }
        bytes.extend([0; ExtensionHead::SIZE]);
        bytes
    }

    /// Where a name goes: into the first sector, or where nothing stands that is still needed.
    fn room(&self, end: u64, length: u64) -> u64 {
        let fits = |start: u64| start.saturating_add(length) <= self.cluster_bytes;
        if end.saturating_add(length) <= SECTOR {
            return end;
        }
        let before = end.max(SECTOR).max(self.old_extensions.end).next_multiple_of(8);
        if before.saturating_add(length) <= self.old_name.start {
            return before;
        }
        let behind = before.max(self.old_name.end).next_multiple_of(8);
        match fits(behind) {
            true => behind,
            // Over the old name, in one go with the rest: the last resort of small clusters.
            false => end,
        }
    }

    fn fits(&self, end: u64) -> Result<()> {
        if end <= self.cluster_bytes {
            return Ok(());
        }
        let detail = format!(
            "header and names need {end} bytes; the first cluster has {}",
            self.cluster_bytes
        );
        Err(Error::invalid(Problem::OutOfRange, detail)
            .at(place())
            .advise("a shorter name, for example a relative one"))
    }
}

fn place() -> Place {
    Place::new("QCOW header").field("backing file name")
}

fn at(offset: u64, bytes: Vec<u8>) -> Change {
    Change::Write { file: 0, offset, bytes }
}

fn set(bytes: &mut [u8], start: usize, value: &[u8]) {
    if let Some(room) = bytes.get_mut(start..).and_then(|it| it.get_mut(..value.len())) {
        room.copy_from_slice(value);
    }
}

fn part(bytes: &[u8], range: Range<u64>) -> Result<Vec<u8>> {
    let found = narrow(range.start).zip(narrow(range.end)).and_then(|(a, b)| bytes.get(a..b));
    found.map(<[u8]>::to_vec).ok_or_else(|| {
        let detail = format!("{:#x} to {:#x} leaves the first cluster", range.start, range.end);
        Error::corrupt(Problem::OutOfRange, detail).at(Place::new("QCOW header"))
    })
}
