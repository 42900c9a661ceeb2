//! What is known of an installed system.

use adit_core::{FileSystem, Finding};
use std::sync::Arc;

/// A file system of the guest, and by which names its mount table may mean it.
#[derive(Clone, Debug)]
pub struct Volume {
    /// Full name of the place.
    pub locator: String,
    /// The file system.
    pub fs: Arc<dyn FileSystem>,
    /// Selector in its table (`p2`), or the name of a logical volume; empty for a whole disk.
    pub name: String,
    /// Name of the volume group, for logical volumes.
    pub group: String,
    /// Identity of the partition, as the table prints it.
    pub part_uuid: String,
    /// Name of the partition in a GPT.
    pub part_label: String,
    /// Identity of the encrypted volume it lies in, if there is one.
    pub crypt_uuid: String,
    /// First byte on its disk, where it is one piece. Unit: bytes.
    pub offset: Option<u64>,
    /// Identity of the disk it is on, as the table prints it.
    pub disk_uuid: String,
    /// Which of the guest's disks it is on, from 0.
    pub disk: usize,
}

/// What kind of system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// Any with a Linux kernel.
    Linux,
    /// Windows NT and later.
    Windows,
    /// FreeBSD, NetBSD, OpenBSD.
    Bsd,
}

impl Family {
    /// The stable lower-case word used in text and `--json`.
    pub fn word(self) -> &'static str {
        match self {
            Family::Linux => "linux",
            Family::Windows => "windows",
            Family::Bsd => "bsd",
        }
    }
}

/// An operating system that is installed. What is not known is empty.
#[derive(Clone, Debug)]
pub struct System {
    /// What kind.
    pub family: Family,
    /// What it calls itself, for people: `Debian GNU/Linux 12 (bookworm)`.
    pub name: String,
    /// Stable short name: `debian`, `windows`.
    pub id: String,
    /// Its version: `12`, `10.0.22631.2861`.
    pub version: String,
    /// Name of the host.
    pub hostname: String,
    /// `x86_64`, `aarch64`, …
    pub architecture: String,
    /// Identity of the installation.
    pub machine_id: String,
    /// Versions of the kernels that are installed.
    pub kernels: Vec<String>,
    /// The volume its root or system drive is on: index into those given.
    pub root: usize,
    /// Where on that volume: the path of a subvolume, empty for its own root.
    pub root_path: Vec<u8>,
    /// What it mounts, in the order of its table; the root is among them.
    pub mounts: Vec<Mount>,
    /// What could not be read, or contradicts itself.
    pub notes: Vec<Finding>,
}

/// One line of a mount table, or one drive letter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Where: `/boot`, `C:`.
    pub at: Vec<u8>,
    /// What the table says is mounted there.
    pub source: String,
    /// The file system's name in the table, empty if it says none.
    pub format: String,
    /// Which volume that is.
    pub found: Found,
    /// Which part of it: the path of a subvolume, empty for all.
    pub path: Vec<u8>,
}

/// Whether what a mount table names is among the volumes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// This one, by an identity that only it has.
    Volume(usize),
    /// This one, by a name that another machine may give to another disk (`/dev/sda1`).
    Likely(usize),
    /// None of those given: a disk is missing, or its format is not read.
    Missing,
    /// Nothing on a disk: memory, the network, the kernel.
    NotOnDisk,
}

impl Found {
    /// The volume, however sure it is.
    pub fn volume(&self) -> Option<usize> {
        match self {
            Found::Volume(index) | Found::Likely(index) => Some(*index),
            Found::Missing | Found::NotOnDisk => None,
        }
    }

    /// The stable lower-case word used in `--json`.
    pub fn word(&self) -> &'static str {
        match self {
            Found::Volume(_) => "found",
            Found::Likely(_) => "likely",
            Found::Missing => "missing",
            Found::NotOnDisk => "not-on-disk",
        }
    }
}
