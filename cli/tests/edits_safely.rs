//! What changing an image means to others: its children, its list of changed blocks, and whoever
//! finds it after the program was killed.

mod common;

use common::{complained, json, said};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

const MIB: usize = 1 << 20;
const SIZE: usize = 24 * MIB;

fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut buf = vec![0; length];
    adit_testkit::random::Random::new(seed).fill(&mut buf);
    buf
}

fn write(dir: &Path, image: &str, offset: usize, data: &[u8]) {
    std::fs::write(dir.join("input"), data).unwrap();
    said(dir, 0, &["write", "--force", image, "--offset", &offset.to_string(), "input"]);
}

/// The field that tells children of the first write, and how `inspect` is asked for it.
const TELLS: [(&str, &str, &str); 3] = [
    ("vmdk", "descriptor", "CID"),
    ("vhd", "footer", "timestamp"),
    ("vhdx", "header", "data_write_guid"),
];

fn field(dir: &Path, image: &str, structure: &str, field: &str) -> Option<String> {
    // VHDX has two headers; the newer one counts.
    let structures: Vec<Vec<&str>> = match structure {
        "header" => vec![vec!["header", "1"], vec!["header", "2"]],
        one => vec![vec![one]],
    };
    let mut best: Option<(u64, String)> = None;
    for words in structures {
        let shown = json(dir, 0, &[&["inspect", image], &words[..]].concat());
        let fields = shown["inspected"][0]["fields"].as_array().unwrap().clone();
        let value =
            |name: &str| fields.iter().find(|it| it["name"] == name).map(|it| it["value"].clone());
        let order = value("sequence_number").and_then(|it| it.as_u64()).unwrap_or(0);
        let Some(found) = value(field) else { continue };
        if best.as_ref().is_none_or(|(known, _)| order > *known) {
            best = Some((order, found.to_string()));
        }
    }
    best.map(|(_, value)| value)
}

#[test]
fn a_child_refuses_a_parent_that_was_written_and_names_both_identities() {
    for (format, structure, name) in TELLS {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        let (base, top) = (format!("base.{format}"), format!("top.{format}"));
        said(dir, 0, &["create", &base, &SIZE.to_string()]);
        write(dir, &base, 5 * MIB, &noise(MIB, 4));
        said(dir, 0, &["snapshot", &base, &top]);
        let before = field(dir, &base, structure, name);
        // Reading changes nothing.
        said(dir, 0, &["hash", &format!("{top}//")]);
        said(dir, 0, &["check", &base]);
        assert_eq!(field(dir, &base, structure, name), before, "{format}");
        write(dir, &base, 6 * MIB, &noise(700, 5));
        let after = field(dir, &base, structure, name);
        assert_ne!(after, before, "{format}: {name} tells of the first write");
        let outcome = common::adit(dir, &["convert", "--to", "raw", &top, "out.raw"]);
        let told = String::from_utf8_lossy(&outcome.stderr).into_owned();
        if format == "vhd" {
            // Other programs leave the stamp wrong so often that it only warns.
            assert!(told.contains("the parent was written at"), "{told}");
        } else {
            assert_eq!(outcome.status.code(), Some(1), "{format}: {told}");
            assert!(told.contains("kind  corrupt"), "{format}: {told}");
            assert!(!dir.join("out.raw").exists());
        }
        // Both values are named.
        for value in [before, after].into_iter().flatten() {
            assert!(names(&told, &value), "{format}: {value} in {told}");
        }
        // Who knows better may say so.
        said(dir, 0, &["rebase", "--force", "--unsafe", "--onto", &base, &top]);
        let outcome = common::adit(dir, &["convert", "-f", "--to", "raw", &top, "out.raw"]);
        let told = String::from_utf8_lossy(&outcome.stderr).into_owned();
        assert!(outcome.status.success() && !told.contains("was written at"), "{told}");
    }
}

/// Whether a text names a value that `inspect` shows: a number, or the bytes of a GUID in any
/// of its spellings.
fn names(text: &str, value: &str) -> bool {
    let value = value.trim_matches('"');
    if text.contains(value) {
        return true;
    }
    let bytes: Vec<&str> = (0..value.len() / 2).map(|at| &value[2 * at..2 * at + 2]).collect();
    if bytes.len() != 16 {
        return false;
    }
    // The first three groups of a GUID stand with their last byte first.
    let order = [3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15];
    let swapped: String = order.iter().map(|&at| bytes[at]).collect();
    text.replace('-', "").to_lowercase().contains(&swapped.to_lowercase())
}

