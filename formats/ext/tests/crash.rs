//! ext reads, of a file system that was not unmounted, the state that recovery leaves.
//!
//! `debugfs` writes the journals, `e2fsck` recovers a copy; both must agree with the reader.

mod common;

use adit_core::{DiskExt, FileSystem, Fork, Kind, Limits, Severity};
use adit_ext::Ext;
use common::{Made, assert_same, debugfs, find, load, make, open, pattern, read, run, tool, tree};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Several requests in one session of `debugfs`.
fn session(image: &Path, requests: &[String]) -> String {
    let script = image.with_extension("requests");
    std::fs::write(&script, requests.join("\n")).unwrap();
    let out = tool("debugfs")
        .args(["-w", "-f", script.to_str().unwrap(), image.to_str().unwrap()])
        .output()
        .expect("debugfs (package e2fsprogs) is needed for this test");
    String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr)
}

fn block_size(image: &Path) -> usize {
    let bytes = std::fs::read(image).unwrap();
    1024 << bytes[1024 + 0x18]
}

/// Blocks of `after` that differ from `before`, without those of the journal.
fn changes(before: &Path, after: &Path) -> BTreeMap<u64, Vec<u8>> {
    let size = block_size(before);
    let (before, after) = (std::fs::read(before).unwrap(), std::fs::read(after).unwrap());
    let pairs = before.chunks(size).zip(after.chunks(size)).enumerate();
    pairs
        .filter(|(_, (old, new))| old != new)
        .map(|(number, (_, new))| (number as u64, new.to_vec()))
        .collect()
}

/// The request that writes blocks as one transaction.
fn transaction(image: &Path, number: usize, blocks: &BTreeMap<u64, Vec<u8>>, more: &str) -> String {
    let data = image.with_extension(format!("data{number}"));
    std::fs::write(&data, blocks.values().flatten().copied().collect::<Vec<u8>>()).unwrap();
    let list: Vec<String> = blocks.keys().map(u64::to_string).collect();
    format!("jw -b {} {more} {}", list.join(","), data.display())
}

fn copy(image: &Path, name: &str) -> PathBuf {
    let to = image.with_file_name(name);
    std::fs::copy(image, &to).unwrap();
    to
}

/// What `e2fsck` makes of a copy.
fn recovered(image: &Path) -> PathBuf {
    let fixed = copy(image, "recovered");
    run("e2fsck", &["-fy", fixed.to_str().unwrap()]);
    fixed
}

/// The reader, the recovered copy and, if given, the wanted state agree; the source is unchanged.
fn agree(what: &str, image: &Path, wanted: Option<&Path>) -> std::sync::Arc<Ext> {
    let before = std::fs::read(image).unwrap();
    let fs = open(image);
    let seen = tree(&fs);
    assert_same(what, &seen, &tree(&open(&recovered(image))));
    if let Some(wanted) = wanted {
        assert_same(what, &seen, &tree(&open(wanted)));
    }
    assert!(before == std::fs::read(image).unwrap());
    fs
}

/// An image in three states: as made, after some changes, after more.
fn states(options: &[&str]) -> (Made, PathBuf, PathBuf) {
    let made = make(48, options);
    let first = copy(&made.image, "first");
    let new = made.directory.path().join("new");
    std::fs::write(&new, pattern(33_000, 77)).unwrap();
    for request in [
        "rm a/f4096".to_owned(),
        "mkdir made".to_owned(),
        format!("write {} made/new", new.display()),
        "ln a/f61 made/linked".to_owned(),
        "symlink made/link target".to_owned(),
    ] {
        debugfs(&first, &request);
    }
    let second = copy(&first, "second");
    for request in ["rm made/new".to_owned(), format!("write {} a/again", new.display())] {
        debugfs(&second, &request);
    }
    (made, first, second)
}

