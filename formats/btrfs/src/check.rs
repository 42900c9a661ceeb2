//! A check of every copy: each node of each tree, and all data that has checksums.
//!
//! It does not count references and does not compare the extent tree with what is in use.

use crate::key::Key;
use crate::layout::{item, objectid};
use crate::node::{Expected, verify};
use crate::parity::Way;
use crate::roots::{chunk_tree, parse};
use crate::tree::Tree;
use crate::volume::Btrfs;
use adit_core::bytes::{index, narrow, wide};
use adit_core::{Check, Error, Finding, Interrupt, Kind, Place, Result};
use std::collections::HashSet;

/// Findings of one kind that are reported.
const EACH_MAX: usize = 256;
/// Data that is verified at once. Unit: sectors.
const SECTORS: usize = 128;

impl Check for Btrfs {
    fn check(&self, report: &mut dyn FnMut(Finding), interrupt: &Interrupt) -> Result<()> {
        for note in self.forest.pool.notes() {
            report(note);
        }
        let mut seen = HashSet::new();
        let mut found = 0usize;
        let mut bounded = |finding: Finding| {
            found = found.saturating_add(1);
            if found <= EACH_MAX {
                report(finding);
            }
        };
        let mut trees = vec![chunk_tree(self.superblock()), self.roots.tree.clone()];
        let (from, to) = (Key::first(0, item::ROOT_ITEM), Key::last(u64::MAX, item::ROOT_ITEM));
        // Damage of the tree of roots itself is found below.
        let _ = self.forest.scan_around(
            &self.roots.tree,
            from,
            to,
            &mut |_| Ok(()),
            &mut |key, item| {
                if key.kind == item::ROOT_ITEM
                    && let Ok((tree, raw)) = parse(key.objectid, item)
                    && (raw.refs > 0 || key.objectid < objectid::FIRST_FREE)
                {
                    trees.push(tree);
                }
                interrupt.check()?;
                Ok(true)
            },
        );
        for tree in trees {
            self.check_tree(&tree, &mut seen, &mut bounded, interrupt)?;
        }
        self.check_data(&mut bounded, interrupt)
    }
}

impl Btrfs {
    fn check_tree(
        &self,
        tree: &Tree,
        seen: &mut HashSet<u64>,
        report: &mut dyn FnMut(Finding),
        interrupt: &Interrupt,
    ) -> Result<()> {
        let (address, level, generation) = (tree.root, tree.level, tree.generation);
        let mut todo = vec![Expected { address, level, generation }];
        while let Some(expected) = todo.pop() {
            interrupt.check()?;
            if !seen.insert(expected.address) {
                continue;
            }
            self.check_copies(tree.id, expected, report);
            let Ok(node) = self.forest.node(tree.id, expected) else { continue };
            let Some(level) = expected.level.checked_sub(1) else { continue };
            for number in (0..node.len()).rev() {
                if let Some((address, generation)) = node.child(number) {
                    todo.push(Expected { address, level, generation });
                }
            }
        }
        Ok(())
    }

    fn check_copies(&self, tree: u64, expected: Expected, report: &mut dyn FnMut(Finding)) {
        let pool = &self.forest.pool;
        let place = || Place::new("tree node").index(tree).byte(expected.address);
        let mut bytes = vec![0; index(pool.superblock.node_size.get())];
        let ways = match self.copies(expected.address) {
            Ok(ways) => ways,
            Err(error) => return report(Finding::from_error("btrfs-node", &error.at(place()))),
        };
        let (mut right, mut wrong) = (0usize, Vec::new());
        for way in 0..ways {
            let read = pool.read(expected.address, &mut bytes, way);
            match read.and_then(|()| verify(&pool.superblock, &bytes, expected)) {
                Ok(()) => right = right.saturating_add(1),
                Err(error) => wrong.push((way, error)),
            }
        }
        for (way, error) in wrong {
            // What is missing was said once.
            if right > 0 && error.kind() == Kind::Lost {
                continue;
            }
            let text = format!("copy {way}: {}", error.detail());
            let note = match right {
                0 => Finding::error("btrfs-node", text),
                _ => Finding::warning("btrfs-node-copy", text),
            };
            report(note.at(place()));
        }
    }

    /// The ways worth checking one by one: copies, and the first parity.
    fn copies(&self, address: u64) -> Result<usize> {
        let most = if self.forest.pool.chunk(address)?.piece(address).row.is_empty() {
            usize::MAX
        } else {
            [Way::P, Way::Q].len()
        };
        Ok(self.forest.pool.ways(address)?.min(most))
    }

    fn check_data(&self, report: &mut dyn FnMut(Finding), interrupt: &Interrupt) -> Result<()> {
        let Ok(tree) = &self.roots.sums else { return Ok(()) };
        let from = Key::first(objectid::EXTENT_CSUM, item::EXTENT_CSUM);
        let to = Key::last(objectid::EXTENT_CSUM, item::EXTENT_CSUM);
        let length = self.superblock().checksum.length();
        // Its damaged nodes were reported above.
        self.forest.scan_around(tree, from, to, &mut |_| Ok(()), &mut |key, item| {
            interrupt.check()?;
            let mut address = key.offset;
            for sums in item.chunks(length.saturating_mul(SECTORS)) {
                self.check_sectors(address, sums, report)?;
                let sectors = wide(sums.len().checked_div(length).unwrap_or(0));
                let step = sectors.saturating_mul(self.superblock().sector_size.get());
                address = address.saturating_add(step);
            }
            Ok(true)
        })
    }

    fn check_sectors(
        &self,
        address: u64,
        sums: &[u8],
        report: &mut dyn FnMut(Finding),
    ) -> Result<()> {
        let superblock = self.superblock();
        let sector = narrow(superblock.sector_size.get()).unwrap_or(4096);
        let each: Vec<&[u8]> = sums.chunks_exact(superblock.checksum.length()).collect();
        let mut right = vec![0usize; each.len()];
        let mut wrong: Vec<(usize, usize, Error)> = Vec::new();
        let ways = match self.copies(address) {
            Ok(ways) => ways,
            Err(error) => {
                let place = Place::new("data").byte(address);
                report(Finding::from_error("btrfs-data", &error.at(place)));
                return Ok(());
            }
        };
        let mut bytes = vec![0; sector.saturating_mul(each.len())];
        for way in 0..ways {
            let read = self.forest.pool.read(address, &mut bytes, way);
            for (number, block) in bytes.chunks_exact(sector).enumerate() {
                let sum = each.get(number).copied().unwrap_or(&[]);
                let is_right = read.is_ok() && superblock.checksum.matches(block, sum);
                if is_right {
                    right.get_mut(number).into_iter().for_each(|n| *n = n.saturating_add(1));
                } else {
                    let error = read.as_ref().err().cloned();
                    let error = error.unwrap_or_else(|| {
                        let detail = format!("its {} does not match", superblock.checksum.word());
                        Error::corrupt(adit_core::Problem::BadChecksum, detail)
                    });
                    wrong.push((number, way, error));
                }
            }
        }
        for (number, way, error) in wrong {
            let lost = right.get(number).copied().unwrap_or(0) == 0;
            if !lost && error.kind() == Kind::Lost {
                continue;
            }
            let at = address.saturating_add(wide(number.saturating_mul(sector)));
            let text = format!("copy {way}: {}", error.detail());
            let note = match lost {
                true => Finding::error("btrfs-data", text),
                false => Finding::warning("btrfs-data-copy", text),
            };
            report(note.at(Place::new("data").byte(at)));
        }
        Ok(())
    }
}
