//! Filters over a disk in memory: what passes, what waits, what fails.

use adit_core::{
    Disk, DiskExt, Extent, ExtentKind, Geometry, Hop, Kind, MemoryDisk, Next, ReadRequest, Result,
    WritableDisk, read_each,
};
use adit_filters::{Entry, Filter, Filters, Sink};
use std::ops::Range;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Memory that can be written and counts its reads.
#[derive(Debug)]
struct Ram {
    bytes: Mutex<Vec<u8>>,
    reads: AtomicU64,
    flushes: AtomicU64,
}

impl Ram {
    fn new(length: usize) -> Arc<Ram> {
        let bytes = (0..length).map(|at| ((at / 7) ^ (at >> 9)) as u8).collect::<Vec<u8>>();
        let (reads, flushes) = (AtomicU64::new(0), AtomicU64::new(0));
        Arc::new(Ram { bytes: Mutex::new(bytes), reads, flushes })
    }

    fn now(&self) -> Vec<u8> {
        self.bytes.lock().unwrap().clone()
    }
}

impl Disk for Ram {
    fn geometry(&self) -> Geometry {
        Geometry::of_size(self.bytes.lock().unwrap().len() as u64)
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.check_range(offset, buf.len() as u64)?;
        self.reads.fetch_add(1, Ordering::SeqCst);
        let bytes = self.bytes.lock().unwrap();
        buf.copy_from_slice(&bytes[offset as usize..][..buf.len()]);
        Ok(())
    }

    fn read_batch(&self, batch: &mut [ReadRequest<'_>]) -> Result<()> {
        read_each(self, batch)
    }

    fn extent_at(&self, offset: u64) -> Result<Extent> {
        self.check_range(offset, 1)?;
        Ok(Extent { offset, length: self.size_bytes() - offset, kind: ExtentKind::Data })
    }

    fn as_file(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn explain(&self, offset: u64) -> Result<Hop> {
        Ok(Hop { layer: "ram".into(), offset, steps: Vec::new(), next: Next::Here })
    }
}

impl WritableDisk for Ram {
    fn write_at(&self, buf: &[u8], offset: u64) -> Result<()> {
        self.check_range(offset, buf.len() as u64)?;
        self.bytes.lock().unwrap()[offset as usize..][..buf.len()].copy_from_slice(buf);
        Ok(())
    }

    fn write_zeroes(&self, range: Range<u64>) -> Result<()> {
        self.write_at(&vec![0; (range.end - range.start) as usize], range.start)
    }

    fn discard(&self, range: Range<u64>) -> Result<()> {
        self.write_zeroes(range)
    }

    fn flush(&self) -> Result<()> {
        self.flushes.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
}

/// Keeps what it is told.
#[derive(Debug, Default)]
struct Notes(Mutex<Vec<String>>);

impl Sink for Notes {
    fn note(&self, entry: &Entry<'_>) {
        let failed = if entry.error.is_some() { " failed" } else { "" };
        let line = format!("{} {:?}{failed}", entry.op.word(), entry.range);
        self.0.lock().unwrap().push(line);
    }
}

fn filters(texts: &[&str]) -> (Filters, Arc<Notes>) {
    let notes = Arc::new(Notes::default());
    let sink: Arc<dyn Sink> = notes.clone();
    (Filters::parse(texts.iter().copied(), &sink).unwrap(), notes)
}

#[test]
fn every_filter_passes_bytes_as_they_are_in_both_directions() {
    for text in [
        "retry",
        "cache:size=128K,block=4K",
        "readahead:window=8K,windows=2",
        "ratelimit:bytes=1G,ops=100000",
        "delay:read=10us",
        "error:every=1000000",
        "log",
    ] {
        let (filters, _) = filters(&[text]);
        let ram = Ram::new(300_000);
        let disk = filters.over_writable(ram.clone()).unwrap();
        let reader = filters.over(ram.clone()).unwrap();
        let mut expected = ram.now();
        let mut random = 88172645463325252u64;
        let mut next = |bound: u64| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random % bound
        };
        for step in 0..600 {
            let length = 1 + next(20_000) as usize;
            let at = next(300_000 - length as u64 + 1);
            match next(6) {
                0 => {
                    let buf: Vec<u8> = (0..length).map(|byte| (byte ^ step) as u8).collect();
                    disk.write_at(&buf, at).unwrap();
                    expected[at as usize..][..length].copy_from_slice(&buf);
                }
                1 => {
                    disk.write_zeroes(at..at + length as u64).unwrap();
                    expected[at as usize..][..length].fill(0);
                }
                _ => {
                    let got = disk.read_vec(at, length).unwrap();
                    assert!(got == expected[at as usize..][..length], "{text}, step {step}");
                }
            }
        }
        disk.flush().unwrap();
        assert_eq!(ram.flushes.load(Ordering::SeqCst), 1, "{text}");
        assert!(ram.now() == expected, "{text}");
        assert!(disk.read_vec(299_000, 1001).is_err(), "{text}: past the end");
        assert!(matches!(disk.extent_at(5).unwrap().kind, ExtentKind::Data));
        assert!(disk.as_file().is_none());
        // A reader of its own in order, as a copy reads.
        let mut all = Vec::new();
        for at in (0..300_000).step_by(3000) {
            all.extend(reader.read_vec(at, 3000).unwrap());
        }
        assert!(all == expected, "{text}");
    }
}

#[test]
fn a_retry_waits_until_the_disk_is_healed_and_counts() {
    let (filters, _) = filters(&["error:every=1", "retry:tries=0,wait=5ms,wait-max=10ms"]);
    let disk = filters.over(Ram::new(4096)).unwrap();
    let faults = Arc::clone(filters.faults().next().unwrap());
    let healer = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(80));
        faults.heal();
    });
    let begun = Instant::now();
    assert_eq!(disk.read_vec(0, 16).unwrap().len(), 16);
    assert!(begun.elapsed() >= Duration::from_millis(60));
    healer.join().unwrap();
    let counters = filters.counters();
    let count = |name| counters.iter().find(|(known, _)| *known == name).unwrap().1;
    assert!(count("retry_retried") >= 3, "{counters:?}");
    assert_eq!(
        (count("retry_recovered"), count("retry_failed"), count("retry_waiting")),
        (1, 0, 0)
    );
}

