//! The answers: what an inventory consists of.

use crate::serial;
use adit_core::{Error, Finding, Name, NodeId};
use serde::{Serialize, Serializer};
use std::fmt;
use std::sync::Arc;

/// Everything found on a file system.
#[derive(Clone, Debug, Serialize)]
pub struct Inventory {
    /// The machines, in the order of their paths.
    pub machines: Vec<Machine>,
    /// Disks that no machine of this file system names. One on another datastore may use them.
    pub orphan_disks: Vec<Arc<Image>>,
    /// Files with the data of disks that no descriptor names: the descriptor may be lost.
    pub orphan_extents: Vec<FileInfo>,
    /// What could not be read.
    #[serde(serialize_with = "serial::errors")]
    pub problems: Vec<Error>,
}

/// A path from the root of the file system, without a leading `/`; raw bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FilePath(pub Vec<u8>);

impl FilePath {
    /// The directory the file is in; empty for the root.
    pub fn directory(&self) -> &[u8] {
        let end = self.0.iter().rposition(|&b| b == b'/').unwrap_or(0);
        self.0.get(..end).unwrap_or_default()
    }

    /// The file's own name.
    pub fn file_name(&self) -> &[u8] {
        self.0.rsplit(|&b| b == b'/').next().unwrap_or_default()
    }
}

impl fmt::Display for FilePath {
    /// Prints as names print: nothing in it can confuse a terminal.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, part) in self.0.split(|&b| b == b'/').enumerate() {
            if at > 0 {
                f.write_str("/")?;
            }
            if let Ok(name) = Name::new(part) {
                write!(f, "{name}")?;
            }
        }
        Ok(())
    }
}

impl Serialize for FilePath {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// One virtual machine.
#[derive(Clone, Debug, Serialize)]
pub struct Machine {
    /// Its `.vmx`, or `.vmtx` for a template.
    pub path: FilePath,
    /// The name people know it by.
    pub display_name: String,
    /// Guest operating system, in VMware's word.
    pub guest_os: String,
    /// Identity the guest sees.
    pub uuid_bios: String,
    /// Identity that changes when the machine is moved.
    pub uuid_location: String,
    /// Version of the virtual hardware.
    pub hw_version: Option<u64>,
    /// Memory of the guest. Unit: MiB.
    pub memory_mib: Option<u64>,
    /// Number of virtual processors.
    pub vcpus: u64,
    /// `bios` or `efi`.
    pub firmware: String,
    /// Notes that people wrote about it.
    pub annotations: String,
    /// Whether it is a template.
    pub template: bool,
    /// Whether settings or disks are encrypted.
    pub encrypted: bool,
    /// Whether it was running.
    pub power: Power,
    /// Its disks, detached ones included.
    pub disks: Vec<MachineDisk>,
    /// Its other drives.
    pub drives: Vec<Drive>,
    /// Its snapshots, if a `.vmsd` could be read.
    pub snapshots: Option<SnapshotTree>,
    /// Every file of it, disks included.
    pub files: Vec<FileInfo>,
    /// What its attached disks could hold. Unit: bytes.
    pub provisioned_bytes: u64,
    /// What all its files take. Unit: bytes.
    pub allocated_bytes: u64,
    /// What is missing, contradicts itself, or is worth knowing.
    #[serde(serialize_with = "serial::findings")]
    pub notes: Vec<Finding>,
}

/// Whether a machine was running, as far as its files tell.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Power {
    /// The answer.
    pub state: PowerState,
    /// What it rests on.
    pub evidence: Vec<String>,
}

/// Whether a machine was running.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum PowerState {
    /// A host held its files.
    On,
    /// Nobody held its files.
    Off,
    /// Its memory waits in a file.
    Suspended,
    /// The file system keeps no locks, or they could not be read.
    Unknown,
}

/// What a lock tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LockHint {
    /// Whether somebody holds the file.
    pub held: bool,
    /// Who, in words.
    pub owner: String,
}

/// Where a name leads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum Location {
    /// To a file of this file system.
    Here {
        /// The file.
        path: FilePath,
    },
    /// Not where it says, but a file of that name lies beside the one that names it.
    Beside {
        /// That file.
        path: FilePath,
    },
    /// To another datastore, device or machine.
    Elsewhere {
        /// Which, as the name tells.
        datastore: String,
    },
    /// Nowhere.
    Missing {
        /// Where the file should be.
        path: FilePath,
    },
}

impl Location {
    /// The file, if there is one.
    pub fn path(&self) -> Option<&FilePath> {
        match self {
            Location::Here { path } | Location::Beside { path } => Some(path),
            Location::Elsewhere { .. } | Location::Missing { .. } => None,
        }
    }
}

/// A disk of a machine.
#[derive(Clone, Debug, Serialize)]
pub struct MachineDisk {
    /// Where it is attached: `scsi0:0`.
    pub controller: String,
    /// Model of the controller, if the settings tell.
    pub controller_model: Option<String>,
    /// Whether it is attached.
    pub present: bool,
    /// `persistent`, `independent-nonpersistent` …; empty if not given.
    pub mode: String,
    /// The file the settings name.
    pub file_name: String,
    /// Where that file is.
    pub location: Location,
    /// Kind of the newest image.
    pub kind: Option<ImageKind>,
    /// What the guest sees. Unit: bytes.
    pub size_bytes: Option<u64>,
    /// What the files of all its images take. Unit: bytes.
    pub allocated_bytes: u64,
    /// Its images, newest first; the last one is the base unless something is missing.
    pub chain: Vec<Arc<Image>>,
    /// Whether every image and extent is there.
    pub complete: bool,
}

