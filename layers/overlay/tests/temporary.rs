//! Temporary overlays: what is written is read back, what lies below is never touched.

mod doubles;

use adit_core::{Disk, DiskExt, ExtentKind, WritableDisk};
use adit_overlay::{BLOCK_BYTES, Temporary};
use adit_testkit::Model;
use doubles::Ram;
use std::sync::Arc;

#[test]
fn an_overlay_holds_what_a_plain_array_holds_and_the_disk_below_stays() {
    for (seed, size) in [(1, 2_000_000), (2, 4096 * 300), (3, 1_234_567), (4, 5000)] {
        let ram = Ram::new(size);
        let before = ram.bytes();
        let folder = tempfile::tempdir().unwrap();
        let overlay = Temporary::new(ram.clone(), folder.path()).unwrap();
        let mut model = Model::of(before.clone(), seed);
        for _ in 0..10 {
            model.run(&overlay, 60, None);
            model.verify(&overlay);
        }
        assert!(ram.bytes() == before, "seed {seed}");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "the file has no name");
    }
}

#[test]
fn a_byte_that_changes_stores_one_block() {
    let folder = tempfile::tempdir().unwrap();
    let overlay = Temporary::new(Ram::new(1 << 20), folder.path()).unwrap();
    overlay.write_at(&[1], 70_000).unwrap();
    assert_eq!(overlay.changed_bytes(), BLOCK_BYTES);
    overlay.write_at(&[2], 70_001).unwrap();
    assert_eq!(overlay.changed_bytes(), BLOCK_BYTES);
}

#[test]
fn extents_tell_changes_zeros_and_what_is_still_below() {
    let folder = tempfile::tempdir().unwrap();
    let ram = Ram::new(1 << 20);
    let overlay = Temporary::new(ram, folder.path()).unwrap();
    overlay.write_at(&[1; 8192], 65536).unwrap();
    overlay.write_zeroes(131072..262144).unwrap();
    let overlay: Arc<dyn Disk> = Arc::new(overlay);
    let mut seen = Vec::new();
    let mut at = 0;
    while at < 1 << 20 {
        let extent = overlay.extent_at(at).unwrap();
        let kind = match extent.kind {
            ExtentKind::Verbatim { .. } => "below",
            ExtentKind::Zero => "zero",
            _ => "data",
        };
        seen.push((extent.length, kind));
        at = extent.end();
    }
    let rest = (1 << 20) - 262144;
    assert_eq!(
        seen,
        [(65536, "below"), (8192, "data"), (57344, "below"), (131072, "zero"), (rest, "below")]
    );
}

#[test]
fn two_writers_in_one_block_lose_neither_of_their_bytes() {
    for round in 0..20u64 {
        let folder = tempfile::tempdir().unwrap();
        let overlay = Temporary::new(Ram::new(256 << 10), folder.path()).unwrap();
        std::thread::scope(|scope| {
            for thread in 0..4u64 {
                let overlay = &overlay;
                scope.spawn(move || {
                    for block in 0..64u64 {
                        let at = block * BLOCK_BYTES + thread * 1024;
                        overlay.write_at(&[(round + thread) as u8; 1024], at).unwrap();
                    }
                });
            }
        });
        for block in 0..64u64 {
            for thread in 0..4u64 {
                let at = block * BLOCK_BYTES + thread * 1024;
                assert_eq!(overlay.read_vec(at, 1024).unwrap(), [(round + thread) as u8; 1024]);
            }
        }
    }
}

#[test]
fn zeroing_beside_a_writer_of_the_same_block_wins_or_loses_whole() {
    for round in 0..200 {
        let folder = tempfile::tempdir().unwrap();
        let overlay = Temporary::new(Ram::new(64 << 10), folder.path()).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| overlay.write_at(&[9; 100], 4096 + 50).unwrap());
            scope.spawn(|| overlay.write_zeroes(0..16384).unwrap());
        });
        let now = overlay.read_vec(4096, 4096).unwrap();
        assert!(now[..50].iter().chain(&now[150..]).all(|&byte| byte == 0), "round {round}");
        assert!(now[50..150] == [9; 100] || now[50..150] == [0; 100], "round {round}");
    }
}

#[test]
fn a_disk_of_15_tib_costs_next_to_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let base = adit_core::Concat::open("huge", vec![adit_core::Piece::zero(15 << 40)]).unwrap();
    let overlay = Temporary::new(base, folder.path()).unwrap();
    overlay.write_at(&[5], (15 << 40) - 1).unwrap();
    assert_eq!(overlay.read_vec((15 << 40) - 2, 2).unwrap(), [0, 5]);
    let extent = overlay.extent_at(0).unwrap();
    assert_eq!(extent.length, (15 << 40) - BLOCK_BYTES);
}

#[test]
fn what_leaves_the_disk_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let overlay = Temporary::new(Ram::new(10_000), folder.path()).unwrap();
    assert!(overlay.write_at(&[0; 2], 9999).is_err());
    assert!(overlay.write_zeroes(0..10_001).is_err());
    #[allow(clippy::reversed_empty_ranges)]
    let backwards = overlay.write_zeroes(5..3);
    assert!(backwards.is_err());
    assert!(overlay.read_vec(9999, 2).is_err());
    overlay.write_at(&[], 10_000).unwrap();
}
