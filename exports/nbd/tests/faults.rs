//! A source that fails at one call, whichever it is, and then works again.

mod doubles;

use adit_core::{
    Disk, DiskExt, Error, Extent, ExtentKind, Geometry, Hop, Next, Problem, ReadRequest, Result,
    WritableDisk, read_each,
};
use adit_filters::{Entry, Filters, Sink};
use adit_nbd::Export;
use adit_overlay::{Layer, Live, Temporary};
use doubles::{Chunk, Raw, noise, serve};
use std::ops::Range;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

const SIZE: usize = 1 << 20;
/// Every other piece of this length is a hole.
const PIECE: u64 = 24 << 10;

/// Memory whose calls are counted, one of which fails.
#[derive(Debug)]
struct Source {
    bytes: Mutex<Vec<u8>>,
    calls: AtomicU64,
    fails_at: u64,
    /// The range of the call that failed; none for a flush.
    failed: Mutex<Option<Option<Range<u64>>>>,
}

impl Source {
    fn new(fails_at: u64) -> Arc<Source> {
        let (bytes, calls) = (before().into(), AtomicU64::new(0));
        Arc::new(Source { bytes, calls, fails_at, failed: Mutex::default() })
    }

    fn call(&self, range: Option<Range<u64>>) -> Result<()> {
        if self.calls.fetch_add(1, Ordering::SeqCst) != self.fails_at {
            return Ok(());
        }
        *self.failed.lock().unwrap() = Some(range);
        let why = std::io::Error::from_raw_os_error(5);
        Err(Error::io(Problem::Unreadable, "the source fails this once", &why))
    }
}

impl Disk for Source {
    fn geometry(&self) -> Geometry {
        Geometry::of_size(SIZE as u64)
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.check_range(offset, buf.len() as u64)?;
        self.call(Some(offset..offset + buf.len() as u64))?;
        buf.copy_from_slice(&self.bytes.lock().unwrap()[offset as usize..][..buf.len()]);
        Ok(())
    }

