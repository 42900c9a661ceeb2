//! What every kind of table comes down to, and how it becomes slices.

use adit_core::{Disk, DiskExt, Finding, Place, Slice, Volume, VolumeTable};
use std::sync::Arc;

/// A partition as its table states it.
#[derive(Clone, Debug)]
pub(crate) struct Partition {
    pub number: u64,
    pub label: String,
    pub uuid: String,
    pub kind: String,
    /// Unit: bytes.
    pub start: u64,
    /// Unit: bytes.
    pub size: u64,
    /// Whether others may lie inside it: an extended or a whole-disk partition.
    pub container: bool,
}

impl Partition {
    fn end(&self) -> u64 {
        self.start.saturating_add(self.size)
    }
}

/// A table that was read.
#[derive(Debug)]
pub(crate) struct Table {
    pub format: &'static str,
    pub uuid: String,
    /// Unit: bytes.
    pub sector_size: u32,
    pub partitions: Vec<Partition>,
    pub notes: Vec<Finding>,
}

impl Table {
    /// Checks the partitions against the disk and each other and cuts the slices.
    pub(crate) fn finish(mut self, disk: &Arc<dyn Disk>) -> VolumeTable {
        self.note_beyond_end(disk.size_bytes());
        self.note_overlaps();
        let volumes = self.partitions.iter().map(|partition| {
            let name = format!("{} partition {}", self.format, partition.number);
            Volume {
                name: format!("p{}", partition.number),
                label: partition.label.clone(),
                uuid: partition.uuid.clone(),
                kind: partition.kind.clone(),
                offset: Some(partition.start),
                disk: Slice::open(name, Arc::clone(disk), partition.start, partition.size),
            }
        });
        let volumes = volumes.collect();
        VolumeTable {
            format: self.format,
            uuid: self.uuid,
            sector_size_bytes: self.sector_size,
            volumes,
            notes: self.notes,
        }
    }

    fn place(&self, partition: &Partition) -> Place {
        Place::new(format!("{} partition", self.format)).index(partition.number)
    }

    fn note_beyond_end(&mut self, disk_size: u64) {
        let cut = self.partitions.iter().filter(|partition| partition.end() > disk_size);
        let findings: Vec<_> = cut
            .map(|partition| {
                let text = format!(
                    "ends at byte {:#x}, but the disk at byte {disk_size:#x}; the rest is lost",
                    partition.end()
                );
                Finding::error("partition-beyond-end", text)
                    .at(self.place(partition).byte(partition.start))
                    .advise("the image or device was cut short; get a complete copy")
            })
            .collect();
        self.notes.extend(findings);
    }

    fn note_overlaps(&mut self) {
        let mut order: Vec<&Partition> =
            self.partitions.iter().filter(|partition| !partition.container).collect();
        order.sort_by_key(|partition| (partition.start, partition.number));
        let mut findings = Vec::new();
        let mut reaches: Option<&Partition> = None;
        for partition in order {
            if let Some(before) = reaches.filter(|before| before.end() > partition.start) {
                let text =
                    format!("starts inside partition {}; one of them is wrong", before.number);
                findings.push(
                    Finding::error("partition-overlap", text)
                        .at(self.place(partition).byte(partition.start))
                        .advise("trust neither until their contents have been checked"),
                );
            }
            if reaches.is_none_or(|before| partition.end() > before.end()) {
                reaches = Some(partition);
            }
        }
        self.notes.extend(findings);
    }
}

/// The sector sizes worth trying, the disk's own first. Unit: bytes.
pub(crate) fn sector_sizes(disk: &Arc<dyn Disk>) -> Vec<u32> {
    let own = disk.geometry().sector_size_bytes;
    let mut sizes = Vec::new();
    for size in [own, 512, 4096] {
        if (512..=65536).contains(&size) && size.is_power_of_two() && !sizes.contains(&size) {
            sizes.push(size);
        }
    }
    sizes
}

/// `count` units of `unit_bytes` as bytes, or nothing past 2^64.
pub(crate) fn to_bytes(count: u64, unit_bytes: u32) -> Option<u64> {
    count.checked_mul(u64::from(unit_bytes))
}
