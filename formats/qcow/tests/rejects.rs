//! QCOW rejects…

mod common;

use adit_core::{Disk, DiskExt, ExtentKind, Extents, Kind, Limits, MemoryDisk, Problem};
use adit_qcow::{Image, Parts, SnapshotSize};
use common::{CLUSTER, Folder, HandMade, content};
use std::sync::Arc;

const SIZE: u64 = 16 * CLUSTER as u64;
const C: u64 = CLUSTER as u64;
const COMPRESSED: u64 = 1 << 62;

/// Opening after `change` must fail so, with `word` in the text or the place.
fn refused(change: impl FnOnce(&mut HandMade), kind: Kind, word: &str) {
    let mut image = HandMade::new(SIZE);
    change(&mut image);
    let error = image.open().and_then(|image| image.disk("x", Parts::default())).unwrap_err();
    assert_eq!(error.kind(), kind, "{error}");
    assert!(error.to_string().contains(word), "{error} has no {word:?}");
}

/// Reading cluster 0 after `change` must fail so, and the other clusters must read.
fn lost(change: impl FnOnce(&mut HandMade), problem: Problem, word: &str) {
    let mut image = HandMade::new(SIZE);
    let good = image.cluster(&[7; CLUSTER]);
    image.entry(1, good);
    change(&mut image);
    let error = image.read_error(0);
    assert_eq!((error.kind(), error.problem()), (Kind::Corrupt, problem), "{error}");
    assert!(error.to_string().contains(word), "{error} has no {word:?}");
    assert!(error.place().is_some(), "{error} has no place");
    assert_eq!(image.disk().read_vec(C, CLUSTER).unwrap(), [7; CLUSTER]);
}

#[test]
fn headers_whose_values_cannot_be() {
    use Kind::{Corrupt, Unsupported};
    refused(|i| i.bytes[0] = 0, Corrupt, "magic");
    refused(|i| i.bytes.truncate(60), Corrupt, "60 bytes are left");
    refused(
        |i| {
            i.u32(4, 4);
        },
        Unsupported,
        "version 4",
    );
    for bits in [0, 8, 22, 63, 64, u32::MAX] {
        refused(
            |i| {
                i.u32(20, bits);
            },
            Corrupt,
            "cluster_bits",
        );
    }
    refused(
        |i| {
            i.u32(32, 3);
        },
        Unsupported,
        "encryption method 3",
    );
    refused(
        |i| {
            i.u32(96, 7);
        },
        Corrupt,
        "refcount_order",
    );
    for length in [0, 96, 105, 65544, u32::MAX] {
        refused(
            |i| {
                i.u32(100, length);
            },
            Corrupt,
            "header_length",
        );
    }
    refused(
        |i| {
            i.u32(56, 0);
        },
        Corrupt,
        "refcount_table_clusters",
    );
    refused(
        |i| {
            i.u32(56, u32::MAX);
        },
        Corrupt,
        "refcount_table_clusters",
    );
    refused(
        |i| {
            i.u64(48, 512);
        },
        Corrupt,
        "refcount_table_offset",
    );
    refused(
        |i| {
            i.u32(60, u32::MAX);
        },
        Corrupt,
        "nb_snapshots",
    );
    refused(
        |i| {
            i.u32(60, 1).u64(64, 99);
        },
        Corrupt,
        "snapshots_offset",
    );
    refused(
        |i| {
            i.u64(8, 512).u32(16, 1024);
        },
        Corrupt,
        "backing_file_size",
    );
    refused(
        |i| {
            i.u64(8, C - 4).u32(16, 5);
        },
        Corrupt,
        "backing_file_offset",
    );
    refused(
        |i| {
            i.u64(8, u64::MAX).u32(16, 5);
        },
        Corrupt,
        "backing_file_offset",
    );
}

#[test]
fn l1_tables_that_cannot_be() {
    refused(
        |i| {
            i.u32(36, 0);
        },
        Kind::Corrupt,
        "l1_size",
    );
    refused(
        |i| {
            i.u64(24, u64::MAX);
        },
        Kind::Corrupt,
        "l1_size",
    );
    refused(
        |i| {
            i.u32(36, u32::MAX);
        },
        Kind::Corrupt,
        "exceeds 32 MiB",
    );
    refused(
        |i| {
            i.u32(36, 4 << 20);
        },
        Kind::Corrupt,
        "L1 table",
    );
    refused(
        |i| {
            i.u64(40, C + 8);
        },
        Kind::Corrupt,
        "not at a cluster",
    );
    refused(
        |i| {
            i.u64(40, 0);
        },
        Kind::Corrupt,
        "not at a cluster",
    );
    refused(
        |i| {
            i.u64(40, 64 * C);
        },
        Kind::Corrupt,
        "L1 table",
    );
    refused(
        |i| {
            i.u64(40, u64::MAX << 16);
        },
        Kind::Corrupt,
        "L1 table",
    );
}

