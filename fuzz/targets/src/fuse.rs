//! The FUSE server under requests that no kernel would send: names, offsets, sizes and handles of
//! any kind, through the protocol itself. What is answered must be an answer, and true.

use adit_core::{Disk, MemoryDisk, Result};
use adit_fuse::{FileAt, Inside, Level, MountOptions, NamedDisk, NamedRange, Source, answer};
use adit_overlay::Temporary;
use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_send_buffer_size, set_socket_timeout};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};
use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

/// Requests of one run; more would fill the connection before anybody reads the answers.
const REQUESTS_MAX: usize = 24;
const BODY_BYTES_MAX: usize = 2048;
/// Longest answer read.
const ANSWER_BYTES_MAX: usize = (1 << 20) + 4096;
/// Bytes of the disk that is served.
const DISK_BYTES: usize = 40_000;

/// Numbers the kernel has for what it asks.
const LOOKUP: u32 = 1;
const FORGET: u32 = 2;
const READ: u32 = 15;
const WRITE: u32 = 16;
const GETXATTR: u32 = 22;
const LISTXATTR: u32 = 23;
const INIT: u32 = 26;
const READDIR: u32 = 28;
const DESTROY: u32 = 38;
const BATCH_FORGET: u32 = 42;
const READDIRPLUS: u32 = 44;

/// What inodes, handles, offsets and sizes are often enough to get somewhere.
const LIKELY: [u64; 16] = [
    1,
    2,
    3,
    0,
    4,
    4096,
    39_999,
    40_000,
    40_001,
    1 << 36,
    1 << 63,
    u64::MAX,
    i64::MAX as u64,
    1 << 20,
    u32::MAX as u64,
    0x8000_0010_0000_0001,
];

/// The bytes of a request's body: numbers in words, likely ones among them, then a name.
pub fn fuse(data: &[u8]) {
    let Some((&kind, script)) = data.split_first() else { return };
    let (kernel, server) = rustix::net::socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )
    .expect("a pair of sockets");
    for end in [&kernel, &server] {
        set_socket_send_buffer_size(end, 4 << 20).expect("a larger buffer");
        set_socket_timeout(end, Timeout::Recv, Some(Duration::from_secs(20))).expect("a timeout");
    }
    let options = MountOptions { allow_other: true, passthrough: false, ..Default::default() };
    let source = source(kind);
    let thread = std::thread::spawn(move || answer(source, server, &options));
    let asked = ask(&kernel, script);
    listen(&kernel, &asked, kind & 3 == 1);
    drop(kernel);
    // It ends, well or with a word on what was no request.
    let _ = thread.join().expect("the server never panics");
}

/// Bytes by their offset.
fn bytes() -> Vec<u8> {
    (0..DISK_BYTES).map(|at| (at % 251) as u8).collect()
}

fn source(kind: u8) -> Source {
    let disk = MemoryDisk::open("disk", bytes());
    let part = NamedDisk { name: "part1.ext4".into(), disk: MemoryDisk::open("p", vec![7; 5000]) };
    match kind & 3 {
        1 => {
            let disk = Temporary::new(disk, &std::env::temp_dir()).expect("an overlay");
            let range = NamedRange { name: "part1.raw".into(), range: 512..30_000 };
            Source::Writable { disk: Arc::new(disk), partitions: vec![range] }
        }
        2 => Source::Deep(Box::new(level(disk))),
        _ => Source::Disk { disk, partitions: vec![part] },
    }
}

/// Disks in disks, without end.
#[derive(Debug)]
struct Endless;

fn level(disk: Arc<dyn Disk>) -> Level {
    let part = NamedDisk { name: "part1.ext4".into(), disk: Arc::clone(&disk) };
    let source = Source::Disk { disk, partitions: vec![part] };
    Level { source, place: "endless".into(), inside: Arc::new(Endless) }
}

impl Inside for Endless {
    fn enter(&self, file: &FileAt) -> Result<Option<Level>> {
        Ok((file.path != b"disk").then(|| level(MemoryDisk::open("disk", bytes()))))
    }
}

/// A request, as far as its answer depends on it.
struct Asked {
    opcode: u32,
    inode: u64,
    offset: u64,
    size: usize,
}

/// Sends what the script says and then a farewell; tells what was asked, by number.
fn ask(kernel: &OwnedFd, script: &[u8]) -> HashMap<u64, Asked> {
    let mut asked = HashMap::new();
    let mut init = Vec::new();
    for word in [7u32, 40, 1 << 20, u32::MAX, 0, 0, 0, 0] {
        init.extend_from_slice(&word.to_le_bytes());
    }
    init.resize(64, 0);
    send(kernel, INIT, 1, 0, &init);
    asked.insert(1, Asked { opcode: INIT, inode: 0, offset: 0, size: 0 });
    let mut rest = script;
    for number in 2..2 + REQUESTS_MAX as u64 {
        let Some((head, tail)) = rest.split_at_checked(4) else { break };
        let (length, tail) = (usize::from(head[3]), tail);
        let (raw, after) = tail.split_at(length.min(tail.len()));
        rest = after;
        let opcode = u32::from(head[0] % 64);
        if opcode == INIT || opcode == DESTROY {
            continue;
        }
        let inode = pick(head[1]);
        let body = body(opcode, head[2], raw);
        let word = |at: usize| {
            body.get(at..at + 8).map_or(0, |it| u64::from_le_bytes(it.try_into().expect("8")))
        };
        // Reads name handle, offset and size; attributes begin with the size.
        let size = match opcode {
            GETXATTR | LISTXATTR => word(0) & 0xffff_ffff,
            _ => word(16) & 0xffff_ffff,
        };
        // Of an open file the handle tells which; it is the inode.
        let inode_read = if opcode == READ { word(0) } else { inode };
        let size = usize::try_from(size).expect("32 bits");
        asked.insert(number, Asked { opcode, inode: inode_read, offset: word(8), size });
        send(kernel, opcode, number, inode, &body);
    }
    send(kernel, DESTROY, u64::MAX, 0, &[]);
    asked.insert(u64::MAX, Asked { opcode: DESTROY, inode: 0, offset: 0, size: 0 });
    asked
}

