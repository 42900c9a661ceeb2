//! The maker against what real volumes show: offsets, counts and words seen there.

use adit_testkit::vmfs::{Damage, Entry, Heartbeat, Image, hash};
use adit_testkit::{Memory, Store, Vmfs};

const VOLUME_AT: u64 = 0x1100000;
const MIB: u64 = 1 << 20;

fn device(image: &Image<Memory>, offset: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    image.stores()[0].read_at(offset, &mut bytes);
    bytes
}

fn word(image: &Image<Memory>, volume_offset: u64) -> u32 {
    u32::from_le_bytes(image.read(volume_offset, 4).try_into().unwrap())
}

/// Blocks in use by the SFB cluster entries of a volume with `.fbb.sf` in block 9.
fn blocks_in_use(image: &Image<Memory>, clusters: u64) -> u64 {
    let entry = |c| 9 * MIB + 0x10000 + (8 + c) * 8192 + 4096 + 0x20;
    let used = |c| {
        let counts = word(image, entry(c));
        u64::from((counts & 0xffff) - (counts >> 16))
    };
    (0..clusters).map(used).sum()
}

#[test]
fn an_empty_vmfs6_costs_as_many_blocks_as_esxi_spends() {
    assert_eq!(blocks_in_use(&Vmfs::six().in_memory(), 4), 1444);
    assert_eq!(blocks_in_use(&Vmfs::six().local().in_memory(), 4), 1187);
}

#[test]
fn vmfs6_headers_are_where_real_volumes_have_them() {
    let image = Vmfs::six().label("ds1").in_memory();
    assert_eq!(device(&image, 0x100000, 5), [0x0d, 0xd0, 0x01, 0xc0, 6]);
    assert_eq!(device(&image, 0x1300000, 5), [0x5e, 0xf1, 0xab, 0x2f, 24]);
    assert_eq!(&device(&image, 0x130001d, 4), b"ds1\0");
    assert_eq!(word(&image, 0x2000e1), 0x72c000);
    assert_eq!(word(&image, 0x20017f), 0x732000);
    assert_eq!(image.fd_at("/"), 0x720000);
}

#[test]
fn a_volume_without_lvm_begins_with_its_device() {
    let image = Vmfs::five().without_lvm().local().in_memory();
    assert_eq!(device(&image, 0x100000, 4), [0; 4]);
    assert_eq!(device(&image, 0x200000, 4), [0x5f, 0xf1, 0xab, 0x2f]);
}

#[test]
fn the_root_of_a_vmfs6_links_its_system_files_as_esxi_does() {
    let image = Vmfs::six().in_memory();
    let table = 8 * MIB + 0x5f8;
    let words = (15973..15984).map(|index| word(&image, table + index * 4));
    let seen: Vec<u32> = words.collect();
    assert_eq!(
        seen,
        [
            0, 0x5, 0x1000005, 0x2000005, 0x3000005, 0x4000005, 0x5000005, 0x6000005, 0x7000005,
            0x8000005, 0
        ]
    );
    // Map block: a map, then entries with room, then unused.
    assert_eq!(image.read(8 * MIB + 0x10040, 2), [0x35, 0x88]);
}

#[test]
fn vmfs5_and_vmfs3_have_their_root_fd_where_real_volumes_have_it() {
    assert_eq!(Vmfs::five().in_memory().fd_at("/"), 0x420000);
    assert_eq!(Vmfs::three().in_memory().fd_at("/"), 0x418000);
    let small_blocks = Vmfs::five().block_bytes(512 << 10).in_memory();
    assert_eq!(small_blocks.fd_at("/"), 0x420000);
    assert_eq!(word(&small_blocks, 0x2000a1), 512 << 10);
}

#[test]
fn data_lies_where_the_image_says() {
    let image = Vmfs::six()
        .file("web/small", b"resident")
        .sparse_file("web/big", 42 << 40, &[(41 << 40, b"far away")])
        .in_memory();
    let small = image.data_at("web/small", 0).unwrap();
    assert_eq!(small, image.fd_at("web/small") + 4096 + 512);
    assert_eq!(image.read(small, 8), b"resident");
    let big = image.data_at("web/big", (41 << 40) + 4).unwrap();
    assert_eq!(image.read(big, 4), b"away");
    assert_eq!(image.data_at("web/big", 0), None);
}

