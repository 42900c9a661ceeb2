//! Containers that macOS made; `cargo xtask witnesses` fetches them.

use adit_apfs::Apfs;
use adit_core::{Limits, MemoryDisk, Result};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The bytes of a container.
pub fn container(name: &str) -> Vec<u8> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let path = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| root.join("target"), PathBuf::from)
        .join("witness/apfs")
        .join(format!("{name}.bin"));
    std::fs::read(&path).unwrap_or_else(|error| {
        panic!("{}: {error}; run `cargo xtask witnesses` first", path.display())
    })
}

/// Opens bytes.
pub fn open(bytes: Vec<u8>) -> Result<Arc<Apfs>> {
    Apfs::open(MemoryDisk::open("container", bytes), &Limits::default())
}
