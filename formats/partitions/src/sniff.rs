//! What a disk without VMFS looks like, so that an error can say so.
//!
//! Recognition is by exact magic in bounded windows; nothing is opened or followed.
//! Source: each format's own specification or kernel header.

use adit_core::bytes::{u16_be, u32_be, u32_le, u64_le};
use adit_core::{Disk, DiskExt};
use std::sync::Arc;

/// How much of the start is looked at. Unit: bytes.
const HEAD_BYTES: usize = 0x11000;
/// How much of the end is looked at. Unit: bytes.
const TAIL_BYTES: usize = 0x20000;

/// Names what the disk holds, if its magic is known; VMFS itself is not.
///
/// Reads at most 328 KiB. A read that fails counts as nothing recognised.
pub fn sniff(disk: &Arc<dyn Disk>) -> Option<&'static str> {
    let head = disk.read_prefix(0, HEAD_BYTES).ok()?;
    let exact = |magic: &&(&'static str, &[(usize, &[u8])])| {
        magic
            .1
            .iter()
            .all(|&(at, bytes)| head.get(at..).is_some_and(|rest| rest.starts_with(bytes)))
    };
    EXACT
        .iter()
        .find(exact)
        .map(|magic| magic.0)
        .or_else(|| descriptor(&head))
        .or_else(|| ext(&head))
        .or_else(|| hfs(&head))
        .or_else(|| ufs(&head))
        .or_else(|| md(&head))
        .or_else(|| tail(disk))
        .or_else(|| zfs(disk))
}

/// Whether a VMFS starts here, with or without its volume manager.
pub(crate) fn is_vmfs(disk: &Arc<dyn Disk>) -> bool {
    let magic = |at| u32_le(&disk.read_prefix(at, 4).unwrap_or_default(), 0);
    magic(0x10_0000) == Some(0xc001_d00d)
        || matches!(magic(0x20_0000), Some(0x2fab_f15e | 0x2fab_f15f))
}

/// Names with the bytes that must all be there. Wrappers come before what they may wrap.
type Exact = &'static [(&'static str, &'static [(usize, &'static [u8])])];
const EXACT: Exact = &[
    ("LUKS encrypted volume", &[(0, b"LUKS\xba\xbe")]),
    ("BitLocker encrypted volume", &[(3, b"-FVE-FS-")]),
    ("QCOW2 disk image", &[(0, b"QFI\xfb")]),
    ("VMDK sparse extent", &[(0, b"KDMV")]),
    ("VMDK COWD extent", &[(0, b"COWD")]),
    ("VMDK seSparse extent", &[(0, b"\xbe\xba\xfe\xca\0\0\0\0\x01\0\0\0\x02\0\0\0")]),
    ("VHDX disk image", &[(0, b"vhdxfile")]),
    ("dynamic VHD disk image", &[(0, b"conectix")]),
    ("VDI disk image", &[(0x40, b"\x7f\x10\xda\xbe")]),
    ("Parallels disk image", &[(0, b"WithoutFreeSpace")]),
    ("Parallels disk image", &[(0, b"WithouFreSpacExt")]),
    ("EnCase evidence file", &[(0, b"EVF\x09\x0d\x0a\xff\0")]),
    ("gzip archive", &[(0, b"\x1f\x8b\x08")]),
    ("zstd archive", &[(0, b"\x28\xb5\x2f\xfd")]),
    ("xz archive", &[(0, b"\xfd7zXZ\0")]),
    ("bzip2 archive", &[(0, b"BZh"), (4, b"\x31\x41\x59\x26\x53\x59")]),
    ("LZ4 archive", &[(0, b"\x04\x22\x4d\x18")]),
    ("7z archive", &[(0, b"7z\xbc\xaf\x27\x1c")]),
    ("RAR archive", &[(0, b"Rar!\x1a\x07")]),
    ("ZIP archive", &[(0, b"PK\x03\x04")]),
    ("tar archive (an OVA is one)", &[(257, b"ustar")]),
    ("LVM2 physical volume", &[(0x000, b"LABELONE"), (0x018, b"LVM2 001")]),
    ("LVM2 physical volume", &[(0x200, b"LABELONE"), (0x218, b"LVM2 001")]),
    ("LVM2 physical volume", &[(0x400, b"LABELONE"), (0x418, b"LVM2 001")]),
    ("LVM2 physical volume", &[(0x600, b"LABELONE"), (0x618, b"LVM2 001")]),
    ("NTFS file system", &[(3, b"NTFS    "), (510, b"\x55\xaa")]),
    ("exFAT file system", &[(3, b"EXFAT   "), (510, b"\x55\xaa")]),
    ("ReFS file system", &[(3, b"ReFS\0\0\0\0"), (16, b"FSRS")]),
    ("FAT file system", &[(54, b"FAT12   "), (510, b"\x55\xaa")]),
    ("FAT file system", &[(54, b"FAT16   "), (510, b"\x55\xaa")]),
    ("FAT file system", &[(82, b"FAT32   "), (510, b"\x55\xaa")]),
    ("XFS file system", &[(0, b"XFSB")]),
    ("squashfs file system", &[(0, b"hsqs")]),
    ("APFS container", &[(32, b"NXSB")]),
    ("btrfs file system", &[(0x10040, b"_BHRfS_M")]),
    ("F2FS file system", &[(0x400, b"\x10\x20\xf5\xf2")]),
    ("JFS file system", &[(0x8000, b"JFS1")]),
    ("ReiserFS file system", &[(0x10034, b"ReIsEr")]),
    ("EROFS file system", &[(0x400, b"\xe2\xe1\xf5\xe0")]),
    ("bcachefs file system", &[(0x1018, b"\xc6\x85\x73\xf6\x66\xce\x90\xa9")]),
    ("swap space", &[(0x0ff6, b"SWAPSPACE2")]),
    ("swap space", &[(0x1ff6, b"SWAPSPACE2")]),
    ("swap space", &[(0x3ff6, b"SWAPSPACE2")]),
    ("swap space", &[(0xfff6, b"SWAPSPACE2")]),
    ("ISO9660 file system", &[(0x8001, b"CD001")]),
    ("UDF file system", &[(0x8001, b"BEA01")]),
];

