//! L2 entries → where a piece of a cluster is.

use crate::header::Header;
use crate::layout::{entry, incompatible};
use crate::power::Power;
use adit_core::{Error, Problem};
use std::ops::Range;

/// Where a piece of a guest cluster is.
#[derive(Clone, Debug)]
pub(crate) enum Unit {
    /// In the backing file, or nowhere.
    Unallocated,
    /// Nowhere; zeros that hide the backing file.
    ZeroPlain,
    /// Space is set aside; zeros.
    ZeroAllocated,
    /// In the data file, from this byte on.
    Data(u64),
    /// Compressed; the entry itself tells where.
    Compressed(u64),
    /// The entry contradicts the format. Place is the caller's to add.
    Bad(Error),
}

/// A raw L2 entry; `bitmap` is its second word where there is one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RawEntry {
    pub(crate) word: u64,
    pub(crate) bitmap: u64,
}

/// How to read L2 entries of one image.
#[derive(Clone, Debug)]
pub(crate) struct EntryKind {
    version: u32,
    cluster: Power,
    extended: bool,
    data_file: bool,
    /// Metadata at fixed places, which no guest data may overlap.
    reserved: Vec<Range<u64>>,
}

/// Where the bytes of a compressed cluster are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Packed {
    pub(crate) offset: u64,
    /// At most this many bytes; the stream may end before.
    pub(crate) length: u64,
}

/// Subclusters of a cluster in extended L2 entries.
const SUBCLUSTERS: Power = Power::new(5);
/// Compressed data is counted in these.
const SECTOR: Power = Power::new(9);

impl EntryKind {
    pub(crate) fn new(header: &Header) -> Self {
        let l1_length = header.l1.entries.saturating_mul(8);
        let l1 = header.l1.offset..header.l1.offset.saturating_add(l1_length);
        let first = match header.version {
            1 => 0..48,
            _ => 0..header.cluster.size(),
        };
        EntryKind {
            version: header.version,
            cluster: header.cluster,
            extended: header.needs(incompatible::EXTENDED_L2),
            data_file: header.needs(incompatible::DATA_FILE),
            reserved: vec![first, l1, header.refcount_table.clone()],
        }
    }

    /// The offset of the L2 table that an L1 entry names; `None` if there is no table.
    ///
    /// Errors: an offset that is misaligned, or inside other metadata.
    pub(crate) fn l2_table(&self, l1_entry: u64, table_bytes: u64) -> Result<Option<u64>, Error> {
        let offset = match self.version {
            1 => l1_entry,
            _ => l1_entry & entry::OFFSET,
        };
        if offset == 0 {
            return Ok(None);
        }
        self.check_aligned(offset, "an L2 table")?;
        self.check_free(offset, table_bytes, "an L2 table")?;
        Ok(Some(offset))
    }

    /// What an entry says of the piece of its cluster that holds the byte `within`, and which
    /// piece that is. Units: bytes inside the cluster, whose first byte is `guest`.
    pub(crate) fn piece(&self, raw: RawEntry, guest: u64, within: u64) -> (Unit, Range<u64>) {
        let whole = 0..self.cluster.size();
        if self.version == 1 {
            return (self.whole_v1(raw.word), whole);
        }
        if raw.word & entry::COMPRESSED != 0 {
            return (self.compressed(raw.word), whole);
        }
        let host = raw.word & entry::OFFSET;
        // With a data file offset 0 is a place like any other: the first cluster's.
        let allocated = host != 0 || (self.data_file && raw.word & entry::COPIED != 0);
        if allocated && let Err(error) = self.check_data(host, guest) {
            return (Unit::Bad(error), whole);
        }
        if self.extended {
            return self.subclusters(raw.bitmap, allocated.then_some(host), within);
        }
        let zero = raw.word & entry::ZERO != 0;
        if zero && self.version == 2 {
            let detail = "an entry of version 2 has the zero bit of version 3";
            return (Unit::Bad(Error::corrupt(Problem::BadValue, detail)), whole);
        }
        let unit = match (allocated, zero) {
            (true, true) => Unit::ZeroAllocated,
            (false, true) => Unit::ZeroPlain,
            (true, false) => Unit::Data(host),
            (false, false) => Unit::Unallocated,
        };
        (unit, whole)
    }

