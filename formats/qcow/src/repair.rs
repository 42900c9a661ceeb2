//! Making an image consistent again.
//!
//! Refcounts are raised before anything is lowered, marks follow refcounts, and where the
//! refcount structures themselves are broken new ones are built behind everything and switched
//! to. Data is never invented: what an entry that points nowhere stood for is lost, and the
//! entry is cleared only when errors are to be repaired, with a finding for each.

use crate::Image;
use crate::check::{Refcounts, Wrong};
use crate::header::L1Place;
use crate::layout::{entry, incompatible};
use crate::power::Power;
use crate::scan::{Scan, Tally, Visit};
use crate::snapshot;
use crate::writer::set_bits;
use adit_core::bytes::{narrow, wide};
use adit_core::{
    Disk, DiskExt, Error, Finding, ImageFile, Interrupt, Limits, Place, Problem, Result,
};
use std::collections::BTreeSet;
use std::sync::Arc;

/// What to repair.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RepairOptions {
    /// Clusters that are counted and that nothing refers to.
    pub leaks: bool,
    /// Everything else: refcounts too low, wrong marks, entries that point nowhere, the dirty
    /// and the corrupt mark of the image.
    pub errors: bool,
}

/// What came of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Repaired {
    /// Clusters and entries that were put right.
    pub fixed: u64,
    /// Clusters and entries that were not.
    pub left: u64,
}

const TABLE_FIELD: u64 = 0x30;
const INCOMPATIBLE: u64 = 0x48;
const TABLE_BYTES_MAX: u64 = 8 << 20;

/// Repairs the image in `file`, which nobody else may have open. What is found, and what becomes
/// of it, goes to `report`.
///
/// Errors: `Unsupported` for version 1, which has nothing to rebuild from, and where refcounts
/// would not fit into their width; `Corrupt` for headers and L1 tables that cannot be read.
pub fn repair(
    file: &Arc<dyn ImageFile>,
    what: RepairOptions,
    limits: &Limits,
    report: &mut dyn FnMut(Finding),
) -> Result<Repaired> {
    let disk: Arc<dyn Disk> = Arc::<dyn ImageFile>::clone(file);
    let image = Image::open(disk, limits)?;
    if image.version() == 1 {
        return Err(Error::unsupported("repairing QCOW version 1, which has no refcounts")
            .advise("convert what can be read of it"));
    }
    let mut work = Work { file, image, limits, what, done: Repaired::default() };
    work.clear_entries(report)?;
    work.fix_refcounts(report)?;
    work.fix_marks()?;
    work.fix_features()?;
    Ok(work.done)
}

struct Work<'a> {
    file: &'a Arc<dyn ImageFile>,
    image: Image,
    limits: &'a Limits,
    what: RepairOptions,
    done: Repaired,
}

