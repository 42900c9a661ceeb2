//! Dynamic disks made byte by byte, after the Linux-NTFS project's documentation of LDM.
#![allow(dead_code)] // Each test file uses its part.

use adit_core::{Disk, Limits, MemoryDisk};
use adit_ldm::Member;
use std::sync::Arc;

pub const SECTORS: usize = 8192;
pub const CONFIG: usize = SECTORS - 2048;
/// Where the logical part of a disk begins.
pub const LOGICAL: usize = 63;
pub const GROUP: &str = "03c0c2b2-9e0b-4f1c-8d58-2c3a1b5c0d01";
pub const CHUNK: usize = 64 << 10;

pub fn disk_guid(number: usize) -> String {
    format!("d15c0000-0000-4000-8000-00000000000{number}")
}

pub fn put(bytes: &mut [u8], at: usize, what: &[u8]) {
    bytes[at..at + what.len()].copy_from_slice(what);
}

/// A number with its length before it.
pub fn var(number: u64) -> Vec<u8> {
    let bytes = number.to_be_bytes();
    let skip = bytes.iter().take(7).take_while(|&&byte| byte == 0).count();
    let mut out = vec![(8 - skip) as u8];
    out.extend(&bytes[skip..]);
    out
}

pub fn text(text: &str) -> Vec<u8> {
    [&[text.len() as u8], text.as_bytes()].concat()
}

/// A record's body: status, flags, type, length, and fields.
fn body(flags: u8, kind: u8, fields: &[&[u8]]) -> Vec<u8> {
    let fields = fields.concat();
    let length = (fields.len() as u32).to_be_bytes();
    [&[0, 0, flags, kind], &length[..], &fields].concat()
}

pub fn volume(id: u64, name: &str, raid: bool, children: u64, sectors: u64, hint: &str) -> Vec<u8> {
    let mut state = [0; 14];
    put(&mut state, 0, b"ACTIVE");
    let guid = [id as u8; 16];
    let kind = [if raid { 4 } else { 3 }, 1, 5, 0, 0, 0, if raid { 0x13 } else { 0x11 }];
    let mut fields = vec![
        var(id),
        text(name),
        text(if raid { "raid5" } else { "gen" }),
        vec![0],
        state.to_vec(),
        kind.to_vec(),
        var(children),
        vec![0; 16],
        var(sectors),
        vec![0, 0, 0, 0, 7],
        guid.to_vec(),
    ];
    if !hint.is_empty() {
        fields.push(text(hint));
    }
    let fields: Vec<&[u8]> = fields.iter().map(Vec::as_slice).collect();
    body(if hint.is_empty() { 0 } else { 2 }, 0x51, &fields)
}

/// `kind`: 1 stripe, 2 simple or spanned, 3 RAID-5.
pub fn component(id: u64, volume: u64, kind: u8, children: u64) -> Vec<u8> {
    let stripe = [var((CHUNK / 512) as u64), var(children)].concat();
    let stripe: &[u8] = if kind == 2 { &[] } else { &stripe };
    let fields: [&[u8]; 10] = [
        &var(id),
        &text(&format!("Volume{volume}-{id}")),
        &text("ACTIVE"),
        &[kind],
        &[0; 4],
        &var(children),
        &[0; 16],
        &var(volume),
        &[0],
        stripe,
    ];
    body(if kind == 2 { 0 } else { 0x10 }, 0x32, &fields)
}

#[derive(Clone, Copy)]
pub struct Part {
    pub id: u64,
    pub component: u64,
    pub disk: usize,
    /// Unit: sectors of the logical disk.
    pub start: u64,
    pub offset: u64,
    pub size: u64,
    pub column: Option<u64>,
}

pub fn partition(part: Part) -> Vec<u8> {
    let column = part.column.map(var).unwrap_or_default();
    let fields: [&[u8]; 9] = [
        &var(part.id),
        &text(&format!("Disk{}-{}", part.disk + 1, part.id)),
        &[0; 12],
        &part.start.to_be_bytes(),
        &part.offset.to_be_bytes(),
        &var(part.size),
        &var(part.component),
        &var(1 + part.disk as u64),
        &column,
    ];
    body(if part.column.is_some() { 8 } else { 0 }, 0x33, &fields)
}

