//! What FDs point to: right kind, in range, allocated, claimed once.

use super::Checker;
use super::resources::{has_owner, item_name};
use crate::address::{Address, FdAddress, Target};
use crate::descriptor::{Addressing, FileDescriptor};
use crate::resource::ResourceKind;
use adit_core::bytes::{narrow, wide};
use adit_core::{DiskExt, Place, Result};

/// Pairs of cluster and owner that are counted at most.
const AFFINITY_MAX: usize = 4 << 20;

/// Who claims an item, and where that stands.
#[derive(Clone, Debug)]
pub(super) struct Claim {
    pub owner: Option<FdAddress>,
    pub place: Place,
}

/// What the pointers of an FD add up to.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tally {
    /// Pointers to data.
    pub data: u64,
    /// Blocks of pointers.
    pub pointer_blocks: u64,
    /// Pointers to data that reads as zeros.
    pub zeroed: u64,
    /// Some pointers could not be followed, so the numbers are too low.
    pub partial: bool,
}

/// Pointers of an FD or of a block of pointers.
struct Table<'a> {
    words: &'a [u8],
    /// Levels of pointers below these.
    levels: u32,
    /// Where the first stands in the volume.
    offset: u64,
    /// The blocks of pointers that led here.
    above: &'a [Target],
}

/// Which item a target is: the resource, the cluster, the item.
fn item_of(target: Target) -> Option<(ResourceKind, u64, u64)> {
    Some(match target {
        Target::FileBlock(number) => (ResourceKind::FileBlocks, 0, number),
        Target::SmallBlock { cluster, item } => (ResourceKind::FileBlocks, cluster, item),
        Target::LargeBlock(number) => (ResourceKind::LargeBlocks, 0, number),
        Target::SubBlock { cluster, item } => (ResourceKind::SubBlocks, cluster, item),
        Target::PointerBlock { cluster, item } => (ResourceKind::PointerBlocks, cluster, item),
        Target::PointerBlock2 { cluster, item } => (ResourceKind::PointerBlocks2, cluster, item),
        Target::JournalBlock { cluster, item } => (ResourceKind::JournalBlocks, cluster, item),
        Target::Descriptor(_) => return None,
    })
}