impl Work<'_> {
    fn fixed(&mut self, count: u64, is_fixed: bool) {
        let place = if is_fixed { &mut self.done.fixed } else { &mut self.done.left };
        *place = place.saturating_add(count);
    }

    fn scan(&self) -> Scan<'_> {
        Scan::new(self.image.file().as_ref(), &self.image.header, self.limits)
    }

    fn l1s(&self) -> Vec<L1Place> {
        let mut l1s = vec![self.image.header.l1];
        let snapshots = snapshot::read(self.image.file().as_ref(), &self.image.header, self.limits);
        let size = self.image.file().size_bytes();
        for snapshot in snapshots.unwrap_or_default() {
            let end = snapshot.l1.entries.saturating_mul(8).saturating_add(snapshot.l1.offset);
            if end <= size && self.image.header.cluster.divides(snapshot.l1.offset) {
                l1s.push(snapshot.l1);
            }
        }
        l1s
    }

    /// Entries that point nowhere: counted as left, or cleared.
    fn clear_entries(&mut self, report: &mut dyn FnMut(Finding)) -> Result<()> {
        let mut bad: Vec<(u64, u64)> = Vec::new();
        let (errors, version) = (self.what.errors, self.image.version());
        let zero = if version > 2 && !self.image.header.needs(incompatible::EXTENDED_L2) {
            entry::ZERO
        } else {
            0
        };
        {
            let mut scan = self.scan();
            // Marks which clusters hold tables; what it reports is reported below.
            scan.count(&Interrupt::default(), &mut |_| {})?;
            for l1 in self.l1s() {
                scan.walk(l1, &mut |visit| {
                    let (byte, error, value) = match visit {
                        Visit::Table { byte, table: Err(error), .. } => (byte, error, 0),
                        Visit::Entry { byte, names: Err(error), .. } => (byte, error, zero),
                        _ => return Ok(()),
                    };
                    let said = Finding::from_error("qcow-entry-lost", error);
                    report(match errors {
                        true => said.advise("cleared: what it stood for is lost"),
                        false => said.advise("left as it is: its range cannot be read"),
                    });
                    if wide(bad.len()) >= self.limits.list_steps_max {
                        return Err(Error::limit("list_steps_max", "entries that point nowhere"));
                    }
                    bad.push((byte, value));
                    Ok(())
                })?;
            }
        }
        bad.sort_unstable();
        bad.dedup();
        self.fixed(wide(bad.len()), errors);
        if !errors {
            return Ok(());
        }
        let wide_entries = self.image.header.needs(incompatible::EXTENDED_L2);
        let l1s = self.l1s();
        for (byte, value) in bad {
            self.file.write_at(&value.to_be_bytes(), byte)?;
            // All subclusters zero; but an L1 entry has one word.
            if wide_entries && !is_in(&l1s, byte) {
                let zeros = 0xffff_ffffu64.wrapping_shl(32);
                self.file.write_at(&zeros.to_be_bytes(), byte.saturating_add(8))?;
            }
        }
        self.file.flush()
    }

    fn fix_refcounts(&mut self, report: &mut dyn FnMut(Finding)) -> Result<()> {
        let interrupt = Interrupt::default();
        let (mut low, mut high, mut broken, mut bad) = (0u64, 0u64, false, false);
        let (mut lower, mut raise) = (Vec::new(), Vec::new());
        {
            let mut scan = self.scan();
            scan.count(&interrupt, &mut |finding| {
                bad = true;
                if !finding.code.ends_with("entry-bad") && !finding.code.ends_with("table-bad") {
                    report(finding);
                }
            })?;
            let blocks = scan.count_refcounts(&mut |finding| {
                broken = true;
                report(finding);
            })?;
            let refcounts = Refcounts::new(&scan, blocks);
            refcounts.compare(&interrupt, report)?;
            refcounts.wrong(&interrupt, &mut |cluster, stored, counted| {
                let block = narrow(refcounts.per_block().index(cluster));
                let block = block.and_then(|at| refcounts.blocks.get(at)).copied().unwrap_or(0);
                let (byte, slot) = refcounts.slot(cluster);
                let wrong = if stored < counted { Wrong::Low } else { Wrong::High };
                broken |= block == 0;
                let list = match wrong {
                    Wrong::Low => {
                        low = low.saturating_add(1);
                        &mut raise
                    }
                    Wrong::High => {
                        high = high.saturating_add(1);
                        &mut lower
                    }
                };
                list.push(Fix { block, byte, slot, count: counted });
                Ok(())
            })?;
        }
        let order = self.image.header.refcount_bits.trailing_zeros();
        if self.what.errors && broken {
            self.rebuild()?;
            self.fixed(low.saturating_add(high).max(1), true);
            return Ok(());
        }
        self.fixed(low, self.what.errors);
        if self.what.errors {
            self.apply(&raise, order)?;
        }
        // What an entry that cannot be read refers to might be what looks unused.
        let may_lower = self.what.leaks && !bad && (low == 0 || self.what.errors);
        self.fixed(high, may_lower);
        if may_lower {
            self.apply(&lower, order)?;
        }
        Ok(())
    }

    fn apply(&self, fixes: &[Fix], order: u32) -> Result<()> {
        let mut rest = fixes;
        let length = narrow(self.image.header.cluster.size()).unwrap_or(0);
        while let Some(first) = rest.first() {
            let count = rest.iter().take_while(|fix| fix.block == first.block).count();
            let (now, later) = rest.split_at(count);
            let mut block = self.file.read_prefix(first.block, length)?;
            block.resize(length, 0);
            for fix in now {
                fits(fix.count, order)?;
                set_bits(&mut block, fix.byte, fix.slot, order, fix.count);
            }
            self.file.write_at(&block, first.block)?;
            rest = later;
        }
        self.file.flush()
    }

    /// New refcount structures behind everything, and the header names them.
    fn rebuild(&mut self) -> Result<()> {
        let cluster = self.image.header.cluster;
        let plan = {
            let mut scan = self.scan();
            scan.count(&Interrupt::default(), &mut |_| {})?;
            let counted = std::mem::take(&mut scan.tally);
            // What stands there now stays until the switch.
            scan.count_refcounts(&mut |_| {})?;
            let start = counted.end().max(scan.tally.end());
            let refcounts = Refcounts::new(&scan, Vec::new());
            let per_block = refcounts.per_block();
            let plan = Plan::new(counted, start, per_block, cluster)?;
            self.write_blocks(&plan, &refcounts)?;
            plan
        };
        let table = cluster.times(plan.table);
        let clusters = u32::try_from(plan.table_clusters).unwrap_or(0);
        let mut field = table.to_be_bytes().to_vec();
        field.extend(clusters.to_be_bytes());
        self.file.flush()?;
        self.file.write_at(&field, TABLE_FIELD)?;
        self.file.flush()?;
        self.image.header.refcount_table =
            table..table.saturating_add(cluster.times(plan.table_clusters));
        Ok(())
    }

    fn write_blocks(&self, plan: &Plan, refcounts: &Refcounts<'_>) -> Result<()> {
        let cluster = self.image.header.cluster;
        let length = narrow(cluster.size()).unwrap_or(0);
        let order = refcounts.order();
        let entries = narrow(cluster.times(plan.table_clusters) >> 3).unwrap_or(0);
        let mut table = vec![0u64; entries];
        for (index, at) in plan.blocks.iter().zip(plan.start..) {
            let mut block = vec![0; length];
            let first = plan.per_block.times(*index);
            for cluster in first..first.saturating_add(plan.per_block.size()) {
                let count = plan.count(cluster);
                if count > 0 {
                    fits(count, order)?;
                    let (byte, slot) = refcounts.slot(cluster);
                    set_bits(&mut block, byte, slot, order, count);
                }
            }
            self.file.write_at(&block, cluster.times(at))?;
            if let Some(word) = narrow(*index).and_then(|index| table.get_mut(index)) {
                *word = cluster.times(at);
            }
        }
        let bytes: Vec<u8> = table.iter().flat_map(|word| word.to_be_bytes()).collect();
        self.file.write_at(&bytes, cluster.times(plan.table))
    }

    fn fix_marks(&mut self) -> Result<()> {
        let mut wrong = Vec::new();
        {
            let mut scan = self.scan();
            scan.count(&Interrupt::default(), &mut |_| {})?;
            scan.count_refcounts(&mut |_| {})?;
            let refcounts = Refcounts::new(&scan, Vec::new());
            scan.walk(self.image.header.l1, &mut |visit| {
                wrong.extend(refcounts.mark(&visit).map(|mark| (mark.byte, mark.word)));
                Ok(())
            })?;
        }
        self.fixed(wide(wrong.len()), self.what.errors);
        if !self.what.errors || wrong.is_empty() {
            return Ok(());
        }
        for (byte, word) in wrong {
            self.file.write_at(&(word ^ entry::COPIED).to_be_bytes(), byte)?;
        }
        self.file.flush()
    }

    /// The image is clean again, if all of it is.
    fn fix_features(&mut self) -> Result<()> {
        let bits = self.image.header.incompatible;
        let marks = bits & (incompatible::DIRTY | incompatible::CORRUPT);
        if marks == 0 {
            return Ok(());
        }
        let is_fixed = self.what.errors && self.done.left == 0;
        self.fixed(u64::from(marks.count_ones()), is_fixed);
        if !is_fixed {
            return Ok(());
        }
        self.file.write_at(&(bits & !marks).to_be_bytes(), INCOMPATIBLE)?;
        self.file.flush()
    }
}

