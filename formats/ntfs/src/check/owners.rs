//! Who owns which cluster, beside what `$Bitmap` says.

use super::{EACH_MAX, bits, is_set, set};
use crate::layout::{kind, record};
use crate::ntfs::Ntfs;
use crate::record::place;
use adit_core::bytes::narrow;
use adit_core::{DiskExt, Error, Finding, Interrupt, Place, Problem, Result};

/// The bitmap is read in parts of this many bytes.
const PART_BYTES: u64 = 64 << 10;

/// A bit for each cluster that a run list names.
pub(super) struct Owners {
    owned: Option<Vec<u8>>,
    shared: u64,
    /// Clusters that may still be given out: a volume whose streams claim it many times over is
    /// not worth the time.
    left: u64,
}

impl Owners {
    pub(super) fn new(fs: &Ntfs) -> Owners {
        // What the disk does not hold, nobody can own.
        let cluster = fs.boot().cluster_bytes;
        let held = fs.held_bytes().div_ceil(cluster.max(1));
        let clusters = fs.boot().clusters.min(held);
        let owned = bits(clusters, fs.limits().table_bytes_max);
        Owners { owned, shared: 0, left: clusters.saturating_mul(4) }
    }

    /// Gives clusters to an attribute; those that have an owner already are reported.
    pub(super) fn mark(
        &mut self,
        lcn: u64,
        count: u64,
        place: &Place,
        report: &mut dyn FnMut(Finding),
    ) {
        let Some(owned) = &mut self.owned else { return };
        let end = lcn.saturating_add(count).min(super::room(owned));
        let Some(left) = self.left.checked_sub(end.saturating_sub(lcn)) else {
            self.owned = None;
            return;
        };
        self.left = left;
        let twice = (lcn..end).filter(|cluster| set(owned, *cluster)).count();
        if twice > 0 {
            self.shared = self.shared.saturating_add(1);
            if self.shared <= EACH_MAX {
                let detail = format!(
                    "{twice} of the {count} clusters from {lcn} on belong to another stream too"
                );
                let error = Error::corrupt(Problem::Overlaps, detail).at(place.clone());
                report(Finding::from_error("ntfs-clusters-shared", &error));
            }
        }
    }

    /// Compares with the bitmap. Not all records could be read unless `whole`.
    pub(super) fn finish(
        self,
        fs: &Ntfs,
        whole: bool,
        report: &mut dyn FnMut(Finding),
        interrupt: &Interrupt,
    ) -> Result<()> {
        if let Some(more) = self.shared.checked_sub(EACH_MAX).filter(|more| *more > 0) {
            let text = format!("{more} more runs have clusters of other streams");
            report(Finding::error("ntfs-clusters-shared", text));
        }
        let Some(owned) = self.owned else {
            let text = "the volume has too many clusters, or its streams claim too many of them, \
                to tell who owns which";
            report(Finding::info("ntfs-owners-skipped", text));
            return Ok(());
        };
        let node = fs.node(record::BITMAP)?;
        let Some(stream) = fs.stream(&node, kind::DATA, &[])? else {
            let error = Error::corrupt(Problem::Missing, "there is no bitmap");
            report(Finding::from_error("ntfs-bitmap", &error.at(place(record::BITMAP))));
            return Ok(());
        };
        let bitmap = fs.disk(stream, "$Bitmap");
        let (mut unmarked, mut unowned) = ((0u64, None), (0u64, None));
        let clusters = fs.boot().clusters.min(super::room(&owned));
        let mut part = Vec::new();
        for cluster in 0..clusters {
            let within = cluster % (PART_BYTES * 8);
            if within == 0 {
                interrupt.check()?;
                let read = bitmap.read_prefix(cluster / 8, narrow(PART_BYTES).unwrap_or(4096));
                part = match read {
                    Ok(bytes) => bytes,
                    Err(error) => {
                        report(Finding::from_error("ntfs-bitmap", &error));
                        return Ok(());
                    }
                };
            }
            match (is_set(&owned, cluster), is_set(&part, within)) {
                (true, false) => super::note(&mut unmarked, cluster),
                (false, true) => super::note(&mut unowned, cluster),
                _ => {}
            }
        }
        if let (count, Some(first)) = unmarked {
            let text = format!(
                "{count} clusters belong to streams and are free by the bitmap, the first is \
                 {first}: the next writer may take them"
            );
            report(Finding::error("ntfs-bitmap-free", text).at(place(record::BITMAP)));
        }
        if let (count, Some(first)) = unowned {
            let text = format!("{count} clusters are in use by the bitmap and belong to nothing");
            let text = format!("{text}, the first is {first}");
            // A record that cannot be read may own them.
            let finding = match whole {
                true => Finding::warning("ntfs-cluster-leak", text),
                false => Finding::info("ntfs-cluster-leak", text),
            };
            report(finding.at(place(record::BITMAP)));
        }
        Ok(())
    }
}