/// VMDK descriptor: text that starts with a fixed comment, in any case.
fn descriptor(head: &[u8]) -> Option<&'static str> {
    let text = b"# disk descriptorfile";
    let start = head.get(..text.len())?;
    start.eq_ignore_ascii_case(text).then_some("VMDK descriptor")
}

/// ext2, ext3, ext4: the magic has only two bytes, so two other fields must make sense.
fn ext(head: &[u8]) -> Option<&'static str> {
    let sb = head.get(0x400..0x800)?;
    let block_size_log2 = u32_le(sb, 0x18)?;
    if u32_le(sb, 0x38)? & 0xffff != 0xef53 || block_size_log2 > 6 || u32_le(sb, 0x4c)? > 1 {
        return None;
    }
    let (compatible, incompatible, read_only) =
        (u32_le(sb, 0x5c)?, u32_le(sb, 0x60)?, u32_le(sb, 0x64)?);
    // Features beyond those ext3 knew: extents, 64 bit, flexible groups and the like.
    if incompatible & !0x1f != 0 || read_only & !0x7 != 0 {
        return Some("ext4 file system");
    }
    Some(if compatible & 4 != 0 { "ext3 file system" } else { "ext2 file system" })
}

/// HFS+ and HFSX by signature and version; HFS by signature and the block it must start at.
fn hfs(head: &[u8]) -> Option<&'static str> {
    match (u16_be(head, 0x400)?, u16_be(head, 0x402)?) {
        (0x482b, 4) | (0x4858, 5) => Some("HFS+ file system"),
        (0x4244, _) if u16_be(head, 0x40e)? == 3 => Some("HFS file system"),
        _ => None,
    }
}

/// UFS1 and UFS2, in either byte order, at their usual superblock places.
fn ufs(head: &[u8]) -> Option<&'static str> {
    [(0x2000_usize, 0x0001_1954), (0x10000, 0x1954_0119)].iter().find_map(|&(at, magic)| {
        let at = at.checked_add(0x55c)?;
        let found = u32_le(head, at) == Some(magic) || u32_be(head, at) == Some(magic);
        found.then_some("UFS file system")
    })
}

/// Linux software RAID with its superblock at the start.
fn md(head: &[u8]) -> Option<&'static str> {
    [0_usize, 0x1000].iter().find_map(|&at| {
        let version = u32_le(head, at.checked_add(4)?)?;
        (u32_le(head, at)? == 0xa92b_4efc && version == 1).then_some("Linux RAID member")
    })
}

/// What keeps its magic at the end.
fn tail(disk: &Arc<dyn Disk>) -> Option<&'static str> {
    let size = disk.size_bytes();
    let from = size.saturating_sub(u64::try_from(TAIL_BYTES).ok()?);
    let tail = disk.read_prefix(from, TAIL_BYTES).ok()?;
    let at_end = |back: usize, magic: &[u8]| {
        let at = tail.len().checked_sub(back);
        at.and_then(|at| tail.get(at..)).is_some_and(|rest| rest.starts_with(magic))
    };
    // Fixed VHD files written by old tools end in 511 bytes.
    if at_end(512, b"conectix") || at_end(511, b"conectix") {
        return Some("fixed VHD disk image");
    }
    if at_end(512, b"koly") {
        return Some("Apple disk image");
    }
    let md_old = (size & !0xffff).checked_sub(0x10000);
    let md_new = size.checked_sub(0x2000).map(|at| at & !0xfff);
    let is_md = |at: u64| {
        let magic = u32_le(&tail, usize::try_from(at.checked_sub(from)?).ok()?)?;
        (magic == 0xa92b_4efc).then_some("Linux RAID member")
    };
    [md_old, md_new].into_iter().flatten().find_map(is_md)
}

/// ZFS: an uberblock of the first label, in either byte order.
fn zfs(disk: &Arc<dyn Disk>) -> Option<&'static str> {
    const MAGIC: u64 = 0x00ba_b10c;
    let ring = disk.read_prefix(0x20000, 0x20000).ok()?;
    let found = ring.chunks_exact(1024).filter_map(|block| u64_le(block, 0));
    found
        .into_iter()
        .any(|magic| magic == MAGIC || magic.swap_bytes() == MAGIC)
        .then_some("ZFS pool member")
}
