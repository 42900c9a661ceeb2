//! A tiny NTFS writer: just enough to put chosen bytes in chosen places.
#![allow(dead_code, clippy::all)]

use adit_core::{Disk, Limits, MemoryDisk, Result};
use adit_ntfs::Ntfs;
use std::sync::Arc;

pub const CLUSTER: usize = 4096;
pub const RECORD: usize = 1024;
pub const CLUSTERS: usize = 512;
/// `$MFT` stands in two pieces: records 0 to 31 and from 32 on.
pub const MFT: [usize; 2] = [16, 40];
pub const MIRROR: usize = 8;
pub const LOG: usize = 200;
pub const ROOT_BLOCKS: usize = 30;

pub fn le16(value: usize) -> [u8; 2] {
    (value as u16).to_le_bytes()
}

pub fn le32(value: usize) -> [u8; 4] {
    (value as u32).to_le_bytes()
}

pub fn le64(value: u64) -> [u8; 8] {
    value.to_le_bytes()
}

pub fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    bytes[at..at + value.len()].copy_from_slice(value);
}

pub fn utf16(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_le_bytes).collect()
}

/// Pads to a multiple of eight.
fn padded(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.resize(bytes.len().div_ceil(8) * 8, 0);
    bytes
}

pub fn resident(kind: u32, name: &str, flags: u16, value: &[u8]) -> Vec<u8> {
    let name = utf16(name);
    let start = (24 + name.len()).div_ceil(8) * 8;
    let mut own = vec![0; start];
    put(&mut own, 0, &kind.to_le_bytes());
    own[9] = (name.len() / 2) as u8;
    put(&mut own, 10, &le16(24));
    put(&mut own, 12, &flags.to_le_bytes());
    put(&mut own, 16, &le32(value.len()));
    put(&mut own, 20, &le16(start));
    put(&mut own, 24, &name);
    own.extend(value);
    let mut own = padded(own);
    let length = own.len();
    put(&mut own, 4, &le32(length));
    own
}

/// An attribute in clusters.
#[derive(Clone, Default)]
pub struct Runs {
    pub kind: u32,
    pub name: &'static str,
    pub flags: u16,
    pub unit: u16,
    pub first: u64,
    pub clusters: u64,
    pub size: u64,
    pub initialized: Option<u64>,
    pub pairs: Vec<u8>,
}

impl Runs {
    pub fn bytes(&self) -> Vec<u8> {
        let name = utf16(self.name);
        let start = 0x48 + name.len().div_ceil(8) * 8;
        let mut own = vec![0; start];
        put(&mut own, 0, &self.kind.to_le_bytes());
        own[8] = 1;
        own[9] = (name.len() / 2) as u8;
        put(&mut own, 10, &le16(0x48));
        put(&mut own, 12, &self.flags.to_le_bytes());
        put(&mut own, 0x10, &le64(self.first));
        put(&mut own, 0x18, &le64((self.first + self.clusters).wrapping_sub(1)));
        put(&mut own, 0x20, &le16(start));
        put(&mut own, 0x22, &self.unit.to_le_bytes());
        put(&mut own, 0x28, &le64(self.clusters * CLUSTER as u64));
        put(&mut own, 0x30, &le64(self.size));
        put(&mut own, 0x38, &le64(self.initialized.unwrap_or(self.size)));
        put(&mut own, 0x48, &name);
        own.extend(&self.pairs);
        own.push(0);
        let mut own = padded(own);
        let length = own.len();
        put(&mut own, 4, &le32(length));
        own
    }
}

/// One run: length and absolute cluster, for lists of a single run.
pub fn run(length: usize, lcn: usize) -> Vec<u8> {
    [&[0x22][..], &le16(length), &le16(lcn)].concat()
}

pub fn standard(attributes: u32) -> Vec<u8> {
    let mut value = vec![0; 72];
    put(&mut value, 0, &le64(116_444_736_000_000_000));
    put(&mut value, 8, &le64(116_444_736_000_000_000 + 15_000_000));
    put(&mut value, 0x20, &attributes.to_le_bytes());
    resident(0x10, "", 0, &value)
}

