//! Random damage: no panic, no endless work, whatever a check, a walk back or an inspection meets.

mod made;

use adit_core::{Check, FileSystem, Inspect, Interrupt, NodeId};
use adit_testkit::vmfs::hash::colliding_names;
use adit_testkit::vmfs::{Addressing, Entry, Heartbeat, Image};
use adit_testkit::{Memory, Vmfs as Maker};
use made::open;
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

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}

fn image(maker: Maker) -> Image<Memory> {
    let twins = colliding_names(14);
    let double = Entry::sparse("double", 1 << 40, &[(1 << 39, b"deep")]);
    let maker = maker
        .file("web01/web01.vmx", b"displayName = \"web01\"\n")
        .file("web01/web01-flat.vmdk", vec![7u8; 3 << 20])
        .sparse_file("web01/far.vmdk", 200 << 30, &[(100 << 30, b"far away")])
        .with(double.addressing(Addressing::Double))
        .heartbeat(Heartbeat::live(5, "10.0.0.7"));
    twins.iter().fold(maker, |maker, name| maker.file(format!("twins/{name}"), b"twin")).in_memory()
}

fn makers() -> [(&'static str, Maker); 3] {
    let lean = |maker: Maker| maker.size_bytes((256 + 32) << 20);
    let pending = Heartbeat::live(64, "10.0.0.7").pending("a");
    [
        ("VMFS3", lean(Maker::three())),
        ("VMFS5", lean(Maker::five()).fds(400).pointer_blocks(64).sub_blocks(256)),
        ("VMFS6", lean(Maker::six()).file("a", b"x").heartbeat(pending)),
    ]
}

/// Places where metadata stands: damage elsewhere shows nothing.
fn targets(image: &Image<Memory>) -> Vec<(u64, u64)> {
    let mut places = vec![(0x20_0000, 0x200), (0x30_0000, 0x8000), (0x34_0000, 0x3000)];
    let fs = open(image).unwrap();
    for path in ["web01", "web01/web01-flat.vmdk", "web01/far.vmdk", "double", "twins"] {
        places.push((image.fd_at(path), 0x2000));
    }
    for path in ["web01", "twins"] {
        places.extend(image.data_at(path, 0).map(|at| (at, 0x2000)));
        if fs.superblock().version.number() == 6 {
            places
                .extend([0x1_0000, 0x1_1000].map(|at| (image.data_at(path, at).unwrap(), 0x1000)));
        }
    }
    for slot in fs.heartbeats().unwrap() {
        places.extend(slot.journal_offset().map(|at| (at, 0x2000)));
    }
    for kind in adit_vmfs::ResourceKind::ALL {
        let Ok(file) = fs.resource(kind) else { continue };
        places.push((fs.resource_run(kind, file.header_offset, 1).unwrap().0, 0x60));
        places.extend(fs.cluster_volume_offset(kind, 0).ok().map(|at| (at, 0x2000)));
        places.push((file.descriptor.offset, 0x2000));
    }
    places
}

fn damage(image: &mut Image<Memory>, places: &[(u64, u64)], random: &mut Random) {
    for _ in 0..=random.below(6) {
        let (start, length) = places[random.below(places.len() as u64) as usize];
        let at = start + random.below(length);
        let value = match random.below(4) {
            0 => vec![0xff; 8],
            1 => vec![0; 4],
            2 => vec![random.next() as u8],
            _ => random.next().to_le_bytes().to_vec(),
        };
        image.write(at, &value);
    }
}

fn look_everywhere(image: &Image<Memory>, random: &mut Random) {
    let Ok(fs) = open(image) else { return };
    let _ = fs.check(&mut |_| {}, &Interrupt::default());
    let _ = fs.notes();
    for path in ["web01", "web01/far.vmdk", "twins"] {
        let fd = image.fd_address(path).0;
        let _ = fs.paths_of(NodeId(fd.into()));
        let _ = fs.lock(NodeId(fd.into()));
        for name in ["fd", "directory", "dirent", "linkgroup", "dirblock", "hash"] {
            let _ = fs.inspect(&format!("{name} {fd} 1 0"));
            let _ = fs.inspect(&format!("{name} {fd} 1"));
            let _ = fs.inspect(&format!("{name} {fd}"));
        }
    }
    for name in ["journal 5", "journal 64", "cluster sfb 0", "cluster fbb 0", "resource fbb"] {
        let _ = fs.inspect(name);
    }
    for _ in 0..4 {
        let _ = fs.owner_at(random.below(image.volume_bytes()));
        let _ = fs.inspect(&format!("address {:#x}", random.next()));
    }
}

#[test]
fn random_damage_is_endured() {
    let rounds = std::env::var("ADIT_ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(15);
    let start = std::env::var("ADIT_SEED").ok().and_then(|n| n.parse().ok()).unwrap_or(1);
    for (name, maker) in makers() {
        let whole = image(maker.clone());
        let places = targets(&whole);
        for seed in start..start + rounds {
            let mut random = Random(seed);
            let mut image = image(maker.clone());
            damage(&mut image, &places, &mut random);
            let began = Instant::now();
            println!("{name} seed {seed}");
            look_everywhere(&image, &mut random);
            let took = began.elapsed();
            assert!(took < Duration::from_secs(20), "{name} seed {seed} took {took:?}");
        }
    }
}

#[test]
fn a_volume_cut_short_is_checked_as_far_as_it_goes() {
    use adit_core::{DiskExt, MemoryDisk};
    for (name, maker) in makers() {
        let whole = image(maker);
        let bytes = whole.read(0, 24 << 20);
        for end in [0x20_0100, 0x30_1000, 0x50_0000, 0x72_0000, 0x73_0000, 12 << 20, 24 << 20] {
            let disk = MemoryDisk::open("cut", bytes[..end].to_vec());
            assert_eq!(disk.size_bytes(), end as u64);
            let Ok(fs) = adit_vmfs::Vmfs::open(disk, &adit_core::Limits::default()) else {
                continue;
            };
            let mut found = 0;
            let checked = fs.check(&mut |_| found += 1, &Interrupt::default());
            assert!(checked.is_err() || found > 0, "{name} cut at {end:#x}");
        }
    }
}
