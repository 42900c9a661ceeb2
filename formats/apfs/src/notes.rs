//! What is worth saying, gathered while reading.

use adit_core::Finding;
use std::sync::{Mutex, PoisonError};

/// Notes are kept up to this number.
const NOTES_MAX: usize = 64;

/// Notes of an open file system.
#[derive(Debug, Default)]
pub(crate) struct Notes(Mutex<Vec<Finding>>);

impl Notes {
    /// Adds a note, once.
    pub(crate) fn add(&self, finding: Finding) {
        let mut notes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if notes.len() < NOTES_MAX && !notes.contains(&finding) {
            notes.push(finding);
        }
    }

    /// All of them so far.
    pub(crate) fn all(&self) -> Vec<Finding> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
