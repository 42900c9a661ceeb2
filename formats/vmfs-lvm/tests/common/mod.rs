//! A maker of volume members, written from the offset tables and sharing nothing with the crate.
#![allow(dead_code)]

use adit_core::{
    Disk, DiskExt, Extent, ExtentKind, Geometry, Hop, Limits, Next, ReadRequest, Result, read_each,
};
use adit_vmfs_lvm::Member;
use std::collections::BTreeMap;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

pub const MIB: u64 = 1 << 20;
pub const TIB: u64 = 1 << 40;
pub const PE: u64 = 256 * MIB;
const PAGE: usize = 4096;
/// 16 TiB of data and 16 MiB of tables.
const REGION: u64 = 16 * TIB + 16 * MIB;

/// A sparse disk in memory that tells its holes.
#[derive(Clone, Debug, Default)]
pub struct Sparse {
    pub size: u64,
    pub pages: BTreeMap<u64, Vec<u8>>,
}

impl Sparse {
    pub fn put(&mut self, offset: u64, bytes: &[u8]) {
        for (at, &byte) in (offset..).zip(bytes) {
            let page = self.pages.entry(at / PAGE as u64).or_insert_with(|| vec![0; PAGE]);
            page[(at % PAGE as u64) as usize] = byte;
        }
    }

    pub fn put32(&mut self, offset: u64, value: u32) {
        self.put(offset, &value.to_le_bytes());
    }

    pub fn put64(&mut self, offset: u64, value: u64) {
        self.put(offset, &value.to_le_bytes());
    }
}

impl Disk for Sparse {
    fn geometry(&self) -> Geometry {
        Geometry::of_size(self.size)
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.check_range(offset, buf.len() as u64)?;
        let mut done = 0;
        while done < buf.len() {
            let at = offset + done as u64;
            let start = (at % PAGE as u64) as usize;
            let part = (PAGE - start).min(buf.len() - done);
            let room = &mut buf[done..done + part];
            match self.pages.get(&(at / PAGE as u64)) {
                Some(page) => room.copy_from_slice(&page[start..start + part]),
                None => room.fill(0),
            }
            done += part;
        }
        Ok(())
    }

