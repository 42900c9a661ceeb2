//! Bytes through the kernel: right, sparse, and failing where they are lost and nowhere else.

mod common;

use adit_core::{Concat, Disk, Error, Kind, MemoryDisk, Piece};
use adit_fuse::{MountOptions, NamedDisk, Source};
use adit_testkit::Vmfs as Maker;
use adit_testkit::vmfs::Entry;
use common::*;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

const SIZES: [usize; 9] = [0, 1, 511, 4095, 4096, 65_537, 1 << 20, 3_145_733, 20_000_000];

/// Files of many sizes, on a volume and on the host.
fn twice() -> (Volume, tempfile::TempDir) {
    let host = tempfile::tempdir().unwrap();
    let mut maker = Maker::six();
    std::fs::create_dir(host.path().join("sub")).unwrap();
    for (seed, size) in (1u64..).zip(SIZES) {
        let (path, bytes) = (format!("sub/f{size}"), noise(size, seed));
        std::fs::write(host.path().join(&path), &bytes).unwrap();
        maker = maker.file(&path, &bytes);
    }
    (Volume::of(&maker), host)
}

#[test]
fn every_byte_is_right_in_and_past_the_page_cache() {
    let (volume, host) = twice();
    let expected = shell(host.path(), "cd sub && sha256sum *");
    for direct_io in [false, true] {
        let here = volume.mount(&direct(direct_io));
        assert_eq!(shell(here.path(), "cd sub && sha256sum *"), expected);
        // Again, from several programs at once.
        let parallel = "cd sub && ls | xargs -P 8 -n 1 sha256sum | sort -k 2";
        let mut lines: Vec<&str> = expected.lines().collect();
        lines.sort_by_key(|line| line.split_whitespace().nth(1));
        assert_eq!(shell(here.path(), parallel).lines().collect::<Vec<_>>(), lines);
        assert_eq!(here.mounted.incident_count(), 0);
    }
}

#[test]
fn small_reads_at_odd_places_and_mapped_pages_are_right() {
    let (volume, host) = twice();
    for direct_io in [false, true] {
        let here = volume.mount(&direct(direct_io));
        let program = r#"
import mmap, random, sys
random.seed(5)
a = open('sub/f20000000', 'rb', buffering=0)
b = open(HOST + '/sub/f20000000', 'rb', buffering=0)
import os
for _ in range(3000):
    at, n = random.randrange(20000000), random.choice([1, 7, 512, 4096, 10000, 300000])
    assert os.pread(a.fileno(), n, at) == os.pread(b.fileno(), n, at), (at, n)
for share in (mmap.MAP_PRIVATE, mmap.MAP_SHARED):
    m = mmap.mmap(a.fileno(), 0, flags=share, prot=mmap.PROT_READ)
    assert m[:] == open(HOST + '/sub/f20000000', 'rb').read()
assert os.pread(a.fileno(), 100, 20000000) == b''
assert os.pread(a.fileno(), 100, 19999990) == os.pread(b.fileno(), 100, 19999990)
"#;
        python(here.path(), &format!("HOST = {:?}\n{program}", host.path().to_str().unwrap()));
    }
}

#[test]
fn cp_and_tar_bring_the_tree_out_unchanged() {
    let (volume, host) = twice();
    let here = volume.mount(&options());
    let out = tempfile::tempdir().unwrap();
    let script = format!(
        "set -e; cp -a sub {out}/copied; mkdir {out}/tarred; tar -cf - sub | tar -xf - -C {out}/tarred; \
         diff -r {host}/sub {out}/copied; diff -r {host}/sub {out}/tarred/sub; \
         tar -df <(tar -cf - sub) -C . sub; chmod -R u+w {out}",
        out = out.path().display(),
        host = host.path().display()
    );
    shell(here.path(), &script);
}

/// 69 GiB with three small pieces of data.
fn sparse() -> Volume {
    let pieces =
        [(0u64, noise(5000, 1)), (40 << 30, noise(70_000, 2)), ((69 << 30) - 9, noise(9, 3))];
    Volume::of(&Maker::six().with(Entry::sparse("flat.vmdk", 69 << 30, &pieces)))
}

