//! What ends a conversion early leaves nothing behind.

mod common;

use adit_convert::{ConvertOptions, Format, compare, convert};
use adit_core::{
    Concat, Disk, DiskExt, Error, Interrupt, Kind, MemoryDisk, Piece, Problem, Progress, Quiet,
};
use common::{data_file, judge, names, noise, remove, run, targets, write_source};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// 40 MiB that do not compress.
fn source() -> Arc<dyn Disk> {
    MemoryDisk::open("source", noise(40 << 20, 1))
}

/// Asks for a stop once so much is done.
struct StopAt {
    left: AtomicU64,
    interrupt: Interrupt,
}

impl Progress for StopAt {
    fn total(&self, _bytes: u64) {}
    fn advance(&self, bytes: u64) {
        let left = self.left.load(Ordering::Relaxed).saturating_sub(bytes);
        self.left.store(left, Ordering::Relaxed);
        if left == 0 {
            self.interrupt.raise();
        }
    }
    fn subject(&self, _what: &str) {}
}

#[test]
fn an_interrupt_leaves_nothing_wherever_it_comes() {
    let directory = tempfile::tempdir().unwrap();
    let source = source();
    for (target, options) in targets() {
        // In the middle of writing, and in the middle of comparing.
        for (bytes, verify) in [(10 << 20, false), (60 << 20, true)] {
            let interrupt = Interrupt::default();
            let progress = StopAt { left: AtomicU64::new(bytes), interrupt: interrupt.clone() };
            let image = directory.path().join("image");
            let options = ConvertOptions { verify, ..options.clone() };
            let error = convert(&source, "source", &image, &options, &progress, &interrupt)
                .expect_err("it was asked to stop");
            assert_eq!(error.kind(), Kind::Interrupted, "{target}: {error}");
            assert!(names(directory.path()).is_empty(), "{target}");
        }
    }
}

#[test]
fn a_source_that_lost_data_is_refused_and_leaves_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let pieces = vec![
        Piece::whole(MemoryDisk::open("data", noise(3 << 20, 1))),
        Piece::lost(1 << 20, Error::lost("member 2 is missing")),
    ];
    let source = Concat::open("source", pieces).unwrap();
    for (target, options) in targets() {
        let error = run(&source, &directory.path().join("image"), &options).unwrap_err();
        assert_eq!((error.kind(), error.detail()), (Kind::Lost, "member 2 is missing"), "{target}");
        assert_eq!(error.place().and_then(|place| place.byte), Some(3 << 20), "{target}");
        assert!(names(directory.path()).is_empty(), "{target}");
    }
}

#[test]
fn a_name_that_is_taken_is_not_taken_away() {
    let directory = tempfile::tempdir().unwrap();
    let image = directory.path().join("image.vmdk");
    for taken in ["image.vmdk", "image-flat.vmdk"] {
        let taken = directory.path().join(taken);
        std::fs::write(&taken, "precious").unwrap();
        let options = ConvertOptions::to(Format::VmdkFlat);
        let error = run(&source(), &image, &options).unwrap_err();
        assert_eq!((error.kind(), error.problem()), (Kind::Denied, Problem::Refused));
        assert_eq!(names(directory.path()), std::slice::from_ref(&taken));
        assert_eq!(std::fs::read(&taken).unwrap(), b"precious");
        std::fs::remove_file(&taken).unwrap();
    }
}

