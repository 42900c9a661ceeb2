//! Deleted files: those the journal still knows, and those whose inode still leads to them.

mod common;

use common::{complained, said};
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

#[track_caller]
fn tool(dir: &Path, program: &str, arguments: &[&str]) -> Output {
    let output = Command::new(program).args(arguments).current_dir(dir).output().expect(program);
    assert!(output.status.success(), "{program} {arguments:?}\n{output:?}");
    output
}

fn debugfs(dir: &Path, commands: &str) {
    fs::write(dir.join("commands"), commands).unwrap();
    tool(dir, "/sbin/debugfs", &["-w", "-f", "commands", "a.img"]);
}

/// The block that debugfs names after some words.
fn block_of(dir: &Path, request: &str, words: &str) -> u64 {
    let output = tool(dir, "/sbin/debugfs", &["-R", request, "a.img"]).stdout;
    let text = String::from_utf8(output).unwrap();
    let at = text.find(words).unwrap_or_else(|| panic!("{text}"));
    let after = &text[at + words.len()..];
    after.trim_start().split([',', ' ', '\n']).next().unwrap().parse().unwrap()
}

fn content() -> Vec<u8> {
    (0..50_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 11) as u8 | 1).collect()
}

/// An ext4 whose journal has the inode and the name of a file that was deleted since, as the
/// kernel leaves them.
fn image(dir: &Path) {
    let tree = dir.join("tree");
    fs::create_dir(&tree).unwrap();
    fs::write(tree.join("doomed.bin"), content()).unwrap();
    fs::write(tree.join("keep"), "keep").unwrap();
    tool(dir, "/sbin/mke2fs", &["-q", "-t", "ext4", "-b", "1024", "-d", "tree", "a.img", "32M"]);
    let table = block_of(dir, "imap doomed.bin", "located at block");
    let names = block_of(dir, "blocks /", "");
    let bytes = fs::read(dir.join("a.img")).unwrap();
    let block = |number: u64| &bytes[number as usize * 1024..(number as usize + 1) * 1024];
    fs::write(dir.join("logged"), [block(table), block(names)].concat()).unwrap();
    debugfs(dir, &format!("jo -c\njw -b {table},{names} logged\njc\n"));
    // e2fsck applies the journal; what it held stays where it is.
    let checked =
        Command::new("/sbin/e2fsck").args(["-f", "-y", "a.img"]).current_dir(dir).output();
    assert!(checked.unwrap().status.code().unwrap() <= 1);
    debugfs(dir, "rm doomed.bin\nclri <12>\n");
}

fn lines(dir: &Path, arguments: &[&str]) -> Vec<Value> {
    let text = said(dir, 0, &[&["--json", "undelete"], arguments].concat());
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn a_file_that_the_journal_knows_comes_back_with_its_name() {
    let dir = tempfile::tempdir().unwrap();
    image(dir.path());
    let found = lines(dir.path(), &["a.img"]);
    assert_eq!(found.len(), 2, "{found:#?}");
    assert_eq!(found[1]["name"], "doomed.bin");
    assert_eq!((&found[1]["confidence"], &found[1]["source"]), (&"good".into(), &"journal".into()));
    assert_eq!((&found[1]["node"], &found[1]["size_bytes"]), (&12.into(), &50_000.into()));
    said(dir.path(), 0, &["undelete", "a.img", "--to", "out"]);
    assert!(fs::read(dir.path().join("out/12-doomed.bin")).unwrap() == content());
}

#[test]
fn space_that_another_file_has_taken_is_told() {
    let dir = tempfile::tempdir().unwrap();
    image(dir.path());
    // The first free blocks are those of the deleted file.
    fs::write(dir.path().join("new"), vec![b'n'; 10_240]).unwrap();
    // It also gets the inode; the kernel gives each use of one another generation.
    debugfs(dir.path(), "write new new\nset_inode_field new generation 77\n");
    tool(dir.path(), "/sbin/e2fsck", &["-f", "-n", "a.img"]);
    let new = block_of(dir.path(), "blocks new", "");
    let bytes = fs::read(dir.path().join("a.img")).unwrap();
    assert_eq!(bytes[new as usize * 1024], b'n');
    let found = lines(dir.path(), &["a.img"]);
    let taken = found.iter().find(|line| line["name"] == "doomed.bin").unwrap();
    assert_eq!((&taken["confidence"], &taken["reused_bytes"]), (&"partial".into(), &10_240.into()));
    said(dir.path(), 0, &["undelete", "a.img", "--to", "out"]);
    assert!(!dir.path().join("out/12-doomed.bin").exists(), "not without --all");
    said(dir.path(), 0, &["undelete", "--all", "a.img", "--to", "out"]);
    let rescued = fs::read(dir.path().join("out/12-doomed.bin")).unwrap();
    assert!(rescued[10_240..] == content()[10_240..], "what is still there comes out");
}

#[test]
fn an_inode_that_still_leads_to_its_blocks_is_found_without_a_journal() {
    let dir = tempfile::tempdir().unwrap();
    let tree = dir.path().join("tree");
    fs::create_dir(&tree).unwrap();
    fs::write(tree.join("small"), &content()[..9000]).unwrap();
    tool(dir.path(), "/sbin/mke2fs", &["-q", "-t", "ext2", "-d", "tree", "a.img", "16M"]);
    debugfs(dir.path(), "rm small\n");
    let found = lines(dir.path(), &["a.img"]);
    assert_eq!((&found[1]["source"], &found[1]["confidence"]), (&"inode".into(), &"good".into()));
    said(dir.path(), 0, &["undelete", "a.img", "--to", "out"]);
    assert!(fs::read(dir.path().join("out/12")).unwrap() == content()[..9000]);
}

#[test]
fn nothing_is_found_where_nothing_was_deleted_and_other_formats_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("tree")).unwrap();
    fs::write(dir.path().join("tree/file"), "x").unwrap();
    tool(dir.path(), "/sbin/mke2fs", &["-q", "-t", "ext4", "-d", "tree", "a.img", "16M"]);
    assert_eq!(said(dir.path(), 0, &["undelete", "a.img"]), "");
    fs::write(dir.path().join("zeros.img"), vec![0; 1 << 20]).unwrap();
    let error = complained(dir.path(), 1, &["undelete", "zeros.img"]);
    assert!(error.contains("ext4 and NTFS alone"), "{error}");
}
