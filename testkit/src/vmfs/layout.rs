//! The numbers in which VMFS 3, 5 and 6 differ.

/// On-disk generation of a volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// ESX 2 to 4.
    Three,
    /// ESXi 5.
    Five,
    /// ESXi 6.5 and later.
    Six,
}

/// What a lock guards and what a resource file holds; the value is the lock's kind on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Fd = 1,
    /// FB on VMFS 3 and 5, SFB on VMFS6.
    Block = 2,
    SubBlock = 3,
    PointerBlock = 4,
    FdCluster = 5,
    Pb2 = 6,
    Journal = 7,
    Large = 8,
    Unmap = 9,
}

/// Shape of a resource file: its header's numbers.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Shape {
    pub rpc: u64,
    pub cpg: u64,
    pub rsz: u64,
    pub flags: u64,
    pub affinity_per_cluster: u64,
    pub affinity_per_item: u64,
    pub bits: u64,
}

/// File offset of the first cluster group in every resource file.
pub(crate) const CGOFF: u64 = 0x10000;
/// SFBs in an LFB, and in a cluster.
pub(crate) const SFBS: u64 = 512;
pub(crate) const HEARTBEATS_AT: u64 = 0x300000;
pub(crate) const SUPERBLOCK_AT: u64 = 0x200000;

/// FD addresses of the system files, by their item in cluster 0.
pub(crate) const fn system_fd(item: u64) -> u64 {
    item << 22 | 4
}

pub(crate) const SYSTEM_NAMES: [&str; 10] = [
    ".",
    ".fbb.sf",
    ".fdc.sf",
    ".pbc.sf",
    ".sbc.sf",
    ".vh.sf",
    ".pb2.sf",
    ".sdd.sf",
    ".jbc.sf",
    ".unmap.sf",
];

/// The chosen sizes of one volume.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Layout {
    pub version: Version,
    pub block_bytes: u64,
    /// File blocks in the volume.
    pub blocks: u64,
    /// Config bit 2: on VMFS5, small sub-blocks and longer item numbers.
    pub dense: bool,
    pub local: bool,
}

impl Layout {
    pub(crate) fn six(&self) -> bool {
        self.version == Version::Six
    }

    /// Metadata alignment, and the size of a lock.
    pub(crate) fn mda(&self) -> u64 {
        if self.six() { 4096 } else { 512 }
    }

    /// A cluster entry: its lock and its meta block.
    pub(crate) fn entry_bytes(&self) -> u64 {
        2 * self.mda()
    }

    pub(crate) fn fd_bytes(&self) -> u64 {
        if self.six() { 8192 } else { 2048 }
    }

    pub(crate) fn sub_block_bytes(&self) -> u64 {
        match (self.version, self.dense) {
            (Version::Five, true) => 8192,
            (Version::Five, false) => 32768,
            _ => 65536,
        }
    }

    pub(crate) fn resident_at(&self) -> u64 {
        if self.six() { 4096 + 512 } else { 1024 }
    }

    pub(crate) fn resident_bytes(&self) -> u64 {
        match self.version {
            Version::Three => 0,
            Version::Five => 1024,
            Version::Six => 3584,
        }
    }

    pub(crate) fn pointers_at(&self) -> u64 {
        if self.six() { 8192 - 2560 } else { 1024 }
    }

    /// Pointers in an FD.
    pub(crate) fn pointers(&self) -> u64 {
        if self.six() { 320 } else { 256 }
    }

    pub(crate) fn pointer_bytes(&self) -> u64 {
        if self.six() { 8 } else { 4 }
    }

    pub(crate) fn pointer_block_bytes(&self) -> u64 {
        if self.six() { 65536 } else { 4096 }
    }

    pub(crate) fn pointers_per_block(&self) -> u64 {
        self.pointer_block_bytes() / self.pointer_bytes()
    }

    /// Volume offset of the first block of `.fdc.sf`.
    pub(crate) fn base(&self) -> u64 {
        match self.six() {
            true => 0x700000,
            false => 0x400000u64.next_multiple_of(self.block_bytes),
        }
    }

    pub(crate) fn system_fds(&self) -> u64 {
        match self.version {
            Version::Three => 6,
            Version::Five => 8,
            Version::Six => 10,
        }
    }

    /// Volume offset of a system file's FD.
    pub(crate) fn system_fd_at(&self, item: u64) -> u64 {
        let entries = self.shape(Kind::FdCluster).cpg * self.entry_bytes();
        self.base() + CGOFF + entries + item * self.fd_bytes()
    }

    pub(crate) fn heartbeats(&self) -> u64 {
        if self.six() { 1024 } else { 2048 }
    }

    pub(crate) fn large_bytes(&self) -> u64 {
        self.block_bytes * SFBS
    }

    /// Raw major and minor version.
    pub(crate) fn numbers(&self) -> (u64, u64) {
        match (self.version, self.local) {
            (Version::Three, _) => (4, 31),
            (Version::Five, false) => (14, 81),
            (Version::Five, true) => (14, 60),
            (Version::Six, _) => (24, 82),
        }
    }

