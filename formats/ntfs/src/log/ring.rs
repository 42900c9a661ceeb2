//! The ring of log pages: from a record to the next.

use super::{PAGE_BYTES, Restart, read_page};
use crate::fixup;
use crate::layout::LogRecordRaw;
use adit_core::Disk;
use adit_core::bytes::{narrow, u64_le};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Offset of a page's copy of the last LSN, and of its first record. Unit: bytes.
const HEADER_BYTES: u64 = 0x30;

/// Longest record whose data is looked at; Windows writes far shorter ones. Unit: bytes.
const DATA_BYTES_MAX: u64 = 256 << 10;

/// Where a page tells what is in it: its last number or place, and the last that ends in it.
const LAST_OR_PLACE: usize = 0x08;
const LAST_END: usize = 0x20;

/// Where parts of a record stand, and how long they are. Unit: bytes.
type Spans = Vec<(u64, u64)>;

/// Follows log records.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    restart: &'a Restart,
    log: &'a Arc<dyn Disk>,
    held: Option<(u64, Vec<u8>)>,
    /// Pages that were written beside the ring first: by their place in it, the newest copy.
    copies: BTreeMap<u64, (u64, Vec<u8>)>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(restart: &'a Restart, log: &'a Arc<dyn Disk>) -> Self {
        let mut reader = Reader { restart, log, held: None, copies: BTreeMap::new() };
        reader.read_copies();
        reader
    }

    /// The pages between the restart pages and the ring hold the newest state of pages of it.
    fn read_copies(&mut self) {
        let mut at = PAGE_BYTES.saturating_mul(2);
        while at < self.restart.ring_start() {
            let page = self.page_at(at);
            let told = page.and_then(|page| {
                Some((u64_le(&page, LAST_OR_PLACE)?, u64_le(&page, LAST_END)?, page))
            });
            if let Some((place, last, page)) = told {
                let fits = place.checked_rem(PAGE_BYTES) == Some(0) && self.in_ring(place);
                let newer = |held: &(u64, Vec<u8>)| held.0 < last;
                if fits && self.copies.get(&place).is_none_or(newer) {
                    self.copies.insert(place, (last, page));
                }
            }
            at = at.saturating_add(PAGE_BYTES);
        }
    }

    /// The record with this number, its data, and the number the next one would have.
    pub(super) fn record(&mut self, lsn: u64) -> Option<(LogRecordRaw, Vec<u8>, u64)> {
        let bits = self.restart.offset_bits();
        let mask = 1u64.checked_shl(bits)?.checked_sub(1)?;
        let offset = (lsn & mask).checked_mul(8)?;
        let sequence = lsn.checked_shr(bits)?;
        let raw = LogRecordRaw::read(&self.header(offset)?).ok()?;
        if raw.lsn != lsn {
            return None;
        }
        let (next, wraps, spans) = self.after(offset, u64::from(raw.data_length))?;
        let sequence = sequence.checked_add(wraps)?;
        let lsn = sequence.checked_shl(bits)? | ((next / 8) & mask);
        let data = self.data(&spans, u64::from(raw.data_length));
        Some((raw, data, lsn))
    }

    fn in_ring(&self, start: u64) -> bool {
        let end = start.saturating_add(PAGE_BYTES);
        start >= self.restart.ring_start() && end <= self.restart.file_bytes
    }

    fn page_at(&self, start: u64) -> Option<Vec<u8>> {
        let mut page = read_page(self.log, start).ok()?;
        fixup::apply(&mut page, &[*b"RCRD"]).ok()?;
        Some(page)
    }

    /// A page of the ring, or the newer copy beside it.
    fn page(&mut self, start: u64) -> Option<&[u8]> {
        if !self.in_ring(start) {
            return None;
        }
        if self.held.as_ref().is_none_or(|(at, _)| *at != start) {
            let own = self.page_at(start);
            let last = own.as_ref().and_then(|page| u64_le(page, LAST_END));
            let copy =
                self.copies.get(&start).filter(|(newest, _)| last.is_none_or(|l| l < *newest));
            let page = copy.map(|(_, page)| page.clone()).or(own)?;
            self.held = Some((start, page));
        }
        self.held.as_ref().map(|(_, page)| page.as_slice())
    }

    fn header(&mut self, offset: u64) -> Option<Vec<u8>> {
        let within = offset.checked_rem(PAGE_BYTES)?;
        let page = self.page(offset.checked_sub(within)?)?;
        let within = narrow(within)?;
        page.get(within..within.checked_add(LogRecordRaw::SIZE)?).map(<[u8]>::to_vec)
    }

    /// A record's data; empty where it is too long or a page of it cannot be read.
    fn data(&mut self, spans: &[(u64, u64)], length: u64) -> Vec<u8> {
        let head = self.head_bytes();
        let mut all = Vec::new();
        if length > DATA_BYTES_MAX {
            return all;
        }
        for (start, bytes) in spans {
            let within = start.checked_rem(PAGE_BYTES).unwrap_or(0);
            let range = narrow(within).zip(narrow(within.saturating_add(*bytes)));
            let part = range.and_then(|(from, to)| {
                self.page(start.saturating_sub(within))?.get(from..to).map(<[u8]>::to_vec)
            });
            let Some(part) = part else { return Vec::new() };
            all.extend_from_slice(&part);
        }
        let end = narrow(head.saturating_add(length)).unwrap_or(0);
        all.get(narrow(head).unwrap_or(0)..end).unwrap_or_default().to_vec()
    }

    fn head_bytes(&self) -> u64 {
        u64::from(self.restart.area.record_header_length).max(HEADER_BYTES)
    }

    /// Where the record after one at `offset` starts, how often the ring was closed, and the
    /// places of the record itself.
    fn after(&self, offset: u64, data: u64) -> Option<(u64, u64, Spans)> {
        let first = u64::from(self.restart.area.page_data_offset).clamp(0x30, PAGE_BYTES / 2);
        let head = self.head_bytes();
        let (mut at, mut wraps) = (offset, 0u64);
        let mut left = head.checked_add(data)?.checked_next_multiple_of(8)?;
        if left > self.restart.file_bytes {
            return None;
        }
        let mut spans = Vec::new();
        loop {
            let page = at.checked_sub(at.checked_rem(PAGE_BYTES)?)?;
            let end = page.checked_add(PAGE_BYTES)?;
            let here = end.checked_sub(at)?.min(left);
            spans.push((at, here));
            at = at.checked_add(here)?;
            left = left.checked_sub(here)?;
            // A record's header does not pass a page's end.
            if left == 0 && end.checked_sub(at)? >= head {
                return Some((at, wraps, spans));
            }
            at = end;
            if end.checked_add(PAGE_BYTES)? > self.restart.file_bytes {
                at = self.restart.ring_start();
                wraps = wraps.checked_add(1)?;
            }
            at = at.checked_add(first)?;
            if left == 0 {
                return Some((at, wraps, spans));
            }
        }
    }
}
