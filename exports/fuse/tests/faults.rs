//! Every call to the source fails once, and each once for good: errors arrive where they belong,
//! nothing hangs, nothing false is shown, and service goes on when the source heals.

mod common;

use adit_core::{
    Disk, DiskExt, Error, Extent, ExtentKind, Geometry, Hop, Limits, Next, Problem, ReadRequest,
    Result, WritableDisk,
};
use adit_fuse::{NamedRange, Source, mount};
use adit_testkit::Vmfs as Maker;
use adit_testkit::vmfs::Entry;
use adit_vmfs::Vmfs;
use common::*;
use std::ffi::OsString;
use std::fs::File;
use std::ops::Range;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

/// `EIO`.
const EIO: i32 = 5;

/// A disk whose calls are counted, and fail from one of them on, or only then.
#[derive(Debug)]
struct Failing {
    below: Arc<dyn Disk>,
    /// What was written, over the disk below.
    written: Mutex<Vec<u8>>,
    calls: AtomicU64,
    fails_at: u64,
    for_good: bool,
    healed: AtomicBool,
    failed: AtomicU64,
}

impl Failing {
    fn new(below: Arc<dyn Disk>, fails_at: u64, for_good: bool) -> Arc<Failing> {
        let (written, calls, healed, failed) = Default::default();
        Arc::new(Failing { below, written, calls, fails_at, for_good, healed, failed })
    }

    fn call(&self) -> Result<()> {
        let call = self.calls.fetch_add(1, Ordering::SeqCst);
        let due = if self.for_good { call >= self.fails_at } else { call == self.fails_at };
        if due && !self.healed.load(Ordering::SeqCst) {
            self.failed.fetch_add(1, Ordering::SeqCst);
            let why = std::io::Error::from_raw_os_error(EIO);
            return Err(Error::io(Problem::Unreadable, format!("call {call}"), &why));
        }
        Ok(())
    }

    fn failed(&self) -> u64 {
        self.failed.load(Ordering::SeqCst)
    }
}

impl Disk for Failing {
    fn geometry(&self) -> Geometry {
        self.below.geometry()
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.call()?;
        let written = self.written.lock().unwrap();
        if written.is_empty() {
            return self.below.read_at(buf, offset);
        }
        let at = usize::try_from(offset).unwrap();
        buf.copy_from_slice(&written[at..at + buf.len()]);
        Ok(())
    }