    pub(crate) fn shape(&self, kind: Kind) -> Shape {
        let plain = |rpc, cpg, rsz| Shape {
            rpc,
            cpg,
            rsz,
            affinity_per_item: 1,
            bits: 1,
            ..Shape::default()
        };
        if self.six() {
            let owned = |mut shape: Shape| {
                shape.flags = 4;
                shape.affinity_per_cluster = shape.rpc;
                shape
            };
            return match kind {
                Kind::Large => Shape {
                    flags: 0x35,
                    affinity_per_cluster: 840,
                    affinity_per_item: 52,
                    bits: 3,
                    ..plain(16, 8, 8192)
                },
                Kind::Block => {
                    Shape { flags: 0x2a, affinity_per_cluster: 216, bits: 2, ..plain(SFBS, 8, 0) }
                }
                Kind::Fd | Kind::FdCluster => owned(plain(256, 8, 8192)),
                Kind::SubBlock => owned(plain(256, 8, 65536)),
                Kind::Pb2 => owned(plain(32, 8, 65536)),
                Kind::PointerBlock => owned(plain(0, 8, 65536)),
                Kind::Journal => Shape { affinity_per_cluster: 8, ..plain(8, 4, 2 << 20) },
                Kind::Unmap => plain(0, 0, 4096),
            };
        }
        let three = self.version == Version::Three;
        let cpg = if three { 32 } else { 64 };
        match kind {
            Kind::Block => plain(200, cpg, 0),
            Kind::Fd | Kind::FdCluster => plain(if three { 32 } else { 200 }, cpg, 2048),
            Kind::SubBlock if !three && self.dense => plain(64, cpg, 8192),
            Kind::SubBlock => plain(16, cpg, self.sub_block_bytes()),
            _ => plain(16, cpg, 4096),
        }
    }

    /// The address word of an item.
    pub(crate) fn address(&self, kind: Kind, item: u64) -> u64 {
        let rpc = self.shape(kind).rpc.max(1);
        let (cluster, r) = (item / rpc, item % rpc);
        match (kind, self.six()) {
            (Kind::Fd | Kind::FdCluster, _) => cluster << 6 | r << 22 | 4,
            (Kind::Block, false) => item << 6 | 1,
            (Kind::SubBlock, false) => cluster << 6 | (r & 15) << 28 | (r >> 4) << 3 | 2,
            (Kind::PointerBlock, false) => cluster << 6 | r << 28 | 3,
            (Kind::Pb2, false) => cluster << 6 | r << 28 | 5,
            (Kind::Block, true) => cluster << 15 | r << 51 | 1,
            (Kind::Large, true) => item << 15 | 7,
            (Kind::SubBlock, true) => cluster << 6 | r << 56 | 2,
            (Kind::Pb2, true) => cluster << 6 | r << 56 | 5,
            (Kind::Journal, true) => cluster << 3 | r << 26 | 6,
            _ => panic!("{kind:?} has no address here"),
        }
    }
}

impl Shape {
    /// Length of a resource file that ends after its last item. Units: bytes.
    pub(crate) fn file_bytes(&self, items: u64, entry_bytes: u64) -> u64 {
        if items == 0 {
            return CGOFF;
        }
        let per_group = self.rpc * self.cpg;
        let full = items.div_ceil(per_group) - 1;
        let rest = items - full * per_group;
        let last = self.cpg * entry_bytes + rest * self.rsz;
        CGOFF + full * self.group_bytes(entry_bytes) + last
    }

    pub(crate) fn group_bytes(&self, entry_bytes: u64) -> u64 {
        self.cpg * entry_bytes + self.cpg * self.rpc * self.rsz
    }
}

/// Who and when: the identities written all over a volume.
#[derive(Debug, Clone)]
pub(crate) struct Ids {
    pub seconds: u64,
    pub volume: [u8; 16],
    pub file_system: [u8; 16],
    pub host: [u8; 16],
    pub local: bool,
}

impl Ids {
    pub(crate) fn new(seconds: u64, seed: u8) -> Self {
        Self {
            seconds,
            volume: uuid(seconds - 2, seed),
            file_system: uuid(seconds, seed.wrapping_add(64)),
            host: uuid(seconds - 86400, 128),
            local: false,
        }
    }

    pub(crate) fn device(&self, index: usize) -> [u8; 16] {
        let seed = self.volume[4].wrapping_add(1 + index as u8);
        uuid(self.seconds - 3, seed)
    }

    /// SCSI disk id of a member device.
    pub(crate) fn scsi_disk(&self, index: usize) -> [u8; 78] {
        scsi_id(format!("TK{:04}ADIT TEST DISK", 7 + index).as_bytes())
    }

    pub(crate) fn mac(&self) -> &[u8] {
        &self.host[10..]
    }
}

