//! Free and used space, from the volume's bitmap and that of the file table.

use crate::layout::{kind, record};
use crate::ntfs::Ntfs;
use crate::record::place;
use adit_core::bytes::{narrow, wide};
use adit_core::{Disk, DiskExt, Error, Problem, Result, Space};

/// The bitmap is read in parts of at most this many bytes.
const PART_BYTES: u64 = 1 << 20;

impl Ntfs {
    /// Counts free clusters and records.
    ///
    /// Errors: `Corrupt` where a bitmap cannot be read; a count without it would be wrong.
    pub(crate) fn space_of(&self) -> Result<Space> {
        let boot = self.boot();
        let records = self.mft()?.records;
        let free = self.free_bits(record::BITMAP, kind::DATA, boot.clusters)?;
        Ok(Space {
            block_size_bytes: boot.cluster_bytes,
            total_bytes: boot.volume_bytes(),
            free_bytes: free.saturating_mul(boot.cluster_bytes),
            nodes_total: records,
            nodes_free: self.free_bits(record::MFT, kind::BITMAP, records)?,
        })
    }

    fn free_bits(&self, number: u64, kind: u32, count: u64) -> Result<u64> {
        let node = self.node(number)?;
        let at = || place(number).field(crate::layout::kind::word(kind));
        let missing = || Error::corrupt(Problem::Missing, "there is no bitmap").at(at());
        let stream = self.stream(&node, kind, &[])?.ok_or_else(missing)?;
        let bitmap = self.disk(stream, "bitmap");
        if bitmap.size_bytes() < count.div_ceil(8) {
            let detail = format!("{} bytes are too few for {count} bits", bitmap.size_bytes());
            return Err(Error::corrupt(Problem::Truncated, detail).at(at()));
        }
        count_zeros(bitmap.as_ref(), count)
    }
}

fn count_zeros(bitmap: &dyn Disk, count: u64) -> Result<u64> {
    let (mut zeros, mut at, end) = (0u64, 0u64, count.div_ceil(8));
    while at < end {
        let length = end.saturating_sub(at).min(PART_BYTES);
        let mut part = bitmap.read_vec(at, narrow(length).unwrap_or(0))?;
        at = at.saturating_add(length);
        if at == end
            && !count.is_multiple_of(8)
            && let Some(last) = part.last_mut()
        {
            // Bits past the last one count for nothing.
            *last |= 0xffu8.checked_shl(u32::try_from(count % 8).unwrap_or(0)).unwrap_or(0);
        }
        let ones: u64 = part.iter().map(|byte| u64::from(byte.count_ones())).sum();
        zeros = zeros.saturating_add(wide(part.len()).saturating_mul(8).saturating_sub(ones));
    }
    Ok(zeros)
}

#[cfg(test)]
mod tests {
    use super::*;
    use adit_core::MemoryDisk;

    #[test]
    fn bits_past_the_last_are_not_free() {
        let disk = MemoryDisk::open("bitmap", vec![0xf0, 0x01]);
        assert_eq!(count_zeros(disk.as_ref(), 11).unwrap(), 6);
        assert_eq!(count_zeros(disk.as_ref(), 16).unwrap(), 11);
    }
}
