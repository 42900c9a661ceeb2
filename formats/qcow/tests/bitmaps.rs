//! QCOW2 keeps dirty bitmaps…

mod common;

use adit_core::{Limits, MemoryDisk, WritableDisk, WritableImage};
use adit_qcow::{CreateOptions, Image};
use adit_testkit::World;
use common::Folder;
use common::writing::{NAME, closed, findings, made, opened, sound};
use std::ops::Range;

const SIZE: u64 = 9 << 20;

fn options() -> CreateOptions {
    CreateOptions { size_bytes: SIZE, ..CreateOptions::default() }
}

fn image_of(bytes: &[u8]) -> Image {
    Image::open(MemoryDisk::open(NAME, bytes.to_vec()), &Limits::default()).unwrap()
}

/// The dirty ranges of a bitmap; nothing if it cannot be believed.
fn dirty(image: &Image, name: &str) -> Option<Vec<Range<u64>>> {
    let bitmaps = image.bitmaps().unwrap();
    let bitmap = bitmaps.iter().find(|it| it.name == name.as_bytes()).unwrap();
    let mut found = Vec::new();
    image.dirty(bitmap, &mut |range| found.push(range)).ok().map(|()| found)
}

/// The same as QEMU sees it: it merges the bitmap into a new one.
fn dirty_by_qemu(image: &[u8], name: &str, granularity: u64) -> Vec<Range<u64>> {
    let folder = Folder::new();
    folder.write(NAME, image);
    folder.qemu_img(&format!("bitmap --add -g {granularity} --merge {name} {NAME} theirs"));
    folder.qemu_img(&format!("check {NAME}"));
    dirty(&folder.image(NAME), "theirs").unwrap()
}

#[test]
fn of_what_is_written_zeroed_and_discarded_while_they_are_enabled() {
    for (cluster_bytes, granularity) in [(65536, 65536), (512, 512), (4096, 1 << 20)] {
        let world = made(&CreateOptions { cluster_bytes, ..options() });
        let writer = opened(&world);
        writer.write_at(&[1; 100], 0).unwrap();
        writer.add_bitmap("it", granularity, true).unwrap();
        writer.add_bitmap("off", granularity, false).unwrap();
        writer.write_at(&[1; 1000], (1 << 20) + 100).unwrap();
        writer.write_at(&[1; 70_000], 3 << 20).unwrap();
        writer.write_zeroes(5 << 20..6 << 20).unwrap();
        writer.discard(0..1).unwrap();
        assert_eq!(dirty(&image_of(&world.images()[0]), "it"), None, "in use");
        closed(&writer);
        let around = |range: Range<u64>| {
            range.start / granularity * granularity..range.end.div_ceil(granularity) * granularity
        };
        let mib = 1 << 20;
        let mut truth = vec![
            around(0..1),
            around(mib + 100..mib + 1100),
            around(3 * mib..3 * mib + 70_000),
            around(5 * mib..6 * mib),
        ];
        if truth[0].end == truth[1].start {
            truth[0].end = truth.remove(1).end;
        }
        // What is written again in another session is added.
        writer.write_at(&[2; 512], 8 << 20).unwrap();
        closed(&writer);
        truth.push(around(8 * mib..8 * mib + 512));
        let bytes = world.images().remove(0);
        assert_eq!(dirty(&image_of(&bytes), "it").as_ref(), Some(&truth), "{cluster_bytes}");
        assert_eq!(dirty(&image_of(&bytes), "off"), Some(vec![]), "{cluster_bytes}");
        assert_eq!(dirty_by_qemu(&bytes, "it", granularity), truth, "{cluster_bytes}");
        assert_eq!(findings(&bytes), [], "{cluster_bytes}");
    }
}

