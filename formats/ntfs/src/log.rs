//! `$LogFile`: was the volume left cleanly, and if not, how much did the log still hold?
//!
//! Nothing is replayed. Source: the layouts of restart pages and log records as the public
//! descriptions of the Log File Service give them.

use crate::fixup;
use crate::layout::{LogClientRaw, LogRecordRaw, RestartAreaRaw, RestartPageRaw, kind, record};
use crate::ntfs::Ntfs;
use crate::record::place;
use adit_core::bytes::narrow;
use adit_core::{Disk, DiskExt, Error, Problem, Result};
use std::sync::Arc;

/// Unit: bytes.
const PAGE_BYTES: u64 = 4096;

/// Offset of a page's copy of the last LSN, and of its first record.
const HEADER_BYTES: u64 = 0x30;

/// What `$LogFile` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogState {
    /// All ones: it was reset, and nobody used it since.
    Empty,
    /// The last user finished.
    Clean,
    /// The last user did not.
    Unfinished {
        /// Version of the log, major and minor.
        version: (u16, u16),
        /// Records after the last checkpoint that could be followed.
        records: u64,
        /// Whether the log goes on where it could not be followed.
        more: bool,
    },
}

impl Ntfs {
    /// Reads the restart pages of `$LogFile` and follows its records from the last checkpoint.
    ///
    /// Errors: `Corrupt` where neither restart page can be read.
    pub fn log_state(&self) -> Result<LogState> {
        let node = self.node(record::LOG_FILE)?;
        let missing =
            || Error::corrupt(Problem::Missing, "$LogFile has no data").at(place(record::LOG_FILE));
        let stream = self.stream(&node, kind::DATA, &[])?.ok_or_else(missing)?;
        let log = self.disk(stream, "$LogFile");
        let pages = [read_page(&log, 0), read_page(&log, PAGE_BYTES)];
        let empty =
            |page: &Result<Vec<u8>>| page.as_ref().is_ok_and(|p| p.iter().all(|b| *b == 0xff));
        if pages.iter().all(empty) {
            return Ok(LogState::Empty);
        }
        let mut error = None;
        let mut newest: Option<Restart> = None;
        for page in pages {
            match page.and_then(|page| Restart::parse(page, log.size_bytes())) {
                Ok(restart) => {
                    let newer = |old: &Restart| old.area.current_lsn < restart.area.current_lsn;
                    if newest.as_ref().is_none_or(newer) {
                        newest = Some(restart);
                    }
                }
                Err(failed) => error = error.or(Some(failed)),
            }
        }
        let Some(restart) = newest else {
            return Err(error
                .unwrap_or_else(missing)
                .at(place(record::LOG_FILE).field("$LogFile")));
        };
        if restart.is_clean() {
            return Ok(LogState::Clean);
        }
        let (records, more) = restart.follow(&log, self.limits().list_steps_max);
        let version = (restart.page.major, restart.page.minor);
        Ok(LogState::Unfinished { version, records, more })
    }
}

fn read_page(log: &Arc<dyn Disk>, offset: u64) -> Result<Vec<u8>> {
    log.read_vec(offset, narrow(PAGE_BYTES).unwrap_or(4096))
}

/// A restart page that was checked.
#[derive(Debug)]
struct Restart {
    page: RestartPageRaw,
    area: RestartAreaRaw,
    client: Option<LogClientRaw>,
    file_bytes: u64,
}

impl Restart {
    fn parse(mut bytes: Vec<u8>, file_bytes: u64) -> Result<Restart> {
        fixup::apply(&mut bytes, &[*b"RSTR", *b"CHKD"])?;
        let page = RestartPageRaw::read(&bytes)?;
        let start = usize::from(page.restart_offset);
        let rest = bytes.get(start..).unwrap_or_default();
        let area = RestartAreaRaw::read(rest)?;
        let clients = rest.get(usize::from(area.client_array_offset)..).unwrap_or_default();
        let used = area.client_in_use_list != 0xffff;
        let client = if used { LogClientRaw::read(clients).ok() } else { None };
        let file_bytes = area.file_bytes.min(file_bytes);
        Ok(Restart { page, area, client, file_bytes })
    }

    fn is_clean(&self) -> bool {
        self.area.client_in_use_list == 0xffff || self.area.flags & 2 != 0
    }

