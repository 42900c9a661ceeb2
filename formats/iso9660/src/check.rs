//! Checks every structure: descriptors, records, where files are, packed blocks.

use crate::directory::Entries;
use crate::node::Node;
use crate::volume::Iso;
use adit_core::{
    Check, Disk, DiskExt, Error, ExtentKind, Finding, Interrupt, Kind, NodeId, NodeKind, Problem,
    Result,
};
use std::collections::HashSet;
use std::sync::Arc;

/// Blocks of one packed file that are told one by one.
const EACH_MAX: usize = 16;

impl Check for Iso {
    fn check(&self, report: &mut dyn FnMut(Finding), interrupt: &Interrupt) -> Result<()> {
        let mut told: HashSet<String> = HashSet::new();
        for note in self.notes_so_far() {
            told.insert(note.to_string());
            report(note);
        }
        let mut todo = vec![self.root_id()];
        let mut seen: HashSet<NodeId> = todo.iter().copied().collect();
        let mut steps = 0u64;
        while let Some(id) = todo.pop() {
            interrupt.check()?;
            let dir = match self.directory(id) {
                Ok(dir) => dir,
                Err(error) => {
                    report(Finding::from_error("iso9660-directory", &error));
                    continue;
                }
            };
            self.check_extent(&dir, report);
            let mut entries = Entries::new(self, &dir, 0);
            while let Some(step) = entries.step() {
                steps = steps.saturating_add(1);
                if steps > self.limits().list_steps_max.saturating_mul(16) {
                    let text = "there are too many entries to check them all";
                    report(Finding::info("iso9660-check-long", text));
                    return Ok(());
                }
                let found = match step {
                    Ok(found) => found,
                    Err(error) => {
                        report(Finding::from_error("iso9660-record", &error));
                        continue;
                    }
                };
                let id = self.id_of(&found.record, &found.rock);
                if self.kind_of(&found.record, &found.rock) == NodeKind::Directory {
                    if seen.insert(id) {
                        todo.push(id);
                    } else {
                        let detail = format!("{} leads to a directory met before", found.name);
                        let error = Error::corrupt(Problem::Cycle, detail);
                        let error = error.at(found.record.place());
                        report(Finding::from_error("iso9660-directory", &error));
                    }
                } else {
                    self.check_file(id, report);
                }
            }
        }
        for note in self.notes_so_far() {
            if told.insert(note.to_string()) {
                report(note);
            }
        }
        Ok(())
    }
}

impl Iso {
    fn check_file(&self, id: NodeId, report: &mut dyn FnMut(Finding)) {
        let node = match self.node(id) {
            Ok(node) => node,
            Err(error) => return report(Finding::from_error("iso9660-file", &error)),
        };
        if node.kind != NodeKind::File {
            return;
        }
        self.check_extent(&node, report);
        match self.data(&node) {
            Ok(disk) if node.rock.packed.is_some() => check_packed(&disk, report),
            Ok(_) => {}
            Err(error) if error.kind() == Kind::Unsupported => {}
            Err(error) => report(Finding::from_error("iso9660-file", &error)),
        }
    }

    fn check_extent(&self, node: &Node, report: &mut dyn FnMut(Finding)) {
        let size = self.disk().size_bytes();
        let end = node.sections.iter().map(|s| s.offset.saturating_add(s.length)).max();
        if end.is_some_and(|end| end > size) && node.length > 0 {
            let detail =
                format!("its data ends at byte {:#x}, the disk at {size:#x}", end.unwrap_or(0));
            let error = Error::corrupt(Problem::OutOfRange, detail).at(node.record.place());
            report(Finding::from_error("iso9660-extent", &error));
        }
    }
}

/// Unpacks nothing: the table must make sense.
fn check_packed(disk: &Arc<dyn Disk>, report: &mut dyn FnMut(Finding)) {
    let (mut at, mut found) = (0u64, 0usize);
    while at < disk.size_bytes() && found < EACH_MAX {
        let Ok(extent) = disk.extent_at(at) else { return };
        if let ExtentKind::Lost(error) = &extent.kind {
            found = found.saturating_add(1);
            report(Finding::from_error("iso9660-packed", error));
        }
        at = at.saturating_add(extent.length.max(1));
    }
}
