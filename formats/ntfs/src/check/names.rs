//! Names in indexes beside names in records.

use super::{EACH_MAX, bits, is_set, set};
use crate::layout::{kind, record};
use crate::names::{reference, to_text};
use crate::ntfs::Ntfs;
use crate::record::{FileName, Record, place};
use adit_core::bytes::narrow;
use adit_core::{Cursor, Disk, DiskExt, Error, Finding, Interrupt, NodeId, Problem, Result};
use std::cell::RefCell;

/// What is known of each record.
pub(super) struct Names {
    used: Vec<u8>,
    marks: RefCell<(u64, Vec<u8>)>,
    /// Names a record has, less those that directories list. One each.
    balance: Vec<i16>,
    wrong: u64,
}

impl Names {
    pub(super) fn new(fs: &Ntfs) -> Names {
        let held = fs.held_bytes().checked_div(fs.boot().record_bytes).unwrap_or(0);
        let count = fs.mft().map_or(0, |mft| mft.records.min(held));
        let fits = count.saturating_mul(2) <= fs.limits().table_bytes_max;
        let length = if fits { narrow(count).unwrap_or(0) } else { 0 };
        let used = bits(if fits { count } else { 0 }, u64::MAX).unwrap_or_default();
        Names { used, marks: RefCell::default(), balance: vec![0; length], wrong: 0 }
    }

    /// How many records are looked at.
    pub(super) fn known(&self) -> u64 {
        adit_core::bytes::wide(self.balance.len())
    }

    pub(super) fn used(&mut self, number: u64) {
        set(&mut self.used, number);
    }

    pub(super) fn is_used(&self, number: u64) -> bool {
        is_set(&self.used, number)
    }

    /// Reads what the bitmap says of the 32768 records from `first` on.
    pub(super) fn read_marks(&self, bitmap: &dyn Disk, first: u64) {
        let bytes = bitmap.read_prefix(first / 8, 4096).unwrap_or_default();
        *self.marks.borrow_mut() = (first, bytes);
    }

    pub(super) fn is_marked(&self, number: u64) -> bool {
        let marks = self.marks.borrow();
        is_set(&marks.1, number.saturating_sub(marks.0))
    }

    /// A record has a name more.
    pub(super) fn has(&mut self, number: u64) {
        self.count(number, 1);
    }

    fn count(&mut self, number: u64, by: i16) {
        if let Some(balance) = narrow(number).and_then(|at| self.balance.get_mut(at)) {
            *balance = balance.saturating_add(by);
        }
    }

    fn report(&mut self, error: &Error, report: &mut dyn FnMut(Finding)) {
        self.wrong = self.wrong.saturating_add(1);
        if self.wrong <= EACH_MAX {
            report(Finding::from_error("ntfs-name", error));
        }
    }
}

impl Ntfs {
    /// Every name of a directory must be one of the record it leads to, and the other way round.
    pub(super) fn check_names(
        &self,
        names: &mut Names,
        report: &mut dyn FnMut(Finding),
        interrupt: &Interrupt,
    ) -> Result<()> {
        let mut whole = true;
        for number in 0..names.known() {
            interrupt.check()?;
            if !names.is_used(number) {
                continue;
            }
            let Ok(record) = self.record(number) else { continue };
            if record.is_directory() && record.base().is_none() {
                whole &= self.check_directory(&record, names, report, interrupt)?;
            }
        }
        if whole {
            for number in 0..names.known() {
                let balance = narrow(number).and_then(|at| names.balance.get(at)).copied();
                if let Some(balance) = balance.filter(|balance| *balance != 0) {
                    let detail = match balance > 0 {
                        true => format!("has {balance} names that no directory lists"),
                        false => format!("is listed {} times too often", balance.unsigned_abs()),
                    };
                    let error = Error::corrupt(Problem::Mismatch, detail).at(place(number));
                    names.report(&error, report);
                }
            }
        }
        if let Some(more) = names.wrong.checked_sub(EACH_MAX).filter(|more| *more > 0) {
            report(Finding::error("ntfs-name", format!("{more} more names are wrong")));
        }
        Ok(())
    }

    /// Goes through one directory; false where not all of it could be seen.
    fn check_directory(
        &self,
        record: &Record,
        names: &mut Names,
        report: &mut dyn FnMut(Finding),
        interrupt: &Interrupt,
    ) -> Result<bool> {
        let directory = match self.directory(NodeId(record.reference())) {
            Ok(directory) => directory,
            // A view index of the system is no directory, whatever its flag.
            Err(error) if error.kind() == adit_core::Kind::NotFound => return Ok(true),
            Err(error) => {
                report(Finding::from_error("ntfs-directory", &error));
                return Ok(false);
            }
        };
        let (mut whole, mut from, mut steps) = (true, Some(Cursor::default()), 0u64);
        while let Some(cursor) = from {
            interrupt.check()?;
            let (mut seen, mut problems) = (Vec::new(), Vec::new());
            from = directory.scan(
                cursor,
                &mut |name, entry, _| {
                    seen.push((name, entry.reference));
                    seen.len() < 4096
                },
                &mut |error| problems.push(error),
            );
            whole &= problems.is_empty();
            for error in problems {
                report(Finding::from_error("ntfs-index", &error));
            }
            for (name, child) in seen {
                steps = steps.saturating_add(1);
                self.check_entry(record, &name, child, names, report);
            }
            if steps > self.limits().directory_entries_max {
                return Ok(false);
            }
        }
        Ok(whole)
    }

    fn check_entry(
        &self,
        directory: &Record,
        name: &FileName,
        child: u64,
        names: &mut Names,
        report: &mut dyn FnMut(Finding),
    ) {
        let number = reference::number(child);
        names.count(number, -1);
        let same = |own: &FileName| {
            own.name == name.name && reference::number(own.parent()) == directory.number
        };
        let wrong = match self.node(child) {
            Err(error) => Some(format!("cannot be followed ({})", error.detail())),
            Ok(node) => {
                let parts = self.parts(&node, kind::FILE_NAME).attributes;
                let mut own =
                    parts.iter().filter_map(|part| FileName::parse(part.value().ok()?).ok());
                let found = own.any(|own| same(&own));
                (!found).then(|| "is no name of that record".to_owned())
            }
        };
        // What Windows keeps for itself below $Extend has names of its own making.
        if let Some(wrong) = wrong.filter(|_| number != record::ROOT) {
            let detail = format!("name {:?} for MFT record {number} {wrong}", to_text(&name.name));
            let error = Error::corrupt(Problem::Mismatch, detail).at(place(directory.number));
            names.report(&error, report);
        }
    }
}
