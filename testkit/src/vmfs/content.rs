//! Where the bytes of a file go: its blocks, its pointers, its holes.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use crate::bytes::{put32, put64};
use crate::store::Store;

use super::descriptor::{DIRECT, DOUBLE, Fd, PB2S, POINTER_BLOCKS, RESIDENT, SUB_BLOCKS};
use super::layout::{Kind, Layout, SFBS, Version};
use super::make::Maker;

/// How a file's blocks are found from its FD.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Addressing {
    /// In the FD itself: up to 1024 bytes on VMFS5, 3584 on VMFS6.
    Resident,
    /// In sub-blocks.
    SubBlocks,
    /// File blocks named in the FD.
    Direct,
    /// File blocks named in pointer blocks (sub-blocks on VMFS6).
    PointerBlocks,
    /// File blocks named in PB2s: what VMFS6 uses for system files.
    Pb2s,
    /// Pointer blocks named in pointer blocks.
    Double,
    /// Pointer blocks named in PB2s.
    DoubleByPb2,
}

/// What a file holds and how it is to be kept.
#[derive(Debug, Clone, Default)]
pub(crate) struct Content {
    pub length: u64,
    pub pieces: Vec<(u64, Vec<u8>)>,
    pub addressing: Option<Addressing>,
    /// Byte ranges kept in 512 MiB blocks.
    pub large: Vec<Range<u64>>,
    /// Byte ranges that are allocated although nothing is written to them.
    pub thick: Vec<Range<u64>>,
    /// Block index and TBZ bits.
    pub tbz: Vec<(u64, u8)>,
    /// Volume offset of the first block.
    pub placed_at: Option<u64>,
    /// Garbage after the end and under TBZ blocks.
    pub garbage: bool,
}

/// An item that holds part of a file.
pub(crate) type Place = (Kind, u64);

/// What became of a content.
#[derive(Debug, Clone, Default)]
pub(crate) struct Stored {
    pub unit: u64,
    pub resident: Option<u64>,
    /// By index in units.
    pub places: BTreeMap<u64, Place>,
    pub pointer_blocks: Vec<Place>,
}

const STALE: &[u8] = b"stale bytes that no reader may show ";

impl Content {
    pub(crate) fn bytes(bytes: Vec<u8>) -> Self {
        Self { length: bytes.len() as u64, pieces: vec![(0, bytes)], ..Self::default() }
    }

    /// ESXi's choice where the test made none.
    fn choose(&self, layout: &Layout, file: bool) -> Addressing {
        if let Some(chosen) = self.addressing {
            return chosen;
        }
        let n = layout.pointers_per_block();
        let direct = layout.pointers() * layout.block_bytes;
        let small = self.length <= layout.sub_block_bytes()
            || (!file && layout.six() && self.length <= layout.pointers() * 65536);
        let by_block = !self.large.is_empty() || !self.tbz.is_empty() || self.placed_at.is_some();
        if !by_block
            && file
            && self.length <= layout.resident_bytes()
            && layout.resident_bytes() > 0
        {
            Addressing::Resident
        } else if !by_block && small {
            Addressing::SubBlocks
        } else if self.length <= direct && self.large.is_empty() {
            Addressing::Direct
        } else if self.length <= direct * n {
            Addressing::PointerBlocks
        } else {
            Addressing::Double
        }
    }

    /// Units of `unit` bytes that must exist.
    fn units(&self, unit: u64) -> BTreeSet<u64> {
        let pieces = self.pieces.iter().map(|(at, bytes)| *at..*at + bytes.len() as u64);
        let ranges = pieces.chain(self.thick.iter().cloned());
        let mut units: BTreeSet<u64> = self.tbz.iter().map(|(index, _)| *index).collect();
        for range in ranges.filter(|range| !range.is_empty()) {
            units.extend(range.start / unit..range.end.div_ceil(unit));
        }
        units
    }
}

