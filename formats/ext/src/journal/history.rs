//! The log read from end to end, whatever of it was written home long ago.

use super::read_log;
use super::scan::Log;
use crate::layout::{JOURNAL_MAGIC, JournalHeader};
use adit_core::{Interrupt, Result};

/// A block of tags.
const DESCRIPTOR: u32 = 1;

/// Is given a transaction, the number of a block, and what it held then.
type SeeCopy<'a> = &'a mut dyn FnMut(u32, u64, &[u8]) -> Result<()>;

/// Calls `see` with every block that a descriptor of the log says it has a copy of, whole or not
/// long overwritten: transaction, block, bytes.
pub(crate) fn each_copy(log: &Log, interrupt: &Interrupt, see: SeeCopy<'_>) -> Result<()> {
    for number in log.raw.first..log.end {
        interrupt.check()?;
        let Ok(bytes) = read_log(log.disk.as_ref(), number, log.block_size) else { continue };
        let Ok(header) = JournalHeader::read(&bytes) else { continue };
        let is_descriptor = header.magic == JOURNAL_MAGIC && header.block_type == DESCRIPTOR;
        if !is_descriptor || !log.verify_tail(&bytes) {
            continue;
        }
        let mut at = number;
        for tag in log.tags(&bytes) {
            at = at.saturating_add(1);
            if at >= log.end {
                at = log.raw.first;
            }
            let Ok(mut data) = read_log(log.disk.as_ref(), at, log.block_size) else { continue };
            // A later transaction may have written over it.
            let reused = JournalHeader::read(&data).is_ok_and(|head| head.magic == JOURNAL_MAGIC);
            if reused || !log.verify_data(&tag, header.sequence, &data) {
                continue;
            }
            if tag.escaped
                && let Some(head) = data.get_mut(..4)
            {
                head.copy_from_slice(&JOURNAL_MAGIC.to_be_bytes());
            }
            see(header.sequence, tag.block, &data)?;
        }
    }
    Ok(())
}
