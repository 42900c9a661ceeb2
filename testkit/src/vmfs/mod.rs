//! A maker of VMFS volumes, written apart from the reader so that it can bear witness.
//!
//! ```
//! use adit_testkit::Vmfs;
//!
//! let image = Vmfs::six()
//!     .label("datastore1")
//!     .file("web01/web01.vmx", b".encoding = \"UTF-8\"\n")
//!     .sparse_file("big/big-flat.vmdk", 42 << 40, &[(1 << 41, b"deep inside")])
//!     .symlink("link", "web01/web01.vmx")
//!     .in_memory();
//! ```
//!
//! Folders named in a path come into being by themselves. What is written:
//! all that mkfs lays down (LVM, superblock, heartbeats, resource files,
//! system FDs), and the tree, with every bitmap, owner, count, lock and
//! back pointer in agreement. Bytes that no reader may show (behind the end
//! of a file, below "to be zeroed" blocks, in deleted FDs) hold garbage on
//! purpose.
//!
//! Differences from a volume ESXi made: time stamps never move, lock tokens
//! are plausible rather than counted, journals are formatted only where a
//! heartbeat is in use, and users' FDs fill clusters 1, 2, 3… in order.
//! On VMFS6 volumes above 512 GiB only the LFBs in use are converted into SFB
//! clusters; the entries of SFB clusters that do not exist are not written.
//! [`Vmfs::lean`] leaves out more.
//!
//! A 64 TiB device is quick to make, but ext4 holds no file above 16 TiB:
//! make it in memory, on tmpfs or XFS, or as a span. A folder of 100 000
//! files costs 800 MB as VMFS6 (two pages an FD): make it in a file.

mod content;
mod damage;
mod descriptor;
mod directory;
mod entry;
pub mod hash;
mod heartbeat;
mod image;
mod layout;
mod lock;
mod lvm;
mod make;
mod resource;
mod tree;
mod volume;

use std::fs::File;
use std::path::Path;

use crate::store::{Memory, Store};

pub use content::Addressing;
pub use damage::Damage;
pub use entry::Entry;
pub use heartbeat::Heartbeat;
pub use image::Image;
pub use layout::{Version, printed_uuid};
pub use lock::Mode;

use layout::{Ids, Layout};
use lvm::Plan;
use make::{Counts, Fill, Maker};
use volume::Volume;

/// LFBs up to which all are converted, as on every small volume seen.
const CONVERT_ALL: u64 = 1024;

/// A volume to be made.
#[derive(Debug, Clone)]
pub struct Vmfs {
    version: Version,
    lvm: u32,
    device_bytes: Vec<u64>,
    block_bytes: u64,
    dense: bool,
    local: bool,
    label: Vec<u8>,
    seconds: u64,
    seed: u8,
    fds: Option<u64>,
    sub_blocks: Option<u64>,
    pointer_blocks: Option<u64>,
    journals: Option<u64>,
    fill: Option<Fill>,
    scattered: bool,
    entries: Vec<Entry>,
    heartbeats: Vec<Heartbeat>,
}

impl Vmfs {
    fn new(version: Version, lvm: u32, device_bytes: u64) -> Self {
        Self {
            version,
            lvm,
            device_bytes: vec![device_bytes],
            block_bytes: 1 << 20,
            dense: version > Version::Three,
            local: false,
            label: b"testkit".to_vec(),
            seconds: 1_700_000_000,
            seed: 1,
            fds: None,
            sub_blocks: None,
            pointer_blocks: None,
            journals: None,
            fill: None,
            scattered: false,
            entries: Vec::new(),
            heartbeats: Vec::new(),
        }
    }

    /// VMFS 3.31 on LVM 3, 1 GiB of data.
    pub fn three() -> Self {
        Self::new(Version::Three, 3, (1024 + 32) << 20)
    }

    /// VMFS 5.81 on LVM 5, 2 GiB of data.
    pub fn five() -> Self {
        Self::new(Version::Five, 5, (2048 + 32) << 20)
    }

    /// VMFS 6.82 on LVM 6, 2 GiB of data.
    pub fn six() -> Self {
        Self::new(Version::Six, 6, (2048 + 32) << 20)
    }

    /// Size of the one device; its volume has as many whole 256 MiB extents as fit behind 17 MiB.
    pub fn size_bytes(self, bytes: u64) -> Self {
        self.devices_bytes(&[bytes])
    }

    /// A volume over several devices. Units: bytes, of each device.
    pub fn devices_bytes(mut self, bytes: &[u64]) -> Self {
        self.device_bytes = bytes.to_vec();
        self
    }