    /// Bits of an LSN that are an offset in the log. Unit: eight bytes.
    fn offset_bits(&self) -> u32 {
        64u32.saturating_sub(self.area.sequence_number_bits)
    }

    /// First byte of the ring of log pages.
    fn ring_start(&self) -> u64 {
        // Before it stand two restart pages and the pages that are written twice.
        let pages = if self.page.major >= 2 { 0x22 } else { 4 };
        PAGE_BYTES.saturating_mul(pages)
    }

    /// Counts records from the last checkpoint on; tells whether the end was not the log's own.
    fn follow(&self, log: &Arc<dyn Disk>, steps_max: u64) -> (u64, bool) {
        let Some(client) = &self.client else { return (0, true) };
        let (mut lsn, mut count) = (client.restart_lsn, 0u64);
        let mut reader = Reader { restart: self, log, held: None };
        loop {
            match reader.record(lsn) {
                Some((raw, next)) => {
                    if raw.kind != 2 && lsn != client.restart_lsn {
                        count = count.saturating_add(1);
                    }
                    if count >= steps_max {
                        return (count, true);
                    }
                    lsn = next;
                }
                // The restart area knows of a later record than could be reached.
                None => return (count, lsn <= self.area.current_lsn),
            }
        }
    }
}

/// Follows log records.
#[derive(Debug)]
struct Reader<'a> {
    restart: &'a Restart,
    log: &'a Arc<dyn Disk>,
    held: Option<(u64, Vec<u8>)>,
}

impl Reader<'_> {
    /// The record with this number, and the number the next one would have.
    fn record(&mut self, lsn: u64) -> Option<(LogRecordRaw, u64)> {
        let bits = self.restart.offset_bits();
        let mask = 1u64.checked_shl(bits)?.checked_sub(1)?;
        let offset = (lsn & mask).checked_mul(8)?;
        let sequence = lsn.checked_shr(bits)?;
        let raw = LogRecordRaw::read(&self.bytes(offset)?).ok()?;
        if raw.lsn != lsn {
            return None;
        }
        let (next, wraps) = self.after(offset, u64::from(raw.data_length))?;
        let sequence = sequence.checked_add(wraps)?;
        let lsn = sequence.checked_shl(bits)? | ((next / 8) & mask);
        Some((raw, lsn))
    }

    fn bytes(&mut self, offset: u64) -> Option<Vec<u8>> {
        let within = offset.checked_rem(PAGE_BYTES)?;
        let start = offset.checked_sub(within)?;
        let end = start.checked_add(PAGE_BYTES)?;
        if start < self.restart.ring_start() || end > self.restart.file_bytes {
            return None;
        }
        if self.held.as_ref().is_none_or(|(at, _)| *at != start) {
            let mut page = read_page(self.log, start).ok()?;
            fixup::apply(&mut page, &[*b"RCRD"]).ok()?;
            self.held = Some((start, page));
        }
        let (_, page) = self.held.as_ref()?;
        let within = narrow(within)?;
        page.get(within..within.checked_add(LogRecordRaw::SIZE)?).map(<[u8]>::to_vec)
    }

    /// Where the record after one at `offset` starts, and how often the ring was closed.
    fn after(&self, offset: u64, data: u64) -> Option<(u64, u64)> {
        let first = u64::from(self.restart.area.page_data_offset).clamp(0x30, PAGE_BYTES / 2);
        let head = u64::from(self.restart.area.record_header_length).max(HEADER_BYTES);
        let (mut at, mut wraps) = (offset, 0u64);
        let mut left = head.checked_add(data)?.checked_next_multiple_of(8)?;
        if left > self.restart.file_bytes {
            return None;
        }
        loop {
            let page = at.checked_sub(at.checked_rem(PAGE_BYTES)?)?;
            let end = page.checked_add(PAGE_BYTES)?;
            let here = end.checked_sub(at)?.min(left);
            at = at.checked_add(here)?;
            left = left.checked_sub(here)?;
            // A record's header does not pass a page's end.
            if left == 0 && end.checked_sub(at)? >= head {
                return Some((at, wraps));
            }
            at = end;
            if end.checked_add(PAGE_BYTES)? > self.restart.file_bytes {
                at = self.restart.ring_start();
                wraps = wraps.checked_add(1)?;
            }
            at = at.checked_add(first)?;
            if left == 0 {
                return Some((at, wraps));
            }
        }
    }
}