impl<S: Store> Maker<S> {
    /// Stores a file: allocates, writes data and pointer blocks, and fills in the FD's address part.
    pub(crate) fn store(&mut self, content: &Content, file: bool, fd: &mut Fd) -> Stored {
        fd.length = content.length;
        let addressing = content.choose(&self.layout, file);
        if addressing == Addressing::Resident {
            return self.store_resident(content, fd);
        }
        let unit = match addressing {
            Addressing::SubBlocks => self.layout.sub_block_bytes(),
            _ => self.layout.block_bytes,
        };
        let mut stored = Stored { unit, ..Stored::default() };
        self.place_units(content, addressing, fd.address, &mut stored);
        self.write_pieces(content, &stored);
        fd.block_bytes = unit;
        fd.blocks = stored.places.len() as u64;
        fd.new_since_epoch = fd.blocks;
        fd.tbz = content.tbz.len() as u64;
        self.point(content, addressing, fd, &mut stored);
        self.track_clusters(fd, &stored);
        stored
    }

    fn store_resident(&mut self, content: &Content, fd: &mut Fd) -> Stored {
        let room = self.layout.resident_bytes();
        assert!(content.length <= room, "at most {room} bytes are resident");
        let mut data = vec![0; content.length as usize];
        for (at, bytes) in &content.pieces {
            data[*at as usize..][..bytes.len()].copy_from_slice(bytes);
        }
        if content.garbage {
            let rest = (room as usize - data.len()).min(STALE.len());
            data.extend_from_slice(&STALE[..rest]);
        }
        fd.zla = RESIDENT;
        fd.block_bytes = self.layout.sub_block_bytes();
        fd.resident = data;
        Stored { resident: Some(self.layout.resident_at()), ..Stored::default() }
    }

    fn place_units(
        &mut self,
        content: &Content,
        addressing: Addressing,
        owner: u64,
        stored: &mut Stored,
    ) {
        for range in &content.large {
            assert!(
                self.layout.six() && addressing != Addressing::SubBlocks,
                "only VMFS6 files made of blocks have large blocks"
            );
            let large = self.layout.large_bytes();
            for chunk in range.start / large..range.end.div_ceil(large) {
                let item = self.allocate_large();
                let units = chunk * SFBS..(chunk + 1) * SFBS;
                stored.places.extend(units.map(|unit| (unit, (Kind::Large, item))));
            }
        }
        let kept = self.fb.cursor;
        if let Some(at) = content.placed_at {
            self.fb.cursor = at / self.layout.block_bytes;
        }
        for index in content.units(stored.unit) {
            assert!(
                index * stored.unit < content.length,
                "unit {index} lies behind the end of the file"
            );
            if stored.places.contains_key(&index) {
                continue;
            }
            let place = match addressing {
                Addressing::SubBlocks => (Kind::SubBlock, self.sbc.allocate(owner)),
                _ => (Kind::Block, self.fb.allocate(owner)),
            };
            stored.places.insert(index, place);
        }
        if content.placed_at.is_some() {
            self.fb.cursor = kept;
        }
    }

    fn write_pieces(&mut self, content: &Content, stored: &Stored) {
        if content.garbage {
            self.write_garbage(content, stored);
        }
        for (start, bytes) in &content.pieces {
            let mut at = *start;
            let mut left = &bytes[..];
            while !left.is_empty() {
                let room = stored.unit - at % stored.unit;
                let (part, rest) = left.split_at(left.len().min(room as usize));
                self.write_unit(stored, at, part);
                at += part.len() as u64;
                left = rest;
            }
        }
    }

    /// What a reader must not show: old bytes after the end and below TBZ bits.
    fn write_garbage(&mut self, content: &Content, stored: &Stored) {
        let end = content.length;
        let room = (stored.unit - end % stored.unit) % stored.unit;
        if stored.places.contains_key(&(end / stored.unit)) {
            self.write_unit(stored, end, &STALE[..STALE.len().min(room as usize)]);
        }
        let eighth = stored.unit / 8;
        for &(index, bits) in &content.tbz {
            let marked = (0..8).filter(|k| bits >> k & 1 == 1);
            for k in marked {
                self.write_unit(stored, index * stored.unit + k * eighth, STALE);
            }
        }
    }

    /// Writes inside one unit of a file.
    pub(crate) fn write_unit(&mut self, stored: &Stored, at: u64, bytes: &[u8]) {
        let (kind, item) = stored.places[&(at / stored.unit)];
        match kind {
            Kind::SubBlock => self.sbc.write_item(&mut self.volume, item, at % stored.unit, bytes),
            _ => {
                let to = self.in_volume((kind, item), at, stored.unit);
                self.volume.write(to, bytes);
            }
        }
    }