fn pick(byte: u8) -> u64 {
    LIKELY[usize::from(byte) % LIKELY.len()]
}

/// A body of words, most of them likely ones, and of what is left of the input.
fn body(opcode: u32, likely: u8, raw: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    if opcode != LOOKUP {
        let words = usize::from(likely & 7);
        let (numbers, raw) = raw.split_at(words.min(raw.len()));
        for (at, &number) in numbers.iter().enumerate() {
            // A size that is not too long for the connection, most of the time.
            let word =
                if at == 2 && likely & 8 == 0 { pick(number) % 100_000 } else { pick(number) };
            body.extend_from_slice(&word.to_le_bytes());
        }
        if likely & 0x40 != 0 {
            body.resize(body.len().max(40), 0);
        }
        body.extend_from_slice(raw);
    } else if likely & 1 == 0 {
        const NAMES: [&[u8]; 8] =
            [b"disk", b"part1.ext4", b"part1.ext4.d", b"..", b".", b".d", b"part1.raw", b"disk.d"];
        body.extend_from_slice(NAMES[usize::from(likely >> 1) % NAMES.len()]);
    } else {
        body.extend_from_slice(raw);
    }
    body.truncate(BODY_BYTES_MAX);
    if likely & 0x80 == 0 {
        body.push(0);
    }
    body
}

fn send(kernel: &OwnedFd, opcode: u32, number: u64, inode: u64, body: &[u8]) {
    let length = u32::try_from(40 + body.len()).expect("a short body");
    let mut request = Vec::new();
    request.extend_from_slice(&length.to_le_bytes());
    request.extend_from_slice(&opcode.to_le_bytes());
    request.extend_from_slice(&number.to_le_bytes());
    request.extend_from_slice(&inode.to_le_bytes());
    // Who asks: root, in no process.
    request.extend_from_slice(&[0; 16]);
    request.extend_from_slice(body);
    // A server that gave up hears nothing more.
    let _ = rustix::net::send(kernel, &request, SendFlags::NOSIGNAL);
}

/// Reads all answers; `written`: whether the bytes may have changed.
fn listen(kernel: &OwnedFd, asked: &HashMap<u64, Asked>, written: bool) {
    let (mut buffer, mut seen) = (vec![0; ANSWER_BYTES_MAX], Vec::new());
    loop {
        let length = match rustix::net::recv(kernel, &mut buffer[..], RecvFlags::empty()) {
            Ok((0, _)) | Err(Errno::CONNRESET) => return,
            Ok((length, _)) => length,
            Err(why) => panic!("no answer: {why}"),
        };
        assert!(length >= 16, "an answer of {length} bytes");
        let word = |at: usize| u32::from_le_bytes(buffer[at..at + 4].try_into().expect("4"));
        let number = u64::from_le_bytes(buffer[8..16].try_into().expect("8"));
        assert_eq!(word(0) as usize, length, "the length of an answer");
        let error = word(4).cast_signed();
        assert!((-4095..=0).contains(&error), "error {error}");
        assert!(error == 0 || length == 16, "an error with {length} bytes");
        let request = asked.get(&number).unwrap_or_else(|| panic!("nobody asked {number}"));
        assert!(!matches!(request.opcode, FORGET | BATCH_FORGET) || error != 0, "{number}");
        assert!(!seen.contains(&number), "two answers to {number}");
        seen.push(number);
        if error == 0 {
            check(request, &buffer[16..length], written);
        }
    }
}

/// An answer is no longer than was asked for, and says what is so.
fn check(request: &Asked, told: &[u8], written: bool) {
    match request.opcode {
        READ => {
            assert!(told.len() <= request.size, "{} of {}", told.len(), request.size);
            if !written && request.inode == 2 {
                let from = usize::try_from(request.offset).unwrap_or(usize::MAX).min(DISK_BYTES);
                let expected = &bytes()[from..DISK_BYTES.min(from.saturating_add(request.size))];
                assert!(told == expected, "other bytes at {from}");
            }
        }
        READDIR | READDIRPLUS => assert!(told.len() <= request.size, "a listing too long"),
        GETXATTR | LISTXATTR if request.size > 0 => assert!(told.len() <= request.size),
        GETXATTR | LISTXATTR => assert_eq!(told.len(), 8),
        WRITE => {
            assert_eq!(told.len(), 8);
            assert!(written, "a disk that is only read was written");
        }
        _ => {}
    }
}
