//! Disks for the tests: stored tables, sparse images, and a count of what is read.
#![allow(dead_code)]

use adit_core::{
    Disk, Extent, ExtentKind, Finding, Geometry, Hop, Limits, Next, ReadRequest, Result, Volume,
    VolumeTable, read_each,
};
use std::collections::BTreeMap;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

const PAGE: u64 = 512;

/// A sparse image that counts what is read of it.
#[derive(Debug, Clone)]
pub struct Image {
    pub size: u64,
    pub sector_size: u32,
    pub pages: BTreeMap<u64, Vec<u8>>,
    /// Reads that touch this page fail, as a bad sector does.
    pub bad: Option<u64>,
    pub read: Arc<AtomicU64>,
}

impl Image {
    pub fn empty(size: u64) -> Image {
        let read = Arc::new(AtomicU64::new(0));
        Image { size, sector_size: 512, pages: BTreeMap::new(), bad: None, read }
    }

    /// A table from `tests/tables`.
    pub fn stored(name: &str) -> Image {
        let path = format!("{}/tests/tables/{name}.hex", env!("CARGO_MANIFEST_DIR"));
        let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"));
        let mut lines = text.lines();
        let size = lines.next().unwrap().strip_prefix("size ").unwrap().parse().unwrap();
        let mut image = Image::empty(size);
        for line in lines {
            let (at, hex) = line.split_once(' ').unwrap();
            let bytes: Vec<u8> = (0..hex.len())
                .step_by(2)
                .map(|i| u8::from_str_radix(&hex[i..i + 2], 16).unwrap())
                .collect();
            image.put(u64::from_str_radix(at, 16).unwrap(), &bytes);
        }
        image
    }

    pub fn put(&mut self, at: u64, bytes: &[u8]) {
        for (at, &byte) in (at..).zip(bytes) {
            let page = self.pages.entry(at / PAGE).or_insert_with(|| vec![0; PAGE as usize]);
            page[(at % PAGE) as usize] = byte;
        }
    }

    pub fn byte(&self, at: u64) -> u8 {
        self.pages.get(&(at / PAGE)).map_or(0, |page| page[(at % PAGE) as usize])
    }

    pub fn bytes(&self, at: u64, length: u64) -> Vec<u8> {
        (at..at + length).map(|at| self.byte(at)).collect()
    }

    pub fn with(mut self, at: u64, bytes: &[u8]) -> Image {
        self.put(at, bytes);
        self
    }

    pub fn cut(mut self, size: u64) -> Image {
        self.size = size;
        self
    }

    pub fn disk(self) -> Arc<dyn Disk> {
        Arc::new(self)
    }

    pub fn open(self) -> Result<Option<VolumeTable>> {
        adit_partitions::open(&self.disk(), &Limits::default())
    }

    /// The table that must be there.
    pub fn table(self) -> VolumeTable {
        self.open().unwrap().expect("a partition table")
    }
}

impl Disk for Image {
    fn geometry(&self) -> Geometry {
        Geometry { sector_size_bytes: self.sector_size, ..Geometry::of_size(self.size) }
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        use adit_core::DiskExt;
        self.check_range(offset, buf.len() as u64)?;
        self.read.fetch_add(buf.len() as u64, Ordering::Relaxed);
        let end = offset + buf.len() as u64;
        if let Some(bad) = self.bad
            && offset < (bad + 1) * PAGE
            && bad * PAGE < end
        {
            return Err(adit_core::Error::new(
                adit_core::Kind::Io,
                adit_core::Problem::Unreadable,
                "a bad sector",
            ));
        }
        buf.fill(0);
        for (index, page) in self.pages.range(offset / PAGE..end.div_ceil(PAGE)) {
            let (from, to) = ((index * PAGE).max(offset), ((index + 1) * PAGE).min(end));
            let source = &page[(from - index * PAGE) as usize..(to - index * PAGE) as usize];
            buf[(from - offset) as usize..(to - offset) as usize].copy_from_slice(source);
        }
        Ok(())
    }

    fn read_batch(&self, batch: &mut [ReadRequest<'_>]) -> Result<()> {
        read_each(self, batch)
    }

    fn extent_at(&self, offset: u64) -> Result<Extent> {
        Ok(Extent { offset, length: self.size - offset, kind: ExtentKind::Data })
    }

    fn as_file(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn explain(&self, offset: u64) -> Result<Hop> {
        Ok(Hop { layer: "image".to_owned(), offset, steps: vec![], next: Next::Here })
    }
}

/// Volumes as name, offset, size.
pub fn spans(table: &VolumeTable) -> Vec<(&str, u64, u64)> {
    table.volumes.iter().map(|v| (v.name.as_str(), v.offset.unwrap(), v.size_bytes())).collect()
}

pub fn volume<'a>(table: &'a VolumeTable, name: &str) -> &'a Volume {
    table.volumes.iter().find(|volume| volume.name == name).expect(name)
}

pub fn codes(notes: &[Finding]) -> Vec<&'static str> {
    notes.iter().map(|note| note.code).collect()
}

/// A boot record from its slots: type, start, size.
pub fn boot_record(slots: &[(u8, u32, u32)]) -> Vec<u8> {
    let mut sector = vec![0; 512];
    for (i, &(kind, start, size)) in slots.iter().enumerate() {
        let at = 446 + 16 * i;
        sector[at + 4] = kind;
        sector[at + 8..at + 12].copy_from_slice(&start.to_le_bytes());
        sector[at + 12..at + 16].copy_from_slice(&size.to_le_bytes());
    }
    sector[510..].copy_from_slice(&[0x55, 0xaa]);
    sector
}

/// CRC-32 computed bit by bit, apart from the crate that reads.
pub fn crc32(bytes: &[u8]) -> u32 {
    let step = |crc: u32, _| if crc & 1 != 0 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 };
    !bytes.iter().fold(!0, |crc, &byte| (0..8).fold(crc ^ u32::from(byte), step))
}

/// Gives the header at `at` (and its entries at `entries`) right checksums again.
pub fn reseal(image: &mut Image, at: u64, entries: u64) {
    let number = |image: &Image, from: u64| {
        u64::from(u32::from_le_bytes(image.bytes(from, 4).try_into().unwrap()))
    };
    let length = number(image, at + 0x50) * number(image, at + 0x54);
    let crc = crc32(&image.bytes(entries, length));
    image.put(at + 0x58, &crc.to_le_bytes());
    image.put(at + 0x10, &[0; 4]);
    let crc = crc32(&image.bytes(at, 92));
    image.put(at + 0x10, &crc.to_le_bytes());
}