    /// Where the bytes of a compressed cluster are, from its L2 entry.
    pub(crate) fn packed(&self, word: u64) -> Packed {
        let bits = self.cluster.bits();
        if self.version == 1 {
            let split = Power::new(63u32.saturating_sub(bits));
            let length = self.cluster.within(split.index(word & !entry::COMPRESSED_V1));
            return Packed { offset: split.within(word), length };
        }
        let split = Power::new(70u32.saturating_sub(bits));
        let sectors = split.index(word & !(entry::COPIED | entry::COMPRESSED));
        let offset = split.within(word);
        let length = SECTOR.times(sectors.saturating_add(1)).saturating_sub(SECTOR.within(offset));
        Packed { offset, length }
    }

    fn whole_v1(&self, word: u64) -> Unit {
        if word & entry::COMPRESSED_V1 != 0 {
            return self.compressed(word);
        }
        match word {
            0 => Unit::Unallocated,
            host => match self.check_data(host, 0) {
                Ok(()) => Unit::Data(host),
                Err(error) => Unit::Bad(error),
            },
        }
    }

    fn compressed(&self, word: u64) -> Unit {
        let packed = self.packed(word);
        if self.data_file {
            let detail = "a compressed cluster in an image with an external data file";
            return Unit::Bad(Error::corrupt(Problem::BadValue, detail));
        }
        if packed.length == 0 {
            let detail = "a compressed cluster of 0 bytes";
            return Unit::Bad(Error::corrupt(Problem::BadValue, detail));
        }
        // The last sector may be shared, but never with the metadata in front of it.
        match self.check_free(packed.offset, 1, "a compressed cluster") {
            Ok(()) => Unit::Compressed(word),
            Err(error) => Unit::Bad(error),
        }
    }

    fn subclusters(&self, bitmap: u64, host: Option<u64>, within: u64) -> (Unit, Range<u64>) {
        let (zero, data) = (bitmap.wrapping_shr(32), bitmap & 0xffff_ffff);
        let whole = 0..self.cluster.size();
        if zero & data != 0 {
            let detail = format!("subclusters are both zero and allocated: {bitmap:#018x}");
            return (Unit::Bad(Error::corrupt(Problem::BadValue, detail)), whole);
        }
        if host.is_none() && data != 0 {
            let detail = format!("subclusters are allocated, but no cluster: {bitmap:#018x}");
            return (Unit::Bad(Error::corrupt(Problem::BadValue, detail)), whole);
        }
        let unit = Power::new(self.cluster.bits().saturating_sub(SUBCLUSTERS.bits()));
        let index = unit.index(within);
        let alike = |other: u64| {
            let bit = |set: u64, index: u64| set.wrapping_shr(low32(index)) & 1;
            bit(zero, other) == bit(zero, index) && bit(data, other) == bit(data, index)
        };
        let first = (0..index).rev().find(|&other| !alike(other));
        let first = first.map_or(0, |other| other.saturating_add(1));
        let end = (index..SUBCLUSTERS.size()).find(|&other| !alike(other));
        let end = end.unwrap_or(SUBCLUSTERS.size());
        let bit = |set: u64| set.wrapping_shr(low32(index)) & 1 == 1;
        let start = unit.times(first);
        let kind = match (host, bit(zero), bit(data)) {
            (Some(host), _, true) => Unit::Data(host.saturating_add(start)),
            (Some(_), true, _) => Unit::ZeroAllocated,
            (None, true, _) => Unit::ZeroPlain,
            _ => Unit::Unallocated,
        };
        (kind, start..unit.times(end))
    }

    fn check_data(&self, host: u64, guest: u64) -> Result<(), Error> {
        self.check_aligned(host, "a data cluster")?;
        if !self.data_file {
            return self.check_free(host, self.cluster.size(), "a data cluster");
        }
        if host == guest {
            return Ok(());
        }
        let detail =
            format!("cluster {guest:#x} of the disk is at {host:#x} of the data file, not level");
        Err(Error::corrupt(Problem::Mismatch, detail))
    }