/// A SCSI disk id record, as in an LVM header and in an RDM.
pub(crate) fn scsi_id(id: &[u8]) -> [u8; 78] {
    let mut record = [0; 78];
    record[0] = 1;
    record[1] = 26;
    let id = &id[..id.len().min(26)];
    record[34..34 + id.len()].copy_from_slice(id);
    record
}

fn uuid(seconds: u64, seed: u8) -> [u8; 16] {
    let mut id = [seed; 16];
    id[..4].copy_from_slice(&(seconds as u32).to_le_bytes());
    id[5..10].copy_from_slice(&[0xa1, 0xd1, 0x70, 0x5e, seed]);
    id[10..].copy_from_slice(&[0x00, 0x50, 0x56, 0xad, 0x17, seed]);
    id
}

/// A UUID as ESXi prints it.
pub fn printed_uuid(id: &[u8; 16]) -> String {
    let first = u32::from_le_bytes(id[..4].try_into().unwrap());
    let second = u32::from_le_bytes(id[4..8].try_into().unwrap());
    let third = u16::from_le_bytes(id[8..10].try_into().unwrap());
    let mac: String = id[10..].iter().map(|b| format!("{b:02x}")).collect();
    format!("{first:08x}-{second:08x}-{third:04x}-{mac}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(version: Version) -> Layout {
        Layout { version, block_bytes: 1 << 20, blocks: 2048, dense: true, local: false }
    }

    #[test]
    fn cluster_groups_have_the_sizes_real_headers_state() {
        use Kind::*;
        let expected = [
            (Version::Six, Large, 1114112),
            (Version::Six, Block, 65536),
            (Version::Six, FdCluster, 16842752),
            (Version::Six, SubBlock, 134283264),
            (Version::Six, Pb2, 16842752),
            (Version::Six, PointerBlock, 65536),
            (Version::Six, Journal, 67141632),
            (Version::Six, Unmap, 0),
            (Version::Five, Block, 65536),
            (Version::Five, FdCluster, 26279936),
            (Version::Five, SubBlock, 33619968),
            (Version::Five, Pb2, 4259840),
            (Version::Three, Block, 32768),
            (Version::Three, FdCluster, 2129920),
            (Version::Three, SubBlock, 33587200),
            (Version::Three, PointerBlock, 2129920),
        ];
        for (version, kind, bytes) in expected {
            let layout = layout(version);
            let found = layout.shape(kind).group_bytes(layout.entry_bytes());
            assert_eq!(found, bytes, "{version:?} {kind:?}");
        }
    }

    #[test]
    fn resource_files_have_the_lengths_esxi_gives_them() {
        let six = layout(Version::Six);
        let length = |kind, items| six.shape(kind).file_bytes(items, 8192);
        assert_eq!(length(Kind::Large, 4), 163840);
        assert_eq!(length(Kind::FdCluster, 16384), 134807552);
        assert_eq!(length(Kind::SubBlock, 16384), 1074331648);
        assert_eq!(length(Kind::Pb2, 256), 16908288);
        assert_eq!(length(Kind::Journal, 128), 268632064);
        assert_eq!(length(Kind::PointerBlock, 0), 65536);
        let five = layout(Version::Five);
        let length = |kind, items| five.shape(kind).file_bytes(items, 1024);
        assert_eq!(length(Kind::Block, 2048), 131072);
        assert_eq!(length(Kind::FdCluster, 20352), 41877504);
        assert_eq!(length(Kind::PointerBlock, 64512), 268435456);
        assert_eq!(length(Kind::SubBlock, 8192), 67305472);
        assert_eq!(length(Kind::Pb2, 256), 1179648);
    }

    #[test]
    fn addresses_and_offsets_are_the_ones_seen_on_real_volumes() {
        let six = layout(Version::Six);
        assert_eq!(six.address(Kind::Block, 8), 0x40000000000001);
        assert_eq!(six.address(Kind::Block, 512 + 222), 0x6f0000000008001);
        assert_eq!(six.address(Kind::SubBlock, 35 * 256 + 1), 0x1000000000008c2);
        assert_eq!(six.address(Kind::Pb2, 0), 5);
        assert_eq!(six.address(Kind::Journal, 16), 0x16);
        assert_eq!(six.system_fd_at(6), 0x72c000);
        let five = layout(Version::Five);
        assert_eq!(five.address(Kind::Block, 5), 0x141);
        assert_eq!(five.system_fd_at(6), 0x423000);
        assert_eq!(layout(Version::Three).system_fd_at(0), 0x418000);
        assert_eq!(system_fd(9), 0x02400004);
    }

    #[test]
    fn uuids_print_as_in_the_volume_name() {
        let id = [
            0xfc, 0x6e, 0x62, 0x68, 0xd0, 0x1c, 0xce, 0x23, 0x8b, 0x1f, 0xbc, 0x24, 0x11, 0xb1,
            0x7e, 0x28,
        ];
        assert_eq!(printed_uuid(&id), "68626efc-23ce1cd0-1f8b-bc2411b17e28");
    }
}