    fn read_batch(&self, batch: &mut [ReadRequest<'_>]) -> Result<()> {
        read_each(self, batch)
    }

    fn extent_at(&self, offset: u64) -> Result<Extent> {
        self.check_range(offset, 1)?;
        self.call(Some(offset..offset + 1))?;
        let length = (PIECE - offset % PIECE).min(SIZE as u64 - offset);
        let range = offset as usize..(offset + length) as usize;
        let is_hole = self.bytes.lock().unwrap()[range].iter().all(|&byte| byte == 0);
        let kind = if is_hole { ExtentKind::Hole } else { ExtentKind::Data };
        Ok(Extent { offset, length, kind })
    }

    fn as_file(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn explain(&self, offset: u64) -> Result<Hop> {
        Ok(Hop { layer: "source".into(), offset, steps: Vec::new(), next: Next::Here })
    }
}

impl WritableDisk for Source {
    fn write_at(&self, buf: &[u8], offset: u64) -> Result<()> {
        self.call(Some(offset..offset + buf.len() as u64))?;
        self.bytes.lock().unwrap()[offset as usize..][..buf.len()].copy_from_slice(buf);
        Ok(())
    }

    fn write_zeroes(&self, range: Range<u64>) -> Result<()> {
        self.call(Some(range.clone()))?;
        self.bytes.lock().unwrap()[range.start as usize..range.end as usize].fill(0);
        Ok(())
    }

    fn discard(&self, range: Range<u64>) -> Result<()> {
        self.write_zeroes(range)
    }

    fn flush(&self) -> Result<()> {
        self.call(None)
    }
}

fn before() -> Vec<u8> {
    let mut bytes = noise(3, SIZE);
    for (index, piece) in bytes.chunks_mut(PIECE as usize).enumerate() {
        if index % 2 == 1 {
            piece.fill(0);
        }
    }
    bytes
}

/// A request of the script.
#[derive(Clone, Copy)]
struct Ask {
    command: u16,
    flags: u16,
    offset: u64,
    length: u64,
}

const READ: u16 = 0;
const WRITE: u16 = 1;
const FLUSH: u16 = 3;
const TRIM: u16 = 4;
const ZERO: u16 = 6;
const STATUS: u16 = 7;
const FUA: u16 = 1;
const DONT_SPLIT: u16 = 4;

/// No two requests touch the same bytes, so that a failure belongs to one of them.
fn script(writes: bool) -> Vec<Ask> {
    let ask = |command, flags, offset: u64, length: u64| Ask {
        command,
        flags,
        offset: offset << 10,
        length: length << 10,
    };
    let mut all = vec![
        ask(READ, 0, 0, 4),
        ask(READ, 0, 20, 60),
        ask(READ, DONT_SPLIT, 90, 40),
        ask(STATUS, 0, 140, 100),
        ask(READ, 0, 250, 300),
    ];
    if writes {
        all.extend([
            ask(WRITE, 0, 560, 4),
            ask(WRITE, 0, 564, 4),
            ask(WRITE, 0, 568, 4),
            ask(ZERO, 0, 580, 20),
            ask(TRIM, 0, 610, 8),
            ask(WRITE, FUA, 620, 3),
            ask(WRITE, 0, 630, 270),
            ask(FLUSH, 0, 0, 0),
            ask(WRITE, FUA, 910, 1),
        ]);
    }
    all
}

fn payload(ask: &Ask) -> Vec<u8> {
    noise(ask.offset + 77, ask.length as usize)
}

fn send(raw: &mut Raw, index: usize, ask: &Ask) {
    raw.request(ask.flags, ask.command, index as u64, ask.offset, ask.length as u32);
    if ask.command == WRITE {
        raw.send(&[&payload(ask)]);
    }
}

/// What was answered to each request: an error number with its offset, or the bytes of a read.
type Answer = std::result::Result<Vec<u8>, (u32, Option<u64>)>;

/// What has come of a reply so far: chunks of several may alternate.
#[derive(Clone, Default)]
struct Partial {
    bytes: Vec<u8>,
    failed: Option<(u32, Option<u64>)>,
}

/// Takes replies, simple or of chunks, until one is complete; its cookie comes first.
fn answer(raw: &mut Raw, script: &[Ask], partial: &mut [Partial]) -> (usize, Answer) {
    loop {
        let magic = raw.u32();
        if magic == 0x6744_6698 {
            let (error, cookie) = (raw.u32(), raw.u64());
            let answer = if error == 0 { Ok(Vec::new()) } else { Err((error, None)) };
            return (cookie as usize, answer);
        }
        assert_eq!(magic, 0x668e_33ef);
        let (flags, kind, cookie) = (raw.u16(), raw.u16(), raw.u64());
        let length = raw.u32() as usize;
        let chunk = Chunk { flags, kind, cookie, payload: raw.take(length) };
        let (ask, state) = (&script[cookie as usize], &mut partial[cookie as usize]);
        let number = |range: Range<usize>| {
            chunk.payload[range].iter().fold(0u64, |sum, &byte| sum << 8 | u64::from(byte))
        };
        state.bytes.resize(ask.length as usize, 0xee);
        match kind {
            0 | 5 => {}
            1 => {
                let at = (number(0..8) - ask.offset) as usize;
                state.bytes[at..at + length - 8].copy_from_slice(&chunk.payload[8..]);
            }
            2 => {
                let at = (number(0..8) - ask.offset) as usize;
                state.bytes[at..at + number(8..12) as usize].fill(0);
            }
            0x8001 => state.failed = Some((number(0..4) as u32, None)),
            0x8002 => {
                state.failed = Some((number(0..4) as u32, Some(number(length - 8..length))));
            }
            other => panic!("a chunk of kind {other}"),
        }
        if flags & 1 != 0 {
            let Partial { bytes, failed } = std::mem::take(state);
            return (cookie as usize, failed.map_or(Ok(bytes), Err));
        }
    }
}

/// Runs the script and gives what was answered; all at once, or one after the other.
fn run(raw: &mut Raw, script: &[Ask], at_once: bool) -> Vec<Answer> {
    let mut partial = vec![Partial::default(); script.len()];
    let mut answers: Vec<Option<Answer>> = script.iter().map(|_| None).collect();
    let sender = at_once.then(|| {
        // A client must listen while it talks.
        let (mut other, script) = (Raw(raw.0.try_clone().unwrap()), script.to_vec());
        std::thread::spawn(move || {
            script.iter().enumerate().for_each(|(index, ask)| send(&mut other, index, ask));
        })
    });
    for (index, ask) in script.iter().enumerate() {
        if !at_once {
            send(raw, index, ask);
        }
        let (cookie, got) = answer(raw, script, &mut partial);
        assert!(answers[cookie].replace(got).is_none(), "two answers");
    }
    sender.into_iter().for_each(|sender| sender.join().unwrap());
    answers.into_iter().map(Option::unwrap).collect()
}

/// What bytes may be: as they were, as they were to become, or either.
struct Model {
    old: Vec<u8>,
    new: Vec<u8>,
}

impl Model {
    fn of(script: &[Ask], answers: &[Answer]) -> Model {
        let mut model = Model { old: before(), new: before() };
        for (ask, answer) in script.iter().zip(answers) {
            let range = ask.offset as usize..(ask.offset + ask.length) as usize;
            let bytes = match ask.command {
                WRITE => payload(ask),
                ZERO | TRIM => vec![0; ask.length as usize],
                _ => continue,
            };
            model.new[range.clone()].copy_from_slice(&bytes);
            // A trim promises nothing of what is there after it.
            if answer.is_ok() && ask.command != TRIM {
                model.old[range].copy_from_slice(&bytes);
            }
        }
        model
    }

    #[track_caller]
    fn check(&self, bytes: &[u8], about: &str) {
        let wrong = (0..SIZE).find(|&at| bytes[at] != self.old[at] && bytes[at] != self.new[at]);
        assert_eq!(wrong, None, "{about}");
    }
}

/// Runs the script once for every call it makes, with that call failing.
fn every_call_fails_once(
    writes: bool,
    make: impl Fn(Arc<Source>) -> Export,
    blame: impl Fn(&Ask, &Option<Range<u64>>) -> bool,
) {
    let script = script(writes);
    for at_once in [false, true] {
        let healthy = Source::new(u64::MAX);
        let served = serve(vec![make(healthy.clone())]);
        let opening = healthy.calls.load(Ordering::SeqCst);
        let answers = run(&mut served.raw().enter("x", &["base:allocation"]), &script, at_once);
        assert!(answers.iter().all(Result::is_ok));
        let calls = healthy.calls.load(Ordering::SeqCst);
        drop(served);
        assert!(calls - opening > 5, "{calls}");
        let mut met = 0;
        for fails_at in opening..calls {
            let about = format!("call {fails_at} of {calls}, at once: {at_once}");
            let source = Source::new(fails_at);
            let served = serve(vec![make(source.clone())]);
            let mut raw = served.raw().enter("x", &["base:allocation"]);
            let answers = run(&mut raw, &script, at_once);
            let Some(failed) = source.failed.lock().unwrap().clone() else {
                // Requests that arrive together, or threads that overtake each other, may make
                // fewer calls than the first time.
                continue;
            };
            met += 1;
            for (ask, answer) in script.iter().zip(&answers) {
                match answer {
                    Err((number, offset)) => {
                        assert_eq!(*number, 5, "{about}");
                        assert!(blame(ask, &failed), "{about}: {failed:?} is not {}", ask.offset);
                        let range = ask.offset..ask.offset + ask.length;
                        assert!(offset.is_none_or(|at| range.contains(&at)), "{about}");
                    }
                    Ok(bytes) if ask.command == READ => {
                        let range = ask.offset as usize..(ask.offset + ask.length) as usize;
                        let wrong = bytes.iter().zip(&before()[range]).position(|(a, b)| a != b);
                        assert_eq!(wrong, None, "{about}: wrong bytes from {}", ask.offset);
                    }
                    Ok(_) => {}
                }
            }
            let errors = answers.iter().filter(|answer| answer.is_err()).count();
            assert!(errors <= 1, "{about}: {errors} requests failed for one call");
            assert!(errors == 1 || failed.is_some(), "{about}: a flush failed and nobody knows");
            // The source works again, and so does everything, on the same connection.
            let whole = [Ask { command: READ, flags: 0, offset: 0, length: SIZE as u64 }];
            let bytes = run(&mut raw, &whole, false).remove(0).expect("it is healed");
            Model::of(&script, &answers).check(&bytes, &about);
            let again = run(&mut raw, &script, at_once);
            assert!(again.iter().all(Result::is_ok), "{about}: it does not heal");
            let bytes = run(&mut raw, &whole, false).remove(0).expect("it is healed");
            Model::of(&script, &again).check(&bytes, &about);
        }
        assert!(met * 3 >= calls - opening, "only {met} of {calls} calls failed");
    }
}

/// A call belongs to the request whose bytes it touches; a flush to those that flush.
fn touches(ask: &Ask, failed: &Option<Range<u64>>) -> bool {
    match failed {
        None => ask.command == FLUSH || ask.flags & FUA != 0,
        Some(range) => ask.offset < range.end && range.start < ask.offset + ask.length,
    }
}

#[test]
fn a_read_that_fails_is_an_error_of_its_own_range_and_nothing_else() {
    every_call_fails_once(false, |source| Export::read_only("x", source), touches);
}

#[test]
fn a_write_that_fails_is_an_error_of_its_own_range_and_nothing_else() {
    every_call_fails_once(true, |source| Export::writable("x", source), touches);
}

#[test]
fn a_failure_below_an_overlay_reaches_the_request_that_needed_it() {
    let over = |source: Arc<Source>| {
        let below: Arc<dyn Disk> = source;
        let top = Temporary::new(Arc::clone(&below), &std::env::temp_dir()).unwrap();
        let layers = vec![Layer::read_only("below", below), Layer::writable("top", Arc::new(top))];
        Export::writable("x", Live::new(layers).unwrap() as Arc<dyn WritableDisk>)
    };
    // What an overlay reads of the disk below for a write is the rest of its block.
    let blocks = |ask: &Ask, failed: &Option<Range<u64>>| {
        let start = ask.offset & !4095;
        let wide = Ask { offset: start, length: (ask.offset + ask.length - start) | 4095, ..*ask };
        touches(&wide, failed)
    };
    every_call_fails_once(true, over, blocks);
}

#[derive(Debug)]
struct Deaf;

impl Sink for Deaf {
    fn note(&self, _entry: &Entry<'_>) {}
}

#[test]
fn with_the_retry_filter_clients_see_no_failure_that_heals_but_one_of_a_flush() {
    let script = script(true);
    let sink: Arc<dyn Sink> = Arc::new(Deaf);
    for fails_at in 0..60 {
        let source = Source::new(fails_at);
        let filters = Filters::parse(["retry:tries=3,wait=1ms"], &sink).unwrap();
        let disk = filters.over_writable(source.clone() as Arc<dyn WritableDisk>).unwrap();
        let served = serve(vec![Export::writable("x", disk)]);
        let mut raw = served.raw().enter("x", &["base:allocation"]);
        let answers = run(&mut raw, &script, fails_at % 2 == 0);
        // A flush is not asked for again: what it failed to write is forgotten by then.
        let is_flush = *source.failed.lock().unwrap() == Some(None);
        let errors = answers.iter().filter(|answer| answer.is_err()).count();
        assert_eq!(errors, usize::from(is_flush), "call {fails_at}");
        let whole = [Ask { command: READ, flags: 0, offset: 0, length: SIZE as u64 }];
        let bytes = run(&mut raw, &whole, false).remove(0).unwrap();
        Model::of(&script, &answers).check(&bytes, "after all");
    }
}
