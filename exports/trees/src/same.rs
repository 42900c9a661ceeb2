//! Whether two disks hold the same bytes, read only where nothing else decides.

use adit_core::{Disk, DiskExt, Interrupt, Leaf, LeafKind, Progress, Result, bytes};
use std::sync::Arc;

/// What one comparison read and did not need to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Effort {
    /// Read on both sides. Unit: bytes.
    pub compared_bytes: u64,
    /// Known to be equal without a read: holes on both sides, or the same place of the same
    /// disk below. Unit: bytes.
    pub shared_bytes: u64,
}

/// How much is read at once of each side. Unit: bytes.
const PART_BYTES: u64 = 1 << 20;

/// Finds the first byte in which two disks of equal length differ.
///
/// Where both sides are holes, or lead to one place of one disk below (clusters that two
/// snapshots share), nothing is read.
///
/// Units: bytes.
/// Errors: those of reading, `Lost` among them; `Interrupted`.
pub fn first_difference(
    a: &Arc<dyn Disk>,
    b: &Arc<dyn Disk>,
    progress: &dyn Progress,
    interrupt: &Interrupt,
    effort: &mut Effort,
) -> Result<Option<u64>> {
    let size = a.size_bytes().min(b.size_bytes());
    let mut buffers = (Vec::new(), Vec::new());
    let mut at = 0;
    while at < size {
        interrupt.check()?;
        let (left, right) = (Leaf::find(a, at)?, Leaf::find(b, at)?);
        let length = left.length.min(right.length).clamp(1, size - at);
        if equal_unread(&left.kind, &right.kind) {
            effort.shared_bytes += length;
            progress.advance(length);
            at += length;
            continue;
        }
        // What is joined above may be cut below: a read takes all of the part anyway.
        let length = match length < PART_BYTES {
            true => PART_BYTES.min(size - at),
            false => length.min(PART_BYTES),
        };
        let difference = compare(a, b, at, length, &mut buffers)?;
        effort.compared_bytes += length;
        progress.advance(length);
        if difference.is_some() {
            return Ok(difference);
        }
        at += length;
    }
    Ok((a.size_bytes() != b.size_bytes()).then_some(size))
}

fn compare(
    a: &Arc<dyn Disk>,
    b: &Arc<dyn Disk>,
    at: u64,
    length: u64,
    buffers: &mut (Vec<u8>, Vec<u8>),
) -> Result<Option<u64>> {
    let length = bytes::narrow(length).unwrap_or(usize::MAX);
    buffers.0.resize(length, 0);
    buffers.1.resize(length, 0);
    a.read_at(&mut buffers.0, at)?;
    b.read_at(&mut buffers.1, at)?;
    if buffers.0 == buffers.1 {
        return Ok(None);
    }
    let first = buffers.0.iter().zip(&buffers.1).position(|(a, b)| a != b);
    Ok(first.map(|index| at + index as u64))
}

fn equal_unread(left: &LeafKind, right: &LeafKind) -> bool {
    let zero = |kind: &LeafKind| matches!(kind, LeafKind::Hole | LeafKind::Zero);
    match (left, right) {
        (LeafKind::Stored { disk: a, offset: at }, LeafKind::Stored { disk: b, offset: then }) => {
            at == then && identity(a) == identity(b)
        }
        _ => zero(left) && zero(right),
    }
}

/// What makes two disks the same bytes: one object, or one file of the host.
#[derive(PartialEq, Eq)]
enum Identity {
    File(u64, u64),
    Object(usize),
}

#[allow(clippy::useless_conversion)] // The fields differ between platforms.
fn identity(disk: &Arc<dyn Disk>) -> Identity {
    match disk.as_file().map(rustix::fs::fstat) {
        Some(Ok(stat)) => Identity::File(u64::from(stat.st_dev), u64::from(stat.st_ino)),
        _ => Identity::Object(Arc::as_ptr(disk).cast::<()>().addr()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use adit_core::{Concat, Kind, MemoryDisk, Piece, Quiet, Slice};

    fn differ(a: &Arc<dyn Disk>, b: &Arc<dyn Disk>) -> (Result<Option<u64>>, Effort) {
        let mut effort = Effort::default();
        (first_difference(a, b, &Quiet, &Interrupt::default(), &mut effort), effort)
    }

    #[test]
    fn what_leads_to_one_place_of_one_disk_is_not_read() {
        let below = MemoryDisk::open("below", vec![7; 3 << 20]);
        let a = Slice::open("a", Arc::clone(&below), 4096, 2 << 20);
        let b = Slice::open("b", below, 4096, 2 << 20);
        let (found, effort) = differ(&a, &b);
        assert_eq!(found.unwrap(), None);
        assert_eq!(effort, Effort { compared_bytes: 0, shared_bytes: 2 << 20 });
    }

    #[test]
    fn the_first_byte_that_differs_is_told_and_equal_bytes_of_other_places_are_equal() {
        let mut bytes = vec![7u8; 3 << 20];
        let a = MemoryDisk::open("a", bytes.clone());
        let b = MemoryDisk::open("b", bytes.clone());
        assert_eq!(differ(&a, &b).0.unwrap(), None);
        bytes[(2 << 20) + 17] = 8;
        assert_eq!(differ(&a, &MemoryDisk::open("c", bytes)).0.unwrap(), Some((2 << 20) + 17));
    }

    #[test]
    fn a_hole_equals_stored_zeros_and_lost_bytes_equal_nothing() {
        let hole = Concat::open("hole", vec![Piece::zero(10_000)]).unwrap();
        let zeros = MemoryDisk::open("zeros", vec![0; 10_000]);
        assert_eq!(differ(&hole, &zeros).0.unwrap(), None);
        let gone = adit_core::Error::lost("gone");
        let lost = Concat::open("lost", vec![Piece::lost(10_000, gone)]).unwrap();
        for other in [&hole, &zeros, &lost] {
            assert_eq!(differ(&lost, other).0.unwrap_err().kind(), Kind::Lost);
        }
    }
}
