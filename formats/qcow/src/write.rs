//! Laying out a new image, front to back: version 3, no backing file, no snapshots.
//!
//! The [`Builder`] does no I/O. It is told which clusters are stored, in rising order, says where
//! each of them goes, and hands out the tables that belong between and behind them. The header
//! comes last: a file without it is no image.

use crate::codec::Compression;
use crate::layout::{MAGIC, entry, incompatible};
use crate::power::Power;
use adit_core::bytes::{narrow, wide};
use adit_core::{Error, Place, Problem, Result};

/// Bytes and where they go in the file, in the order in which they are to be written.
pub type Pieces = Vec<(u64, Vec<u8>)>;

/// How a cluster is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stored {
    /// As it is.
    Plain,
    /// Compressed, in so many bytes, fewer than a cluster.
    Compressed {
        /// Length of the compressed form. Unit: bytes.
        length_bytes: u32,
    },
}

/// An image whose tables are complete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finished {
    /// What remains to be written; the header is the last.
    pub pieces: Pieces,
    /// Length of the file. Unit: bytes.
    pub file_bytes: u64,
}

/// Length of the header with the compression type, padded to 8 bytes.
const HEADER_BYTES: u32 = 112;
/// log2 of the width of a refcount in bits: 16 bits, which every reader knows.
const REFCOUNT_ORDER: u32 = 4;
/// QEMU opens no image with a larger L1 table. Unit: bytes.
const L1_BYTES_MAX: u64 = 32 << 20;
/// QEMU opens no image with a larger refcount table. Unit: bytes.
const REFCOUNT_TABLE_BYTES_MAX: u64 = 8 << 20;
/// Unit of lengths in entries of compressed clusters.
const SECTOR: Power = Power::new(9);

/// Lays out an image.
///
/// Source: the QCOW2 image format of the QEMU project (docs/interop/qcow2).
#[derive(Debug)]
pub struct Builder {
    size_bytes: u64,
    cluster: Power,
    compression: Compression,
    l1_offset: u64,
    l1: Vec<u64>,
    /// The L2 table being filled.
    l2: Option<(u64, Vec<u64>)>,
    /// Of every cluster of the file.
    refcounts: Vec<u16>,
    /// Where compressed bytes go on; the rest of its cluster is free. 0: nowhere.
    packed_to: u64,
    done: Pieces,
}

impl Builder {
    /// Starts an image of `size_bytes`, which is rounded up to sectors of 512 bytes: QEMU cuts
    /// off what does not fill one.
    ///
    /// Units: bytes.
    /// Errors: `Invalid` for cluster sizes that are no power of two from 512 bytes to 2 MiB, and
    /// where the disk needs larger tables than QEMU opens.
    pub fn new(size_bytes: u64, cluster_bytes: u64, compression: Compression) -> Result<Builder> {
        if !cluster_bytes.is_power_of_two() || !(512..=2 << 20).contains(&cluster_bytes) {
            let detail = format!("clusters of {cluster_bytes} bytes");
            return Err(Error::invalid(Problem::BadValue, detail)
                .advise("clusters are powers of two from 512 bytes to 2 MiB"));
        }
        let cluster = Power::new(cluster_bytes.trailing_zeros());
        let size_bytes = size_bytes
            .checked_next_multiple_of(512)
            .ok_or_else(|| Error::invalid(Problem::OutOfRange, "the disk is too large"))?;
        let per_table = cluster.of(Power::new(cluster.bits().saturating_sub(3)));
        let tables = per_table.count(size_bytes).max(1);
        if tables.saturating_mul(8) > L1_BYTES_MAX {
            let detail = format!("{size_bytes} bytes in clusters of {cluster_bytes}");
            return Err(Error::invalid(Problem::OutOfRange, detail)
                .advise("larger clusters hold a larger disk"));
        }
        let l1 = vec![0; narrow(tables).unwrap_or(0)];
        let mut builder = Builder {
            size_bytes,
            cluster,
            compression,
            l1_offset: 0,
            l1,
            l2: None,
            refcounts: vec![1],
            packed_to: 0,
            done: Vec::new(),
        };
        builder.l1_offset = builder.append(cluster.count(tables.saturating_mul(8)))?;
        Ok(builder)
    }