#[test]
fn unknown_features_by_the_names_the_image_gives() {
    let mut image = HandMade::new(SIZE);
    image.u64(72, 1 << 40 | 1 << 7 | 1);
    let mut name = [0; 48];
    name[1] = 7;
    name[2..12].copy_from_slice(b"time trave");
    image.extension(104, 0x6803_f857, &name);
    let error = image.open().unwrap_err();
    assert_eq!(error.kind(), Kind::Unsupported);
    assert!(error.detail().ends_with("bit 7 (\"time trave\"), bit 40"), "{error}");
}

#[test]
fn header_extensions_that_leave_the_first_cluster() {
    refused(
        |i| {
            i.u32(104, 0x1234).u32(108, u32::MAX);
        },
        Kind::Corrupt,
        "extension",
    );
    refused(
        |i| {
            i.u32(104, 0x1234).u32(108, 500).u64(8, 512).u32(16, 4);
        },
        Kind::Corrupt,
        "extension",
    );
    refused(
        |i| {
            i.extension(104, 0x2385_2875, &[0; 8]);
        },
        Kind::Corrupt,
        "Bitmaps",
    );
}

#[test]
fn compression_types_without_their_feature_and_unknown_ones() {
    let typed = |kind: u8, bits: u64| {
        move |image: &mut HandMade| {
            image.u32(100, 112).u64(72, bits);
            image.bytes[104] = kind;
        }
    };
    refused(typed(1, 0), Kind::Corrupt, "compression_type");
    refused(typed(0, 8), Kind::Corrupt, "compression_type");
    refused(typed(2, 8), Kind::Unsupported, "compression type 2");
}

#[test]
fn extended_l2_with_clusters_too_small_for_it() {
    refused(
        |i| {
            i.u32(20, 13).u64(72, 1 << 4).u64(24, 1 << 20);
        },
        Kind::Corrupt,
        "extended L2",
    );
}

#[test]
fn encrypted_images_with_a_clear_word() {
    refused(
        |i| {
            i.u32(32, 1);
        },
        Kind::Denied,
        "encrypted (AES)",
    );
    refused(
        |i| {
            i.u32(32, 2);
        },
        Kind::Denied,
        "encrypted (LUKS)",
    );
}

#[test]
fn a_disk_without_the_files_it_needs() {
    let mut image = HandMade::new(SIZE);
    image.u64(8, 512).u32(16, 4);
    image.bytes[512..516].copy_from_slice(b"base");
    let error = image.open().unwrap().disk("x", Parts::default()).unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound);
    assert!(error.detail().contains("backing file \"base\""), "{error}");
    let mut image = HandMade::new(SIZE);
    image.u64(72, 4);
    let error = image.open().unwrap().disk("x", Parts::default()).unwrap_err();
    assert!(error.detail().contains("data file"), "{error}");
}

#[test]
fn l2_entries_that_point_nowhere() {
    lost(
        |i| {
            i.entry(0, 4 * C + 512);
        },
        Problem::Misaligned,
        "entry 0",
    );
    lost(
        |i| {
            i.entry(0, 64 * C);
        },
        Problem::OutOfRange,
        "the file ends at",
    );
    lost(
        |i| {
            i.entry(0, 0x00ff_ffff_ffff_0000);
        },
        Problem::OutOfRange,
        "the file ends at",
    );
    lost(
        |i| {
            i.entry(0, C);
        },
        Problem::Overlaps,
        "metadata",
    );
    lost(
        |i| {
            i.entry(0, 2 * C);
        },
        Problem::Overlaps,
        "metadata",
    );
    lost(
        |i| {
            i.entry(0, COMPRESSED | 100);
        },
        Problem::Overlaps,
        "metadata",
    );
    lost(
        |i| {
            i.entry(0, COMPRESSED | (64 * C));
        },
        Problem::OutOfRange,
        "the file ends at",
    );
}

