//! Heartbeat slots, and the journals of hosts that have the volume open.

use crate::bytes::{put, put32, put64};
use crate::store::Store;

use super::layout::{HEARTBEATS_AT, Kind};
use super::make::Maker;

/// What a host wrote into its heartbeat slot.
#[derive(Debug, Clone)]
pub struct Heartbeat {
    slot: u64,
    in_use: bool,
    generation: u64,
    stamp_us: u64,
    host: Option<[u8; 16]>,
    ip: String,
    journal: Journal,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Journal {
    None,
    Idle,
    /// A transaction that changes this file's times and has not reached the disk.
    Pending(Vec<u8>),
    /// The same, but the disk has it already.
    Finished(Vec<u8>),
}

impl Heartbeat {
    /// A slot in use by the host at this address, with an idle journal.
    pub fn live(slot: u64, ip: &str) -> Self {
        assert!(ip.len() <= 46);
        Self {
            slot,
            in_use: true,
            generation: 5,
            stamp_us: 6_000_000_000,
            host: None,
            ip: ip.to_owned(),
            journal: Journal::Idle,
        }
    }

    /// A slot its host has given back.
    pub fn released(slot: u64, ip: &str) -> Self {
        Self { in_use: false, generation: 6, journal: Journal::None, ..Self::live(slot, ip) }
    }

    /// How often the slot changed state.
    pub fn generation(mut self, generation: u64) -> Self {
        self.generation = generation;
        self
    }

    /// The host's last beat. Units: microseconds of its uptime.
    pub fn stamp_us(mut self, stamp: u64) -> Self {
        self.stamp_us = stamp;
        self
    }

    /// The host's UUID; without it, the one that made the volume.
    pub fn host(mut self, uuid: [u8; 16]) -> Self {
        self.host = Some(uuid);
        self
    }

    /// The host has no journal.
    pub fn without_journal(mut self) -> Self {
        self.journal = Journal::None;
        self
    }

    /// VMFS6: its journal holds a transaction that sets this file's mtime and
    /// ctime one hour later, the disk does not, and the file's lock is still held.
    pub fn pending(mut self, path: impl AsRef<[u8]>) -> Self {
        self.journal = Journal::Pending(path.as_ref().to_vec());
        self
    }

    /// VMFS6: its journal holds a transaction on this file that the disk already has.
    pub fn finished(mut self, path: impl AsRef<[u8]>) -> Self {
        self.journal = Journal::Finished(path.as_ref().to_vec());
        self
    }
}

/// All slots, with the journals that were allocated for them.
#[derive(Debug)]
pub(crate) struct Heartbeats {
    /// The slot, its journal's address and its journal's item.
    beats: Vec<(Heartbeat, u64, u64)>,
}

/// Journal slots of 4096 bytes.
const JOURNAL_SLOTS: u64 = 512;
const JOURNAL_SLOT: usize = 4096;
/// Headers of the first slot of a transaction and of the others, as far as known.
const FIRST_HEADER: usize = 0x80;

impl Heartbeats {
    pub(crate) fn prepare<S: Store>(maker: &mut Maker<S>, beats: &[Heartbeat]) -> Self {
        let with_journals = beats.iter().map(|beat| {
            assert!(beat.slot < maker.layout.heartbeats());
            if beat.journal == Journal::None {
                return (beat.clone(), 0, 0);
            }
            let (kind, item) = match maker.layout.six() {
                true => (Kind::Journal, maker.jbc.allocate(0)),
                false => (Kind::Block, maker.fb.allocate(0)),
            };
            (beat.clone(), maker.layout.address(kind, item), item)
        });
        Self { beats: with_journals.collect() }
    }

    /// Files whose lock a pending transaction holds, and the holder's slot.
    pub(crate) fn pending_paths(&self) -> impl Iterator<Item = (&[u8], u64)> {
        self.beats.iter().filter_map(|(beat, ..)| match &beat.journal {
            Journal::Pending(path) => Some((&path[..], beat.slot)),
            _ => None,
        })
    }

    fn find(&self, slot: u64) -> Option<&Heartbeat> {
        let mut beats = self.beats.iter().map(|(beat, ..)| beat);
        beats.find(|beat| beat.slot == slot)
    }

    /// The heartbeat offset and generation a lock names.
    pub(crate) fn holder<S>(&self, maker: &Maker<S>, slot: u64, stale: bool) -> (u64, u64) {
        let generation = self.find(slot).map_or(2, |beat| beat.generation);
        let at = HEARTBEATS_AT + slot * maker.layout.mda();
        (at, generation - u64::from(stale))
    }

    pub(crate) fn host<S>(&self, maker: &Maker<S>, slot: u64) -> [u8; 16] {
        let host = self.find(slot).and_then(|beat| beat.host);
        host.unwrap_or(maker.ids.host)
    }

