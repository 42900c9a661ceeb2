//! Sun disk label.

use crate::layout::{SUN_MAGIC, SUN_VTOC_SANITY, SunLabel};
use crate::table::{Partition, Table};
use crate::types::sun_kind;
use adit_core::bytes::{u16_be, until_nul};
use adit_core::{Finding, Place};

/// The tag of the slice that stands for the whole disk.
const WHOLE_DISK: u16 = 5;

/// A valid label, or nothing.
pub(crate) fn parse(sector: &[u8]) -> Option<SunLabel> {
    let label = SunLabel::read(sector).ok()?;
    let geometry = label.cylinder_tracks != 0 && label.track_sectors != 0;
    (label.magic == SUN_MAGIC && checksum(sector) == 0 && geometry).then_some(label)
}

/// XOR of all words; zero when the label is whole.
pub(crate) fn checksum(sector: &[u8]) -> u16 {
    (0..SunLabel::SIZE)
        .step_by(2)
        .filter_map(|at| u16_be(sector, at))
        .fold(0, |sum, word| sum ^ word)
}

impl SunLabel {
    /// Sectors in a cylinder; spare sectors are already left out of `track_sectors`.
    fn cylinder_sectors(&self) -> u64 {
        u64::from(self.cylinder_tracks).saturating_mul(u64::from(self.track_sectors))
    }

    /// Builds the table.
    pub(crate) fn table(&self) -> Table {
        let mut table = Table {
            format: "Sun",
            uuid: String::new(),
            sector_size: 512,
            partitions: Vec::new(),
            notes: Vec::new(),
        };
        let name = until_nul(&self.volume_name);
        if !name.is_empty() {
            let text = format!("the label calls the disk {:?}", String::from_utf8_lossy(name));
            table.notes.push(Finding::info("sun-volume-name", text));
        }
        let tagged = self.vtoc_sanity == SUN_VTOC_SANITY;
        if !tagged {
            let text = "the label has no VTOC, so the types of its slices are unknown";
            table
                .notes
                .push(Finding::info("sun-no-vtoc", text).at(Place::new("Sun label").byte(0)));
        }
        let tags = self.vtoc_tags.chunks_exact(2).map(|pair| pair.first().copied().unwrap_or(0));
        for ((number, &[cylinder, sectors]), tag) in (1..).zip(&self.partitions).zip(tags) {
            if sectors == 0 {
                continue;
            }
            let kind = if tagged { sun_kind(tag) } else { "unknown".to_owned() };
            // 2^32 cylinders of 2^32 sectors of 512 bytes would not fit; such a slice starts
            // past any end and is reported there.
            let first = u64::from(cylinder).saturating_mul(self.cylinder_sectors());
            table.partitions.push(Partition {
                number,
                label: format!("s{}", number.saturating_sub(1)),
                uuid: String::new(),
                kind,
                start: first.saturating_mul(512).min(u64::MAX >> 1),
                size: u64::from(sectors).saturating_mul(512),
                container: (tagged && tag == WHOLE_DISK) || number == 3,
            });
        }
        table
    }
}
