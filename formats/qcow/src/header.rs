//! Raw header bytes → a header that holds no invalid value.

use crate::codec::Compression;
use crate::extension::{self, Extensions};
use crate::feature;
use crate::layout::{HeaderV1, HeaderV2, HeaderV3, MAGIC, incompatible};
use crate::power::Power;
use adit_core::bytes::{narrow, u32_be};
use adit_core::{Disk, DiskExt, Error, Place, Problem, Result};
use std::ops::Range;

/// The version of a QCOW image, from its first 8 bytes; `None` if it is something else.
///
/// Versions that are not read are recognised all the same, so that they can be refused by name.
pub fn probe(prefix: &[u8]) -> Option<u32> {
    if !prefix.starts_with(&MAGIC) {
        return None;
    }
    u32_be(prefix, 4).filter(|&version| version != 0)
}

/// How the clusters are encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encryption {
    /// AES-128-CBC with the pass phrase as key.
    Aes,
    /// LUKS, with its header inside the image.
    Luks,
}

impl Encryption {
    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            Encryption::Aes => "AES",
            Encryption::Luks => "LUKS",
        }
    }
}

/// An L1 table: where it is, and how many entries it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct L1Place {
    pub(crate) offset: u64,
    pub(crate) entries: u64,
}

/// A checked header of any version.
#[derive(Clone, Debug)]
pub(crate) struct Header {
    pub(crate) version: u32,
    pub(crate) size_bytes: u64,
    pub(crate) cluster: Power,
    /// Entries of an L2 table.
    pub(crate) l2: Power,
    /// Bytes of an L2 entry.
    pub(crate) l2_entry: Power,
    pub(crate) l1: L1Place,
    pub(crate) encryption: Option<Encryption>,
    pub(crate) compression: Compression,
    /// Where the backing file's name stands.
    pub(crate) backing: Option<Range<u64>>,
    pub(crate) refcount_bits: u32,
    pub(crate) refcount_table: Range<u64>,
    pub(crate) snapshots: u32,
    pub(crate) snapshots_offset: u64,
    pub(crate) incompatible: u64,
    pub(crate) compatible: u64,
    pub(crate) autoclear: u64,
    pub(crate) extensions: Extensions,
}

/// Bounds of QEMU, which no real image exceeds.
const L1_BYTES_MAX: u64 = 32 << 20;
const REFCOUNT_TABLE_BYTES_MAX: u64 = 8 << 20;
const SNAPSHOTS_MAX: u32 = 65536;
const BACKING_NAME_BYTES_MAX: u32 = 1023;

/// Smallest first read: nearly always holds header and extensions.
const PREFIX_BYTES: usize = 4096;

impl Header {
    /// Reads and checks the header of `file`.
    ///
    /// Errors: `Unsupported` for other versions, and for features that are not known; `Corrupt`
    /// for values the format does not allow.
    pub(crate) fn open(file: &dyn Disk) -> Result<Header> {
        let prefix = file.read_prefix(0, PREFIX_BYTES)?;
        match probe(&prefix) {
            Some(1) => from_v1(&HeaderV1::read(&prefix)?),
            Some(version @ 2..=3) => from_v2(file, &prefix, version),
            Some(version) => Err(Error::unsupported(format!("QCOW version {version}"))
                .at(Place::new("QCOW header").field("version").byte(4))),
            None => Err(Error::corrupt(Problem::BadMagic, "does not begin with \"QFI\\xfb\"")
                .at(Place::new("QCOW header").field("magic").byte(0))),
        }
    }

    /// Bytes of the disk that one L1 entry stands for.
    pub(crate) fn l1_span(&self) -> Power {
        self.cluster.of(self.l2)
    }

    /// Whether a bit of `incompatible_features` is set.
    pub(crate) fn needs(&self, bit: u64) -> bool {
        self.incompatible & bit != 0
    }
}

fn bad(field: &'static str, byte: u64, problem: Problem, detail: String) -> Error {
    Error::corrupt(problem, detail).at(Place::new("QCOW header").field(field).byte(byte))
}

