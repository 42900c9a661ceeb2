//! A copy holds what its source holds, and moves no more than it must.

mod doubles;

use adit_copy::{CopyOptions, Source, Sparse, copy_disk, copy_file, stream};
use adit_core::{Concat, Disk, DiskExt, Interrupt, Kind, Piece, Quiet, Slice};
use adit_io::{Overwrite, ReadPolicy, Target};
use doubles::{Fake, Memory, What, byte_at, names};
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

const MIB: u64 = 1 << 20;

fn fake() -> Arc<Fake> {
    Arc::new(Fake::of(vec![
        (3 * MIB + 700, What::Data),
        (5 * MIB, What::Hole),
        (4096, What::Data),
        (MIB, What::Hole),
        (9, What::Data),
    ]))
}

fn disk(fake: &Arc<Fake>) -> Arc<dyn Disk> {
    Arc::clone(fake) as Arc<dyn Disk>
}

fn copy_to_memory(fake: &Arc<Fake>, memory: &Memory, options: &CopyOptions) -> adit_copy::Copied {
    let size = fake.size_bytes();
    copy_disk(&disk(fake), 0..size, memory, options, &Quiet, &Interrupt::default()).unwrap()
}

#[test]
fn holes_are_neither_read_nor_written_on_a_blank_target() {
    let fake = fake();
    let memory = Memory::filled(fake.size_bytes() as usize, 0);
    let options = CopyOptions { blank_target: true, ..CopyOptions::default() };
    let copied = copy_to_memory(&fake, &memory, &options);
    assert_eq!(*memory.bytes.lock().unwrap(), fake.content());
    assert_eq!((copied.copied_bytes, copied.hole_bytes), (3 * MIB + 700 + 4096 + 9, 6 * MIB));
    assert_eq!(fake.bytes_read(), copied.copied_bytes);
    let written: u64 = memory.writes.lock().unwrap().iter().map(|w| w.end - w.start).sum();
    assert_eq!((written, memory.zeroed.lock().unwrap().len()), (copied.copied_bytes, 0));
}

#[test]
fn a_used_target_is_zeroed_where_the_source_has_holes() {
    let fake = fake();
    let memory = Memory::filled(fake.size_bytes() as usize, 0xee);
    copy_to_memory(&fake, &memory, &CopyOptions::default());
    assert_eq!(*memory.bytes.lock().unwrap(), fake.content());
    assert_eq!(memory.zeroed.lock().unwrap().len(), 2);
}

#[test]
fn sparse_never_writes_every_zero_and_sparse_always_finds_them() {
    let fake = fake();
    let memory = Memory::filled(fake.size_bytes() as usize, 0xee);
    let never = CopyOptions { sparse: Sparse::Never, ..CopyOptions::default() };
    copy_to_memory(&fake, &memory, &never);
    assert_eq!(*memory.bytes.lock().unwrap(), fake.content());
    assert!(memory.zeroed.lock().unwrap().is_empty());

    let zeros = adit_core::MemoryDisk::open("zeros", {
        let mut bytes = vec![0; 100_000];
        bytes[50_000] = 1;
        bytes
    });
    let memory = Memory::filled(100_000, 0xee);
    let always = CopyOptions { sparse: Sparse::Always, ..CopyOptions::default() };
    let copied =
        copy_disk(&zeros, 0..100_000, &memory, &always, &Quiet, &Interrupt::default()).unwrap();
    assert_eq!((copied.copied_bytes, copied.hole_bytes), (4096, 100_000 - 4096));
    assert_eq!(memory.bytes.lock().unwrap()[50_000], 1);
    assert_eq!(memory.bytes.lock().unwrap().iter().filter(|&&b| b != 0).count(), 1);
}

