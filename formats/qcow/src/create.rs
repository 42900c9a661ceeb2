//! New images: empty, over a backing file, with a data file, with all clusters set aside.

use crate::codec::Compression;
use crate::layout::{
    HeaderV2, HeaderV3, MAGIC, autoclear, compatible, entry, extension, incompatible,
};
use crate::power::Power;
use crate::writer::set_bits;
use adit_core::bytes::{narrow, wide};
use adit_core::{Error, ImageFile, ParentRecord, Place, Problem, Result};
use std::sync::Arc;

/// How much of the disk has a place in the file from the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Preallocation {
    /// Nothing.
    #[default]
    Off,
    /// All tables, and clusters that no byte was written to.
    Metadata,
    /// All tables and all clusters, written with zeros.
    Full,
}

/// Guest data in a file of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataFile {
    /// The name to record, relative to the image's folder unless it is absolute.
    pub name: Vec<u8>,
    /// Whether the file alone is to be the whole raw disk at all times.
    pub raw: bool,
}

/// What a new image is like.
#[derive(Clone, Debug)]
pub struct CreateOptions {
    /// Virtual size, rounded up to sectors of 512 bytes. Unit: bytes.
    pub size_bytes: u64,
    /// 2, which QEMU calls `compat=0.10`, or 3, `compat=1.1`.
    pub version: u32,
    /// Unit of allocation: a power of two from 512 to 2 MiB. Unit: bytes.
    pub cluster_bytes: u64,
    /// Width of a refcount: a power of two from 1 to 64. Version 2 knows 16 alone. Unit: bits.
    pub refcount_bits: u32,
    /// Whether clusters have 32 parts that are allocated one by one. From 16 KiB clusters on.
    pub extended_l2: bool,
    /// Whether QEMU may leave refcounts behind while it writes.
    pub lazy_refcounts: bool,
    /// How clusters are compressed by whoever compresses any.
    pub compression: Compression,
    /// What has a place from the start. Not over a backing file.
    pub preallocation: Preallocation,
    /// Where the guest's data is, if not in the image itself.
    pub data_file: Option<DataFile>,
    /// What shows through where nothing is stored.
    pub backing: Option<ParentRecord>,
}

impl Default for CreateOptions {
    /// What `qemu-img create` makes: version 3, clusters of 64 KiB, refcounts of 16 bits.
    fn default() -> Self {
        CreateOptions {
            size_bytes: 0,
            version: 3,
            cluster_bytes: 65536,
            refcount_bits: 16,
            extended_l2: false,
            lazy_refcounts: false,
            compression: Compression::Deflate,
            preallocation: Preallocation::Off,
            data_file: None,
            backing: None,
        }
    }
}

/// Bounds of QEMU. Unit: bytes.
const L1_BYTES_MAX: u64 = 32 << 20;
const TABLE_BYTES_MAX: u64 = 8 << 20;
const NAME_BYTES_MAX: usize = 1023;
const DISK_BYTES_MAX: u64 = 1 << 60;
/// Length of the header with the compression type, padded to 8 bytes.
const HEADER_BYTES: u32 = 112;

/// Makes an empty image in `file`, and in `data` the data file if there is to be one. What the
/// files held is gone.
///
/// Errors: `Invalid` for options that do not go together, before anything is written.
/// Source: the QCOW2 image format of the QEMU project (docs/interop/qcow2).
pub fn create(
    file: &Arc<dyn ImageFile>,
    data: Option<&Arc<dyn ImageFile>>,
    options: &CreateOptions,
) -> Result<()> {
    let plan = Plan::new(options)?;
    let header = plan.header()?;
    if options.data_file.is_some() != data.is_some() {
        return Err(Error::invalid(Problem::Missing, "a data file needs a name and a file"));
    }
    if let Some(data) = data {
        data.set_size(0)?;
        data.set_size(plan.size_bytes)?;
        if options.preallocation == Preallocation::Full {
            fill(data, 0, plan.size_bytes)?;
        }
        data.flush()?;
    }
    file.set_size(0)?;
    file.set_size(plan.cluster.times(plan.total))?;
    plan.write_counts(file)?;
    plan.write_tables(file)?;
    if options.preallocation == Preallocation::Full && data.is_none() {
        fill(file, plan.cluster.times(plan.data), plan.cluster.times(plan.data_clusters))?;
    }
    // Without its header the file is no image.
    file.flush()?;
    file.write_at(&header, 0)?;
    file.flush()
}

