//! Every table, entry by entry.

use crate::Image;
use crate::map::{Cursor, Entry, bad, lost, place};
use adit_core::bytes::narrow;
use adit_core::{Check, DiskExt, Error, Finding, Interrupt, Result};

impl Check for Image {
    /// Finds entries that point nowhere, clusters the file has lost, clusters that are used
    /// twice, and how many nothing uses.
    ///
    /// Memory is a bit for each cluster of the file.
    fn check(&self, report: &mut dyn FnMut(Finding), interrupt: &Interrupt) -> Result<()> {
        self.notes().into_iter().for_each(&mut *report);
        let clusters = self.file.size_bytes().div_ceil(self.cluster_bytes());
        let bytes = clusters.div_ceil(8);
        if bytes > self.limits.table_bytes_max {
            let detail = format!("a bit for each of {clusters} clusters");
            return Err(Error::limit("table_bytes_max", detail));
        }
        let bits = vec![0; narrow(bytes).unwrap_or(0)];
        let mut used = Used { bits, cluster_bytes: self.cluster_bytes() };
        used.take(0, self.header_bytes());
        let map = self.map(String::new(), None);
        let entries = &map.entries;
        let (l1, count) = (self.raw.l1_table_offset, self.table_entries());
        used.take(l1, self.table_bytes());
        let span = self.cluster_bytes().saturating_mul(count).max(1);
        let mut top: Cursor = None;
        for first in 0..self.size_bytes().div_ceil(span).min(count) {
            interrupt.check()?;
            let table = match entries.table(l1, first, &mut top) {
                Ok(None) => continue,
                Ok(Some(table)) => table,
                Err(error) => {
                    report(Finding::from_error("qed-table-damaged", &error));
                    continue;
                }
            };
            if !used.take(table, self.table_bytes()) {
                report(shared(table).at(place(l1, first)));
                continue;
            }
            let mut cursor: Cursor = None;
            for slot in 0..count {
                let found = match entries.entry(table, slot, &mut cursor)? {
                    Entry::Absent | Entry::Zero => continue,
                    Entry::Bad(at) => Finding::from_error("qed-cluster-damaged", &bad(at)),
                    Entry::At(at) if at >= self.file.size_bytes() => {
                        Finding::from_error("qed-cluster-lost", &lost(at))
                    }
                    Entry::At(at) if used.take(at, self.cluster_bytes()) => continue,
                    Entry::At(at) => shared(at),
                };
                report(found.at(place(table, slot)));
            }
        }
        let taken = used.bits.iter().map(|byte| u64::from(byte.count_ones())).sum::<u64>();
        let leaked = clusters.saturating_sub(taken);
        if leaked > 0 {
            let text = format!("{leaked} clusters of the file are named by no table");
            report(Finding::warning("qed-cluster-leak", text));
        }
        Ok(())
    }
}

fn shared(at: u64) -> Finding {
    let text = format!("names byte {at:#x} of the file, which something before it uses too");
    Finding::error("qed-cluster-shared", text)
        .advise("one of the two ranges holds the other's data")
}

/// Which clusters of the file are in use.
struct Used {
    bits: Vec<u8>,
    cluster_bytes: u64,
}

impl Used {
    /// Takes the clusters of a range; false if one of them was taken before.
    fn take(&mut self, at: u64, length: u64) -> bool {
        let first = at.checked_div(self.cluster_bytes).unwrap_or(0);
        let last = at.saturating_add(length).div_ceil(self.cluster_bytes.max(1));
        let mut fresh = true;
        for number in first..last {
            let byte = narrow(number >> 3).and_then(|byte| self.bits.get_mut(byte));
            let Some(byte) = byte else { break };
            let bit = 1 << (number & 7);
            fresh &= *byte & bit == 0;
            *byte |= bit;
        }
        fresh
    }
}
