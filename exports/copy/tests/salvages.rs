//! Salvage copies what can be read and says what cannot, to the sector.

mod doubles;

use adit_copy::{CopyOptions, LossMap, Source, copy_file};
use adit_core::{Disk, DiskExt, Interrupt, Kind, Quiet};
use doubles::{Fake, What, names};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

const MIB: u64 = 1 << 20;

fn salvage() -> CopyOptions {
    CopyOptions { salvage: true, ..CopyOptions::default() }
}

fn copy(
    fake: Fake,
    path: &Path,
    options: &CopyOptions,
) -> adit_core::Result<(adit_copy::FileEntry, adit_copy::Copied)> {
    let disk: Arc<dyn Disk> = Arc::new(fake);
    let source = Source::whole(disk, "lun.img//web01.vmdk");
    copy_file(&source, path, options, &Quiet, &Interrupt::default())
}

fn damaged() -> Fake {
    Fake {
        bad: vec![5000..5001, 2 * MIB + 512..2 * MIB + 2048],
        ..Fake::of(vec![
            (3 * MIB, What::Data),
            (MIB, What::Lost("member 2 is missing")),
            (MIB, What::Hole),
            (700, What::Data),
        ])
    }
}

#[test]
fn only_the_sectors_that_fail_are_lost() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("copy");
    let (entry, copied) = copy(damaged(), &path, &salvage()).unwrap();
    assert!(copied.partial());
    let spans: Vec<_> = entry.lost.iter().map(|l| (l.offset, l.length, l.kind.as_str())).collect();
    assert_eq!(spans, [(4608, 512, "io"), (2 * MIB + 512, 1536, "io"), (3 * MIB, MIB, "lost")]);
    assert_eq!(entry.lost[2].reason, "member 2 is missing");
    let mut expected = Fake { bad: vec![], ..damaged() }.content();
    expected[4608..5120].fill(0);
    expected[2 * MIB as usize + 512..2 * MIB as usize + 2048].fill(0);
    assert!(std::fs::read(&path).unwrap() == expected);
    assert_eq!(entry.copied_bytes + entry.hole_bytes + entry.lost_bytes, entry.size_bytes);
}

#[test]
fn losses_are_listed_beside_the_copy_and_are_holes_in_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("copy");
    copy(damaged(), &path, &salvage()).unwrap();
    assert_eq!(names(folder.path()), ["copy", "copy.lost.json"]);
    let text = std::fs::read(folder.path().join("copy.lost.json")).unwrap();
    let map: LossMap = serde_json::from_slice(&text).unwrap();
    assert_eq!((map.schema.as_str(), map.version, map.lost.len()), ("adit-lost", 1, 3));
    assert_eq!(map.lost_bytes, 512 + 1536 + MIB);
    assert!(std::fs::metadata(&path).unwrap().blocks() * 512 <= 3 * MIB + 4096);
}

#[test]
fn without_salvage_a_known_loss_is_refused_before_anything_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("copy");
    let fake = Arc::new(Fake { bad: vec![], ..damaged() });
    let source = Source::whole(Arc::clone(&fake) as Arc<dyn Disk>, "x");
    let options = CopyOptions::default();
    let error = copy_file(&source, &path, &options, &Quiet, &Interrupt::default()).unwrap_err();
    assert_eq!((error.kind(), error.place().unwrap().byte), (Kind::Lost, Some(3 * MIB)));
    assert!(error.advice().unwrap().contains("--salvage"));
    assert!(names(folder.path()).is_empty() && fake.bytes_read() == 0);
}

#[test]
fn without_salvage_the_first_failed_read_ends_the_copy_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let fake = Fake::of(vec![(3 * MIB, What::Data)]).bad_at(MIB..MIB + 1);
    let error = copy(fake, &folder.path().join("copy"), &CopyOptions::default()).unwrap_err();
    assert_eq!(error.kind(), Kind::Io);
    assert!(names(folder.path()).is_empty());
}

#[test]
fn a_range_whose_translation_fails_is_lost_to_its_exact_end() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("copy");
    let pieces = vec![(MIB, What::Data), (7 * MIB + 333, What::Unmapped), (5 * MIB, What::Data)];
    let fake = Fake::of(pieces.clone());
    let size = fake.size_bytes();
    let (entry, _) = copy(fake, &path, &salvage()).unwrap();
    let spans: Vec<_> = entry.lost.iter().map(|l| (l.offset, l.length)).collect();
    assert_eq!(spans, [(MIB, 7 * MIB + 333)]);
    assert_eq!(entry.lost[0].problem, "bad-checksum");
    assert_eq!((entry.size_bytes, entry.copied_bytes), (size, 6 * MIB));
    assert!(std::fs::read(&path).unwrap() == Fake::of(pieces).content());
}

#[test]
fn terabytes_that_cannot_be_translated_are_given_up_soon() {
    let folder = tempfile::tempdir().unwrap();
    let fake = Fake::of(vec![(10 << 40, What::Unmapped), (MIB, What::Data)]);
    let begin = std::time::Instant::now();
    let (entry, _) = copy(fake, &folder.path().join("copy"), &salvage()).unwrap();
    assert!(begin.elapsed() < std::time::Duration::from_secs(5));
    assert_eq!((entry.lost_bytes, entry.copied_bytes), (10 << 40, MIB));
}

#[test]
fn a_disk_with_every_other_sector_bad_still_gives_the_others() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("copy");
    let bad: Vec<_> = (0..64).map(|i| i * 1024..i * 1024 + 512).collect();
    let fake = Fake { bad, ..Fake::of(vec![(64 * 1024, What::Data)]) };
    let content = fake.content();
    let (entry, _) = copy(fake, &path, &salvage()).unwrap();
    assert_eq!((entry.lost.len(), entry.lost_bytes), (64, 32 * 1024));
    assert!(std::fs::read(&path).unwrap() == content);
}

#[test]
fn a_salvaged_and_verified_copy_is_hashed_with_zeros_for_what_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("copy");
    let options = CopyOptions { verify: true, ..salvage() };
    let (entry, _) = copy(damaged(), &path, &options).unwrap();
    assert_eq!(entry.sha256.unwrap(), doubles::sha256sum(&path));
}