#[test]
fn sparse_copies_of_69_gib_take_seconds_and_little_space() {
    let volume = sparse();
    for direct_io in [false, true] {
        let here = volume.mount(&direct(direct_io));
        let out = tempfile::tempdir().unwrap();
        let start = std::time::Instant::now();
        let copy = format!("cp --sparse=auto flat.vmdk {}/flat.vmdk", out.path().display());
        shell(here.path(), &copy);
        assert!(start.elapsed().as_secs() < 30, "{:?}", start.elapsed());
        let copied = std::fs::File::open(out.path().join("flat.vmdk")).unwrap();
        let read = |at: u64, length: usize| {
            let mut bytes = vec![0; length];
            copied.read_exact_at(&mut bytes, at).unwrap();
            bytes
        };
        assert_eq!(copied.metadata().unwrap().len(), 69 << 30);
        assert_eq!(read(0, 5000), noise(5000, 1));
        assert_eq!(read(40 << 30, 70_000), noise(70_000, 2));
        assert_eq!(read((69 << 30) - 9, 9), noise(9, 3));
        assert_eq!(read(20 << 30, 4096), vec![0; 4096]);
        let taken: u64 = shell(out.path(), "du -k flat.vmdk | cut -f 1").trim().parse().unwrap();
        assert!(taken <= 4096, "{taken} KiB");
    }
}

#[test]
fn holes_are_found_where_nothing_is_stored() {
    let volume = sparse();
    let here = volume.mount(&options());
    let program = r#"
import os, errno
f = os.open('flat.vmdk', os.O_RDONLY)
at, found = 0, []
while True:
    try: data = os.lseek(f, at, os.SEEK_DATA)
    except OSError as e:
        assert e.errno == errno.ENXIO; break
    at = os.lseek(f, data, os.SEEK_HOLE)
    found.append((data, at))
print(found)
try: os.lseek(f, 69 << 30, os.SEEK_HOLE); print('no error')
except OSError as e: print(e.errno == errno.ENXIO)
print(os.lseek(f, -5, os.SEEK_END) == (69 << 30) - 5)
"#;
    let text = python(here.path(), program);
    let lines: Vec<&str> = text.lines().collect();
    let numbers: Vec<u64> = lines[0]
        .split(|c: char| !c.is_ascii_digit())
        .filter_map(|word| word.parse().ok())
        .collect();
    // What is data lies in the pieces' blocks of 1 MiB, and covers the pieces.
    let pieces = [(0, 5000), (40 << 30, (40 << 30) + 70_000), ((69u64 << 30) - 9, 69 << 30)];
    for (start, end) in pieces {
        let covered = numbers.chunks(2).any(|run| run[0] <= start && end <= run[1]);
        assert!(covered, "{start}..{end} in {numbers:?}");
    }
    let data: u64 = numbers.chunks(2).map(|run| run[1] - run[0]).sum();
    assert!(data <= 3 * MIB, "{numbers:?}");
    assert_eq!(&lines[1..], ["True", "True"]);
}

/// A disk of 6 MiB whose bytes from 2 MiB + 4096 to 2 MiB + 12288 are lost.
fn damaged() -> (Vec<u8>, Arc<dyn Disk>) {
    let bytes = noise(6 << 20, 9);
    let (from, to) = ((2 << 20) + 4096, (2 << 20) + 12_288);
    let piece = |range: std::ops::Range<usize>| {
        Piece::whole(MemoryDisk::open("memory", bytes[range].to_vec()))
    };
    let lost = Piece::lost((to - from) as u64, Error::lost("member 2 was not given"));
    let pieces = vec![piece(0..from), lost, piece(to..bytes.len())];
    let disk = Concat::open("three members", pieces).unwrap();
    (bytes, disk)
}

#[test]
fn lost_bytes_fail_and_their_neighbours_are_read() {
    let (bytes, disk) = damaged();
    let host = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(host.path(), &bytes).unwrap();
    for direct_io in [false, true] {
        let source = Source::Disk { disk: Arc::clone(&disk), partitions: Vec::new() };
        let here = here(source, &direct(direct_io));
        let program = r#"
import os, errno, mmap
a, b = os.open('disk', os.O_RDONLY), os.open(HOST, os.O_RDONLY)
def walk():
    failed = []
    for at in range(0, 6 << 20, 4096):
        try: assert os.pread(a, 4096, at) == os.pread(b, 4096, at), at
        except OSError as e:
            assert e.errno == errno.EIO, e
            failed.append(at)
    return failed
lost = [(2 << 20) + 4096, (2 << 20) + 8192]
assert walk() == lost, walk()
# In large steps: everything before the loss comes, then the error.
at = 0
while True:
    try: part = os.pread(a, 1 << 20, at)
    except OSError as e:
        assert e.errno == errno.EIO and at == lost[0], (e, at); break
    assert part and part == os.pread(b, len(part), at)
    at += len(part)
# The sound end, in large steps.
assert os.pread(a, 1 << 20, 5 << 20) == os.pread(b, 1 << 20, 5 << 20)
# Mapped pages before and after the loss.
m = mmap.mmap(a, 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ)
assert m[:lost[0]] == os.pread(b, lost[0], 0)
assert m[4 << 20:] == os.pread(b, 2 << 20, 4 << 20)
# Nothing of this changed the file.
assert os.fstat(a).st_size == os.stat('disk').st_size == 6 << 20
assert walk() == lost, walk()
# Lost is not a hole.
assert os.lseek(a, 2 << 20, os.SEEK_HOLE) == 6 << 20
"#;
        python(here.path(), &format!("HOST = {:?}\n{program}", host.path().to_str().unwrap()));
        let incidents = here.mounted.incidents();
        assert!(here.mounted.incident_count() >= 4, "{incidents:?}");
        let why = &incidents[0];
        assert_eq!((why.action, why.error.kind()), ("read", Kind::Lost));
        assert_eq!(why.error.detail(), "member 2 was not given");
        let skipped = run(here.path(), "cat disk > /dev/null");
        assert!(String::from_utf8_lossy(&skipped.stderr).contains("Input/output error"));
    }
}

