//! Writing keeps other programs out, and stays out where they are.

use adit_core::{Kind, WritableDisk};
use adit_io::{Sharing, WritableFile};
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

fn file_of(folder: &Path) -> std::path::PathBuf {
    let path = folder.join("disk.raw");
    std::fs::write(&path, vec![0; 1 << 20]).unwrap();
    path
}

#[test]
fn a_file_that_qemu_writes_is_refused_until_it_is_done() {
    let folder = tempfile::tempdir().unwrap();
    let path = file_of(folder.path());
    let mut qemu = Command::new("qemu-io")
        .args(["-f", "raw"])
        .arg(&path)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("this test needs qemu-io of qemu-utils");
    let started = Instant::now();
    let error = loop {
        match WritableFile::open(&path, Sharing::Alone) {
            Err(error) => break error,
            Ok(file) => drop(file),
        }
        assert!(started.elapsed() < Duration::from_secs(60), "qemu-io takes no lock");
        std::thread::sleep(Duration::from_millis(20));
    };
    assert_eq!(error.kind(), Kind::Busy);
    assert!(error.advice().unwrap().contains("--force"), "{error:?}");
    WritableFile::open(&path, Sharing::Forced).unwrap();
    qemu.stdin.take().unwrap().write_all(b"quit\n").unwrap();
    qemu.wait().unwrap();
    WritableFile::open(&path, Sharing::Alone).unwrap();
}

#[test]
fn qemu_stays_out_of_a_file_that_is_being_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = file_of(folder.path());
    let write = || {
        let qemu = Command::new("qemu-io")
            .args(["-f", "raw", "-c", "write 0 512"])
            .arg(&path)
            .output()
            .expect("this test needs qemu-io of qemu-utils");
        (qemu.status.success(), String::from_utf8_lossy(&qemu.stderr).into_owned())
    };
    let file = WritableFile::open(&path, Sharing::Alone).unwrap();
    let (wrote, message) = write();
    assert!(!wrote && message.contains("lock"), "{message}");
    assert_eq!(WritableFile::open(&path, Sharing::Alone).unwrap_err().kind(), Kind::Busy);
    file.write_at(b"ours", 2 << 20).unwrap();
    file.flush().unwrap();
    drop(file);
    assert!(write().0);
    assert_eq!(std::fs::metadata(&path).unwrap().len(), (2 << 20) + 4);
}

#[test]
fn the_lock_folder_of_a_vmware_product_is_respected() {
    let folder = tempfile::tempdir().unwrap();
    let path = file_of(folder.path());
    let lock = folder.path().join("disk.raw.lck");
    std::fs::create_dir(&lock).unwrap();
    WritableFile::open(&path, Sharing::Alone).unwrap();
    std::fs::write(lock.join("M12345.lck"), b"x").unwrap();
    assert_eq!(WritableFile::open(&path, Sharing::Alone).unwrap_err().kind(), Kind::Busy);
}