pub fn file_name(parent: u64, name: &str, namespace: u8, attributes: u32) -> Vec<u8> {
    let letters = utf16(name);
    let mut value = vec![0; 66];
    put(&mut value, 0, &le64(parent | 1 << 48));
    put(&mut value, 0x38, &attributes.to_le_bytes());
    value[0x40] = (letters.len() / 2) as u8;
    value[0x41] = namespace;
    value.extend(letters);
    value
}

pub fn fix(bytes: &mut [u8], sequence_at: usize) {
    let sectors = bytes.len() / 512;
    put(bytes, 4, &le16(sequence_at));
    put(bytes, 6, &le16(sectors + 1));
    put(bytes, sequence_at, &le16(0x55));
    for sector in 0..sectors {
        let end = sector * 512 + 510;
        let saved = [bytes[end], bytes[end + 1]];
        put(bytes, sequence_at + 2 + sector * 2, &saved);
        put(bytes, end, &le16(0x55));
    }
}

pub fn record(flags: u16, base: u64, attributes: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = vec![0; RECORD];
    put(&mut bytes, 0, b"FILE");
    put(&mut bytes, 0x10, &le16(1));
    put(&mut bytes, 0x12, &le16(1));
    put(&mut bytes, 0x14, &le16(0x38));
    put(&mut bytes, 0x16, &flags.to_le_bytes());
    put(&mut bytes, 0x20, &le64(base));
    let mut at = 0x38;
    for (id, attribute) in attributes.iter().enumerate() {
        put(&mut bytes, at, attribute);
        put(&mut bytes, at + 14, &le16(id));
        at += attribute.len();
    }
    put(&mut bytes, at, &[0xff; 4]);
    put(&mut bytes, 0x18, &le32(at + 8));
    put(&mut bytes, 0x1c, &le32(RECORD));
    fix(&mut bytes, 0x30);
    bytes
}

pub fn list_entry(kind: u32, first: u64, record: u64, id: usize) -> Vec<u8> {
    let mut entry = vec![0; 32];
    put(&mut entry, 0, &kind.to_le_bytes());
    put(&mut entry, 4, &le16(32));
    entry[7] = 26;
    put(&mut entry, 8, &le64(first));
    put(&mut entry, 16, &le64(record | 1 << 48));
    put(&mut entry, 24, &le16(id));
    entry
}

pub fn entry(record: u64, key: &[u8], below: Option<u64>) -> Vec<u8> {
    let mut own = vec![0; 16];
    put(&mut own, 0, &le64(record | 1 << 48));
    put(&mut own, 10, &le16(key.len()));
    own.extend(key);
    let mut own = padded(own);
    own.extend(below.into_iter().flat_map(u64::to_le_bytes));
    let length = own.len();
    put(&mut own, 8, &le16(length));
    own[12] = u8::from(below.is_some());
    own
}

/// An index header and its entries; the last one is added.
pub fn node(entries: &[Vec<u8>], last_below: Option<u64>, gap: usize) -> Vec<u8> {
    let mut last = entry(0, &[], last_below);
    put(&mut last, 0, &[0; 8]);
    last[12] |= 2;
    let body = [entries.concat(), last].concat();
    let mut own = vec![0; 16 + gap];
    let used = own.len() + body.len();
    put(&mut own, 0, &le32(16 + gap));
    put(&mut own, 4, &le32(used));
    put(&mut own, 8, &le32(used));
    own[12] = u8::from(last_below.is_some());
    own.extend(body);
    own
}

pub fn index_root(node: &[u8]) -> Vec<u8> {
    let mut value = vec![0; 16];
    put(&mut value, 0, &le32(0x30));
    put(&mut value, 4, &le32(1));
    put(&mut value, 8, &le32(CLUSTER));
    value[12] = 1;
    value.extend(node);
    resident(0x90, "$I30", 0, &value)
}

pub fn block(vcn: u64, entries: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = vec![0; CLUSTER];
    put(&mut bytes, 0, b"INDX");
    put(&mut bytes, 16, &le64(vcn));
    put(&mut bytes, 24, &node(entries, None, 24));
    fix(&mut bytes, 40);
    bytes
}

