//! A disk with bad sectors, made of a vector.

use super::*;
use std::ops::Range;
use std::sync::Mutex;

const SECTOR: u64 = 512;

/// Sixteen KiB whose bytes all differ from their neighbours, with faults.
struct Faulty {
    /// These always fail.
    bad: Vec<Range<u64>>,
    /// The next reads fail with these.
    passing: Mutex<Vec<Errno>>,
    /// A read stops before a bad byte, as the page cache does, instead of failing whole.
    stops_short: bool,
    errno: Errno,
    length: u64,
    reads: AtomicU64,
}

impl Faulty {
    fn new() -> Self {
        Faulty {
            bad: Vec::new(),
            passing: Mutex::new(Vec::new()),
            stops_short: false,
            errno: Errno::IO,
            length: 16 << 10,
            reads: AtomicU64::new(0),
        }
    }

    fn with_one_bad(bad: Range<u64>) -> Self {
        Faulty { bad: vec![bad], ..Faulty::new() }
    }

    fn with_bad(bad: &[Range<u64>]) -> Self {
        Faulty { bad: bad.to_vec(), ..Faulty::new() }
    }

    fn failing_first(passing: &[Errno]) -> Self {
        Faulty { passing: Mutex::new(passing.to_vec()), ..Faulty::new() }
    }
}

fn byte_at(offset: u64) -> u8 {
    (offset % 251) as u8
}

impl Source for Faulty {
    fn read_some(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        if let Some(errno) = self.passing.lock().unwrap().pop() {
            return Err(errno.into());
        }
        let mut end = (offset + buf.len() as u64).min(self.length);
        for bad in &self.bad {
            if bad.start < end && offset < bad.end {
                if !self.stops_short || bad.start <= offset {
                    return Err(self.errno.into());
                }
                end = end.min(bad.start);
            }
        }
        let length = end.saturating_sub(offset) as usize;
        for (at, byte) in buf[..length].iter_mut().enumerate() {
            *byte = byte_at(offset + at as u64);
        }
        Ok(length)
    }
}

fn policy() -> ReadPolicy {
    ReadPolicy { first_delay: Duration::from_micros(10), ..ReadPolicy::default() }
}

fn counts(policy: &ReadPolicy) -> (u64, u64, u64) {
    let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let counters = &policy.counters;
    (of(&counters.retried), of(&counters.recovered), of(&counters.failed))
}

fn read(source: &Faulty, policy: &ReadPolicy, range: Range<u64>) -> Result<Vec<u8>> {
    let mut buf = vec![0xee; (range.end - range.start) as usize];
    let reader = Reader { source, policy, sector_size_bytes: SECTOR as u32 };
    reader.read(&mut buf, range.start)?;
    Ok(buf)
}

fn expected(range: Range<u64>) -> Vec<u8> {
    range.map(byte_at).collect()
}

#[test]
fn an_error_that_passes_is_read_over_and_counted() {
    let source = Faulty::failing_first(&[Errno::IO, Errno::NOMEM]);
    let policy = policy();
    assert_eq!(read(&source, &policy, 100..9000).unwrap(), expected(100..9000));
    assert_eq!(counts(&policy), (2, 1, 0));
}

#[test]
fn a_signal_is_neither_an_error_nor_a_retry() {
    let source = Faulty::failing_first(&[Errno::INTR; 9]);
    let policy = ReadPolicy { retries: 0, ..policy() };
    assert_eq!(read(&source, &policy, 0..512).unwrap(), expected(0..512));
    assert_eq!(counts(&policy), (0, 0, 0));
}

#[test]
fn retries_are_bounded_even_if_the_policy_is_not() {
    let source = Faulty::with_one_bad(0..512);
    let policy = ReadPolicy { retries: u32::MAX, first_delay: Duration::ZERO, ..policy() };
    assert!(read(&source, &policy, 0..512).is_err());
    assert_eq!(source.reads.load(Ordering::Relaxed), u64::from(RETRIES_MAX) + 1);
}

#[test]
fn the_delay_doubles_from_one_try_to_the_next() {
    let source = Faulty::with_one_bad(0..512);
    let policy = ReadPolicy { retries: 3, first_delay: Duration::from_millis(10), ..policy() };
    let start = std::time::Instant::now();
    assert!(read(&source, &policy, 0..512).is_err());
    assert!(start.elapsed() >= Duration::from_millis(10 + 20 + 40));
}

