//! Which operating system is installed on a guest's disks, from its own files alone.
//!
//! - [`recognise`]: file systems in, [`System`]s out: name, version, host name, mounts.
//! - [`Hive`]: a Windows registry file.
//! - [`OsTree`]: the file systems of a guest under one root, as the guest mounts them.
//! - [`Survey`]: the file systems on a guest's disks; [`open_system`]: what `//:os` means.
//!
//! Nothing is run and nothing is guessed: what a file does not say is left empty, and what a
//! mount table names and is not there is said.
#![forbid(unsafe_code)]

mod below;
mod bsd;
mod files;
mod fstab;
mod hive;
mod linux;
mod model;
mod survey;
mod tree;
mod windows;

pub use hive::{Hive, Key, Value};
pub use model::{Family, Found, Mount, System, Volume};
pub use survey::{Survey, none_on, open_system};
pub use tree::OsTree;

use adit_core::{FileSystem, Limits, Result};
use below::Below;

/// Finds the operating systems that are installed on these file systems.
///
/// What cannot be read of one is in its notes; a file system that holds none gives none.
///
/// Errors: `Limit`; `Interrupted`.
pub fn recognise(volumes: &[Volume], limits: &Limits) -> Result<Vec<System>> {
    let mut systems = Vec::new();
    for (index, volume) in volumes.iter().enumerate() {
        for path in roots(&*volume.fs) {
            let Ok(below) = Below::open(&volume.fs, path) else { continue };
            let files = files::Files { fs: &below, path, limits };
            let system = match linux::look(&files, index, volumes) {
                Some(system) => Some(system),
                None if !path.is_empty() => None,
                None => match windows::look(&files, index, volumes) {
                    Some(system) => Some(system),
                    None => bsd::look(&files, index, volumes),
                },
            };
            systems.extend(system);
        }
    }
    Ok(systems)
}

/// Where the root of a system may be on a file system: btrfs keeps several in one.
fn roots(fs: &dyn FileSystem) -> &'static [&'static [u8]] {
    match fs.identity().format.starts_with("btrfs") {
        // Debian's and Ubuntu's, Debian's newer one, Fedora's.
        true => &[b"", b"@", b"@rootfs", b"root"],
        false => &[b""],
    }
}
