//! `serve nbd` beyond reading: temporary overlays, filters, the parent's end.

mod common;
mod nbd;

use common::complained;
use nbd::{Server, tool};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

#[test]
fn a_temporary_overlay_is_forgotten_and_the_disk_stays() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("disk.raw"), vec![1; 4 << 20]).unwrap();
    let server = Server::start(dir.path(), &["--overlay", ":temp:", "disk.raw"]);
    let uri = server.uri();
    let write = ["-f", "raw", "-c", "write -P 9 1M 64k", "-c", "read -P 9 1M 64k", &uri];
    tool(dir.path(), "qemu-io", &write);
    server.stop();
    assert!(std::fs::read(dir.path().join("disk.raw")).unwrap().iter().all(|&byte| byte == 1));
    let server = Server::start(dir.path(), &["--overlay", ":temp:", "disk.raw"]);
    assert!(server.client().read(0, 4 << 20).iter().all(|&byte| byte == 1));
    server.stop();
}

#[test]
fn what_is_not_writable_is_refused_to_clients() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("disk.raw"), vec![1; 1 << 20]).unwrap();
    let server = Server::start(dir.path(), &["disk.raw"]);
    assert_eq!(server.client().write(0, &[2; 512]).unwrap(), 1);
    server.stop();
    let both = ["serve", "nbd", "--socket", "s", "--writable", "--overlay", "x", "disk.raw"];
    assert!(complained(dir.path(), 2, &both).contains("cannot be used with"));
    let odd = ["serve", "nbd", "--socket", "s", "--filter", "sieve", "disk.raw"];
    assert!(complained(dir.path(), 1, &odd).contains("readahead"));
}

#[test]
fn errors_of_the_source_reach_the_client_until_it_heals_and_service_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("disk.raw"), vec![1; 1 << 20]).unwrap();
    let fault = "error:range=64K-128K,ops=read,count=2";
    let server = Server::start(dir.path(), &["--filter", fault, "--overlay", ":temp:", "disk.raw"]);
    let mut client = server.client();
    assert_eq!(client.try_read(0, 65536).unwrap().map(|bytes| bytes.len()), Ok(65536));
    assert_eq!(client.try_read(100 << 10, 512).unwrap(), Err(5));
    // Part of a block is written: the rest of it cannot be had.
    assert_eq!(client.write(100 << 10, &[5; 512]).unwrap(), 5);
    assert_eq!(client.write(100 << 10, &[5; 512]).unwrap(), 0);
    assert_eq!(client.read(100 << 10, 1024), [[5; 512], [1; 512]].concat());
    server.stop();
}

#[test]
fn a_server_ends_with_the_program_that_started_it() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("disk.raw"), vec![1; 1 << 20]).unwrap();
    let adit = env!("CARGO_BIN_EXE_adit");
    let script = format!(
        "'{adit}' serve nbd --quiet --exit-with-parent --socket s.sock disk.raw & \
         while [ ! -S s.sock ]; do sleep 0.01; done; echo $!"
    );
    let mut shell = Command::new("sh")
        .args(["-c", &script])
        .current_dir(dir.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    assert!(shell.wait().unwrap().success());
    let begun = Instant::now();
    while dir.path().join("s.sock").exists() {
        assert!(begun.elapsed() < Duration::from_secs(20), "the server lives on");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn the_disk_of_another_server_is_a_place_like_any_other() {
    let dir = tempfile::tempdir().unwrap();
    let mut bytes = vec![1; 8 << 20];
    bytes[5 << 20..][..5].copy_from_slice(b"there");
    // An MBR with one partition from 1 MiB to the end.
    bytes[..512].fill(0);
    bytes[446 + 4] = 0x83;
    bytes[446 + 8..][..4].copy_from_slice(&2048u32.to_le_bytes());
    bytes[446 + 12..][..4].copy_from_slice(&(7u32 << 11).to_le_bytes());
    bytes[510..512].copy_from_slice(&[0x55, 0xaa]);
    std::fs::write(dir.path().join("disk.raw"), &bytes).unwrap();
    let server = Server::start(dir.path(), &["disk.raw"]);
    let uri = server.uri();
    let cat = ["cat", "--offset", "5M", "--length", "5", &uri];
    assert_eq!(common::said(dir.path(), 0, &cat), "there");
    let inside = format!("{uri}//p1");
    let cat = ["cat", "--offset", "4M", "--length", "5", &inside];
    assert_eq!(common::said(dir.path(), 0, &cat), "there");
    // An overlay over it records the place.
    let second = tempfile::tempdir().unwrap();
    let over = Server::start(second.path(), &["--overlay", "top.qcow2", &inside]);
    assert_eq!(over.client().write(0, &[9; 512]).unwrap(), 0);
    over.stop();
    let info = common::json(second.path(), 0, &["overlay", "info", "top.qcow2"]);
    assert_eq!(info["backing"], inside);
    server.stop();
    assert!(complained(dir.path(), 1, &["cat", &uri]).contains("kind"), "nobody serves it now");
}