#[test]
fn all_committed_transactions_in_every_format_of_the_log() {
    let formats = [
        ("-t ext4 -b 1024", "jo"),
        ("-t ext4 -b 1024", "jo -c"),
        ("-t ext4 -b 4096", "jo -c -v 3"),
        ("-t ext4 -b 4096", "jo -c -v 2"),
        ("-t ext4 -b 1024 -O ^64bit", "jo -c -v 2"),
        ("-t ext4 -b 2048 -O ^metadata_csum,^64bit", "jo"),
        ("-t ext3 -b 1024", "jo"),
    ];
    for (line, start) in formats {
        let what = format!("{line}, {start}");
        let options: Vec<&str> = line.split(' ').collect();
        let (made, first, second) = states(&options);
        let image = &made.image;
        let one = transaction(image, 1, &changes(image, &first), "");
        let two = transaction(image, 2, &changes(&first, &second), "");
        session(image, &[start.to_owned(), one, two, "jc".to_owned()]);
        let fs = agree(&what, image, Some(&second));
        assert_eq!(fs.journal().transactions, 2, "{what}: {:?}", fs.notes());
        let note = fs.notes().into_iter().find(|note| note.code == "ext-journal").unwrap();
        assert!(note.text.starts_with("journal: 2 transactions, "), "{}", note.text);
        assert!(note.text.ends_with("source unchanged"), "{}", note.text);
    }
}

/// The block behind a block of a file.
fn bmap(image: &Path, path: &str, number: u64) -> u64 {
    let said = debugfs(image, &format!("bmap {path} {number}"));
    said.lines().find_map(|line| line.trim().parse().ok()).unwrap_or_else(|| panic!("{said}"))
}

/// The first data block of a file.
fn block_of(image: &Path, path: &str) -> u64 {
    bmap(image, path, 0)
}

#[test]
fn file_data_in_the_journal_with_words_that_look_like_its_own() {
    for start in ["jo", "jo -c"] {
        let made = make(32, &["-t", "ext4", "-b", "1024"]);
        let image = &made.image;
        let block = block_of(image, "a/f4096");
        let mut data = pattern(1024, 5);
        data[..4].copy_from_slice(&0xc03b_3998u32.to_be_bytes());
        let blocks = BTreeMap::from([(block, data.clone()), (block + 2, pattern(1024, 6))]);
        let one = transaction(image, 1, &blocks, "");
        session(image, &[start.into(), one, "jc".into()]);
        let fs = agree(start, image, None);
        let mut expected = pattern(4096, 4096);
        expected[..1024].copy_from_slice(&data);
        expected[2048..3072].copy_from_slice(&pattern(1024, 6));
        assert!(read(&fs, "a/f4096") == expected, "{start}");
        let disk = FileSystem::open(&*fs, find(&fs, "a/f4096"), &Fork::Data).unwrap();
        assert!(disk.read_vec(1000, 100).unwrap() == expected[1000..1100]);
        assert!(disk.explain(2048).unwrap().steps.iter().any(|step| step.contains("journal")));
    }
}

#[test]
fn a_revoked_block_as_it_stands_on_the_disk() {
    for start in ["jo", "jo -c"] {
        let made = make(32, &["-t", "ext4", "-b", "1024"]);
        let image = &made.image;
        let block = block_of(image, "a/f4096");
        let later = BTreeMap::from([(block + 1, pattern(1024, 8))]);
        let one = BTreeMap::from([(block, pattern(1024, 7)), (block + 1, pattern(1024, 7))]);
        let requests = [
            start.to_owned(),
            transaction(image, 1, &one, ""),
            format!("jw -r {block},{}", block + 1),
            transaction(image, 2, &later, ""),
            "jc".to_owned(),
        ];
        session(image, &requests);
        let fs = agree(start, image, None);
        let mut expected = pattern(4096, 4096);
        expected[1024..2048].copy_from_slice(&pattern(1024, 8));
        assert!(read(&fs, "a/f4096") == expected, "{start}");
        assert_eq!(fs.journal().blocks(), 1);
    }
}