/// Where everything goes. Units: clusters of the file.
struct Plan<'a> {
    options: &'a CreateOptions,
    size_bytes: u64,
    cluster: Power,
    l2_entry: Power,
    order: u32,
    table_clusters: u64,
    blocks: u64,
    l1: u64,
    l1_entries: u64,
    tables: u64,
    data: u64,
    data_clusters: u64,
    total: u64,
}

impl Plan<'_> {
    fn new(options: &CreateOptions) -> Result<Plan<'_>> {
        check(options)?;
        let size_bytes = options
            .size_bytes
            .checked_next_multiple_of(512)
            .filter(|size| *size <= DISK_BYTES_MAX)
            .ok_or_else(|| refused("size", format!("a disk of {} bytes", options.size_bytes)))?;
        let cluster = Power::new(options.cluster_bytes.trailing_zeros());
        let l2_entry = Power::new(if options.extended_l2 { 4 } else { 3 });
        let span = cluster.of(Power::new(cluster.bits().saturating_sub(l2_entry.bits())));
        let l1_entries = span.count(size_bytes);
        if l1_entries.saturating_mul(8) > L1_BYTES_MAX {
            let detail =
                format!("{size_bytes} bytes in clusters of {} bytes", options.cluster_bytes);
            return Err(
                refused("cluster size", detail).advise("larger clusters hold a larger disk")
            );
        }
        let order = options.refcount_bits.trailing_zeros();
        let mut plan = Plan {
            options,
            size_bytes,
            cluster,
            l2_entry,
            order,
            table_clusters: 1,
            blocks: 1,
            l1: 0,
            l1_entries,
            tables: 0,
            data: 0,
            data_clusters: 0,
            total: 0,
        };
        plan.arrange()?;
        Ok(plan)
    }

    fn per_block(&self) -> Power {
        Power::new(self.cluster.bits().saturating_add(3).saturating_sub(self.order))
    }

    fn arrange(&mut self) -> Result<()> {
        if self.options.preallocation != Preallocation::Off {
            self.tables = self.l1_entries;
            if self.options.data_file.is_none() {
                self.data_clusters = self.cluster.count(self.size_bytes);
            }
        }
        let l1_clusters = self.cluster.count(self.l1_entries.saturating_mul(8)).max(1);
        let rest = l1_clusters.saturating_add(self.tables).saturating_add(self.data_clusters);
        loop {
            let head = 1u64.saturating_add(self.table_clusters).saturating_add(self.blocks);
            self.l1 = head;
            self.data = head.saturating_add(l1_clusters).saturating_add(self.tables);
            self.total = head.saturating_add(rest);
            let blocks = self.per_block().count(self.total);
            let table = self.cluster.count(blocks.saturating_mul(8));
            if (blocks, table) == (self.blocks, self.table_clusters) {
                break;
            }
            (self.blocks, self.table_clusters) =
                (blocks.max(self.blocks), table.max(self.table_clusters));
        }
        if self.cluster.times(self.table_clusters) > TABLE_BYTES_MAX {
            return Err(refused("cluster size", "the refcount table exceeds 8 MiB".to_owned())
                .advise("larger clusters, or narrower refcounts, hold a larger image"));
        }
        Ok(())
    }

    fn write_counts(&self, file: &Arc<dyn ImageFile>) -> Result<()> {
        let first = 1u64.saturating_add(self.table_clusters);
        let table: Vec<u8> = (0..self.blocks)
            .flat_map(|index| self.cluster.times(first.saturating_add(index)).to_be_bytes())
            .collect();
        file.write_at(&table, self.cluster.size())?;
        let per_block = self.per_block();
        let whole = self.block(per_block.size());
        for index in 0..self.blocks {
            let left = self.total.saturating_sub(per_block.times(index));
            let at = self.cluster.times(first.saturating_add(index));
            match left < per_block.size() {
                true => file.write_at(&self.block(left), at)?,
                false => file.write_at(&whole, at)?,
            }
        }
        Ok(())
    }

    /// A refcount block whose first `used` refcounts are 1.
    fn block(&self, used: u64) -> Vec<u8> {
        let mut bytes = vec![0; narrow(self.cluster.size()).unwrap_or(0)];
        for index in 0..used {
            let (byte, slot) = match self.order >= 3 {
                true => (Power::new(self.order.saturating_sub(3)).times(index), 0),
                false => {
                    let per_byte = Power::new(3u32.saturating_sub(self.order));
                    (per_byte.index(index), per_byte.within(index))
                }
            };
            set_bits(&mut bytes, byte, slot, self.order, 1);
        }
        bytes
    }

    fn write_tables(&self, file: &Arc<dyn ImageFile>) -> Result<()> {
        if self.tables == 0 {
            return Ok(());
        }
        let first = self.data.saturating_sub(self.tables);
        let l1: Vec<u8> = (0..self.tables)
            .map(|index| self.cluster.times(first.saturating_add(index)) | entry::COPIED)
            .flat_map(u64::to_be_bytes)
            .collect();
        file.write_at(&l1, self.cluster.times(self.l1))?;
        let per_table = Power::new(self.cluster.bits().saturating_sub(self.l2_entry.bits()));
        let clusters = self.cluster.count(self.size_bytes);
        for index in 0..self.tables {
            let guests = per_table.times(index)..per_table.times(index.saturating_add(1));
            let mut table = Vec::with_capacity(narrow(self.cluster.size()).unwrap_or(0));
            for guest in guests.start..guests.end.min(clusters) {
                let host = match self.options.data_file {
                    Some(_) => guest,
                    None => self.data.saturating_add(guest),
                };
                table.extend((self.cluster.times(host) | entry::COPIED).to_be_bytes());
                if self.options.extended_l2 {
                    table.extend(u64::from(u32::MAX).to_be_bytes());
                }
            }
            file.write_at(&table, self.cluster.times(first.saturating_add(index)))?;
        }
        Ok(())
    }

    fn header(&self) -> Result<Vec<u8>> {
        let options = self.options;
        let small = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
        let length = if options.version == 2 { 72 } else { HEADER_BYTES };
        let mut tail = Vec::new();
        let backing = options.backing.as_ref();
        if let Some(format) = backing.map(|it| it.format.as_bytes()).filter(|it| !it.is_empty()) {
            put_extension(&mut tail, extension::BACKING_FORMAT, format);
        }
        if let Some(data) = &options.data_file {
            put_extension(&mut tail, extension::DATA_FILE, &data.name);
        }
        tail.extend([0; 8]);
        let name = backing.map_or(&[][..], |it| &it.name);
        let name_at = u64::from(length).saturating_add(wide(tail.len()));
        let end = name_at.saturating_add(wide(name.len()));
        if end > self.cluster.size() {
            let detail = format!("header and names need {end} bytes of the first cluster");
            return Err(refused("backing file name", detail).advise("larger clusters hold them"));
        }
        let mut bytes = vec![0; narrow(u64::from(length)).unwrap_or(0).max(HeaderV3::SIZE)];
        let named = !name.is_empty();
        HeaderV2 {
            magic: MAGIC,
            version: options.version,
            backing_file_offset: if named { name_at } else { 0 },
            backing_file_size: small(wide(name.len())),
            cluster_bits: self.cluster.bits(),
            size: self.size_bytes,
            crypt_method: 0,
            l1_size: small(self.l1_entries),
            l1_table_offset: self.cluster.times(self.l1),
            refcount_table_offset: self.cluster.size(),
            refcount_table_clusters: small(self.table_clusters),
            nb_snapshots: 0,
            snapshots_offset: 0,
        }
        .write(&mut bytes)?;
        if options.version > 2 {
            self.added().write(&mut bytes)?;
            if let Some(kind) = bytes.get_mut(104) {
                *kind = u8::from(options.compression == Compression::Zstd);
            }
        }
        bytes.truncate(narrow(u64::from(length)).unwrap_or(0));
        bytes.extend(tail);
        bytes.extend(name);
        Ok(bytes)
    }

    fn added(&self) -> HeaderV3 {
        let options = self.options;
        let flag = |set: bool, bit: u64| if set { bit } else { 0 };
        let data = options.data_file.as_ref();
        HeaderV3 {
            incompatible_features: flag(data.is_some(), incompatible::DATA_FILE)
                | flag(options.compression == Compression::Zstd, incompatible::COMPRESSION)
                | flag(options.extended_l2, incompatible::EXTENDED_L2),
            compatible_features: flag(options.lazy_refcounts, compatible::LAZY_REFCOUNTS),
            autoclear_features: flag(data.is_some_and(|it| it.raw), autoclear::DATA_FILE_RAW),
            refcount_order: self.order,
            header_length: HEADER_BYTES,
        }
    }
}