    /// Another LVM version than usual: 3, 4, 5 or 6.
    pub fn lvm(mut self, version: u32) -> Self {
        assert!((3..=6).contains(&version));
        self.lvm = version;
        self
    }

    /// No volume manager: byte 0 of the device is byte 0 of the volume.
    pub fn without_lvm(mut self) -> Self {
        self.lvm = 0;
        self
    }

    /// File block size: 1, 2, 4 or 8 MiB on VMFS3, 512 KiB or 1 MiB on VMFS5.
    pub fn block_bytes(mut self, bytes: u64) -> Self {
        assert!(self.version != Version::Six || bytes == 1 << 20);
        assert!(bytes.is_power_of_two());
        self.block_bytes = bytes;
        self
    }

    /// VMFS5 without config bit 2: sub-blocks of 32 KiB, 4 bits of item number.
    pub fn not_dense(mut self) -> Self {
        assert!(self.version == Version::Five);
        self.dense = false;
        self
    }

    /// VMFS-L, the variant on system disks.
    pub fn local(mut self) -> Self {
        self.local = true;
        self
    }

    /// The label: up to 127 bytes, in any encoding.
    pub fn label(mut self, label: impl AsRef<[u8]>) -> Self {
        self.label = label.as_ref().to_vec();
        assert!(self.label.len() < 128);
        self
    }

    /// When the volume was made, and the default time of everything in it. Units: seconds since 1970.
    pub fn made_at(mut self, seconds: u64) -> Self {
        self.seconds = seconds;
        self
    }

    /// Changes all UUIDs, so that two volumes can be told apart.
    pub fn seed(mut self, seed: u8) -> Self {
        self.seed = seed;
        self
    }

    /// Number of FDs; without it ESXi's number, or more when the tree needs more.
    pub fn fds(mut self, count: u64) -> Self {
        self.fds = Some(count);
        self
    }

    /// Number of sub-blocks.
    pub fn sub_blocks(mut self, count: u64) -> Self {
        self.sub_blocks = Some(count);
        self
    }

    /// Number of pointer blocks (VMFS 3 and 5).
    pub fn pointer_blocks(mut self, count: u64) -> Self {
        self.pointer_blocks = Some(count);
        self
    }

    /// VMFS6: converts only the LFBs whose SFBs are in use; the others stay free LFBs.
    pub fn unconverted(mut self) -> Self {
        self.fill = Some(Fill::Converted);
        self
    }

    /// VMFS6: converts every LFB that no file uses, whatever the size.
    pub fn all_converted(mut self) -> Self {
        self.fill = Some(Fill::All);
        self
    }

    /// Writes entries of file block clusters only where blocks are in use:
    /// fast and small, enough for a reader, but not for a checker.
    pub fn lean(mut self) -> Self {
        self.fill = Some(Fill::InUse);
        self
    }

    /// Lays `.fdc.sf`, `.pbc.sf` and `.sbc.sf` backwards, for readers that take them for contiguous.
    pub fn scattered(mut self) -> Self {
        assert!(self.version > Version::Three, "VMFS3 sub-blocks cross blocks");
        self.scattered = true;
        self
    }

    /// Adds anything.
    pub fn with(mut self, entry: Entry) -> Self {
        self.entries.push(entry);
        self
    }

    /// Adds a file.
    pub fn file(self, path: impl AsRef<[u8]>, bytes: impl AsRef<[u8]>) -> Self {
        self.with(Entry::file(path, bytes))
    }

    /// Adds a file of holes with some pieces of data in it. Units: bytes.
    pub fn sparse_file<B: AsRef<[u8]>>(
        self,
        path: impl AsRef<[u8]>,
        length: u64,
        pieces: &[(u64, B)],
    ) -> Self {
        self.with(Entry::sparse(path, length, pieces))
    }