/// Where journal block `number` stands. Unit: bytes.
fn journal_at(image: &Path, number: u64) -> usize {
    bmap(image, "<8>", number) as usize * block_size(image)
}

/// Journal blocks of a type, in order.
fn headers(image: &Path, kind: u32) -> Vec<usize> {
    let bytes = std::fs::read(image).unwrap();
    let is = |at: &usize| {
        bytes[*at..*at + 4] == 0xc03b_3998u32.to_be_bytes()
            && bytes[*at + 4..*at + 8] == kind.to_be_bytes()
    };
    (1..200).map(|number| journal_at(image, number)).filter(is).collect()
}

fn flip(image: &Path, at: usize) {
    let mut bytes = std::fs::read(image).unwrap();
    bytes[at] ^= 0x40;
    std::fs::write(image, bytes).unwrap();
}

#[test]
fn the_transactions_before_a_damaged_one_and_says_what_is_missing() {
    let (made, first, second) = states(&["-t", "ext4", "-b", "4096"]);
    let image = &made.image;
    let one = transaction(image, 1, &changes(image, &first), "");
    let two = transaction(image, 2, &changes(&first, &second), "");
    session(image, &["jo -c".into(), one, two, "jc".into()]);
    let whole = copy(image, "whole");
    let commits = headers(image, 2);
    assert_eq!(commits.len(), 2);
    // The last commit block: nothing follows it.
    flip(image, commits[1] + 0x30);
    let fs = open(image);
    assert_same("torn", &tree(&fs), &tree(&open(&first)));
    let note = fs.notes().into_iter().find(|note| note.code == "ext-journal-torn").unwrap();
    assert_eq!(note.severity, Severity::Warning);
    // Behind its first sector a commit block says nothing: such a tear is no damage.
    std::fs::copy(&whole, image).unwrap();
    flip(image, commits[1] + 0x900);
    assert_same("torn behind", &tree(&open(image)), &tree(&open(&second)));
    // A block of its data: not applied either.
    std::fs::copy(&whole, image).unwrap();
    flip(image, commits[1] - 4096 + 99);
    let fs = open(image);
    assert_same("torn data", &tree(&fs), &tree(&open(&first)));
    // The first commit block: the second transaction is whole, but cannot be reached.
    std::fs::copy(&whole, image).unwrap();
    flip(image, commits[0] + 0x30);
    let fs = open(image);
    let note = fs.notes().into_iter().find(|note| note.code == "ext-journal-not-applied").unwrap();
    assert_eq!(note.severity, Severity::Error);
    assert_eq!(fs.journal().transactions, 0);
}

#[test]
fn a_damaged_copy_in_an_early_transaction_as_lost_and_never_as_old_data() {
    let made = make(32, &["-t", "ext4", "-b", "1024"]);
    let image = &made.image;
    let block = block_of(image, "a/f4096");
    let one = transaction(image, 1, &BTreeMap::from([(block, pattern(1024, 1))]), "");
    let two = transaction(image, 2, &BTreeMap::from([(block + 1, pattern(1024, 2))]), "");
    session(image, &["jo -c".into(), one, two, "jc".into()]);
    flip(image, headers(image, 2)[0] - 1024 + 9);
    let fs = open(image);
    let disk = FileSystem::open(&*fs, find(&fs, "a/f4096"), &Fork::Data).unwrap();
    let error = disk.read_vec(0, 1).unwrap_err();
    assert_eq!(error.kind(), Kind::Corrupt);
    assert!(disk.read_vec(1024, 1024).unwrap() == pattern(1024, 2));
    assert!(fs.notes().iter().any(|note| note.code == "ext-journal-data"));
}

