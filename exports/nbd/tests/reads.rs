//! Reads and block status, looked at byte by byte.

mod doubles;

use adit_core::{Concat, Disk, Error, MemoryDisk, Piece};
use adit_nbd::Export;
use doubles::{Board, Chunk, noise, serve};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

const KIB: u64 = 1024;

/// Puts the content chunks of a reply together and checks that they tile the request.
fn assemble(chunks: &[Chunk], offset: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0xee; length];
    let mut covered = 0;
    for chunk in chunks.iter().filter(|chunk| chunk.kind != 0) {
        let at = u64::from_be_bytes(chunk.payload[..8].try_into().unwrap());
        let start = (at - offset) as usize;
        match chunk.kind {
            1 => {
                let data = &chunk.payload[8..];
                bytes[start..start + data.len()].copy_from_slice(data);
                covered += data.len();
            }
            2 => {
                let hole = u32::from_be_bytes(chunk.payload[8..].try_into().unwrap()) as usize;
                bytes[start..start + hole].fill(0);
                covered += hole;
            }
            other => panic!("chunk kind {other:#x}"),
        }
    }
    assert_eq!(covered, length);
    bytes
}

/// A sparse host file, 4 MiB: data in the second and the last MiB, and its bytes.
fn sparse_file(folder: &std::path::Path) -> (Arc<dyn Disk>, Vec<u8>) {
    let path = folder.join("sparse.img");
    let file = File::create(&path).unwrap();
    file.set_len(4 << 20).unwrap();
    let mut bytes = vec![0; 4 << 20];
    bytes[1 << 20..2 << 20].copy_from_slice(&noise(11, 1 << 20));
    bytes[3 << 20..].copy_from_slice(&noise(12, 1 << 20));
    file.write_all_at(&bytes[1 << 20..2 << 20], 1 << 20).unwrap();
    file.write_all_at(&bytes[3 << 20..], 3 << 20).unwrap();
    (adit_io::open(&path, &adit_io::ReadPolicy::default()).unwrap(), bytes)
}

#[test]
fn holes_of_a_file_are_named_and_its_data_goes_through_the_kernel() {
    let folder = tempfile::tempdir().unwrap();
    let (disk, bytes) = sparse_file(folder.path());
    let export = Export::read_only("x", disk);
    let counters = export.counters();
    let mut raw = serve(vec![export]).raw_kept().enter("x", &[]);
    raw.request(0, 0, 7, 0, 4 << 20);
    let chunks = raw.chunks();
    let kinds: Vec<u16> = chunks.iter().map(|chunk| chunk.kind).collect();
    assert_eq!(kinds, [2, 1, 2, 1, 0]);
    assert!(assemble(&chunks, 0, 4 << 20) == bytes);
    assert_eq!(counters.kernel_bytes.load(Ordering::Relaxed), 2 << 20);
    assert_eq!(counters.hole_bytes.load(Ordering::Relaxed), 2 << 20);
}

trait Kept {
    fn raw_kept(self) -> doubles::Raw;
}

impl Kept for doubles::Served {
    /// The server lives as long as the test.
    fn raw_kept(self) -> doubles::Raw {
        Box::leak(Box::new(self)).raw()
    }
}

#[test]
fn every_way_of_asking_gives_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let (file, bytes) = sparse_file(folder.path());
    // Small alternating pieces of two files' worth, holes of all sizes, memory in between.
    let memory = MemoryDisk::open("memory", noise(5, 300_000));
    let mut pieces = vec![Piece::whole(file)];
    let mut expected = bytes;
    let mut random = doubles::Random(77);
    for _ in 0..200 {
        let (at, length) = (random.below(100_000), 1 + random.below(9000));
        pieces.push(Piece::part(memory.clone(), at, length));
        expected.extend_from_slice(&noise(5, 300_000)[at as usize..(at + length) as usize]);
        let hole = 1 + random.below(9000);
        pieces.push(Piece::zero(hole));
        expected.resize(expected.len() + hole as usize, 0);
    }
    let served = serve(vec![Export::read_only("x", Concat::open("all", pieces).unwrap())]);
    let mut chunked = served.raw().enter("x", &[]);
    let mut simple = served.raw().enter_simple("x");
    for cookie in 0..300 {
        let offset = random.below(expected.len() as u64);
        let most = (expected.len() as u64 - offset).min(1 << random.below(23));
        let length = random.below(most + 1) as usize;
        let wanted = &expected[offset as usize..offset as usize + length];
        chunked.request(0, 0, cookie, offset, length as u32);
        assert!(assemble(&chunked.chunks(), offset, length) == wanted, "{offset}+{length}");
        chunked.request(4, 0, cookie, offset, length as u32);
        let chunks = chunked.chunks();
        assert!(chunks.iter().filter(|chunk| chunk.kind != 0).count() <= 1);
        assert!(assemble(&chunks, offset, length) == wanted, "DF {offset}+{length}");
        simple.request(0, 0, cookie, offset, length as u32);
        assert_eq!(simple.simple(), (0, cookie));
        assert!(simple.take(length) == wanted, "simple {offset}+{length}");
    }
}

