//! Checks every structure and unpacks every block: the format has no other checksums.

use crate::inode::{Body, Inode};
use crate::volume::Squash;
use adit_core::{
    Check, Cursor, Disk, DiskExt, Error, FileSystem, Finding, Interrupt, NodeId, NodeKind, Problem,
    Result,
};
use std::collections::HashSet;
use std::sync::Arc;

/// Findings of one file that are reported.
const EACH_MAX: usize = 16;

impl Check for Squash {
    fn check(&self, report: &mut dyn FnMut(Finding), interrupt: &Interrupt) -> Result<()> {
        self.notes_so_far().into_iter().for_each(&mut *report);
        let mut todo = vec![self.root()];
        let mut directories: HashSet<NodeId> = todo.iter().copied().collect();
        let mut seen = directories.clone();
        while let Some(id) = todo.pop() {
            interrupt.check()?;
            let mut from = Some(Cursor::default());
            while let Some(cursor) = from {
                let page = match self.read_dir(id, cursor) {
                    Ok(page) => page,
                    Err(error) => {
                        report(Finding::from_error("squashfs-directory", &error));
                        break;
                    }
                };
                for error in &page.problems {
                    report(Finding::from_error("squashfs-directory", error));
                }
                for entry in page.entries {
                    interrupt.check()?;
                    let inode = match self.inode(entry.node) {
                        Ok(inode) => inode,
                        Err(error) => {
                            let error = error.in_layer(format!("{:?}", entry.name));
                            report(Finding::from_error("squashfs-inode", &error));
                            continue;
                        }
                    };
                    if inode.kind != entry.kind {
                        let detail = format!("{} is another kind of file", entry.name);
                        let error = Error::corrupt(Problem::Mismatch, detail);
                        report(Finding::from_error("squashfs-inode", &error));
                    }
                    if entry.kind == NodeKind::Directory && !directories.insert(entry.node) {
                        let detail = format!("{} leads to a directory met before", entry.name);
                        let error = Error::corrupt(Problem::Cycle, detail);
                        report(Finding::from_error("squashfs-directory", &error));
                    } else if entry.kind == NodeKind::Directory {
                        todo.push(entry.node);
                    }
                    if seen.insert(entry.node) {
                        self.check_inode(&inode, report, interrupt)?;
                    }
                }
                from = page.next.filter(|next| *next > cursor);
            }
        }
        Ok(())
    }
}

impl Squash {
    fn check_inode(
        &self,
        inode: &Inode,
        report: &mut dyn FnMut(Finding),
        interrupt: &Interrupt,
    ) -> Result<()> {
        let told = |error: &Error| {
            let layer = format!("inode {}", inode.header.number);
            Finding::from_error("squashfs-inode", &error.clone().in_layer(layer))
        };
        if let Err(error) = self.metadata_of(inode) {
            report(told(&error));
        }
        if let Err(error) = self.attributes(inode) {
            report(told(&error));
        }
        if !matches!(inode.body, Body::File { .. }) {
            return Ok(());
        }
        let disk = self.open(inode.node(), &adit_core::Fork::Data)?;
        let mut found = 0usize;
        let mut at = 0u64;
        while at < disk.size_bytes() && found < EACH_MAX {
            interrupt.check()?;
            match self.check_extent(&disk, at) {
                Ok(next) => at = next,
                Err(error) => {
                    found = found.saturating_add(1);
                    report(told(&error));
                    let block = self.superblock().block_size;
                    at = (at / block).saturating_add(1).saturating_mul(block.get());
                }
            }
        }
        Ok(())
    }

    /// Looks at an extent and gives where it ends; packed ones are unpacked.
    fn check_extent(&self, disk: &Arc<dyn Disk>, at: u64) -> Result<u64> {
        let extent = disk.extent_at(at)?;
        match extent.kind {
            adit_core::ExtentKind::Lost(error) => Err(error),
            adit_core::ExtentKind::Data => {
                // One byte unpacks the whole block.
                disk.read_vec(at, 1)?;
                Ok(extent.end())
            }
            _ => Ok(at.saturating_add(extent.length.max(1))),
        }
    }
}
