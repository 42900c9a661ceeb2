//! Checks every structure: the log, the mirror, each record, who owns which cluster, each name.

mod names;
mod owners;

use crate::fixup;
use crate::layout::{kind, record};
use crate::ntfs::Ntfs;
use crate::record::{Body, Record, place};
use crate::runlist::{Backing, Builder};
use adit_core::bytes::{narrow, wide};
use adit_core::{Check, DiskExt, Error, FileSystem, Finding, Interrupt, Problem, Result};
use names::Names;
use owners::Owners;

/// Findings of one kind that are reported one by one.
const EACH_MAX: u64 = 64;
/// Stale structures of one kind that are told from the log.
const LOG_MAX: usize = 4096;
/// Records Windows keeps back: in use by the bitmap, whatever they hold.
const RESERVED: u64 = 24;

impl Check for Ntfs {
    fn check(&self, report: &mut dyn FnMut(Finding), interrupt: &Interrupt) -> Result<()> {
        let notes = self.notes().into_iter();
        notes.filter(|note| !note.code.starts_with("ntfs-log")).for_each(&mut *report);
        self.log_findings(LOG_MAX).into_iter().for_each(&mut *report);
        self.check_mirror(report);
        let mut owners = Owners::new(self);
        let mut names = Names::new(self);
        let whole = self.check_records(&mut owners, &mut names, report, interrupt)?;
        self.check_names(&mut names, report, interrupt)?;
        owners.finish(self, whole, report, interrupt)
    }
}

impl Ntfs {
    /// The first records must stand in `$MFTMirr` as they do in `$MFT`.
    fn check_mirror(&self, report: &mut dyn FnMut(Finding)) {
        let boot = self.boot();
        let copies = |number: u64| -> Result<bool> {
            let offset = number.saturating_mul(boot.record_bytes);
            let mut own = self.mft()?.disk.read_vec(offset, boot.record_len())?;
            let at = offset.saturating_add(boot.mirror_offset);
            let mut copy = self.volume().read_vec(at, boot.record_len())?;
            // Each was written by itself: their update sequences may differ.
            fixup::apply(&mut own, &[*b"FILE"])?;
            fixup::apply(&mut copy, &[*b"FILE"])?;
            Ok(same_but_sequence(&own, &copy))
        };
        for number in record::MFT..=record::VOLUME {
            match copies(number) {
                Ok(true) => {}
                Ok(false) => {
                    let text = format!("MFT record {number} and its copy in $MFTMirr differ");
                    let finding = Finding::warning("ntfs-mirror-differs", text);
                    report(finding.at(place(number)).advise("chkdsk writes the mirror anew"));
                }
                Err(error) => {
                    let error = error.at(place(number).field("$MFTMirr"));
                    report(Finding::from_error("ntfs-mirror", &error));
                }
            }
        }
    }

    /// Goes through every record; false where one could not be read.
    fn check_records(
        &self,
        owners: &mut Owners,
        names: &mut Names,
        report: &mut dyn FnMut(Finding),
        interrupt: &Interrupt,
    ) -> Result<bool> {
        let (mut whole, mut damaged) = (true, 0u64);
        for record in self.records()? {
            interrupt.check()?;
            match record.and_then(|record| self.check_record(&record, owners, names, report)) {
                Ok(()) => {}
                Err(error) if error.kind() == adit_core::Kind::Limit => return Err(error),
                Err(error) => {
                    whole = false;
                    damaged = damaged.saturating_add(1);
                    if damaged <= EACH_MAX {
                        report(Finding::from_error("ntfs-record", &error));
                    }
                }
            }
        }
        if let Some(more) = damaged.checked_sub(EACH_MAX).filter(|more| *more > 0) {
            let text = format!("{more} more MFT records are damaged");
            report(Finding::error("ntfs-record", text));
        }
        self.check_marks(names, report, interrupt)?;
        Ok(whole)
    }

