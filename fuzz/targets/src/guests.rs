//! Targets whose input is the front of a guest's disk; its first byte chooses what reads it.

use crate::patched::walk_disk;
use adit_core::{
    Check, Concat, Cursor, Disk, FileSystem, Fork, Inspect, Interrupt, Limits, MemoryDisk, Piece,
    Result,
};
use std::sync::Arc;

/// The input, then zeros up to a size that every format takes.
fn disk_of(data: &[u8]) -> Result<Arc<dyn Disk>> {
    let input = Piece::whole(MemoryDisk::open("input", data.to_vec()));
    Concat::open("disk", vec![input, Piece::zero(64 << 20)])
}

/// Lists some of a tree, and reads the fronts of its files.
fn walk(fs: &dyn FileSystem) {
    let mut folders = vec![fs.root()];
    let mut steps = 0;
    while let Some(folder) = folders.pop() {
        let mut cursor = Some(Cursor::default());
        while let Some(at) = cursor {
            let Ok(page) = fs.read_dir(folder, at) else { break };
            assert!(page.next != Some(at), "a directory that never ends");
            for entry in page.entries {
                steps += 1;
                if steps > 256 {
                    return;
                }
                let _ = fs.metadata(entry.node);
                let _ = fs.xattrs(entry.node);
                let _ = fs.read_link(entry.node);
                if let Ok(file) = fs.open(entry.node, &Fork::Data) {
                    walk_disk(&file, 8);
                }
                folders.push(entry.node);
            }
            cursor = page.next;
        }
    }
    let _ = (fs.space(), fs.notes());
}

fn look<F: FileSystem + Inspect>(fs: Result<Arc<F>>) -> Option<Arc<F>> {
    let fs = fs.ok()?;
    walk(&*fs);
    for (name, _) in fs.structures().iter().take(16) {
        let _ = fs.inspect(name);
    }
    Some(fs)
}

fn checked<F: FileSystem + Inspect + Check>(fs: Result<Arc<F>>) {
    if let Some(fs) = look(fs) {
        let _ = fs.check(&mut |_| {}, &Interrupt::default());
    }
}

/// A guest's file system.
pub fn guest(data: &[u8]) {
    let Some((&format, data)) = data.split_first() else { return };
    let Ok(disk) = disk_of(data) else { return };
    let limits = Limits::default();
    if format == 6 {
        return checked(adit_btrfs::Btrfs::open(disk, &limits));
    }
    match format % 6 {
        0 => checked(adit_ext::Ext::open(disk, &limits)),
        1 => checked(adit_xfs::Xfs::open(disk, &limits)),
        2 => checked(adit_fat::Fat::open(disk, &limits)),
        3 => checked(adit_iso9660::Iso::open(disk, &limits)),
        4 => checked(adit_squashfs::Squash::open(disk, &limits)),
        _ => checked(adit_ntfs::Ntfs::open(disk, &limits)),
    }
}

/// A member of a volume that lies on several disks, or an encrypted one.
pub fn volume(data: &[u8]) {
    let Some((&format, data)) = data.split_first() else { return };
    let Ok(disk) = disk_of(data) else { return };
    let limits = Limits::default();
    let table = match format % 4 {
        0 => adit_lvm2::Member::open(disk, &limits)
            .and_then(|member| adit_lvm2::Group::assemble(vec![member], &limits)),
        1 => adit_md::Member::open(disk, &limits)
            .and_then(|member| adit_md::Group::assemble(vec![member], &limits)),
        2 => adit_ldm::Member::open(disk, &limits)
            .and_then(|member| adit_ldm::Group::assemble(vec![member], &limits)),
        _ => {
            let bounds = adit_luks::Bounds {
                argon2_bytes_max: 1 << 20,
                argon2_work_bytes_max: 1 << 20,
                pbkdf2_rounds_max: 64,
            };
            let opened = adit_luks::Luks::open(disk, &limits);
            if let Ok(plain) = opened.and_then(|luks| luks.with_bounds(bounds).unlock(b"fuzz")) {
                walk_disk(&plain, 8);
            }
            return;
        }
    };
    if let Ok(table) = table {
        for volume in table.volumes.iter().take(16) {
            walk_disk(&volume.disk, 16);
        }
    }
}
