//! Programs that keep track of files by inode and time find the same files again after a remount.
//!
//! They are fetched by nobody: `apt install rsync restic`, then
//! `cargo test -p adit-fuse --test tools -- --ignored`.

mod common;

use adit_testkit::Vmfs as Maker;
use adit_testkit::vmfs::Entry;
use common::*;

fn tree() -> Volume {
    let mut maker = Maker::six();
    for folder in 0..8 {
        for file in 0..40u64 {
            let size = usize::try_from(file * 1500).unwrap();
            let path = format!("folder{folder}/file {file:02}");
            maker = maker.with(Entry::file(path, noise(size, file + folder)));
        }
        maker = maker.symlink(format!("folder{folder}/link"), "file 01");
    }
    let pieces = [(3u64 << 20, noise(9000, 1))];
    Volume::of(&maker.with(Entry::sparse("folder0/sparse", 64 << 20, &pieces)))
}

#[test]
#[ignore = "needs rsync"]
fn rsync_copies_a_tree_and_finds_nothing_new_after_a_remount() {
    let volume = tree();
    let out = tempfile::tempdir().unwrap();
    let rsync = |here: &Here| {
        let script = format!(
            "rsync -aS --exclude '*.sf' --chmod=u+w --stats ./ {}/ | \
             awk -F': ' '/regular files transferred/ {{ print $2 }}'",
            out.path().display()
        );
        shell(here.path(), &script).trim().to_owned()
    };
    let first = volume.mount(&options());
    assert_eq!(rsync(&first), "321");
    shell(first.path(), &format!("diff -r --exclude='*.sf' . {}", out.path().display()));
    drop(first);
    assert_eq!(rsync(&volume.mount(&options())), "0");
}

#[test]
#[ignore = "needs restic"]
fn restic_reads_no_file_again_after_a_remount() {
    let volume = tree();
    let home = tempfile::tempdir().unwrap();
    let mnt = tempfile::tempdir().unwrap();
    let restic = |command: &str| {
        let script = format!(
            "export RESTIC_PASSWORD=x RESTIC_REPOSITORY={0}/repo RESTIC_CACHE_DIR={0}/cache\n{command}",
            home.path().display()
        );
        shell(mnt.path(), &script)
    };
    restic("restic -q init");
    let backup = || {
        // A parent snapshot is looked for by path, so both mounts are in one place.
        let source = adit_fuse::Source::Files(volume.open());
        let mounted = adit_fuse::mount(source, mnt.path(), &options()).unwrap();
        let command = "restic backup --exclude '*.sf' . --json | tail -n 1";
        let summary = restic(command);
        mounted.unmount().unwrap();
        summary
    };
    assert!(backup().contains("\"files_new\":321"));
    let again = backup();
    assert!(again.contains("\"files_unmodified\":321"), "{again}");
    assert!(again.contains("\"files_changed\":0"), "{again}");
    let found = restic("restic -q check --read-data && restic dump latest / --archive tar | wc -c");
    assert!(found.trim().parse::<u64>().unwrap() > 64 << 20, "{found}");
}