pub fn disk_record(number: usize) -> Vec<u8> {
    let name = format!("Disk{}", number + 1);
    let guid = disk_guid(number);
    body(
        0,
        0x34,
        &[&var(1 + number as u64), &text(&name), &text(&guid), &text(""), &[0; 4], &[0; 8]],
    )
}

/// A database of three disks: simple, spanned, striped, mirrored and RAID-5 volumes.
pub fn records() -> Vec<Vec<u8>> {
    let group = body(0, 0x35, &[&var(100), &text("HostDg0"), &text(GROUP), &[0; 4], &[0; 8]]);
    let mut all = vec![group, disk_record(0), disk_record(1), disk_record(2)];
    let mut part = |id, component, disk, start, offset, size, column| {
        all.push(partition(Part { id, component, disk, start, offset, size, column }));
    };
    // Extents of each disk, in sectors: 0-512 simple or spanned, then the others.
    part(31, 21, 0, 0, 0, 300, None);
    part(32, 22, 0, 300, 0, 212, None);
    part(33, 22, 1, 0, 212, 500, None);
    part(34, 23, 1, 512, 0, 256, Some(0));
    part(35, 23, 2, 0, 0, 256, Some(1));
    part(36, 24, 0, 512, 0, 200, None);
    part(37, 25, 2, 512, 0, 200, None);
    part(38, 26, 0, 1024, 0, 384, Some(0));
    part(39, 26, 1, 1024, 0, 384, Some(1));
    part(40, 26, 2, 1024, 0, 384, Some(2));
    all.extend([
        component(21, 11, 2, 1),
        component(22, 12, 2, 2),
        component(23, 13, 1, 2),
        component(24, 14, 2, 1),
        component(25, 14, 2, 1),
        component(26, 15, 3, 3),
        volume(11, "Volume1", false, 1, 300, "E:"),
        volume(12, "Volume2", false, 1, 712, ""),
        volume(13, "Stripe1", false, 1, 512, ""),
        volume(14, "Mirror1", false, 2, 200, ""),
        volume(15, "Raid1", true, 1, 768, ""),
    ]);
    all
}

/// A dynamic disk with an MBR, with these records, at this committed sequence.
pub fn disk_of(number: usize, records: &[Vec<u8>], committed: u64) -> Vec<u8> {
    let mut disk = vec![0; SECTORS * 512];
    put(&mut disk, 446, &[0, 0, 0, 0, 0x42]);
    put(&mut disk, 454, &(LOGICAL as u32).to_le_bytes());
    put(&mut disk, 458, &((SECTORS - LOGICAL) as u32).to_le_bytes());
    put(&mut disk, 510, &[0x55, 0xaa]);
    let head = privhead(number, LOGICAL, CONFIG - LOGICAL, CONFIG);
    for sector in [6, CONFIG + 1856, CONFIG + 2047] {
        put(&mut disk, sector * 512, &head);
    }
    database(&mut disk, CONFIG, records, committed);
    disk
}

pub fn privhead(number: usize, start: usize, size: usize, config: usize) -> Vec<u8> {
    let mut head = vec![0; 512];
    put(&mut head, 0, b"PRIVHEAD");
    put(&mut head, 0x0c, &[0, 2, 0, 11]);
    put(&mut head, 0x30, disk_guid(number).as_bytes());
    put(&mut head, 0x70, b"1b77da20-c717-11d0-a5be-00a0c91db73c");
    put(&mut head, 0xb0, GROUP.as_bytes());
    put(&mut head, 0xf0, b"HostDg0");
    for (at, value) in [(0x11b, start), (0x123, size), (0x12b, config), (0x133, 2048)] {
        put(&mut head, at, &(value as u64).to_be_bytes());
    }
    put(&mut head, 0x13b, &2u64.to_be_bytes());
    put(&mut head, 0x143, &2046u64.to_be_bytes());
    put(&mut head, 0x14b, &[0, 0, 0, 1, 0, 0, 0, 1]);
    put(&mut head, 0x153, &1481u64.to_be_bytes());
    put(&mut head, 0x15b, &224u64.to_be_bytes());
    // The sum of all bytes, its own place left out.
    let sum: u32 = head.iter().map(|&byte| u32::from(byte)).sum();
    put(&mut head, 8, &sum.to_be_bytes());
    head
}

