//! Tools change in a VMDK…

mod images;

use adit_core::{Disk, DiskExt, Kind, Limits, MemoryDisk, WritableDisk, WritableImage};
use adit_testkit::Model;
use adit_vmdk::{CreateOptions, Subformat};
use images::*;
use std::sync::Arc;

fn identity(image: &Image) -> String {
    let file = image.file(&image.name).unwrap();
    String::from_utf8(adit_vmdk::identity(&file, &Limits::default()).unwrap()).unwrap()
}

fn text(image: &Image) -> String {
    let names = image.names.borrow();
    let index = names.iter().position(|name| name == &image.name).unwrap();
    let bytes = image.world.images()[index].clone();
    let start = if bytes.starts_with(b"KDMV") { 512 } else { 0 };
    let text = bytes[start..].split(|&b| b == 0).next().unwrap();
    String::from_utf8(text.to_vec()).unwrap()
}

#[test]
fn the_identity_once_before_the_first_write_after_each_opening() {
    for kind in [Subformat::MonolithicSparse, Subformat::TwoGbMaxExtentFlat] {
        let image = Image::create(&options(MIB, kind), None);
        assert_eq!(identity(&image), "1234abcd");
        let writer = image.writer();
        writer.flush().unwrap();
        writer.write_at(&[], 5).unwrap();
        assert!(writer.write_at(&[1], MIB as u64).is_err());
        writer.modify("hwversion", "21").unwrap();
        writer.close().unwrap();
        assert_eq!(identity(&image), "1234abcd");
        writer.write_at(&[1], 5).unwrap();
        let first = identity(&image);
        assert_ne!(first, "1234abcd");
        writer.discard(0..MIB as u64).unwrap();
        writer.flush().unwrap();
        assert_eq!(identity(&image), first);
        writer.close().unwrap();
        assert_eq!(identity(&image), first);
        writer.write_zeroes(0..1).unwrap();
        assert_ne!(identity(&image), first);
        assert!(text(&image).contains("ddb.virtualHWVersion = \"21\""));
    }
}

#[test]
fn the_identity_and_its_long_form_together() {
    let image = Image::create(&options(MIB, Subformat::Vmfs), None);
    let long = |image: &Image| image.descriptor().text("ddb.longContentID").unwrap().into_owned();
    let before = long(&image);
    image.writer().write_at(&[1], 0).unwrap();
    let after = long(&image);
    assert_eq!(before[..24], after[..24]);
    assert!(before.ends_with("1234abcd") && after.ends_with(&identity(&image)));
}

#[test]
fn change_tracking_which_ends_with_the_first_write() {
    let flat = vec![7; MIB];
    let text_3 = "# Disk DescriptorFile\nversion=3\nCID=11112222\nparentCID=ffffffff\n\
        createType=\"vmfs\"\nRW 2048 VMFS \"disk-flat.vmdk\"\n\
        changeTrackPath=\"disk-ctk.vmdk\"\nddb.adapterType = \"lsilogic\"\n";
    let files = vec![
        ("disk.vmdk".to_owned(), text_3.as_bytes().to_vec()),
        ("disk-flat.vmdk".to_owned(), flat),
    ];
    let image = Image::of("disk.vmdk", files);
    let writer = image.writer();
    let note = &writer.notes()[0];
    assert_eq!(note.code, "vmdk-change-track");
    assert!(note.text.contains("disk-ctk.vmdk"), "{note}");
    assert_eq!(text(&image), text_3);
    writer.write_at(&[1], 0).unwrap();
    let descriptor = image.descriptor();
    assert_eq!((descriptor.change_track_path, descriptor.version), (None, Some(1)));
    assert_eq!(text(&image).len(), text_3.len());
    drop(writer);
    assert_eq!(image.writer().notes(), []);
}

#[test]
fn the_mark_that_somebody_writes() {
    let image = Image::create(&options(MIB, Subformat::TwoGbMaxExtentSparse), None);
    let unclean = || image.world.images()[0][72];
    let writer = image.writer();
    assert_eq!(unclean(), 0);
    writer.write_at(&[1], 0).unwrap();
    assert_eq!(unclean(), 1);
    writer.flush().unwrap();
    assert_eq!(unclean(), 1);
    writer.close().unwrap();
    assert_eq!(unclean(), 0);
}