#[test]
fn a_large_read_names_the_exact_bad_sectors() {
    for stops_short in [false, true] {
        for bad in [0..512, 512..1024, 1536..4096, 15872..16384, 0..16384, 8192..8704] {
            let source = Faulty { stops_short, ..Faulty::with_one_bad(bad.clone()) };
            let policy = policy();
            let error = read(&source, &policy, 0..16384).unwrap_err();
            assert_eq!((error.kind(), error.problem()), (Kind::Io, Problem::Unreadable));
            let place = error.place().unwrap();
            assert_eq!((place.byte, place.index), (Some(bad.start), Some(bad.start / SECTOR)));
            let range = format!("bytes {:#x}..{:#x} ", bad.start, bad.end);
            assert!(error.detail().starts_with(&range), "{bad:?}: {}", error.detail());
            assert_eq!(error.os_code(), Some(Errno::IO.raw_os_error()));
            assert_eq!(counts(&policy).2, 1);
        }
    }
}

#[test]
fn of_several_bad_ranges_the_first_is_named() {
    let source = Faulty::with_bad(&[1024..2048, 3072..3584, 9216..16384]);
    let error = read(&source, &policy(), 0..16384).unwrap_err();
    assert!(error.detail().starts_with("bytes 0x400..0x800 (sectors 2-3 of 512"), "{error}");
}

#[test]
fn a_read_off_sector_boundaries_is_narrowed_to_them() {
    let source = Faulty::with_one_bad(2048..2560);
    let error = read(&source, &policy(), 700..5001).unwrap_err();
    assert!(error.detail().starts_with("bytes 0x800..0xa00 (sector 4 of 512"), "{error}");
    // Inside the bad sector only what was asked for is named.
    let error = read(&source, &policy(), 2100..2200).unwrap_err();
    assert!(error.detail().starts_with("bytes 0x834..0x898 (sector 4 of 512"), "{error}");
}

#[test]
fn every_read_beside_the_bad_sectors_succeeds() {
    let source = Faulty::with_one_bad(2048..2560);
    assert_eq!(read(&source, &policy(), 0..2048).unwrap(), expected(0..2048));
    assert_eq!(read(&source, &policy(), 2560..16384).unwrap(), expected(2560..16384));
}

#[test]
fn a_large_read_that_fails_only_as_a_whole_succeeds_in_parts() {
    // Fails as often as the policy allows, then once more for the first half.
    let source = Faulty::failing_first(&[Errno::IO; 5]);
    let policy = policy();
    assert_eq!(read(&source, &policy, 0..16384).unwrap(), expected(0..16384));
    assert_eq!(counts(&policy), (3, 1, 0));
}

#[test]
fn the_end_of_a_long_bad_range_is_not_sought_for_ever() {
    let source = Faulty { length: 1 << 30, ..Faulty::with_one_bad(0..1 << 30) };
    let policy = ReadPolicy { retries: 0, ..policy() };
    let error = read(&source, &policy, 0..4 << 20).unwrap_err();
    assert!(error.detail().starts_with("at least bytes 0x0..0x20200 "), "{error}");
    assert!(source.reads.load(Ordering::Relaxed) < 300);
}

#[test]
fn an_error_that_no_retry_mends_is_reported_at_once() {
    let source = Faulty { errno: Errno::NODEV, ..Faulty::with_one_bad(0..512) };
    let policy = policy();
    let error = read(&source, &policy, 0..16384).unwrap_err();
    assert_eq!(source.reads.load(Ordering::Relaxed), 1);
    assert_eq!((error.kind(), counts(&policy)), (Kind::Io, (0, 0, 1)));
    assert!(error.advice().unwrap().contains("gone"));
}

#[test]
fn short_reads_are_carried_on_and_an_early_end_is_lost() {
    let source = Faulty { length: 5000, ..Faulty::new() };
    let error = read(&source, &policy(), 4096..8192).unwrap_err();
    assert_eq!((error.kind(), error.problem()), (Kind::Lost, Problem::Truncated));
    assert_eq!(error.place().unwrap().byte, Some(5000));
}

#[test]
fn an_end_met_while_narrowing_is_an_end_and_no_loop() {
    let source = Faulty { length: 5000, ..Faulty::failing_first(&[Errno::IO; 4]) };
    let error = read(&source, &policy(), 4096..8192).unwrap_err();
    assert_eq!(error.problem(), Problem::Truncated);
}