#[test]
fn a_list_of_changed_blocks_is_let_go_of_with_the_first_write_and_that_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    said(dir, 0, &["create", "-o", "subformat=vmfs", "disk.vmdk", &SIZE.to_string()]);
    let path = dir.join("disk.vmdk");
    let text = std::fs::read_to_string(&path).unwrap();
    let tracked = text.replace("version=1\n", "version=3\n").replace(
        "# Extent description\n",
        "changeTrackPath=\"disk-ctk.vmdk\"\n\n# Extent description\n",
    );
    assert!(tracked.contains("changeTrackPath"), "{tracked}");
    std::fs::write(&path, &tracked).unwrap();
    let mut list = b"\xa2\x72\x19\xf6\x01\0\0\0".to_vec();
    list.resize(4096, 0);
    std::fs::write(dir.join("disk-ctk.vmdk"), &list).unwrap();
    // Reading leaves it alone.
    said(dir, 0, &["hash", "disk.vmdk//"]);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), tracked);
    std::fs::write(dir.join("input"), noise(5000, 6)).unwrap();
    let output = common::adit(dir, &["write", "disk.vmdk", "--offset", "1M", "input"]);
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{told}");
    assert!(told.contains("change"), "the loss is said: {told}");
    let now = std::fs::read_to_string(&path).unwrap();
    assert!(!now.lines().any(|line| line.trim_start().starts_with("changeTrackPath")), "{now}");
    assert!(now.contains("version=1\n"), "{now}");
    let again = common::adit(dir, &["write", "disk.vmdk", "--offset", "1M", "input"]);
    assert!(again.status.success() && !String::from_utf8_lossy(&again.stderr).contains("change"));
}

/// Runs the program and kills it after a while; false if it was done before.
fn killed(dir: &Path, arguments: &[&str], after: Duration) -> bool {
    let mut child = Command::new(env!("CARGO_BIN_EXE_adit"))
        .args(arguments)
        .current_dir(dir)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    std::thread::sleep(after);
    let running = child.try_wait().unwrap().is_none();
    // SIGKILL: nothing can be tidied up.
    let _ = child.kill();
    child.wait().unwrap();
    running
}

#[test]
fn a_resize_that_is_killed_is_undone_or_completed_at_the_next_open() {
    for format in ["vhd", "vhdx", "qcow2", "vmdk"] {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        let (image, copy) = (format!("whole.{format}"), format!("disk.{format}"));
        said(dir, 0, &["create", &image, &SIZE.to_string()]);
        let mut bytes = noise(SIZE - 3 * MIB, 7);
        write(dir, &image, 0, &bytes);
        bytes.resize(SIZE, 0);
        // A table of another size, which takes the place of blocks.
        let new = 60_000 * MIB as u64;
        let started = std::time::Instant::now();
        std::fs::copy(dir.join(&image), dir.join(&copy)).unwrap();
        said(dir, 0, &["resize", &copy, &new.to_string()]);
        let whole = started.elapsed();
        let mut states = [0; 2];
        for round in 0..24u32 {
            std::fs::copy(dir.join(&image), dir.join(&copy)).unwrap();
            killed(dir, &["resize", &copy, &new.to_string()], whole * round / 22);
            // The next that writes finds it, and puts it right before it does.
            write(dir, &copy, SIZE - MIB, &[9; 600]);
            let shown = json(dir, 0, &["info", &copy]).to_string();
            let grown = shown.contains(&new.to_string());
            states[usize::from(grown)] += 1;
            assert!(grown || shown.contains(&SIZE.to_string()), "{format}: {shown}");
            let mut now = bytes.clone();
            now[SIZE - MIB..SIZE - MIB + 600].fill(9);
            let read =
                common::adit(dir, &["cat", &format!("{copy}//"), "--length", &SIZE.to_string()]);
            let read = if read.status.success() { read.stdout } else { first(dir, &copy) };
            assert!(read == now, "{format}, round {round}: other bytes than before");
            // Space may be lost, and nothing else.
            said(dir, 0, &["repair", "--leaks", &copy]);
            said(dir, 0, &["check", &copy]);
        }
        assert!(states[1] > 0, "{format}: {states:?}");
    }
}

/// The first bytes of a disk.
fn first(dir: &Path, image: &str) -> Vec<u8> {
    let _ = std::fs::remove_file(dir.join("out.raw"));
    said(dir, 0, &["convert", "-f", "--to", "raw", image, "out.raw"]);
    let mut file = std::fs::File::open(dir.join("out.raw")).unwrap();
    let mut bytes = vec![0; SIZE];
    std::io::Read::read_exact(&mut file, &mut bytes).unwrap();
    bytes
}