    /// Adds a symbolic link.
    pub fn symlink(self, path: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Self {
        self.with(Entry::symlink(path, target))
    }

    /// Adds a raw device mapping to a LUN of this size. Units: bytes.
    pub fn rdm(self, path: impl AsRef<[u8]>, size_bytes: u64) -> Self {
        self.with(Entry::rdm(path, size_bytes))
    }

    /// Adds an empty folder.
    pub fn dir(self, path: impl AsRef<[u8]>) -> Self {
        self.with(Entry::dir(path))
    }

    /// Fills a heartbeat slot.
    pub fn heartbeat(mut self, heartbeat: Heartbeat) -> Self {
        self.heartbeats.push(heartbeat);
        self
    }

    /// Writes a volume on one device into a new file.
    pub fn write(&self, path: impl AsRef<Path>) -> Image<File> {
        self.write_span(&[path])
    }

    /// Writes each device into a new file of its own.
    pub fn write_span(&self, paths: &[impl AsRef<Path>]) -> Image<File> {
        let open = |path: &Path| {
            let mut options = File::options();
            options.read(true).write(true).create(true).truncate(true);
            options.open(path).unwrap_or_else(|e| panic!("create {}: {e}", path.display()))
        };
        self.write_to(paths.iter().map(|path| open(path.as_ref())).collect())
    }

    /// Writes the devices into memory.
    pub fn in_memory(&self) -> Image<Memory> {
        self.write_to(vec![Memory::new(); self.device_bytes.len()])
    }

    /// Writes the devices into these stores, which must read as zeros.
    pub fn write_to<S: Store>(&self, mut stores: Vec<S>) -> Image<S> {
        assert_eq!(stores.len(), self.device_bytes.len(), "one store a device");
        let plan = Plan::new(self.lvm, &self.device_bytes);
        let layout = Layout {
            version: self.version,
            block_bytes: self.block_bytes,
            blocks: plan.volume_bytes() / self.block_bytes,
            dense: self.dense,
            local: self.local,
        };
        assert!(
            layout.six() || layout.blocks <= 1 << 26,
            "block numbers have 26 bits: choose bigger blocks"
        );
        let mut ids = Ids::new(self.seconds, self.seed);
        ids.local = self.local;
        plan.write(&mut stores, &ids);
        let volume = Volume { stores, runs: plan.runs() };
        let tree = tree::Tree::plant(&self.entries);
        let counts = self.counts(&layout, tree.len() as u64);
        let mut maker = Maker::new(layout, ids, volume, counts);
        maker.label = self.label.clone();
        maker.with_lvm = self.lvm != 0;
        maker.scattered = self.scattered;
        maker.fill = self.fill.unwrap_or({
            if layout.six() && maker.large.items > CONVERT_ALL {
                Fill::Converted
            } else {
                Fill::All
            }
        });
        let nodes = tree.grow(&mut maker, &self.heartbeats);
        maker.finish();
        Image::new(maker, nodes)
    }

    /// ESXi's counts, or those of the lean 256 MiB variant for volumes it would not make.
    fn counts(&self, layout: &Layout, nodes: u64) -> Counts {
        let n = layout.blocks;
        let per_block = layout.block_bytes / layout.sub_block_bytes().min(layout.block_bytes);
        let mut counts = match self.version {
            Version::Three => Counts {
                fds: (n / 4).clamp(256, 30720),
                sub_blocks: n.clamp(64, 4096),
                pointer_blocks: 64,
                pb2s: 0,
                journals: 0,
            },
            Version::Five => Counts {
                fds: (10 * n - 8 * n / per_block).min(130000),
                sub_blocks: (4 * n).min(if self.dense { 32000 } else { 4086 }),
                pointer_blocks: pointer_blocks_in(256.min(n / 4) * layout.block_bytes).min(64512),
                pb2s: 256,
                journals: 0,
            },
            Version::Six => {
                let lean = n < 1792;
                Counts {
                    fds: if lean { 512 } else { 16384 },
                    sub_blocks: if lean { 512 } else { 16384 },
                    pointer_blocks: 0,
                    pb2s: if lean { 32 } else { 256 },
                    journals: if lean || self.local { 2 } else { 128 },
                }
            }
        };
        let rpc = layout.shape(layout::Kind::FdCluster).rpc;
        let needed = (nodes + 2 * rpc).next_multiple_of(rpc);
        counts.fds = self.fds.unwrap_or(counts.fds).max(needed);
        counts.sub_blocks = self.sub_blocks.unwrap_or(counts.sub_blocks);
        counts.pointer_blocks = self.pointer_blocks.unwrap_or(counts.pointer_blocks);
        let hosts = self.heartbeats.len() as u64;
        counts.journals = self.journals.unwrap_or(counts.journals.max(hosts));
        counts
    }
}

/// Pointer blocks of VMFS5 that fit into a file of this length.
fn pointer_blocks_in(bytes: u64) -> u64 {
    let group = 4259840;
    let full = (bytes - 0x10000) / group;
    let rest = (bytes - 0x10000) % group;
    full * 1024 + rest.saturating_sub(65536) / 4096
}
