//! A list of findings that a hostile file cannot make endless.

use adit_core::Finding;

const NOTES_MAX: usize = 100;

/// Findings, the first [`NOTES_MAX`] of them, and a count of the others.
#[derive(Debug, Default)]
pub(crate) struct Notes {
    list: Vec<Finding>,
    left_out: u64,
}

impl Notes {
    pub(crate) fn push(&mut self, note: Finding) {
        if self.list.len() < NOTES_MAX {
            self.list.push(note);
        } else {
            self.left_out = self.left_out.saturating_add(1);
        }
    }

    pub(crate) fn into_list(mut self) -> Vec<Finding> {
        if self.left_out > 0 {
            let text = format!("{} more like these were left out", self.left_out);
            self.list.push(Finding::info("vmx-more-notes", text));
        }
        self.list
    }
}
