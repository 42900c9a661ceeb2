//! Which parts of a disk are in use, as the file systems on it say.
//!
//! What is not understood is in use: gaps between partitions, unknown contents, file systems
//! that were left uncleanly or have anything to warn of. [`used`] finds out, and [`UsedOnly`]
//! is the disk with holes where nothing is in use.

pub(crate) mod formats;
mod only;
mod ranges;
mod swap;

pub use only::UsedOnly;

use adit_core::{Disk, DiskExt, Error, Finding, Interrupt, Kind, Limits, Result};
use ranges::Ranges;
use std::ops::Range;
use std::sync::Arc;

/// Tables in partitions in tables: no deeper than this.
const TABLES_MAX: u32 = 4;

/// What is in use of a disk.
#[derive(Clone, Debug)]
pub struct Used {
    /// Length of the disk. Unit: bytes.
    pub size_bytes: u64,
    /// What is in use, in order and apart. Units: bytes.
    pub ranges: Vec<Range<u64>>,
    /// The parts it consists of, in the order they were found.
    pub parts: Vec<UsedPart>,
}

/// A part of a disk: a partition, or all of a disk without any.
#[derive(Clone, Debug)]
pub struct UsedPart {
    /// Steps to it, joined by `//`: `p1`; empty for the whole disk.
    pub name: String,
    /// First byte. Unit: bytes of the disk.
    pub offset: u64,
    /// Length. Unit: bytes.
    pub length: u64,
    /// What it is, as far as known.
    pub format: String,
    /// Its label, empty if none.
    pub label: String,
    /// What of it is in use. Unit: bytes.
    pub used_bytes: u64,
    /// What is known of it.
    pub state: UsedState,
}

/// How much is known of a part.
#[derive(Clone, Debug)]
pub enum UsedState {
    /// Its file system says what is in use.
    Known,
    /// A swap area. Its pages can be dropped: they are not in use where [`used`] was told so.
    Swap {
        /// The pages behind its header. Unit: bytes.
        droppable_bytes: u64,
    },
    /// All of it counts as used, for this reason.
    Whole(Error),
}

impl Used {
    /// What is in use. Unit: bytes.
    pub fn used_bytes(&self) -> u64 {
        self.ranges.iter().map(|range| range.end - range.start).sum()
    }

    /// What is not. Unit: bytes.
    pub fn free_bytes(&self) -> u64 {
        self.size_bytes.saturating_sub(self.used_bytes())
    }

    /// What a disk without the rest has to say of itself.
    pub fn finding(&self) -> Finding {
        let text = format!(
            "{} of {} bytes are left out: no file system uses them, and they are not zeros in \
             the source but read as zeros here",
            self.free_bytes(),
            self.size_bytes
        );
        Finding::info("used-only", text)
            .advise("deleted files cannot be recovered from such a copy; copy the whole disk where that matters")
    }
}

/// Finds out what of a disk is in use. With `drop_swap` the pages of swap areas are not.
///
/// Errors: those of reading the partition table; `Interrupted`. Anything else makes a part count
/// as used.
pub fn used(
    disk: &Arc<dyn Disk>,
    drop_swap: bool,
    limits: &Limits,
    interrupt: &Interrupt,
) -> Result<Used> {
    let size_bytes = disk.size_bytes();
    let mut survey = Survey { drop_swap, limits, interrupt, parts: Vec::new(), found: Vec::new() };
    survey.part(disk, String::new(), 0, "", 0)?;
    // In use is what no part covers, and what any part uses: partitions may overlap.
    let mut covered = Ranges::default();
    survey.found.iter().for_each(|(part, _)| covered.add(part.clone()));
    covered.settle();
    let mut all = Ranges::default();
    covered.gaps(0..size_bytes).into_iter().for_each(|range| all.add(range));
    for (part, used) in &survey.found {
        for range in used.as_slice() {
            let start = part.start.saturating_add(range.start);
            let end = part.start.saturating_add(range.end);
            all.add(start.min(size_bytes)..end.min(size_bytes));
        }
    }
    all.settle();
    Ok(Used { size_bytes, ranges: all.as_slice().to_vec(), parts: survey.parts })
}

