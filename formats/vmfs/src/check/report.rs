//! Where findings go: each kind is counted, so that one cause cannot drown the others.

use adit_core::{Finding, Interrupt, Result, Severity};
use std::collections::BTreeMap;

/// Findings of one code that are reported in full.
const EACH_MAX: u64 = 1000;

/// Collects findings for the caller.
pub(super) struct Report<'a> {
    out: &'a mut dyn FnMut(Finding),
    interrupt: &'a Interrupt,
    counts: BTreeMap<&'static str, (u64, Severity)>,
}

impl<'a> Report<'a> {
    pub(super) fn new(out: &'a mut dyn FnMut(Finding), interrupt: &'a Interrupt) -> Self {
        Report { out, interrupt, counts: BTreeMap::new() }
    }

    /// Passes a finding on, up to a thousand of each code.
    pub(super) fn add(&mut self, finding: Finding) {
        let (count, worst) = self.counts.entry(finding.code).or_insert((0, finding.severity));
        *count = count.saturating_add(1);
        *worst = finding.severity.max(*worst);
        if *count <= EACH_MAX {
            (self.out)(finding);
        }
    }

    /// Fails once a stop was asked for.
    pub(super) fn pulse(&self) -> Result<()> {
        self.interrupt.check()
    }

    /// Says how many findings were left out.
    pub(super) fn finish(self) {
        for (code, (count, worst)) in self.counts {
            let left_out = count.saturating_sub(EACH_MAX);
            if left_out > 0 {
                let text = format!("{left_out} more of {code} are not listed");
                (self.out)(Finding::new(worst, "vmfs-more", text));
            }
        }
    }
}