#[test]
fn touching_a_lost_mapped_page_kills_only_who_touches_it() {
    let (_, disk) = damaged();
    for direct_io in [false, true] {
        let source = Source::Disk { disk: Arc::clone(&disk), partitions: Vec::new() };
        let here = here(source, &direct(direct_io));
        let program = "import mmap; m = mmap.mmap(open('disk', 'rb').fileno(), 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ); print(m[(2 << 20) + 5000])";
        let touched = run(here.path(), &format!("python3 -c \"{program}\""));
        assert!(!touched.status.success());
        assert!(touched.stdout.is_empty());
        let size = std::fs::metadata(here.path().join("disk")).unwrap().len();
        assert_eq!(size, 6 << 20);
    }
}

#[test]
fn a_disk_and_its_partitions_are_files_of_one_folder() {
    let bytes = noise(3 << 20, 4);
    let whole = MemoryDisk::open("memory", bytes.clone());
    let part = |name: &str, from: u64, size: u64| {
        let disk = adit_core::Slice::open(name, Arc::clone(&whole), from, size);
        NamedDisk { name: name.into(), disk }
    };
    let partitions = vec![part("part1.ext4", MIB, MIB), part("part2", 2 * MIB, 5)];
    let here = here(Source::Disk { disk: Arc::clone(&whole), partitions }, &options());
    let listed = shell(here.path(), "stat -c '%n %i %a %s' *");
    assert_eq!(listed, "disk 2 400 3145728\npart1.ext4 3 400 1048576\npart2 4 400 5\n");
    let read = |name: &str| std::fs::read(here.path().join(name)).unwrap();
    assert!(read("disk") == bytes);
    assert!(read("part1.ext4") == bytes[1 << 20..2 << 20]);
    assert_eq!(read("part2"), &bytes[2 << 20..(2 << 20) + 5]);
}

#[test]
fn the_kernel_reads_a_host_file_by_itself_where_it_may() {
    let host = tempfile::tempdir().unwrap();
    let path = host.path().join("raw.img");
    let bytes = noise(5_000_000, 6);
    std::fs::write(&path, &bytes).unwrap();
    let reads = |passthrough: bool, path: &Path, cut: u64| {
        let below = adit_io::open(path, &adit_io::ReadPolicy::default()).unwrap();
        let below = Watched::open(below);
        let whole: Arc<dyn Disk> = below.clone();
        let part = adit_core::Slice::open("slice", Arc::clone(&whole), 0, 5_000_000 - cut);
        let partitions = vec![NamedDisk { name: "slice".into(), disk: part }];
        let options = MountOptions { passthrough, ..options() };
        let here = here(Source::Disk { disk: whole, partitions }, &options);
        // Twice at once: both must get the same way to the file.
        shell(here.path(), "exec 3< slice; cmp disk slice -n 4999000; cmp <(cat slice) <(cat <&3)");
        let slice = std::fs::read(here.path().join("slice")).unwrap();
        assert!(slice == bytes[..5_000_000 - usize::try_from(cut).unwrap()]);
        below.reads.load(Ordering::SeqCst)
    };
    assert!(reads(false, &path, 0) > 0);
    // A file that goes on after the disk must not be shown to its end.
    assert!(reads(true, &path, 1000) > 0);
    if rustix::process::geteuid().is_root() {
        assert_eq!(reads(true, &path, 0), 0, "needs kernel 6.9 and a plain file system below /tmp");
    } else {
        assert!(reads(true, &path, 0) > 0);
    }
}