    fn read_batch(&self, batch: &mut [ReadRequest<'_>]) -> Result<()> {
        self.call()?;
        self.below.read_batch(batch)
    }

    fn extent_at(&self, offset: u64) -> Result<Extent> {
        self.call()?;
        self.check_range(offset, 1)?;
        let length = self.size_bytes() - offset;
        Ok(Extent { offset, length, kind: ExtentKind::Data })
    }

    fn as_file(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn explain(&self, offset: u64) -> Result<Hop> {
        Ok(Hop { layer: "failing".into(), offset, steps: Vec::new(), next: Next::Here })
    }
}

impl WritableDisk for Failing {
    fn write_at(&self, buf: &[u8], offset: u64) -> Result<()> {
        self.check_range(offset, buf.len() as u64)?;
        self.call()?;
        let at = usize::try_from(offset).unwrap();
        self.written.lock().unwrap()[at..at + buf.len()].copy_from_slice(buf);
        Ok(())
    }

    fn write_zeroes(&self, range: Range<u64>) -> Result<()> {
        let length = usize::try_from(range.end - range.start).unwrap();
        self.write_at(&vec![0; length], range.start)
    }

    fn discard(&self, _range: Range<u64>) -> Result<()> {
        self.call()
    }

    fn flush(&self) -> Result<()> {
        self.call()
    }
}

/// What a client asked for, and what came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Answer {
    Names(Vec<OsString>),
    Stat(u64, u64, u64, u32),
    Bytes(u64, Vec<u8>),
    Link(PathBuf),
    Failed(i32),
}

fn answer(result: std::io::Result<Answer>) -> Answer {
    result.unwrap_or_else(|why| Answer::Failed(why.raw_os_error().unwrap_or(0)))
}

fn names(dir: &Path) -> std::io::Result<Answer> {
    let names = std::fs::read_dir(dir)?.map(|entry| entry.map(|entry| entry.file_name()));
    let mut names = names.collect::<std::io::Result<Vec<_>>>()?;
    names.sort();
    Ok(Answer::Names(names))
}

fn stat(path: &Path) -> std::io::Result<Answer> {
    let found = path.symlink_metadata()?;
    Ok(Answer::Stat(found.ino(), found.len(), found.blocks(), found.mode()))
}

/// Asks for everything there is, one thing at a time, and hands each answer to `each`.
///
/// It goes by `plan`, what a sound volume answered, so that one failure hides nothing else.
fn ask(dir: &Path, plan: &[&str], each: &mut dyn FnMut(String, Answer)) {
    for path in plan {
        let full = dir.join(path);
        each(format!("stat {path}"), answer(stat(&full)));
        if path.ends_with("link") {
            each(format!("link {path}"), answer(std::fs::read_link(&full).map(Answer::Link)));
        } else if path.is_empty() || path.starts_with("dir") && !path.contains('/') {
            each(format!("list {path}"), answer(names(&full)));
        } else {
            let opened = File::open(&full);
            for piece in 0..5u64 {
                let at = piece * 700_000;
                let read = || {
                    let file = opened.as_ref().map_err(|why| {
                        std::io::Error::from_raw_os_error(why.raw_os_error().unwrap_or(0))
                    })?;
                    let mut bytes = vec![0; 65_536];
                    let length = file.read_at(&mut bytes, at)?;
                    bytes.truncate(length);
                    Ok(Answer::Bytes(at, bytes))
                };
                each(format!("read {path} at {at}"), answer(read()));
            }
        }
    }
}

const PLAN: [&str; 9] = [
    "",
    "dir0",
    "dir0/small",
    "dir0/large",
    "dir1",
    "dir1/link",
    "dir1/sparse",
    "small",
    "dir1/scattered",
];

fn volume() -> Volume {
    Volume::of(
        &Maker::six()
            .file("dir0/small", "tiny")
            .file("dir0/large", noise(3_000_000, 3))
            .file("small", noise(70_000, 4))
            .symlink("dir1/link", "../small")
            .with(Entry::sparse("dir1/sparse", 9 << 30, &[(700_000u64, noise(5000, 5))]))
            .with(Entry::file("dir1/scattered", noise(2_500_000, 6))),
    )
}

/// Mounts a volume whose disk fails; nothing if it cannot even be opened.
fn failing(volume: &Volume, fails_at: u64, for_good: bool) -> (Arc<Failing>, Option<Here>) {
    let host = adit_io::open(&volume.image, &adit_io::ReadPolicy::default()).unwrap();
    let disk = Failing::new(host, fails_at, for_good);
    let opened = Vmfs::open(disk.clone(), &Limits::default());
    let here = match opened.and_then(|fs| tried(Source::Files(fs), &direct(true))) {
        Ok(here) => Some(here),
        Err(error) => {
            assert!(disk.failed() > 0, "{error:?}");
            None
        }
    };
    (disk, here)
}

/// What a sound volume answers, and how many calls that takes.
fn sound(volume: &Volume) -> (Vec<(String, Answer)>, u64) {
    let (disk, here) = failing(volume, u64::MAX, false);
    let mut answers = Vec::new();
    ask(here.unwrap().path(), &PLAN, &mut |what, answer| {
        assert!(!matches!(answer, Answer::Failed(_)), "{what}: {answer:?}");
        answers.push((what, answer));
    });
    (answers, disk.calls.load(Ordering::SeqCst))
}

#[test]
fn each_call_that_fails_once_fails_what_needed_it_and_nothing_else() {
    let volume = volume();
    let (expected, calls) = sound(&volume);
    assert!(calls > 30, "{calls} calls: too few to mean anything");
    let (mut refused, mut met, mut told) = (0, 0, 0);
    for call in 0..calls {
        let (disk, here) = failing(&volume, call, false);
        let Some(here) = here else {
            refused += 1;
            continue;
        };
        let mut rest = expected.iter();
        let mut before = disk.failed();
        ask(here.path(), &PLAN, &mut |what, answer| {
            let (name, right) = rest.next().unwrap();
            assert_eq!(&what, name);
            let failed_now = disk.failed() > before;
            before = disk.failed();
            match answer {
                Answer::Failed(code) => {
                    // An error, the right one, and only of what met the failure.
                    assert_eq!(code, EIO, "call {call}: {what}");
                    // A file that could not be opened fails all of its reads.
                    assert!(failed_now || disk.failed() > 0 && what.starts_with("read"), "{what}");
                    told += 1;
                }
                // What lies before the failure may come alone; it is right.
                Answer::Bytes(at, bytes) => {
                    let Answer::Bytes(_, right) = right else { panic!("{what}") };
                    let whole = bytes == *right;
                    assert!(whole || failed_now && right.starts_with(&bytes), "{what} at {at}");
                }
                other => assert_eq!(&other, right, "call {call}: {what}"),
            }
        });
        met += u64::from(disk.failed() > 0);
        // It has healed: the same mount now answers everything.
        let mut rest = expected.iter();
        ask(here.path(), &PLAN, &mut |what, answer| {
            assert_eq!((&what, &answer), rest.next().map(|(n, a)| (n, a)).unwrap(), "call {call}");
        });
    }
    println!("{calls} calls: {refused} refused to open, {met} met, {told} told");
    assert!(refused + met + 3 >= calls, "{refused} + {met} of {calls}");
    assert!(told > 0);
}

#[test]
fn a_source_that_fails_from_any_call_on_gives_errors_until_it_heals() {
    let volume = volume();
    let (expected, calls) = sound(&volume);
    for call in (0..calls).step_by(3) {
        let (disk, here) = failing(&volume, call, true);
        let Some(here) = here else { continue };
        let mut rest = expected.iter();
        let mut failures = 0;
        ask(here.path(), &PLAN, &mut |what, answer| {
            let (_, right) = rest.next().unwrap();
            match answer {
                Answer::Failed(code) => {
                    assert_eq!(code, EIO, "call {call}: {what}");
                    failures += 1;
                }
                Answer::Bytes(_, bytes) => {
                    let Answer::Bytes(_, right) = right else { panic!("{what}") };
                    assert!(right.starts_with(&bytes), "call {call}: {what}");
                    assert!(right.is_empty() || !bytes.is_empty(), "call {call}: {what}");
                }
                other => assert_eq!(&other, right, "call {call}: {what}"),
            }
        });
        assert!(failures > 0 || disk.failed() == 0 || call + 8 > calls, "call {call} of {calls}");
        disk.healed.store(true, Ordering::SeqCst);
        let mut rest = expected.iter();
        ask(here.path(), &PLAN, &mut |what, answer| {
            assert_eq!((&what, &answer), rest.next().map(|(n, a)| (n, a)).unwrap(), "call {call}");
        });
    }
}

/// Writes, zeroes and syncs; tells the error of each step.
fn change(file: &File) -> Vec<Option<i32>> {
    let code = |done: std::io::Result<()>| done.err().map(|why| why.raw_os_error().unwrap_or(0));
    let mut codes = Vec::new();
    for step in 0..6u64 {
        let bytes = vec![u8::try_from(step).unwrap() + 1; 8192];
        codes.push(code(file.write_all_at(&bytes, step * 10_000)));
        codes.push(code(file.sync_all()));
    }
    codes
}

#[test]
fn each_failing_write_or_flush_is_told_to_who_made_it() {
    let size = 1 << 20;
    let run = |fails_at: u64| {
        let below = adit_core::MemoryDisk::open("memory", vec![0; size]);
        let disk = Failing::new(below, fails_at, false);
        *disk.written.lock().unwrap() = vec![0; size];
        let range = 0..size as u64;
        let partitions = vec![NamedRange { name: "part1.raw".into(), range }];
        let source = Source::Writable { disk: disk.clone(), partitions };
        let dir = tempfile::tempdir().unwrap();
        let mounted = mount(source, dir.path(), &options()).unwrap();
        let file = File::options().read(true).write(true).open(dir.path().join("part1.raw"));
        let file = file.unwrap();
        let codes = change(&file);
        // It has healed: everything can be written again, and is there.
        let again = change(&file);
        assert!(again.iter().all(Option::is_none), "call {fails_at}: {again:?}");
        let mut read = vec![0; 8192];
        file.read_exact_at(&mut read, 50_000).unwrap();
        assert_eq!(read, vec![6; 8192]);
        drop(file);
        mounted.unmount().unwrap();
        codes
    };
    assert!(run(u64::MAX).iter().all(Option::is_none));
    // Each step is one call.
    for call in 0..12 {
        let mut expected = vec![None; 12];
        expected[call] = Some(EIO);
        assert_eq!(run(call as u64), expected);
    }
}