/// How an image stores its data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ImageKind {
    /// All space taken at once.
    Flat,
    /// Flat, space taken as the guest writes.
    Thin,
    /// ESX sparse (`COWD`): a snapshot on VMFS 5.
    VmfsSparse,
    /// seSparse: a snapshot on VMFS 6.
    SeSparse,
    /// Hosted sparse (`KDMV`).
    Sparse,
    /// Raw device mapping, virtual mode.
    RdmVirtual,
    /// Raw device mapping, physical mode.
    RdmPhysical,
    /// A raw device.
    RawDevice,
    /// Nothing but zeros.
    Zero,
    /// Extents of several kinds, or of an unknown one.
    Mixed,
}

/// One VMDK image: a descriptor and its extents.
#[derive(Clone, Debug, Serialize)]
pub struct Image {
    /// The descriptor.
    pub path: FilePath,
    /// The descriptor's node.
    #[serde(skip)]
    pub node: NodeId,
    /// How it stores its data.
    pub kind: ImageKind,
    /// The descriptor's own word for that.
    pub create_type: String,
    /// Size of the disk. Unit: bytes.
    pub size_bytes: u64,
    /// What the extents take. Unit: bytes.
    pub allocated_bytes: u64,
    /// Identity of the content, 8 hexadecimal digits.
    pub cid: Option<String>,
    /// The same of the parent, if it has one.
    pub parent_cid: Option<String>,
    /// The parent's descriptor, as it is named.
    pub parent: Option<String>,
    /// The parent's name in its own bytes.
    #[serde(skip)]
    pub(crate) parent_hint: Option<Vec<u8>>,
    /// The parent's uuid, where it is named only so (VirtualBox).
    pub parent_uuid: Option<String>,
    /// The filter that encrypted it, if one did.
    pub encryption: Option<String>,
    /// The extents.
    pub extents: Vec<ImageExtent>,
    /// The list of changed blocks, if there is one.
    pub change_tracking: Option<Location>,
    /// What is missing or odd.
    #[serde(serialize_with = "serial::findings")]
    pub notes: Vec<Finding>,
    /// Its files: the descriptor first, then extents and the list of changed blocks.
    #[serde(skip)]
    pub(crate) files: Vec<(NodeId, FileInfo)>,
}

impl Image {
    /// Whether every extent is there.
    pub fn complete(&self) -> bool {
        self.extents.iter().all(|extent| extent.complete)
    }
}

/// One extent of an image.
#[derive(Clone, Debug, Serialize)]
pub struct ImageExtent {
    /// The file, as it is named; empty for zeros.
    pub name: String,
    /// `VMFS`, `FLAT`, `SESPARSE` …
    pub kind: String,
    /// Where the file is; `None` for zeros.
    pub location: Option<Location>,
    /// The file's node.
    #[serde(skip)]
    pub node: Option<NodeId>,
    /// What it contributes to the disk. Unit: bytes.
    pub size_bytes: u64,
    /// Length of the file. Unit: bytes.
    pub file_bytes: Option<u64>,
    /// What the file takes. Unit: bytes.
    pub allocated_bytes: Option<u64>,
    /// Whether all of it is there.
    pub complete: bool,
}

/// A drive that is no disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Drive {
    /// Where it is attached: `sata0:0`.
    pub controller: String,
    /// `cd-rom`, `floppy`, `passthrough`, or the settings' own word.
    pub kind: String,
    /// Whether it is attached.
    pub present: bool,
    /// The file or device the settings name.
    pub file_name: String,
}

/// The snapshots of a machine.
#[derive(Clone, Debug, Serialize)]
pub struct SnapshotTree {
    /// The `.vmsd`.
    pub path: FilePath,
    /// The snapshot the present state grew from, by its uid.
    pub current: Option<u64>,
    /// The first snapshots.
    pub roots: Vec<SnapshotInfo>,
}

/// One snapshot.
#[derive(Clone, Debug, Serialize)]
pub struct SnapshotInfo {
    /// Its number.
    pub uid: u64,
    /// The name people gave it.
    pub name: String,
    /// What they wrote about it.
    pub description: String,
    /// When it was taken. Unit: seconds since 1970.
    pub created: Option<i64>,
    /// File with the machine's state (`.vmsn`).
    pub state_file: Option<String>,
    /// The disks it froze.
    pub disks: Vec<FrozenDisk>,
    /// Snapshots taken later from here.
    pub children: Vec<SnapshotInfo>,
}

/// A disk as a snapshot froze it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FrozenDisk {
    /// Where it was attached.
    pub controller: String,
    /// The descriptor, as it is named.
    pub file_name: String,
    /// Where that is: open it to see the disk as it was.
    pub location: Location,
}

/// A file of a machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FileInfo {
    /// Where it is.
    pub path: FilePath,
    /// What it is for.
    pub role: Role,
    /// Length. Unit: bytes.
    pub size_bytes: u64,
    /// Space it takes. Unit: bytes.
    pub allocated_bytes: u64,
}

/// What a file is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// `.vmx`, `.vmtx`.
    Settings,
    /// `.vmxf`.
    MoreSettings,
    /// `.vmsd`.
    Snapshots,
    /// `.vmsn`.
    SnapshotState,
    /// `.vmss`.
    SuspendState,
    /// `.vmem`.
    Memory,
    /// `.vswp`.
    Swap,
    /// `.nvram`.
    Nvram,
    /// `.vmdk`, of any kind.
    Disk,
    /// `.log`.
    Log,
    /// `.lck`.
    Lock,
}
