//! Where new bytes go, and what becomes of old ones.

use super::state::{Here, State};
use crate::entry::{RawEntry, Unit};
use crate::layout::entry;
use crate::power::Power;
use adit_core::{Error, Fresh, Placement, Problem, Result, Unmap};
use std::ops::Range;

/// What a write to a byte of the disk needs.
enum Want {
    /// Nothing: the byte is stored here, for this disk alone.
    InPlace { host: u64, until: u64 },
    /// The cluster is there; its bytes become visible. Units: bytes; `until` of the disk.
    Reuse { host: u64, until: u64, token: u64 },
    /// A new cluster; of an empty one only the part that is written need be filled.
    New { whole: bool },
}

/// Set in a token if the clusters are new: an aligned offset leaves the bit free.
const NEW: u64 = 1;

impl State {
    /// Decides where the first bytes of `range` go. `data` is the index of the data's file.
    pub(crate) fn place(&mut self, range: Range<u64>, data: usize) -> Result<Placement> {
        let placed =
            |length: u64, offset: u64, fresh| Placement { length, file: data, offset, fresh };
        match self.want(range.start)? {
            Want::InPlace { host, until } => {
                let end = self.in_place_until(host, range.start, until, range.end)?;
                Ok(placed(end.saturating_sub(range.start), host, None))
            }
            Want::Reuse { host, until, token } => {
                self.own_table(self.header.l1_span().index(range.start))?;
                let until = self.reuse_until(token, range.start, until, range.end)?;
                let end = range.end.min(until);
                let covers = self.around(range.start..end);
                let fresh = Fresh { covers, reads_zero: false, token };
                Ok(placed(end.saturating_sub(range.start), host, Some(fresh)))
            }
            Want::New { whole } => self.place_new(range, whole, data),
        }
    }

    fn place_new(&mut self, range: Range<u64>, whole: bool, data: usize) -> Result<Placement> {
        let cluster = self.cluster();
        let l1_index = self.header.l1_span().index(range.start);
        self.own_table(l1_index)?;
        let first = cluster.index(range.start);
        let table_end = self.header.l1_span().times(l1_index.saturating_add(1));
        let wanted_end = cluster.count(range.end.min(table_end));
        // Whether each cluster must be filled whole.
        let mut last_whole = whole;
        let mut end = first.saturating_add(1);
        while end < wanted_end {
            match self.want(cluster.times(end)) {
                Ok(Want::New { whole }) => last_whole = whole,
                _ => break,
            }
            end = end.saturating_add(1);
        }
        let wanted = end.saturating_sub(first);
        let run = self.counts.take(wanted)?;
        let taken = run.end.saturating_sub(run.start);
        if taken < wanted {
            let last = cluster.times(first.saturating_add(taken).saturating_sub(1));
            last_whole = matches!(self.want(last)?, Want::New { whole: true });
        }
        let host = cluster.times(run.start);
        let stop = range.end.min(cluster.times(first.saturating_add(taken)));
        let parts = self.around(range.start..stop);
        let start = if whole { cluster.floor(range.start) } else { parts.start };
        let end = if last_whole { cluster.times(cluster.count(stop)) } else { parts.end };
        Ok(Placement {
            length: stop.saturating_sub(range.start),
            file: data,
            offset: host.saturating_add(cluster.within(range.start)),
            fresh: Some(Fresh { covers: start..end, reads_zero: false, token: host | NEW }),
        })
    }

    /// Whole subclusters around a range.
    fn around(&self, range: Range<u64>) -> Range<u64> {
        let part = self.subcluster();
        part.floor(range.start)..part.times(part.count(range.end))
    }

    fn want(&self, guest: u64) -> Result<Want> {
        let Some(here) = self.find(guest)? else {
            return Ok(self.empty(guest));
        };
        let start = self.cluster().floor(guest);
        let until = start.saturating_add(here.piece.end);
        let within = self.cluster().within(guest);
        let host = here.raw.word & entry::OFFSET;
        let reuse = || Want::Reuse { host: host.saturating_add(within), until, token: host };
        Ok(match here.unit {
            Unit::Bad(error) => return Err(error),
            Unit::Data(at) if here.owned => {
                let skip = within.saturating_sub(here.piece.start);
                Want::InPlace { host: at.saturating_add(skip), until }
            }
            Unit::Unallocated | Unit::ZeroPlain if host == 0 => self.empty(guest),
            Unit::Unallocated | Unit::ZeroAllocated if here.owned => {
                if !self.data_file() && self.counts.is_table(self.cluster().index(host)) {
                    let detail = format!("a data cluster at {host:#x} lies over a table");
                    return Err(Error::corrupt(Problem::Overlaps, detail));
                }
                reuse()
            }
            _ => Want::New { whole: true },
        })
    }