    /// Writes all slots and journals. `fd_of` gives an FD's volume offset and its lock's token.
    pub(crate) fn write<S: Store>(
        &self,
        maker: &mut Maker<S>,
        fd_of: impl Fn(&[u8]) -> (u64, u64),
    ) {
        let size = maker.layout.mda() as usize;
        let mut region = vec![0; size * maker.layout.heartbeats() as usize];
        for (slot, bytes) in region.chunks_exact_mut(size).enumerate() {
            put32(bytes, 0x00, 0xabcd_ef01);
            put64(bytes, 0x04, HEARTBEATS_AT + (slot * size) as u64);
        }
        for (beat, address, item) in &self.beats {
            let journal_at = match (beat.journal == Journal::None, maker.layout.six()) {
                (true, _) => 0,
                (false, true) => maker.jbc.item_in_volume(*item, 0),
                (false, false) => item * maker.layout.block_bytes,
            };
            let slot = &mut region[beat.slot as usize * size..][..size];
            self.write_slot(maker, beat, (*address, journal_at), slot);
            if maker.layout.six() && journal_at != 0 {
                let stream = match &beat.journal {
                    Journal::Pending(path) => {
                        let (at, token) = fd_of(path);
                        transaction(maker, beat, at, token, 3600)
                    }
                    Journal::Finished(path) => {
                        let (at, token) = fd_of(path);
                        transaction(maker, beat, at, token - 1, 0)
                    }
                    _ => Vec::new(),
                };
                write_journal(maker, *item, journal_at, &stream);
            }
        }
        maker.volume.write(HEARTBEATS_AT, &region);
    }

    fn write_slot<S>(
        &self,
        maker: &Maker<S>,
        beat: &Heartbeat,
        journal: (u64, u64),
        slot: &mut [u8],
    ) {
        let (major, minor) = maker.layout.numbers();
        put64(slot, 0x0c, beat.generation);
        put64(slot, 0x14, beat.stamp_us);
        put32(slot, 0x30, major);
        slot[0x34] = minor as u8;
        slot[0x35] = match (major, maker.layout.local) {
            (4, _) => 0,
            (_, true) => 1,
            (_, false) => 3,
        };
        put(slot, 0x36, beat.ip.as_bytes());
        if beat.in_use {
            put32(slot, 0x00, 0xabcd_ef02);
            put(slot, 0x1c, &self.host(maker, beat.slot));
            put32(slot, 0x2c, journal.0);
            put64(slot, 0x64, journal.1);
        }
    }
}

fn write_journal<S: Store>(maker: &mut Maker<S>, item: u64, at: u64, stream: &[u8]) {
    let mut bytes = vec![0; JOURNAL_SLOTS as usize * JOURNAL_SLOT];
    put(&mut bytes, 0x00, b"6JSF");
    bytes[0..4].copy_from_slice(&[0x36, 0x4a, 0x53, 0x46]);
    put64(&mut bytes, 0x08, 0x0123_4567_89ab_cdef);
    put64(&mut bytes, 0x10, 1);
    put(&mut bytes, 0x20, b"HJ6J");
    put64(&mut bytes, 0x204, at);
    let busy = stream.len() / JOURNAL_SLOT;
    put(&mut bytes, JOURNAL_SLOT, stream);
    for (i, slot) in bytes.chunks_exact_mut(JOURNAL_SLOT).enumerate().skip(1) {
        let number = if i <= busy { i as u64 } else { 0xffff };
        put(slot, 0x00, b"TO6J");
        put(slot, 0x04, &(number as u16).to_le_bytes());
        put64(slot, 0x10, 1);
    }
    maker.jbc.write_item(&mut maker.volume, item, 0, &bytes);
}

/// One slot: a lock record, a superseded record whose body is still used, and
/// a record of two deltas, the first of which lies in that body.
fn transaction<S: Store>(
    maker: &Maker<S>,
    beat: &Heartbeat,
    fd_at: u64,
    token: u64,
    later: u64,
) -> Vec<u8> {
    let meta_at = fd_at + maker.layout.mda();
    let meta = maker.volume.read(meta_at, 0x40);
    let delta = |offset: usize| {
        let mut bytes = vec![0; 12];
        put32(&mut bytes, 0, offset as u64);
        put32(&mut bytes, 4, 4);
        let new = crate::bytes::get32(&meta, offset) + later;
        put32(&mut bytes, 8, new);
        bytes
    };
    let mut s = vec![0; JOURNAL_SLOT];
    let (lock, old, new) = (FIRST_HEADER, FIRST_HEADER + 0x20, FIRST_HEADER + 0x80);
    put64(&mut s, 0x18, 7);
    put64(&mut s, 0x30, JOURNAL_SLOT as u64);
    put64(&mut s, 0x38, beat.generation);
    put64(&mut s, 0x48, 7);
    put32(&mut s, 0x50, lock as u64);
    put32(&mut s, 0x54, new as u64);
    put(&mut s, 0x58, &[1, 0, 1, 0]);
    put(&mut s, 0x60, &[1, 0]);
    put32(&mut s, lock, lock as u64);
    put(&mut s, lock + 8, &[0, 2]);
    put64(&mut s, lock + 12, fd_at);
    put64(&mut s, lock + 20, token);
    for (record, data) in [(old, 12), (new, 24)] {
        put32(&mut s, record, record as u64);
        put(&mut s, record + 0x08, &[5, 1]);
        put64(&mut s, record + 0x0c, meta_at);
        put32(&mut s, record + 0x14, 64);
        put32(&mut s, record + 0x18, 4096);
        put32(&mut s, record + 0x1c, data);
    }
    put(&mut s, old + 0x22, &[1, 0]);
    put(&mut s, old + 0x28, &delta(0x2c));
    put(&mut s, new + 0x22, &[3, 0]);
    let pieces = [(old + 0x28, 12), (new + 0x40, 52)];
    for (i, (at, length)) in pieces.into_iter().enumerate() {
        put32(&mut s, new + 0x28 + i * 8, at as u64);
        put32(&mut s, new + 0x2c + i * 8, length);
    }
    put(&mut s, new + 0x40, &delta(0x30));
    s
}
