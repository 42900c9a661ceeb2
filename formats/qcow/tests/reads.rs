//! QCOW reads…

mod common;

use adit_core::{
    Disk, DiskExt, Extent, ExtentKind, Extents, Inspect, Limits, MemoryDisk, Severity,
};
use adit_qcow::{Encryption, Image, Parts, Purpose, SnapshotSize, probe};
use common::{CLUSTER, Folder, HandMade, assert_same, bytes_of, content};
use std::sync::Arc;

/// Not a multiple of any cluster.
const ODD: usize = (9 << 20) + 1536;

fn extents(disk: &Arc<dyn Disk>) -> Vec<Extent> {
    Extents::of(disk, 0..disk.size_bytes()).collect::<Result<_, _>>().unwrap()
}

fn converted(options: &str) -> (Vec<u8>, Vec<u8>) {
    let folder = Folder::new();
    let truth = content(ODD);
    folder.write("in.raw", &truth);
    folder.qemu_img(&format!("convert -f raw {options} in.raw out.img"));
    let disk = folder.disk("out.img");
    let covered: u64 = extents(&disk).iter().map(|extent| extent.length).sum();
    assert_eq!(covered, disk.size_bytes(), "{options}: extents leave gaps");
    (bytes_of(&disk), truth)
}

#[test]
fn every_cluster_size() {
    for bits in 9..=21 {
        let (found, truth) = converted(&format!("-O qcow2 -o cluster_size={}", 1 << bits));
        assert_same(&found, &truth, &format!("2^{bits}"));
    }
}

#[test]
fn version_2_and_every_refcount_width() {
    let (found, truth) = converted("-O qcow2 -o compat=0.10");
    assert_same(&found, &truth, "version 2");
    for bits in [1, 2, 4, 8, 16, 32, 64] {
        let (found, truth) = converted(&format!("-O qcow2 -o refcount_bits={bits}"));
        assert_same(&found, &truth, &format!("{bits} bits"));
    }
}

#[test]
fn compressed_clusters_of_both_kinds_and_all_sizes() {
    for kind in ["zlib", "zstd"] {
        for bits in [9, 12, 16, 21] {
            let size = 1 << bits;
            let (found, truth) =
                converted(&format!("-c -O qcow2 -o compression_type={kind},cluster_size={size}"));
            assert_same(&found, &truth, &format!("{kind} {size}"));
        }
    }
}

#[test]
fn version_1_plain_and_compressed() {
    let (found, truth) = converted("-O qcow");
    assert_same(&found, &truth, "plain");
    // qemu-img 10 writes the image and then fails without a word; what it wrote is whole.
    let folder = Folder::new();
    let truth = content(5 << 20);
    folder.write("in.raw", &truth);
    folder.output("qemu-img", &["convert", "-c", "-f", "raw", "-O", "qcow", "in.raw", "out.qcow"]);
    assert_same(&folder.raw_of("out.qcow"), &truth, "as qemu-img reads it");
    assert_same(&bytes_of(&folder.disk("out.qcow")), &truth, "compressed");
}

#[test]
fn version_1_over_a_backing_file() {
    let folder = Folder::new();
    folder.write("base.raw", &content(3 << 20));
    folder.qemu_img("create -q -f qcow -F raw -b base.raw over.qcow 4M");
    folder.qemu_io("over.qcow", &["write -P 7 1000k 3k", "write -P 9 3500k 512"]);
    let image = folder.image("over.qcow");
    assert_eq!((image.version(), image.cluster_size_bytes()), (1, 512));
    assert_eq!(image.references()[0].name, b"base.raw");
    let disk = folder.disk_over("over.qcow", folder.file("base.raw"));
    assert_same(&bytes_of(&disk), &folder.raw_of("over.qcow"), "overlay");
}

#[test]
fn subclusters_over_a_backing_file() {
    let folder = Folder::new();
    folder.write("base.raw", &content(2 << 20));
    folder.qemu_img("create -q -f qcow2 -o extended_l2=on -F raw -b base.raw over.qcow2 3M");
    folder.qemu_io(
        "over.qcow2",
        &[
            "write -P 1 10k 2k",
            "write -P 2 64k 64k",
            "write -z 66k 10k",
            "write -z 200k 4k",
            "write -z -u 256k 64k",
            "discard 320k 64k",
            "write -P 3 2047k 2k",
            "write -P 4 3071k 1k",
        ],
    );
    let disk = folder.disk_over("over.qcow2", folder.file("base.raw"));
    assert_same(&bytes_of(&disk), &folder.raw_of("over.qcow2"), "overlay");
}

