//! What opening gives: a place in a stack of layers.

use crate::{Guest, Locator};
use adit_core::{Disk, FileSystem, Finding, NodeId, Volume, VolumeTable};
use adit_vmfs::Vmfs;
use std::path::PathBuf;
use std::sync::Arc;

/// A place that was opened, and the layers above it.
#[derive(Clone, Debug)]
pub struct Opened {
    /// The full form of its name.
    pub locator: Locator,
    /// What is there.
    pub at: At,
    /// Every layer passed on the way, outermost first.
    pub layers: Vec<LayerInfo>,
    /// What those layers had to say.
    pub notes: Vec<Finding>,
    /// The volumes of the last table passed: members of one volume often lie side by side.
    pub(crate) beside: Vec<Volume>,
    /// The volumes of the guest's other disks, where they are known.
    pub(crate) around: Vec<Volume>,
}

/// What a place is.
#[derive(Clone, Debug)]
pub enum At {
    /// Bytes: a device, a partition, an image's contents.
    Disk {
        /// The bytes.
        disk: Arc<dyn Disk>,
        /// Where they come from.
        origin: Origin,
    },
    /// A table of volumes.
    Volumes {
        /// The table.
        table: VolumeTable,
        /// The disk it was read from.
        disk: Arc<dyn Disk>,
        /// Where that comes from.
        origin: Origin,
    },
    /// A node of a file system.
    Node {
        /// The file system.
        files: Files,
        /// The node.
        node: NodeId,
        /// Its directory, for references and `..`.
        parent: NodeId,
        /// Path from the root, without a leading `/`.
        path: Vec<u8>,
    },
}

/// A file system with what its format offers beside names and bytes.
#[derive(Clone, Debug)]
pub struct Files {
    /// Names to nodes.
    pub fs: Arc<dyn FileSystem>,
    /// The file system as VMFS, if it is one.
    pub vmfs: Option<Arc<Vmfs>>,
    /// What its format offers, if it is a guest's.
    pub guest: Option<Guest>,
    /// The logical volume it lies on, if there is an LVM layer.
    pub volume: Option<Arc<adit_vmfs_lvm::Volume>>,
    /// The members that were found for that volume, for `check` and `inspect`.
    pub members: Arc<Vec<adit_vmfs_lvm::Member>>,
    /// Prefixes under which absolute symbolic links mean this file system.
    pub link_roots: Vec<Vec<u8>>,
}

impl Files {
    /// A file system that offers nothing else.
    pub fn of(fs: Arc<dyn FileSystem>) -> Files {
        Files {
            fs,
            vmfs: None,
            guest: None,
            volume: None,
            members: Arc::default(),
            link_roots: Vec::new(),
        }
    }
}

/// Where a disk's bytes come from, which decides what they may be and what they may name.
#[derive(Clone, Debug)]
pub enum Origin {
    /// A file or device on the host.
    Host(PathBuf),
    /// A file inside a file system.
    File {
        /// That file system.
        files: Files,
        /// The file.
        node: NodeId,
        /// The directory that holds it.
        parent: NodeId,
        /// Its name.
        name: Vec<u8>,
    },
    /// A snapshot that was named after its image: already what the image holds.
    Snapshot,
    /// A partition or the contents of an image: raw, never taken for an image again.
    Inner,
}

/// One layer on the way, for `info`.
#[derive(Clone, Debug)]
pub struct LayerInfo {
    /// Format in its own words: `"GPT"`, `"VMFS 6.82"`.
    pub format: String,
    /// Where it is.
    pub locator: Locator,
    /// Facts: stable lower-case names and printable values.
    pub facts: Vec<(&'static str, Fact)>,
}

/// A printable fact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fact {
    /// Text.
    Text(String),
    /// A number without unit.
    Count(u64),
    /// A size.
    Bytes(u64),
    /// A moment, seconds since 1970.
    Time(i64),
    /// Several texts.
    List(Vec<String>),
}
