//! Help, completions and manual pages.

mod common;

use common::said;
use std::path::Path;

/// Every verb of the command line.
const VERBS: [&str; 21] = [
    "info",
    "ls",
    "tree",
    "stat",
    "cat",
    "cp",
    "map",
    "explain",
    "locate",
    "df",
    "vms",
    "heartbeats",
    "hexdump",
    "inspect",
    "check",
    "convert",
    "compare",
    "mount",
    "umount",
    "mounts",
    "serve",
];

#[test]
fn every_verb_has_help_with_examples() {
    let here = Path::new(".");
    let all = said(here, 0, &["--help"]);
    for verb in VERBS {
        assert!(all.contains(&format!("\n  {verb}")), "{verb} is not in --help");
        let help = said(here, 0, &[verb, "--help"]);
        assert!(help.contains("Examples:\n  adit "), "{verb} has no example:\n{help}");
    }
}

#[test]
fn the_version_is_one_line() {
    let text = said(Path::new("."), 0, &["--version"]);
    assert_eq!(text, format!("adit {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn completions_know_every_verb() {
    for shell in ["bash", "zsh", "fish"] {
        let script = said(Path::new("."), 0, &["completions", shell]);
        for verb in VERBS {
            assert!(script.contains(verb), "{shell} does not know {verb}");
        }
    }
}

#[test]
fn there_is_a_manual_page_for_every_verb() {
    let dir = tempfile::tempdir().unwrap();
    said(dir.path(), 0, &["man", "man1"]);
    for verb in VERBS {
        let page = std::fs::read_to_string(dir.path().join(format!("man1/adit-{verb}.1"))).unwrap();
        assert!(page.contains("Examples"), "{verb}");
    }
    assert!(dir.path().join("man1/adit.1").exists());
}

#[test]
fn the_exit_code_table_is_documented() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let table = std::fs::read_to_string(root.join("docs/exit-codes.md")).unwrap();
    for (code, word) in [(0, "good"), (1, "error"), (2, "usage"), (3, "partial")] {
        assert!(table.contains(&format!("| {code} | {word} |")));
    }
}