    /// Size of the disk. Unit: bytes.
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// Says where a cluster goes. Clusters come in rising order, each once.
    ///
    /// Units: `index` in clusters of the disk; the result in bytes of the file.
    /// Errors: `Invalid` when the cluster is not in the disk or not the next one.
    pub fn place(&mut self, index: u64, stored: Stored) -> Result<u64> {
        let per_table = wide(self.entries());
        let (table, slot) = match (index.checked_div(per_table), index.checked_rem(per_table)) {
            (Some(table), Some(slot)) => (table, narrow(slot).unwrap_or(0)),
            _ => return Err(out_of_order(index)),
        };
        if index >= self.cluster.count(self.size_bytes) {
            return Err(out_of_order(index));
        }
        if self.l2.as_ref().is_none_or(|(open, _)| *open != table) {
            self.close_table()?;
            if narrow(table).and_then(|at| self.l1.get(at)) != Some(&0) {
                return Err(out_of_order(index));
            }
            self.l2 = Some((table, vec![0; self.entries()]));
        }
        let (offset, value) = match stored {
            Stored::Plain => {
                let offset = self.append(1)?;
                (offset, offset | entry::COPIED)
            }
            Stored::Compressed { length_bytes } => self.pack(u64::from(length_bytes))?,
        };
        let free = self.l2.as_mut().and_then(|(_, l2)| l2.get_mut(slot)).filter(|it| **it == 0);
        *free.ok_or_else(|| out_of_order(index))? = value;
        Ok(offset)
    }

    /// The tables that were completed since the last call.
    pub fn drain(&mut self) -> Pieces {
        std::mem::take(&mut self.done)
    }

    /// Completes the image.
    ///
    /// Errors: `Invalid` where the refcount table would be larger than QEMU opens.
    pub fn finish(mut self) -> Result<Finished> {
        self.close_table()?;
        let l1 = self.l1.iter().flat_map(|value| value.to_be_bytes()).collect();
        let mut pieces = self.drain();
        pieces.push((self.l1_offset, l1));
        let (table_offset, table_clusters) = self.refcounts(&mut pieces)?;
        pieces.push((0, self.header(table_offset, table_clusters)));
        let file_bytes = self.cluster.times(wide(self.refcounts.len()));
        Ok(Finished { pieces, file_bytes })
    }

    fn entries(&self) -> usize {
        narrow(self.cluster.size() / 8).unwrap_or(64)
    }

    /// The next free clusters of the file.
    fn append(&mut self, clusters: u64) -> Result<u64> {
        let offset = self.cluster.times(wide(self.refcounts.len()));
        let end = offset.saturating_add(self.cluster.times(clusters));
        if end & entry::OFFSET != end {
            return Err(Error::invalid(Problem::OutOfRange, "the image exceeds 64 PiB"));
        }
        let count = narrow(clusters).unwrap_or(0);
        self.refcounts.resize(self.refcounts.len().saturating_add(count), 1);
        Ok(offset)
    }

    /// Room for compressed bytes: behind the last ones as long as they stay in one piece.
    fn pack(&mut self, length: u64) -> Result<(u64, u64)> {
        if length == 0 || length >= self.cluster.size() {
            let detail = format!("{length} bytes are no compressed cluster");
            return Err(Error::invalid(Problem::BadValue, detail));
        }
        let end_of_file = self.cluster.times(wide(self.refcounts.len()));
        let left = self.cluster.count(self.packed_to).saturating_mul(self.cluster.size());
        let left = left.saturating_sub(self.packed_to);
        let at_end = self.packed_to.saturating_add(left) == end_of_file;
        let saturated = |at: u64| {
            let cluster = narrow(self.cluster.index(at));
            cluster.and_then(|cluster| self.refcounts.get(cluster)) == Some(&u16::MAX)
        };
        let room = left > 0 && (length <= left || at_end) && !saturated(self.packed_to);
        let offset = match room {
            true => {
                // Counted as one of those that share the cluster.
                self.share(self.packed_to);
                if length > left {
                    self.append(1)?;
                }
                self.packed_to
            }
            false => self.append(1)?,
        };
        let end = offset.saturating_add(length);
        self.packed_to = end;
        let shift = 62u32.saturating_sub(self.cluster.bits().saturating_sub(8));
        let sectors = SECTOR.index(end.saturating_sub(1)).saturating_sub(SECTOR.index(offset));
        let limit = 1u64.checked_shl(shift).unwrap_or(u64::MAX);
        if offset >= limit {
            return Err(Error::invalid(Problem::OutOfRange, "compressed data lie too far back")
                .advise("smaller clusters allow a larger file"));
        }
        let value = sectors.checked_shl(shift).unwrap_or(0) | offset | entry::COMPRESSED;
        Ok((offset, value))
    }

    fn share(&mut self, offset: u64) {
        let cluster = narrow(self.cluster.index(offset));
        if let Some(count) = cluster.and_then(|cluster| self.refcounts.get_mut(cluster)) {
            *count = count.saturating_add(1);
        }
    }

    fn close_table(&mut self) -> Result<()> {
        if let Some((index, l2)) = self.l2.take() {
            let offset = self.append(1)?;
            self.done.push((offset, l2.iter().flat_map(|value| value.to_be_bytes()).collect()));
            if let Some(value) = narrow(index).and_then(|index| self.l1.get_mut(index)) {
                *value = offset | entry::COPIED;
            }
        }
        Ok(())
    }

