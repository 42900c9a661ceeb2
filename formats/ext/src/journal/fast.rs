//! Fast commits.

use super::scan::Log;
use crate::inode::{Ino, Inode};
use crate::mapping::Stretch;
use crate::volume::Ext;
use adit_core::{DirPage, Finding};

/// What fast commits changed.
#[derive(Debug, Default)]
pub struct FastCommits {}

impl FastCommits {
    pub(crate) fn inode(&self, _ino: u32) -> Option<Vec<u8>> {
        None
    }
    pub(crate) fn stretch(&self, _inode: &Inode, _logical: u64) -> Option<Stretch> {
        None
    }
    pub(crate) fn list(&self, _fs: &Ext, _dir: &Inode, _page: &mut DirPage) {}
    pub(crate) fn hides(&self, _dir: Ino, _name: &[u8]) -> bool {
        false
    }
    pub(crate) fn find(&self, _dir: Ino, _name: &[u8]) -> Option<Option<Ino>> {
        None
    }
}

pub(super) fn read(
    _log: &Log,
    _sequence: u32,
    _fs: &Ext,
    _notes: &mut Vec<Finding>,
) -> FastCommits {
    FastCommits::default()
}
