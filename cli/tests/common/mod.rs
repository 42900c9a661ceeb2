//! Runs the real program.
#![allow(dead_code)]

use serde_json::Value;
use std::path::Path;
use std::process::{Command, Output};

/// Runs adit in a directory.
pub fn adit(dir: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_adit")).args(arguments).current_dir(dir).output().unwrap()
}

/// Runs adit, expects an exit code, and gives its standard output as text.
#[track_caller]
pub fn said(dir: &Path, code: i32, arguments: &[&str]) -> String {
    let output = adit(dir, arguments);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "adit {arguments:?}\n{errors}");
    String::from_utf8(output.stdout).unwrap()
}

/// Runs adit, expects an exit code, and gives its standard error.
#[track_caller]
pub fn complained(dir: &Path, code: i32, arguments: &[&str]) -> String {
    let output = adit(dir, arguments);
    let errors = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(code), "adit {arguments:?}\n{errors}");
    errors
}

/// Runs adit with `--json`, expects an exit code, and gives the document.
#[track_caller]
pub fn json(dir: &Path, code: i32, arguments: &[&str]) -> Value {
    serde_json::from_str(&said(dir, code, &[&["--json"], arguments].concat())).unwrap()
}

/// What coreutils' `sha256sum` says of a file.
pub fn sha256sum(path: &Path) -> String {
    let output = Command::new("sha256sum").arg(path).output().unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap().split(' ').next().unwrap().to_owned()
}
