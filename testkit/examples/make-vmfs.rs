//! Writes a sample volume: `make-vmfs VERSION SCENE OUT.img...`.
//!
//! VERSION is 3, 5 or 6, with letters added: `l` VMFS-L, `d` without LVM,
//! `s` scattered, `n` not dense, `h` blocks of 512 KiB, `8` of 8 MiB, `u` unconverted,
//! `m` lean, `t` tiny (256 MiB of data), `4` LVM 4, `x` a name that is not UTF-8.
//! SCENE is plain, everything, huge (64 TiB), crowd (100 000 files), large (a file of 1 GiB) or
//! guest=DISK (a machine with that raw disk).
//! Several files make a span.

use std::time::Instant;

use adit_testkit::Vmfs;
use adit_testkit::vmfs::hash::{TWINS, colliding_names};
use adit_testkit::vmfs::{Addressing, Entry, Heartbeat, Mode};

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [version, scene, outs @ ..] = &args[..] else {
        eprintln!("usage: make-vmfs VERSION SCENE OUT.img...");
        std::process::exit(2);
    };
    let begun = Instant::now();
    let six = version.starts_with('6');
    let vmfs = chosen(version);
    let mut vmfs = match scene.as_str() {
        "plain" => plain(vmfs),
        "everything" => everything(vmfs, version),
        "huge" => huge(vmfs, six),
        "crowd" => crowd(vmfs),
        "large" => large(vmfs),
        _ => match scene.strip_prefix("guest=") {
            Some(disk) => guest(vmfs, disk),
            None => panic!("no scene {scene}"),
        },
    };
    if outs.len() > 1 {
        let whole: u64 = if scene == "huge" { 64 << 40 } else { (1900 << 20) * outs.len() as u64 };
        let device = whole / outs.len() as u64;
        vmfs = vmfs.devices_bytes(&vec![device; outs.len()]);
    }
    vmfs.write_span(outs);
    println!("{version} {scene}: {:?}", begun.elapsed());
}

fn chosen(version: &str) -> Vmfs {
    let mut vmfs = match version.as_bytes()[0] {
        b'3' => Vmfs::three(),
        b'5' => Vmfs::five(),
        _ => Vmfs::six(),
    };
    for letter in version.chars().skip(1) {
        vmfs = match letter {
            'l' => vmfs.local(),
            'd' => vmfs.without_lvm(),
            's' => vmfs.scattered(),
            'n' => vmfs.not_dense(),
            'h' => vmfs.block_bytes(512 << 10),
            '4' => vmfs.lvm(4),
            't' => vmfs.size_bytes(273 << 20),
            'x' => vmfs.file(b"latin-\xe4\xff", b"not UTF-8"),
            'u' => vmfs.unconverted(),
            'm' => vmfs.lean(),
            '8' => vmfs.block_bytes(8 << 20),
            _ => panic!("no variant {letter}"),
        };
    }
    vmfs.label("sample")
}

/// A machine whose disk is the file of the host, without its holes.
fn guest(vmfs: Vmfs, disk: &str) -> Vmfs {
    const PIECE: usize = 1 << 20;
    let disk = std::fs::read(disk).unwrap();
    let pieces: Vec<(u64, &[u8])> = disk
        .chunks(PIECE)
        .enumerate()
        .filter(|(_, piece)| piece.iter().any(|&byte| byte != 0))
        .map(|(index, piece)| ((index * PIECE) as u64, piece))
        .collect();
    let descriptor = format!(
        "# Disk DescriptorFile\nversion=1\nCID=12345678\nparentCID=ffffffff\n\
         createType=\"vmfs\"\nRW {} VMFS \"web01-flat.vmdk\"\n",
        disk.len() / 512
    );
    vmfs.size_bytes((disk.len() as u64 + (2 << 30)).next_multiple_of(1 << 20))
        .file("web01/web01.vmdk", descriptor)
        .sparse_file("web01/web01-flat.vmdk", disk.len() as u64, &pieces)
}

fn plain(vmfs: Vmfs) -> Vmfs {
    let big: Vec<u8> = (0..3_500_000u32).flat_map(u32::to_le_bytes).collect();
    vmfs.file("web01/web01.vmx", b".encoding = \"UTF-8\"\n")
        .file("web01/medium.log", vec![b'm'; 5000])
        .file("web01/web01-flat.vmdk", &big)
        .sparse_file("web01/far.vmdk", 200 << 30, &[(100 << 30, b"far away")])
        .dir("empty")
        .symlink("link", "web01/web01.vmx")
        .file("empty file", b"")
}