/// An image in the making.
#[derive(Clone)]
pub struct Image {
    pub bytes: Vec<u8>,
}

impl Image {
    pub fn open(&self) -> Result<Arc<Ntfs>> {
        Ntfs::open(self.disk(), &Limits::default())
    }

    pub fn disk(&self) -> Arc<dyn Disk> {
        MemoryDisk::open("image", self.bytes.clone())
    }

    pub fn record_at(number: usize) -> usize {
        match number {
            0..32 => MFT[0] * CLUSTER + number * RECORD,
            _ => MFT[1] * CLUSTER + (number - 32) * RECORD,
        }
    }

    pub fn record(&mut self, number: usize, record: Vec<u8>) {
        put(&mut self.bytes, Self::record_at(number), &record);
        if number < 4 {
            put(&mut self.bytes, MIRROR * CLUSTER + number * RECORD, &record);
        }
    }

    pub fn clusters(&mut self, lcn: usize, bytes: &[u8]) {
        put(&mut self.bytes, lcn * CLUSTER, bytes);
    }
}

/// Every file of the sample: record, name, attributes, what else its record holds.
pub fn files() -> Vec<(u64, &'static str, u32, Vec<Vec<u8>>)> {
    let data = |value: &[u8]| resident(0x80, "", 0, value);
    let link = |target: &str| {
        let name = utf16(target);
        let mut value = vec![0; 20];
        put(&mut value, 0, &0xa000_000cu32.to_le_bytes());
        put(&mut value, 4, &le16(12 + name.len()));
        put(&mut value, 10, &le16(name.len()));
        put(&mut value, 14, &le16(0));
        value.extend(name);
        resident(0xc0, "", 0, &value)
    };
    let dedup = [&0x8000_0013u32.to_le_bytes()[..], &[4, 0, 0, 0], &[0; 4]].concat();
    let wof = |method: u8| {
        let mut value = vec![0; 24];
        put(&mut value, 0, &0x8000_0017u32.to_le_bytes());
        value[4] = 16;
        (value[8], value[12], value[16], value[20]) = (1, 2, 1, method);
        resident(0xc0, "", 0, &value)
    };
    let hole = |size: u64| {
        let clusters = size.div_ceil(CLUSTER as u64);
        let pairs = vec![0x01, clusters as u8];
        Runs { kind: 0x80, flags: 0x8000, clusters, size, pairs, ..Runs::default() }.bytes()
    };
    let packed = |kind_at: usize, size: usize| {
        let name = "WofCompressedData";
        let pairs = run(1, kind_at);
        Runs { kind: 0x80, name, clusters: 1, size: size as u64, pairs, ..Runs::default() }.bytes()
    };
    let clusters = |clusters, size, initialized, pairs| {
        Runs { kind: 0x80, clusters, size, initialized, pairs, ..Runs::default() }.bytes()
    };
    let text = calls().len() as u64;
    vec![
        (26, "Hello.txt", 0x20, vec![data(b"hello, world"), resident(0x80, "extra", 0, b"more")]),
        // Two clusters at 100, a hole of two, one cluster at 99; the end was never written.
        (
            27,
            "plain.bin",
            0x220,
            vec![clusters(5, 19_000, Some(17_000), vec![0x11, 2, 100, 0x01, 2, 0x11, 1, 0xff])],
        ),
        (
            28,
            "packed.bin",
            0x820,
            vec![
                Runs {
                    kind: 0x80,
                    flags: 1,
                    unit: 4,
                    clusters: 48,
                    size: 140_000,
                    // A packed unit, a hole, and the first clusters of a unit stored as it is.
                    pairs: vec![0x11, 1, 110, 0x01, 31, 0x21, 16, 10, 0],
                    ..Runs::default()
                }
                .bytes(),
            ],
        ),
        (29, "link", 0x400, vec![data(b""), link(r"dir\..\Hello.txt")]),
        (30, "secret", 0x4020, vec![resident(0x80, "", 0x4000, b"????")]),
        (31, "dedup", 0x600, vec![hole(9000), resident(0xc0, "", 0, &dedup)]),
        (33, "far.txt", 0x20, vec![data(b"in the second piece of $MFT")]),
        (34, "torn", 0x20, vec![data(b"?")]),
        (
            35,
            "lost.bin",
            0x20,
            vec![clusters(2, 8192, None, [run(1, 101), run(1, 60_000)].concat())],
        ),
        (36, "lzx", 0x620, vec![hole(text), packed(160, LZX.len()), wof(1)]),
        (37, "xpress", 0x620, vec![hole(text), packed(161, XPRESS.len()), wof(0)]),
    ]
}