#[test]
fn a_retry_gives_up_after_its_tries_and_at_once_where_time_heals_nothing() {
    let (filters_io, _) = filters(&["error", "retry:tries=4,wait=1ms"]);
    let ram = Ram::new(4096);
    let disk = filters_io.over_writable(ram.clone()).unwrap();
    assert_eq!(disk.read_vec(0, 1).unwrap_err().kind(), Kind::Io);
    assert_eq!(filters_io.faults().next().unwrap().failed(), 4);
    // A flush that failed must not be tried again: what it lost stays lost.
    assert!(disk.flush().is_err());
    assert_eq!(filters_io.faults().next().unwrap().failed(), 5);
    for kind in ["lost", "corrupt", "full"] {
        let (filters, _) = filters(&[&format!("error:kind={kind}"), "retry:tries=4,wait=1ms"]);
        assert!(filters.over(ram.clone()).unwrap().read_vec(0, 1).is_err());
        assert_eq!(filters.faults().next().unwrap().failed(), 1, "{kind}");
    }
}

#[test]
fn a_stopped_retry_lets_go_of_who_waits() {
    let (filters, _) = filters(&["error", "retry:tries=0,wait=1m"]);
    let disk = filters.over(Ram::new(4096)).unwrap();
    let reader = std::thread::spawn(move || disk.read_vec(0, 1));
    std::thread::sleep(Duration::from_millis(30));
    filters.retries().for_each(|retry| retry.stop());
    assert_eq!(reader.join().unwrap().unwrap_err().kind(), Kind::Io);
}

#[test]
fn injected_errors_hit_every_nth_request_of_the_ranges_and_kinds_named() {
    let (filters, _) = filters(&["error:every=3,ops=read,range=1K-2K,range=3K-4K"]);
    let disk = filters.over_writable(Ram::new(8192)).unwrap();
    let hits: Vec<bool> = (0..9).map(|_| disk.read_vec(1500, 10).is_err()).collect();
    assert_eq!(hits, [false, false, true, false, false, true, false, false, true]);
    assert!((0..9).all(|_| disk.read_vec(2048, 1024).is_ok()), "beside the ranges");
    assert!((0..9).all(|_| disk.write_at(&[1], 1500).is_ok()), "another kind");
    assert!((0..3).any(|_| disk.read_vec(0, 8192).is_err()), "over the ranges");
    filters.faults().next().unwrap().heal();
    assert!((0..9).all(|_| disk.read_vec(1500, 10).is_ok()));
}

#[test]
fn errors_that_are_counted_heal_by_themselves() {
    let (filters, _) = filters(&["error:count=2"]);
    let disk = filters.over(Ram::new(4096)).unwrap();
    let hits: Vec<bool> = (0..5).map(|_| disk.read_vec(0, 1).is_err()).collect();
    assert_eq!(hits, [true, true, false, false, false]);
}

#[test]
fn a_cache_asks_once_and_never_gives_what_was_overwritten() {
    let (filters, _) = filters(&["cache:size=1M,block=4K"]);
    let ram = Ram::new(1 << 20);
    let disk = filters.over_writable(ram.clone()).unwrap();
    for _ in 0..50 {
        disk.read_vec(10_000, 100).unwrap();
    }
    assert_eq!(ram.reads.load(Ordering::SeqCst), 1);
    std::thread::scope(|scope| {
        for thread in 0..4u64 {
            let disk = &disk;
            scope.spawn(move || {
                for round in 0..300u64 {
                    let at = thread * 4096 + 1000 * (thread % 3);
                    let stamp = (round ^ thread).to_le_bytes();
                    disk.write_at(&stamp, at).unwrap();
                    assert_eq!(disk.read_vec(at, 8).unwrap(), stamp);
                    disk.read_vec((thread * 31 + round) % 200 * 4096, 5000).unwrap();
                }
            });
        }
    });
}