#[test]
fn extended_l2_with_compressed_clusters() {
    let (found, truth) = converted("-c -O qcow2 -o extended_l2=on,cluster_size=128k");
    assert_same(&found, &truth, "extended L2");
}

#[test]
fn zero_clusters_hide_the_backing_file_with_and_without_space() {
    let folder = Folder::new();
    folder.write("base.raw", &vec![0x55; 1 << 20]);
    folder.qemu_img("create -q -f qcow2 -F raw -b base.raw over.qcow2");
    folder
        .qemu_io("over.qcow2", &["write -P 1 0 128k", "write -z 64k 64k", "write -z -u 256k 64k"]);
    let disk = folder.disk_over("over.qcow2", folder.file("base.raw"));
    assert_same(&bytes_of(&disk), &folder.raw_of("over.qcow2"), "overlay");
    let kinds: Vec<(u64, char)> = extents(&disk)
        .iter()
        .map(|extent| {
            let kind = match extent.kind {
                ExtentKind::Zero => 'z',
                ExtentKind::Hole => 'h',
                ExtentKind::Verbatim { .. } => 'v',
                _ => '?',
            };
            (extent.length >> 16, kind)
        })
        .collect();
    assert_eq!(kinds, [(1, 'v'), (1, 'z'), (2, 'v'), (1, 'h'), (11, 'v')]);
}

#[test]
fn a_chain_whose_layers_differ_in_size() {
    let folder = Folder::new();
    folder.write("base.raw", &content(100_000));
    folder.qemu_img("create -q -f qcow2 -F raw -b base.raw one.qcow2 1M");
    folder.qemu_io("one.qcow2", &["write -P 1 900k 100k"]);
    folder.qemu_img("create -q -f qcow2 -F qcow2 -b one.qcow2 two.qcow2 2M");
    folder.qemu_io("two.qcow2", &["write -P 2 1m 4k"]);
    let one = folder.disk_over("one.qcow2", folder.file("base.raw"));
    let two = folder.disk_over("two.qcow2", one);
    assert_same(&bytes_of(&two), &folder.raw_of("two.qcow2"), "chain");
    let references = folder.image("two.qcow2").references();
    assert_eq!(references[0].purpose, Purpose::Backing);
    assert_eq!(references[0].format.as_deref(), Some(&b"qcow2"[..]));
}

#[test]
fn names_with_a_protocol_as_they_stand() {
    let name = br#"json:{"driver":"nbd","host":"example.org"}"#;
    let mut image = HandMade::new(1 << 20);
    image.u64(8, 512).u32(16, name.len() as u32);
    image.bytes[512..512 + name.len()].copy_from_slice(name);
    let image = image.open().unwrap();
    assert_eq!(image.references()[0].name, name);
    let codes: Vec<&str> = image.notes().iter().map(|note| note.code).collect();
    assert_eq!(codes, ["qcow-backing-format-missing"]);
}

#[test]
fn an_external_data_file_with_and_without_the_raw_flag() {
    for raw in ["off", "on"] {
        let folder = Folder::new();
        folder.qemu_img(&format!(
            "create -q -f qcow2 -o data_file=d.data,data_file_raw={raw} x.qcow2 2M"
        ));
        folder.qemu_io("x.qcow2", &["write -P 1 0 4k", "write -P 2 1m 100k", "write -z 1m 64k"]);
        let image = folder.image("x.qcow2");
        let reference = &image.references()[0];
        assert_eq!((reference.name.as_slice(), reference.purpose), (&b"d.data"[..], Purpose::Data));
        assert_eq!(image.data_file_is_raw(), raw == "on");
        let parts = Parts { data: Some(folder.file("d.data")), backing: None };
        let disk = image.disk("x", parts).unwrap();
        assert_same(&bytes_of(&disk), &folder.raw_of("x.qcow2"), raw);
    }
}