#[test]
fn pipelined_requests_are_all_answered() {
    let folder = tempfile::tempdir().unwrap();
    let (disk, bytes) = sparse_file(folder.path());
    let mut raw = serve(vec![Export::read_only("x", disk)]).raw_kept().enter("x", &[]);
    // In one piece: each small write of its own would fill the socket before the first answer.
    let requests: Vec<[u8; 28]> = (0..1000)
        .map(|cookie: u64| {
            let mut request = [0; 28];
            request[..4].copy_from_slice(&0x2560_9513u32.to_be_bytes());
            request[8..16].copy_from_slice(&cookie.to_be_bytes());
            request[16..24].copy_from_slice(&(cookie * 4096).to_be_bytes());
            request[24..].copy_from_slice(&4096u32.to_be_bytes());
            request
        })
        .collect();
    raw.send(&[requests.as_flattened()]);
    let mut seen = [false; 1000];
    for _ in 0..1000 {
        let chunks = raw.chunks();
        let cookie = chunks[0].cookie as usize;
        assert!(!std::mem::replace(&mut seen[cookie], true));
        let wanted = &bytes[cookie * 4096..(cookie + 1) * 4096];
        assert!(assemble(&chunks, cookie as u64 * 4096, 4096) == wanted, "{cookie}");
    }
}

#[test]
fn slow_requests_of_one_connection_run_side_by_side() {
    let mut board = Board::new(vec![3; 64 << 10]);
    board.delay = std::time::Duration::from_millis(200);
    let board = Arc::new(board);
    let export = Export::read_only("x", board.clone());
    let mut raw = serve(vec![export]).raw_kept().enter("x", &[]);
    (0..8).for_each(|cookie| raw.request(0, 0, cookie, cookie * 512, 512));
    (0..8).for_each(|_| assert_eq!(raw.chunk().payload[8..], [3; 512]));
    assert!(board.reads.lock().unwrap().1 > 1);
}

#[test]
fn a_lost_range_fails_exactly_the_requests_that_touch_it() {
    let piece = |byte| Piece::whole(MemoryDisk::open("memory", vec![byte; 10_000]));
    let lost = Piece::lost(10_000, Error::lost("member 2 is missing"));
    let disk = Concat::open("joined", vec![piece(1), lost, piece(3)]).unwrap();
    let export = Export::read_only("x", disk);
    let counters = export.counters();
    let served = serve(vec![export]);
    let mut raw = served.raw().enter("x", &[]);
    raw.request(0, 0, 1, 9000, 1000);
    assert_eq!(raw.chunks()[0].payload[8..], [1; 1000]);
    raw.request(0, 0, 2, 9000, 1001);
    let chunks = raw.chunks();
    assert_eq!(chunks[0].payload[8..], [1; 1000], "what is there comes first");
    let error = &chunks[1];
    assert_eq!((error.kind, &error.payload[..4]), (0x8002, &[0, 0, 0, 5][..]));
    assert!(String::from_utf8_lossy(&error.payload).contains("member 2 is missing"));
    assert_eq!(error.payload[error.payload.len() - 8..], 10_000u64.to_be_bytes());
    raw.request(0, 0, 3, 20_000, 10_000);
    assert_eq!(raw.chunks()[0].payload[8..], [3; 10_000]);
    let mut simple = served.raw().enter_simple("x");
    simple.request(0, 0, 4, 0, 30_000);
    assert_eq!(simple.simple(), (5, 4));
    simple.request(0, 0, 5, 20_000, 3);
    assert_eq!(simple.simple(), (0, 5));
    assert_eq!(simple.take(3), [3; 3]);
    assert_eq!(counters.errors.load(Ordering::Relaxed), 2);
}

