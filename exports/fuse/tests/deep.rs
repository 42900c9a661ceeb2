//! Disk files that can be entered: `NAME.d` beside `NAME`.

mod common;

use adit_core::{Error, MemoryDisk, Problem, Result};
use adit_fuse::{FileAt, Inside, Level, MountOptions, NamedDisk, Source};
use adit_testkit::Vmfs as Maker;
use common::*;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Knows `web/disk.img`, a disk with one partition, and in that partition 2,500 files.
#[derive(Debug)]
struct Known {
    place: &'static str,
    entered: AtomicU64,
}

fn level(source: Source, place: &'static str) -> Level {
    let inside = Arc::new(Known { place, entered: AtomicU64::new(0) });
    Level { source, place: place.to_owned(), inside }
}

impl Inside for Known {
    fn enter(&self, file: &FileAt) -> Result<Option<Level>> {
        self.entered.fetch_add(1, Ordering::SeqCst);
        Ok(match (self.place, file.path.as_slice()) {
            ("lun", b"web/disk.img" | b"disk.img") => {
                let disk = MemoryDisk::open("disk", noise(9000, 4));
                let part = MemoryDisk::open("part", noise(4096, 5));
                let partitions = vec![NamedDisk { name: "part1.ext4".into(), disk: part }];
                Some(level(Source::Disk { disk, partitions }, "lun//disk"))
            }
            ("lun//disk", b"part1.ext4") => {
                Some(level(Source::Files(Many::new(2500, 100, None)), "lun//disk//p1"))
            }
            ("lun", b"web/broken.img") => {
                return Err(Error::corrupt(Problem::BadChecksum, "the header is damaged"));
            }
            _ => None,
        })
    }
}

fn volume() -> Volume {
    Volume::of(
        &Maker::six()
            .file("web/disk.img", "x")
            .file("web/broken.img", "x")
            .file("web/notes.txt", "y")
            .file("web/real.d/inside", "z")
            .file("web/real", "r")
            .file("disk.img", "other"),
    )
}

fn deep(volume: &Volume) -> Here {
    let level = level(Source::Files(volume.open()), "lun");
    here(Source::Deep(Box::new(level)), &options())
}

#[test]
fn what_a_disk_file_holds_is_beside_it_and_in_no_listing() {
    let volume = volume();
    let here = deep(&volume);
    assert_eq!(shell(here.path(), "ls web"), "broken.img\ndisk.img\nnotes.txt\nreal\nreal.d\n");
    assert_eq!(shell(here.path(), "ls web/disk.img.d"), "disk\npart1.ext4\n");
    let part = std::fs::read(here.path().join("web/disk.img.d/part1.ext4")).unwrap();
    assert_eq!(part, noise(4096, 5));
    let whole = std::fs::File::open(here.path().join("web/disk.img.d/disk")).unwrap();
    let mut middle = [0; 100];
    whole.read_exact_at(&mut middle, 5000).unwrap();
    assert_eq!(middle, noise(9000, 4)[5000..5100]);
    assert_eq!(shell(here.path(), "ls web/disk.img.d/part1.ext4.d | wc -l").trim(), "2500");
    // `find` meets what is listed and nothing else.
    let found = shell(here.path(), "find . -name '*.ext4*' -o -name 'f0*' | wc -l");
    assert_eq!(found.trim(), "0");
    assert_eq!(shell(here.path(), "ls web"), "broken.img\ndisk.img\nnotes.txt\nreal\nreal.d\n");
    assert_eq!(here.mounted.incident_count(), 0, "{:?}", here.mounted.incidents());
}

#[test]
fn names_that_are_there_come_first_and_files_that_hold_nothing_known_have_none() {
    let volume = volume();
    let here = deep(&volume);
    assert_eq!(shell(here.path(), "cat web/real.d/inside"), "z");
    for none in ["web/notes.txt.d", "web/none.d", "web.d", ".d", "web/..d", "web/real.d.d"] {
        let error = std::fs::metadata(here.path().join(none)).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::NotFound, "{none}");
    }
    // One that is damaged is no name that is missing.
    let error = std::fs::metadata(here.path().join("web/broken.img.d")).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(5));
    assert_eq!(here.mounted.incidents()[0].error.detail(), "the header is damaged");
}

#[test]
fn inodes_of_all_levels_agree_differ_and_outlive_a_remount() {
    let volume = volume();
    let program = r#"
import os, sys
seen = {}
def walk(path):
    for e in list(os.scandir(path)):
        s = os.lstat(e.path)
        assert s.st_ino == e.inode(), e.path
        assert seen.setdefault(s.st_ino, e.path) == e.path, (e.path, seen[s.st_ino])
        if e.is_dir(follow_symlinks=False): walk(e.path)
        elif e.name.endswith(('.img', '.ext4')) and os.path.isdir(e.path + '.d'):
            seen[os.lstat(e.path + '.d').st_ino] = e.path + '.d'
            walk(e.path + '.d')
try: os.stat('web/broken.img.d')
except OSError: pass
os.path.isdir = lambda p, d=os.path.isdir: 'broken' not in p and d(p)
walk('.')
print(sorted((p, i) for i, p in seen.items()))
"#;
    let first = deep(&volume);
    let before = python(first.path(), program);
    assert!(before.matches("part1.ext4.d/f").count() == 2 * 2500, "{}", before.len());
    drop(first);
    assert_eq!(python(deep(&volume).path(), program), before);
}

#[test]
fn a_level_is_opened_once_leads_back_and_says_where_it_is() {
    let volume = volume();
    let inside = Arc::new(Known { place: "lun", entered: AtomicU64::new(0) });
    let (source, place) = (Source::Files(volume.open()), "lun".to_owned());
    let level = Level { source, place, inside: inside.clone() };
    let here = here(Source::Deep(Box::new(level)), &options());
    for _ in 0..3 {
        shell(
            here.path(),
            "ls web/disk.img.d/part1.ext4.d > /dev/null; cat web/disk.img.d/disk | wc -c",
        );
    }
    assert_eq!(inside.entered.load(Ordering::SeqCst), 1);
    // The kernel walks back by what it has seen; a handle may make it ask.
    let above = std::fs::metadata(here.path().join("web/disk.img.d/..")).unwrap();
    assert_eq!(above.ino(), std::fs::metadata(here.path().join("web")).unwrap().ino());
    let program = r#"
import os
print(os.getxattr('web/disk.img.d/part1.ext4', 'user.adit.source').decode())
print(os.getxattr('web/disk.img.d/part1.ext4.d/f000001', 'user.adit.source').decode())
print(os.getxattr('web/notes.txt', 'user.adit.source').decode())
"#;
    assert_eq!(python(here.path(), program), "lun//disk\nlun//disk//p1\nlun.img//p1\n");
}

#[test]
fn disks_of_a_level_can_be_read_by_others_only_if_the_mount_can() {
    let volume = volume();
    let mode = |allow_other| {
        let level = level(Source::Files(volume.open()), "lun");
        let options = MountOptions { allow_other, ..options() };
        let here = here(Source::Deep(Box::new(level)), &options);
        std::fs::metadata(here.path().join("web/disk.img.d/disk")).unwrap().mode() & 0o777
    };
    if rustix::process::geteuid().is_root() {
        assert_eq!(mode(true), 0o444);
    }
    assert_eq!(mode(false), 0o400);
}