    fn read_batch(&self, batch: &mut [ReadRequest<'_>]) -> Result<()> {
        read_each(self, batch)
    }

    fn extent_at(&self, offset: u64) -> Result<Extent> {
        self.check_range(offset, 1)?;
        let page = offset / PAGE as u64;
        let next = self.pages.range(page..).next().map(|(&next, _)| next);
        let (kind, end) = match next {
            Some(next) if next == page => (ExtentKind::Data, (page + 1) * PAGE as u64),
            Some(next) => (ExtentKind::Hole, next * PAGE as u64),
            None => (ExtentKind::Hole, self.size),
        };
        Ok(Extent { offset, length: end.min(self.size) - offset, kind })
    }

    fn as_file(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn explain(&self, offset: u64) -> Result<Hop> {
        Ok(Hop { layer: "sparse".into(), offset, steps: Vec::new(), next: Next::Here })
    }
}

/// What a member looks like.
#[derive(Clone, Debug)]
pub struct Maker {
    pub version: u32,
    /// Extents of each device of the volume.
    pub pes: Vec<u64>,
    pub uuid: u8,
}

impl Maker {
    pub fn new(version: u32, pes: &[u64]) -> Self {
        Maker { version, pes: pes.to_vec(), uuid: 0xa0 }
    }

    pub fn bitmap_bytes(&self) -> u64 {
        if self.version == 6 { 4096 } else { 1024 }
    }

    /// Where the volume descriptor stands.
    pub fn volume_at(&self) -> u64 {
        if self.version == 6 { 0x101000 } else { 0x100200 }
    }

    /// Where the first region's map `map` starts.
    pub fn map_at(&self, map: u64) -> u64 {
        let first = if self.version == 6 { 0x181000 } else { 0x180200 };
        first + map * (0x100000 + self.bitmap_bytes())
    }

    /// Where entry `entry` of the first region stands.
    pub fn entry_at(&self, entry: u64) -> u64 {
        self.map_at(entry / 8192) + self.bitmap_bytes() + entry % 8192 * 128
    }

    /// Device `index`. Every extent starts with 8 bytes: its number in the volume, plus 1.
    pub fn device(&self, index: usize) -> Sparse {
        let (pes, first): (u64, u64) = (self.pes[index], self.pes[..index].iter().sum());
        let total: u64 = self.pes.iter().sum();
        let at = |pe: u64| 0x1100000 + pe * PE + pe / 65536 * 16 * MIB;
        let step = if self.version == 6 { 65536 } else { 1 };
        let count = |pes: u64| pes.div_ceil(step);
        let mut disk = Sparse { size: at(pes - 1) + PE + 512 * 1024, ..Sparse::default() };
        let h = 0x100000;
        disk.put32(h, 0xc001d00d);
        disk.put32(h + 4, self.version);
        disk.put32(h + 8, 21);
        disk.put(h + 0xc, &[0, 15]);
        disk.put(h + 0xc + 6, b"Maker   Test disk       V1.0vmhba0:C0:T0:L0");
        disk.put32(h + 0x5a, 512);
        disk.put64(h + 0x5e, disk.size);
        disk.put32(h + 0x66, 1);
        disk.put32(h + 0x6a, count(pes) as u32);
        disk.put32(h + 0x6e, count(pes) as u32 - 1);
        disk.put64(h + 0x72, 3);
        disk.put64(h + 0x7a, 0x1100000);
        disk.put(h + 0x82, &[index as u8 + 1; 16]);
        disk.put64(h + 0x92, 1_600_000_000_000_000);
        if self.version == 6 {
            disk.put32(h + 0xca, 4096);
            disk.put32(h + 0xce, pes as u32);
        } else if self.version > 3 {
            disk.put32(h + 0xbe, pes.min(65536).div_ceil(8192) as u32);
        }
        let v = self.volume_at();
        disk.put64(v, total * PE);
        let entries: u64 = self.pes.iter().map(|&pes| count(pes)).sum();
        disk.put64(v + 8, entries + self.pes.len() as u64);
        disk.put32(v + 0x10, 1);
        disk.put(v + 0x14, b"made by hand");
        disk.put(v + 0x54, &[self.uuid; 16]);
        disk.put32(v + 0x64, 1);
        disk.put64(v + 0x68, 1_600_000_000_500_000);
        disk.put32(v + 0x74, pes as u32);
        disk.put64(v + 0x78, first);
        disk.put64(v + 0x80, first + pes - 1);
        disk.put32(v + 0x90, self.pes.len() as u32);
        if self.version == 6 {
            disk.put32(v + 0x110, count(pes) as u32);
        }
        if self.version >= 5 && index == 0 {
            for k in 0..self.pes.len() as u64 {
                let at = self.map_at(0) - 8192 + k * 256;
                disk.put(at, format!("naa.{k}{k}:1").as_bytes());
            }
        }
        for (entry, pe) in (0..pes).step_by(step as usize).enumerate() {
            let entry = entry as u64;
            let (region, inside) = (entry / 65536, entry % 65536);
            if inside == 0 && region > 0 {
                let left = (pes - pe).min(65536);
                let link = if region == 1 { h + 0xc2 } else { h + (region - 1) * REGION + 16 };
                disk.put64(link, h + region * REGION);
                disk.put32(h + region * REGION, 0xc001d00d);
                disk.put32(h + region * REGION + 4, left.div_ceil(8192) as u32);
                disk.put64(h + region * REGION + 8, at(pe));
            }
            let bit = region * REGION + self.map_at(inside / 8192) + inside % 8192 / 8;
            let mut byte = [0];
            disk.read_at(&mut byte, bit).unwrap();
            disk.put(bit, &[byte[0] | 1 << (inside % 8)]);
            let e = region * REGION + self.entry_at(inside);
            disk.put(e, &[1]);
            disk.put32(e + 1, entry as u32);
            disk.put64(e + 9, at(pe));
            disk.put64(e + 0x11, (first + pe) * PE);
            disk.put64(e + 0x19, step.min(pes - pe) * PE);
            disk.put32(e + 0x21, 1);
        }
        let marked = (0..pes).filter(|pe| pes < 100 || pe % 65536 < 2 || pe % 65536 > 65533);
        for pe in marked.chain([pes - 1]) {
            disk.put64(at(pe), first + pe + 1);
        }
        disk
    }

    /// All members, read.
    pub fn members(&self) -> Vec<Member> {
        (0..self.pes.len())
            .map(|k| read(self.device(k), &format!("disk{k}.img")).unwrap())
            .collect()
    }
}

pub fn read(disk: Sparse, label: &str) -> Result<Member> {
    Member::read(Arc::new(disk), label, &Limits::default())
}

/// The mark at the start of extent `pe` of the volume.
pub fn mark(disk: &Arc<dyn Disk>, pe: u64) -> Result<u64> {
    let bytes = disk.read_vec(pe * PE, 8)?;
    Ok(u64::from_le_bytes(bytes.try_into().unwrap()))
}

/// Codes of all findings of a member's check.
pub fn codes(member: &Member) -> Vec<&'static str> {
    let mut codes = Vec::new();
    member.check(&mut |finding| codes.push(finding.code)).unwrap();
    codes
}