#[test]
fn snapshots_by_id_and_by_name_at_the_size_they_had() {
    let folder = Folder::new();
    folder.qemu_img("create -q -f qcow2 s.qcow2 1M");
    folder.qemu_io("s.qcow2", &["write -P 1 0 1M"]);
    folder.qemu_img("snapshot -c first s.qcow2");
    folder.qemu_img("resize -q s.qcow2 3M");
    folder.qemu_io("s.qcow2", &["write -P 2 512k 2M"]);
    folder.qemu_img("snapshot -c zweiter-ä s.qcow2");
    folder.qemu_img("resize -q --shrink s.qcow2 2M");
    folder.qemu_io("s.qcow2", &["write -P 3 0 64k"]);
    let image = folder.image("s.qcow2");
    let listed: Vec<_> = image
        .snapshots()
        .unwrap()
        .iter()
        .map(|snapshot| (snapshot.id_text(), snapshot.name_text(), snapshot.disk_size_bytes))
        .collect();
    assert_eq!(
        listed,
        [
            ("1".to_owned(), "first".to_owned(), 1 << 20),
            ("2".to_owned(), "zweiter-ä".to_owned(), 3 << 20)
        ]
    );
    let at = |wanted: &str, size| {
        bytes_of(&image.disk_of_snapshot("s", wanted, size, Parts::default()).unwrap())
    };
    for (id, name) in [("1", "first"), ("2", "zweiter-ä")] {
        std::fs::copy(folder.path("s.qcow2"), folder.path("then.qcow2")).unwrap();
        folder.qemu_img(&format!("snapshot -a {id} then.qcow2"));
        let truth = folder.raw_of("then.qcow2");
        assert_same(&at(id, SnapshotSize::Then), &truth, id);
        assert_same(&at(name, SnapshotSize::Then), &truth, name);
        folder.qemu_img(&format!("convert -O raw -l {id} s.qcow2 now.raw"));
        assert_same(&at(id, SnapshotSize::Now), &folder.read("now.raw"), "now");
    }
    assert_same(&bytes_of(&folder.disk("s.qcow2")), &folder.raw_of("s.qcow2"), "active");
}

#[test]
fn dirty_bitmaps_as_ranges() {
    let folder = Folder::new();
    folder.qemu_img("create -q -f qcow2 b.qcow2 10M");
    folder.qemu_img("bitmap --add -g 64k b.qcow2 coarse");
    folder.qemu_img("bitmap --add -g 512 --disable b.qcow2 off");
    folder.qemu_io("b.qcow2", &["write 100k 1k", "write 1m 3m", "write 10485248 512"]);
    let image = folder.image("b.qcow2");
    let bitmaps = image.bitmaps().unwrap();
    let listed: Vec<_> = bitmaps
        .iter()
        .map(|b| (b.name_text(), b.granularity_bytes, b.enabled, b.consistent))
        .collect();
    assert_eq!(
        listed,
        [("coarse".to_owned(), 65536, true, true), ("off".to_owned(), 512, false, true)]
    );
    let mut dirty = vec![];
    image.dirty(&bitmaps[0], &mut |range| dirty.push(range)).unwrap();
    assert_eq!(dirty, [65536..131072, 1 << 20..4 << 20, 10420224..10 << 20]);
    image.dirty(&bitmaps[1], &mut |range| panic!("{range:?}")).unwrap();
}

#[test]
fn an_empty_disk_of_8_tib_as_one_hole() {
    let folder = Folder::new();
    folder.qemu_img("create -q -f qcow2 big.qcow2 8T");
    let disk = folder.disk("big.qcow2");
    let extent = disk.extent_at(12345).unwrap();
    assert_eq!((extent.offset, extent.length), (12345, (8 << 40) - 12345));
    assert!(matches!(extent.kind, ExtentKind::Hole));
}

#[test]
fn clusters_that_lie_side_by_side_as_one_extent() {
    let mut image = HandMade::new(100 * CLUSTER as u64);
    let first = image.cluster(&[1; CLUSTER]);
    let second = image.cluster(&[2; CLUSTER]);
    let third = image.cluster(&[3; CLUSTER]);
    image.entry(10, first).entry(11, second).entry(12, third).entry(13, first);
    let disk = image.disk();
    let lengths: Vec<u64> = extents(&disk).iter().map(|e| e.length >> 16).collect();
    assert_eq!(lengths, [10, 3, 1, 86]);
    assert_eq!(disk.read_vec(12 * CLUSTER as u64 + 5, 1).unwrap(), [3]);
}