/// The test below runs this one, alone, inside a file system of 16 MiB.
#[test]
fn inside_a_small_file_system() {
    let Ok(directory) = std::env::var("ADIT_SMALL_FILE_SYSTEM") else { return };
    let (directory, source) = (Path::new(&directory), source());
    for (target, options) in targets() {
        let error = run(&source, &directory.join("image"), &options).unwrap_err();
        assert_eq!((error.kind(), error.problem()), (Kind::Io, Problem::Unwritable), "{target}");
        assert!(error.detail().contains("no space left"), "{target}: {error}");
        assert!(names(directory).is_empty(), "{target}");
    }
    let raw = directory.with_extension("raw");
    let source = write_source(&raw, 12 << 20, &vec![(0, noise(12 << 20, 1))]);
    for (target, options) in targets() {
        let image = directory.join("image");
        let options = ConvertOptions { resume: true, verify: true, ..options };
        std::fs::write(directory.join("ballast"), vec![1; 8 << 20]).unwrap();
        let error = run(&source, &image, &options).unwrap_err();
        assert!(error.detail().contains("no space left"), "{target}: {error}");
        assert!(!data_file(options.format, &image).exists(), "{target}");
        std::fs::remove_file(directory.join("ballast")).unwrap();
        let done = run(&source, &image, &options);
        let done = done.unwrap_or_else(|error| panic!("{target}: {}", error.report("convert")));
        assert!(done.resumed_bytes > 1 << 20, "{target}: {}", done.resumed_bytes);
        judge(options.format, &image, &raw, &target);
        remove(&image);
        if options.format == Format::VmdkFlat {
            remove(&data_file(options.format, &image));
        }
        assert!(names(directory).is_empty(), "{target}");
    }
    println!("all targets ran out of space");
}

#[test]
fn a_full_file_system_leaves_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let small = "mount -t tmpfs -o size=16m small \"$ADIT_SMALL_FILE_SYSTEM\" && exec \"$0\" \
                 --exact inside_a_small_file_system --nocapture";
    let output = Command::new("unshare")
        .args(["--mount", "--map-root-user", "sh", "-c", small])
        .arg(std::env::current_exe().unwrap())
        .env("ADIT_SMALL_FILE_SYSTEM", directory.path())
        .output()
        .expect("this test needs unshare: install util-linux");
    let said = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("all targets ran out of space"), "{said}");
}

/// A disk that gives other bytes when it is asked again.
#[derive(Debug)]
struct Fickle(Arc<dyn Disk>, AtomicU64);

impl Disk for Fickle {
    fn geometry(&self) -> adit_core::Geometry {
        self.0.geometry()
    }
    fn read_at(&self, buf: &mut [u8], offset: u64) -> adit_core::Result<()> {
        self.0.read_at(buf, offset)?;
        let seen = self.1.fetch_add(buf.len() as u64, Ordering::Relaxed);
        if let Some(byte) = buf.first_mut().filter(|_| seen >= self.0.size_bytes()) {
            *byte ^= 1;
        }
        Ok(())
    }
    fn read_batch(&self, batch: &mut [adit_core::ReadRequest<'_>]) -> adit_core::Result<()> {
        adit_core::read_each(self, batch)
    }
    fn extent_at(&self, offset: u64) -> adit_core::Result<adit_core::Extent> {
        self.0.extent_at(offset)
    }
    fn as_file(&self) -> Option<std::os::fd::BorrowedFd<'_>> {
        None
    }
    fn explain(&self, offset: u64) -> adit_core::Result<adit_core::Hop> {
        self.0.explain(offset)
    }
}

#[test]
fn an_image_that_does_not_verify_gets_no_name() {
    let directory = tempfile::tempdir().unwrap();
    for (target, options) in targets() {
        let source: Arc<dyn Disk> = Arc::new(Fickle(source(), AtomicU64::new(0)));
        let options = ConvertOptions { verify: true, ..options };
        let error = run(&source, &directory.path().join("image"), &options).unwrap_err();
        assert_eq!((error.kind(), error.problem()), (Kind::Corrupt, Problem::Mismatch), "{target}");
        assert!(names(directory.path()).is_empty(), "{target}");
    }
}

#[test]
fn a_comparison_that_cannot_read_says_so() {
    let lost = Concat::open("lost", vec![Piece::lost(1 << 20, Error::lost("gone"))]).unwrap();
    let there = MemoryDisk::open("there", vec![7; 1 << 20]);
    let error = compare(&lost, &there, &Quiet, &Interrupt::default()).unwrap_err();
    assert_eq!((error.kind(), error.detail()), (Kind::Lost, "gone"));
}
