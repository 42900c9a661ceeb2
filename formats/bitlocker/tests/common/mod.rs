//! Volumes that Windows made; `cargo xtask witnesses` fetches them.

use std::path::{Path, PathBuf};

/// Opens those that a password opens.
pub const PASSWORD: &[u8] = b"password12!@";

fn folder() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| root.join("target"), PathBuf::from)
        .join("witness/bitlocker")
}

/// A file beside the volumes.
pub fn bytes(name: &str) -> Vec<u8> {
    let path = folder().join(name);
    std::fs::read(&path).unwrap_or_else(|error| {
        panic!("{}: {error}; run `cargo xtask witnesses` first", path.display())
    })
}

/// A volume.
pub fn volume(name: &str) -> Vec<u8> {
    bytes(&format!("{name}.bin"))
}
