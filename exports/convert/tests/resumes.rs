//! A conversion that was cut short goes on where it was, and never mixes two sources.

mod common;

use adit_convert::{ConvertOptions, Format};
use adit_core::{Disk, Kind, Problem};
use common::{data_file, judge, names, noise, open, run, targets, text, write_source};
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

const MIB: u64 = 1 << 20;
/// Where data lie in the source, in MiB; the rest are holes.
const DATA: [std::ops::Range<u64>; 3] = [0..70, 90..150, 170..200];
const DATA_BYTES: u64 = 160 * MIB;

fn resuming(format: Format) -> ConvertOptions {
    let identity = Some([7; 16]);
    ConvertOptions { resume: true, threads: Some(2), identity, ..ConvertOptions::to(format) }
}

/// Every format, and QCOW2 with every compression and with units far from the usual.
fn all() -> Vec<(String, ConvertOptions)> {
    let chosen = |(_, options): &(String, ConvertOptions)| {
        let units = [None, Some(512), Some(4096), Some(2 << 20), Some(32 << 20)];
        options.level.is_none() && units.contains(&options.cluster_size_bytes)
    };
    let with = |(name, options): (String, ConvertOptions)| {
        let identity = Some([7; 16]);
        (name, ConvertOptions { resume: true, threads: Some(2), identity, ..options })
    };
    targets().into_iter().filter(chosen).map(with).collect()
}

fn named(name: &str) -> ConvertOptions {
    let mut all = all().into_iter();
    all.find(|(found, _)| found == name).unwrap_or_else(|| panic!("{name}")).1
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
    let name = std::env::var("ADIT_KILLED_TARGET").unwrap();
    let verify = std::env::var("ADIT_KILLED_VERIFY").is_ok();
    let dies_at: u64 = std::env::var("ADIT_KILLED_AT").unwrap().parse().unwrap();
    let source: Arc<dyn Disk> = Counted::of(open(&directory.join("source.raw")), dies_at);
    let options = ConvertOptions { verify, ..named(&name) };
    let _ = run(&source, &directory.join("image.vmdk"), &options);
    panic!("it was to be killed");
}

/// Runs a conversion that is killed once it has read so much; whether it was.
fn killed(directory: &Path, target: &str, verify: bool, dies_at: u64) -> bool {
    use std::os::unix::process::ExitStatusExt;
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "a_process_that_is_killed"]);
    command.env("ADIT_KILLED_IN", directory).env("ADIT_KILLED_TARGET", target);
    command.env("ADIT_KILLED_AT", dies_at.to_string());
    if verify {
        command.env("ADIT_KILLED_VERIFY", "1");
    }
    let output = command.output().unwrap();
    output.status.signal() == Some(9)
}

