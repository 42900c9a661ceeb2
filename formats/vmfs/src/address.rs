//! Addresses: the low three bits tell the kind, the rest where.
//!
//! VMFS3 and VMFS5 hold block addresses in 32 bits, VMFS6 in 64; FD addresses are 32 bits
//! everywhere.

use adit_core::{Error, NodeId, Problem, Result};
use std::fmt;

/// Which address layout a volume uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Width {
    /// VMFS3 and VMFS5: 32-bit block addresses. `dense` tells whether sub-block item numbers
    /// have two more bits (config flag 0x4).
    Narrow {
        /// Config flag 0x4.
        dense: bool,
    },
    /// VMFS6: 64-bit block addresses.
    Wide,
}

impl Width {
    /// Length of a block address on disk. Unit: bytes.
    pub fn address_bytes(self) -> usize {
        match self {
            Width::Narrow { .. } => 4,
            Width::Wide => 8,
        }
    }
}

/// The address of a file descriptor.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FdAddress(u32);

impl FdAddress {
    /// The root directory.
    pub const ROOT: FdAddress = FdAddress::system(0);

    /// The FD of system file `item`: 0 root, 1 `.fbb.sf`, 2 `.fdc.sf`, 3 `.pbc.sf`,
    /// 4 `.sbc.sf`, 5 `.vh.sf`, 6 `.pb2.sf`, 7 `.sdd.sf`, 8 `.jbc.sf`, 9 `.unmap.sf`.
    pub const fn system(item: u32) -> FdAddress {
        // Items have ten bits; more would be a mistake in this crate.
        FdAddress(((item & 0x3ff) << 22) | 4)
    }

    /// An FD address from its parts; nothing where they do not fit.
    pub fn new(cluster: u32, item: u32) -> Option<FdAddress> {
        (cluster < 1 << 16 && item < 1 << 10)
            .then_some(FdAddress((item << 22) | (cluster << 6) | 4))
    }

    /// Reads an address as it stands on disk.
    ///
    /// Errors: `Corrupt` where the word is no FD address.
    pub fn parse(raw: u32) -> Result<FdAddress> {
        if raw & 0x3f == 4 {
            return Ok(FdAddress(raw));
        }
        let detail = format!("{raw:#010x} is no FD address");
        Err(Error::corrupt(Problem::BadValue, detail))
    }

    /// The FD a node number stands for.
    ///
    /// Errors: `NotFound` where it stands for none.
    pub fn of_node(node: NodeId) -> Result<FdAddress> {
        u32::try_from(node.0)
            .ok()
            .and_then(|raw| FdAddress::parse(raw).ok())
            .ok_or_else(|| Error::not_found(format!("there is no FD {:#010x}", node.0)))
    }

    /// The word as it stands on disk.
    pub fn raw(self) -> u32 {
        self.0
    }

    /// The same number as a node.
    pub fn node(self) -> NodeId {
        NodeId(u64::from(self.0))
    }

    /// The cluster of `.fdc.sf`.
    pub fn cluster(self) -> u32 {
        (self.0 >> 6) & 0xffff
    }

    /// The item within its cluster.
    pub fn item(self) -> u32 {
        self.0 >> 22
    }
}

impl fmt::Display for FdAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#010x}", self.0)
    }
}

impl fmt::Debug for FdAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FD {self}")
    }
}

/// What an address names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Target {
    /// FB, VMFS3/5: a file block.
    FileBlock(u64),
    /// SFB, VMFS6: a small file block.
    SmallBlock {
        /// Cluster of the SFB bitmap.
        cluster: u64,
        /// Item within it.
        item: u64,
    },
    /// LFB, VMFS6: a large file block.
    LargeBlock(u64),
    /// SB: an item of `.sbc.sf`.
    SubBlock {
        /// Cluster.
        cluster: u64,
        /// Item within it.
        item: u64,
    },
    /// PB: an item of `.pbc.sf`.
    PointerBlock {
        /// Cluster.
        cluster: u64,
        /// Item within it.
        item: u64,
    },
    /// PB2: an item of `.pb2.sf`.
    PointerBlock2 {
        /// Cluster.
        cluster: u64,
        /// Item within it.
        item: u64,
    },
    /// JB, VMFS6: an item of `.jbc.sf`.
    JournalBlock {
        /// Cluster.
        cluster: u64,
        /// Item within it.
        item: u64,
    },
    /// An FD.
    Descriptor(FdAddress),
}

/// A decoded block address with its flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Address {
    /// The word as it stands on disk.
    pub raw: u64,
    /// What it names.
    pub target: Target,
    /// To-be-zeroed bits, one for each eighth of the block; VMFS3/5 know all or none.
    pub tbz: u8,
    /// Copy-on-write: the block is shared with another file.
    pub cow: bool,
}

impl Address {
    /// Decodes a block address; a zero word is a hole.
    ///
    /// Errors: `Corrupt` for words that address nothing.
    pub fn parse(raw: u64, width: Width) -> Result<Option<Address>> {
        if raw == 0 {
            return Ok(None);
        }
        let decoded = match width {
            Width::Narrow { dense } => narrow(raw, dense),
            Width::Wide => wide(raw),
        };
        match decoded {
            Some((target, tbz)) => {
                let cow_bit = if matches!(target, Target::FileBlock(_)) { 4 } else { 5 };
                let journal = matches!(target, Target::JournalBlock { .. } | Target::Descriptor(_));
                let cow = !journal && bits(raw, cow_bit, 1) == 1;
                Ok(Some(Address { raw, target, tbz, cow }))
            }
            None => {
                let detail = format!("{raw:#x} is no block address");
                Err(Error::corrupt(Problem::BadValue, detail))
            }
        }
    }

