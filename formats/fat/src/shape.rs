//! What both boot sectors come to: where everything is.

use adit_core::bytes::wide;
use std::num::NonZeroU64;

/// First cluster number that stands for data.
pub(crate) const FIRST_CLUSTER: u32 = 2;

/// Which of the four.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variant {
    /// Entries of 12 bits.
    Fat12,
    /// Entries of 16 bits.
    Fat16,
    /// Entries of 32 bits, of which 28 count.
    Fat32,
    /// exFAT.
    ExFat,
}

impl Variant {
    /// Its usual name.
    pub fn title(self) -> &'static str {
        match self {
            Variant::Fat12 => "FAT12",
            Variant::Fat16 => "FAT16",
            Variant::Fat32 => "FAT32",
            Variant::ExFat => "exFAT",
        }
    }

    /// Length of an entry of its FAT. Unit: bits.
    pub fn entry_bits(self) -> u64 {
        match self {
            Variant::Fat12 => 12,
            Variant::Fat16 => 16,
            Variant::Fat32 | Variant::ExFat => 32,
        }
    }
}

/// Where everything is, from a boot sector that makes sense. Units: bytes of the volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Which of the four.
    pub variant: Variant,
    /// Length of a sector, a power of two.
    pub sector_bytes: NonZeroU64,
    /// Length of a cluster, a power of two.
    pub cluster_bytes: NonZeroU64,
    /// Where the first FAT starts.
    pub fat_offset: u64,
    /// Length of one FAT.
    pub fat_bytes: u64,
    /// Number of FATs.
    pub fats: u8,
    /// The only FAT in use, where they are not copies of each other.
    pub active_fat: Option<u8>,
    /// The root directory of FAT12 and FAT16.
    pub root_offset: u64,
    /// Its length; 0 where the root directory is a chain of clusters.
    pub root_bytes: u64,
    /// First cluster of the root directory; 0 on FAT12 and FAT16.
    pub root_cluster: u32,
    /// Where cluster 2 starts.
    pub heap_offset: u64,
    /// Number of clusters; the first one is 2.
    pub clusters: u32,
    /// Length of the volume.
    pub size_bytes: u64,
    /// Serial number.
    pub serial: u32,
    /// Media descriptor of FAT.
    pub media: u8,
    /// Label in the boot sector, which is often out of date.
    pub boot_label: [u8; 11],
    /// Where FSInfo stands.
    pub info_offset: Option<u64>,
    /// Whether the boot sector says that the volume was not unmounted.
    pub dirty: bool,
    /// Whether the boot sector says that errors were met.
    pub failing: bool,
    /// Where the boot sector stands that all this is from.
    pub boot_offset: u64,
}

impl Shape {
    /// First number past those of all clusters.
    pub fn cluster_end(&self) -> u32 {
        self.clusters.saturating_add(FIRST_CLUSTER)
    }

    /// Whether there is such a cluster.
    pub fn has_cluster(&self, cluster: u32) -> bool {
        (FIRST_CLUSTER..self.cluster_end()).contains(&cluster)
    }

    /// Where a cluster starts. Unit: bytes of the volume.
    pub fn cluster_offset(&self, cluster: u32) -> u64 {
        let index = u64::from(cluster.saturating_sub(FIRST_CLUSTER));
        self.heap_offset.saturating_add(index.saturating_mul(self.cluster_bytes.get()))
    }

    /// Where the clusters end. Unit: bytes of the volume.
    pub fn heap_end(&self) -> u64 {
        self.cluster_offset(self.cluster_end())
    }

    /// The cluster that holds a byte of the volume.
    pub fn cluster_at(&self, byte: u64) -> Option<u32> {
        let index = byte.checked_sub(self.heap_offset)? / self.cluster_bytes;
        let cluster = u32::try_from(index).ok()?.checked_add(FIRST_CLUSTER)?;
        self.has_cluster(cluster).then_some(cluster)
    }

    /// Length of the part of a FAT that says something. Unit: bytes.
    pub fn fat_used_bytes(&self) -> u64 {
        let bits = u64::from(self.cluster_end()).saturating_mul(self.variant.entry_bits());
        bits.div_ceil(8).min(self.fat_bytes)
    }

    /// Number of clusters that so many bytes take.
    pub fn clusters_of(&self, bytes: u64) -> u64 {
        bytes.div_ceil(self.cluster_bytes.get())
    }

    /// The serial number as people know it.
    pub fn serial_text(&self) -> String {
        format!("{:04X}-{:04X}", self.serial >> 16, self.serial & 0xffff)
    }

    /// Whether a FAT of so many entries covers all clusters.
    pub(crate) fn fat_covers(&self) -> bool {
        let bits = u64::from(self.cluster_end()).saturating_mul(self.variant.entry_bits());
        bits.div_ceil(8) <= self.fat_bytes
    }
}

/// Text of a label field: code page 437, spaces at the end dropped; empty for "NO NAME".
pub(crate) fn label_text(label: &[u8]) -> String {
    let text: String = label.iter().map(|byte| crate::codepage::decode(*byte)).collect();
    let text = text.trim_end_matches([' ', '\0']);
    if text == "NO NAME" || wide(text.len()) == 0 { String::new() } else { text.to_owned() }
}
