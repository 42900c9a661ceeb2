//! Targets whose input stands at the front of a device: partition tables, LVM headers.

use crate::patched::walk_disk;
use adit_core::{Concat, Disk, Limits, MemoryDisk, Piece};
use std::sync::Arc;

/// A disk that starts with the input and ends in zeros, or the other way round for backups.
pub fn partitions(data: &[u8]) {
    let Some((&layout, data)) = data.split_first() else { return };
    let bytes = Piece::whole(MemoryDisk::open("input", data.to_vec()));
    let pieces = match layout % 3 {
        0 => vec![bytes],
        1 => vec![bytes, Piece::zero(1 << 30)],
        _ => vec![Piece::zero(1 << 20), bytes],
    };
    let Ok(disk) = Concat::open("disk", pieces) else { return };
    let limits = Limits::default();
    if let Ok(Some(table)) = adit_partitions::open(&disk, &limits) {
        assert!(table.volumes.len() as u64 <= limits.volumes_max);
        for volume in table.volumes.iter().take(16) {
            walk_disk(&volume.disk, 8);
            let _ = adit_partitions::type_is_vmfs(volume);
        }
    }
    for (name, _) in adit_partitions::structures(&disk).iter().take(64) {
        let _ = adit_partitions::inspect(&disk, name);
    }
    let _ = adit_partitions::inspect(&disk, &String::from_utf8_lossy(data));
    let mut findings = 0u32;
    let _ = adit_partitions::check(&disk, &mut |_| findings += 1);
    let _ = adit_partitions::sniff(&disk);
}

/// A device whose LVM region is the input. The regions of a real header are sparse, so the input
/// is cut in four parts: header, volume table, bitmap, table.
pub fn lvm(data: &[u8]) {
    const PARTS: [u64; 4] = [0x10_0000, 0x10_0200, 0x18_0200, 0x18_0600];
    let part = data.len().div_ceil(4).max(1);
    let mut pieces = Vec::new();
    let mut at = 0u64;
    for (start, bytes) in PARTS.iter().zip(data.chunks(part)) {
        let start = (*start).max(at);
        let bytes = if start == 0x10_0000 { &bytes[..bytes.len().min(512)] } else { bytes };
        pieces.push(Piece::zero(start - at));
        pieces.push(Piece::whole(MemoryDisk::open("input", bytes.to_vec())));
        at = start + bytes.len() as u64;
    }
    pieces.push(Piece::zero(64 << 20));
    let Ok(disk) = Concat::open("device", pieces) else { return };
    let limits = Limits::default();
    let _ = adit_vmfs_lvm::probe(&disk);
    let Ok(member) = adit_vmfs_lvm::Member::read(Arc::clone(&disk), "fuzz", &limits) else {
        return;
    };
    let mut findings = 0u32;
    let _ = adit_vmfs_lvm::check(std::slice::from_ref(&member), &mut |_| findings += 1);
    for (name, _) in member.structures() {
        let _ = member.inspect(&name);
    }
    if let Ok(volume) = adit_vmfs_lvm::assemble(vec![member], &limits) {
        walk_disk(&volume.disk, 64);
        let _: Option<Arc<dyn Disk>> = Some(volume.disk);
    }
}