pub const LZX: &[u8] = include_bytes!("calls.lzx");
pub const XPRESS: &[u8] = include_bytes!("calls.xpress");

/// What `calls.lzx` and `calls.xpress`, made by wimlib, hold.
pub fn calls() -> Vec<u8> {
    let mut bytes = Vec::new();
    for i in 0..120i32 {
        bytes.extend(format!("call {i} of {}: ", i * i % 97).into_bytes());
        bytes.push(0xe8);
        bytes.extend((i * 3001 % 20_000 - 100).to_le_bytes());
        bytes.push(b'\n');
    }
    bytes
}

/// A volume with one of everything.
pub fn sample() -> Image {
    let mut image = Image { bytes: vec![0; CLUSTERS * CLUSTER + 512] };
    boot(&mut image);
    let named = |number: u64, name: &str, attributes: u32| {
        resident(0x30, "", 0, &file_name(if number < 24 { 5 } else { 5 }, name, 3, attributes))
    };
    // The second half of $MFT's run list stands in record 25.
    let list = [
        list_entry(0x10, 0, 0, 0),
        list_entry(0x30, 0, 0, 2),
        list_entry(0x80, 0, 0, 3),
        list_entry(0x80, 8, 25, 0),
        list_entry(0xb0, 0, 0, 4),
    ];
    let size = 64 * RECORD as u64;
    let first = Runs { kind: 0x80, clusters: 8, size, pairs: run(8, MFT[0]), ..Runs::default() };
    let second = Runs { first: 8, pairs: run(8, MFT[1]), ..first.clone() };
    image.record(
        0,
        record(
            1,
            0,
            &[
                standard(6),
                resident(0x20, "", 0, &list.concat()),
                named(0, "$MFT", 6),
                first.bytes(),
                resident(0xb0, "", 0, &[0xff, 0, 0, 0xff, 0, 0, 0, 0x80]),
            ],
        ),
    );
    image.record(25, record(1, 1 << 48, &[second.bytes()]));
    let log = Runs { kind: 0x80, clusters: 8, size: 32768, pairs: run(8, LOG), ..Runs::default() };
    image.record(2, record(1, 0, &[standard(6), named(2, "$LogFile", 6), log.bytes()]));
    image.clusters(LOG, &[0xff; 32768]);
    let version = [&[0; 8][..], &[3, 1, 0, 0]].concat();
    image.record(
        3,
        record(
            1,
            0,
            &[
                standard(6),
                named(3, "$Volume", 6),
                resident(0x60, "", 0, &utf16("Probe")),
                resident(0x70, "", 0, &version),
            ],
        ),
    );
    let bitmap = vec![0x0f; CLUSTERS / 8];
    image.record(6, record(1, 0, &[standard(6), resident(0x80, "", 0, &bitmap)]));
    upcase(&mut image);
    for (number, name, attributes, more) in files() {
        let mut attributes =
            vec![standard(attributes), resident(0x30, "", 0, &file_name(5, name, 1, attributes))];
        if number == 26 {
            attributes.push(resident(0x30, "", 0, &file_name(5, "HELLO~1.TXT", 2, 0x20)));
            attributes.push(resident(0x30, "", 0, &file_name(5, "again.txt", 1, 0x20)));
        }
        attributes.extend(more);
        image.record(number as usize, record(1, 0, &attributes));
    }
    image.bytes[Image::record_at(34) + 510] ^= 1;
    root(&mut image);
    contents(&mut image);
    image
}