#[test]
fn the_parent() {
    let base: Arc<dyn Disk> = MemoryDisk::open("base", noise(MIB, 3));
    let record = parent_record("00c0ffee", MIB);
    let delta = CreateOptions { parent: Some(record), ..options(MIB, Subformat::VmfsSparse) };
    let image = Image::create(&delta, Some(base));
    let writer = image.writer();
    let mut other = parent_record("0badcafe", MIB);
    other.name = b"/vmfs/volumes/some-volume/another folder/base-000001.vmdk".to_vec();
    writer.set_parent(Some(&other)).unwrap();
    writer.close().unwrap();
    let descriptor = image.descriptor();
    assert_eq!(descriptor.parent_hint.as_ref(), Some(&other.name));
    assert_eq!((descriptor.parent_cid, descriptor.cid), (Some(0x0bad_cafe), Some(0x1234_abcd)));
    writer.set_parent(None).unwrap();
    let descriptor = image.descriptor();
    assert!(!descriptor.has_parent() && descriptor.parent_hint.is_none());
    other.format = "qcow2".to_owned();
    assert_eq!(writer.set_parent(Some(&other)).unwrap_err().kind(), Kind::Unsupported);
    let flat = Image::create(&options(MIB, Subformat::MonolithicFlat), None);
    let refused = flat.writer().set_parent(Some(&parent_record("00c0ffee", MIB)));
    assert_eq!(refused.unwrap_err().kind(), Kind::Unsupported);
}

#[test]
fn fields_by_their_names() {
    let image = Image::create(&options(MIB, Subformat::MonolithicSparse), None);
    let writer = image.writer();
    writer.modify("adapterType", "ide").unwrap();
    writer.modify("CID", "12ab").unwrap();
    writer.modify("ddb.toolsVersion", "10272").unwrap();
    writer.modify("zeroed_grain", "on").unwrap();
    let descriptor = image.descriptor();
    assert_eq!(descriptor.text("ddb.adapterType").unwrap(), "ide");
    assert_eq!(descriptor.text("ddb.toolsVersion").unwrap(), "10272");
    assert_eq!(descriptor.cid, Some(0x12ab));
    assert_eq!(image.world.images()[0][4..12], [2, 0, 0, 0, 7, 0, 0, 0]);
    let refused = writer.modify("createType", "vmfs").unwrap_err();
    assert_eq!(refused.kind(), Kind::NotFound);
    assert!(refused.advice().unwrap().contains("adapterType"));
    for (field, value) in [
        ("adapterType", "sata"),
        ("CID", "ffffffff"),
        ("CID", "x"),
        ("comment", "a\"b"),
        ("thin", "2"),
    ] {
        assert_eq!(writer.modify(field, value).unwrap_err().kind(), Kind::Invalid, "{field}");
    }
}

#[test]
fn everything_a_delta_holds_so_that_it_reads_as_its_parent() {
    let size = 2 * MIB + 512;
    for kind in [
        Subformat::MonolithicSparse,
        Subformat::TwoGbMaxExtentSparse,
        Subformat::VmfsSparse,
        Subformat::SeSparse,
    ] {
        let parent = Some(parent_record("00c0ffee", size));
        let base = noise(size, 8);
        let options = CreateOptions { parent, ..options(size, kind) };
        let image = Image::create(&options, Some(MemoryDisk::open("base", base.clone())));
        let empty: Vec<usize> = image.world.images().iter().map(Vec::len).collect();
        let mut model = Model::of(base.clone(), 77);
        let writer = image.writer();
        model.run(&writer, 80, None);
        writer.empty().unwrap();
        let mut model = Model::of(base.clone(), 78);
        model.verify(&writer);
        model.verify(&*image.read());
        let now: Vec<usize> = image.world.images().iter().map(Vec::len).collect();
        assert!(now[0] <= empty[0], "{kind:?}: {now:?} {empty:?}");
        model.run(&writer, 80, None);
        writer.close().unwrap();
        model.verify(&*image.read());
        assert_eq!(image.damage(&image.world.images()), []);
    }
    let flat = Image::create(&options(MIB, Subformat::MonolithicFlat), None);
    assert_eq!(flat.writer().empty().unwrap_err().kind(), Kind::Unsupported);
}