/// Appends a header extension.
pub(crate) fn put_extension(tail: &mut Vec<u8>, kind: u32, data: &[u8]) {
    tail.extend(kind.to_be_bytes());
    tail.extend(u32::try_from(data.len()).unwrap_or(u32::MAX).to_be_bytes());
    tail.extend(data);
    tail.resize(tail.len().next_multiple_of(8), 0);
}

fn refused(field: &'static str, detail: String) -> Error {
    Error::invalid(Problem::BadValue, detail).at(Place::new("new QCOW2 image").field(field))
}

fn check(options: &CreateOptions) -> Result<()> {
    let cluster = options.cluster_bytes;
    if !cluster.is_power_of_two() || !(512..=2 << 20).contains(&cluster) {
        return Err(refused("cluster size", format!("clusters of {cluster} bytes"))
            .advise("clusters are powers of two from 512 bytes to 2 MiB"));
    }
    if !options.refcount_bits.is_power_of_two() || options.refcount_bits > 64 {
        let detail = format!("refcounts of {} bits", options.refcount_bits);
        return Err(refused("refcount width", detail).advise("a power of two from 1 to 64"));
    }
    if options.version != 2 && options.version != 3 {
        let detail = format!("version {}", options.version);
        return Err(refused("version", detail).advise("2 (compat=0.10) or 3 (compat=1.1)"));
    }
    let needs_3 = options.refcount_bits != 16
        || options.extended_l2
        || options.lazy_refcounts
        || options.compression != Compression::Deflate
        || options.data_file.is_some();
    if options.version == 2 && needs_3 {
        let detail = "version 2 has refcounts of 16 bits, deflate, and no features".to_owned();
        return Err(refused("version", detail).advise("version 3 (compat=1.1) has them"));
    }
    if options.extended_l2 && cluster < 16384 {
        let detail = format!("extended L2 entries with clusters of {cluster} bytes");
        return Err(refused("extended L2", detail).advise("they need clusters of 16 KiB or more"));
    }
    check_names(options)
}