    /// Volume offset of a byte of a file.
    pub(crate) fn in_volume(&self, (kind, item): Place, at: u64, unit: u64) -> u64 {
        let large = self.layout.large_bytes();
        match kind {
            Kind::Block => item * unit + at % unit,
            Kind::Large => item * large + at % large,
            Kind::SubBlock => self.sbc.item_in_volume(item, at % unit),
            Kind::PointerBlock => self.pbc.item_in_volume(item, at),
            Kind::Pb2 => self.pb2.item_in_volume(item, at),
            _ => panic!("{kind:?} holds no file data"),
        }
    }

    /// Writes the pointers: into the FD, or into pointer blocks it names.
    fn point(
        &mut self,
        content: &Content,
        addressing: Addressing,
        fd: &mut Fd,
        stored: &mut Stored,
    ) {
        let tbz: BTreeMap<u64, u8> = content.tbz.iter().copied().collect();
        let words = stored.places.iter().map(|(&index, &(kind, item))| {
            let bits = u64::from(*tbz.get(&index).unwrap_or(&0));
            let flags = if self.layout.six() { bits << 7 } else { u64::from(bits != 0) << 5 };
            (index, self.layout.address(kind, item) | flags)
        });
        let words: BTreeMap<u64, u64> = words.collect();
        let mut large: Vec<_> =
            stored.places.values().filter(|(kind, _)| *kind == Kind::Large).collect();
        large.dedup();
        fd.large = large.len() as u64;
        let lower = match self.layout.version {
            Version::Six => Kind::SubBlock,
            _ => Kind::PointerBlock,
        };
        let (zla, levels) = match addressing {
            Addressing::Resident | Addressing::Direct => (DIRECT, vec![]),
            Addressing::SubBlocks => (SUB_BLOCKS, vec![]),
            Addressing::PointerBlocks => (POINTER_BLOCKS, vec![lower]),
            Addressing::Pb2s => (PB2S, vec![Kind::Pb2]),
            Addressing::Double => (DOUBLE, vec![lower, lower]),
            Addressing::DoubleByPb2 => (DOUBLE, vec![lower, Kind::Pb2]),
        };
        fd.zla = zla;
        let mut words = words;
        for kind in levels {
            words = self.write_pointer_blocks(kind, &words, fd.address, stored);
        }
        fd.pointer_blocks = stored.pointer_blocks.len() as u64;
        fd.pointers = words.into_iter().collect();
        let room = self.layout.pointers();
        assert!(
            fd.pointers.last().is_none_or(|(slot, _)| *slot < room),
            "{addressing:?} does not reach {} bytes",
            content.length
        );
    }

    /// Writes one level of pointer blocks and returns the words that name them.
    fn write_pointer_blocks(
        &mut self,
        kind: Kind,
        words: &BTreeMap<u64, u64>,
        owner: u64,
        stored: &mut Stored,
    ) -> BTreeMap<u64, u64> {
        let n = self.layout.pointers_per_block();
        let size = self.layout.pointer_bytes();
        let mut blocks: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
        for (index, word) in words {
            let block = blocks
                .entry(index / n)
                .or_insert_with(|| vec![0; self.layout.pointer_block_bytes() as usize]);
            let at = (index % n * size) as usize;
            match self.layout.six() {
                true => put64(block, at, *word),
                false => put32(block, at, *word),
            }
        }
        let mut upper = BTreeMap::new();
        for (slot, bytes) in blocks {
            let resource = match kind {
                Kind::SubBlock => &mut self.sbc,
                Kind::Pb2 => &mut self.pb2,
                _ => &mut self.pbc,
            };
            let item = resource.allocate(owner);
            resource.write_item(&mut self.volume, item, 0, &bytes);
            stored.pointer_blocks.push((kind, item));
            upper.insert(slot, self.layout.address(kind, item));
        }
        upper
    }

    fn track_clusters(&self, fd: &mut Fd, stored: &Stored) {
        if !self.layout.six() || fd.kind != super::descriptor::REGULAR {
            return;
        }
        let clusters: BTreeSet<u64> = stored
            .places
            .values()
            .filter(|(kind, _)| *kind == Kind::Block)
            .map(|(_, item)| item / SFBS)
            .collect();
        fd.clusters = clusters.into_iter().collect();
    }
}