#[test]
fn the_size() {
    let start = MIB + 3 * 512;
    let mut all = vec![
        options(start, Subformat::MonolithicSparse),
        options(start, Subformat::MonolithicFlat),
        options(start, Subformat::TwoGbMaxExtentSparse),
        options(start, Subformat::TwoGbMaxExtentFlat),
        options(start, Subformat::Vmfs),
    ];
    all.push(CreateOptions { grain_bytes: Some(4096), ..all[0].clone() });
    let parent = Some(parent_record("00c0ffee", start));
    all.push(CreateOptions { parent, ..options(start, Subformat::VmfsSparse) });
    for options in all {
        let base = if options.parent.is_some() { noise(start, 4) } else { vec![0; start] };
        let parent = options.parent.as_ref().map(|_| MemoryDisk::open("base", base.clone()));
        let image = Image::create(&options, parent);
        let mut model = Model::of(base, 21);
        let writer = image.writer();
        model.run(&writer, 40, None);
        // Within a table, past it, and past the directory of the small grains.
        let far = if options.subformat.word().contains("parse") { 300 * MIB } else { 44 * MIB };
        for size in [start + 9 * 512, 3 * MIB, 40 * MIB, far] {
            writer.resize(size as u64).unwrap_or_else(|error| panic!("{options:?}: {error:?}"));
            if size > 3 * MIB {
                assert_eq!(writer.size_bytes(), size as u64);
                writer.write_at(b"end", size as u64 - 3).unwrap();
                continue;
            }
            model.resize(size);
            model.verify(&writer);
            model.run(&writer, 40, None);
        }
        writer.close().unwrap();
        assert_eq!(image.damage(&image.world.images()), [], "{options:?}");
        let read = image.read();
        assert_eq!(read.read_vec(far as u64 - 4, 4).unwrap(), b"\0end");
        assert_eq!(read.read_vec(40 * MIB as u64 - 3, 5).unwrap(), b"end\0\0");
        let front = read.read_vec(0, 3 * MIB).unwrap();
        assert!(front == model.bytes(), "{options:?}");
        let text = text(&image);
        let cylinders = format!("cylinders = \"{}\"", far / 512 / 255 / 63);
        assert!(text.contains(&cylinders), "{text}");
    }
}

#[test]
fn the_size_downwards_only_where_zeros_are_cut_off_a_flat_disk() {
    let image = Image::create(&options(2 * MIB, Subformat::MonolithicFlat), None);
    let writer = image.writer();
    writer.write_at(&[9], MIB as u64).unwrap();
    assert_eq!(writer.resize(MIB as u64).unwrap_err().kind(), Kind::Invalid);
    writer.write_zeroes(MIB as u64..MIB as u64 + 1).unwrap();
    writer.resize(MIB as u64).unwrap();
    writer.close().unwrap();
    assert_eq!(image.read().size_bytes(), MIB as u64);
    assert_eq!(image.world.images()[0].len(), MIB);
    let sparse = Image::create(&options(2 * MIB, Subformat::MonolithicSparse), None);
    assert_eq!(sparse.writer().resize(MIB as u64).unwrap_err().kind(), Kind::Unsupported);
    assert_eq!(sparse.writer().resize(MIB as u64 + 1).unwrap_err().kind(), Kind::Invalid);
}

#[test]
fn a_split_disk_by_more_pieces() {
    const PIECE: u64 = 4_192_256 * 512;
    let image = Image::create(&options(MIB, Subformat::TwoGbMaxExtentSparse), None);
    let refused = image.writer().resize(2 * PIECE + 512).unwrap_err();
    assert!(refused.advice().unwrap().contains("extend"));
    image.writer().extend(2 * PIECE + 512, &mut |name| Ok(image.add(name))).unwrap();
    assert_eq!(image.names.borrow()[2..], ["disk-s002.vmdk", "disk-s003.vmdk"]);
    let writer = image.writer();
    assert_eq!(writer.size_bytes(), 2 * PIECE + 512);
    writer.write_at(b"over the edge", 2 * PIECE - 5).unwrap();
    writer.close().unwrap();
    assert_eq!(image.read().read_vec(2 * PIECE - 6, 15).unwrap(), b"\0over the edge\0");
    assert_eq!(image.damage(&image.world.images()), []);
}
