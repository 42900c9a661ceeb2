//! A light check: every structure that can be reached is read once, with its checksum.
//!
//! It does not count references and does not compare the trees of free space, reverse mappings
//! and reference counts with what is in use.

use crate::bmap::What;
use crate::group::Chunk;
use crate::inode::{ForkKind, Inode, place};
use crate::layout::format;
use crate::volume::Xfs;
use adit_core::{Check, Cursor, DirEntry, Error, Finding, Interrupt, NodeKind, Problem, Result};

/// Findings of one inode that are reported.
const EACH_MAX: usize = 16;

impl Check for Xfs {
    fn check(&self, report: &mut dyn FnMut(Finding), interrupt: &Interrupt) -> Result<()> {
        for note in self.notes_so_far() {
            report(note);
        }
        for group in 0..self.superblock().groups {
            interrupt.check()?;
            if let Err(error) = self.agf(group) {
                report(Finding::from_error("xfs-group", &error));
            }
            let mut problems = Vec::new();
            let mut chunks = Vec::new();
            self.walk_chunks(group, &mut |error| problems.push(error), &mut |chunk| {
                chunks.push(chunk);
                interrupt.check()
            })?;
            for error in problems {
                report(Finding::from_error("xfs-inode-tree", &error));
            }
            for chunk in chunks {
                interrupt.check()?;
                self.check_chunk(group, chunk, report);
            }
        }
        Ok(())
    }
}

impl Xfs {
    fn check_chunk(&self, group: u64, chunk: Chunk, report: &mut dyn FnMut(Finding)) {
        for agino in chunk.used() {
            let ino = self.superblock().inode_number(group, agino);
            match self.inode(ino) {
                Ok(inode) => self.check_inode(&inode, report),
                Err(error) => {
                    let error = error.at(place(ino));
                    report(Finding::from_error("xfs-inode", &error));
                }
            }
        }
    }

    fn check_inode(&self, inode: &Inode, report: &mut dyn FnMut(Finding)) {
        if let Err(error) = self.attributes(inode) {
            report(Finding::from_error("xfs-attributes", &in_inode(inode, error)));
        }
        let kind = inode.kind();
        if kind == Some(NodeKind::Symlink)
            && let Err(error) = self.target(inode)
        {
            report(Finding::from_error("xfs-link", &in_inode(inode, error)));
        }
        let mapped = matches!(inode.raw.format, format::EXTENTS | format::BTREE);
        if mapped && !inode.is_realtime() {
            self.check_mapping(inode, report);
        }
        if kind == Some(NodeKind::Directory) {
            self.check_directory(inode, report);
        }
    }

    fn check_mapping(&self, inode: &Inode, report: &mut dyn FnMut(Finding)) {
        let end = inode.raw.size.div_ceil(self.superblock().block_size.get());
        let (mut at, mut found) = (0u64, 0usize);
        while at < end && found < EACH_MAX {
            let stretch = self.stretch(inode, ForkKind::Data, at);
            if let What::Lost(error) = stretch.what {
                found = found.saturating_add(1);
                report(Finding::from_error("xfs-mapping", &in_inode(inode, error)));
            }
            at = at.saturating_add(stretch.length);
        }
    }

    fn check_directory(&self, dir: &Inode, report: &mut dyn FnMut(Finding)) {
        let mut from = Some(Cursor::default());
        let mut found = 0usize;
        while let Some(cursor) = from {
            let page = match self.page(dir, cursor) {
                Ok(page) => page,
                Err(error) => {
                    return report(Finding::from_error("xfs-directory", &in_inode(dir, error)));
                }
            };
            for error in page.problems {
                found = found.saturating_add(1);
                if found <= EACH_MAX {
                    report(Finding::from_error("xfs-directory", &in_inode(dir, error)));
                }
            }
            for entry in page.entries {
                if found < EACH_MAX
                    && !dir.is_local()
                    && let Err(error) = self.check_name(dir, &entry)
                {
                    found = found.saturating_add(1);
                    let error = error.in_layer(entry.name.to_string());
                    report(Finding::from_error("xfs-directory-index", &in_inode(dir, error)));
                }
            }
            from = page.next;
        }
    }
}

impl Xfs {
    /// Whether the index leads to a name.
    fn check_name(&self, dir: &Inode, entry: &DirEntry) -> Result<()> {
        if self.find_hashed(dir, entry.name.as_bytes())? == Some(entry.node.0) {
            return Ok(());
        }
        let detail = "the index does not know the name";
        Err(Error::corrupt(Problem::Mismatch, detail))
    }
}

fn in_inode(inode: &Inode, error: Error) -> Error {
    error.at(place(inode.ino).byte(inode.offset)).in_layer(format!("inode {}", inode.ino))
}
