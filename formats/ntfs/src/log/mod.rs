//! `$LogFile`: was the volume left cleanly, and if not, how much did the log still hold?
//!
//! Nothing is replayed. `ring` follows the records, `pending` finds out which of their changes
//! are not on the disk yet, or should be taken back. Source: the layouts of restart pages and log
//! records as the public descriptions of the Log File Service give them.

mod pending;
mod ring;
mod tell;

use crate::fixup;
use crate::layout::{LogClientRaw, RestartAreaRaw, RestartPageRaw, kind, record};
use crate::ntfs::Ntfs;
use crate::record::place;
use adit_core::bytes::narrow;
use adit_core::{Disk, DiskExt, Error, Problem, Result};
pub use pending::{Pending, Stale};
use ring::Reader;
use std::sync::Arc;

/// Unit: bytes.
const PAGE_BYTES: u64 = 4096;

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
        /// What these records, and earlier ones still needed, say of the rest of the volume.
        pending: Pending,
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
        let (records, more, pending) = self.follow(&restart, &log);
        let version = (restart.page.major, restart.page.minor);
        Ok(LogState::Unfinished { version, records, more, pending })
    }
}

impl Ntfs {
    /// Follows the records from the oldest that is still needed: how many there are after the
    /// last checkpoint, whether they go on where they could not be followed, what is pending.
    fn follow(&self, restart: &Restart, log: &Arc<dyn Disk>) -> (u64, bool, Pending) {
        let Some(client) = &restart.client else { return (0, true, Pending::default()) };
        let mut reader = Reader::new(restart, log);
        let (mut lsn, mut count, mut steps) = (client.restart_lsn, 0u64, 0u64);
        if client.oldest_lsn < lsn && reader.record(client.oldest_lsn).is_some() {
            lsn = client.oldest_lsn;
        }
        let mut scan = pending::Scan::new(self);
        // The restart area knows of a later record than could be reached.
        let more = loop {
            let Some((raw, data, next)) = reader.record(lsn) else {
                break lsn <= restart.area.current_lsn;
            };
            if raw.kind != 2 && lsn > client.restart_lsn {
                count = count.saturating_add(1);
            }
            if raw.kind == 1 {
                scan.see(&raw, &data);
            }
            steps = steps.saturating_add(1);
            // Numbers only grow: a log that leads back ends here.
            if steps >= self.limits().list_steps_max || next <= lsn {
                break true;
            }
            lsn = next;
        };
        (count, more, scan.finish())
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
}
