//! Checks every structure: boot sectors, tables, directories, chains, who owns which cluster.

use crate::bitmap::InUse;
use crate::chain::Runs;
use crate::node::{Node, ROOT};
use crate::scan::Entries;
use crate::shape::{FIRST_CLUSTER, Variant};
use crate::table::{Held, Link};
use crate::volume::Fat;
use adit_core::bytes::{narrow, wide};
use adit_core::{Check, Error, Finding, Interrupt, Place, Problem, Result};
use std::collections::HashSet;
use std::sync::Arc;

/// Findings of one kind that are reported one by one.
const EACH_MAX: u64 = 64;

/// Who owns which cluster, one bit each.
struct Owners {
    bits: Vec<u8>,
    shared: u64,
}

impl Owners {
    /// Marks a cluster; false where it was marked already.
    fn mark(&mut self, index: u64) -> bool {
        let bit = 1u8 << (index % 8);
        let Some(byte) = narrow(index / 8).and_then(|at| self.bits.get_mut(at)) else {
            return true;
        };
        let fresh = *byte & bit == 0;
        *byte |= bit;
        self.shared = self.shared.saturating_add(u64::from(!fresh));
        fresh
    }

    fn is_marked(&self, index: u64) -> bool {
        let byte = narrow(index / 8).and_then(|at| self.bits.get(at)).copied().unwrap_or(0);
        byte >> (index % 8) & 1 != 0
    }
}

impl Check for Fat {
    fn check(&self, report: &mut dyn FnMut(Finding), interrupt: &Interrupt) -> Result<()> {
        self.notes_so_far().into_iter().for_each(&mut *report);
        self.check_tables(report, interrupt)?;
        let bytes = u64::from(self.shape().clusters).div_ceil(8);
        let known = bytes <= self.limits().table_bytes_max;
        let length = if known { narrow(bytes).unwrap_or(0) } else { 0 };
        let mut owners = Owners { bits: vec![0; length], shared: 0 };
        for runs in self.system_runs() {
            self.mark_all(runs, &mut owners);
        }
        let whole = self.check_tree(&mut owners, report, interrupt)?;
        if !known {
            let text = "the volume has too many clusters to tell who owns which";
            report(Finding::info("fat-owners-skipped", text));
        } else if whole {
            self.check_owners(&owners, report, interrupt)?;
        }
        Ok(())
    }
}

impl Fat {
    /// Compares the copies of the table.
    fn check_tables(&self, report: &mut dyn FnMut(Finding), interrupt: &Interrupt) -> Result<()> {
        let table = self.table();
        let Some((first, others)) = table.copies().split_first() else { return Ok(()) };
        let mut differ = 0u64;
        let mut place = None;
        for page in 0..table.pages() {
            interrupt.check()?;
            let mine = match table.read_copy(*first, page) {
                Ok(mine) => mine,
                Err(error) => {
                    report(Finding::from_error("fat-table", &error));
                    continue;
                }
            };
            for other in others {
                let Ok(theirs) = table.read_copy(*other, page) else {
                    differ = differ.saturating_add(1);
                    continue;
                };
                let pairs = mine.chunks(512).zip(theirs.chunks(512));
                let count = wide(pairs.filter(|(a, b)| a != b).count());
                if count > 0 && place.is_none() {
                    place = Some(Place::new("FAT").index((*other).into()));
                }
                differ = differ.saturating_add(count);
            }
        }
        if differ > 0 {
            let text = format!("the copies of the FAT differ in {differ} sectors");
            let mut finding = Finding::warning("fat-tables-differ", text);
            finding.place = place;
            report(finding);
        }
        Ok(())
    }

    /// Follows everything from the root on; false where not all of it could be seen.
    fn check_tree(
        &self,
        owners: &mut Owners,
        report: &mut dyn FnMut(Finding),
        interrupt: &Interrupt,
    ) -> Result<bool> {
        let mut todo = vec![self.node(ROOT)?];
        let mut seen = HashSet::from([ROOT]);
        let (mut whole, mut steps) = (true, 0u64);
        while let Some(node) = todo.pop() {
            interrupt.check()?;
            let runs = Arc::new(self.check_node(&node, owners, report));
            whole &= runs.broken().is_none();
            if !node.is_directory() {
                continue;
            }
            let mut entries = Entries::new(self, runs, 0);
            while let Some(step) = entries.step() {
                steps = steps.saturating_add(1);
                if steps > self.limits().list_steps_max.saturating_mul(16) {
                    let text = "there are too many entries to check them all";
                    report(Finding::info("fat-check-long", text));
                    return Ok(false);
                }
                match step {
                    Err(error) => {
                        whole = false;
                        report(Finding::from_error("fat-directory", &error));
                    }
                    // Files need no memory: they are checked at once.
                    Ok(found) if !found.node.is_directory() => {
                        let runs = self.check_node(&found.node, owners, report);
                        whole &= runs.broken().is_none();
                    }
                    Ok(found) if seen.insert(found.node.id) => todo.push(found.node),
                    Ok(_) => {}
                }
            }
        }
        Ok(whole)
    }

    fn check_node(
        &self,
        node: &Node,
        owners: &mut Owners,
        report: &mut dyn FnMut(Finding),
    ) -> Runs {
        let runs = self.runs(node);
        let told =
            |error: &Error| Finding::from_error("fat-chain", &error.clone().at(node.place()));
        if let Some(error) = runs.broken() {
            report(told(error));
        }
        let fresh = self.mark_all(&runs, owners);
        if !fresh && owners.shared <= EACH_MAX {
            let detail = "shares clusters with another file";
            report(told(&Error::corrupt(Problem::Overlaps, detail)));
        }
        runs
    }

    /// Marks all clusters of a chain; false where one was marked already.
    fn mark_all(&self, runs: &Runs, owners: &mut Owners) -> bool {
        let shape = self.shape();
        let mut fresh = true;
        for piece in runs.pieces().iter().filter(|piece| piece.offset >= shape.heap_offset) {
            let first = piece.offset.saturating_sub(shape.heap_offset) / shape.cluster_bytes;
            for index in first..first.saturating_add(piece.length / shape.cluster_bytes) {
                fresh &= owners.mark(index);
            }
        }
        fresh
    }

    /// Compares who owns clusters with which are in use.
    fn check_owners(
        &self,
        owners: &Owners,
        report: &mut dyn FnMut(Finding),
        interrupt: &Interrupt,
    ) -> Result<()> {
        let exfat = self.shape().variant == Variant::ExFat;
        let (mut used, mut held) = (InUse::new(self), Held::default());
        let (mut orphans, mut free) = (0u64, 0u64);
        for cluster in FIRST_CLUSTER..self.shape().cluster_end() {
            if cluster % (1 << 16) == 0 {
                interrupt.check()?;
            }
            let index = u64::from(cluster.saturating_sub(FIRST_CLUSTER));
            let Ok(in_use) = used.is(cluster) else { return Ok(()) };
            let owned = owners.is_marked(index);
            let bad = !exfat && matches!(self.table().link(cluster, &mut held), Ok(Link::Bad));
            orphans = orphans.saturating_add(u64::from(in_use && !owned && !bad));
            free = free.saturating_add(u64::from(owned && !in_use));
        }
        if orphans > 0 {
            let text = format!("{orphans} clusters are in use, but no file holds them");
            report(Finding::warning("fat-orphans", text));
        }
        if free > 0 {
            let text = format!("{free} clusters of files are marked as free");
            report(Finding::error("fat-used-free", text));
        }
        Ok(())
    }
}
