//! Names to nodes, nodes to disks.

use crate::{Disk, Error, Finding, Problem, Result};
use std::fmt::{self, Debug, Write as _};
use std::sync::Arc;

/// A node of a file system: the same number in every listing and for as long as the node lives.
/// For VMFS it is the FD address, for others the inode number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(pub u64);

/// A file name: raw bytes, without `/` and NUL, in no particular encoding.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(Vec<u8>);

impl Name {
    /// A name from raw bytes.
    ///
    /// Errors: `Corrupt` for an empty name, and for one that no directory can hold (`/`, NUL),
    /// so that no caller need fear a path in disguise.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Result<Name> {
        let bytes = bytes.into();
        if bytes.is_empty() || bytes.iter().any(|&b| b == b'/' || b == 0) {
            let detail = format!("{:?} is no file name", String::from_utf8_lossy(&bytes));
            return Err(Error::corrupt(Problem::BadValue, detail));
        }
        Ok(Name(bytes))
    }

    /// The raw bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Whether it is `.` or `..`.
    pub fn is_dots(&self) -> bool {
        matches!(self.as_bytes(), b"." | b"..")
    }
}

impl fmt::Display for Name {
    /// Prints UTF-8 as it is and everything that could confuse a terminal as `\xNN`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.0.utf8_chunks() {
            for c in chunk.valid().chars() {
                if c.is_control() || c == '\\' {
                    let mut utf8 = [0; 4];
                    c.encode_utf8(&mut utf8).bytes().try_for_each(|b| write!(f, "\\x{b:02x}"))?;
                } else {
                    f.write_char(c)?;
                }
            }
            chunk.invalid().iter().try_for_each(|b| write!(f, "\\x{b:02x}"))?;
        }
        Ok(())
    }
}

impl Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

/// What a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NodeKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A file of the file system's own: VMFS `.fdc.sf`, NTFS `$MFT`.
    System,
    /// A raw device mapping: it stands for another device.
    RawDevice,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
}

impl NodeKind {
    /// The stable lower-case word used in `--json`.
    pub fn word(self) -> &'static str {
        match self {
            NodeKind::File => "file",
            NodeKind::Directory => "directory",
            NodeKind::Symlink => "symlink",
            NodeKind::System => "system",
            NodeKind::RawDevice => "raw-device",
            NodeKind::CharDevice => "char-device",
            NodeKind::BlockDevice => "block-device",
            NodeKind::Fifo => "fifo",
            NodeKind::Socket => "socket",
        }
    }

    /// The letter `ls -l` shows.
    pub fn letter(self) -> char {
        match self {
            NodeKind::File | NodeKind::System => '-',
            NodeKind::Directory => 'd',
            NodeKind::Symlink => 'l',
            NodeKind::RawDevice => 'r',
            NodeKind::CharDevice => 'c',
            NodeKind::BlockDevice => 'b',
            NodeKind::Fifo => 'p',
            NodeKind::Socket => 's',
        }
    }
}

/// A moment, UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp {
    /// Seconds since 1970-01-01.
    pub seconds: i64,
    /// Nanoseconds into the second.
    pub nanos: u32,
}

impl Timestamp {
    /// Whole seconds since 1970.
    pub fn from_seconds(seconds: i64) -> Self {
        Timestamp { seconds, nanos: 0 }
    }
}

/// What a file system knows of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metadata {
    /// The node.
    pub node: NodeId,
    /// What it is.
    pub kind: NodeKind,
    /// Length. Unit: bytes.
    pub size_bytes: u64,
    /// Space its data takes. Unit: bytes.
    pub allocated_bytes: u64,
    /// Its unit of allocation. Unit: bytes.
    pub block_size_bytes: u64,
    /// Number of names.
    pub links: u32,
    /// Permission bits, without the type.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Last change of the data.
    pub modified: Option<Timestamp>,
    /// Last change of the node.
    pub changed: Option<Timestamp>,
    /// Last read.
    pub accessed: Option<Timestamp>,
    /// Creation.
    pub created: Option<Timestamp>,
    /// Tells a node from an earlier one with the same number.
    pub generation: u64,
}

/// A place in a directory; opaque, and valid for as long as the directory does not change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cursor(pub u64);

