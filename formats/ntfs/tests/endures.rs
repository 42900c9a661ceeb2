//! Random damage: no panic, no endless work, whatever is read, listed or inspected afterwards.

mod common;

use adit_core::{
    Check, DiskExt, Extents, FileSystem, Fork, Inspect, Interrupt, Limits, NodeId, NodeKind, Walk,
};
use common::{CLUSTER, Image, LOG, MFT, ROOT_BLOCKS, fix, sample, with_log};
use std::time::{Duration, Instant};

/// xorshift64*: small, and the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }
}

/// Undoes the update sequence, so that damage is not simply found torn.
fn unfix(bytes: &mut [u8]) {
    let sequence = usize::from(u16::from_le_bytes([bytes[4], bytes[5]]));
    for sector in 0..bytes.len() / 512 {
        let saved = [bytes[sequence + 2 + sector * 2], bytes[sequence + 3 + sector * 2]];
        bytes[sector * 512 + 510..sector * 512 + 512].copy_from_slice(&saved);
    }
}

fn damage(image: &mut Image, random: &mut Random) {
    const RECORDS: [usize; 16] = [0, 2, 3, 5, 6, 10, 25, 26, 27, 28, 29, 31, 33, 35, 36, 37];
    for _ in 0..=random.below(4) {
        let has_log = image.bytes[LOG * CLUSTER] == b'R';
        let (start, length, sequence) = match random.below(if has_log { 14 } else { 10 }) {
            0 => (0, 0x60, None),
            1..=6 => (Image::record_at(RECORDS[random.below(RECORDS.len())]), 1024, Some(0x30)),
            7 => ((ROOT_BLOCKS + random.below(2)) * CLUSTER, 4096, Some(40)),
            8 => ([110, 160, 161, LOG][random.below(4)] * CLUSTER, 1200, None),
            9 => (random.below(image.bytes.len() - 512), 512, None),
            10 => (LOG * CLUSTER, 4096, Some(0x100)),
            _ => ((LOG + 2) * CLUSTER, 4096, Some(0x28)),
        };
        let range = start..start + length;
        if sequence.is_some() {
            unfix(&mut image.bytes[range.clone()]);
        }
        for _ in 0..=random.below(3) {
            // Most of a record is empty: prefer what is not.
            let reach = match length {
                1024 => 0x1c0,
                4096 => 0x400,
                length => length,
            };
            let at = start + random.below(reach);
            image.bytes[at] = match random.below(5) {
                0 => 0,
                1 => 0xff,
                2 => image.bytes[at] ^ (1 << random.below(8)),
                3 => image.bytes[at].wrapping_add(1),
                _ => random.next() as u8,
            };
        }
        if let Some(sequence) = sequence {
            fix(&mut image.bytes[range], sequence);
        }
    }
}

/// Does everything that can be done with a volume.
fn exercise(image: &Image) {
    let Ok(fs) = image.open() else { return };
    let limits = Limits::default();
    let _ = (fs.identity(), fs.notes(), fs.space(), fs.log_state());
    let mut nodes: Vec<NodeId> = (0..66).map(NodeId).collect();
    let mut walk = Walk::below(&*fs, fs.root(), &limits);
    let mut steps = 0;
    while let Some((entry, _)) = walk.step() {
        nodes.push(entry.node);
        steps += 1;
        assert!(steps < 10_000, "the walk does not end");
        if let Some(name) = entry.path.last() {
            let _ = fs.lookup(fs.root(), name);
        }
    }
    for node in nodes {
        let metadata = fs.metadata(node);
        let _ = (fs.details(node), fs.xattrs(node), fs.read_link(node));
        let _ = fs.inspect(&format!("record {}", node.0 & 0xffff));
        if metadata.is_ok_and(|metadata| metadata.kind == NodeKind::Directory) {
            let _ = fs.read_dir(node, adit_core::Cursor(0x2_0003));
        }
        let Ok(file) = fs.open(node, &Fork::Data) else { continue };
        let size = file.size_bytes();
        for at in [0, 4095, 70_000, size / 2, size.saturating_sub(100)] {
            if at < size {
                let _ = (file.read_prefix(at, 8192), file.explain(at));
            }
        }
        let mut end = 0;
        for extent in Extents::of(&file, 0..size).take(200) {
            let Ok(extent) = extent else { break };
            assert_eq!(extent.offset, end);
            end = extent.end();
        }
    }
    for record in fs.records().into_iter().flatten().flatten() {
        let _ = record.file_names();
    }
    let _ = fs.check(&mut |_| {}, &Interrupt::default());
}

#[test]
fn damage_anywhere() {
    let started = Instant::now();
    let samples = [sample(), with_log()];
    assert_eq!(MFT[0] * CLUSTER, Image::record_at(0));
    let rounds = std::env::var("ADIT_NTFS_ROUNDS").ok().and_then(|n| n.parse().ok());
    for seed in 1..=rounds.unwrap_or(1500u64) {
        let mut image = samples[(seed % 2) as usize].clone();
        damage(&mut image, &mut Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15)));
        let one = Instant::now();
        let result = std::panic::catch_unwind(|| exercise(&image));
        assert!(result.is_ok(), "seed {seed}");
        assert!(one.elapsed() < Duration::from_secs(20), "seed {seed} takes too long");
    }
    println!("{:?}", started.elapsed());
}

#[test]
fn every_cut() {
    let sample = sample();
    for cut in (0..sample.bytes.len()).step_by(50 * 512) {
        let mut image = sample.clone();
        image.bytes.truncate(cut);
        exercise(&image);
    }
}
