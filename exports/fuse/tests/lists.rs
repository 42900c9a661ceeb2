//! What the kernel lists and says about files.

mod common;

use adit_core::{FileSystem, Kind};
use adit_fuse::{MountOptions, Owner, Source};
use adit_testkit::Vmfs as Maker;
use adit_testkit::vmfs::Entry;
use common::*;
use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::Ordering;

/// 3,000 files in 30 folders, a link in each.
fn wide() -> Maker {
    let mut maker = Maker::six();
    for folder in 0..30 {
        for file in 0..100 {
            let path = format!("folder{folder:02}/file {file:03}.txt");
            maker = maker.file(path, format!("{folder} {file}\n"));
        }
        maker = maker.symlink(format!("folder{folder:02}/link"), "file 000.txt");
    }
    maker.file("café ☕.vmx", "x").file("-dash\nnewline", "y")
}

#[test]
fn every_entry_is_listed_with_the_inode_stat_gives_it() {
    let volume = Volume::of(&wide());
    let here = volume.mount(&options());
    // `ls -i` and scandir tell what the directory says, stat what the node says.
    let program = r#"
import os, sys
seen = 0
def walk(path):
    global seen
    entries = [(e.name, e.inode(), e.is_dir(follow_symlinks=False)) for e in os.scandir(path)]
    for name, inode, is_dir in entries:
        full = os.path.join(path, name)
        assert os.lstat(full).st_ino == inode, (full, inode, os.lstat(full).st_ino)
        assert is_dir == os.path.isdir(full) or os.path.islink(full)
        seen += 1
        if is_dir: walk(full)
walk('.')
assert os.stat('.').st_ino == 1
print(seen)
"#;
    let seen: u64 = python(here.path(), program).trim().parse().unwrap();
    let listed = "ls -1i -Q -A folder07 | sort -n";
    let stated = "cd folder07 && stat -c '%i \"%n\"' * | sort -n";
    let trim = |text: String| -> Vec<String> { text.lines().map(|l| l.trim().into()).collect() };
    assert_eq!(trim(shell(here.path(), listed)), trim(shell(here.path(), stated)));
    // The system files of the root come on top of what was made.
    let system = shell(here.path(), "ls -A | grep -c '\\.sf$'").trim().parse::<u64>().unwrap();
    assert_eq!(seen, 30 * 101 + 30 + 2 + system);
    assert!(shell(here.path(), "ls -A").contains("café ☕.vmx"));
    assert_eq!(here.mounted.incident_count(), 0, "{:?}", here.mounted.incidents());
}

#[test]
fn inodes_sizes_times_and_modes_are_the_same_after_a_remount() {
    let volume = Volume::of(&wide());
    let list = |here: &Here| {
        shell(
            here.path(),
            "find . -printf '%i %y %s %b %m %n %U %G %T@ %C@ %A@ %l %p\\0' | sort -z",
        )
    };
    let first = volume.mount(&options());
    let before = list(&first);
    first.mounted.unmount().unwrap();
    let second = volume.mount(&options());
    assert_eq!(before, list(&second));
    assert!(before.matches('\0').count() > 3000);
}

#[test]
fn stat_says_what_the_maker_wrote() {
    let maker = Maker::six()
        .with(Entry::file("run.sh", vec![7; 3000]).mode(0o4755).owner(1000, 1001).times(
            1_600_000_001,
            1_600_000_002,
            1_600_000_003,
        ))
        .with(Entry::sparse("big.vmdk", 42 << 40, &[(1u64 << 41, b"x")]))
        .with(Entry::dir("dir").mode(0o1777))
        .symlink("link", "dir/../run.sh")
        .rdm("rdm.vmdk", 8 << 30);
    let volume = Volume::of(&maker);
    let here = volume.mount(&MountOptions { owner: Some(Owner::Stored), ..options() });
    let stat =
        |name: &str| shell(here.path(), &format!("stat -c '%F %a %u %g %s %X %Y %Z' {name}"));
    assert_eq!(
        stat("run.sh").trim(),
        "regular file 4555 1000 1001 3000 1600000003 1600000001 1600000002"
    );
    assert!(stat("big.vmdk").contains(&(42u64 << 40).to_string()));
    assert!(stat("dir").starts_with("directory 1555 "));
    assert!(stat("rdm.vmdk").starts_with("regular file "));
    assert_eq!(shell(here.path(), "readlink link").trim(), "dir/../run.sh");
    assert_eq!(shell(here.path(), "sha256sum < link"), shell(here.path(), "sha256sum < run.sh"));
    let blocks: u64 = shell(here.path(), "stat -c %b big.vmdk").trim().parse().unwrap();
    assert_eq!(blocks, MIB / 512);
    let inside = std::fs::metadata(here.path().join("big.vmdk")).unwrap();
    assert_eq!((inside.nlink(), inside.mode() & 0o222), (1, 0));
    // A raw device mapping has no bytes here: that is said, not shown as an empty file.
    let error = std::fs::read(here.path().join("rdm.vmdk")).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(95), "{error}");
}

#[test]
fn files_belong_to_whom_the_options_say() {
    let volume = Volume::of(&Maker::six().with(Entry::file("f", "x").owner(7, 8)));
    let owner = |owner| {
        let here = volume.mount(&MountOptions { owner, ..options() });
        let file = std::fs::metadata(here.path().join("f")).unwrap();
        (file.uid(), file.gid())
    };
    let me = rustix::process::geteuid().as_raw();
    assert_eq!(owner(Some(Owner::Stored)), (7, 8));
    assert_eq!(owner(Some(Owner::Fixed { uid: 5, gid: 6 })), (5, 6));
    assert_eq!(owner(Some(Owner::MountingUser)).0, me);
    assert_eq!(owner(None).0, if me == 0 { 7 } else { me });
}