    fn check_record(
        &self,
        record: &Record,
        owners: &mut Owners,
        names: &mut Names,
        report: &mut dyn FnMut(Finding),
    ) -> Result<()> {
        names.used(record.number);
        let of = record.base().unwrap_or(record.number);
        if let Some(base) = record.base() {
            let found = self.record(base).ok().filter(Record::in_use);
            if found.is_none_or(|found| found.reference() != record.raw.base) {
                let detail = format!("extends MFT record {base}, which is free or another file");
                let error = Error::corrupt(Problem::Mismatch, detail).at(place(record.number));
                report(Finding::from_error("ntfs-record-orphan", &error));
            }
        }
        let mut failed = None;
        for attribute in record.attributes() {
            let attribute = attribute?;
            if attribute.kind == kind::FILE_NAME {
                attribute.value().and_then(crate::record::FileName::parse)?;
                names.has(of);
            }
            let Body::NonResident { .. } = &attribute.body else { continue };
            let mut runs = Builder::new(self.boot().clusters, self.limits().list_steps_max);
            runs.add(&attribute, None)?;
            for piece in runs.pieces().iter().filter(|piece| piece.vcn >= attribute.first_vcn()) {
                match &piece.backing {
                    Backing::Clusters(lcn) => {
                        owners.mark(*lcn, piece.length, &attribute.place(), report);
                    }
                    Backing::Sparse => {}
                    Backing::Bad(error) => {
                        failed = failed.or_else(|| Some(error.clone().at(attribute.place())));
                    }
                }
            }
        }
        failed.map_or(Ok(()), Err)
    }

    /// Records in use must be marked so in the bitmap of `$MFT`, and no others.
    fn check_marks(
        &self,
        names: &Names,
        report: &mut dyn FnMut(Finding),
        interrupt: &Interrupt,
    ) -> Result<()> {
        let node = self.node(record::MFT)?;
        let Some(stream) = self.stream(&node, kind::BITMAP, &[])? else {
            let error = Error::corrupt(Problem::Missing, "$MFT has no bitmap");
            report(Finding::from_error("ntfs-record-bitmap", &error.at(place(record::MFT))));
            return Ok(());
        };
        let bitmap = self.disk(stream, "$MFT bitmap");
        let (mut unmarked, mut free) = ((0u64, None), (0u64, None));
        for number in 0..names.known() {
            if number % 32768 == 0 {
                interrupt.check()?;
                names.read_marks(bitmap.as_ref(), number);
            }
            match (names.is_used(number), names.is_marked(number)) {
                (true, false) => note(&mut unmarked, number),
                (false, true) if number >= RESERVED => note(&mut free, number),
                _ => {}
            }
        }
        if let (count, Some(first)) = unmarked {
            let text = format!("{count} MFT records are in use and free by the bitmap of $MFT");
            report(Finding::error("ntfs-record-unmarked", text).at(place(first)));
        }
        if let (count, Some(first)) = free {
            let text = format!("{count} MFT records are free and in use by the bitmap of $MFT");
            report(Finding::warning("ntfs-record-leak", text).at(place(first)));
        }
        Ok(())
    }
}

fn note((count, first): &mut (u64, Option<u64>), number: u64) {
    *count = count.saturating_add(1);
    first.get_or_insert(number);
}

/// Whether two records that were fixed up are the same but for their update sequences.
fn same_but_sequence(own: &[u8], copy: &[u8]) -> bool {
    let start = adit_core::bytes::u16_le(own, 4).map_or(0, usize::from);
    let count = adit_core::bytes::u16_le(own, 6).map_or(0, usize::from);
    let end = count.saturating_mul(2).saturating_add(start);
    let pairs = own.iter().zip(copy).enumerate();
    let differ = |(at, (a, b)): (usize, (&u8, &u8))| a != b && !(start..end).contains(&at);
    own.len() == copy.len() && !pairs.into_iter().any(differ)
}

/// One bit each, if the limits allow so many.
fn bits(count: u64, bytes_max: u64) -> Option<Vec<u8>> {
    let bytes = count.div_ceil(8);
    (bytes <= bytes_max).then(|| vec![0; narrow(bytes).unwrap_or(0)])
}

/// Sets a bit; whether it was set before.
fn set(bits: &mut [u8], at: u64) -> bool {
    let mask = 1u8 << (at % 8);
    let Some(byte) = narrow(at / 8).and_then(|at| bits.get_mut(at)) else { return false };
    let before = *byte & mask != 0;
    *byte |= mask;
    before
}

fn is_set(bits: &[u8], at: u64) -> bool {
    narrow(at / 8).and_then(|at| bits.get(at)).is_some_and(|byte| byte >> (at % 8) & 1 == 1)
}

/// How many bits there is room for.
fn room(bits: &[u8]) -> u64 {
    wide(bits.len()).saturating_mul(8)
}