fn from_v1(raw: &HeaderV1) -> Result<Header> {
    let (cluster_bits, l2_bits) = (u32::from(raw.cluster_bits), u32::from(raw.l2_bits));
    if !(9..=16).contains(&cluster_bits) {
        let detail = format!("clusters of 2^{cluster_bits} bytes; 9 to 16 are allowed");
        return Err(bad("cluster_bits", 0x20, Problem::BadValue, detail));
    }
    if !(6..=13).contains(&l2_bits) {
        let detail = format!("L2 tables of 2^{l2_bits} entries; 6 to 13 are allowed");
        return Err(bad("l2_bits", 0x21, Problem::BadValue, detail));
    }
    let encryption = match raw.crypt_method {
        0 => None,
        1 => Some(Encryption::Aes),
        other => return Err(unknown_encryption(other, 0x24)),
    };
    let (cluster, l2) = (Power::new(cluster_bits), Power::new(l2_bits));
    let l1 = L1Place { offset: raw.l1_table_offset, entries: cluster.of(l2).count(raw.size) };
    if !Power::new(3).divides(l1.offset) || l1.offset < 48 {
        let detail = format!("the L1 table is at {:#x}", l1.offset);
        return Err(bad("l1_table_offset", 0x28, Problem::Misaligned, detail));
    }
    Ok(Header {
        version: 1,
        size_bytes: raw.size,
        cluster,
        l2,
        l2_entry: Power::new(3),
        l1,
        encryption,
        compression: Compression::Deflate,
        backing: backing(raw.backing_file_offset, raw.backing_file_size, u64::MAX)?,
        refcount_bits: 0,
        refcount_table: 0..0,
        snapshots: 0,
        snapshots_offset: 0,
        incompatible: 0,
        compatible: 0,
        autoclear: 0,
        extensions: Extensions::default(),
    })
}

fn from_v2(file: &dyn Disk, prefix: &[u8], version: u32) -> Result<Header> {
    let raw = HeaderV2::read(prefix)?;
    if !(9..=21).contains(&raw.cluster_bits) {
        let detail = format!("clusters of 2^{} bytes; 9 to 21 are allowed", raw.cluster_bits);
        return Err(bad("cluster_bits", 0x14, Problem::BadValue, detail));
    }
    let cluster = Power::new(raw.cluster_bits);
    let backing = backing(raw.backing_file_offset, raw.backing_file_size, cluster.size())?;
    let added = match version {
        2 => HeaderV3 {
            incompatible_features: 0,
            compatible_features: 0,
            autoclear_features: 0,
            refcount_order: 4,
            header_length: 72,
        },
        _ => check_added(HeaderV3::read(prefix)?, cluster)?,
    };
    let area_end = backing.as_ref().map_or(cluster.size(), |name| name.start);
    let extensions = extensions(file, prefix, u64::from(added.header_length), area_end)?;
    feature::check_incompatible(added.incompatible_features, &extensions.feature_names)?;
    let compression = compression(&added, prefix)?;
    let extended = added.incompatible_features & incompatible::EXTENDED_L2 != 0;
    if extended && cluster.bits() < 14 {
        let detail = format!("extended L2 entries with clusters of 2^{} bytes", cluster.bits());
        return Err(bad("cluster_bits", 0x14, Problem::BadValue, detail));
    }
    let l2_entry = Power::new(if extended { 4 } else { 3 });
    let header = Header {
        version,
        size_bytes: raw.size,
        cluster,
        l2: Power::new(cluster.bits().saturating_sub(l2_entry.bits())),
        l2_entry,
        l1: L1Place { offset: raw.l1_table_offset, entries: u64::from(raw.l1_size) },
        encryption: match raw.crypt_method {
            0 => None,
            1 => Some(Encryption::Aes),
            2 => Some(Encryption::Luks),
            other => return Err(unknown_encryption(other, 0x20)),
        },
        compression,
        backing,
        refcount_bits: 1u32.wrapping_shl(added.refcount_order),
        refcount_table: refcount_table(&raw, cluster)?,
        snapshots: raw.nb_snapshots,
        snapshots_offset: raw.snapshots_offset,
        incompatible: added.incompatible_features,
        compatible: added.compatible_features,
        autoclear: added.autoclear_features,
        extensions,
    };
    check_snapshots(&raw, cluster)?;
    check_l1(header.l1, header.size_bytes, &header, "QCOW header")?;
    Ok(header)
}

/// Checks an L1 table's place and size against what the disk of `size_bytes` needs.
///
/// Errors: `Corrupt`.
pub(crate) fn check_l1(
    l1: L1Place,
    size_bytes: u64,
    header: &Header,
    structure: &'static str,
) -> Result<()> {
    let at = |field| Place::new(structure).field(field);
    let needed = header.l1_span().count(size_bytes);
    if l1.entries.saturating_mul(8) > L1_BYTES_MAX {
        let detail = format!("an L1 table of {} entries exceeds 32 MiB", l1.entries);
        return Err(Error::corrupt(Problem::TooMany, detail).at(at("l1_size")));
    }
    if l1.entries < needed {
        let detail = format!(
            "{size_bytes} bytes need an L1 table of {needed} entries; it has {}",
            l1.entries
        );
        return Err(Error::corrupt(Problem::OutOfRange, detail).at(at("l1_size")));
    }
    if !header.cluster.divides(l1.offset) || (l1.offset == 0 && l1.entries > 0) {
        let detail = format!("the L1 table is at {:#x}, not at a cluster", l1.offset);
        return Err(Error::corrupt(Problem::Misaligned, detail).at(at("l1_table_offset")));
    }
    Ok(())
}

