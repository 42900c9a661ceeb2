//! A light check: every structure that can be reached is read once, with its checksum.
//!
//! It does not count references and does not compare bitmaps with what is in use.

use crate::group::INODE_UNINIT;
use crate::inode::{Ino, Inode};
use crate::layout::inode_flags;
use crate::mapping::What;
use crate::volume::Ext;
use adit_core::{Check, Cursor, Error, Finding, Interrupt, NodeKind, Result};

/// Findings of one inode that are reported.
const EACH_MAX: usize = 16;

impl Check for Ext {
    fn check(&self, report: &mut dyn FnMut(Finding), interrupt: &Interrupt) -> Result<()> {
        for note in self.notes_so_far() {
            report(note);
        }
        for number in 0..self.superblock().groups {
            interrupt.check()?;
            let group = match self.group(number) {
                Ok(group) => group,
                Err(error) => {
                    report(Finding::from_error("ext-group", &error));
                    continue;
                }
            };
            if group.raw.flags & INODE_UNINIT != 0 {
                continue;
            }
            let per_group = self.superblock().inodes_per_group.get();
            let used = per_group.saturating_sub(group.unused_inodes);
            let first = number.saturating_mul(per_group);
            for index in first..first.saturating_add(used).min(self.superblock().inodes()) {
                let ino = u32::try_from(index.saturating_add(1)).unwrap_or(u32::MAX);
                if index % 4096 == 0 {
                    interrupt.check()?;
                }
                self.check_inode(Ino(ino), report);
            }
        }
        Ok(())
    }
}

impl Ext {
    fn check_inode(&self, ino: Ino, report: &mut dyn FnMut(Finding)) {
        let raw = match self.inode_unchecked(ino) {
            Ok(raw) => raw,
            Err(error) => return report(Finding::from_error("ext-inode", &error)),
        };
        // Free ones may hold anything.
        if raw.raw.links == 0 || (raw.raw.dtime != 0 && raw.raw.mode == 0) {
            return;
        }
        if let Err(error) = self.inode(ino) {
            return report(Finding::from_error("ext-inode", &error));
        }
        if let Err(error) = self.attributes(&raw) {
            report(Finding::from_error("ext-attributes", &error));
        }
        let mapped = match raw.kind() {
            Some(NodeKind::File | NodeKind::Directory) => true,
            Some(NodeKind::Symlink) => raw.fast_link().is_none(),
            _ => false,
        };
        if mapped && !raw.has(inode_flags::INLINE_DATA) {
            self.check_mapping(&raw, report);
        }
        if raw.kind() == Some(NodeKind::Directory) {
            self.check_directory(&raw, report);
        }
    }

    fn check_mapping(&self, inode: &Inode, report: &mut dyn FnMut(Finding)) {
        let end = self.length(inode).div_ceil(self.superblock().block_size.get());
        let (mut at, mut found) = (0u64, 0usize);
        while at < end && found < EACH_MAX {
            let stretch = self.stretch(inode, at);
            if let What::Lost(error) = stretch.what {
                found = found.saturating_add(1);
                report(Finding::from_error("ext-mapping", &in_inode(inode, error)));
            }
            at = at.saturating_add(stretch.length);
        }
    }

    fn check_directory(&self, dir: &Inode, report: &mut dyn FnMut(Finding)) {
        let mut from = Cursor::default();
        let mut found = 0usize;
        loop {
            let page = match self.page(dir, from) {
                Ok(page) => page,
                Err(error) => return report(Finding::from_error("ext-directory", &error)),
            };
            for error in page.problems {
                let damage = error.kind() != adit_core::Kind::Unsupported;
                if damage && found < EACH_MAX {
                    found = found.saturating_add(1);
                    report(Finding::from_error("ext-directory", &in_inode(dir, error)));
                }
            }
            for entry in page.entries {
                if let Err(error) = Ino::of(entry.node).and_then(|ino| self.inode(ino))
                    && found < EACH_MAX
                {
                    found = found.saturating_add(1);
                    let error = error.in_layer(format!("{:?}", entry.name));
                    report(Finding::from_error("ext-entry", &in_inode(dir, error)));
                }
            }
            match page.next {
                Some(next) if next > from => from = next,
                _ => return,
            }
        }
    }
}

fn in_inode(inode: &Inode, error: Error) -> Error {
    error.in_layer(format!("inode {}", inode.ino.0))
}
