//! Which changes of the log are not on the disk yet, and which would be taken back.
//!
//! MFT records and index blocks carry the number of the last record that changed them: a change
//! with a later number is missing from them. Bitmaps and streams carry none; there the bytes are
//! compared.

use crate::layout::{LogChangeRaw, LogRecordRaw, kind, log_operation as op, record};
use crate::ntfs::Ntfs;
use crate::runlist::{Backing, Piece};
use crate::stream::Content;
use adit_core::DiskExt;
use adit_core::bytes::{narrow, u32_le, u64_le, wide};
use std::collections::{BTreeMap, BTreeSet};

/// Structures that are told apart; more are counted.
const EACH_MAX: usize = 4096;
/// Bits of bitmaps that are remembered.
const BITS_MAX: usize = 1 << 20;
/// Changes of unfinished transactions that are remembered.
const OPEN_MAX: usize = 1 << 18;

/// What is stale of one structure.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stale {
    /// Changes that are in the log and not on the disk.
    pub missing: u64,
    /// Changes of transactions that did not finish: Windows would take them back.
    pub unfinished: u64,
}

/// What the log says of the rest of the volume.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pending {
    /// MFT records, by number.
    pub records: BTreeMap<u64, Stale>,
    /// Index blocks, by their place on the volume. Unit: bytes.
    pub index_blocks: BTreeMap<u64, Stale>,
    /// Other streams, by the place of the change on the volume. Unit: bytes.
    pub streams: BTreeMap<u64, Stale>,
    /// Clusters whose mark in `$Bitmap` differs from what the log says, and how it should be.
    pub clusters: BTreeMap<u64, bool>,
    /// MFT records whose mark in the bitmap of `$MFT` differs.
    pub record_marks: BTreeMap<u64, bool>,
    /// Transactions that did not finish.
    pub transactions: u64,
    /// Changes that could not be placed, or were too many to keep.
    pub unplaced: u64,
}

impl Pending {
    /// Whether all that the log holds is on the disk, and nothing is to be taken back.
    pub fn is_empty(&self) -> bool {
        *self == Pending::default()
    }
}

/// Where a change belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Target {
    Record(u64),
    Block(u64),
    Stream(u64),
}

/// A look at every record of the log in order.
#[derive(Debug)]
pub(super) struct Scan<'a> {
    fs: &'a Ntfs,
    mft: Places,
    bitmap: Places,
    record_bitmap: Places,
    pending: Pending,
    cluster_bits: BTreeMap<u64, bool>,
    record_bits: BTreeMap<u64, bool>,
    /// By transaction that did not finish yet: what it changed.
    open: BTreeMap<u32, Vec<Target>>,
    remembered: usize,
    /// The last change of streams, by place: how it should read.
    written: BTreeMap<u64, Vec<u8>>,
}

impl<'a> Scan<'a> {
    pub(super) fn new(fs: &'a Ntfs) -> Self {
        let places = |number, kind| {
            let node = fs.node(number).ok();
            let stream = node.and_then(|node| fs.stream(&node, kind, &[]).ok().flatten());
            Places::new(stream.map(|stream| stream.content))
        };
        Scan {
            mft: places(record::MFT, kind::DATA),
            bitmap: places(record::BITMAP, kind::DATA),
            record_bitmap: places(record::MFT, kind::BITMAP),
            fs,
            pending: Pending::default(),
            cluster_bits: BTreeMap::new(),
            record_bits: BTreeMap::new(),
            open: BTreeMap::new(),
            remembered: 0,
            written: BTreeMap::new(),
        }
    }