struct Survey<'a> {
    drop_swap: bool,
    limits: &'a Limits,
    interrupt: &'a Interrupt,
    parts: Vec<UsedPart>,
    /// Where each part is on the disk, and what of it is in use, from its own start.
    found: Vec<(Range<u64>, Ranges)>,
}

impl Survey<'_> {
    fn part(
        &mut self,
        disk: &Arc<dyn Disk>,
        name: String,
        offset: u64,
        kind: &str,
        depth: u32,
    ) -> Result<()> {
        self.interrupt.check()?;
        if depth < TABLES_MAX {
            match adit_partitions::open(disk, self.limits) {
                Ok(Some(table)) if !table.volumes.is_empty() => {
                    for volume in &table.volumes {
                        // Its logical partitions stand in the same table, and what links them
                        // is then covered by none.
                        let extended = ["(0x05)", "(0x0f)", "(0x85)"];
                        if extended.iter().any(|kind| volume.kind.ends_with(kind)) {
                            continue;
                        }
                        let step = match name.is_empty() {
                            true => volume.name.clone(),
                            false => format!("{name}//{}", volume.name),
                        };
                        match volume.offset {
                            Some(at) => {
                                let at = offset.saturating_add(at);
                                self.part(&volume.disk, step, at, &volume.kind, depth + 1)?;
                            }
                            None => {
                                let why = Error::unsupported("it is not one piece of one disk");
                                self.whole(disk, step, offset, &volume.kind, why);
                            }
                        }
                    }
                    return Ok(());
                }
                Ok(_) => {}
                Err(error) if error.kind() == Kind::Interrupted => return Err(error),
                Err(error) => {
                    self.whole(disk, name, offset, kind, error);
                    return Ok(());
                }
            }
        }
        let known = formats::ask(disk, self.limits, self.interrupt);
        match known {
            Err(error) if error.kind() == Kind::Interrupted => return Err(error),
            Err(error) => self.whole(disk, name, offset, kind, error),
            Ok(Some(known)) => {
                let used_bytes = known.used.bytes();
                let length = disk.size_bytes();
                let (format, label, state) = (known.format, known.label, UsedState::Known);
                let part = UsedPart { name, offset, length, format, label, used_bytes, state };
                self.keep(part, known.used);
            }
            Ok(None) => match swap::find(disk) {
                Ok(Some(swap)) => self.swap(disk, name, offset, swap),
                Ok(None) => {
                    let why = Error::unsupported("what it holds is not known");
                    self.whole(disk, name, offset, kind, why);
                }
                Err(error) => self.whole(disk, name, offset, kind, error),
            },
        }
        Ok(())
    }

    fn swap(&mut self, disk: &Arc<dyn Disk>, name: String, offset: u64, swap: swap::Swap) {
        let length = disk.size_bytes();
        let mut used = Ranges::default();
        used.add(0..if self.drop_swap { swap.pages.start } else { length });
        used.add(swap.pages.end..length);
        used.settle();
        let part = UsedPart {
            name,
            offset,
            length,
            format: "swap".into(),
            label: swap.label,
            used_bytes: used.bytes(),
            state: UsedState::Swap { droppable_bytes: swap.pages.end - swap.pages.start },
        };
        self.keep(part, used);
    }

    fn whole(&mut self, disk: &Arc<dyn Disk>, name: String, offset: u64, kind: &str, why: Error) {
        let length = disk.size_bytes();
        let mut used = Ranges::default();
        used.add(0..length);
        used.settle();
        let format = adit_partitions::sniff(disk).unwrap_or(kind).to_owned();
        let (label, state) = (String::new(), UsedState::Whole(why));
        let part = UsedPart { name, offset, length, format, label, used_bytes: length, state };
        self.keep(part, used);
    }

    fn keep(&mut self, part: UsedPart, used: Ranges) {
        self.found.push((part.offset..part.offset.saturating_add(part.length), used));
        self.parts.push(part);
    }
}