#[test]
fn readahead_has_the_next_bytes_ready_for_a_reader_in_order() {
    let (filters, _) = filters(&["delay:read=2ms", "readahead:window=256K"]);
    let ram = Ram::new(4 << 20);
    let disk = filters.over(ram.clone()).unwrap();
    for at in (0..4 << 20).step_by(16 << 10) {
        disk.read_vec(at, 16 << 10).unwrap();
    }
    let reads = ram.reads.load(Ordering::SeqCst);
    assert!(reads < 80, "256 small reads became {reads}");
}

#[test]
fn a_rate_limit_holds_and_is_changed_while_somebody_waits() {
    let (filters, _) = filters(&["ratelimit:bytes=1M"]);
    let disk = filters.over(Ram::new(1 << 20)).unwrap();
    let begun = Instant::now();
    for _ in 0..5 {
        disk.read_vec(0, 64 << 10).unwrap();
    }
    let took = begun.elapsed();
    // The fifth waits until four are paid for: a quarter of a second.
    assert!((200..2000).contains(&took.as_millis()), "{took:?}");
    let limit = Arc::clone(filters.rate_limit().unwrap());
    limit.change(1000, 0);
    disk.read_vec(0, 60_000).unwrap();
    let waiter = std::thread::spawn(move || disk.read_vec(0, 1));
    std::thread::sleep(Duration::from_millis(30));
    assert!(!waiter.is_finished(), "a minute's worth is owed");
    limit.change(0, 0);
    let begun = Instant::now();
    waiter.join().unwrap().unwrap();
    assert!(begun.elapsed() < Duration::from_secs(10));
    assert_eq!(limit.limits(), (0, 0));
}

#[test]
fn operations_are_limited_by_number_as_well() {
    let (filters, _) = filters(&["ratelimit:ops=100"]);
    let disk = filters.over(Ram::new(4096)).unwrap();
    let begun = Instant::now();
    for _ in 0..40 {
        disk.read_vec(0, 1).unwrap();
    }
    assert!(begun.elapsed() >= Duration::from_millis(250), "{:?}", begun.elapsed());
}

#[test]
fn a_log_tells_of_each_request_and_its_end() {
    let (filters, notes) = filters(&["error:every=2,ops=read", "log"]);
    let disk = filters.over_writable(Ram::new(4096)).unwrap();
    disk.read_vec(1, 2).unwrap();
    disk.read_vec(3, 4).unwrap_err();
    disk.write_at(&[1, 2], 5).unwrap();
    disk.discard(8..9).unwrap();
    disk.flush().unwrap();
    let noted = notes.0.lock().unwrap().clone();
    assert_eq!(
        noted,
        ["read 1..3", "read 3..7 failed", "write 5..7", "discard 8..9", "flush 0..0"]
    );
}

#[test]
fn holes_below_stay_visible_and_places_do_not() {
    use adit_core::{Concat, Extents, Piece};
    let data = MemoryDisk::open("data", vec![1; 100]);
    let pieces = vec![Piece::whole(data.clone()), Piece::zero(50), Piece::whole(data)];
    let below = Concat::open("below", pieces).unwrap();
    for text in ["retry", "cache", "readahead", "log"] {
        let (filters, _) = filters(&[text]);
        let disk = filters.over(below.clone()).unwrap();
        let extents: Vec<_> = Extents::of(&disk, 0..250).map(|extent| extent.unwrap()).collect();
        let seen: Vec<_> =
            extents.iter().map(|extent| (extent.length, extent.kind.is_zero())).collect();
        assert_eq!(seen, [(100, false), (50, true), (100, false)], "{text}");
        assert!(matches!(extents[0].kind, ExtentKind::Data), "{text}");
    }
}

#[test]
fn what_is_no_filter_is_refused_with_what_there_is() {
    let sink: Arc<dyn Sink> = Arc::new(Notes::default());
    for text in [
        "",
        "nothing",
        "retry:tries",
        "retry:tries=x",
        "retry:turns=3",
        "retry:wait=99999h",
        "cache:block=3",
        "error:every=0",
        "error:range=5-4",
        "error:kind=odd",
        "log:x=1",
        "delay:read=1,read=2",
        "ratelimit:bytes=99999999999T",
        "readahead:window=1",
    ] {
        let error = Filter::parse(text, &sink).unwrap_err();
        assert_eq!(error.kind(), Kind::Invalid, "{text}");
    }
    let error = Filter::parse("retry:turns=3", &sink).unwrap_err();
    assert!(error.advice().unwrap().contains("tries=N"), "{error:?}");
}
