//! What is offered to clients under a name.

use crate::counters::Counters;
use crate::protocol::{STRING_BYTES_MAX, transmission};
use adit_core::{Disk, DiskExt, Error, Problem, Result, WritableDisk};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// A disk under a name.
#[derive(Clone, Debug)]
pub struct Export {
    pub(crate) name: String,
    pub(crate) description: String,
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) writable: Option<Arc<dyn WritableDisk>>,
    pub(crate) fast_zeroes: bool,
    pub(crate) layers: Vec<Arc<dyn Disk>>,
    pub(crate) bitmaps: Vec<Bitmap>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) state: Arc<State>,
}

/// What happens to an export while it is served. Clones share it.
#[derive(Debug, Default)]
pub(crate) struct State {
    /// Changes of its bytes so far: what was looked up before one does not count after it.
    changes: AtomicU64,
    closed: AtomicBool,
}

/// A named set of ranges, answered as `qemu:dirty-bitmap:NAME`.
#[derive(Clone, Debug)]
pub(crate) struct Bitmap {
    pub(crate) name: String,
    /// In order, without overlaps or empty ones.
    pub(crate) ranges: Vec<Range<u64>>,
}

impl Export {
    /// A disk that clients can read.
    pub fn read_only(name: impl Into<String>, disk: Arc<dyn Disk>) -> Export {
        Export {
            name: name.into(),
            description: String::new(),
            layers: vec![Arc::clone(&disk)],
            disk,
            writable: None,
            fast_zeroes: false,
            bitmaps: Vec::new(),
            counters: Arc::default(),
            state: Arc::default(),
        }
    }

    /// A disk that clients can read and write. Several clients may; they share its one state.
    pub fn writable(name: impl Into<String>, disk: Arc<dyn WritableDisk>) -> Export {
        let below: Arc<dyn Disk> = Arc::clone(&disk) as Arc<dyn Disk>;
        Export { writable: Some(disk), ..Export::read_only(name, below) }
    }

    /// A text for people, shown by clients that list exports.
    pub fn described(mut self, description: impl Into<String>) -> Export {
        self.description = description.into();
        self
    }

    /// Says that `write_zeroes` of the disk is always faster than writing zeros.
    pub fn with_fast_zeroes(mut self) -> Export {
        self.fast_zeroes = true;
        self
    }

    /// The images of the chain, the disk itself first; their place in it is what
    /// `qemu:allocation-depth` answers. Without them everything stored has depth 1.
    pub fn with_layers(mut self, layers: Vec<Arc<dyn Disk>>) -> Export {
        self.layers = layers;
        self
    }

    /// Ranges that changed, answered as `qemu:dirty-bitmap:NAME`. Order and overlaps do not matter.
    ///
    /// Units: bytes of the disk; what lies past its end is left out.
    pub fn with_bitmap(mut self, name: impl Into<String>, mut ranges: Vec<Range<u64>>) -> Export {
        let size = self.disk.size_bytes();
        ranges.iter_mut().for_each(|range| range.end = range.end.min(size));
        ranges.retain(|range| range.start < range.end);
        ranges.sort_by_key(|range| range.start);
        ranges.dedup_by(|next, before| {
            let joins = next.start <= before.end;
            if joins {
                before.end = before.end.max(next.end);
            }
            joins
        });
        self.bitmaps.push(Bitmap { name: name.into(), ranges });
        self
    }

    /// The name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The text for people.
    pub fn description(&self) -> &str {
        &self.description
    }

    /// Whether clients can write.
    pub fn is_writable(&self) -> bool {
        self.writable.is_some()
    }

    /// Length in bytes.
    pub fn size_bytes(&self) -> u64 {
        self.disk.size_bytes()
    }

    /// Its counters, which live on with the export.
    pub fn counters(&self) -> Arc<Counters> {
        Arc::clone(&self.counters)
    }

    /// Says that bytes have changed by other ways than through clients.
    pub fn changed(&self) {
        self.state.changes.fetch_add(1, Ordering::SeqCst);
    }

    pub(crate) fn changes(&self) -> u64 {
        self.state.changes.load(Ordering::SeqCst)
    }

    /// Takes it away: no new client finds it, and those there are told that it is going.
    pub fn close(&self) {
        self.state.closed.store(true, Ordering::SeqCst);
    }

    /// Whether it was taken away.
    pub fn is_closed(&self) -> bool {
        self.state.closed.load(Ordering::SeqCst)
    }

    pub(crate) fn check(&self) -> Result<()> {
        let strings = [&self.name, &self.description];
        let bitmaps = self.bitmaps.iter().map(|bitmap| &bitmap.name);
        for text in strings.into_iter().chain(bitmaps) {
            if text.len() > STRING_BYTES_MAX / 2 || text.contains('\0') {
                let detail =
                    format!("{:?} is no NBD name", text.chars().take(60).collect::<String>());
                return Err(Error::invalid(Problem::BadValue, detail)
                    .advise("names have at most 2048 bytes and no NUL"));
            }
        }
        Ok(())
    }

    /// What it can do, with or without chunked replies.
    pub(crate) fn transmission_flags(&self, chunked: bool) -> u16 {
        use transmission::*;
        // Every connection works on the same disk object, and its flush covers what any of them
        // wrote (contract of `WritableDisk`), so several connections are always safe.
        let mut flags = HAS_FLAGS | SEND_CACHE | CAN_MULTI_CONN | SEND_FLUSH;
        flags |= match self.writable {
            None => READ_ONLY,
            Some(_) => SEND_FUA | SEND_TRIM | SEND_WRITE_ZEROES | SEND_FAST_ZERO,
        };
        if chunked { flags | SEND_DF } else { flags }
    }

    /// Least, preferred and largest request. Unit: bytes.
    pub(crate) fn block_sizes(&self) -> [u32; 3] {
        let preferred = self.disk.geometry().io_size_bytes;
        let preferred = preferred.checked_next_power_of_two().unwrap_or(1 << 16);
        [1, preferred.clamp(1 << 12, 1 << 16), crate::protocol::REQUEST_BYTES_MAX as u32]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use adit_core::MemoryDisk;

    #[test]
    fn ranges_of_a_bitmap_are_sorted_joined_and_cut_at_the_end() {
        let disk = MemoryDisk::open("memory", vec![0; 100]);
        #[allow(clippy::reversed_empty_ranges)]
        let export = Export::read_only("x", disk)
            .with_bitmap("b", vec![50..60, 10..20, 15..30, 30..31, 90..400, 7..3, 200..300]);
        assert_eq!(export.bitmaps[0].ranges, [10..31, 50..60, 90..100]);
    }
}
