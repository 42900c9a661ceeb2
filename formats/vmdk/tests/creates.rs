//! Creating a VMDK…

mod images;

use adit_core::{Disk, DiskExt, Kind, Limits, MemoryDisk, WritableDisk, WritableImage};
use adit_vmdk::{CreateOptions, Subformat};
use images::*;
use std::process::Command;
use std::sync::Arc;

#[test]
fn gives_the_bytes_qemu_gives_but_for_the_descriptor() {
    for (size, zeroed_grain) in [(10 * MIB, false), (3 * 1024 * MIB + 512, true)] {
        let folder = tempfile::tempdir().unwrap();
        let option = format!("zeroed_grain={}", if zeroed_grain { "on" } else { "off" });
        let path = folder.path().join("q.vmdk");
        let status = Command::new("qemu-img")
            .args(["create", "-q", "-f", "vmdk", "-o", &option])
            .arg(&path)
            .arg(size.to_string())
            .status();
        assert!(status.expect("qemu-img runs").success());
        let theirs = std::fs::read(path).unwrap();
        let options = CreateOptions { zeroed_grain, ..options(size, Subformat::MonolithicSparse) };
        let image = Image::create(&options, None);
        let ours = image.world.images().remove(0);
        assert_eq!(ours[..512], theirs[..512]);
        assert!(ours[21 * 512..] == theirs[21 * 512..]);
    }
}

#[test]
fn writes_the_headers_of_esx_extents_field_by_field() {
    let size = 32 * MIB;
    let parent = Some(parent_record("00c0ffee", size));
    let esx = CreateOptions { parent: parent.clone(), ..options(size, Subformat::VmfsSparse) };
    let bytes = Image::create(&esx, Some(MemoryDisk::open("b", Vec::new()))).world.images();
    let word = |at: usize| u32::from_le_bytes(bytes[0][at..at + 4].try_into().unwrap());
    assert_eq!(&bytes[0][..4], b"COWD");
    let fields: Vec<u32> = (4..32).step_by(4).map(word).collect();
    assert_eq!(fields, [1, 3, 65536, 1, 4, 16, 5]);
    let sesparse = CreateOptions { parent, ..options(512 * MIB, Subformat::SeSparse) };
    let bytes = Image::create(&sesparse, Some(MemoryDisk::open("b", Vec::new()))).world.images();
    let word = |at: usize| u64::from_le_bytes(bytes[0][at..at + 8].try_into().unwrap());
    let fields: Vec<u64> = (0..26).map(|index| word(index * 8)).collect();
    // As ESXi makes one of this size.
    let expected = [
        0xcafe_babe,
        0x2_0000_0001,
        0x100000,
        8,
        64,
        0,
        0,
        0,
        0,
        0,
        1,
        1,
        2,
        2,
        0x800,
        0x800,
        0x1000,
        0x800,
        0x1800,
        0x800,
        0x2000,
        0x800,
        0x2800,
        0x800,
        0x3000,
        0x100000,
    ];
    assert_eq!(fields, expected);
    assert_eq!([word(512), word(520), word(536), word(1024)], [0xcafe_cafe, 0, 0, 0xdeaf_c0de]);
    assert_eq!(bytes[0].len(), 0x3000 * 512);
}

#[test]
fn says_in_the_descriptor_what_was_asked_for() {
    let options = CreateOptions {
        adapter: "ide".to_owned(),
        hw_version: 19,
        thin: true,
        ..options(64 * MIB, Subformat::Vmfs)
    };
    let image = Image::create(&options, None);
    let descriptor = image.descriptor();
    let text = |key: &str| descriptor.text(key).unwrap().into_owned();
    assert_eq!(descriptor.create_type, "vmfs");
    assert_eq!((descriptor.cid, descriptor.parent_cid), (Some(0x1234_abcd), None));
    assert_eq!(descriptor.extents[0].file.as_deref(), Some(&b"disk-flat.vmdk"[..]));
    assert_eq!(text("ddb.adapterType"), "ide");
    assert_eq!(text("ddb.virtualHWVersion"), "19");
    assert_eq!(text("ddb.geometry.cylinders"), (64 * MIB / 512 / 16 / 63).to_string());
    assert!(descriptor.thin());
    assert!(text("ddb.longContentID").ends_with("1234abcd"));
}