fn everything(vmfs: Vmfs, version: &str) -> Vmfs {
    let (three, six) = (version.starts_with('3'), version.starts_with('6'));
    let block: u64 = if version.contains('8') { 8 << 20 } else { 1 << 20 };
    let mut vmfs = plain(vmfs)
        .label("Ablage €")
        .file("ünïcode/😀.txt", "smile")
        .rdm("rdm.vmdk", 7 << 40)
        .with(Entry::file("gone.txt", vec![b'g'; 70000]).deleted())
        .with(
            Entry::sparse("hole first", 3 << 20, &[((2 << 20) + 5, b"data")])
                .mode(0o600)
                .owner(1000, 100)
                .times(1, 2, 3),
        )
        .with(Entry::sparse::<&[u8]>("tbz", 5 * block, &[]).to_be_zeroed(1..4))
        .with(Entry::file("shut", b"locked").held(70, Mode::Exclusive))
        .with(Entry::file("shared", b"locked").held(70, Mode::MultiWriter))
        .heartbeat(Heartbeat::released(64, "10.0.0.6"))
        .heartbeat(Heartbeat::live(70, "10.0.0.7"));
    for name in colliding_names(30) {
        vmfs = vmfs.file(format!("collide/{name}"), &name);
    }
    for name in TWINS {
        vmfs = vmfs.file(format!("collide/{name}"), name);
    }
    if three {
        return vmfs;
    }
    let pieces: [(u64, &[u8]); 3] =
        [(0, b"start"), (21 << 40, b"middle"), ((42 << 40) - 3, b"end")];
    vmfs = vmfs
        .sparse_file("double", 42 << 40, &pieces)
        .with(Entry::sparse("double-pb2", 42 << 40, &pieces).addressing(Addressing::DoubleByPb2));
    if six {
        vmfs = vmfs
            .size_bytes(6 << 30)
            .with(
                Entry::sparse(
                    "mixed",
                    3 << 30,
                    &[
                        (5 << 20, &b"small"[..]),
                        ((1 << 30) + 7, b"large"),
                        ((2 << 30) + 1, b"small too"),
                    ],
                )
                .large((1 << 30)..(3 << 29)),
            )
            .with(
                Entry::sparse("partly", 4 << 20, &[((1 << 20) + (7 << 17), b"eighth 7")])
                    .partly_to_be_zeroed(1, 0x0f),
            )
            .heartbeat(Heartbeat::live(71, "10.0.0.8").pending("pending"))
            .file("pending", b"a transaction wants my times")
            .heartbeat(Heartbeat::live(72, "10.0.0.9").finished("finished"))
            .file("finished", b"a transaction has had my times");
    }
    vmfs
}

fn huge(vmfs: Vmfs, six: bool) -> Vmfs {
    let vmfs = vmfs.size_bytes(64 << 40);
    let mut vmfs = vmfs.file("small", b"at the start");
    for tib in [15, 16, 31, 32, 47, 48, 63] {
        let name = format!("at {tib} TiB");
        let file = Entry::file(&name, name.repeat(400_000)).placed_at(tib << 40);
        vmfs = vmfs.with(file);
    }
    let ends = [(0, b"A"), ((61 << 40) - 1, b"Z")];
    vmfs = vmfs.sparse_file("61 TiB", 61 << 40, &ends);
    if six {
        vmfs = vmfs.with(
            Entry::sparse("large", 1 << 30, &[(600 << 20, b"in an LFB")]).large(512 << 20..1 << 30),
        );
    }
    vmfs
}

fn crowd(vmfs: Vmfs) -> Vmfs {
    let mut vmfs = vmfs.size_bytes(4 << 30);
    for n in 0..100_000 {
        let name = format!("vm-{n:06}.log");
        vmfs = vmfs.file(format!("crowd/{name}"), &name);
    }
    vmfs
}

fn large(vmfs: Vmfs) -> Vmfs {
    let noise = |word: u64| (word.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 7).to_le_bytes();
    let bytes: Vec<u8> = (0..1u64 << 27).flat_map(noise).collect();
    vmfs.size_bytes(4 << 30).file("large.bin", bytes)
}