impl Checker<'_> {
    /// Follows all pointers of an FD.
    pub(super) fn pointers(&mut self, fd: &FileDescriptor) -> Result<Tally> {
        let mut tally = Tally::default();
        let Some(levels) = fd.addressing.levels() else { return Ok(tally) };
        let words = fd.pointer_bytes().to_vec();
        let table = Table { words: &words, levels, offset: fd.pointer_offset(0), above: &[] };
        self.words(fd, &table, &mut tally)?;
        Ok(tally)
    }

    /// Follows the pointers of an FD or of a block of pointers.
    fn words(&mut self, fd: &FileDescriptor, table: &Table<'_>, tally: &mut Tally) -> Result<()> {
        let width = self.fs.superblock().width;
        let mut last_large = None;
        for (slot, word) in (0u64..).zip(table.words.chunks_exact(width.address_bytes())) {
            let raw = word.iter().rev().fold(0u64, |raw, &byte| raw << 8 | u64::from(byte));
            if raw == 0 {
                last_large = None;
                continue;
            }
            let at = table.offset.saturating_add(slot.saturating_mul(wide(word.len())));
            let place = Place::new(format!("FD {}, pointer", fd.address)).index(slot).byte(at);
            let address = match Address::parse(raw, width) {
                Ok(Some(address)) => address,
                _ => {
                    self.error("vmfs-pointer", place, format!("{raw:#x} is no block address"));
                    tally.partial = true;
                    continue;
                }
            };
            if table.above.contains(&address.target) {
                let text = format!("{:?} leads back to itself", address.target);
                self.error("vmfs-pointer-loop", place, text);
                tally.partial = true;
                continue;
            }
            let claim = Claim { owner: Some(fd.address), place };
            if table.levels > 0 {
                tally.pointer_blocks = tally.pointer_blocks.saturating_add(1);
                self.pointer_block(fd, address, table, claim, tally)?;
                continue;
            }
            tally.data = tally.data.saturating_add(1);
            if address.tbz != 0 {
                tally.zeroed = tally.zeroed.saturating_add(1);
            }
            // All slots inside one large block carry the same address.
            let again = matches!(address.target, Target::LargeBlock(_))
                && last_large == Some(address.target);
            if !again {
                self.data(fd, address, &claim);
            }
            last_large = Some(address.target);
        }
        Ok(())
    }

    fn data(&mut self, fd: &FileDescriptor, address: Address, claim: &Claim) {
        let fits = match address.target {
            Target::SubBlock { .. } => fd.addressing == Addressing::SubBlocks,
            Target::FileBlock(_) | Target::SmallBlock { .. } | Target::LargeBlock(_) => {
                fd.addressing != Addressing::SubBlocks
            }
            _ => false,
        };
        if !fits {
            let text = format!(
                "{:?} cannot hold data of a file by {}",
                address.target,
                fd.addressing.word()
            );
            self.error("vmfs-pointer-type", claim.place.clone(), text);
            return;
        }
        self.claim(claim, address);
        if self.six
            && let Target::SmallBlock { cluster, .. } = address.target
        {
            self.count_affinity(cluster, fd.address);
        }
    }

    fn count_affinity(&mut self, cluster: u64, fd: FdAddress) {
        if self.affinity.len() >= AFFINITY_MAX {
            self.affinity_complete = false;
            return;
        }
        let count = self.affinity.entry((cluster, fd.raw())).or_default();
        *count = count.saturating_add(1);
    }

    fn pointer_block(
        &mut self,
        fd: &FileDescriptor,
        address: Address,
        table: &Table<'_>,
        claim: Claim,
        tally: &mut Tally,
    ) -> Result<()> {
        let fits = match address.target {
            Target::PointerBlock { .. } | Target::PointerBlock2 { .. } => true,
            Target::SubBlock { .. } => self.six,
            _ => false,
        };
        let Some((kind, cluster, item)) = item_of(address.target).filter(|_| fits) else {
            let text = format!("{:?} cannot hold pointers", address.target);
            self.error("vmfs-pointer-type", claim.place, text);
            tally.partial = true;
            return Ok(());
        };
        // A block of pointers that somebody claimed already is not walked again: this bounds
        // the work, and ends circles.
        if !self.claim(&claim, address) {
            tally.partial = true;
            return Ok(());
        }
        let Some(resource) = self.resources.get(&kind) else { return Ok(()) };
        let length = narrow(self.fs.superblock().pointer_block_size).unwrap_or(0);
        let at = resource.file.item_offset(cluster, item);
        let disk = std::sync::Arc::clone(&resource.disk);
        let mut translate = super::resources::Translate::new(&disk);
        let read = at.and_then(|at| Ok((disk.read_vec(at, length)?, translate.volume_offset(at)?)));
        match read {
            Ok((words, offset)) => {
                self.report.pulse()?;
                let mut above = table.above.to_vec();
                above.push(address.target);
                let levels = table.levels.saturating_sub(1);
                let below = Table { words: &words, levels, offset, above: &above };
                self.words(fd, &below, tally)
            }
            Err(error) => {
                tally.partial = true;
                self.failed("vmfs-pointer-block-unreadable", claim.place, error)
            }
        }
    }

    /// Claims what an address names. Tells whether it is sound and was nobody's before.
    pub(super) fn claim(&mut self, claim: &Claim, address: Address) -> bool {
        let Some((kind, cluster, item)) = item_of(address.target) else { return false };
        let version = self.fs.superblock().version;
        let whole = matches!(address.target, Target::FileBlock(_) | Target::LargeBlock(_));
        // Without the bitmap nothing can be said.
        let Some(resource) = self.resources.get_mut(&kind) else { return true };
        let number = if whole {
            Some(item).filter(|&item| item < resource.file.header.items)
        } else {
            resource.file.item_number(cluster, item)
        };
        let name = item_name(kind);
        let Some(number) = number else {
            let text = format!("names {name} {item} of cluster {cluster}, which does not exist");
            self.error("vmfs-pointer-range", claim.place.clone(), text);
            return false;
        };
        let allocated = resource.allocated.test(number);
        let before = resource.claimed.set(number);
        let owner = narrow(number).and_then(|at| resource.owners.get(at).copied());
        let converted = kind == ResourceKind::LargeBlocks && resource.converted.test(number);
        if !allocated {
            let text = match converted {
                true => format!("{name} {number} was turned into small file blocks"),
                false => format!("{name} {number} is free in its bitmap"),
            };
            self.error("vmfs-block-free", claim.place.clone(), text);
        }
        if before && !address.cow {
            let text = format!("{name} {number} belongs to something else, too");
            self.error("vmfs-block-shared", claim.place.clone(), text);
        }
        if let (Some(fd), Some(word)) = (claim.owner, owner)
            && has_owner(kind, version)
            && word != fd.raw()
        {
            let text = format!("{name} {number} names FD {word:#010x} as its owner");
            self.error("vmfs-block-owner", claim.place.clone(), text);
        }
        !before
    }

    /// Claims the journal a heartbeat names.
    pub(super) fn claim_journal(&mut self, claim: &Claim, raw: u64) {
        let address = Address::parse(raw, self.fs.superblock().width);
        match address {
            Ok(Some(address)) => {
                let fits = match address.target {
                    Target::JournalBlock { .. } => self.six,
                    Target::FileBlock(_) => !self.six,
                    _ => false,
                };
                if fits {
                    self.claim(claim, address);
                } else {
                    let text = format!("{:?} cannot be a journal", address.target);
                    self.error("vmfs-pointer-type", claim.place.clone(), text);
                }
            }
            _ => {
                let text = format!("journal address {raw:#x} is no block address");
                self.error("vmfs-pointer", claim.place.clone(), text);
            }
        }
    }

    /// What is allocated, but nobody's.
    pub(super) fn unclaimed(&mut self) {
        // After a failed read the owners may be among what was not read.
        if self.unread {
            return;
        }
        let mut findings = Vec::new();
        for (&kind, resource) in &self.resources {
            if kind == ResourceKind::Descriptors {
                continue;
            }
            for (first, count) in resource.allocated.runs_without(&resource.claimed) {
                findings.push((kind, first, count));
            }
        }
        for (kind, first, count) in findings {
            let name = item_name(kind);
            let text = match count {
                1 => format!("{name} {first} is allocated, but nothing uses it"),
                _ => {
                    format!("{count} {name}s from {first} on are allocated, but nothing uses them")
                }
            };
            let place = Place::new(kind.file_name()).field("bitmap");
            self.warning("vmfs-block-leaked", place, text);
        }
    }
}