#[test]
fn that_are_added_cleared_disabled_and_removed() {
    let world = made(&options());
    let writer = opened(&world);
    writer.add_bitmap("one", 65536, true).unwrap();
    writer.add_bitmap("two", 65536, true).unwrap();
    assert_eq!(writer.add_bitmap("two", 65536, true).unwrap_err().kind().word(), "invalid");
    assert_eq!(writer.add_bitmap("x", 1000, true).unwrap_err().kind().word(), "invalid");
    writer.write_at(&[1; 512], 1 << 20).unwrap();
    writer.enable_bitmap("two", false).unwrap();
    writer.write_at(&[1; 512], 2 << 20).unwrap();
    closed(&writer);
    let cluster = |index: u64| index << 20..(index << 20) + 65536;
    let image = image_of(&world.images()[0]);
    assert_eq!(dirty(&image, "one"), Some(vec![cluster(1), cluster(2)]));
    assert_eq!(dirty(&image, "two"), Some(vec![cluster(1)]));
    writer.clear_bitmap("one").unwrap();
    writer.enable_bitmap("two", true).unwrap();
    writer.write_at(&[1; 512], 3 << 20).unwrap();
    closed(&writer);
    let image = image_of(&world.images()[0]);
    assert_eq!(dirty(&image, "one"), Some(vec![cluster(3)]));
    assert_eq!(dirty(&image, "two"), Some(vec![cluster(1), cluster(3)]));
    writer.remove_bitmap("one").unwrap();
    assert_eq!(writer.clear_bitmap("one").unwrap_err().kind().word(), "not-found");
    writer.write_at(&[1; 512], 4 << 20).unwrap();
    closed(&writer);
    let bytes = world.images().remove(0);
    assert_eq!(dirty(&image_of(&bytes), "two"), Some(vec![cluster(1), cluster(3), cluster(4)]));
    assert_eq!(findings(&bytes), []);
    writer.remove_bitmap("two").unwrap();
    closed(&writer);
    let folder = Folder::new();
    folder.write(NAME, &world.images()[0]);
    folder.qemu_img(&format!("check {NAME}"));
    assert_eq!(findings(&world.images()[0]), []);
}

#[test]
fn of_qemu_up_to_date_and_marks_those_it_cannot_keep() {
    let folder = Folder::new();
    folder.qemu_img(&format!("create -q -f qcow2 {NAME} 4M"));
    folder.qemu_img(&format!("bitmap --add {NAME} on"));
    folder.qemu_img(&format!("bitmap --add --disable {NAME} off"));
    folder.qemu_io(NAME, &["write 0 64k"]);
    let world = World::of(vec![folder.read(NAME)]);
    let writer = opened(&world);
    writer.write_at(&[1; 512], 1 << 20).unwrap();
    closed(&writer);
    let image = image_of(&world.images()[0]);
    assert_eq!(dirty(&image, "on"), Some(vec![0..65536, 1 << 20..(1 << 20) + 65536]));
    assert_eq!(dirty(&image, "off"), Some(vec![]));
    // After a change of size their tables are too short or too long.
    writer.resize(5 << 20).unwrap();
    closed(&writer);
    let bytes = world.images().remove(0);
    assert_eq!((dirty(&image_of(&bytes), "on"), dirty(&image_of(&bytes), "off")), (None, None));
    writer.clear_bitmap("off").unwrap();
    closed(&writer);
    folder.write(NAME, &world.images()[0]);
    folder.qemu_img(&format!("check {NAME}"));
}

#[test]
fn and_after_a_power_cut_says_that_they_cannot_be_believed_or_is_right() {
    let world = made(&CreateOptions { cluster_bytes: 4096, ..options() });
    let writer = opened(&world);
    writer.write_at(&[1; 512], 0).unwrap();
    closed(&writer);
    world.settle();
    writer.add_bitmap("it", 65536, true).unwrap();
    writer.write_at(&[2; 512], 1 << 20).unwrap();
    writer.flush().unwrap();
    writer.write_at(&[3; 512], 2 << 20).unwrap();
    writer.close().unwrap();
    let mut believed = 0;
    for cut in world.cuts(1, 50) {
        sound(&cut.images, &cut.label);
        let image = image_of(&cut.images[0]);
        if image.bitmaps().unwrap().is_empty() {
            continue;
        }
        // Believed with nothing in it would lose a change; so only what is complete may be.
        if let Some(found) = dirty(&image, "it") {
            believed += 1;
            let cluster = |index: u64| index << 20..(index << 20) + 65536;
            assert_eq!(found, [cluster(1), cluster(2)], "{}", cut.label);
        }
    }
    assert!(believed > 0);
}
