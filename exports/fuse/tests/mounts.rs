//! How a mount begins and ends.

mod common;

use adit_core::{Disk, Interrupt, Kind, MemoryDisk};
use adit_fuse::{MountOptions, Source, mount};
use adit_testkit::Vmfs as Maker;
use common::*;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

fn small() -> Volume {
    Volume::of(&Maker::six().file("web01/web01.vmx", "guestOS = \"debian12-64\"\n"))
}

fn is_mounted(dir: &Path) -> bool {
    let device = |dir: &Path| std::fs::metadata(dir).unwrap().dev();
    device(dir) != device(dir.parent().unwrap())
}

/// A mount's line of the kernel's table, which misses lines while others mount.
fn table_line(dir: &Path) -> String {
    for _ in 0..100 {
        let table = std::fs::read_to_string("/proc/self/mounts").unwrap();
        let found = table.lines().find(|line| line.split(' ').nth(1) == dir.to_str());
        if let Some(line) = found {
            return line.to_owned();
        }
    }
    panic!("{} is not in the table of mounts", dir.display());
}

fn memory() -> Source {
    Source::Disk { disk: MemoryDisk::open("memory", vec![7; 9000]), partitions: Vec::new() }
}

#[test]
fn a_mount_shows_what_it_is_and_cannot_be_written() {
    let volume = small();
    let here = volume.mount(&options());
    let line = table_line(here.path());
    assert!(line.starts_with("lun.img//p1 "), "{line}");
    assert!(line.contains(" fuse.adit ro,nosuid,nodev"), "{line}");
    assert!(!line.contains("allow_other"), "{line}");
    for refused in ["touch new", "rm web01/web01.vmx", "echo x >> web01/web01.vmx", "mkdir d"] {
        let output = run(here.path(), refused);
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(text.contains("Read-only file system"), "{refused}: {text}");
    }
    assert_eq!(shell(here.path(), "cat web01/web01.vmx"), "guestOS = \"debian12-64\"\n");
}

#[test]
fn others_may_look_only_when_asked_for_and_then_by_permission() {
    let volume = small();
    let here = volume.mount(&MountOptions { allow_other: true, ..options() });
    let line = table_line(here.path());
    assert!(line.contains("allow_other") && line.contains("default_permissions"), "{line}");
}

#[test]
fn unmounting_closes_the_source_and_can_be_repeated() {
    let disk: Arc<dyn Disk> = MemoryDisk::open("memory", vec![7; 9000]);
    let held = Arc::downgrade(&disk);
    let here = here(Source::Disk { disk, partitions: Vec::new() }, &options());
    assert_eq!(std::fs::read(here.path().join("disk")).unwrap(), vec![7; 9000]);
    assert!(is_mounted(here.path()));
    here.mounted.unmount().unwrap();
    assert!(!is_mounted(here.path()));
    assert!(held.upgrade().is_none());
    here.mounted.unmount().unwrap();
    here.mounted.detach().unwrap();
    here.mounted.wait().unwrap();
}

#[test]
fn dropping_unmounts_even_what_is_in_use() {
    let dir = tempfile::tempdir().unwrap();
    drop(mount(memory(), dir.path(), &options()).unwrap());
    assert!(!is_mounted(dir.path()));

    let mounted = mount(memory(), dir.path(), &options()).unwrap();
    let open = std::fs::File::open(dir.path().join("disk")).unwrap();
    drop(mounted);
    assert!(!is_mounted(dir.path()));
    drop(open);
}

#[test]
fn a_mount_in_use_stays_until_it_is_free() {
    let here = here(memory(), &options());
    let open = std::fs::File::open(here.path().join("disk")).unwrap();
    let error = here.mounted.unmount().unwrap_err();
    assert_eq!(error.kind(), Kind::Busy);
    assert!(error.advice().unwrap().contains("fuser -vm"), "{error:?}");
    assert_eq!(std::fs::read(here.path().join("disk")).unwrap().len(), 9000);
    drop(open);
    here.mounted.unmount().unwrap();
    assert!(!is_mounted(here.path()));
}

#[test]
fn waiting_ends_when_somebody_else_unmounts() {
    let here = here(memory(), &options());
    let interrupt = Interrupt::default();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| here.mounted.wait());
        std::thread::sleep(Duration::from_millis(50));
        let dir = here.path().display();
        shell(Path::new("/"), &format!("umount {dir} || fusermount3 -u {dir}"));
        waiting.join().unwrap().unwrap();
    });
    here.mounted.wait_unless(&interrupt).unwrap();
}

