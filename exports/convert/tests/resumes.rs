//! A conversion that was cut short goes on where it was, and never mixes two sources.

mod common;

use adit_convert::{Compression, ConvertOptions, Format};
use adit_core::{Disk, Kind, Problem};
use common::{judge, names, noise, open, run, write_source};
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

const MIB: u64 = 1 << 20;
/// Where data lie in the source, in MiB; the rest are holes.
const DATA: [std::ops::Range<u64>; 3] = [0..70, 90..150, 170..200];
const DATA_BYTES: u64 = 160 * MIB;
const FORMATS: [Format; 3] = [Format::Raw, Format::VhdFixed, Format::VmdkFlat];

fn resuming(format: Format) -> ConvertOptions {
    ConvertOptions { resume: true, threads: Some(2), ..ConvertOptions::to(format) }
}

fn make_source(path: &Path) -> Arc<dyn Disk> {
    let block = noise(1 << 20, 9);
    let stamped = |at: u64| {
        let mut block = block.clone();
        block[..8].copy_from_slice(&(at + 1).to_le_bytes());
        (at * MIB, block)
    };
    let content = DATA.into_iter().flatten().map(stamped).collect();
    write_source(path, 210 * MIB + 512, &content)
}

/// Counts what is read; once it is too much, the process dies as by a power cut.
#[derive(Debug)]
struct Counted {
    disk: Arc<dyn Disk>,
    read_bytes: AtomicU64,
    dies_at: u64,
}

impl Counted {
    fn of(disk: Arc<dyn Disk>, dies_at: u64) -> Arc<Counted> {
        Arc::new(Counted { disk, read_bytes: AtomicU64::new(0), dies_at })
    }
}

impl Disk for Counted {
    fn geometry(&self) -> adit_core::Geometry {
        self.disk.geometry()
    }
    fn read_at(&self, buf: &mut [u8], offset: u64) -> adit_core::Result<()> {
        let length = buf.len() as u64;
        if self.read_bytes.fetch_add(length, Ordering::SeqCst) + length > self.dies_at {
            let me = std::process::id().to_string();
            Command::new("kill").args(["-9", &me]).status().unwrap();
            std::thread::sleep(std::time::Duration::from_secs(60));
        }
        self.disk.read_at(buf, offset)
    }
    fn read_batch(&self, batch: &mut [adit_core::ReadRequest<'_>]) -> adit_core::Result<()> {
        adit_core::read_each(self, batch)
    }
    fn extent_at(&self, offset: u64) -> adit_core::Result<adit_core::Extent> {
        self.disk.extent_at(offset)
    }
    fn as_file(&self) -> Option<BorrowedFd<'_>> {
        None
    }
    fn explain(&self, offset: u64) -> adit_core::Result<adit_core::Hop> {
        let next = adit_core::Next::Disk(Arc::clone(&self.disk), offset);
        Ok(adit_core::Hop { layer: "counted".into(), offset, steps: Vec::new(), next })
    }
}

/// The tests below run this one in a process of its own, which dies of it.
#[test]
fn a_process_that_is_killed() {
    let Ok(directory) = std::env::var("ADIT_KILLED_IN") else { return };
    let directory = Path::new(&directory);
    let word = std::env::var("ADIT_KILLED_FORMAT").unwrap();
    let dies_at: u64 = std::env::var("ADIT_KILLED_AT").unwrap().parse().unwrap();
    let source: Arc<dyn Disk> = Counted::of(open(&directory.join("source.raw")), dies_at);
    let options = resuming(Format::parse(&word).unwrap());
    let _ = run(&source, &directory.join("image.vmdk"), &options);
    panic!("it was to be killed");
}

/// Runs a conversion that is killed once it has read so much.
fn killed(directory: &Path, format: Format, dies_at: u64) {
    use std::os::unix::process::ExitStatusExt;
    let status = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "a_process_that_is_killed"])
        .env("ADIT_KILLED_IN", directory)
        .env("ADIT_KILLED_FORMAT", format.word())
        .env("ADIT_KILLED_AT", dies_at.to_string())
        .stdout(std::process::Stdio::null())
        .status()
        .unwrap();
    assert_eq!(status.signal(), Some(9), "{format:?}");
}

fn data_file(directory: &Path, format: Format) -> PathBuf {
    let name = if format == Format::VmdkFlat { "image-flat.vmdk" } else { "image.vmdk" };
    directory.join(name)
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    PathBuf::from(format!("{}{suffix}", path.display()))
}

/// Data that stand in a partial file: everything is written in order.
fn written_bytes(partial: &Path) -> u64 {
    let bytes = std::fs::read(partial).unwrap();
    let holds = |at: &u64| {
        let block = &bytes[(at * MIB) as usize..][..1 << 20];
        block.iter().any(|byte| *byte != 0)
    };
    DATA.into_iter().flatten().filter(holds).count() as u64 * MIB
}