#[test]
fn a_folder_can_be_mounted_alone_and_is_above_itself() {
    let volume = Volume::of(&wide());
    let fs = volume.open();
    let name = adit_core::Name::new("folder03").unwrap();
    let folder = fs.lookup(fs.root(), &name).unwrap();
    let here = here(Source::Folder { fs, folder }, &options());
    assert_eq!(shell(here.path(), "ls | wc -l").trim(), "101");
    assert_eq!(shell(here.path(), "cat 'file 042.txt'"), "3 42\n");
    assert_eq!(shell(here.path(), "stat -c %i .").trim(), "1");
    let dots = python(here.path(), "import os; print(os.stat('.').st_dev != os.stat('..').st_dev)");
    assert_eq!(dots.trim(), "True");
}

#[test]
fn a_file_system_says_how_full_it_is() {
    let volume = Volume::of(&wide());
    let space = volume.open().space().unwrap();
    let here = volume.mount(&options());
    let program = "import os; s = os.statvfs('.'); print(s.f_frsize * s.f_blocks, s.f_frsize * s.f_bfree, s.f_files, s.f_ffree)";
    let expected = format!(
        "{} {} {} {}",
        space.total_bytes, space.free_bytes, space.nodes_total, space.nodes_free
    );
    assert_eq!(python(here.path(), program).trim(), expected);
}

#[test]
fn attributes_tell_where_a_file_comes_from() {
    let volume = Volume::of(&wide());
    let here = volume.mount(&options());
    let program = r#"
import os
for name in os.listxattr('folder01/file 001.txt'):
    print(name + '=' + os.getxattr('folder01/file 001.txt', name).decode())
"#;
    let text = python(here.path(), program);
    let found: BTreeMap<&str, &str> = text.lines().filter_map(|l| l.split_once('=')).collect();
    assert_eq!(found["user.adit.source"], "lun.img//p1");
    assert!(found["user.adit.format"].starts_with("VMFS 6"), "{text}");
    assert!(found["user.adit.fd_address"].starts_with("0x"), "{text}");
    assert!(found.contains_key("user.adit.node"));
    let absent =
        "import os\ntry: os.getxattr('.', 'user.other')\nexcept OSError as e: print(e.errno)";
    assert_eq!(python(here.path(), absent).trim(), "61");
    let small = "import os; print(len(os.listxattr('.')) > 3)";
    assert_eq!(python(here.path(), small).trim(), "True");

    let plain = volume.mount(&MountOptions { provenance: false, ..options() });
    assert_eq!(python(plain.path(), "import os; print(os.listxattr('.'))").trim(), "[]");
}

#[test]
fn a_directory_of_100_000_entries_is_read_once_from_front_to_back() {
    let many = Many::new(100_000, 1000, None);
    let here = here(Source::Files(many.clone()), &options());
    let names = shell(here.path(), "ls -f | grep -c ^f");
    assert_eq!(names.trim(), "100000");
    let pages = many.pages_read.load(Ordering::SeqCst);
    assert_eq!(pages, 100);
    // `.` and `..` are there once each, and every name once.
    let distinct = "import os; n = os.listdir('.'); print(len(n), len(set(n)))";
    assert_eq!(python(here.path(), distinct).trim(), "100000 100000");
}

#[test]
fn a_place_in_a_listing_can_be_come_back_to() {
    let many = Many::new(5000, 700, None);
    let here = here(Source::Files(many), &options());
    let program = r#"
opendir(my $d, ".") or die; my (@names, @at);
while (1) { push @at, telldir $d; my $n = readdir $d; last unless defined $n; push @names, $n; }
die scalar @names unless @names == 5002 && $names[0] eq "." && $names[1] eq "..";
for my $i (reverse map { $_ * 37 } 0 .. 135) {
    seekdir $d, $at[$i]; my $n = readdir $d;
    die "$i: $n instead of $names[$i]" unless $n eq $names[$i];
}
print "ok";
"#;
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), program).unwrap();
    let script = format!("perl {}", file.path().display());
    assert_eq!(shell(here.path(), &script), "ok");
}

#[test]
fn a_damaged_directory_lists_what_is_sound_and_then_fails() {
    let many = Many::new(3000, 500, Some(1234));
    let here = here(Source::Files(many), &options());
    let output = run(here.path(), "ls -f");
    let names = String::from_utf8_lossy(&output.stdout);
    assert_eq!(names.lines().filter(|name| name.starts_with('f')).count(), 2999);
    assert!(!output.status.success());
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("Input/output error"), "{text}");
    let incidents = here.mounted.incidents();
    let found = incidents.iter().find(|i| i.error.detail() == "entry 1234 is damaged").unwrap();
    assert_eq!((found.action, found.error.kind()), ("list", Kind::Corrupt));
}

#[test]
fn a_name_is_asked_for_once_be_it_there_or_not() {
    let many = Many::new(10, 10, None);
    let here = here(Source::Files(many.clone()), &options());
    for _ in 0..5 {
        let error = std::fs::metadata(here.path().join("f99")).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
        std::fs::metadata(here.path().join("f000003")).unwrap();
    }
    assert_eq!(many.lookups.load(Ordering::SeqCst), 2);
    assert_eq!(here.mounted.incident_count(), 0);
}

#[test]
fn a_listing_brings_what_stat_asks_for() {
    let many = Many::new(2000, 100, None);
    let here = here(Source::Files(many.clone()), &options());
    let listed = "import os; print(sum(e.stat().st_size == 0 for e in os.scandir('.')))";
    assert_eq!(python(here.path(), listed).trim(), "2000");
    let lookups = many.lookups.load(Ordering::SeqCst);
    assert!(lookups < 200, "{lookups} lookups for 2000 files");
}