#[test]
fn a_log_that_wraps_around_its_end() {
    let made = make(32, &["-t", "ext3", "-b", "1024", "-J", "size=1"]);
    let image = &made.image;
    let block = block_of(image, "a/f4096");
    let at = journal_at(image, 0);
    let mut bytes = std::fs::read(image).unwrap();
    let word = |bytes: &[u8], at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap());
    let (length, first) = (word(&bytes, at + 0x10), word(&bytes, at + 0x14));
    let places: Vec<usize> = [length - 2, length - 1, first, first + 1]
        .iter()
        .map(|number| journal_at(image, u64::from(*number)))
        .collect();
    let sequence = 0xffff_fffeu32;
    let mut put = |at: usize, words: &[u32]| {
        for (index, word) in words.iter().enumerate() {
            bytes[at + 4 * index..at + 4 * index + 4].copy_from_slice(&word.to_be_bytes());
        }
    };
    put(at + 0x18, &[sequence, length - 2]);
    put(places[0], &[0xc03b_3998, 1, sequence, block as u32, 0]);
    // After the UUID the second tag: same UUID, last.
    put(places[0] + 12 + 8 + 16, &[block as u32 + 1, 2 | 8]);
    put(places[3], &[0xc03b_3998, 2, sequence]);
    bytes[places[1]..places[1] + 1024].copy_from_slice(&pattern(1024, 1));
    bytes[places[2]..places[2] + 1024].copy_from_slice(&pattern(1024, 2));
    // The file system must say that it needs recovery.
    bytes[1024 + 0x60] |= 4;
    std::fs::write(image, bytes).unwrap();
    let fs = agree("wrap", image, None);
    let data = read(&fs, "a/f4096");
    assert!(data[..1024] == pattern(1024, 1) && data[1024..2048] == pattern(1024, 2));
}

#[test]
fn a_journal_on_another_device_if_it_is_given() {
    let directory = tempfile::tempdir().unwrap();
    let journal = directory.path().join("journal");
    std::fs::File::create(&journal).unwrap().set_len(8 << 20).unwrap();
    let name = journal.to_str().unwrap();
    run("mke2fs", &["-q", "-F", "-O", "journal_dev", "-b", "1024", name]);
    let (made, first, _) =
        states(&["-t", "ext4", "-b", "1024", "-O", "^has_journal,^metadata_csum"]);
    let image = &made.image;
    // Name the journal by hand: its UUID, no inode, the feature; no checksum guards this.
    let uuid = std::fs::read(&journal).unwrap()[1024 + 0x68..1024 + 0x78].to_vec();
    let mut bytes = std::fs::read(image).unwrap();
    bytes[1024 + 0xd0..1024 + 0xe0].copy_from_slice(&uuid);
    bytes[1024 + 0x5c] |= 4;
    bytes[1024 + 0x60] |= 4;
    std::fs::write(image, &bytes).unwrap();
    let fs = open(image);
    let note = fs.notes().into_iter().find(|note| note.code == "ext-journal-not-applied").unwrap();
    assert_eq!(note.severity, Severity::Error);
    let given = Ext::open_with_journal(load(image), Some(load(&journal)), &Limits::default());
    assert_eq!(given.unwrap().journal().transactions, 0);
    let wrong = Ext::open_with_journal(load(image), Some(load(&first)), &Limits::default());
    assert_eq!(wrong.unwrap_err().kind(), Kind::Invalid);
}

#[test]
fn orphans_are_counted() {
    let made = make(32, &["-t", "ext4"]);
    let image = &made.image;
    let fs = open(image);
    let ino = find(&fs, "a/f300000").0;
    debugfs(image, &format!("set_super_value last_orphan {ino}"));
    debugfs(image, &format!("set_inode_field <{ino}> links_count 0"));
    let fs = open(image);
    let note = fs.notes().into_iter().find(|note| note.code == "ext-orphans").unwrap();
    assert!(note.text.starts_with("1 orphaned inodes (1 deleted"), "{}", note.text);
}