#[test]
fn splits_a_disk_at_2047_mib() {
    const PIECE: u64 = 4_192_256 * 512;
    let mut names = Vec::new();
    let world = adit_testkit::World::new(0);
    let options = CreateOptions {
        size_bytes: 2 * PIECE + 512,
        ..options(512, Subformat::TwoGbMaxExtentSparse)
    };
    adit_vmdk::create("a b.vmdk", &options, &mut |name| {
        names.push(name.to_owned());
        Ok(world.add_file())
    })
    .unwrap();
    assert_eq!(names, ["a b-s001.vmdk", "a b-s002.vmdk", "a b-s003.vmdk", "a b.vmdk"]);
    let file: Arc<dyn Disk> = MemoryDisk::open("d", world.images().pop().unwrap());
    let bytes = file.read_vec(0, file.size_bytes() as usize).unwrap();
    let descriptor = adit_vmdk::Descriptor::parse(&bytes, &Limits::default()).unwrap();
    assert_eq!(descriptor.size_bytes, 2 * PIECE + 512);
}

#[test]
fn refuses_what_cannot_be() {
    let parent = Some(parent_record("00c0ffee", MIB));
    let good = options(MIB, Subformat::MonolithicSparse);
    let esx = options(MIB, Subformat::VmfsSparse);
    let foreign = adit_core::ParentRecord { format: "qcow2".to_owned(), ..parent_record("", MIB) };
    let hint = |name: &[u8]| {
        Some(adit_core::ParentRecord { name: name.to_vec(), ..parent_record("00c0ffee", MIB) })
    };
    let cases = [
        (CreateOptions { size_bytes: 513, ..good.clone() }, Kind::Invalid),
        (CreateOptions { size_bytes: 0, ..good.clone() }, Kind::Invalid),
        (CreateOptions { grain_bytes: Some(5000), ..good.clone() }, Kind::Invalid),
        (CreateOptions { size_bytes: 3 << 40, ..good.clone() }, Kind::Invalid),
        (
            CreateOptions { size_bytes: 3 << 40, parent: parent.clone(), ..esx.clone() },
            Kind::Invalid,
        ),
        (CreateOptions { adapter: "floppy".to_owned(), ..good.clone() }, Kind::Invalid),
        (CreateOptions { geometry: Some((0, 63)), ..good.clone() }, Kind::Invalid),
        (CreateOptions { parent: hint(b"a\"b"), ..good.clone() }, Kind::Invalid),
        (CreateOptions { parent: hint(&[b'x'; 20_000]), ..good.clone() }, Kind::Invalid),
        (CreateOptions { parent: Some(foreign), ..good }, Kind::Unsupported),
        (esx, Kind::Invalid),
        (CreateOptions { parent, ..options(MIB, Subformat::Vmfs) }, Kind::Unsupported),
    ];
    for (options, kind) in cases {
        let refused = Image::try_create(&options, None).err().map(|error| error.kind());
        assert_eq!(refused, Some(kind), "{options:?}");
    }
    assert!(Subformat::of_word("streamOptimized").unwrap_err().advice().is_some());
    assert_eq!(Subformat::of_word("VMFSsparse").unwrap(), Subformat::VmfsSparse);
}

#[test]
fn makes_children_that_notice_a_changed_parent() {
    let base = Image::create(&options(MIB, Subformat::MonolithicFlat), None);
    let file = base.file("disk.vmdk").unwrap();
    let identity = || adit_vmdk::identity(&file, &Limits::default()).unwrap();
    let record = adit_core::ParentRecord { identity: identity(), ..parent_record("", MIB) };
    let delta = CreateOptions { parent: Some(record), ..options(MIB, Subformat::MonolithicSparse) };
    let child = Image::create(&delta, Some(base.read()));
    let parent_cid = || base.descriptor().cid.unwrap();
    child.descriptor().accepts_parent(parent_cid(), None).unwrap();
    let writer = base.writer();
    writer.write_at(&[1], 0).unwrap();
    writer.close().unwrap();
    assert!(child.descriptor().accepts_parent(parent_cid(), None).is_err());
    // A rebase makes them one again.
    let record = adit_core::ParentRecord { identity: identity(), ..parent_record("", MIB) };
    child.writer().set_parent(Some(&record)).unwrap();
    child.descriptor().accepts_parent(parent_cid(), None).unwrap();
}