fn unknown_encryption(method: u32, byte: u64) -> Error {
    Error::unsupported(format!("encryption method {method}"))
        .at(Place::new("QCOW header").field("crypt_method").byte(byte))
}

fn backing(offset: u64, length: u32, area_end: u64) -> Result<Option<Range<u64>>> {
    if offset == 0 || length == 0 {
        return Ok(None);
    }
    if length > BACKING_NAME_BYTES_MAX {
        let detail = format!("a backing file name of {length} bytes; 1023 are allowed");
        return Err(bad("backing_file_size", 0x10, Problem::TooMany, detail));
    }
    match offset.checked_add(u64::from(length)) {
        Some(end) if end <= area_end => Ok(Some(offset..end)),
        _ => {
            let detail = format!("the backing file name at {offset:#x} leaves the first cluster");
            Err(bad("backing_file_offset", 0x08, Problem::OutOfRange, detail))
        }
    }
}

fn check_added(added: HeaderV3, cluster: Power) -> Result<HeaderV3> {
    let length = u64::from(added.header_length);
    if length < 104 || length > cluster.size() || !Power::new(3).divides(length) {
        let detail = format!("a header of {length} bytes");
        return Err(bad("header_length", 0x64, Problem::BadValue, detail));
    }
    if added.refcount_order > 6 {
        let detail = format!("refcounts of 2^{} bits; 0 to 6 are allowed", added.refcount_order);
        return Err(bad("refcount_order", 0x60, Problem::BadValue, detail));
    }
    Ok(added)
}

/// Reads the extensions: from the prefix where that holds the whole area or the end of the list,
/// else from the whole first cluster.
fn extensions(file: &dyn Disk, prefix: &[u8], start: u64, end: u64) -> Result<Extensions> {
    let end = end.min(file.size_bytes());
    if let Some(area) = narrow(end).and_then(|end| prefix.get(..end)) {
        return extension::parse(area, start);
    }
    // A list that ends inside the prefix reads the same from it; one that does not either leaves
    // it in the middle of a block, or fills it to the last byte.
    let complete = extension::ends_inside(prefix, start);
    if complete {
        return extension::parse(prefix, start);
    }
    let whole = file.read_prefix(0, narrow(end).unwrap_or(PREFIX_BYTES))?;
    extension::parse(&whole, start)
}

fn compression(added: &HeaderV3, prefix: &[u8]) -> Result<Compression> {
    let kind = if added.header_length > 104 { prefix.get(104).copied().unwrap_or(0) } else { 0 };
    let announced = added.incompatible_features & incompatible::COMPRESSION != 0;
    if announced != (kind != 0) {
        let detail = format!("compression type {kind}, and its feature bit is {announced}");
        return Err(bad("compression_type", 0x68, Problem::Mismatch, detail));
    }
    match kind {
        0 => Ok(Compression::Deflate),
        1 => Ok(Compression::Zstd),
        other => Err(Error::unsupported(format!("compression type {other}")).at(Place::new(
            "QCOW2 header",
        )
        .field("compression_type")
        .byte(0x68))),
    }
}

fn refcount_table(raw: &HeaderV2, cluster: Power) -> Result<Range<u64>> {
    let length = cluster.times(u64::from(raw.refcount_table_clusters));
    if length == 0 || length > REFCOUNT_TABLE_BYTES_MAX {
        let detail = format!("a refcount table of {length} bytes; 8 MiB are allowed");
        return Err(bad("refcount_table_clusters", 0x38, Problem::BadValue, detail));
    }
    let start = raw.refcount_table_offset;
    let end = start.checked_add(length);
    match end {
        Some(end) if cluster.divides(start) && start > 0 => Ok(start..end),
        _ => {
            let detail = format!("the refcount table is at {start:#x}, not at a cluster");
            Err(bad("refcount_table_offset", 0x30, Problem::Misaligned, detail))
        }
    }
}

fn check_snapshots(raw: &HeaderV2, cluster: Power) -> Result<()> {
    if raw.nb_snapshots > SNAPSHOTS_MAX {
        let detail = format!("{} snapshots; {SNAPSHOTS_MAX} are allowed", raw.nb_snapshots);
        return Err(bad("nb_snapshots", 0x3c, Problem::TooMany, detail));
    }
    if raw.nb_snapshots > 0 && (raw.snapshots_offset == 0 || !cluster.divides(raw.snapshots_offset))
    {
        let detail = format!("the snapshot table is at {:#x}", raw.snapshots_offset);
        return Err(bad("snapshots_offset", 0x40, Problem::Misaligned, detail));
    }
    Ok(())
}
