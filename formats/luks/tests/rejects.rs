//! LUKS rejects… wrong passphrases, damage, and headers that ask for too much.

mod common;

use adit_core::{DiskExt, ExtentKind, Extents, Inspect, Kind, Limits, Problem};
use adit_luks::{Bounds, Luks, probe};
use common::{Dir, SECRET, SIZE, disk, noise};

const PBKDF2: [&str; 6] =
    ["--type", "luks2", "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000"];

const LUKS1: [&str; 4] = ["--type", "luks1", "--pbkdf-force-iterations", "1000"];

fn luks2(dir: &Dir) -> Vec<u8> {
    dir.formatted(&PBKDF2)
}

fn open(image: &[u8]) -> adit_core::Result<Luks> {
    Luks::open(disk(image), &Limits::default())
}

/// The error of what cannot be debugged.
fn error<T>(result: adit_core::Result<T>) -> adit_core::Error {
    result.err().expect("it was accepted")
}

/// Changes the JSON text of both copies of a header and makes their checksums right.
fn edit(image: &mut [u8], change: impl Fn(String) -> String) {
    use sha2::{Digest, Sha256};
    for at in [0, 0x4000] {
        let text = image[at + 4096..at + 0x4000].to_vec();
        let text = String::from_utf8(text).unwrap();
        let mut changed = change(text.trim_end_matches('\0').to_owned()).into_bytes();
        changed.resize(0x4000 - 4096, 0);
        image[at + 4096..at + 0x4000].copy_from_slice(&changed);
        image[at + 448..at + 512].fill(0);
        let sum = Sha256::digest(&image[at..at + 0x4000]);
        image[at + 448..at + 480].copy_from_slice(&sum);
    }
}

#[test]
fn a_wrong_passphrase_is_denied() {
    let dir = Dir::new();
    for image in [luks2(&dir), dir.formatted(&LUKS1)] {
        let luks = open(&image).unwrap();
        for secret in [&b"wrong"[..], b"", b"correct horse\n"] {
            let error = error(luks.unlock(secret));
            assert_eq!((error.kind(), error.problem()), (Kind::Denied, Problem::Refused));
            assert!(error.advice().is_some());
        }
        assert!(luks.unlock(SECRET).is_ok());
    }
}

#[test]
fn one_damaged_copy_of_a_header_gives_way_to_the_other() {
    let dir = Dir::new();
    let good = luks2(&dir);
    for at in [0x1000 + 50, 8, 0x5000 + 50] {
        let mut image = good.clone();
        image[at] ^= 1;
        let luks = open(&image).unwrap();
        assert_eq!(luks.notes()[0].code, "luks-header-damaged");
        assert!(luks.unlock(SECRET).is_ok());
    }
    let mut image = good;
    image[0x1000 + 50] ^= 1;
    image[0x5000 + 50] ^= 1;
    assert!(probe(&disk(&image)).unwrap());
    assert_eq!(error(open(&image)).problem(), Problem::BadChecksum);
}

#[test]
fn headers_that_ask_for_too_much_are_refused_before_any_work() {
    let dir = Dir::new();
    let light = ["--pbkdf-force-iterations", "4", "--pbkdf-memory", "64"];
    let args = [&["--type", "luks2", "--pbkdf", "argon2id"][..], &light].concat();
    let good = dir.formatted(&args);
    let cases = [
        ("\"memory\":64", "\"memory\":4294967295", "argon2_bytes_max"),
        ("\"time\":4", "\"time\":4294967295", "argon2_work_bytes_max"),
    ];
    for (from, to, bound) in cases {
        let mut image = good.clone();
        edit(&mut image, |text| {
            assert!(text.contains(from), "{text}");
            text.replace(from, to)
        });
        let error = error(open(&image).unwrap().unlock(SECRET));
        assert_eq!(error.kind(), Kind::Limit);
        assert_eq!(error.place().unwrap().field.as_deref(), Some(bound));
    }
    let bounds = Bounds { argon2_bytes_max: 1024, ..Bounds::default() };
    let luks = open(&good).unwrap().with_bounds(bounds);
    assert_eq!(error(luks.unlock(SECRET)).kind(), Kind::Limit);
}