    fn check_aligned(&self, offset: u64, what: &str) -> Result<(), Error> {
        // Version 1 demands nothing; every writer keeps to sectors.
        let unit = if self.version == 1 { SECTOR } else { self.cluster };
        if unit.divides(offset) {
            return Ok(());
        }
        let detail = format!("{what} at {offset:#x}, which is no multiple of {}", unit.size());
        Err(Error::corrupt(Problem::Misaligned, detail))
    }

    fn check_free(&self, offset: u64, length: u64, what: &str) -> Result<(), Error> {
        let end = offset.saturating_add(length);
        match self.reserved.iter().find(|taken| offset < taken.end && taken.start < end) {
            None => Ok(()),
            Some(taken) => {
                let detail = format!(
                    "{what} at {offset:#x} lies over the metadata at {:#x} to {:#x}",
                    taken.start, taken.end
                );
                Err(Error::corrupt(Problem::Overlaps, detail))
            }
        }
    }
}

/// A shift count; counts are below 64.
fn low32(value: u64) -> u32 {
    u32::try_from(value & 63).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(version: u32, cluster_bits: u32, extended: bool) -> EntryKind {
        let cluster = Power::new(cluster_bits);
        EntryKind { version, cluster, extended, data_file: false, reserved: vec![] }
    }

    #[test]
    fn a_compressed_entry_counts_sectors_from_the_sector_it_begins_in() {
        // 64 KiB clusters: x = 62 - 8 = 54.
        let word = entry::COMPRESSED | (2 << 54) | 0x5_0123;
        let packed = kind(3, 16, false).packed(word);
        assert_eq!(packed, Packed { offset: 0x5_0123, length: 3 * 512 - 0x123 });
        // 2 MiB clusters: x = 62 - 13 = 49.
        let word = entry::COMPRESSED | (1 << 49) | 0x200;
        assert_eq!(kind(3, 21, false).packed(word), Packed { offset: 0x200, length: 1024 });
        // 512-byte clusters: x = 61, one bit of sectors.
        let word = entry::COMPRESSED | (1 << 61) | 0x3ff;
        assert_eq!(kind(3, 9, false).packed(word), Packed { offset: 0x3ff, length: 1024 - 0x1ff });
    }

    #[test]
    fn a_compressed_entry_of_version_1_counts_bytes() {
        let word = entry::COMPRESSED_V1 | (77 << 51) | 0x1234;
        assert_eq!(kind(1, 12, false).packed(word), Packed { offset: 0x1234, length: 77 });
    }

    #[test]
    fn subclusters_of_one_state_are_one_piece() {
        let kind = kind(3, 16, true);
        // Data in 0 to 3, zeros in 4 and 5, nothing behind.
        let raw = RawEntry { word: 0x10_0000, bitmap: 0xf | (0x30 << 32) };
        let piece = |within| kind.piece(raw, 0, within);
        let (unit, range) = piece(2048 * 2 + 5);
        assert!(matches!(unit, Unit::Data(0x10_0000)) && range == (0..8192), "{unit:?} {range:?}");
        let (unit, range) = piece(2048 * 5);
        assert!(matches!(unit, Unit::ZeroAllocated) && range == (8192..12288));
        let (unit, range) = piece(65535);
        assert!(matches!(unit, Unit::Unallocated) && range == (12288..65536));
    }

    #[test]
    fn a_subcluster_that_is_zero_and_allocated_is_corrupt() {
        let raw = RawEntry { word: 0x10_0000, bitmap: 1 | (1 << 32) };
        assert!(matches!(kind(3, 16, true).piece(raw, 0, 0).0, Unit::Bad(_)));
        let raw = RawEntry { word: 0, bitmap: 1 };
        assert!(matches!(kind(3, 16, true).piece(raw, 0, 0).0, Unit::Bad(_)));
    }
}
