//! Files the kernel can read by itself, because one host file holds exactly their bytes.

use adit_core::{Disk, ExtentKind};
use std::os::fd::OwnedFd;
use std::sync::Arc;

const LAYERS_MAX: u32 = 64;

/// The host file that holds a disk byte for byte: from its first byte, to its last, no more.
pub(crate) fn host_file(disk: &Arc<dyn Disk>, size_bytes: u64) -> Option<OwnedFd> {
    let mut below = Arc::clone(disk);
    for _ in 0..LAYERS_MAX {
        if let Some(found) = exactly(&below, size_bytes) {
            return Some(found);
        }
        let extent = below.extent_at(0).ok()?;
        match extent.kind {
            ExtentKind::Verbatim { disk, offset: 0 } if extent.length >= size_bytes => below = disk,
            _ => return None,
        }
    }
    None
}

fn exactly(disk: &Arc<dyn Disk>, size_bytes: u64) -> Option<OwnedFd> {
    let file = disk.as_file()?;
    let host = rustix::fs::fstat(file).ok()?;
    // The kernel would show a longer host file to its end.
    let same_size = u64::try_from(host.st_size) == Ok(size_bytes);
    if disk.geometry().size_bytes != size_bytes || !same_size {
        return None;
    }
    file.try_clone_to_owned().ok()
}