fn is_in(l1s: &[L1Place], byte: u64) -> bool {
    l1s.iter().any(|l1| {
        let end = l1.offset.saturating_add(l1.entries.saturating_mul(8));
        (l1.offset..end).contains(&byte)
    })
}

/// A refcount to be changed.
struct Fix {
    /// Where its block stands. Unit: bytes of the file.
    block: u64,
    byte: u64,
    slot: u64,
    count: u64,
}

fn fits(count: u64, order: u32) -> Result<()> {
    let bits = 1u32.wrapping_shl(order);
    if count <= u64::MAX.wrapping_shr(64u32.saturating_sub(bits)) {
        return Ok(());
    }
    let detail = format!("a refcount of {count} does not fit into {bits} bits");
    Err(Error::unsupported(detail).advise("convert the image into one with wider refcounts"))
}

/// Where new refcount structures go: blocks, then the table. Units: clusters of the file.
struct Plan {
    counted: Tally,
    per_block: Power,
    start: u64,
    /// Which blocks there are.
    blocks: BTreeSet<u64>,
    table: u64,
    table_clusters: u64,
}

impl Plan {
    fn new(counted: Tally, start: u64, per_block: Power, cluster: Power) -> Result<Plan> {
        let mut blocks: BTreeSet<u64> =
            counted.all().map(|(cluster, _)| per_block.index(cluster)).collect();
        let mut table_clusters = 1;
        loop {
            let table = start.saturating_add(wide(blocks.len()));
            let end = table.saturating_add(table_clusters);
            let last = per_block.index(end.saturating_sub(1));
            let before = (blocks.len(), table_clusters);
            blocks.extend(per_block.index(start)..=last);
            let entries = blocks.last().map_or(0, |last| last.saturating_add(1));
            table_clusters = cluster.count(entries.saturating_mul(8)).max(1);
            if before == (blocks.len(), table_clusters) {
                if cluster.times(table_clusters) > TABLE_BYTES_MAX {
                    let detail = "the refcount table would exceed 8 MiB";
                    return Err(Error::new(adit_core::Kind::Limit, Problem::TooMany, detail)
                        .at(Place::new("refcount table")));
                }
                return Ok(Plan { counted, per_block, start, blocks, table, table_clusters });
            }
        }
    }

    fn count(&self, cluster: u64) -> u64 {
        let end = self.table.saturating_add(self.table_clusters);
        match (self.start..end).contains(&cluster) {
            true => 1,
            false => self.counted.count(cluster),
        }
    }
}