#[test]
fn after_a_kill_at_most_one_percent_and_one_interval_is_done_again() {
    for format in FORMATS {
        let directory = tempfile::tempdir().unwrap();
        let directory = directory.path();
        let raw = directory.join("source.raw");
        let source = make_source(&raw);
        let (image, data) = (directory.join("image.vmdk"), data_file(directory, format));
        // Killed twice: the second run carries on, and so does the third.
        killed(directory, format, 60 * MIB);
        killed(directory, format, 50 * MIB);
        assert!(!image.exists() && !data.exists(), "{format:?}");
        let written = written_bytes(&beside(&data, ".adit-partial"));
        let counted = Counted::of(source, u64::MAX);
        let source: Arc<dyn Disk> = counted.clone();
        let done = run(&source, &image, &resuming(format)).unwrap();
        assert!(done.resumed_bytes > 60 * MIB, "{format:?}: {}", done.resumed_bytes);
        let again = written - done.resumed_bytes;
        // An interval is 1 MiB here, and ends with the piece of 1 MiB that exceeds it.
        assert!(again <= DATA_BYTES / 100 + MIB, "{format:?}: {again}");
        let read = counted.read_bytes.load(Ordering::SeqCst);
        assert_eq!(read, DATA_BYTES - done.resumed_bytes, "{format:?}");
        assert_eq!(done.data_bytes, DATA_BYTES, "{format:?}");
        let left = if format == Format::VmdkFlat { 3 } else { 2 };
        assert_eq!(names(directory).len(), left, "{format:?}: {:?}", names(directory));
        judge(format, &image, &raw, "resumed");
    }
}

#[test]
fn what_the_journal_does_not_vouch_for_is_not_believed() {
    use std::os::unix::fs::FileExt;
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let raw = directory.join("source.raw");
    let source = make_source(&raw);
    let image = directory.join("image.vmdk");
    killed(directory, Format::Raw, 100 * MIB);
    // A power cut may leave anything in what was not flushed, and half a line in the journal.
    let partial = std::fs::File::options().write(true).open(beside(&image, ".adit-partial"));
    let partial = partial.unwrap();
    partial.write_all_at(&[0xee; 5000], 160 * MIB + 77).unwrap();
    partial.write_all_at(&[0xee; 512], 210 * MIB).unwrap();
    let journal = beside(&image, ".adit-resume");
    let mut lines = std::fs::read(&journal).unwrap();
    lines.extend_from_slice(b"2097152");
    std::fs::write(&journal, lines).unwrap();
    let done = run(&source, &image, &resuming(Format::Raw)).unwrap();
    assert!(done.resumed_bytes > 0);
    judge(Format::Raw, &image, &raw, "torn");
}

#[test]
fn another_source_or_a_changed_one_is_not_carried_on() {
    use std::os::unix::fs::FileExt;
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let raw = directory.join("source.raw");
    make_source(&raw);
    let image = directory.join("image.vmdk");
    killed(directory, Format::Raw, 100 * MIB);
    let before = std::fs::read(beside(&image, ".adit-resume")).unwrap();
    let other = write_source(&directory.join("other.raw"), MIB, &vec![(0, vec![1; 512])]);
    // One byte in the middle of data: same size, same map, later.
    std::fs::File::options().write(true).open(&raw).unwrap().write_all_at(b"!", 5 * MIB).unwrap();
    let keep = ConvertOptions { detect_zeroes: false, ..resuming(Format::Raw) };
    for (source, options) in
        [(other, resuming(Format::Raw)), (open(&raw), resuming(Format::Raw)), (open(&raw), keep)]
    {
        let error = run(&source, &image, &options).unwrap_err();
        assert_eq!((error.kind(), error.problem()), (Kind::Invalid, Problem::Mismatch), "{error}");
        assert!(error.advice().iter().any(|advice| advice.contains(".adit-resume")));
    }
    assert_eq!(std::fs::read(beside(&image, ".adit-resume")).unwrap(), before);
    assert!(!image.exists());
}

#[test]
fn formats_that_cannot_be_carried_on_say_so() {
    let directory = tempfile::tempdir().unwrap();
    let source = write_source(&directory.path().join("source.raw"), MIB, &vec![]);
    let image = directory.path().join("image");
    for format in Format::ALL.into_iter().filter(|format| !FORMATS.contains(format)) {
        let error = run(&source, &image, &resuming(format)).unwrap_err();
        assert_eq!(error.kind(), Kind::Invalid);
        assert!(error.detail().contains("is not carried on"), "{error}");
    }
    let verified = ConvertOptions { verify: true, ..resuming(Format::Raw) };
    assert!(run(&source, &image, &verified).unwrap_err().detail().contains("one go"));
    let compressed = ConvertOptions { compression: Compression::Zlib, ..resuming(Format::Qcow2) };
    run(&source, &image, &compressed).unwrap_err();
    assert_eq!(names(directory.path()).len(), 1);
}

#[test]
fn without_an_interruption_nothing_but_the_image_is_left() {
    let directory = tempfile::tempdir().unwrap();
    let source = write_source(
        &directory.path().join("source.raw"),
        3 * MIB,
        &vec![(MIB, noise(1 << 20, 3))],
    );
    let image = directory.path().join("image.raw");
    let done = run(&source, &image, &resuming(Format::Raw)).unwrap();
    assert_eq!((done.resumed_bytes, names(directory.path()).len()), (0, 2));
    judge(Format::Raw, &image, &directory.path().join("source.raw"), "whole");
    let error = run(&source, &image, &resuming(Format::Raw)).unwrap_err();
    assert_eq!((error.kind(), error.problem()), (Kind::Denied, Problem::Refused));
    assert_eq!(names(directory.path()).len(), 2);
}
