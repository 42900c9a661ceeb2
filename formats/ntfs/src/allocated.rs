//! Which clusters are in use, from the volume's bitmap.

use crate::layout::{kind, record};
use crate::log::LogState;
use crate::ntfs::Ntfs;
use crate::record::place;
use adit_core::bytes::{narrow, u64_le, wide};
use adit_core::{Disk, DiskExt, Error, FileSystem, Problem, Result};
use std::ops::Range;
use std::sync::Arc;

/// The bitmap is read in parts of at most this many bytes.
const PART_BYTES: u64 = 1 << 20;

/// Where a volume with shadow copies names their catalogue, 0 where it has none any more.
/// Unit: bytes.
const SHADOW_OFFSET: u64 = 0x1e00;

/// `3808876B-C176-4E48-B7AE-04046E6CC752` as it stands on disk.
const SHADOW_ID: [u8; 16] = [
    0x6b, 0x87, 0x08, 0x38, 0x76, 0xc1, 0x48, 0x4e, 0xb7, 0xae, 0x04, 0x04, 0x6e, 0x6c, 0xc7, 0x52,
];

impl Ntfs {
    /// Calls `each` with every range of the volume that is in use: the clusters that `$Bitmap`
    /// marks, the boot sectors, and what lies past the last cluster. Ranges come in order.
    ///
    /// Units: bytes of the volume.
    /// Errors: `Unsupported` where the bitmap may be out of date or is not all: the log holds
    /// changes, the volume is dirty, Windows sleeps on it, or shadow copies need clusters that
    /// look free; `Corrupt` where it cannot be read; those of `each`.
    pub fn allocated(&self, each: &mut dyn FnMut(Range<u64>) -> Result<()>) -> Result<()> {
        self.refuse_stale()?;
        let boot = self.boot();
        let node = self.node(record::BITMAP)?;
        let missing =
            || Error::corrupt(Problem::Missing, "there is no bitmap").at(place(record::BITMAP));
        let stream = self.stream(&node, kind::DATA, &[])?.ok_or_else(missing)?;
        let bitmap = self.disk(stream, "$Bitmap");
        if bitmap.size_bytes() < boot.clusters.div_ceil(8) {
            let detail = format!("{} bytes for {} clusters", bitmap.size_bytes(), boot.clusters);
            return Err(Error::corrupt(Problem::Truncated, detail).at(place(record::BITMAP)));
        }
        let size = self.volume().size_bytes();
        let cluster = |number: u64| number.saturating_mul(boot.cluster_bytes).min(size);
        // The boot sector is in use whatever the bitmap says.
        let mut open = 0..1u64;
        each_set(&bitmap, boot.clusters, &mut |number| {
            if number <= open.end {
                open.end = open.end.max(number.saturating_add(1));
                return Ok(());
            }
            let done = std::mem::replace(&mut open, number..number.saturating_add(1));
            each(cluster(done.start)..cluster(done.end))
        })?;
        each(cluster(open.start)..cluster(open.end))?;
        let end = cluster(boot.clusters);
        if end < size { each(end..size) } else { Ok(()) }
    }

    fn refuse_stale(&self) -> Result<()> {
        let stale = |why: &str| Err(Error::unsupported(format!("its bitmap is not all: {why}")));
        match self.log_state() {
            Ok(LogState::Empty | LogState::Clean) => {}
            Ok(LogState::Unfinished { .. }) => {
                return stale("it was not cleanly unmounted, and its log is not replayed");
            }
            Err(error) => return stale(&format!("$LogFile cannot be read ({error})")),
        }
        if self.info().flags & 1 != 0 {
            return stale("the volume is marked dirty");
        }
        if self.notes().iter().any(|note| note.code == "ntfs-hibernated") {
            return stale("Windows is hibernated or was shut down by fast startup");
        }
        let shadow = self.volume().read_prefix(SHADOW_OFFSET, 0x38)?;
        if shadow.starts_with(&SHADOW_ID) && u64_le(&shadow, 0x30) != Some(0) {
            return stale("it has shadow copies, which need clusters that look free");
        }
        Ok(())
    }
}

fn each_set(
    bitmap: &Arc<dyn Disk>,
    count: u64,
    see: &mut dyn FnMut(u64) -> Result<()>,
) -> Result<()> {
    let (mut at, end) = (0u64, count.div_ceil(8));
    while at < end {
        let length = end.saturating_sub(at).min(PART_BYTES);
        let part = bitmap.read_vec(at, narrow(length).unwrap_or(0))?;
        for (index, byte) in part.iter().enumerate().filter(|(_, byte)| **byte != 0) {
            let first = at.saturating_add(wide(index)).saturating_mul(8);
            for bit in (0..8u64).filter(|bit| byte >> bit & 1 == 1) {
                let number = first.saturating_add(bit);
                if number < count {
                    see(number)?;
                }
            }
        }
        at = at.saturating_add(length);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use adit_core::MemoryDisk;

    #[test]
    fn every_set_bit_is_seen_up_to_the_last_cluster() {
        let disk = MemoryDisk::open("bitmap", vec![0x81, 0x00, 0xff]);
        let mut seen = Vec::new();
        each_set(&disk, 19, &mut |number| {
            seen.push(number);
            Ok(())
        })
        .unwrap();
        assert_eq!(seen, [0, 7, 16, 17, 18]);
    }
}