/// A fast commit of transaction `sequence`: its steps between a head and a tail.
fn fast_commit(steps: &[(u16, Vec<u8>)], sequence: u32, block_size: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut put = |tag: u16, length: usize, value: &[u8]| {
        bytes.extend(tag.to_le_bytes());
        bytes.extend(u16::try_from(length).unwrap().to_le_bytes());
        bytes.extend(value);
    };
    put(9, 8, &[[0; 4], sequence.to_le_bytes()].concat());
    for (tag, value) in steps {
        put(*tag, value.len(), value);
    }
    let left = block_size - bytes.len() - 4;
    bytes.extend(8u16.to_le_bytes());
    bytes.extend(u16::try_from(left).unwrap().to_le_bytes());
    bytes.extend(sequence.to_le_bytes());
    let sum = bytes.iter().fold(0u32, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| {
            if sum & 1 == 1 { (sum >> 1) ^ 0x82f6_3b78 } else { sum >> 1 }
        })
    });
    bytes.extend(sum.to_le_bytes());
    bytes.resize(block_size, 0);
    bytes
}

/// What an inode of 256 bytes has behind its fields with an attribute `user.j` of the value `old!`.
fn attribute() -> Vec<u8> {
    let mut bytes = vec![0; 96];
    bytes[..4].copy_from_slice(&0xea02_0000u32.to_le_bytes());
    // Name of one byte, of the users', its value at byte 88 behind the magic, four bytes.
    bytes[4..8].copy_from_slice(&[1, 1, 88, 0]);
    bytes[12] = 4;
    bytes[20] = b'j';
    bytes[92..].copy_from_slice(b"old!");
    bytes
}

/// An image whose journal holds one fast commit, and before it nothing but, if asked for, the
/// attribute of a file that the fast commit changes.
fn with_fast_commit(attribute_before: bool) -> (Made, Vec<u8>) {
    let options = ["-t", "ext4", "-b", "1024", "-O", "fast_commit,^metadata_csum", "-J", "size=4"];
    let made = make(32, &options);
    let image = &made.image;
    let fs = open(image);
    let number = |path: &str| u32::try_from(find(&fs, path).0).unwrap().to_le_bytes();
    let words = |words: &[u32]| words.iter().flat_map(|word| word.to_le_bytes()).collect();
    let link: Vec<u8> = [&2u32.to_le_bytes()[..], &number("a/f61"), b"fast"].concat();
    let gone: Vec<u8> = [&2u32.to_le_bytes()[..], &number("hard"), b"hard"].concat();
    let hole: Vec<u8> = words(&[u32::from_le_bytes(number("a/f12289")), 1, 2]);
    let cut: Vec<u8> = words(&[u32::from_le_bytes(number("a/f4096")), 1, 3]);
    let details = fs.details(find(&fs, "a/f4096")).unwrap();
    let offset = details.iter().find(|detail| detail.name == "inode_offset").unwrap();
    let adit_core::on_disk::Value::Uint(offset) = offset.value else { panic!() };
    let mut bytes = std::fs::read(image).unwrap();
    let mut inode = bytes[offset as usize..offset as usize + 160].to_vec();
    inode[4..8].copy_from_slice(&100u32.to_le_bytes());
    let inode = [&number("a/f4096")[..], &inode].concat();
    let steps = [(4, link), (5, gone), (2, hole), (2, cut), (6, inode)];
    let at = journal_at(image, 0);
    let word = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap());
    let (length, sequence) = (word(at + 0x10), word(at + 0x18));
    let blocks = match word(at + 0x54) {
        0 => 256,
        blocks => blocks,
    };
    let mut put = |place: usize, words: &[u32]| {
        for (place, word) in (place..).step_by(4).zip(words) {
            bytes[place..place + 4].copy_from_slice(&word.to_be_bytes());
        }
    };
    let mut commit = 1;
    if attribute_before {
        // A descriptor of one block, the last and without a UUID.
        put(
            journal_at(image, 1),
            &[0xc03b_3998, 1, sequence, u32::try_from(offset / 1024).unwrap(), 10],
        );
        commit = 3;
    }
    // A whole transaction comes first, or an empty one: recovery needs a log to follow.
    put(journal_at(image, commit), &[0xc03b_3998, 2, sequence]);
    if attribute_before {
        let mut block = bytes[offset as usize / 1024 * 1024..][..1024].to_vec();
        let behind = offset as usize % 1024 + 160;
        block[behind..behind + 96].copy_from_slice(&attribute());
        let place = journal_at(image, 2);
        bytes[place..place + 1024].copy_from_slice(&block);
    }
    bytes[at + 0x1c..at + 0x20].copy_from_slice(&1u32.to_be_bytes());
    bytes[at + 0x2b] |= 0x20;
    let place = journal_at(image, u64::from(length - blocks + 1));
    bytes[place..place + 1024].copy_from_slice(&fast_commit(&steps, sequence + 1, 1024));
    bytes[1024 + 0x60] |= 4;
    std::fs::write(image, &bytes).unwrap();
    (made, bytes)
}