#[test]
fn a_bad_sector_in_an_unsplit_reply_is_padded_and_declared_void() {
    let mut board = Board::new(vec![8; 1 << 20]);
    board.bad = Some(600_000..600_512);
    let served = serve(vec![Export::read_only("x", Arc::new(board))]);
    let mut raw = served.raw().enter("x", &[]);
    raw.request(4, 0, 1, 0, 1 << 20);
    let chunks = raw.chunks();
    assert_eq!((chunks[0].kind, chunks[0].payload.len()), (1, 8 + (1 << 20)));
    assert_eq!(chunks[1].kind, 0x8002);
    // With simple replies there is no such way; the connection ends rather than lie.
    let mut simple = served.raw().enter_simple("x");
    simple.request(0, 0, 1, 0, 1 << 20);
    assert_eq!(simple.simple(), (0, 1));
    let mut got = Vec::new();
    std::io::Read::read_to_end(&mut simple.0, &mut got).unwrap();
    assert!(got.len() < 1 << 20);
}

#[test]
fn a_file_that_was_cut_short_is_an_error_and_not_zeros() {
    let folder = tempfile::tempdir().unwrap();
    let (disk, bytes) = sparse_file(folder.path());
    let mut raw = serve(vec![Export::read_only("x", disk)]).raw_kept().enter("x", &[]);
    raw.request(0, 0, 1, 3 << 20, 4096);
    assert_eq!(raw.chunks()[0].payload[8..], bytes[3 << 20..(3 << 20) + 4096]);
    let file = File::options().write(true).open(folder.path().join("sparse.img")).unwrap();
    file.set_len((3 << 20) + 500_000).unwrap();
    raw.request(0, 0, 2, 3 << 20, 1 << 20);
    let chunks = raw.chunks();
    let error = chunks.iter().find(|chunk| chunk.kind == 0x8002).unwrap();
    assert_eq!(error.payload[..4], [0, 0, 0, 5]);
}

#[test]
fn requests_that_make_no_sense_are_answered_with_einval() {
    let disk = MemoryDisk::open("memory", vec![0; 100]);
    let mut raw = serve(vec![Export::read_only("x", disk)]).raw_kept().enter("x", &[]);
    let refused = [
        (0, 0, 90, 11u32, 22),         // past the end
        (0, 0, u64::MAX, 1, 22),       // far past the end
        (0, 0, 0, (32 << 20) + 1, 22), // too long
        (2, 0, 0, 1, 22),              // NO_HOLE does not belong to a read
        (0, 99, 0, 0, 22),             // no such command
        (0, 7, 0, 100, 22),            // block status without a context
        (0, 4, 0, 10, 1),              // trim
        (0, 6, 0, 10, 1),              // write zeroes
    ];
    for (cookie, (flags, command, offset, length, number)) in refused.into_iter().enumerate() {
        raw.request(flags, command, cookie as u64, offset, length);
        let chunk = raw.chunk();
        assert_eq!((chunk.kind, chunk.cookie), (0x8001, cookie as u64));
        assert_eq!(chunk.payload[..4], [0, 0, 0, number]);
    }
    raw.request(0, 1, 50, 0, 4);
    raw.send(&[b"data"]);
    assert_eq!(raw.chunk().payload[..4], [0, 0, 0, 1], "a write to a read-only export");
    raw.request(0, 5, 51, 0, 100);
    assert_eq!(raw.simple(), (0, 51), "cache is a hint");
    raw.request(0, 3, 52, 0, 0);
    assert_eq!(raw.simple(), (0, 52), "nothing to flush");
    raw.request(0, 0, 53, 0, 0);
    assert_eq!(raw.chunk().kind, 0, "a read of nothing");
    raw.request(0, 2, 0, 0, 0);
    assert!(raw.is_closed());
}

#[test]
fn block_status_answers_every_context_and_one_extent_if_asked() {
    let folder = tempfile::tempdir().unwrap();
    let (disk, _) = sparse_file(folder.path());
    let export = Export::read_only("x", disk).with_bitmap("b", vec![512..1024, 600..700]);
    let contexts = ["base:allocation", "qemu:dirty-bitmap:b"];
    let mut raw = serve(vec![export]).raw_kept().enter("x", &contexts);
    let words = |chunk: &Chunk| -> Vec<u64> {
        let words = chunk.payload.chunks_exact(4);
        words.map(|word| u32::from_be_bytes(word.try_into().unwrap()).into()).collect()
    };
    raw.request(0, 7, 1, 0, 4 << 20);
    let chunks = raw.chunks();
    let mib = 1024 * KIB;
    assert_eq!(words(&chunks[0]), [1, mib, 3, mib, 0, mib, 3, mib, 0]);
    assert_eq!(words(&chunks[1]), [2, 512, 0, 512, 1, (4 * mib) - 1024, 0]);
    raw.request(8, 7, 2, 100, 2 << 20);
    let chunks = raw.chunks();
    assert_eq!(words(&chunks[0]), [1, mib - 100, 3]);
    assert_eq!(words(&chunks[1]), [2, 412, 0]);
}