fn boot(image: &mut Image) {
    let mut boot = vec![0; 512];
    put(&mut boot, 3, b"NTFS    ");
    put(&mut boot, 0x0b, &le16(512));
    boot[0x0d] = (CLUSTER / 512) as u8;
    put(&mut boot, 0x28, &le64((CLUSTERS * CLUSTER / 512) as u64));
    put(&mut boot, 0x30, &le64(MFT[0] as u64));
    put(&mut boot, 0x38, &le64(MIRROR as u64));
    (boot[0x40], boot[0x44]) = (0xf6, 1);
    put(&mut boot, 0x48, &le64(0x1234_5678_9abc_def0));
    put(&mut boot, 0x1fe, &[0x55, 0xaa]);
    put(&mut image.bytes, 0, &boot);
    put(&mut image.bytes, CLUSTERS * CLUSTER, &boot);
}

fn upcase(image: &mut Image) {
    let table: Vec<u8> = (0..=0xffffu16)
        .flat_map(|unit| {
            let lower = (u16::from(b'a')..=u16::from(b'z')).contains(&unit);
            (if lower { unit - 32 } else { unit }).to_le_bytes()
        })
        .collect();
    image.clusters(300, &table);
    let data =
        Runs { kind: 0x80, clusters: 32, size: 0x2_0000, pairs: run(32, 300), ..Runs::default() };
    image.record(10, record(1, 0, &[standard(6), data.bytes()]));
}

/// The root directory: one entry in its root node, a block before it and one after.
fn root(image: &mut Image) {
    let mut names: Vec<(u64, Vec<u8>, String)> = files()
        .into_iter()
        .map(|(number, name, attributes, _)| {
            (number, file_name(5, name, 1, attributes), name.to_uppercase())
        })
        .collect();
    for (number, name, namespace) in
        [(26, "again.txt", 1), (26, "HELLO~1.TXT", 2), (0, "$MFT", 3), (5, ".", 3)]
    {
        let attributes = if number == 5 { 0x1000_0006 } else { 0x20 };
        names.push((number, file_name(5, name, namespace, attributes), name.to_uppercase()));
    }
    names.sort_by(|a, b| a.2.cmp(&b.2));
    let middle = names.len() / 2;
    let plain = |(number, key, _): &(u64, Vec<u8>, String)| entry(*number, key, None);
    let before: Vec<_> = names[..middle].iter().map(plain).collect();
    let after: Vec<_> = names[middle + 1..].iter().map(plain).collect();
    let (number, key, _) = &names[middle];
    let top = node(&[entry(*number, key, Some(0))], Some(1), 0);
    let blocks = Runs {
        kind: 0xa0,
        name: "$I30",
        clusters: 2,
        size: 8192,
        pairs: run(2, ROOT_BLOCKS),
        ..Runs::default()
    };
    let mut root = record(
        3,
        0,
        &[
            standard(6),
            resident(0x30, "", 0, &file_name(5, ".", 3, 0x1000_0006)),
            index_root(&top),
            blocks.bytes(),
            resident(0xb0, "$I30", 0, &[3, 0, 0, 0, 0, 0, 0, 0]),
        ],
    );
    put(&mut root, 0x10, &le16(1));
    image.record(5, root);
    image.clusters(ROOT_BLOCKS, &block(0, &before));
    image.clusters(ROOT_BLOCKS + 1, &block(1, &after));
}

fn contents(image: &mut Image) {
    image.clusters(99, &[b'c'; CLUSTER]);
    image.clusters(100, &[b'a'; CLUSTER]);
    image.clusters(101, &[b'b'; CLUSTER]);
    let unit = [0x03, 0xb0, 0x02, b'x', 0xfc, 0x0f].repeat(16);
    image.clusters(110, &unit);
    image.clusters(120, &[b'y'; 16 * CLUSTER]);
    image.clusters(160, LZX);
    image.clusters(161, XPRESS);
}