#[test]
fn waiting_ends_on_request_and_leaves_the_mount() {
    let here = here(memory(), &options());
    let interrupt = Interrupt::default();
    interrupt.raise();
    assert_eq!(here.mounted.wait_unless(&interrupt).unwrap_err().kind(), Kind::Interrupted);
    assert!(is_mounted(here.path()));
}

#[test]
fn a_source_that_hangs_holds_up_neither_unmounting_nor_its_readers() {
    let disk = Watched::open(MemoryDisk::open("memory", vec![7; 9000]));
    disk.hang(true);
    let source = Source::Disk { disk: disk.clone(), partitions: Vec::new() };
    let patience = Duration::from_millis(300);
    let here = here(source, &MountOptions { unmount_patience: patience, ..options() });
    let mut reader = Command::new("cat")
        .arg(here.path().join("disk"))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    while disk.reads.load(std::sync::atomic::Ordering::SeqCst) == 0 {
        std::thread::sleep(Duration::from_millis(5));
    }
    let start = Instant::now();
    assert_eq!(here.mounted.unmount().unwrap_err().kind(), Kind::Busy);
    here.mounted.detach().unwrap();
    assert!(!is_mounted(here.path()));
    assert!(!reader.wait().unwrap().success());
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    disk.hang(false);
}

#[test]
fn what_cannot_be_mounted_is_refused_with_advice() {
    let dir = tempfile::tempdir().unwrap();
    let missing = mount(memory(), &dir.path().join("missing"), &options()).unwrap_err();
    assert_eq!(missing.kind(), Kind::NotFound);
    let file = dir.path().join("file");
    std::fs::write(&file, "x").unwrap();
    assert_eq!(mount(memory(), &file, &options()).unwrap_err().kind(), Kind::Invalid);

    let volume = small();
    let fs = volume.open();
    let folder = adit_core::FileSystemExt::find(
        fs.as_ref(),
        b"web01/web01.vmx",
        &adit_core::FindOptions::default(),
    );
    let source = Source::Folder { folder: folder.unwrap(), fs };
    let error = mount(source, dir.path(), &options()).unwrap_err();
    assert_eq!(error.kind(), Kind::Invalid);
    assert!(error.advice().is_some());
}

#[test]
fn two_mounts_over_each_other_come_off_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let lower = mount(memory(), dir.path(), &options()).unwrap();
    let upper = mount(memory(), dir.path(), &options()).unwrap();
    assert_eq!(lower.unmount().unwrap_err().kind(), Kind::Busy);
    upper.unmount().unwrap();
    lower.unmount().unwrap();
    assert!(!is_mounted(dir.path()));
}

/// Gives everybody a `/dev/fuse` in a world of its own, and runs this very test there as nobody.
const AS_NOBODY: &str = r#"
set -e
mount --make-rprivate /
mkdir "$DIR/dev"
mount -t tmpfs -o dev tmpfs "$DIR/dev"
mknod -m 666 "$DIR/dev/fuse" c 10 229
mount --bind "$DIR/dev/fuse" /dev/fuse
cd /
exec setpriv --reuid=65534 --regid=65534 --clear-groups "$DIR/test" --exact "$NAME" --nocapture
"#;

#[test]
fn users_other_than_root_mount_through_the_helper() {
    if rustix::process::geteuid().is_root() {
        let dir = tempfile::tempdir().unwrap();
        shell(dir.path(), "chmod 755 .");
        std::fs::copy(std::env::current_exe().unwrap(), dir.path().join("test")).unwrap();
        let output = Command::new("unshare")
            .args(["-m", "bash", "-c", AS_NOBODY])
            .env("DIR", dir.path())
            .env("NAME", "users_other_than_root_mount_through_the_helper")
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && text.contains("1 passed"), "{text}\n{errors}");
        return;
    }
    let volume = small();
    let here = volume.mount(&options());
    let me = rustix::process::geteuid().as_raw();
    let line = table_line(here.path());
    assert!(line.contains(" fuse.adit ro,nosuid,nodev"), "{line}");
    assert!(line.contains(&format!("user_id={me}")), "{line}");
    let file = here.path().join("web01/web01.vmx");
    assert_eq!(shell(here.path(), "stat -c %u web01/web01.vmx").trim(), me.to_string());
    let open = std::fs::File::open(&file).unwrap();
    let error = here.mounted.unmount().unwrap_err();
    assert_eq!(error.kind(), Kind::Busy, "{error:?}");
    drop(open);
    here.mounted.unmount().unwrap();
    assert!(!is_mounted(here.path()));

    let again = volume.mount(&options());
    let open = std::fs::File::open(again.path().join("web01/web01.vmx")).unwrap();
    again.mounted.detach().unwrap();
    assert!(!is_mounted(again.path()));
    drop(open);
}