    /// Takes the next change record.
    pub(super) fn see(&mut self, head: &LogRecordRaw, data: &[u8]) {
        let Ok(raw) = LogChangeRaw::read(data) else {
            self.unplaced();
            return;
        };
        if matches!(raw.redo, op::COMMIT | op::FORGET) {
            let done = self.open.remove(&head.transaction).map_or(0, |targets| targets.len());
            self.remembered = self.remembered.saturating_sub(done);
            return;
        }
        let changes = (op::FIRST_CHANGE..=op::LAST_CHANGE).contains(&raw.redo)
            || op::MORE_CHANGES.contains(&raw.redo);
        if !changes || raw.lcns == 0 {
            return;
        }
        let boot = self.fs.boot();
        let lcn = u64_le(data, LogChangeRaw::SIZE).filter(|lcn| *lcn < boot.clusters);
        let Some(lcn) = lcn else { return self.unplaced() };
        let within = u64::from(raw.cluster_index).saturating_mul(512);
        let at = lcn.saturating_mul(boot.cluster_bytes).saturating_add(within);
        let start = usize::from(raw.redo_offset);
        let redo = data.get(start..start.saturating_add(usize::from(raw.redo_length)));
        if matches!(raw.redo, op::SET_BITS | op::CLEAR_BITS) {
            return self.see_bits(lcn, &raw, redo.unwrap_or_default());
        }
        let target = self.target(lcn, at);
        self.remember(head.transaction, target);
        match target {
            Target::Stream(_) if raw.redo != op::UPDATE_NON_RESIDENT => self.unplaced(),
            Target::Stream(_) => {
                let skip = u64::from(raw.record_offset).saturating_add(raw.attribute_offset.into());
                self.see_bytes(at.saturating_add(skip), redo.unwrap_or_default());
            }
            _ if self.on_disk(target).is_none_or(|lsn| lsn < head.lsn) => {
                if let Some(stale) = self.stale(target) {
                    stale.missing = stale.missing.saturating_add(1);
                }
            }
            _ => {}
        }
    }

    fn unplaced(&mut self) {
        self.pending.unplaced = self.pending.unplaced.saturating_add(1);
    }

    fn target(&self, lcn: u64, at: u64) -> Target {
        let boot = self.fs.boot();
        if let Some(vcn) = self.mft.vcn(lcn) {
            let within = at.checked_rem(boot.cluster_bytes).unwrap_or(0);
            let offset = vcn.saturating_mul(boot.cluster_bytes).saturating_add(within);
            return Target::Record(offset.checked_div(boot.record_bytes).unwrap_or(0));
        }
        match self.fs.volume().read_prefix(at, 4) {
            Ok(magic) if magic == b"INDX" => Target::Block(at),
            _ => Target::Stream(at),
        }
    }

    /// The number of the last change that a structure on the disk has.
    fn on_disk(&self, target: Target) -> Option<u64> {
        let at = match target {
            Target::Record(number) => return self.fs.record(number).ok().map(|own| own.raw.lsn),
            Target::Block(at) | Target::Stream(at) => at,
        };
        u64_le(&self.fs.volume().read_prefix(at, 16).ok()?, 8)
    }

    fn stale(&mut self, target: Target) -> Option<&mut Stale> {
        let (map, key) = match target {
            Target::Record(number) => (&mut self.pending.records, number),
            Target::Block(at) => (&mut self.pending.index_blocks, at),
            Target::Stream(at) => (&mut self.pending.streams, at),
        };
        if map.len() >= EACH_MAX && !map.contains_key(&key) {
            self.pending.unplaced = self.pending.unplaced.saturating_add(1);
            return None;
        }
        Some(map.entry(key).or_default())
    }

    fn remember(&mut self, transaction: u32, target: Target) {
        if self.remembered >= OPEN_MAX {
            return self.unplaced();
        }
        self.remembered = self.remembered.saturating_add(1);
        self.open.entry(transaction).or_default().push(target);
    }

    /// The last word on each bit counts.
    fn see_bits(&mut self, lcn: u64, raw: &LogChangeRaw, redo: &[u8]) {
        let (Some(first), Some(count)) = (u32_le(redo, 0), u32_le(redo, 4)) else {
            return self.unplaced();
        };
        let of_clusters = self.bitmap.vcn(lcn).is_some();
        let of_records = self.record_bitmap.vcn(lcn).is_some();
        let bits = match (of_clusters, of_records) {
            (true, _) => &mut self.cluster_bits,
            (_, true) => &mut self.record_bits,
            _ => return self.unplaced(),
        };
        if narrow(count.into()).is_none_or(|count| bits.len().saturating_add(count) > BITS_MAX) {
            return self.unplaced();
        }
        // Bits count from the cluster of the bitmap that is named.
        let page = raw.target_vcn.saturating_mul(self.fs.boot().cluster_bytes).saturating_mul(8);
        let first = page.saturating_add(first.into());
        for bit in first..first.saturating_add(count.into()) {
            bits.insert(bit, raw.redo == op::SET_BITS);
        }
    }

