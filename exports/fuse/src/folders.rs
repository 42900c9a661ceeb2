//! Directories that are open: listings that go on where the last answer ended.

use crate::tree::Tree;
use adit_core::{Cursor, DirEntry, Error, Interrupt, NodeId, Problem, Result};
use std::collections::VecDeque;

/// Longest name the kernel takes from a server. Unit: bytes.
const NAME_BYTES_MAX: usize = 1024;
/// Offsets of what follows `.` and `..`; everything after that is a cursor moved up by the second.
pub(crate) const AFTER_SELF: u64 = 1;
pub(crate) const AFTER_PARENT: u64 = 2;

/// A directory being listed.
#[derive(Debug)]
pub(crate) struct OpenFolder {
    pub(crate) node: NodeId,
    /// The offset `ready` starts at.
    at: u64,
    /// Entries that were read and not told yet.
    ready: VecDeque<DirEntry>,
    /// Where the next page is; none after the last.
    next: Option<Cursor>,
    /// What could not be listed, and was not reported yet.
    problems: Vec<Error>,
    /// Whether anything could not be listed.
    incomplete: bool,
    /// Whether the listing has failed for that.
    failed: bool,
}

impl OpenFolder {
    pub(crate) fn new(node: NodeId) -> OpenFolder {
        OpenFolder {
            node,
            at: AFTER_PARENT,
            ready: VecDeque::new(),
            next: Some(Cursor::default()),
            problems: Vec::new(),
            incomplete: false,
            failed: false,
        }
    }

    /// Moves to an offset. Listings go straight on, so this is almost always where we are.
    pub(crate) fn seek(&mut self, offset: u64) {
        let offset = offset.max(AFTER_PARENT);
        if offset != self.at {
            *self = OpenFolder::new(self.node);
            self.at = offset;
            self.next = Some(Cursor(offset - AFTER_PARENT));
        }
    }

    /// The next entry with the offset after it, which stays next until it is taken.
    ///
    /// Pages are read once and told in as many answers as it takes, so a listing costs what its
    /// entries cost, whatever the size of the answers.
    pub(crate) fn peek(
        &mut self,
        tree: &Tree,
        stop: &Interrupt,
    ) -> Result<Option<(&DirEntry, u64)>> {
        while self.ready.is_empty() {
            stop.check()?;
            let Some(from) = self.next else { return Ok(None) };
            let page = tree.read_dir(self.node, from)?;
            self.next = page.next;
            self.problems.extend(page.problems);
            self.ready.extend(page.entries);
            self.drop_unfit();
        }
        let Some(entry) = self.ready.front() else { return Ok(None) };
        Ok(Some((entry, offset_after(entry)?)))
    }

    pub(crate) fn take(&mut self) {
        if let Some(entry) = self.ready.pop_front() {
            self.at = offset_after(&entry).unwrap_or(self.at);
        }
    }

    /// The problems met since the last call.
    pub(crate) fn take_problems(&mut self) -> Vec<Error> {
        let met = std::mem::take(&mut self.problems);
        self.incomplete |= !met.is_empty();
        met
    }

    /// Ends a listing. One that could not tell all its entries fails, once, after the last one it
    /// could: everything sound has been told, and nobody takes it for complete.
    ///
    /// `more_told`: whether this answer has entries; then the end is told by the next one.
    pub(crate) fn end(&mut self, more_told: bool) -> Result<()> {
        let incomplete = self.incomplete || !self.problems.is_empty();
        if more_told || !incomplete || self.failed {
            return Ok(());
        }
        self.failed = true;
        Err(Error::corrupt(Problem::Missing, "some entries of the directory could not be listed"))
    }

    /// Takes out names that would break the whole answer.
    fn drop_unfit(&mut self) {
        let problems = &mut self.problems;
        self.ready.retain(|entry| {
            let fit = !entry.name.is_dots() && entry.name.as_bytes().len() <= NAME_BYTES_MAX;
            if !fit {
                let detail = format!("an entry is called {:?}, which cannot be shown", entry.name);
                problems.push(Error::corrupt(Problem::BadValue, detail));
            }
            fit
        });
    }
}

/// Offsets are signed for the kernel, and two are taken.
fn offset_after(entry: &DirEntry) -> Result<u64> {
    let offset = entry.after.0.checked_add(AFTER_PARENT);
    offset.filter(|&offset| i64::try_from(offset).is_ok()).ok_or_else(|| {
        let detail = format!("the listing cannot go on after {:?}", entry.name);
        Error::unsupported(detail)
    })
}
