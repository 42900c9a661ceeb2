//! What `open`, `read_text` and the disks they give do with real files.

use adit_core::{
    Disk, DiskExt, ExtentKind, Extents, Geometry, Kind, Limits, Next, Problem, ReadRequest,
};
use adit_io::{ReadPolicy, open, read_text};
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;

fn open_now(path: &Path) -> adit_core::Result<Arc<dyn Disk>> {
    open(path, &ReadPolicy::default())
}

#[test]
fn a_file_is_read_anywhere_and_never_past_its_end() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk");
    let bytes: Vec<u8> = (0..100_000u32).map(|n| (n % 253) as u8).collect();
    fs::write(&path, &bytes).unwrap();
    let disk = open_now(&path).unwrap();
    assert_eq!(disk.geometry(), Geometry::of_size(100_000));
    assert!(disk.read_vec(0, 100_000).unwrap() == bytes);
    assert!(disk.read_vec(777, 70_001).unwrap() == bytes[777..70_778]);
    assert_eq!(disk.read_vec(100_000, 0).unwrap(), b"");
    for (offset, length) in [(99_999, 2), (100_001, 0), (u64::MAX, 2)] {
        assert_eq!(disk.read_vec(offset, length).unwrap_err().kind(), Kind::Invalid);
    }
}

#[test]
fn a_batch_fills_every_buffer() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk");
    fs::write(&path, b"0123456789").unwrap();
    let (mut a, mut b) = ([0; 3], [0; 2]);
    let mut batch =
        [ReadRequest { offset: 7, buf: &mut a }, ReadRequest { offset: 1, buf: &mut b }];
    open_now(&path).unwrap().read_batch(&mut batch).unwrap();
    assert_eq!((&a, &b), (b"789", b"12"));
}

#[test]
fn what_is_no_file_is_refused_by_what_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let fifo = dir.path().join("fifo");
    let made = std::process::Command::new("mkfifo").arg(&fifo).status().unwrap();
    assert!(made.success());
    let socket = dir.path().join("socket");
    let _listener = UnixListener::bind(&socket).unwrap();
    for (path, what) in [
        (dir.path(), "is a directory"),
        (&fifo, "is a FIFO"),
        (&socket, "is a socket"),
        (Path::new("/dev/zero"), "is a character device"),
    ] {
        let error = open_now(path).unwrap_err();
        assert_eq!((error.kind(), error.problem()), (Kind::Invalid, Problem::Refused));
        assert!(error.detail().ends_with(what), "{error}");
        assert!(error.detail().contains(path.to_str().unwrap()));
        assert!(error.advice().is_some());
        assert_eq!(read_text(path, &Limits::default()).unwrap_err().detail(), error.detail());
    }
}

#[test]
fn an_empty_file_and_a_missing_one_say_so() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("empty");
    File::create(&path).unwrap();
    let error = open_now(&path).unwrap_err();
    assert_eq!((error.kind(), error.problem()), (Kind::Invalid, Problem::Truncated));
    assert!(error.detail().contains("is empty"), "{error}");
    let error = open_now(&dir.path().join("none")).unwrap_err();
    assert_eq!((error.kind(), error.os_code()), (Kind::NotFound, Some(2)));
}

#[test]
fn links_are_followed_for_reading_but_not_in_circles() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::write(at("disk"), b"abc").unwrap();
    std::os::unix::fs::symlink("disk", at("link")).unwrap();
    std::os::unix::fs::symlink("loop", at("loop")).unwrap();
    assert_eq!(open_now(&at("link")).unwrap().read_vec(0, 3).unwrap(), b"abc");
    assert!(open_now(&at("loop")).unwrap_err().advice().unwrap().contains("circle"));
}

#[test]
fn a_file_cut_short_after_opening_is_lost_there_and_no_hole() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk");
    fs::write(&path, [1; 10_000]).unwrap();
    let disk = open_now(&path).unwrap();
    OpenOptions::new().write(true).open(&path).unwrap().set_len(4000).unwrap();
    assert_eq!(disk.read_vec(0, 4000).unwrap(), [1; 4000]);
    let error = disk.read_vec(3000, 2000).unwrap_err();
    assert_eq!((error.kind(), error.problem()), (Kind::Lost, Problem::Truncated));
    assert_eq!(error.place().unwrap().byte, Some(4000));
    assert!(error.detail().contains("cut short"), "{error}");
    assert!(matches!(disk.extent_at(8000).unwrap().kind, ExtentKind::Data));
}

#[test]
fn extents_cover_the_file_and_only_zeros_are_holes() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sparse");
    let file = File::create(&path).unwrap();
    const SIZE: u64 = (4 << 20) + 17;
    file.set_len(SIZE).unwrap();
    file.write_all_at(&[5; 70_000], 1 << 20).unwrap();
    let disk = open_now(&path).unwrap();
    let mut at = 0;
    let mut holes = 0;
    for extent in Extents::of(&disk, 0..SIZE) {
        let extent = extent.unwrap();
        assert_eq!(extent.offset, at);
        at = extent.end();
        if matches!(extent.kind, ExtentKind::Hole) {
            holes += extent.length;
            let bytes = disk.read_vec(extent.offset, extent.length as usize).unwrap();
            assert!(bytes.iter().all(|&byte| byte == 0));
        }
    }
    assert_eq!(at, SIZE);
    // The same question asked of the kernel: bytes without blocks.
    use std::os::unix::fs::MetadataExt;
    let stored = file.metadata().unwrap().blocks() * 512;
    assert!(holes >= SIZE.saturating_sub(stored + 4096), "{holes} of {SIZE}, {stored} stored");
    assert_eq!(disk.extent_at(SIZE).unwrap_err().kind(), Kind::Invalid);
    let last = disk.extent_at(SIZE - 1).unwrap();
    assert_eq!((last.offset, last.length), (SIZE - 1, 1));
}

#[test]
fn explain_names_the_file_and_the_host_may_have_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk");
    fs::write(&path, [1; 2048]).unwrap();
    let disk = open_now(&path).unwrap();
    let hop = disk.explain(1030).unwrap();
    assert!(hop.layer.contains(path.to_str().unwrap()));
    assert_eq!(hop.steps, ["sector 2"]);
    assert!(matches!(hop.next, Next::Here));
    assert!(disk.as_file().is_some());
}

#[test]
fn text_is_read_up_to_its_bound_and_not_a_byte_further() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("text");
    fs::write(&path, b"0123456789").unwrap();
    let limits = |most| Limits { text_bytes_max: most, ..Limits::default() };
    assert_eq!(read_text(&path, &limits(10)).unwrap(), b"0123456789");
    let error = read_text(&path, &limits(9)).unwrap_err();
    assert_eq!(error.kind(), Kind::Limit);
    assert!(error.advice().unwrap().contains("text_bytes_max"));
    fs::write(&path, b"").unwrap();
    assert_eq!(read_text(&path, &limits(9)).unwrap(), b"");
}