    /// A cluster that has no place yet; in a data file its place is its own offset.
    fn empty(&self, guest: u64) -> Want {
        if !self.data_file() {
            return Want::New { whole: false };
        }
        let start = self.cluster().floor(guest);
        let until = start.saturating_add(self.cluster().size());
        Want::Reuse { host: guest, until, token: start }
    }

    /// How far bytes that are in place go on side by side.
    fn in_place_until(&self, host: u64, guest: u64, until: u64, end: u64) -> Result<u64> {
        let mut until = until;
        while until < end {
            match self.want(until) {
                Ok(Want::InPlace { host: next, until: further })
                    if next == host.saturating_add(until.saturating_sub(guest)) =>
                {
                    until = further;
                }
                _ => break,
            }
        }
        Ok(until.min(end))
    }

    /// How far clusters that are there already go on side by side, in one L2 table.
    fn reuse_until(&self, token: u64, guest: u64, until: u64, end: u64) -> Result<u64> {
        let span = self.header.l1_span();
        let start = self.cluster().floor(guest);
        let mut until = until;
        while until < end && span.index(until) == span.index(guest) {
            let level = token.saturating_add(until.saturating_sub(start));
            match self.want(until) {
                Ok(Want::Reuse { host, until: further, .. }) if host == level => until = further,
                _ => break,
            }
        }
        Ok(until)
    }

    /// The clusters of a fresh place hold what they should: reads find them from now on.
    pub(crate) fn placed(&mut self, fresh: &Fresh) -> Result<()> {
        let done = self.make_visible(fresh);
        if done.is_err() {
            self.abandon(fresh);
        }
        done
    }

    fn make_visible(&mut self, fresh: &Fresh) -> Result<()> {
        let cluster = self.cluster();
        let host = fresh.token & !NEW;
        let first = cluster.index(fresh.covers.start);
        let l1_index = self.header.l1_span().index(fresh.covers.start);
        self.own_table(l1_index)?;
        let guests = first..cluster.count(fresh.covers.end);
        // What may fail comes first.
        let mut olds = Vec::new();
        for index in guests.clone() {
            let guest = cluster.times(index);
            let old = self.find(guest)?.map_or(RawEntry { word: 0, bitmap: 0 }, |here| here.raw);
            self.set(guest, old)?;
            olds.push(old);
        }
        for (index, old) in guests.zip(olds) {
            let guest = cluster.times(index);
            let at = host.saturating_add(cluster.times(index.saturating_sub(first)));
            let mask = self.mask(guest, &fresh.covers);
            let new = fresh.token & NEW != 0;
            // Of an old cluster that was replaced nothing is kept: it was filled whole.
            let replaced = new && (old.word & (entry::OFFSET | entry::COMPRESSED)) != 0;
            let (data, zero) = match replaced {
                true => (0, 0),
                false => (old.bitmap & LOW, old.bitmap.wrapping_shr(32)),
            };
            let bitmap = match self.extended() {
                true => (data | mask) | (zero & !mask).wrapping_shl(32),
                false => 0,
            };
            self.set(guest, RawEntry { word: at | entry::COPIED, bitmap })?;
            if replaced {
                self.let_go(old);
            }
        }
        Ok(())
    }

    /// The subclusters of the cluster at `guest` that lie in a range.
    fn mask(&self, guest: u64, range: &Range<u64>) -> u64 {
        let part = self.subcluster();
        let end = guest.saturating_add(self.cluster().size());
        let first = part.index(range.start.clamp(guest, end).saturating_sub(guest));
        let last = part.count(range.end.clamp(guest, end).saturating_sub(guest));
        low_bits(last) & !low_bits(first)
    }

    /// Nothing will ever point to a fresh place.
    pub(crate) fn abandon(&mut self, fresh: &Fresh) {
        if fresh.token & NEW != 0 {
            let start = fresh.token & !NEW;
            let skip = self.cluster().within(fresh.covers.start);
            let length = fresh.covers.end.saturating_sub(fresh.covers.start).saturating_add(skip);
            let run = self.clusters(start, length);
            self.counts.drop_clusters(run);
        }
    }