fn check_names(options: &CreateOptions) -> Result<()> {
    if let Some(backing) = &options.backing {
        if backing.name.is_empty() || backing.name.len() > NAME_BYTES_MAX {
            let detail = format!("a name of {} bytes; 1 to 1023 are allowed", backing.name.len());
            return Err(refused("backing file name", detail));
        }
        if options.preallocation != Preallocation::Off {
            let detail = "clusters set aside would hide the backing file".to_owned();
            return Err(refused("preallocation", detail));
        }
    }
    if let Some(data) = &options.data_file {
        if data.name.len() > NAME_BYTES_MAX {
            let detail = format!("a name of {} bytes; 1023 are allowed", data.name.len());
            return Err(refused("data file name", detail));
        }
        if data.raw && options.backing.is_some() {
            let detail =
                "a raw data file holds the whole disk, and nothing can be below".to_owned();
            return Err(refused("data file", detail));
        }
    }
    Ok(())
}

/// Writes zeros, so that space is really taken.
fn fill(file: &Arc<dyn ImageFile>, start: u64, length: u64) -> Result<()> {
    static ZEROES: [u8; 256 << 10] = [0; 256 << 10];
    let mut done = 0u64;
    while done < length {
        let piece = narrow(length.saturating_sub(done)).unwrap_or(usize::MAX).min(ZEROES.len());
        let zeros = ZEROES.get(..piece).unwrap_or_default();
        file.write_at(zeros, start.saturating_add(done))?;
        done = done.saturating_add(wide(piece));
    }
    Ok(())
}