#[test]
fn several_zstd_frames_in_one_cluster() {
    let truth = content(CLUSTER);
    let mut image = HandMade::new(CLUSTER as u64);
    image.u64(72, 1 << 3).u32(100, 112);
    image.bytes[104] = 1;
    let mut packed = vec![];
    for part in truth.chunks(20_000) {
        packed.extend(zstd::bulk::compress(part, 3).unwrap());
    }
    packed.extend([0xee; 300]);
    let entry = image.compressed(&packed);
    image.entry(0, entry);
    assert_same(&bytes_of(&image.disk()), &truth, "frames");
}

/// Raw deflate made by hand: one stored block of 65535 bytes, one of 1.
fn stored(cluster: &[u8]) -> Vec<u8> {
    let mut packed = vec![0, 0xff, 0xff, 0, 0];
    packed.extend(&cluster[..65535]);
    packed.extend([1, 1, 0, 0xfe, 0xff, cluster[65535]]);
    packed
}

#[test]
fn streams_that_share_a_sector_and_end_with_the_file() {
    let truth = content(3 * CLUSTER);
    let mut image = HandMade::new(truth.len() as u64);
    for (index, cluster) in truth.chunks(CLUSTER).enumerate() {
        let entry = image.compressed(&stored(cluster));
        image.entry(index, entry);
    }
    assert_ne!(image.bytes.len() % 512, 0, "the last stream ends inside a sector");
    assert_same(&bytes_of(&image.disk()), &truth, "stored");
}

#[test]
fn dirty_and_corrupt_images_and_says_so() {
    let mut image = HandMade::new(1 << 20);
    image.u64(72, 3);
    let notes = image.open().unwrap().notes();
    let found: Vec<_> = notes.iter().map(|note| (note.code, note.severity)).collect();
    assert_eq!(found, [("qcow-dirty", Severity::Info), ("qcow-corrupt", Severity::Warning)]);
    assert_eq!(bytes_of(&image.disk()), vec![0; 1 << 20]);
}

#[test]
fn the_header_of_an_encrypted_image() {
    let folder = Folder::new();
    folder.qemu_img(
        "create -q -f qcow2 --object secret,id=s,data=x -o encrypt.format=luks,encrypt.key-secret=s l.qcow2 1M",
    );
    let image = folder.image("l.qcow2");
    assert_eq!((image.encryption(), image.size_bytes()), (Some(Encryption::Luks), 1 << 20));
}

#[test]
fn facts_steps_and_structures() {
    let mut image = HandMade::new(1 << 20);
    let cluster = image.cluster(&[1; CLUSTER]);
    image.entry(2, cluster);
    let opened = image.open().unwrap();
    assert!(opened.facts().contains(&("cluster size", "65536 bytes".to_owned())));
    let hop = image.disk().explain(2 * CLUSTER as u64).unwrap();
    assert_eq!(hop.layer, "QCOW2 hand");
    assert_eq!(hop.steps, ["L1 entry 0: table at 0x30000", "L2 entry 2 = 0x0000000000040000"]);
    let fields = &opened.inspect("header").unwrap()[0].fields;
    let length = fields.iter().find(|field| field.name == "header_length").unwrap();
    assert_eq!((length.offset, length.length), (100, 4));
}

#[test]
fn extensions_that_lie_past_the_first_block_of_the_header() {
    let mut image = HandMade::new(1 << 20);
    let at = image.extension(104, 0x1234_5678, &[0; 8000]);
    image.extension(at, 0xe279_2aca, b"raw");
    image.u64(8, 20_000).u32(16, 4);
    image.bytes[20_000..20_004].copy_from_slice(b"base");
    let opened = image.open().unwrap();
    assert_eq!(opened.references()[0].format.as_deref(), Some(&b"raw"[..]));
    assert_eq!(opened.notes()[0].code, "qcow-extension-unknown");
}

#[test]
fn the_version_from_the_first_bytes() {
    assert_eq!(probe(b"QFI\xfb\0\0\0\x03rest"), Some(3));
    assert_eq!(probe(b"QFI\xfb\0\0\0\x01"), Some(1));
    assert_eq!(probe(b"QFI\xfb\0\0"), None);
    assert_eq!(probe(b"conectix\0\0\0\x03"), None);
}

#[test]
fn a_disk_of_no_bytes() {
    let image = HandMade::new(0);
    let opened = Image::open(MemoryDisk::open("none", image.bytes), &Limits::default()).unwrap();
    assert_eq!(opened.disk("none", Parts::default()).unwrap().size_bytes(), 0);
}