#[test]
fn a_data_cluster_that_the_file_holds_in_part_only_past_its_end() {
    let mut image = HandMade::new(SIZE);
    let cluster = image.cluster(&[7; CLUSTER]);
    image.entry(0, cluster);
    image.bytes.truncate(4 * CLUSTER + 1000);
    let disk = image.disk();
    assert_eq!(disk.read_vec(0, 1000).unwrap(), [7; 1000]);
    let error = disk.read_vec(999, 2).unwrap_err();
    assert_eq!(error.problem(), Problem::OutOfRange);
    assert_eq!(disk.read_vec(C, 100).unwrap(), [0; 100]);
}

#[test]
fn l2_tables_that_cannot_be_and_reads_beside_them() {
    for (entry, problem) in [
        (3 * C + 512, Problem::Misaligned),
        (C, Problem::Overlaps),
        (2 * C, Problem::Overlaps),
        (1000 * C, Problem::OutOfRange),
    ] {
        let mut image = HandMade::new(1 << 30);
        image.u32(36, 2).u64(2 * CLUSTER, entry).u64(2 * CLUSTER + 8, 3 * C);
        let disk = image.disk();
        let error = disk.read_vec(0, 1).unwrap_err();
        assert_eq!((error.kind(), error.problem()), (Kind::Corrupt, problem), "{error}");
        let extents: Vec<_> = Extents::of(&disk, 0..1 << 30).map(Result::unwrap).collect();
        assert_eq!(extents.len(), 2);
        assert!(matches!(extents[0].kind, ExtentKind::Lost(_)));
        assert_eq!(disk.read_vec(512 << 20, 100).unwrap(), [0; 100]);
    }
}

#[test]
fn the_zero_bit_in_version_2() {
    let mut image = HandMade::new(SIZE);
    image.u32(4, 2).entry(0, 1);
    image.bytes[72..120].fill(0);
    assert_eq!(image.read_error(0).problem(), Problem::BadValue);
}

#[test]
fn contradicting_subclusters() {
    // Pairs of words: the table's first entry is words 0 and 1.
    for (word, bitmap) in [(4 * C, 1 | 1 << 32), (0, 1)] {
        let mut image = HandMade::new(SIZE);
        image.u64(72, 1 << 4).entry(0, word).entry(1, bitmap);
        image.cluster(&[7; CLUSTER]);
        assert_eq!(image.read_error(0).problem(), Problem::BadValue);
        assert_eq!(image.disk().read_vec(C, 10).unwrap(), [0; 10]);
    }
}

#[test]
fn clusters_of_a_data_file_that_are_not_level() {
    let mut image = HandMade::new(SIZE);
    image.u64(72, 4).entry(0, 1 << 63).entry(1, 2 * C);
    image.entry(2, COMPRESSED | (2 * C));
    let data = MemoryDisk::open("data", vec![9; SIZE as usize]);
    let disk = image.open().unwrap().disk("x", Parts { data: Some(data), backing: None }).unwrap();
    assert_eq!(disk.read_vec(0, 10).unwrap(), [9; 10]);
    assert_eq!(disk.read_vec(C, 10).unwrap_err().problem(), Problem::Mismatch);
    assert_eq!(disk.read_vec(2 * C, 10).unwrap_err().problem(), Problem::BadValue);
    assert_eq!(disk.read_vec(3 * C, 10).unwrap(), [0; 10]);
}

#[test]
fn compressed_clusters_that_are_short_or_damaged() {
    let stored = |length: u16| {
        let mut packed = vec![1];
        packed.extend(length.to_le_bytes());
        packed.extend((!length).to_le_bytes());
        packed.extend(vec![7; usize::from(length)]);
        packed
    };
    let packed = |data: Vec<u8>| {
        move |image: &mut HandMade| {
            let entry = image.compressed(&data);
            image.entry(0, entry);
        }
    };
    lost(packed(stored(1000)), Problem::Truncated, "1000 of 65536");
    lost(packed(vec![0xff; 2000]), Problem::BadValue, "deflate");
    // Cut by the end of the file: nothing may be made up for what is missing.
    lost(packed(stored(60000)[..500].to_vec()), Problem::BadValue, "compressed cluster");
    let zstd = |data: Vec<u8>| {
        move |image: &mut HandMade| {
            image.u64(72, 8).u32(100, 112);
            image.bytes[104] = 1;
            packed(data)(image);
        }
    };
    let pack = |data: &[u8]| zstd::bulk::compress(data, 3).unwrap();
    lost(zstd(vec![0xff; 2000]), Problem::BadValue, "zstd");
    lost(zstd(pack(&content(1000))), Problem::Truncated, "1000 of 65536");
    lost(zstd(pack(&content(CLUSTER))[..3000].to_vec()), Problem::BadValue, "zstd");
}