#[test]
fn a_64_tib_volume_keeps_its_16_mib_gaps_and_stays_small() {
    for vmfs in [Vmfs::five().lean(), Vmfs::six()] {
        let vmfs = vmfs
            .size_bytes(64 << 40)
            .with(Entry::file("far", vec![7; 1 << 20]).placed_at(40 << 40));
        let image = vmfs.in_memory();
        let (device, at) = image.on_device(image.data_at("far", 0).unwrap());
        assert_eq!((device, at), (0, 0x1100000 + (40 << 40) + (32 << 20)));
        assert!(image.stores()[0].stored_bytes() < 256 * MIB);
    }
    let five = Vmfs::five().lean().size_bytes(64 << 40).in_memory();
    let second = 0x100000 + (16 << 40) + (16 << 20);
    assert_eq!(device(&five, second, 5), [0x0d, 0xd0, 0x01, 0xc0, 8]);
}

#[test]
fn a_span_continues_on_its_next_device() {
    let image = Vmfs::five().devices_bytes(&[800 << 20, 1200 << 20]).file("a", b"x").in_memory();
    assert_eq!(image.volume_bytes(), 7 * (256 << 20));
    assert_eq!(image.on_device(3 * (256 << 20)), (1, VOLUME_AT));
}

#[test]
fn a_big_folder_is_built_quickly_and_counts_all_its_names() {
    let mut vmfs = Vmfs::five();
    for n in 0..20_000 {
        vmfs = vmfs.file(format!("crowd/file-{n}"), b"");
    }
    let image = vmfs.in_memory();
    let length = word(&image, image.fd_at("crowd") + 512 + 0x14);
    assert_eq!(length, 140 * 20_002);
}

#[test]
fn a_deleted_file_keeps_its_fd_but_not_its_name() {
    let vmfs = Vmfs::six().file("stays", b"s");
    let image = vmfs.with(Entry::file("gone", b"g").deleted()).in_memory();
    let meta = image.fd_at("gone") + 4096;
    let (address, _) = image.fd_address("gone");
    assert_eq!(word(&image, meta), address);
    // Root: 2 + 9 system files + one user's, of 13 ever allocated.
    assert_eq!(word(&image, 8 * MIB + 4), 12);
    assert_eq!(word(&image, 8 * MIB + 8), 13);
}

#[test]
fn a_live_heartbeat_names_its_journal() {
    let image = Vmfs::six()
        .heartbeat(Heartbeat::live(64, "10.0.0.7").pending("f"))
        .file("f", b"x")
        .in_memory();
    assert_eq!(word(&image, 0x340000), 0xabcdef02);
    let journal = u64::from(word(&image, 0x340064));
    assert_eq!(image.read(journal, 4), [0x36, 0x4a, 0x53, 0x46]);
    assert_eq!(image.read(journal + 4096, 6), *b"TO6J\x01\0");
    // The file's lock is held by that slot.
    assert_eq!(word(&image, image.fd_at("f") + 0x24), 1);
    assert_eq!(word(&image, image.fd_at("f") + 0x0c), 0x340000);
}

#[test]
fn every_damage_changes_a_few_bytes_and_no_more() {
    let names = hash::colliding_names(3);
    let mut vmfs = Vmfs::six().file("a", vec![1; 200_000]).file("b", vec![2; 200_000]).sparse_file(
        "big",
        100 << 30,
        &[(1 << 30, b"x")],
    );
    for name in &names {
        vmfs = vmfs.file(format!("d/{name}"), b"z");
    }
    let grouped = format!("d/{}", names[0]);
    let whole = vmfs.in_memory().into_store();
    let damages = [
        Damage::LvmMagic,
        Damage::SuperblockMagic,
        Damage::FdMarkedFree("a"),
        Damage::BlockMarkedFree("a"),
        Damage::BlockLost,
        Damage::FreeCount,
        Damage::PointerOutOfRange("a"),
        Damage::SharedBlock("a", "b"),
        Damage::PointerLoop("big"),
        Damage::FdAddress("a"),
        Damage::FdType("a"),
        Damage::BlockCount("a"),
        Damage::TbzCount("a"),
        Damage::LockOffset("a"),
        Damage::LinkCount("a"),
        Damage::LengthBeyondAddressing("a"),
        Damage::DirentGeneration("a"),
        Damage::DirentToFreeFd("a"),
        Damage::HashBucket("a"),
        Damage::StoredHash("a"),
        Damage::EntryCount("d"),
        Damage::LinkGroupLoop(&grouped),
    ];
    for damage in damages {
        let mut image = vmfs.in_memory();
        image.damage(damage);
        let changed = whole.bytes_that_differ(&image.into_store());
        assert!((1..=12).contains(&changed), "{damage:?}: {changed} bytes");
    }
}
