//! The whole table, entry by entry.

use crate::Image;
use crate::entries::{Cursor, Entries};
use crate::map::{Cluster, bad_cluster};
use adit_core::{Check, DiskExt, Error, Finding, Interrupt, Result};

impl Check for Image {
    /// Finds clusters that lie over the table, that the file has lost, and that overlap.
    ///
    /// Memory is four times the part of the table that is in use, which lies in the file.
    fn check(&self, report: &mut dyn FnMut(Finding), interrupt: &Interrupt) -> Result<()> {
        let header = &self.header;
        let entries = Entries::new(&self.file, header, &self.limits);
        let file_bytes = self.file.size_bytes();
        let table_bytes = entries.count().saturating_mul(4);
        if table_bytes > self.limits.table_bytes_max {
            let detail = format!("a table of {table_bytes} bytes");
            return Err(Error::limit("table_bytes_max", detail));
        }
        let mut taken: Vec<(u64, u64)> = Vec::new();
        let mut cursor = Cursor::default();
        for index in 0..entries.count() {
            if index.is_multiple_of(4096) {
                interrupt.check()?;
            }
            let at = match Cluster::of(entries.entry(index, &mut cursor)?, header) {
                Cluster::Free => continue,
                Cluster::At(at) => at,
                Cluster::Bad(at) => {
                    let error = bad_cluster(at, header).at(entries.place(index));
                    report(Finding::from_error("parallels-cluster-misplaced", &error));
                    continue;
                }
            };
            let start = index.saturating_mul(header.cluster_bytes);
            let needed = header.size_bytes.saturating_sub(start).min(header.cluster_bytes);
            if at.saturating_add(needed) > file_bytes {
                let text = format!("the file ends before or inside the cluster at byte {at:#x}");
                let finding = Finding::error("parallels-cluster-missing", text);
                report(finding.at(entries.place(index)));
            }
            taken.push((at, index));
        }
        taken.sort_unstable();
        for pair in taken.windows(2) {
            let [(at, first), (then, second)] = pair else { continue };
            if at.saturating_add(header.cluster_bytes) > *then {
                let text = format!(
                    "its cluster at byte {then:#x} overlaps that of entry {first} at {at:#x}"
                );
                report(
                    Finding::error("parallels-cluster-shared", text)
                        .at(entries.place(*second))
                        .advise("one of the two ranges holds the other's data"),
                );
            }
        }
        Ok(())
    }
}