    /// Whether the whole block reads as zeros although it is allocated.
    pub fn is_tbz(self) -> bool {
        self.tbz == 0xff
    }
}

/// `count` bits of `raw` from bit `low` on.
fn bits(raw: u64, low: u32, count: u32) -> u64 {
    let mask = u64::MAX.checked_shr(64u32.saturating_sub(count)).unwrap_or(0);
    raw.checked_shr(low).unwrap_or(0) & mask
}

fn narrow(raw: u64, dense: bool) -> Option<(Target, u8)> {
    if raw > u64::from(u32::MAX) {
        return None;
    }
    let (cluster, item) = (bits(raw, 6, 22), bits(raw, 28, 4));
    Some(match raw & 7 {
        1 => {
            let tbz = if bits(raw, 5, 1) == 1 { 0xff } else { 0 };
            (Target::FileBlock(bits(raw, 6, 26)), tbz)
        }
        2 => {
            let high = if dense { bits(raw, 3, 2) } else { 0 };
            (Target::SubBlock { cluster, item: item | (high << 4) }, 0)
        }
        3 => (Target::PointerBlock { cluster, item }, 0),
        4 => (descriptor(raw)?, 0),
        5 => (Target::PointerBlock2 { cluster, item }, 0),
        _ => return None,
    })
}

fn wide(raw: u64) -> Option<(Target, u8)> {
    let (cluster, item) = (bits(raw, 6, 36), bits(raw, 56, 8));
    // Bits that are zero on every volume seen: a set one means something unknown.
    let item_gap_clear = bits(raw, 42, 14) == 0;
    let tbz = u8::try_from(bits(raw, 7, 8)).ok()?;
    Some(match raw & 7 {
        1 if bits(raw, 46, 5) == 0 => {
            (Target::SmallBlock { cluster: bits(raw, 15, 31), item: bits(raw, 51, 13) }, tbz)
        }
        2 if item_gap_clear => (Target::SubBlock { cluster, item }, 0),
        3 if item_gap_clear => (Target::PointerBlock { cluster, item }, 0),
        4 => (descriptor(raw)?, 0),
        5 if item_gap_clear => (Target::PointerBlock2 { cluster, item }, 0),
        6 if bits(raw, 16, 10) == 0 && raw <= u64::from(u32::MAX) => {
            (Target::JournalBlock { cluster: bits(raw, 3, 13), item: bits(raw, 26, 6) }, 0)
        }
        7 if bits(raw, 46, 18) == 0 => (Target::LargeBlock(bits(raw, 15, 31)), tbz),
        _ => return None,
    })
}

fn descriptor(raw: u64) -> Option<Target> {
    Some(Target::Descriptor(FdAddress::parse(u32::try_from(raw).ok()?).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(raw: u64, width: Width) -> Address {
        Address::parse(raw, width).unwrap().unwrap()
    }

    #[test]
    fn a_zero_word_is_a_hole() {
        assert_eq!(Address::parse(0, Width::Wide).unwrap(), None);
    }

    #[test]
    fn fd_addresses_hold_cluster_and_item() {
        let fd = FdAddress::parse(0x0240_0004).unwrap();
        assert_eq!((fd.cluster(), fd.item()), (0, 9));
        assert_eq!(FdAddress::new(0, 9), Some(fd));
        assert_eq!(FdAddress::system(9), fd);
        assert_eq!(FdAddress::parse(0x0240_0044).unwrap().cluster(), 1);
        assert!(FdAddress::parse(0x0240_0005).is_err());
        assert!(FdAddress::of_node(NodeId(1 << 32 | 4)).is_err());
    }

    #[test]
    fn narrow_addresses_keep_flags_apart_from_numbers() {
        let width = Width::Narrow { dense: true };
        let block = parse(0x0000_1231, width);
        assert_eq!(block.target, Target::FileBlock(0x48));
        assert!(block.is_tbz() && block.cow);
        let sub = parse((3 << 28) | (7 << 6) | (2 << 3) | 2, width);
        assert_eq!(sub.target, Target::SubBlock { cluster: 7, item: 35 });
        let sparse = parse((3 << 28) | (7 << 6) | (2 << 3) | 2, Width::Narrow { dense: false });
        assert_eq!(sparse.target, Target::SubBlock { cluster: 7, item: 3 });
        assert!(Address::parse(7, width).is_err());
    }

    #[test]
    fn wide_addresses_decode_as_on_real_volumes() {
        // PB2 cluster 0 item 0, the pointer block of `.sbc.sf`.
        assert_eq!(parse(5, Width::Wide).target, Target::PointerBlock2 { cluster: 0, item: 0 });
        assert_eq!(parse(0x16, Width::Wide).target, Target::JournalBlock { cluster: 2, item: 0 });
        let block = parse((300 << 51) | (4 << 15) | (0x81 << 7) | 1, Width::Wide);
        assert_eq!(block.target, Target::SmallBlock { cluster: 4, item: 300 });
        assert_eq!((block.tbz, block.cow), (0x81, false));
        let large = parse((9 << 15) | (1 << 5) | 7, Width::Wide);
        assert_eq!((large.target, large.cow), (Target::LargeBlock(9), true));
    }

    #[test]
    fn wide_words_with_unknown_bits_address_nothing() {
        for raw in [(1 << 46) | 1, (1 << 42) | 2, (1 << 50) | 7, 1 << 40 | 6, 8] {
            assert!(Address::parse(raw, Width::Wide).is_err(), "{raw:#x}");
        }
    }
}
