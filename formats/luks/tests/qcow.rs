//! The cipher serves QCOW2… whose clusters number their sectors themselves.
//!
//! Needs `qemu-img` (package qemu-utils); fails without it.

mod common;

use adit_core::{Limits, Slice};
use adit_luks::{Cipher, Luks};
use common::{Dir, SECRET, disk, noise};
use std::process::Command;

const CLUSTER: usize = 65536;

/// An encrypted QCOW2 image of two clusters.
fn image(dir: &Dir, plain: &[u8], format: &str) -> Vec<u8> {
    let secret = format!("secret,id=key,data={}", String::from_utf8_lossy(SECRET));
    let speed = if format == "luks" { ",encrypt.iter-time=10" } else { "" };
    let options = format!("encrypt.format={format},encrypt.key-secret=key{speed}");
    let (from, to) = (dir.write("plain", plain), dir.path("image"));
    let mut command = Command::new("qemu-img");
    command.args(["convert", "--object", &secret, "-f", "raw", "-O", "qcow2", "-o", &options]);
    command.arg(from).arg(to);
    let mut ran = command.output().expect("install qemu-utils");
    // QEMU measures how long its hash takes, and gives up when the clock did not move.
    for _ in 0..50 {
        if !String::from_utf8_lossy(&ran.stderr).contains("accurate CPU usage") {
            break;
        }
        ran = command.output().expect("install qemu-utils");
    }
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    dir.read("image")
}

fn be64(bytes: &[u8], at: usize) -> u64 {
    u64::from_be_bytes(bytes[at..at + 8].try_into().unwrap())
}

fn be32(bytes: &[u8], at: usize) -> usize {
    u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap()) as usize
}

/// Where a guest cluster stands, by the first L1 entry and its L2 table.
fn cluster(image: &[u8], number: usize) -> usize {
    const OFFSET: u64 = 0x00ff_ffff_ffff_fe00;
    let l2 = be64(image, be64(image, 40) as usize) & OFFSET;
    (be64(image, l2 as usize + number * 8) & OFFSET) as usize
}

#[test]
fn luks_in_qcow2_has_its_header_in_the_image_and_counts_by_host_offset() {
    let dir = Dir::new();
    let plain = noise(6, 2 * CLUSTER);
    let image = image(&dir, &plain, "luks");
    assert_eq!(be32(&image, 32), 2); // crypt_method
    // The first header extension: full disk encryption header pointer.
    let at = (104..4096).step_by(8).find(|&at| be32(&image, at) == 0x0537_be77).unwrap();
    let (offset, length) = (be64(&image, at + 8), be64(&image, at + 16));
    let header = Slice::open("header", disk(&image), offset, length);
    let luks = Luks::open(header, &Limits::default()).unwrap();
    let cipher = luks.unlock_cipher(SECRET).unwrap();
    for number in 0..2 {
        let host = cluster(&image, number);
        let mut data = image[host..host + CLUSTER].to_vec();
        cipher.decrypt(host as u64 / 512, &mut data).unwrap();
        assert!(data == plain[number * CLUSTER..][..CLUSTER], "cluster {number}");
    }
}

#[test]
fn the_older_method_of_qcow2_counts_by_guest_offset() {
    let dir = Dir::new();
    let plain = noise(7, 2 * CLUSTER);
    let image = image(&dir, &plain, "aes");
    assert_eq!(be32(&image, 32), 1);
    let cipher = Cipher::qcow_legacy(SECRET).unwrap();
    for number in 0..2 {
        let host = cluster(&image, number);
        let mut data = image[host..host + CLUSTER].to_vec();
        cipher.decrypt((number * CLUSTER / 512) as u64, &mut data).unwrap();
        assert!(data == plain[number * CLUSTER..][..CLUSTER], "cluster {number}");
    }
}