#[test]
fn what_is_not_read_is_refused_by_name() {
    let dir = Dir::new();
    let good = luks2(&dir);
    let cases = [
        ("\"type\":\"crypt\"", "\"type\":\"linear\"", "linear"),
        ("\"sector_size\":", "\"integrity\":{},\"sector_size\":", "integrity"),
        (
            "\"config\":{",
            "\"config\":{\"requirements\":{\"mandatory\":[\"online-reencrypt-v2\"]},",
            "re-encryption",
        ),
        ("\"config\":{", "\"config\":{\"requirements\":{\"mandatory\":[\"opal\"]},", "opal"),
    ];
    for (from, to, word) in cases {
        let mut image = good.clone();
        edit(&mut image, |text| {
            assert!(text.contains(from), "{text}");
            text.replacen(from, to, 1)
        });
        let error = error(open(&image));
        assert_eq!(error.kind(), Kind::Unsupported, "{to}");
        assert!(error.detail().contains(word), "{error}");
    }
    // A segment in a cipher that is not known opens, but does not unlock.
    let mut image = good.clone();
    edit(&mut image, |text| {
        text.replacen(
            "\"encryption\":\"aes-xts-plain64\",\"sector",
            "\"encryption\":\"camellia-xts-plain64\",\"sector",
            1,
        )
    });
    assert_eq!(error(open(&image).unwrap().unlock(SECRET)).kind(), Kind::Unsupported);
}

#[test]
fn a_digest_of_no_bytes_verifies_nothing() {
    let dir = Dir::new();
    let mut image = luks2(&dir);
    edit(&mut image, |text| {
        let from = text.find("\"digest\":\"").unwrap() + 10;
        let to = from + text[from..].find('"').unwrap();
        format!("{}{}", &text[..from], &text[to..])
    });
    assert_eq!(error(open(&image)).kind(), Kind::Corrupt);
}

#[test]
fn an_image_cut_short_is_lost_from_there_on() {
    let dir = Dir::new();
    let plain = noise(1, SIZE);
    let mut image = dir.encrypted(&plain, &PBKDF2);
    edit(&mut image, |text| text.replace("\"size\":\"dynamic\"", &format!("\"size\":\"{SIZE}\"")));
    let luks = open(&image).unwrap();
    let keep = luks.payload_offset() as usize + 10_000;
    image.truncate(keep);
    let disk = open(&image).unwrap().unlock(SECRET).unwrap();
    assert_eq!(disk.size_bytes(), SIZE as u64);
    assert!(disk.read_vec(0, 9728).unwrap() == plain[..9728]);
    assert_eq!(disk.read_vec(9728, 512).unwrap_err().kind(), Kind::Lost);
    assert_eq!(disk.read_vec(SIZE as u64 - 1, 1).unwrap_err().kind(), Kind::Lost);
    let last = Extents::of(&disk, 0..SIZE as u64).last().unwrap().unwrap();
    assert!(matches!(last.kind, ExtentKind::Lost(_)));
}

#[test]
fn other_disks_are_not_encrypted_and_damage_never_panics() {
    for bytes in [vec![], vec![0; 5], vec![0; 100_000]] {
        assert!(!probe(&disk(&bytes)).unwrap());
        assert_eq!(error(open(&bytes)).kind(), Kind::Corrupt);
    }
    let dir = Dir::new();
    let mut first = dir.formatted(&LUKS1);
    first.truncate(0x28_0000);
    let mut second = luks2(&dir);
    second.truncate(0x10_0000);
    let seed = 31;
    println!("seed {seed}");
    let bounds = Bounds { pbkdf2_rounds_max: 2000, ..Bounds::default() };
    for change in noise(seed, 4 * 300).chunks(4) {
        let at = (usize::from(change[0]) << 8 | usize::from(change[1])) % 592;
        let mut image = first.clone();
        image[at] = change[2];
        if let Ok(luks) = open(&image) {
            let _ = luks.with_bounds(bounds).unlock(SECRET);
        }
        let mut image = second.clone();
        edit(&mut image, |text| {
            let mut bytes = text.into_bytes();
            let at = (usize::from(change[0]) << 8 | usize::from(change[1])) % bytes.len();
            bytes[at] = 32 + change[2] % 95;
            String::from_utf8(bytes).unwrap()
        });
        if let Ok(luks) = open(&image) {
            let _ = luks.with_bounds(bounds).unlock(SECRET);
        }
    }
}

#[test]
fn headers_are_shown_and_unknown_structures_are_not() {
    let dir = Dir::new();
    for (args, structures) in [(&LUKS1[..], 1), (&PBKDF2[..], 2)] {
        let luks = open(&dir.formatted(args)).unwrap();
        assert_eq!(luks.structures().len(), structures);
        let shown = luks.inspect("luks-header").unwrap().remove(0);
        let uuid = shown.fields.iter().find(|field| field.name == "uuid").unwrap();
        assert!(uuid.value.to_string().contains(luks.uuid()));
        assert_eq!(luks.inspect("luks-json").is_ok(), structures == 2);
        assert_eq!(luks.inspect("nothing").unwrap_err().kind(), Kind::NotFound);
    }
}