#[test]
fn a_range_starts_at_byte_zero_of_the_target() {
    let fake = fake();
    let memory = Memory::filled((6 * MIB) as usize, 7);
    let range = MIB + 3..7 * MIB + 3;
    let options = CopyOptions::default();
    copy_disk(&disk(&fake), range, &memory, &options, &Quiet, &Interrupt::default()).unwrap();
    let from = (MIB + 3) as usize;
    assert_eq!(*memory.bytes.lock().unwrap(), fake.content()[from..from + (6 * MIB) as usize]);
}

/// A host file cut up and put together again in another order, with a hole between.
fn shuffled(folder: &std::path::Path) -> (Arc<dyn Disk>, Vec<u8>) {
    let path = folder.join("lun.img");
    let bytes: Vec<u8> = (0..4 * MIB).map(byte_at).collect();
    std::fs::write(&path, &bytes).unwrap();
    let lun = adit_io::open(&path, &ReadPolicy::default()).unwrap();
    let part = Slice::open("part", lun, 512, 3 * MIB);
    let joined = Concat::open(
        "file",
        vec![
            Piece::part(Arc::clone(&part), 2 * MIB, MIB),
            Piece::zero(MIB),
            Piece::part(part, 0, MIB + 77),
        ],
    )
    .unwrap();
    let mut content = bytes[512 + 2 * MIB as usize..512 + 3 * MIB as usize].to_vec();
    content.resize(2 * MIB as usize, 0);
    content.extend(&bytes[512..512 + MIB as usize + 77]);
    (joined, content)
}

#[test]
fn data_of_a_host_file_moves_inside_the_kernel_and_holes_stay_holes() {
    let folder = tempfile::tempdir().unwrap();
    let (disk, content) = shuffled(folder.path());
    let path = folder.path().join("copy");
    let source = Source::whole(disk, "lun.img//file");
    let (entry, copied) =
        copy_file(&source, &path, &CopyOptions::default(), &Quiet, &Interrupt::default()).unwrap();
    assert!(std::fs::read(&path).unwrap() == content);
    assert_eq!(copied.in_kernel_bytes, 2 * MIB + 77);
    assert_eq!((entry.copied_bytes, entry.hole_bytes), (2 * MIB + 77, MIB));
    assert!(std::fs::metadata(&path).unwrap().blocks() * 512 <= 2 * MIB + 8192);
    assert_eq!(names(folder.path()), ["copy", "lun.img"]);
}

#[test]
fn a_terabyte_of_holes_takes_no_time_and_no_space() {
    let folder = tempfile::tempdir().unwrap();
    let size = 10u64 << 40;
    let fake = Arc::new(Fake::of(vec![(4096, What::Data), (size - 4096, What::Hole)]));
    let begin = std::time::Instant::now();
    let options = CopyOptions { verify: true, ..CopyOptions::default() };
    let source = Source::whole(disk(&fake), "sparse");
    let path = folder.path().join("copy");
    let (entry, _) = copy_file(&source, &path, &options, &Quiet, &Interrupt::default()).unwrap();
    assert!(begin.elapsed() < std::time::Duration::from_secs(5), "{:?}", begin.elapsed());
    let metadata = std::fs::metadata(&path).unwrap();
    assert_eq!((metadata.len(), metadata.blocks() * 512), (size, 4096));
    assert!(entry.sha256.is_none() && entry.data_blake3.is_some());
}

#[test]
fn a_taken_name_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("copy");
    std::fs::write(&path, b"mine").unwrap();
    let source = Source::whole(disk(&fake()), "fake");
    let options = CopyOptions::default();
    let error = copy_file(&source, &path, &options, &Quiet, &Interrupt::default()).unwrap_err();
    assert_eq!(error.kind(), Kind::Denied);
    assert_eq!(std::fs::read(&path).unwrap(), b"mine");
    let options = CopyOptions { overwrite: true, ..options };
    copy_file(&source, &path, &options, &Quiet, &Interrupt::default()).unwrap();
    assert!(std::fs::read(&path).unwrap() == fake().content());
}

