//! Exports that can be written.

mod doubles;

use adit_core::WritableDisk;
use adit_nbd::Export;
use doubles::{Board, noise, serve};
use std::sync::Arc;

const FUA: u16 = 1;
const NO_HOLE: u16 = 2;
const FAST_ZERO: u16 = 16;

#[test]
fn writes_zeroes_trims_and_flushes_reach_the_disk_in_order() {
    let board = Arc::new(Board::new(vec![1; 2 << 20]));
    let served = serve(vec![Export::writable("x", board.clone() as Arc<dyn WritableDisk>)]);
    let mut raw = served.raw().enter("x", &[]);
    let small = noise(1, 1000);
    raw.request(0, 1, 1, 10, 1000);
    raw.send(&[&small]);
    assert_eq!(raw.simple(), (0, 1));
    let large = noise(2, 600_000);
    raw.request(FUA, 1, 2, 1 << 20, 600_000);
    raw.send(&[&large]);
    assert_eq!(raw.simple(), (0, 2));
    raw.request(0, 6, 3, 10, 5);
    assert_eq!(raw.simple(), (0, 3));
    raw.request(NO_HOLE | FUA, 6, 4, 20, 5);
    assert_eq!(raw.simple(), (0, 4));
    raw.request(0, 4, 5, 4096, 4096);
    assert_eq!(raw.simple(), (0, 5));
    raw.request(0, 3, 6, 0, 0);
    assert_eq!(raw.simple(), (0, 6));
    let pieces = ["write 1048576+262144", "write 1310720+262144", "write 1572864+75712", "flush"];
    let log = board.log.lock().unwrap().clone();
    assert_eq!(log[0], "write 10+1000");
    assert_eq!(log[1..5], pieces);
    let rest = ["zeroes 10..15", "write 20+5", "flush", "discard 4096..8192", "flush"];
    assert_eq!(log[5..], rest);
    let bytes = board.bytes.lock().unwrap().clone();
    assert_eq!(bytes[10..15], [0; 5]);
    assert_eq!(bytes[15..20], small[5..10]);
    assert_eq!(bytes[20..25], [0; 5]);
    assert!(bytes[1 << 20..][..600_000] == large);
    raw.request(0, 0, 7, 15, 5);
    assert_eq!(raw.chunks()[0].payload[8..], small[5..10]);
}

#[test]
fn fast_zeroes_are_promised_only_where_they_are_fast() {
    let board = || Arc::new(Board::new(vec![1; 4096])) as Arc<dyn WritableDisk>;
    let served = serve(vec![
        Export::writable("slow", board()),
        Export::writable("fast", board()).with_fast_zeroes(),
    ]);
    let mut slow = served.raw().enter("slow", &[]);
    slow.request(FAST_ZERO, 6, 1, 0, 4096);
    assert_eq!(slow.chunk().payload[..4], [0, 0, 0, 95]);
    let mut fast = served.raw().enter("fast", &[]);
    fast.request(FAST_ZERO, 6, 1, 0, 4096);
    assert_eq!(fast.simple(), (0, 1));
}

#[test]
fn a_write_past_the_end_is_enospc_and_its_payload_is_passed_over() {
    let board = Arc::new(Board::new(vec![1; 4096])) as Arc<dyn WritableDisk>;
    let served = serve(vec![Export::writable("x", board)]);
    let mut raw = served.raw().enter("x", &[]);
    raw.request(0, 1, 1, 4000, 100_000);
    raw.send(&[&noise(3, 100_000)]);
    assert_eq!(raw.chunk().payload[..4], [0, 0, 0, 28]);
    raw.request(0, 0, 2, 4090, 6);
    assert_eq!(raw.chunks()[0].payload[8..], [1; 6]);
    raw.request(0, 1, 3, 0, (32 << 20) + 1);
    assert!(raw.is_closed(), "nobody reads that much to refuse it");
}

#[test]
fn many_writers_and_readers_at_once_end_with_the_last_words() {
    let board = Arc::new(Board::new(vec![0; 1 << 20]));
    let served = serve(vec![Export::writable("x", board.clone() as Arc<dyn WritableDisk>)]);
    std::thread::scope(|scope| {
        for writer in 0..4u64 {
            let mut raw = served.raw().enter("x", &[]);
            scope.spawn(move || {
                for block in 0..64 {
                    let offset = writer * (256 << 10) + block * 4096;
                    raw.request(0, 1, block, offset, 4096);
                    raw.send(&[&noise(offset + 1, 4096)]);
                }
                (0..64).for_each(|_| assert_eq!(raw.simple().0, 0));
            });
        }
    });
    let bytes = board.bytes.lock().unwrap();
    for offset in (0..1 << 20).step_by(4096) {
        assert!(bytes[offset..offset + 4096] == noise(offset as u64 + 1, 4096), "{offset}");
    }
}

#[test]
fn adjacent_writes_that_wait_become_one_and_each_is_answered() {
    let board = Arc::new(Board::new(vec![0; 4 << 20]));
    let export = Export::writable("x", board.clone() as Arc<dyn WritableDisk>);
    let counters = export.counters();
    let served = serve(vec![export]);
    let mut raw = served.raw().enter("x", &[]);
    let mut all = Vec::new();
    // One jumps, one is to be flushed: those stay by themselves.
    let place = |block: u64| if block >= 300 { (block + 10) * 4096 } else { block * 4096 };
    for block in 0..500u64 {
        let flags = if block == 200 { FUA } else { 0 };
        let data = noise(block + 1, 4096);
        let header = |value: u64| value.to_be_bytes();
        all.extend([&0x2560_9513u32.to_be_bytes()[..], &flags.to_be_bytes(), &[0, 1]].concat());
        all.extend([header(block), header(place(block))].concat());
        all.extend(4096u32.to_be_bytes());
        all.extend(data);
    }
    let mut sender = raw.0.try_clone().unwrap();
    let sending = std::thread::spawn(move || std::io::Write::write_all(&mut sender, &all).unwrap());
    let mut answered = vec![false; 500];
    for _ in 0..500 {
        let (error, cookie) = raw.simple();
        assert_eq!(error, 0);
        assert!(!std::mem::replace(&mut answered[cookie as usize], true), "{cookie} twice");
    }
    sending.join().unwrap();
    let bytes = board.bytes.lock().unwrap();
    for block in 0..500u64 {
        let at = place(block) as usize;
        assert!(bytes[at..at + 4096] == noise(block + 1, 4096), "{block}");
    }
    let load =
        |counter: &std::sync::atomic::AtomicU64| counter.load(std::sync::atomic::Ordering::Relaxed);
    let (writes, merged) = (load(&counters.writes), load(&counters.merged));
    let reached = board.log.lock().unwrap().iter().filter(|it| it.starts_with("write")).count();
    assert_eq!((writes, writes - merged), (500, reached as u64));
    assert!(merged > 0, "500 writes were carried out one by one");
}
