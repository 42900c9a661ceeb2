//! A tree arrives as it was, and nothing of it outside the folder it was copied to.

mod doubles;

use adit_copy::{CopyOptions, TreeOptions, TreeReport, copy_tree};
use adit_core::{Interrupt, Kind, NodeId, NodeKind, Quiet, Result};
use doubles::{Fake, FakeFs, Node, What, names};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

fn file(length: u64) -> Node {
    Node::File(Arc::new(Fake::of(vec![(length, What::Data)])))
}

fn folder(entries: &[(&str, u64)]) -> Node {
    Node::Folder(entries.iter().map(|(name, node)| (name.as_bytes().to_vec(), *node)).collect())
}

fn copy(fs: &FakeFs, to: &Path, copy: CopyOptions) -> Result<TreeReport> {
    let options = TreeOptions { copy, locator: "lun.img//p1//".into(), ..TreeOptions::default() };
    copy_tree(fs, NodeId(1), to, &options, &Quiet, &Interrupt::default())
}

fn salvage() -> CopyOptions {
    CopyOptions { salvage: true, ..CopyOptions::default() }
}

#[test]
fn files_folders_links_modes_and_times_arrive() {
    let mut fs = FakeFs::default();
    fs.put(1, folder(&[("web01", 2), ("a.iso", 4), ("rdm", 6), (".fdc.sf", 7)]))
        .put(2, folder(&[("web01.vmdk", 3), ("up", 5)]))
        .put(3, file(70_000))
        .put(4, file(10))
        .put(5, Node::Link(b"../../../etc/passwd".to_vec()))
        .put(6, Node::Other(NodeKind::RawDevice))
        .put(7, Node::Other(NodeKind::System));
    fs.modes.extend([(2, 0o555), (3, 0o4755)]);
    let tmp = tempfile::tempdir().unwrap();
    let to = tmp.path().join("out");
    let report = copy(&fs, &to, CopyOptions::default()).unwrap();
    assert_eq!((report.files.len(), report.directories, report.symlinks), (2, 2, 1));
    assert!(!report.partial());
    assert_eq!(names(&to), ["a.iso", "web01"]);
    let file = std::fs::metadata(to.join("web01/web01.vmdk")).unwrap();
    assert_eq!((file.len(), file.mode() & 0o7777), (70_000, 0o755));
    assert_eq!((file.mtime(), file.mtime_nsec()), (1_500_000_003, 5));
    let dir = std::fs::metadata(to.join("web01")).unwrap();
    assert_eq!((dir.mode() & 0o7777, dir.mtime()), (0o555, 1_500_000_002));
    let link = std::fs::symlink_metadata(to.join("web01/up")).unwrap();
    assert_eq!(link.mtime(), 1_500_000_005);
    let target = std::fs::read_link(to.join("web01/up")).unwrap();
    assert_eq!(target, Path::new("../../../etc/passwd"));
    let skipped: Vec<_> = report.skipped.iter().map(|s| (s.source.as_str(), s.failed)).collect();
    assert_eq!(skipped, [("lun.img//p1//.fdc.sf", false), ("lun.img//p1//rdm", false)]);
    assert!(report.skipped[1].reason.contains("raw device"));
}

#[test]
fn names_are_kept_byte_for_byte() {
    let mut fs = FakeFs::default();
    let odd = b"caf\xe9 \n\x01\\".to_vec();
    fs.put(1, Node::Folder(vec![(odd.clone(), 2)])).put(2, file(3));
    let tmp = tempfile::tempdir().unwrap();
    copy(&fs, tmp.path(), CopyOptions::default()).unwrap();
    assert_eq!(std::fs::metadata(tmp.path().join(OsStr::from_bytes(&odd))).unwrap().len(), 3);
}

#[test]
fn a_name_of_dots_is_refused() {
    for name in ["..", "."] {
        let mut fs = FakeFs::default();
        fs.put(1, folder(&[(name, 2), ("good", 3)])).put(2, file(3)).put(3, file(4));
        let tmp = tempfile::tempdir().unwrap();
        let to = tmp.path().join("out");
        assert_eq!(copy(&fs, &to, CopyOptions::default()).unwrap_err().kind(), Kind::Corrupt);
        let report = copy(&fs, &to, salvage()).unwrap();
        assert!(report.partial() && report.files.len() == 1);
        assert_eq!((names(tmp.path()), names(&to)), (vec!["out".into()], vec!["good".into()]));
    }
}

#[test]
fn a_link_from_the_image_cannot_lead_later_files_out_of_the_folder() {
    // One directory lists a name twice: first as a link outside, then as a folder.
    let tmp = tempfile::tempdir().unwrap();
    let outside = tmp.path().join("outside");
    std::fs::create_dir(&outside).unwrap();
    let mut fs = FakeFs::default();
    fs.put(1, folder(&[("x", 2), ("x", 3)]))
        .put(2, Node::Link(outside.as_os_str().as_bytes().to_vec()))
        .put(3, folder(&[("evil", 4)]))
        .put(4, file(5));
    let to = tmp.path().join("out");
    let error = copy(&fs, &to, CopyOptions { overwrite: true, ..CopyOptions::default() });
    assert_eq!(error.unwrap_err().kind(), Kind::Denied);
    assert!(names(&outside).is_empty());
}