#[test]
fn an_interrupted_copy_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let interrupt = Interrupt::default();
    let fake = Arc::new(Fake {
        stop_after: Some((2 * MIB, interrupt.clone())),
        ..Fake::of(vec![(8 * MIB, What::Data)])
    });
    let source = Source::whole(disk(&fake), "fake");
    let path = folder.path().join("copy");
    let error = copy_file(&source, &path, &CopyOptions::default(), &Quiet, &interrupt).unwrap_err();
    assert_eq!(error.kind(), Kind::Interrupted);
    assert_eq!(fake.bytes_read(), 2 * MIB);
    assert!(names(folder.path()).is_empty());
}

#[test]
fn an_empty_file_is_copied_too() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("copy");
    let source = Source::whole(disk(&Arc::new(Fake::of(vec![]))), "empty");
    let options = CopyOptions { verify: true, ..CopyOptions::default() };
    copy_file(&source, &path, &options, &Quiet, &Interrupt::default()).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().len(), 0);
}

#[test]
fn a_stream_gives_every_byte_in_order_to_files_pipes_and_memory() {
    let folder = tempfile::tempdir().unwrap();
    let (disk, content) = shuffled(folder.path());
    let size = disk.size_bytes();
    let none = Interrupt::default();

    let mut memory = Vec::new();
    let done = stream(&disk, 5..size - 1, &mut memory, None, &none).unwrap();
    assert!(memory == content[5..content.len() - 1] && done.bytes == size - 6);

    let path = folder.path().join("out");
    let mut file = std::fs::File::create(&path).unwrap();
    file.write_all(b"before ").unwrap();
    let fd = file.try_clone().unwrap();
    stream(&disk, 0..size, &mut file, Some(fd.as_fd()), &none).unwrap();
    file.write_all(b" after").unwrap();
    let found = std::fs::read(&path).unwrap();
    assert!(found == [&b"before "[..], &content, b" after"].concat());

    let (mut reader, mut writer) = std::io::pipe().unwrap();
    let collect = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut reader, &mut bytes).unwrap();
        bytes
    });
    let fd = writer.try_clone().unwrap();
    stream(&disk, 0..size, &mut writer, Some(fd.as_fd()), &none).unwrap();
    drop((writer, fd));
    assert!(collect.join().unwrap() == content);
}

#[test]
fn a_stream_ends_without_error_when_its_reader_goes_away() {
    let folder = tempfile::tempdir().unwrap();
    let (disk, _) = shuffled(folder.path());
    for with_fd in [false, true] {
        let (reader, mut writer) = std::io::pipe().unwrap();
        drop(reader);
        let fd = writer.try_clone().unwrap();
        let fd = with_fd.then_some(fd.as_fd());
        let done = stream(&disk, 0..disk.size_bytes(), &mut writer, fd, &Interrupt::default());
        assert!(done.unwrap().reader_gone);
    }
}

#[test]
fn a_stream_stops_at_what_is_lost_after_giving_what_is_before() {
    let fake = Arc::new(Fake::of(vec![(1000, What::Data), (1000, What::Lost("member 2"))]));
    let mut out = Vec::new();
    let error = stream(&disk(&fake), 0..2000, &mut out, None, &Interrupt::default()).unwrap_err();
    assert_eq!((error.kind(), error.place().unwrap().byte), (Kind::Lost, Some(1000)));
    assert!(out == fake.content()[..1000]);
}

#[test]
fn a_target_too_small_is_refused_before_anything_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let fake = fake();
    let target = Target::create(&folder.path().join("x"), 100, Overwrite::Refuse).unwrap();
    let size = fake.size_bytes();
    let options = CopyOptions::default();
    let result = copy_disk(&disk(&fake), 0..size, &target, &options, &Quiet, &Interrupt::default());
    assert_eq!(result.unwrap_err().kind(), Kind::Invalid);
    assert_eq!(fake.bytes_read(), 0);
}
