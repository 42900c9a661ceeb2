//! What `$LogFile` means for whoever reads the volume, as findings.

use super::{LogState, Pending, Stale};
use crate::layout::record;
use crate::names::{reference, to_text};
use crate::ntfs::Ntfs;
use crate::record::{FileName, place};
use adit_core::{DiskExt, Finding, Place};

const ADVICE: &str = "the log is not replayed: newest changes of names, sizes and new files may be \
    missing or half done; mount a copy in Windows to have them";

impl Ntfs {
    /// Findings on the log: one on the whole, then up to `each_max` of each kind of structure
    /// that is stale.
    pub(crate) fn log_findings(&self, each_max: usize) -> Vec<Finding> {
        let at = place(record::LOG_FILE).field("$LogFile");
        match self.log_state() {
            Ok(LogState::Empty | LogState::Clean) => Vec::new(),
            Ok(LogState::Unfinished { records, more, pending, .. }) => {
                let mut findings = vec![whole(records, more, &pending).at(at)];
                self.stale_findings(&pending, each_max, &mut findings);
                findings
            }
            Err(error) => {
                let mut note = Finding::from_error("ntfs-log", &error);
                note.text = format!(
                    "$LogFile cannot be read ({}): whether the volume was unmounted cleanly \
                     is not known",
                    note.text
                );
                vec![note]
            }
        }
    }

    fn stale_findings(&self, pending: &Pending, each_max: usize, findings: &mut Vec<Finding>) {
        for (number, stale) in pending.records.iter().take(each_max) {
            let text = format!("of MFT record {number}{}, {}", self.named(*number), words(stale));
            findings.push(Finding::error("ntfs-log-record", text).at(place(*number)));
        }
        for (at, stale) in pending.index_blocks.iter().take(each_max) {
            let text = format!("of an index block{}, {}", self.directory_of(*at), words(stale));
            let place = Place::new("index block").byte(*at);
            findings.push(Finding::error("ntfs-log-index", text).at(place));
        }
        for (at, stale) in pending.streams.iter().take(each_max) {
            let text = format!("of a stream, {}", words(stale));
            let place = Place::new("volume").byte(*at);
            findings.push(Finding::error("ntfs-log-stream", text).at(place));
        }
        let lists = [pending.records.len(), pending.index_blocks.len(), pending.streams.len()];
        let left = lists.iter().map(|list| list.saturating_sub(each_max));
        let left = left.fold(0usize, usize::saturating_add);
        if left > 0 {
            let text = format!("{left} more structures are stale; `adit check` lists them");
            findings.push(Finding::error("ntfs-log-more", text));
        }
        let marks = [
            (&pending.clusters, "clusters", record::BITMAP),
            (&pending.record_marks, "MFT records", record::MFT),
        ];
        for (bits, what, number) in marks.into_iter().filter(|(bits, ..)| !bits.is_empty()) {
            let used = bits.values().filter(|set| **set).count();
            let free = bits.len().saturating_sub(used);
            let first = bits.keys().next().copied().unwrap_or(0);
            let text = format!(
                "by the log {used} {what} are in use and {free} free that the bitmap has \
                 otherwise, the first is {first}"
            );
            findings.push(Finding::error("ntfs-log-bitmap", text).at(place(number)));
        }
    }

    /// A record's name, to be put behind its number.
    pub(crate) fn named(&self, number: u64) -> String {
        let record = self.record(number).ok();
        let names = record.map(|record| record.file_names()).unwrap_or_default();
        let mut names = names.into_iter().filter_map(Result::ok);
        let name = names.find(|name| !name.is_dos());
        name.map_or_else(String::new, |name| format!(" ({:?})", to_text(&name.name)))
    }

    /// The directory whose index has this block, as its first entry tells.
    fn directory_of(&self, at: u64) -> String {
        // Behind the block's header, its index header and the entry's.
        let parent = || {
            let head = self.volume().read_prefix(at, 0x200).ok()?;
            let entries = adit_core::bytes::u32_le(&head, 0x18)?;
            let start = adit_core::bytes::index(entries).checked_add(0x18 + 0x10)?;
            let name = FileName::parse(head.get(start..)?).ok()?;
            Some(reference::number(name.raw.parent))
        };
        let parent = parent().filter(|number| self.record(*number).is_ok_and(|r| r.is_directory()));
        let told = |number| format!(" of directory {number}{}", self.named(number));
        parent.map_or_else(String::new, told)
    }
}

fn whole(records: u64, more: bool, pending: &Pending) -> Finding {
    if !more && pending.is_empty() {
        let text = match records {
            0 => "volume not cleanly unmounted: no log records follow the last checkpoint, \
                metadata is complete up to there"
                .to_owned(),
            _ => format!(
                "volume not cleanly unmounted: the {records} log records after the checkpoint \
                 are all on the disk"
            ),
        };
        return Finding::warning("ntfs-log", text).advise(ADVICE);
    }
    let least = if more { "at least " } else { "" };
    let mut text = format!(
        "volume not cleanly unmounted: {least}{records} log records after the checkpoint may be \
         missing from metadata"
    );
    if pending.transactions > 0 {
        text.push_str(&format!(", {} transactions did not finish", pending.transactions));
    }
    if pending.unplaced > 0 {
        text.push_str(&format!(", {} changes could not be placed", pending.unplaced));
    }
    Finding::error("ntfs-log", text).advise(ADVICE)
}

fn words(stale: &Stale) -> String {
    let missing = format!("{} changes are in the log and not on the disk", stale.missing);
    let undone = format!("{} changes belong to transactions that did not finish", stale.unfinished);
    match (stale.missing, stale.unfinished) {
        (_, 0) => missing,
        (0, _) => undone,
        _ => format!("{missing}, {undone}"),
    }
}