#[test]
fn decompression_bombs() {
    // 64 MiB in one frame: more than a cluster holds.
    let bomb = zstd::bulk::compress(&vec![0; 64 << 20], 19).unwrap();
    let mut image = HandMade::new(SIZE);
    image.u64(72, 8).u32(100, 112);
    image.bytes[104] = 1;
    let entry = image.compressed(&bomb);
    image.entry(0, entry);
    assert_eq!(image.read_error(0).kind(), Kind::Corrupt);
}

#[test]
fn snapshots_that_are_not_there_or_not_unique() {
    let folder = Folder::new();
    folder.qemu_img("create -q -f qcow2 s.qcow2 1M");
    folder.qemu_img("snapshot -c same s.qcow2");
    folder.qemu_img("snapshot -c same s.qcow2");
    let image = folder.image("s.qcow2");
    let open = |wanted| {
        image.disk_of_snapshot("s", wanted, SnapshotSize::Then, Parts::default()).unwrap_err()
    };
    assert_eq!(open("none").kind(), Kind::NotFound);
    assert!(open("none").advice().unwrap().contains("1 (\"same\")"));
    assert_eq!(open("same").problem(), Problem::Ambiguous);
}

#[test]
fn snapshot_tables_that_cannot_be() {
    let with = |change: &dyn Fn(&mut HandMade)| {
        let mut image = HandMade::new(SIZE);
        image.cluster(&[0; CLUSTER]);
        image.u32(60, 1).u64(64, 4 * C);
        image.u64(4 * CLUSTER, 2 * C).u32(4 * CLUSTER + 8, 1);
        change(&mut image);
        let image = image.open().unwrap();
        image.disk_of_snapshot("s", "", SnapshotSize::Then, Parts::default())
    };
    assert_eq!(with(&|_| ()).unwrap().size_bytes(), SIZE);
    for change in [
        &(|i: &mut HandMade| {
            i.u64(4 * CLUSTER, 77);
        }) as &dyn Fn(&mut HandMade),
        &|i| {
            i.u64(4 * CLUSTER, 500 * C);
        },
        &|i| {
            i.u32(4 * CLUSTER + 8, 0);
        },
        &|i| {
            i.u32(4 * CLUSTER + 8, u32::MAX);
        },
        &|i| {
            i.u32(4 * CLUSTER + 36, 1025);
        },
        &|i| {
            i.u32(4 * CLUSTER + 36, 16).u64(4 * CLUSTER + 48, u64::MAX);
        },
        &|i| {
            i.u64(64, 900 * C);
        },
        &|i| i.bytes.truncate(4 * CLUSTER + 39),
    ] {
        assert_eq!(with(change).unwrap_err().kind(), Kind::Corrupt);
    }
}

#[test]
fn bitmaps_that_cannot_be_believed() {
    let folder = Folder::new();
    folder.qemu_img("create -q -f qcow2 b.qcow2 10M");
    folder.qemu_img("bitmap --add b.qcow2 one");
    let mut bytes = folder.read("b.qcow2");
    assert_eq!(bytes[95] & 1, 1, "qemu-img sets the autoclear bit");
    bytes[95] = 0;
    let image = Image::open(MemoryDisk::open("b", bytes), &Limits::default()).unwrap();
    assert!(image.notes().iter().any(|note| note.code == "qcow-bitmaps-stale"));
    let bitmaps = image.bitmaps().unwrap();
    assert!(!bitmaps[0].consistent);
    let error = image.dirty(&bitmaps[0], &mut |range| panic!("{range:?}")).unwrap_err();
    assert_eq!(error.kind(), Kind::Lost);
}