#[test]
fn fast_commits_as_e2fsck_replays_them() {
    let (made, _) = with_fast_commit(false);
    let fs = agree("fast commit", &made.image, None);
    assert!(fs.notes().iter().any(|note| note.code == "ext-journal-fast"), "{:?}", fs.notes());
    assert_eq!(read(&fs, "fast"), pattern(61, 61));
    assert!(!tree(&fs).contains_key("hard"));
    assert_eq!(read(&fs, "a/f4096"), &pattern(4096, 4096)[..100]);
    let mut expected = pattern(12_289, 12_289);
    expected[1024..3072].fill(0);
    assert!(read(&fs, "a/f12289") == expected);
}

#[test]
fn fast_commits_over_what_only_the_journal_before_them_holds() {
    let (made, _) = with_fast_commit(true);
    let fs = agree("fast commit over a transaction", &made.image, None);
    let node = find(&fs, "a/f4096");
    let xattrs = fs.xattrs(node).unwrap();
    assert_eq!(xattrs.iter().map(|own| own.value.as_slice()).collect::<Vec<_>>(), [b"old!"]);
    assert_eq!(fs.metadata(node).unwrap().size_bytes, 100);
}

#[test]
fn a_damaged_journal_without_a_panic_or_an_endless_loop() {
    let (fast, _) = with_fast_commit(false);
    let (plain, first, _) = states(&["-t", "ext3", "-b", "1024", "-J", "size=1"]);
    let one = transaction(&plain.image, 1, &changes(&plain.image, &first), "");
    session(&plain.image, &["jo".into(), one, "jw -r 5000,6000".into(), "jc".into()]);
    let mut state = 0x5eed_0002u64;
    println!("seed {state:#x}");
    let mut random = |end: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % end as u64) as usize
    };
    for made in [fast, plain] {
        let clean = std::fs::read(&made.image).unwrap();
        let used = (0..12u64).filter_map(|number| {
            let said = Some(journal_at(&made.image, number));
            said.filter(|at| clean[*at..*at + 1024].iter().any(|byte| *byte != 0))
        });
        let places: Vec<usize> = used.collect();
        for _ in 0..60 {
            let mut bytes = clean.clone();
            for _ in 0..1 + random(12) {
                let at = places[random(places.len())] + random(96);
                bytes[at] = [0, 1, 2, 8, 0x7f, 0xff, random(256) as u8][random(7)];
            }
            let disk = adit_core::MemoryDisk::open("image", bytes);
            if let Ok(fs) = Ext::open(disk, &Limits::default()) {
                let _ = (fs.space(), fs.notes(), fs.read_dir(fs.root(), Default::default()));
            }
        }
    }
}