    fn see_bytes(&mut self, at: u64, redo: &[u8]) {
        if self.written.len() >= EACH_MAX && !self.written.contains_key(&at) {
            return self.unplaced();
        }
        self.written.insert(at, redo.to_vec());
    }

    pub(super) fn finish(mut self) -> Pending {
        for targets in std::mem::take(&mut self.open).into_values() {
            self.pending.transactions = self.pending.transactions.saturating_add(1);
            for target in targets {
                if let Some(stale) = self.stale(target) {
                    stale.unfinished = stale.unfinished.saturating_add(1);
                }
            }
        }
        for (at, bytes) in std::mem::take(&mut self.written) {
            let held = self.fs.volume().read_prefix(at, bytes.len());
            if held.ok().as_deref() != Some(bytes.as_slice())
                && let Some(stale) = self.stale(Target::Stream(at))
            {
                stale.missing = stale.missing.saturating_add(1);
            }
        }
        let clusters = std::mem::take(&mut self.cluster_bits);
        self.pending.clusters = self.differing(clusters, record::BITMAP, kind::DATA);
        let records = std::mem::take(&mut self.record_bits);
        self.pending.record_marks = self.differing(records, record::MFT, kind::BITMAP);
        self.pending
    }

    /// The bits that are not on the disk as they should be.
    fn differing(
        &self,
        mut bits: BTreeMap<u64, bool>,
        number: u64,
        kind: u32,
    ) -> BTreeMap<u64, bool> {
        let open = || {
            let node = self.fs.node(number).ok()?;
            let stream = self.fs.stream(&node, kind, &[]).ok()??;
            Some(self.fs.disk(stream, "bitmap"))
        };
        let Some(bitmap) = (!bits.is_empty()).then(open).flatten() else { return bits };
        let pages: BTreeSet<u64> = bits.keys().map(|bit| bit / (4096 * 8)).collect();
        for page in pages {
            let bytes = bitmap.read_prefix(page.saturating_mul(4096), 4096).unwrap_or_default();
            let first = page.saturating_mul(4096 * 8);
            let end = wide(bytes.len()).saturating_mul(8).saturating_add(first);
            for bit in first..end {
                let at = narrow(bit.saturating_sub(first) / 8).unwrap_or(usize::MAX);
                let set = bytes.get(at).is_some_and(|byte| byte >> (bit % 8) & 1 == 1);
                if bits.get(&bit) == Some(&set) {
                    bits.remove(&bit);
                }
            }
        }
        bits
    }
}

/// The clusters of a stream by their place on the volume: first, how many, and the stream's own.
#[derive(Debug)]
struct Places(Vec<(u64, u64, u64)>);

impl Places {
    fn new(content: Option<Content>) -> Places {
        let Some(Content::Pieces(pieces)) = content else { return Places(Vec::new()) };
        let mut places: Vec<(u64, u64, u64)> = Vec::new();
        for Piece { vcn, length, backing } in pieces {
            if let Backing::Clusters(lcn) = backing {
                places.push((lcn, length, vcn));
            }
        }
        places.sort_unstable();
        Places(places)
    }

    /// The cluster of the stream that stands in this cluster of the volume.
    fn vcn(&self, lcn: u64) -> Option<u64> {
        let after = self.0.partition_point(|(first, ..)| *first <= lcn);
        let (first, length, vcn) = self.0.get(after.checked_sub(1)?)?;
        let skip = lcn.checked_sub(*first).filter(|skip| skip < length)?;
        Some(vcn.saturating_add(skip))
    }
}