#[test]
fn version_1_headers_whose_values_cannot_be() {
    let header = |size: u64, cluster_bits: u8, l2_bits: u8, crypt: u32, l1: u64| {
        let mut image = HandMade { bytes: vec![0; 4096] };
        image.bytes[..4].copy_from_slice(b"QFI\xfb");
        image.u32(4, 1).u64(24, size).u32(36, crypt).u64(40, l1);
        (image.bytes[32], image.bytes[33]) = (cluster_bits, l2_bits);
        image.open().and_then(|image| image.disk("x", Parts::default()))
    };
    assert_eq!(header(1 << 20, 12, 9, 0, 48).unwrap().read_vec(0, 9).unwrap(), [0; 9]);
    let kind = |result: adit_core::Result<Arc<dyn Disk>>| result.unwrap_err().kind();
    assert_eq!(kind(header(1 << 20, 8, 9, 0, 48)), Kind::Corrupt);
    assert_eq!(kind(header(1 << 20, 64, 9, 0, 48)), Kind::Corrupt);
    assert_eq!(kind(header(1 << 20, 12, 200, 0, 48)), Kind::Corrupt);
    assert_eq!(kind(header(1 << 20, 12, 9, 1, 48)), Kind::Denied);
    assert_eq!(kind(header(1 << 20, 12, 9, 2, 48)), Kind::Unsupported);
    assert_eq!(kind(header(u64::MAX, 12, 9, 0, 48)), Kind::Corrupt);
    assert_eq!(kind(header(1 << 20, 12, 9, 0, 9000)), Kind::Corrupt);
}

/// Opens and walks everything; whatever comes, it comes as a value.
fn walk(bytes: Vec<u8>) {
    let Ok(image) = Image::open(MemoryDisk::open("fuzz", bytes), &Limits::default()) else {
        return;
    };
    let parts = || Parts {
        backing: Some(MemoryDisk::open("base", vec![1; 5000])),
        data: Some(MemoryDisk::open("data", vec![2; 70_000])),
    };
    let _ = (image.notes(), image.facts(), image.references());
    for bitmap in image.bitmaps().unwrap_or_default() {
        let _ = image.dirty(&bitmap, &mut |_| ());
    }
    let mut disks = vec![image.disk("fuzz", parts())];
    for snapshot in image.snapshots().unwrap_or_default().iter().take(4) {
        let id = snapshot.id_text();
        disks.push(image.disk_of_snapshot("fuzz", &id, SnapshotSize::Then, parts()));
    }
    for disk in disks.into_iter().flatten() {
        let mut at = 0;
        for extent in Extents::of(&disk, 0..disk.size_bytes()).take(500).map_while(Result::ok) {
            assert_eq!(extent.offset, at, "extents leave a gap");
            at = extent.end();
            let length = usize::try_from(extent.length).unwrap().min(200_000);
            let read = disk.read_vec(extent.offset, length);
            if extent.kind.is_zero() {
                assert!(read.unwrap().iter().all(|&byte| byte == 0));
            } else if matches!(extent.kind, ExtentKind::Lost(_)) {
                read.unwrap_err();
            }
        }
    }
}

#[test]
fn thousands_of_damaged_images_without_harm() {
    let folder = Folder::new();
    folder.write("in.raw", &content(300_000));
    let mut seeds = vec![];
    for (index, options) in [
        "-O qcow2 -o cluster_size=512",
        "-c -O qcow2 -o cluster_size=4k",
        "-c -O qcow2 -o cluster_size=16k,compression_type=zstd,extended_l2=on",
        "-O qcow2 -o cluster_size=16k,extended_l2=on",
        "-O qcow",
    ]
    .iter()
    .enumerate()
    {
        let name = format!("{index}.img");
        folder.qemu_img(&format!("convert -f raw {options} in.raw {name}"));
        if index != 4 {
            folder.qemu_img(&format!("snapshot -c one {name}"));
            folder.qemu_img(&format!("bitmap --add {name} bits"));
        }
        seeds.push(folder.read(&name));
    }
    let mut state = 0x0123_4567_89ab_cdefu64;
    println!("seed {state:#x}");
    let mut random = move |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % below as u64) as usize
    };
    for round in 0..4000 {
        let mut bytes = seeds[round % seeds.len()].clone();
        for _ in 0..1 + random(8) {
            // Where tables are is where it hurts: headers, and bytes that are not zero.
            let mut at = if random(3) == 0 { random(160) } else { random(bytes.len()) };
            while at + 1 < bytes.len() && bytes[at] == 0 && random(40) != 0 {
                at += 1;
            }
            bytes[at] = match random(4) {
                0 => 0,
                1 => 0xff,
                2 => bytes[at] ^ 1 << random(8),
                _ => random(256) as u8,
            };
        }
        if random(10) == 0 {
            bytes.truncate(random(bytes.len()));
        }
        walk(bytes);
    }
}