#[test]
fn a_link_in_the_way_of_a_folder_or_file_is_refused() {
    let tmp = tempfile::tempdir().unwrap();
    let outside = tmp.path().join("outside");
    std::fs::create_dir(&outside).unwrap();
    std::fs::write(outside.join("target"), b"keep").unwrap();
    let to = tmp.path().join("out");
    std::fs::create_dir(&to).unwrap();
    std::os::unix::fs::symlink(&outside, to.join("dir")).unwrap();
    std::os::unix::fs::symlink(outside.join("target"), to.join("file")).unwrap();
    let mut fs = FakeFs::default();
    fs.put(1, folder(&[("dir", 2), ("file", 3)])).put(2, folder(&[("evil", 3)])).put(3, file(5));
    let report = copy(&fs, &to, CopyOptions { overwrite: true, ..salvage() }).unwrap();
    assert_eq!(report.skipped.iter().filter(|skipped| skipped.failed).count(), 2);
    assert_eq!(names(&outside), ["target"]);
    assert_eq!(std::fs::read(outside.join("target")).unwrap(), b"keep");
}

#[test]
fn names_of_one_node_become_hard_links() {
    let mut fs = FakeFs::default();
    fs.put(1, folder(&[("a", 2), ("z", 3)])).put(2, folder(&[("one", 3)])).put(3, file(9));
    fs.links.insert(3, 2);
    fs.modes.insert(2, 0o755);
    let tmp = tempfile::tempdir().unwrap();
    let report = copy(&fs, tmp.path(), CopyOptions::default()).unwrap();
    let one = std::fs::metadata(tmp.path().join("a/one")).unwrap();
    let two = std::fs::metadata(tmp.path().join("z")).unwrap();
    assert_eq!((one.ino(), one.nlink()), (two.ino(), 2));
    assert!(report.files[1].link_to.as_ref().unwrap().ends_with("a/one"));
}

#[test]
fn one_bad_file_stops_the_copy_unless_it_salvages() {
    let mut fs = FakeFs::default();
    let bad = Fake::of(vec![(2048, What::Data)]).bad_at(0..1);
    fs.put(1, folder(&[("bad", 2), ("gone", 4), ("good", 3)]))
        .put(2, Node::File(Arc::new(bad)))
        .put(3, file(5));
    let tmp = tempfile::tempdir().unwrap();
    assert_eq!(copy(&fs, tmp.path(), CopyOptions::default()).unwrap_err().kind(), Kind::Io);
    assert!(names(tmp.path()).is_empty());
    let report = copy(&fs, tmp.path(), salvage()).unwrap();
    assert_eq!(names(tmp.path()), ["bad", "bad.lost.json", "good"]);
    assert_eq!((report.files.len(), report.files[0].lost_bytes), (2, 512));
    assert_eq!((report.skipped.len(), report.skipped[0].kind.as_str()), (1, "not-found"));
    assert!(report.partial());
}

#[test]
fn a_directory_that_contains_itself_ends() {
    let mut fs = FakeFs::default();
    fs.put(1, folder(&[("d", 2)])).put(2, folder(&[("d", 2), ("f", 3)])).put(3, file(1));
    let tmp = tempfile::tempdir().unwrap();
    let report = copy(&fs, tmp.path(), salvage()).unwrap();
    assert_eq!((report.files.len(), report.skipped[0].kind.as_str()), (1, "corrupt"));
}

#[test]
fn a_resumed_tree_leaves_alone_what_is_there_already() {
    let mut fs = FakeFs::default();
    let (a, b) = (
        Arc::new(Fake::of(vec![(5000, What::Data)])),
        Arc::new(Fake::of(vec![(6000, What::Data)])),
    );
    fs.put(1, folder(&[("a", 2), ("b", 3)]))
        .put(2, Node::File(Arc::clone(&a)))
        .put(3, Node::File(Arc::clone(&b)));
    let tmp = tempfile::tempdir().unwrap();
    let resume = CopyOptions { resume: true, ..CopyOptions::default() };
    copy(&fs, tmp.path(), resume.clone()).unwrap();
    std::fs::remove_file(tmp.path().join("b")).unwrap();
    let report = copy(&fs, tmp.path(), resume).unwrap();
    assert_eq!((a.bytes_read(), b.bytes_read()), (5000, 12_000));
    assert_eq!((report.files.len(), report.skipped.len(), report.partial()), (1, 1, false));
}

#[test]
fn a_resumed_tree_replaces_nothing_that_it_did_not_make() {
    let mut fs = FakeFs::default();
    fs.put(1, folder(&[("a", 2), ("b", 2), ("c", 3)]))
        .put(2, file(9))
        .put(3, Node::Link(b"a".into()));
    fs.links.insert(2, 2);
    let resume = CopyOptions { resume: true, ..CopyOptions::default() };
    let tmp = tempfile::tempdir().unwrap();
    copy(&fs, tmp.path(), resume.clone()).unwrap();
    assert!(!copy(&fs, tmp.path(), resume.clone()).unwrap().partial());
    for name in ["b", "c"] {
        std::fs::remove_file(tmp.path().join(name)).unwrap();
        std::fs::write(tmp.path().join(name), b"mine").unwrap();
        assert_eq!(copy(&fs, tmp.path(), resume.clone()).unwrap_err().kind(), Kind::Denied);
        assert_eq!(std::fs::read(tmp.path().join(name)).unwrap(), b"mine");
        std::fs::remove_file(tmp.path().join(name)).unwrap();
    }
}
