//! VMFS lookups read…

mod common;

use adit_core::{FileSystem, Kind, Name};
use adit_testkit::Vmfs as Maker;
use adit_testkit::vmfs::hash::{TWINS, colliding_names};
use common::{find, open, six};

fn name(text: &str) -> Name {
    Name::new(text.as_bytes()).unwrap()
}

#[test]
fn a_handful_of_blocks_in_a_folder_of_100_000_entries() {
    let dir = tempfile::tempdir().unwrap();
    let mut maker = Maker::six().without_lvm().size_bytes(8 << 30).lean();
    for number in 0..100_000 {
        maker = maker.file(format!("many/file{number}"), b"");
    }
    let (fs, volume) = open(maker.write(dir.path().join("volume")));
    let many = find(&fs, "many");
    // Everything that later lookups find in the cache.
    fs.lookup(many, &name("file0")).unwrap();
    for number in [1, 777, 4_242, 50_000, 99_999] {
        volume.take_reads();
        fs.lookup(many, &name(&format!("file{number}"))).unwrap();
        let reads = volume.take_reads();
        let bytes: usize = reads.iter().map(|(_, length)| length).sum();
        // Folder FD, hash word, link blocks, entry blocks, FD cluster, FD; never a scan.
        assert!(reads.len() <= 16, "{} reads for file{number}", reads.len());
        assert!(bytes <= 128 << 10, "{bytes} bytes for file{number}");
    }
    volume.take_reads();
    let error = fs.lookup(many, &name("file100000")).unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound);
    assert!(volume.take_reads().len() <= 16);
    // A listing reads every block of the folder once.
    let mut from = Some(Default::default());
    let mut seen = 0;
    while let Some(cursor) = from {
        let page = fs.read_dir(many, cursor).unwrap();
        assert!(page.problems.is_empty(), "{:?}", page.problems);
        seen += page.entries.len();
        from = page.next;
    }
    assert_eq!(seen, 100_000);
    let bytes: usize = volume.take_reads().iter().map(|(_, length)| length).sum();
    assert!(bytes < 64 << 20, "{bytes} bytes for 100 000 entries");
    assert!(fs.notes().is_empty(), "{:?}", fs.notes());
}

#[test]
fn chains_of_link_groups_to_their_end() {
    let names = colliding_names(40);
    let mut maker = six();
    for one in &names {
        maker = maker.file(format!("folder/{one}"), one.as_bytes());
    }
    let (fs, _) = open(maker.in_memory());
    for one in &names {
        assert_eq!(common::read(&fs, &format!("folder/{one}")), one.as_bytes());
    }
    assert!(fs.notes().is_empty(), "{:?}", fs.notes());
}

#[test]
fn the_names_themselves_where_hashes_cannot_tell_them_apart() {
    let mut maker = six();
    for twin in TWINS {
        maker = maker.file(format!("folder/{twin}"), twin.as_bytes());
    }
    let (fs, _) = open(maker.in_memory());
    for twin in TWINS {
        assert_eq!(common::read(&fs, &format!("folder/{twin}")), twin.as_bytes());
    }
}