#[test]
fn an_encrypted_image_is_written_with_its_passphrase_and_read_by_qemu() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    std::fs::write(dir.join("pw"), "open sesame\n").unwrap();
    std::fs::write(dir.join("key"), "open sesame").unwrap();
    let qemu = |arguments: &[&str]| {
        let run = || {
            let output = Command::new("qemu-img").args(arguments).current_dir(dir).output();
            output.expect("this test needs qemu-img of qemu-utils")
        };
        let mut output = run();
        for _ in 0..30 {
            // It measures how fast the processor is, and gives up where others keep that busy.
            if String::from_utf8_lossy(&output.stderr).contains("accurate CPU usage") {
                output = run();
            }
        }
        assert!(output.status.success(), "qemu-img {arguments:?}: {output:?}");
    };
    let secret = "secret,id=s,file=key";
    let options = "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10";
    qemu(&["create", "-q", "-f", "qcow2", "--object", secret, "-o", options, "x.qcow2", "24M"]);
    let mut bytes = vec![0; SIZE];
    for (offset, length) in [(0, 700), (3 * MIB + 77, 2 * MIB + 5), (SIZE - 512, 512)] {
        let data = noise(length, offset as u64 + 1);
        std::fs::write(dir.join("input"), &data).unwrap();
        let at = offset.to_string();
        let refused = complained(dir, 1, &["write", "x.qcow2", "--offset", &at, "input"]);
        assert!(refused.contains("kind  denied"), "{refused}");
        let write = ["write", "--passphrase-file", "pw", "x.qcow2", "--offset", &at, "input"];
        said(dir, 0, &write);
        bytes[offset..offset + length].copy_from_slice(&data);
    }
    said(dir, 0, &["resize", "--passphrase-file", "pw", "x.qcow2", "+4M"]);
    bytes.resize(SIZE + 4 * MIB, 0);
    let place = "driver=qcow2,encrypt.key-secret=s,file.filename=x.qcow2";
    qemu(&["check", "-q", "--object", secret, "--image-opts", place]);
    qemu(&["convert", "--object", secret, "--image-opts", place, "-O", "raw", "out.raw"]);
    assert!(std::fs::read(dir.join("out.raw")).unwrap() == bytes);
    said(dir, 0, &["convert", "-f", "--passphrase-file", "pw", "--to", "raw", "x.qcow2", "o.raw"]);
    assert!(std::fs::read(dir.join("o.raw")).unwrap() == bytes);
}

#[test]
fn a_snapshot_of_another_size_is_shown_whole_or_as_qemu_shows_it() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    said(dir, 0, &["create", "x.qcow2", "6M"]);
    write(dir, "x.qcow2", 5 * MIB, &noise(MIB, 3));
    said(dir, 0, &["snapshot", "--internal", "large", "x.qcow2"]);
    write(dir, "x.qcow2", 5 * MIB, &vec![0; MIB]);
    said(dir, 0, &["resize", "--shrink", "x.qcow2", "5M"]);
    let length = |arguments: &[&str]| {
        said(
            dir,
            0,
            &[&["convert", "-f", "--to", "raw"], arguments, &["x.qcow2@large", "out.raw"]].concat(),
        );
        std::fs::metadata(dir.join("out.raw")).unwrap().len() as usize
    };
    assert_eq!(length(&[]), 6 * MIB);
    assert_eq!(length(&["--snapshot-size", "now"]), 5 * MIB);
    let theirs = ["convert", "-f", "qcow2", "-l", "large", "-O", "raw", "x.qcow2", "theirs.raw"];
    let output = Command::new("qemu-img").args(theirs).current_dir(dir).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let read = |name: &str| std::fs::read(dir.join(name)).unwrap();
    assert!(read("theirs.raw") == read("out.raw"));
    let told = common::adit(dir, &["info", "--snapshot-size", "now", "x.qcow2@large"]);
    let told =
        String::from_utf8_lossy(&told.stdout).into_owned() + &String::from_utf8_lossy(&told.stderr);
    assert!(told.contains("its end is not shown"), "{told}");
}

#[test]
fn the_structures_of_every_format_are_shown() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    for (image, structure, field) in [
        ("disk.vmdk", "header", "grain_size"),
        ("disk.vmdk", "descriptor", "ddb.adapterType"),
        ("disk.vhd", "footer", "current_size"),
        ("disk.qcow2", "header", "cluster_bits"),
    ] {
        let _ = std::fs::remove_file(dir.join(image));
        said(dir, 0, &["create", image, "8M"]);
        let text = said(dir, 0, &["inspect", image, structure]);
        assert!(text.contains(field), "{image} {structure}: {text}");
        assert!(said(dir, 0, &["inspect", image]).contains(structure));
    }
    let refused = complained(dir, 1, &["inspect", "disk.vmdk", "nonsense"]);
    assert!(refused.contains("without a name lists the structures"), "{refused}");
}