    /// Lets go of the first bytes of `range`; gives how many, and whether that is done. Without
    /// anything below, or where that is zero up to `zero_until`, nothing reads as zeros.
    pub(crate) fn unmap(
        &mut self,
        range: Range<u64>,
        why: Unmap,
        below: Below,
    ) -> Result<(u64, bool)> {
        self.is_sound()?;
        let part = self.subcluster();
        let size = self.header.size_bytes;
        let span = self.header.l1_span();
        let l1_index = span.index(range.start);
        let table_end = span.times(l1_index.saturating_add(1));
        let stop = match range.end >= size {
            true => part.times(part.count(range.end)),
            false => range.end,
        };
        if self.table(l1_index)?.is_none() {
            let end = table_end.min(range.end);
            let nothing = why == Unmap::Discard || below.is_zero(range.start..end);
            if nothing {
                return Ok((self.empty_until(l1_index, &range, why, below), true));
            }
        }
        if !part.divides(range.start) || part.floor(stop) <= range.start {
            let end = part.times(part.index(range.start).saturating_add(1)).min(range.end);
            let zero = why == Unmap::Discard || self.reads_zero(range.start, end, below)?;
            return Ok((end.saturating_sub(range.start), zero));
        }
        let stop = part.floor(stop).min(table_end);
        let mut at = range.start;
        while at < stop {
            let end = stop.min(self.cluster().floor(at).saturating_add(self.cluster().size()));
            if !self.unmap_in_cluster(at..end, why, below)? {
                if at == range.start {
                    return Ok((end.min(range.end).saturating_sub(at), false));
                }
                break;
            }
            at = end;
        }
        Ok((at.min(range.end).saturating_sub(range.start), true))
    }

    /// How far there are no L2 tables, and none are needed.
    fn empty_until(&self, l1_index: u64, range: &Range<u64>, why: Unmap, below: Below) -> u64 {
        let span = self.header.l1_span();
        let mut next = l1_index.saturating_add(1);
        while span.times(next) < range.end && self.l1_entry(next) == 0 {
            let end = span.times(next.saturating_add(1)).min(range.end);
            if why == Unmap::Zero && !below.is_zero(range.start..end) {
                break;
            }
            next = next.saturating_add(1);
        }
        span.times(next).min(range.end).saturating_sub(range.start)
    }

    fn reads_zero(&self, start: u64, end: u64, below: Below) -> Result<bool> {
        Ok(match self.find(start)? {
            None => below.is_zero(start..end),
            Some(here) => match here.unit {
                Unit::ZeroPlain | Unit::ZeroAllocated => true,
                Unit::Unallocated => below.is_zero(start..end),
                _ => false,
            },
        })
    }

    /// Whole subclusters of one cluster; says whether it could be done.
    fn unmap_in_cluster(&mut self, range: Range<u64>, why: Unmap, below: Below) -> Result<bool> {
        let nothing = RawEntry { word: 0, bitmap: 0 };
        let here = self.find(range.start)?;
        let old = here.as_ref().map_or(nothing, |here| here.raw);
        if let Some(Here { unit: Unit::Bad(error), .. }) = here {
            return Err(error);
        }
        let guest = self.cluster().floor(range.start);
        let mask = self.mask(guest, &range);
        let full = range.end.saturating_sub(range.start) == self.cluster().size();
        let packed = old.word & entry::COMPRESSED != 0;
        let host = old.word & entry::OFFSET;
        if !packed && host == 0 && (why == Unmap::Discard || below.is_zero(range.clone())) {
            return Ok(true);
        }
        if below.writes_through {
            return Ok(why == Unmap::Discard);
        }
        if packed && !full {
            return Ok(why == Unmap::Discard);
        }
        if self.header.version < 3 {
            // Nothing in the entry can hide what is below.
            if !below.is_zero(range) {
                return Ok(why == Unmap::Discard);
            }
            self.set(guest, nothing)?;
            self.let_go(old);
            return Ok(true);
        }
        if !self.extended() {
            if old.word & entry::ZERO != 0 && !packed && (host == 0 || why == Unmap::Zero) {
                return Ok(true);
            }
            self.set(guest, RawEntry { word: entry::ZERO, bitmap: 0 })?;
            self.let_go(old);
            return Ok(true);
        }
        let (data, zero) = if packed { (0, 0) } else { (old.bitmap & LOW, old.bitmap >> 32) };
        let (left, zero) = (data & !mask, zero | mask);
        let gone = left == 0;
        let word = if gone { 0 } else { old.word };
        self.set(guest, RawEntry { word, bitmap: left | zero.wrapping_shl(32) })?;
        if gone {
            self.let_go(old);
        }
        Ok(true)
    }
}

/// What shows through where nothing is stored.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Below {
    /// Up to here, from where a range begins, it reads as zeros.
    pub(crate) zero_until: u64,
    /// Zeros must be written: the data file alone is the disk.
    pub(crate) writes_through: bool,
}

impl Below {
    pub(crate) fn is_zero(self, range: Range<u64>) -> bool {
        range.end <= self.zero_until && !self.writes_through
    }
}

const LOW: u64 = 0xffff_ffff;

/// `count` ones, at most 32.
fn low_bits(count: u64) -> u64 {
    Power::new(u32::try_from(count.min(32)).unwrap_or(32)).size().saturating_sub(1)
}