    /// Refcount blocks and their table, which count themselves; gives the table's place.
    fn refcounts(&mut self, pieces: &mut Pieces) -> Result<(u64, u64)> {
        let per_block = Power::new(self.cluster.bits().saturating_sub(1));
        let (mut blocks, mut table) = (0, 0);
        loop {
            let all = wide(self.refcounts.len()).saturating_add(blocks).saturating_add(table);
            let needed = per_block.count(all);
            let needed_table = self.cluster.count(needed.saturating_mul(8));
            if (needed, needed_table) == (blocks, table) {
                break;
            }
            (blocks, table) = (needed, needed_table);
        }
        if self.cluster.times(table) > REFCOUNT_TABLE_BYTES_MAX {
            return Err(Error::invalid(Problem::OutOfRange, "the refcount table exceeds 8 MiB")
                .at(Place::new("refcount table"))
                .advise("larger clusters hold a larger image"));
        }
        let first = self.append(blocks)?;
        let table_offset = self.append(table)?;
        let mut entries = Vec::new();
        let block_entries = narrow(per_block.size()).unwrap_or(1).max(1);
        for (index, counts) in (0u64..).zip(self.refcounts.chunks(block_entries)) {
            let offset = first.saturating_add(self.cluster.times(index));
            entries.extend(offset.to_be_bytes());
            pieces.push((offset, counts.iter().flat_map(|count| count.to_be_bytes()).collect()));
        }
        pieces.push((table_offset, entries));
        Ok((table_offset, table))
    }

    fn header(&self, table_offset: u64, table_clusters: u64) -> Vec<u8> {
        let zstd = self.compression == Compression::Zstd;
        let small = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
        let mut bytes = Vec::new();
        bytes.extend(MAGIC);
        bytes.extend(3u32.to_be_bytes());
        // No backing file.
        bytes.extend([0; 12]);
        bytes.extend(self.cluster.bits().to_be_bytes());
        bytes.extend(self.size_bytes.to_be_bytes());
        // Not encrypted.
        bytes.extend([0; 4]);
        bytes.extend(small(wide(self.l1.len())).to_be_bytes());
        bytes.extend(self.l1_offset.to_be_bytes());
        bytes.extend(table_offset.to_be_bytes());
        bytes.extend(small(table_clusters).to_be_bytes());
        // No snapshots.
        bytes.extend([0; 12]);
        bytes.extend(if zstd { incompatible::COMPRESSION } else { 0 }.to_be_bytes());
        // Nothing compatible, nothing to be cleared.
        bytes.extend([0; 16]);
        bytes.extend(REFCOUNT_ORDER.to_be_bytes());
        bytes.extend(HEADER_BYTES.to_be_bytes());
        bytes.push(u8::from(zstd));
        // Padding, and the end of the header extensions.
        bytes.extend([0; 15]);
        bytes
    }
}

fn out_of_order(index: u64) -> Error {
    Error::invalid(Problem::OutOfRange, "clusters are stored in rising order, each once")
        .at(Place::new("cluster").index(index))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_image_is_a_header_an_l1_table_and_refcounts() {
        let finished =
            Builder::new(1 << 20, 65536, Compression::Deflate).unwrap().finish().unwrap();
        let offsets: Vec<u64> = finished.pieces.iter().map(|(offset, _)| *offset).collect();
        assert_eq!(offsets, [0x10000, 0x20000, 0x30000, 0]);
        assert_eq!(finished.file_bytes, 0x40000);
        // Header, L1, refcount block and table, each counted once.
        assert_eq!(finished.pieces[1].1, [0, 1, 0, 1, 0, 1, 0, 1]);
    }

    #[test]
    fn compressed_clusters_share_a_cluster_and_are_counted_there() {
        let mut builder = Builder::new(1 << 20, 65536, Compression::Deflate).unwrap();
        let packed = |length_bytes| Stored::Compressed { length_bytes };
        assert_eq!(builder.place(0, packed(40_000)).unwrap(), 0x20000);
        // Over the end of the cluster, into the next one.
        assert_eq!(builder.place(1, packed(40_000)).unwrap(), 0x20000 + 40_000);
        assert_eq!(builder.place(2, Stored::Plain).unwrap(), 0x40000);
        // There is room left, but not enough, and the next cluster is taken.
        assert_eq!(builder.place(3, packed(60_000)).unwrap(), 0x50000);
        assert_eq!(builder.refcounts[2..6], [2, 1, 1, 1]);
        assert!(builder.place(3, Stored::Plain).is_err());
        assert!(builder.place(16, Stored::Plain).is_err());
    }

    #[test]
    fn a_compressed_entry_counts_the_sectors_after_the_first() {
        let mut builder = Builder::new(1 << 20, 65536, Compression::Deflate).unwrap();
        builder.place(0, Stored::Compressed { length_bytes: 700 }).unwrap();
        builder.place(1, Stored::Compressed { length_bytes: 400 }).unwrap();
        let (_, l2) = builder.l2.as_ref().unwrap();
        assert_eq!(l2[0], 1 << 62 | 1 << 54 | 0x20000);
        // 700 to 1100: sectors 1 and 2.
        assert_eq!(l2[1], 1 << 62 | 1 << 54 | (0x20000 + 700));
    }
}