pub fn database(disk: &mut [u8], config: usize, records: &[Vec<u8>], committed: u64) {
    let mut toc = vec![0; 512];
    put(&mut toc, 0, b"TOCBLOCK");
    put(&mut toc, 0x24, b"config");
    put(&mut toc, 0x2e, &17u64.to_be_bytes());
    put(&mut toc, 0x36, &1481u64.to_be_bytes());
    put(&mut toc, 0x46, b"log");
    put(&mut toc, 0x50, &1498u64.to_be_bytes());
    put(&mut toc, 0x58, &224u64.to_be_bytes());
    for sector in [1, 2, 2045, 2046] {
        put(disk, (config + sector) * 512, &toc);
    }
    // Records of 128 bytes hold 112 of an object; larger ones take several, not in order.
    let mut raw: Vec<(u32, u16, u16, Vec<u8>)> = Vec::new();
    for (group, record) in (1u32..).zip(records) {
        let parts = record.chunks(112).count() as u16;
        let pieces = (0u16..).zip(record.chunks(112));
        pieces.for_each(|(part, piece)| raw.push((group, part, parts, piece.to_vec())));
    }
    raw.reverse();
    let mut vmdb = vec![0; 512];
    put(&mut vmdb, 0, b"VMDB");
    put(&mut vmdb, 4, &(raw.len() as u32 + 4 + 1).to_be_bytes());
    put(&mut vmdb, 8, &128u32.to_be_bytes());
    put(&mut vmdb, 12, &512u32.to_be_bytes());
    put(&mut vmdb, 16, &[0, 1, 0, 4, 0, 10]);
    put(&mut vmdb, 0x16, b"HostDg0");
    put(&mut vmdb, 0x35, GROUP.as_bytes());
    put(&mut vmdb, 0x75, &committed.to_be_bytes());
    put(&mut vmdb, 0x7d, &committed.to_be_bytes());
    for (at, count) in [(0x85, 0x51), (0x89, 0x32), (0x8d, 0x33), (0x91, 0x34)] {
        let count = records.iter().filter(|record| record[3] == count).count() as u32;
        put(&mut vmdb, at, &count.to_be_bytes());
    }
    let at = (config + 17) * 512;
    put(disk, at, &vmdb);
    for (number, (group, part, parts, piece)) in raw.iter().enumerate() {
        let mut record = vec![0; 128];
        put(&mut record, 0, b"VBLK");
        put(&mut record, 4, &(number as u32 + 4).to_be_bytes());
        put(&mut record, 8, &group.to_be_bytes());
        put(&mut record, 12, &part.to_be_bytes());
        put(&mut record, 14, &parts.to_be_bytes());
        put(&mut record, 16, piece);
        put(disk, at + 512 + number * 128, &record);
    }
    let mut unused = vec![0; 128];
    put(&mut unused, 0, b"VBLK");
    put(&mut unused, 4, &(raw.len() as u32 + 4).to_be_bytes());
    put(disk, at + 512 + raw.len() * 128, &unused);
}

pub fn noise(seed: usize, length: usize) -> Vec<u8> {
    let mut state = (seed as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..length)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as u8
        })
        .collect()
}

/// Three disks of the group, without data.
pub fn group() -> Vec<Vec<u8>> {
    (0..3).map(|number| disk_of(number, &records(), 9)).collect()
}

/// Writes at a sector of a disk's logical part.
pub fn write(disks: &mut [Vec<u8>], disk: usize, sector: usize, data: &[u8]) {
    put(&mut disks[disk], (LOGICAL + sector) * 512, data);
}

pub fn open(bytes: &[u8]) -> Arc<dyn Disk> {
    MemoryDisk::open("disk", bytes.to_vec())
}

pub fn members(disks: &[Vec<u8>], but: &[usize]) -> Vec<Member> {
    let given = disks.iter().enumerate().filter(|(number, _)| !but.contains(number));
    given
        .map(|(number, bytes)| {
            let member = Member::open(open(bytes), &Limits::default()).unwrap();
            member.with_label(format!("disk{number}"))
        })
        .collect()
}