fn sha256(path: &Path) -> Option<String> {
    use sha2::{Digest, Sha256};
    let hash = Sha256::digest(std::fs::read(path).unwrap());
    Some(hash.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    PathBuf::from(format!("{}{suffix}", path.display()))
}

#[test]
fn after_a_kill_at_most_one_percent_is_done_again() {
    for (name, options) in all() {
        // With units of 2 MiB and more, the ten that are under way are more than one percent.
        if options.cluster_size_bytes.is_some_and(|bytes| bytes > 1 << 20) {
            continue;
        }
        let directory = tempfile::tempdir().unwrap();
        let directory = directory.path();
        let raw = directory.join("source.raw");
        let source = make_source(&raw);
        let image = directory.join("image.vmdk");
        let data = data_file(options.format, &image);
        // Killed twice: the second run carries on, and so does the third.
        let read = [60 * MIB, 50 * MIB];
        for dies_at in read {
            assert!(killed(directory, &name, false, dies_at), "{name}");
        }
        assert!(image.is_dir() || !image.exists() && !data.exists(), "{name}");
        let counted = Counted::of(source, u64::MAX);
        let source: Arc<dyn Disk> = counted.clone();
        let done = run(&source, &image, &options).unwrap();
        let again = read.iter().sum::<u64>() - done.resumed_bytes;
        assert!(again <= 2 * DATA_BYTES / 100, "{name}: {again}");
        let read = counted.read_bytes.load(Ordering::SeqCst);
        assert_eq!(read, DATA_BYTES - done.resumed_bytes, "{name}");
        assert_eq!(done.data_bytes, DATA_BYTES, "{name}");
        let left = if options.format == Format::VmdkFlat { 3 } else { 2 };
        assert_eq!(names(directory).len(), left, "{name}: {:?}", names(directory));
        judge(options.format, &image, &raw, &name);
    }
}

#[test]
fn however_often_it_is_killed_the_image_is_that_of_an_unbroken_run() {
    for (name, options) in all() {
        let directory = tempfile::tempdir().unwrap();
        let directory = directory.path();
        let raw = directory.join("source.raw");
        let content = vec![
            (0, text(3 << 20, 1)),
            (5 * MIB + 4096, noise(2 << 20, 2)),
            (9 * MIB + 65_536, text(700_000, 3)),
            (40 * MIB - 512, noise(1 << 20, 4)),
            (42 * MIB, vec![0; 1 << 20]),
            (70 * MIB + 1024, text(2 << 20, 5)),
        ];
        let source = write_source(&raw, 80 * MIB + 512, &content);
        let image = directory.join("image.vmdk");
        let verify = name.len() % 2 == 0;
        // Each time less is read than half of what there is.
        for _ in 0..3 {
            assert!(killed(directory, &name, verify, 5 * MIB / 2), "{name}");
        }
        let whole = directory.join("whole");
        std::fs::create_dir(&whole).unwrap();
        let done = run(&source, &image, &ConvertOptions { verify, ..options.clone() }).unwrap();
        let whole = whole.join("image.vmdk");
        let unbroken = ConvertOptions { resume: false, verify, ..options.clone() };
        let unbroken = run(&source, &whole, &unbroken).unwrap();
        assert_eq!(done.hashes, unbroken.hashes, "{name}");
        assert_eq!(done.hashes.and_then(|it| it.sha256), sha256(&raw).filter(|_| verify), "{name}");
        judge(options.format, &image, &raw, &name);
        // A VHD tells when it was made.
        if !matches!(options.format, Format::VhdDynamic | Format::VhdFixed) {
            let [ours, whole] = [&image, &whole].map(|image| data_file(options.format, image));
            let same = std::fs::read(ours).unwrap() == std::fs::read(whole).unwrap();
            assert!(same, "{name}");
        }
    }
}

#[test]
fn an_image_that_was_cut_but_not_yet_named_is_carried_on() {
    for (name, options) in all() {
        let directory = tempfile::tempdir().unwrap();
        let directory = directory.path();
        let raw = directory.join("source.raw");
        let source = write_source(&raw, 9 * MIB, &vec![(MIB, text(3 << 20, 1))]);
        // It converts 3 MiB, and is killed while it compares.
        let reads = 4 * MIB + 65_536 * 2;
        assert!(killed(directory, &name, true, reads), "{name}");
        let image = directory.join("image.vmdk");
        assert!(!data_file(options.format, &image).exists(), "{name}");
        let counted = Counted::of(source, u64::MAX);
        let source: Arc<dyn Disk> = counted.clone();
        let done = run(&source, &image, &ConvertOptions { verify: true, ..options.clone() });
        let done = done.unwrap_or_else(|error| panic!("{name}: {}", error.report("convert")));
        assert_eq!(done.hashes.and_then(|it| it.sha256), sha256(&raw), "{name}");
        judge(options.format, &image, &raw, &name);
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
    assert!(killed(directory, "raw", false, 100 * MIB));
    // A power cut may leave anything in what was not flushed, and half a line in the journal.
    let partial = std::fs::File::options().write(true).open(beside(&image, ".adit-partial"));
    let partial = partial.unwrap();
    partial.write_all_at(&[0xee; 5000], 160 * MIB + 77).unwrap();
    partial.write_all_at(&[0xee; 512], 210 * MIB).unwrap();
    let journal = beside(&image, ".adit-resume");
    let mut lines = std::fs::read(&journal).unwrap();
    lines.extend_from_slice(b"167772160 125829120 125829120 - - 0123456789abcdef\n");
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
    assert!(killed(directory, "raw", false, 100 * MIB));
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
