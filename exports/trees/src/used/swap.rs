//! Swap areas of Linux: nothing in them outlives the machine, unless it sleeps.

use adit_core::bytes::u32_le;
use adit_core::{Disk, DiskExt, Result};
use std::ops::Range;
use std::sync::Arc;

/// A swap area.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Swap {
    /// Label, empty if none.
    pub label: String,
    /// The pages behind the header. Unit: bytes.
    pub pages: Range<u64>,
}

/// Page sizes Linux knows. Unit: bytes.
const PAGE_BYTES: [u64; 5] = [4096, 8192, 16384, 32768, 65536];

/// Recognises a swap area. One that holds the memory of a sleeping machine has another
/// signature, and is none.
///
/// Errors: those of reading.
pub(super) fn find(disk: &Arc<dyn Disk>) -> Result<Option<Swap>> {
    let head = disk.read_prefix(0, 65536)?;
    for page in PAGE_BYTES {
        let Ok(end) = usize::try_from(page) else { continue };
        if head.get(end - 10..end) != Some(b"SWAPSPACE2") {
            continue;
        }
        let version = u32_le(&head, 1024);
        let last = u32_le(&head, 1028).map_or(0, u64::from);
        let area_end = last.saturating_add(1).saturating_mul(page);
        if version != Some(1) || last == 0 || area_end > disk.size_bytes() {
            return Ok(None);
        }
        let label = adit_core::bytes::until_nul(head.get(1052..1068).unwrap_or(&[]));
        let label = String::from_utf8_lossy(label).into_owned();
        return Ok(Some(Swap { label, pages: page..area_end }));
    }
    Ok(None)
}
