//! Strangers who talk nonsense, on either side.

mod doubles;

use adit_core::{Disk, DiskExt, MemoryDisk, WritableDisk};
use adit_nbd::{Address, ClientOptions, Export, NbdDisk};
use doubles::{Board, Random, Raw, Served, noise, serve};
use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::time::Duration;

/// Peak resident memory of this process. Unit: KiB.
fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn served() -> Served {
    let board = Arc::new(Board::new(vec![1; 1 << 20]));
    serve(vec![
        Export::read_only("x", MemoryDisk::open("memory", noise(1, 1 << 20))),
        Export::writable("w", board as Arc<dyn WritableDisk>),
    ])
}

/// Mostly valid bytes with some of them wrong.
fn spoil(random: &mut Random, bytes: &mut [u8]) {
    for _ in 0..random.below(4) {
        let at = random.below(bytes.len() as u64) as usize;
        bytes[at] = random.next() as u8;
    }
}

fn still_works(served: &Served) {
    let mut raw = served.raw().enter("x", &[]);
    raw.request(0, 0, 1, 0, 16);
    assert_eq!(raw.chunk().payload[8..], noise(1, 16));
}

#[test]
fn garbage_while_haggling_hurts_nobody() {
    let served = served();
    let before = peak_kib();
    for seed in 1..=400 {
        let mut random = Random(seed);
        let mut raw = served.raw();
        raw.take(18);
        let mut bytes = 3u32.to_be_bytes().to_vec();
        for _ in 0..1 + random.below(6) {
            let data = match random.below(4) {
                0 => doubles::go("x", &[1, 2, 3]),
                1 => doubles::meta("x", &["base:allocation", "qemu:"]),
                2 => noise(seed, random.below(300) as usize),
                _ => vec![],
            };
            bytes.extend_from_slice(b"IHAVEOPT");
            bytes.extend_from_slice(&(random.below(13) as u32).to_be_bytes());
            bytes.extend_from_slice(&(data.len() as u32).to_be_bytes());
            bytes.extend_from_slice(&data);
        }
        spoil(&mut random, &mut bytes);
        let _ = raw.0.write_all(&bytes);
        let _ = raw.0.shutdown(std::net::Shutdown::Write);
        let mut answer = Vec::new();
        let _ = (&raw.0).take(1 << 20).read_to_end(&mut answer);
        assert!(answer.len() < 1 << 20, "seed {seed}");
    }
    still_works(&served);
    assert!(peak_kib() - before < 64 << 10, "{} KiB more", peak_kib() - before);
}

#[test]
fn garbage_requests_hurt_nobody() {
    let served = served();
    let before = peak_kib();
    for seed in 1..=400 {
        let mut random = Random(seed);
        let export = if seed % 2 == 0 { "x" } else { "w" };
        let mut raw = served.raw().enter(export, &["base:allocation"]);
        let mut bytes = Vec::new();
        for _ in 0..1 + random.below(20) {
            let command = random.below(9) as u16;
            let length = random.below(5000) as u32;
            bytes.extend_from_slice(&0x2560_9513u32.to_be_bytes());
            bytes.extend_from_slice(&(random.below(64) as u16 & 0x1f).to_be_bytes());
            bytes.extend_from_slice(&command.to_be_bytes());
            bytes.extend_from_slice(&random.next().to_be_bytes());
            bytes.extend_from_slice(&random.below(1 << 20).to_be_bytes());
            bytes.extend_from_slice(&length.to_be_bytes());
            if command == 1 {
                bytes.extend_from_slice(&noise(seed, length as usize));
            }
        }
        spoil(&mut random, &mut bytes);
        let _ = raw.0.write_all(&bytes);
        let _ = raw.0.shutdown(std::net::Shutdown::Write);
        let _ = std::io::copy(&mut raw.0, &mut std::io::sink());
    }
    still_works(&served);
    assert!(peak_kib() - before < 128 << 10, "{} KiB more", peak_kib() - before);
}

#[test]
fn lengths_beyond_all_bounds_end_the_connection() {
    let served = served();
    let mut raw = served.raw().greet();
    raw.send(&[b"IHAVEOPT", &3u32.to_be_bytes(), &u32::MAX.to_be_bytes()]);
    assert!(raw.is_closed());
    let mut raw = served.raw();
    raw.take(18);
    raw.send(&[&0xffu32.to_be_bytes()]);
    assert!(raw.is_closed(), "unknown client flags");
    let mut raw = served.raw().enter("w", &[]);
    raw.request(0, 1, 1, 0, u32::MAX);
    assert!(raw.is_closed());
    still_works(&served);
}

/// A server that records what a good one says to our client, and then replays it with mistakes.
#[test]
fn a_hostile_server_cannot_harm_the_client() {
    let served = served();
    let good = record(&served);
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("evil.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let rounds = 300u64;
    let script = good.clone();
    let evil = std::thread::spawn(move || {
        for seed in 1..=rounds {
            let Ok((stream, _)) = listener.accept() else { return };
            let mut random = Random(seed);
            let mut bytes = script.clone();
            spoil(&mut random, &mut bytes);
            let _ = (&stream).write_all(&bytes);
            let _ = stream.shutdown(std::net::Shutdown::Write);
            let _ = std::io::copy(&mut &stream, &mut std::io::sink());
        }
    });
    let before = peak_kib();
    let options = ClientOptions {
        retries: 0,
        silence_max: Duration::from_secs(5),
        ..ClientOptions::default()
    };
    let mut right = 0;
    for _ in 1..=rounds {
        let Ok(disk) = NbdDisk::open(&Address::unix(&socket, "x"), options.clone()) else {
            continue;
        };
        if disk.size_bytes() < 8192 {
            continue;
        }
        // Bytes may be wrong where the stranger changed them; the rest is an error or right.
        let mut bytes = vec![0; 8192];
        if disk.read_at(&mut bytes, 0).is_ok() && bytes == noise(1, 8192) {
            right += 1;
        }
        let _ = disk.extent_at(0);
    }
    evil.join().unwrap();
    assert!(right > 50, "the script itself works ({right})");
    assert!(peak_kib() - before < 64 << 10, "{} KiB more", peak_kib() - before);
}

/// What the real server says to a client that opens `x`, reads 8 KiB and asks for extents.
fn record(served: &Served) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("tap.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let server = Raw::connect(&served.socket).0;
    let tap = std::thread::spawn(move || {
        let (client, _) = listener.accept().unwrap();
        let (mut up, down) = (server.try_clone().unwrap(), client.try_clone().unwrap());
        let upward = std::thread::spawn(move || {
            let _ = std::io::copy(&mut &client, &mut up);
            let _ = up.shutdown(std::net::Shutdown::Write);
        });
        let mut said = Vec::new();
        let mut buf = [0; 4096];
        while let Ok(length @ 1..) = (&server).read(&mut buf) {
            said.extend_from_slice(&buf[..length]);
            (&down).write_all(&buf[..length]).unwrap();
        }
        upward.join().unwrap();
        said
    });
    let disk = NbdDisk::open(&Address::unix(&socket, "x"), ClientOptions::default()).unwrap();
    assert_eq!(disk.read_vec(0, 8192).unwrap(), noise(1, 8192));
    disk.extent_at(0).unwrap();
    drop(disk);
    tap.join().unwrap()
}