/// A restart page: who uses the log, where its checkpoint is.
pub fn restart(in_use: usize, flags: usize, checkpoint: u64, current: u64) -> Vec<u8> {
    let mut page = vec![0; 4096];
    put(&mut page, 0, b"RSTR");
    put(&mut page, 0x10, &le32(4096));
    put(&mut page, 0x14, &le32(4096));
    put(&mut page, 0x18, &le16(0x30));
    put(&mut page, 0x1a, &[1, 0, 1, 0]);
    let area = 0x30;
    put(&mut page, area, &le64(current));
    put(&mut page, area + 0x0c, &le16(in_use));
    put(&mut page, area + 0x0e, &le16(flags));
    // 15 bits of offset: 32 KiB in units of eight bytes need 12.
    put(&mut page, area + 0x10, &le32(64 - 12));
    put(&mut page, area + 0x16, &le16(0x40));
    put(&mut page, area + 0x18, &le64(32768));
    put(&mut page, area + 0x24, &le16(0x30));
    put(&mut page, area + 0x26, &le16(0x40));
    put(&mut page, area + 0x40 + 8, &le64(checkpoint));
    fix(&mut page, 0x100);
    page
}

pub fn log_record(page: &mut [u8], at: usize, lsn: u64, data: usize, kind: usize) {
    put(page, at, &le64(lsn));
    put(page, at + 0x18, &le32(data));
    put(page, at + 0x20, &le32(kind));
}

/// A change record's data: what to do, to how many bytes, in which cluster at which sector.
pub fn change(operation: usize, lcn: Option<u64>, sector: usize, redo: &[u8]) -> Vec<u8> {
    let mut data = vec![0; 0x28];
    put(&mut data, 0, &le16(operation));
    put(&mut data, 4, &le16(0x28));
    put(&mut data, 6, &le16(redo.len()));
    put(&mut data, 0x0e, &le16(lcn.is_some().into()));
    put(&mut data, 0x14, &le16(sector));
    put(&mut data, 0x20, &le64(lcn.unwrap_or(0)));
    data.extend_from_slice(redo);
    data.resize(data.len().next_multiple_of(8), 0);
    data
}

/// The sample with a log that was not finished: eight changes of two transactions, of which the
/// second did not end.
pub fn with_log() -> Image {
    let mut image = sample();
    // $Bitmap in a cluster of its own: bits 96 to 99 are set, 100 to 103 are not.
    image.clusters(300, &[0x0f; 4096]);
    let runs = Runs { kind: 0x80, clusters: 1, size: 64, pairs: run(1, 300), ..Runs::default() };
    image.record(6, record(1, 0, &[standard(6), runs.bytes()]));
    let record_26 = Some(MFT[0] as u64 + 6);
    let steps = [
        (1, change(0x07, record_26, 4, b"new value")),
        (1, change(0x0e, Some(ROOT_BLOCKS as u64), 0, b"an entry")),
        (1, change(0x15, Some(300), 0, &[le32(98), le32(4)].concat())),
        (1, change(0x16, Some(300), 0, &[le32(101), le32(1)].concat())),
        (1, change(0x08, Some(310), 0, b"bytes of a stream")),
        (1, change(0x08, Some(311), 0, b"bytes on the disk")),
        (1, change(0x1b, None, 0, b"")),
        (2, change(0x05, record_26, 6, b"attribute")),
    ];
    image.clusters(311, b"bytes on the disk");
    let lsn = |offset: u64| (3 << 12) | (offset / 8);
    let mut page = vec![0; 4096];
    put(&mut page, 0, b"RCRD");
    log_record(&mut page, 0x40, lsn(0x4040), 0x10, 2);
    let (mut at, mut last) = (0x80, 0);
    for (transaction, data) in &steps {
        last = lsn(0x4000 + at as u64);
        log_record(&mut page, at, last, data.len(), 1);
        put(&mut page, at + 0x24, &le32(*transaction));
        put(&mut page, at + 0x30, data);
        at += 0x30 + data.len();
    }
    fix(&mut page, 0x28);
    // The index block and record 27 were written after their changes, record 26 before.
    for place in [ROOT_BLOCKS * CLUSTER, Image::record_at(27)] {
        put(&mut image.bytes, place + 8, &le64(last));
    }
    let area = restart(0, 0, lsn(0x4040), last);
    image.clusters(LOG, &area);
    image.clusters(LOG + 1, &area);
    // The page was written beside the ring first; its place there is still empty.
    put(&mut page, 8, &le64(0x4000));
    put(&mut page, 0x20, &le64(last));
    image.clusters(LOG + 2, &page);
    image
}
