//! What contradicts itself in an image, and what is merely wasted.

use crate::Image;
use crate::layout::{entry, incompatible};
use crate::power::Power;
use crate::scan::{Names, Scan, Visit};
use crate::writer::bits;
use adit_core::bytes::narrow;
use adit_core::{Check, DiskExt, Finding, Interrupt, Place, Result};
use std::ops::Range;

impl Check for Image {
    fn check(&self, report: &mut dyn FnMut(Finding), interrupt: &Interrupt) -> Result<()> {
        let limits = self.limits().clone();
        let mut scan = Scan::new(self.file().as_ref(), &self.header, &limits);
        scan.count(interrupt, report)?;
        if self.version() == 1 {
            return Ok(());
        }
        let blocks = scan.count_refcounts(report)?;
        if self.header.needs(incompatible::DIRTY) {
            report(
                Finding::warning("qcow-dirty", "was not closed, so its refcounts may be wrong")
                    .advise("repair rebuilds them"),
            );
        }
        if self.header.needs(incompatible::CORRUPT) {
            report(Finding::error("qcow-corrupt", "a writer found it damaged and marked it so"));
        }
        let refcounts = Refcounts::new(&scan, blocks);
        refcounts.compare(interrupt, report)?;
        refcounts.check_marks(report)
    }
}

/// Stored refcounts beside those that were counted.
pub(crate) struct Refcounts<'a> {
    scan: &'a Scan<'a>,
    pub(crate) blocks: Vec<u64>,
    order: u32,
    per_block: Power,
}

/// Whether a refcount is too low or too high.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wrong {
    Low,
    High,
}

impl<'a> Refcounts<'a> {
    pub(crate) fn new(scan: &'a Scan<'a>, blocks: Vec<u64>) -> Self {
        let order = scan.header.refcount_bits.trailing_zeros();
        let bits = scan.header.cluster.bits().saturating_add(3).saturating_sub(order);
        Refcounts { scan, blocks, order, per_block: Power::new(bits) }
    }

    /// Every cluster whose refcount is wrong: which, stored, counted.
    pub(crate) fn wrong(
        &self,
        interrupt: &Interrupt,
        visit: &mut dyn FnMut(u64, u64, u64) -> Result<()>,
    ) -> Result<()> {
        let length = narrow(self.scan.header.cluster.size()).unwrap_or(0);
        let tally = &self.scan.tally;
        for (offset, index) in self.blocks.iter().zip(0u64..).filter(|(it, _)| **it != 0) {
            interrupt.check()?;
            let mut block = self.scan.file.read_prefix(*offset, length)?;
            block.resize(length, 0);
            let first = self.per_block.times(index);
            for at in 0..self.per_block.size() {
                let cluster = first.saturating_add(at);
                let (stored, counted) = (self.stored(&block, at), tally.count(cluster));
                if stored != counted {
                    visit(cluster, stored, counted)?;
                }
            }
        }
        for (cluster, counted) in tally.all() {
            let block = narrow(self.per_block.index(cluster)).and_then(|at| self.blocks.get(at));
            if block.is_none_or(|offset| *offset == 0) {
                visit(cluster, 0, counted)?;
            }
        }
        Ok(())
    }

    /// Where the refcount of a cluster stands inside its block: byte, and slot in it.
    pub(crate) fn slot(&self, cluster: u64) -> (u64, u64) {
        let at = self.per_block.within(cluster);
        if self.order >= 3 {
            return (Power::new(self.order.saturating_sub(3)).times(at), 0);
        }
        let per_byte = Power::new(3u32.saturating_sub(self.order));
        (per_byte.index(at), per_byte.within(at))
    }

    pub(crate) fn per_block(&self) -> Power {
        self.per_block
    }

    pub(crate) fn order(&self) -> u32 {
        self.order
    }

    fn stored(&self, block: &[u8], at: u64) -> u64 {
        let (byte, slot) = self.slot(at);
        bits(block, byte, slot, self.order)
    }

    pub(crate) fn compare(
        &self,
        interrupt: &Interrupt,
        report: &mut dyn FnMut(Finding),
    ) -> Result<()> {
        let mut run: Option<(Wrong, Range<u64>)> = None;
        self.wrong(interrupt, &mut |cluster, stored, counted| {
            let wrong = if stored < counted { Wrong::Low } else { Wrong::High };
            match &mut run {
                Some((kind, range)) if *kind == wrong && range.end == cluster => {
                    range.end = cluster.saturating_add(1);
                }
                _ => {
                    if let Some(done) = run.replace((wrong, cluster..cluster.saturating_add(1))) {
                        report(self.finding(done));
                    }
                }
            }
            Ok(())
        })?;
        if let Some(done) = run {
            report(self.finding(done));
        }
        Ok(())
    }

    fn finding(&self, (wrong, range): (Wrong, Range<u64>)) -> Finding {
        let count = range.end.saturating_sub(range.start);
        let clusters =
            if count == 1 { "1 cluster".to_owned() } else { format!("{count} clusters") };
        let byte = self.scan.header.cluster.times(range.start);
        let place = Place::new("refcount").index(range.start).byte(byte);
        match wrong {
            Wrong::Low => Finding::error(
                "qcow-refcount-low",
                format!("{clusters} with more references than the refcounts say"),
            )
            .at(place)
            .advise("do not write into the image before it is repaired"),
            Wrong::High => Finding::warning(
                "qcow-refcount-leak",
                format!("{clusters} with fewer references than the refcounts say"),
            )
            .at(place)
            .advise("space is wasted, nothing else; repair frees it"),
        }
    }

    /// The marks that say that a refcount is 1, in the tables of the disk as it is now.
    fn check_marks(&self, report: &mut dyn FnMut(Finding)) -> Result<()> {
        let mut shared = 0u64;
        self.scan.walk(self.scan.header.l1, &mut |visit| {
            if let Some(mark) = self.mark(&visit) {
                match mark.set {
                    true => report(
                        Finding::error(
                            "qcow-mark-wrong",
                            "is marked as the only reference to its cluster, and is not",
                        )
                        .at(mark.place),
                    ),
                    false => shared = shared.saturating_add(1),
                }
            }
            Ok(())
        })?;
        if shared > 0 {
            let text = format!("{shared} entries lack the mark that their cluster is theirs alone");
            report(
                Finding::warning("qcow-mark-missing", text)
                    .advise("a write copies such clusters for nothing; repair sets the marks"),
            );
        }
        Ok(())
    }

    /// A mark that should be otherwise, judged by what was counted.
    pub(crate) fn mark(&self, visit: &Visit<'_>) -> Option<Mark> {
        let (word, cluster, byte, place) = match visit {
            Visit::Table { index, word, byte, table: Ok(table) } => {
                let place = Place::new("L1 table").index(*index).byte(*byte);
                (*word, self.scan.header.cluster.index(*table), *byte, place)
            }
            Visit::Entry { raw, byte, names: Ok(Names::Cluster(cluster)), l1_index, index } => {
                let field = format!("entry {index}");
                let place = Place::new("L2 table").index(*l1_index).field(field).byte(*byte);
                (raw.word, *cluster, *byte, place)
            }
            _ => return None,
        };
        let set = word & entry::COPIED != 0;
        let should = self.scan.tally.count(cluster) == 1;
        (set != should).then_some(Mark { set, word, byte, place })
    }
}

/// A mark that is wrong.
pub(crate) struct Mark {
    /// Whether it is set.
    pub(crate) set: bool,
    pub(crate) word: u64,
    /// Where the entry stands. Unit: bytes of the file.
    pub(crate) byte: u64,
    pub(crate) place: Place,
}
