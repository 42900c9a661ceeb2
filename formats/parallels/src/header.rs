//! From raw bytes to a header that fits its file.

use crate::layout::{
    MAGIC_CLUSTERS, MAGIC_SECTORS, RawHeader, SECTOR_BYTES, TABLE_OFFSET, VERSION,
};
use adit_core::{Disk, DiskExt, Error, Place, Problem, Result};

/// In what the table counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Variant {
    /// `WithoutFreeSpace`: sectors.
    Sectors,
    /// `WithouFreSpacExt`: clusters.
    Clusters,
}

impl Variant {
    /// The variant of a file that begins so.
    pub(crate) fn of(prefix: &[u8]) -> Option<Variant> {
        if prefix.starts_with(MAGIC_SECTORS) {
            Some(Variant::Sectors)
        } else if prefix.starts_with(MAGIC_CLUSTERS) {
            Some(Variant::Clusters)
        } else {
            None
        }
    }

    /// Its magic, as text.
    pub fn word(self) -> &'static str {
        match self {
            Variant::Sectors => "WithoutFreeSpace",
            Variant::Clusters => "WithouFreSpacExt",
        }
    }
}

/// A header that was checked against its file.
#[derive(Clone, Debug)]
pub(crate) struct Header {
    pub raw: RawHeader,
    pub variant: Variant,
    /// Unit: bytes.
    pub size_bytes: u64,
    /// Never 0, and not always a power of two. Unit: bytes.
    pub cluster_bytes: u64,
    /// Clusters the disk needs; the table has at least as many entries.
    pub clusters: u64,
    /// What an entry of the table is multiplied with. Unit: bytes.
    pub unit_bytes: u64,
}

impl Header {
    /// Reads and checks the header.
    ///
    /// Errors: `Corrupt`; `Unsupported` for other versions.
    pub fn read(file: &dyn Disk) -> Result<Header> {
        let bytes = file.read_prefix(0, RawHeader::SIZE)?;
        let Some(variant) = Variant::of(&bytes) else {
            let detail = "is neither \"WithoutFreeSpace\" nor \"WithouFreSpacExt\"";
            return Err(wrong("magic", 0x00, Problem::BadMagic, detail));
        };
        let raw = RawHeader::read(&bytes)?;
        if raw.version != VERSION {
            return Err(Error::unsupported(format!("version {}, not 2", raw.version))
                .at(Place::new("Parallels header").field("version").byte(0x10)));
        }
        let cluster_bytes = u64::from(raw.cluster_size).saturating_mul(SECTOR_BYTES);
        if cluster_bytes == 0 {
            return Err(wrong("cluster_size", 0x1c, Problem::BadValue, "is 0"));
        }
        let sectors = match variant {
            Variant::Sectors => raw.disk_size & 0xffff_ffff,
            Variant::Clusters => raw.disk_size,
        };
        let Some(size_bytes) = sectors.checked_mul(SECTOR_BYTES).filter(|&size| size > 0) else {
            let detail = format!("is {sectors} sectors");
            return Err(wrong("disk_size", 0x24, Problem::BadValue, detail));
        };
        let clusters = size_bytes.div_ceil(cluster_bytes);
        if clusters > u64::from(raw.table_entries) {
            let detail = format!("is {}, but the disk has {clusters} clusters", raw.table_entries);
            return Err(wrong("table_entries", 0x20, Problem::OutOfRange, detail));
        }
        let unit_bytes = match variant {
            Variant::Sectors => SECTOR_BYTES,
            Variant::Clusters => cluster_bytes,
        };
        let header = Header { raw, variant, size_bytes, cluster_bytes, clusters, unit_bytes };
        header.check_table(file.size_bytes())?;
        Ok(header)
    }

    fn check_table(&self, file_bytes: u64) -> Result<()> {
        if self.table_end() <= file_bytes {
            return Ok(());
        }
        let detail =
            format!("{} entries leave a file of {file_bytes:#x} bytes", self.raw.table_entries);
        Err(Error::corrupt(Problem::Truncated, detail)
            .at(Place::new("allocation table").byte(TABLE_OFFSET))
            .advise("the file is shorter than its own table; get a complete copy"))
    }

    /// Where the table ends. Unit: bytes.
    pub fn table_end(&self) -> u64 {
        u64::from(self.raw.table_entries).saturating_mul(4).saturating_add(TABLE_OFFSET)
    }

    /// Where the cluster that `entry` names begins. Unit: bytes.
    pub fn cluster_at(&self, entry: u32) -> u64 {
        // Both are below 2^41, so the product saturates only where no file reaches.
        u64::from(entry).saturating_mul(self.unit_bytes)
    }
}

fn wrong(field: &'static str, byte: u64, problem: Problem, detail: impl Into<String>) -> Error {
    Error::corrupt(problem, detail).at(Place::new("Parallels header").field(field).byte(byte))
}