/// One name of a directory. `.` and `..` are never among them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirEntry {
    /// The name.
    pub name: Name,
    /// What it names.
    pub node: NodeId,
    /// What that is, as the directory tells it.
    pub kind: NodeKind,
    /// Where a listing goes on after this entry.
    pub after: Cursor,
}

/// Part of a directory.
#[derive(Clone, Debug, Default)]
pub struct DirPage {
    /// Some entries, at least one unless this is the last page or all here are damaged.
    pub entries: Vec<DirEntry>,
    /// Where the next page starts; `None` on the last one.
    pub next: Option<Cursor>,
    /// What could not be listed, so that the rest still can be.
    pub problems: Vec<Error>,
}

/// Which of a file's streams.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Fork {
    /// The unnamed one.
    #[default]
    Data,
    /// A named stream (NTFS), a resource fork (HFS+).
    Named(Name),
}

/// An extended attribute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Xattr {
    /// Full name with its prefix.
    pub name: Name,
    /// Its value.
    pub value: Vec<u8>,
}

/// Something particular to the format that `stat` shows. Names are stable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Detail {
    /// Stable name, lower case with underscores.
    pub name: &'static str,
    /// What it holds.
    pub value: crate::on_disk::Value,
}

/// Free and used space.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Space {
    /// Unit of allocation. Unit: bytes.
    pub block_size_bytes: u64,
    /// Capacity. Unit: bytes.
    pub total_bytes: u64,
    /// Free. Unit: bytes.
    pub free_bytes: u64,
    /// How many nodes there can be.
    pub nodes_total: u64,
    /// How many more there can be.
    pub nodes_free: u64,
}

/// What a file system calls itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// Format and version: `"VMFS 6.82"`.
    pub format: String,
    /// Its label, printable.
    pub label: String,
    /// Its identity as the format prints it.
    pub uuid: String,
    /// When it was made.
    pub created: Option<Timestamp>,
}

/// Names to nodes. Opening a file gives a [`Disk`], so stacks nest without end.
///
/// All methods take `&self` and may run on many threads at once; none has a default.
pub trait FileSystem: Debug + Send + Sync {
    /// What it calls itself.
    fn identity(&self) -> Identity;

    /// What is worth saying about it: in use, journal pending, parts missing.
    fn notes(&self) -> Vec<Finding>;

    /// The root directory.
    fn root(&self) -> NodeId;

    /// Finds one name. `.` and `..` are understood; symbolic links are not followed.
    ///
    /// Errors: `NotFound`; `Invalid` if `dir` is no directory.
    fn lookup(&self, dir: NodeId, name: &Name) -> Result<NodeId>;

    /// Lists part of a directory, from `from` on ([`Cursor::default`] is the start).
    fn read_dir(&self, dir: NodeId, from: Cursor) -> Result<DirPage>;

    /// What is known of a node.
    fn metadata(&self, node: NodeId) -> Result<Metadata>;

    /// Where a symbolic link leads, in the file system's own bytes.
    fn read_link(&self, link: NodeId) -> Result<Vec<u8>>;

    /// A file's bytes as a disk.
    ///
    /// Errors: `Unsupported` for what has no bytes here (raw device mappings, sockets).
    fn open(&self, file: NodeId, fork: &Fork) -> Result<Arc<dyn Disk>>;

    /// Extended attributes.
    fn xattrs(&self, node: NodeId) -> Result<Vec<Xattr>>;

    /// What only this format knows of a node.
    fn details(&self, node: NodeId) -> Result<Vec<Detail>>;

    /// Free and used space.
    fn space(&self) -> Result<Space>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_never_a_path() {
        for bad in ["", "a/b", "/", "a\0b"] {
            assert!(Name::new(bad.as_bytes()).is_err(), "{bad:?}");
        }
        assert!(Name::new(&b".."[..]).unwrap().is_dots());
    }

    #[test]
    fn a_name_prints_without_control_bytes() {
        let name = Name::new(&b"caf\xc3\xa9 \x1b[31m\xff\\"[..]).unwrap();
        assert_eq!(name.to_string(), "café \\x1b[31m\\xff\\x5c");
    }
}
