//! The smallest writable format: a table of places, then units in the order of their first write.

use adit_core::*;
use std::ops::Range;
use std::sync::{Arc, Mutex};

pub const UNIT: u64 = 4096;
const UNITS: u64 = 64;
pub const SIZE: u64 = UNIT * UNITS;

/// What the format does wrong on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    None,
    /// Records a place before it is filled.
    RecordsEarly,
    /// Gives freed space out at once.
    ReusesEarly,
}

#[derive(Debug)]
pub struct Toy {
    file: Arc<dyn ImageFile>,
    as_disk: Arc<dyn Disk>,
    parent: Option<Arc<dyn Disk>>,
    state: Mutex<State>,
    fault: Fault,
}

#[derive(Debug, Default)]
struct State {
    table: Vec<u32>,
    recorded: Vec<u32>,
    next: u32,
    free: Vec<u32>,
    /// Freed since the last `stages`, and before it.
    freed: [Vec<u32>; 2],
}

impl Toy {
    pub fn open(file: Arc<dyn ImageFile>, parent: Option<Arc<dyn Disk>>, fault: Fault) -> Toy {
        let mut raw = vec![0; (UNITS * 4) as usize];
        if file.size_bytes() >= UNIT {
            file.read_at(&mut raw, 0).unwrap();
        }
        let table: Vec<u32> =
            raw.chunks(4).map(|four| u32::from_le_bytes(four.try_into().unwrap())).collect();
        let next = table.iter().max().unwrap() + 1;
        let free = (1..next).filter(|place| !table.contains(place)).collect();
        let state = State { recorded: table.clone(), table, next, free, ..State::default() };
        Toy {
            as_disk: Arc::clone(&file) as Arc<dyn Disk>,
            file,
            parent,
            state: state.into(),
            fault,
        }
    }
}

impl ExtentMap for Toy {
    fn geometry(&self) -> Geometry {
        Geometry::of_size(SIZE)
    }

    fn lookup(&self, offset: u64, _at_most: u64) -> Result<Run> {
        let unit = offset / UNIT;
        let kind = match self.state.lock().unwrap().table[unit as usize] {
            0 if self.parent.is_some() => RunKind::Parent,
            0 => RunKind::Hole,
            place => RunKind::Stored { source: 0, offset: u64::from(place) * UNIT },
        };
        Ok(Run { start: unit * UNIT, length: UNIT, kind })
    }

    fn source(&self, _index: usize) -> Option<&Arc<dyn Disk>> {
        Some(&self.as_disk)
    }

    fn parent(&self) -> Option<&Arc<dyn Disk>> {
        self.parent.as_ref()
    }

    fn decode(&self, _run: &Run, _buf: &mut [u8]) -> Result<()> {
        Err(Error::unsupported("nothing is encoded"))
    }

    fn name(&self) -> String {
        "toy".into()
    }

    fn steps(&self, _offset: u64) -> Result<Vec<String>> {
        Ok(Vec::new())
    }
}

impl WritableMap for Toy {
    fn file(&self, _index: usize) -> Option<&Arc<dyn ImageFile>> {
        Some(&self.file)
    }

    fn files(&self) -> usize {
        1
    }

    fn unit_bytes(&self) -> u64 {
        UNIT
    }

    fn place(&self, range: Range<u64>) -> Result<Placement> {
        let unit = range.start / UNIT;
        let covers = unit * UNIT..(unit + 1) * UNIT;
        let length = covers.end.min(range.end) - range.start;
        let mut state = self.state.lock().unwrap();
        let mut place = state.table[unit as usize];
        let mut fresh = None;
        if place == 0 {
            place = state.free.pop().unwrap_or_else(|| {
                state.next += 1;
                state.next - 1
            });
            let token = u64::from(place) << 32 | unit;
            if self.fault == Fault::RecordsEarly {
                state.table[unit as usize] = place;
            }
            fresh = Some(Fresh { covers: covers.clone(), reads_zero: false, token });
        }
        let offset = u64::from(place) * UNIT + (range.start - covers.start);
        if self.fault == Fault::RecordsEarly && fresh.is_some() {
            drop(state);
            // What the engine never asks for at this moment: the table is written at once.
            self.stages()?.into_iter().flatten().for_each(|change| {
                if let Change::Write { offset, bytes, .. } = change {
                    self.file.write_at(&bytes, offset).unwrap();
                }
            });
        }
        Ok(Placement { length, file: 0, offset, fresh })
    }

    fn placed(&self, placement: &Placement) -> Result<()> {
        let token = placement.fresh.as_ref().unwrap().token;
        self.state.lock().unwrap().table[token as u32 as usize] = (token >> 32) as u32;
        Ok(())
    }

    fn abandon(&self, placement: &Placement) {
        let token = placement.fresh.as_ref().unwrap().token;
        self.state.lock().unwrap().free.push((token >> 32) as u32);
    }

    fn unmap(&self, range: Range<u64>, _why: Unmap) -> Result<Unmapped> {
        let unit = range.start / UNIT;
        let length = ((unit + 1) * UNIT).min(range.end) - range.start;
        if length < UNIT || self.parent.is_some() {
            return Ok(Unmapped { length, done: false });
        }
        let mut state = self.state.lock().unwrap();
        let place = std::mem::take(&mut state.table[unit as usize]);
        match place {
            0 => {}
            _ if self.fault == Fault::ReusesEarly => state.free.push(place),
            _ => state.freed[0].push(place),
        }
        Ok(Unmapped { length, done: true })
    }

    fn begin(&self) -> Result<Vec<Stage>> {
        Ok(Vec::new())
    }

    fn stages(&self) -> Result<Vec<Stage>> {
        let mut state = self.state.lock().unwrap();
        let newly = std::mem::take(&mut state.freed[0]);
        state.freed[1].extend(newly);
        if state.table == state.recorded {
            return Ok(Vec::new());
        }
        state.recorded = state.table.clone();
        let bytes = state.table.iter().flat_map(|place| place.to_le_bytes()).collect();
        Ok(vec![vec![Change::Write { file: 0, offset: 0, bytes }]])
    }

    fn flushed(&self) -> Vec<(usize, Range<u64>)> {
        let mut state = self.state.lock().unwrap();
        let freed = std::mem::take(&mut state.freed[1]);
        let range = |&place: &u32| (0, u64::from(place) * UNIT..u64::from(place + 1) * UNIT);
        let ranges = freed.iter().map(range).collect();
        state.free.extend(freed);
        ranges
    }

    fn finish(&self) -> Result<Vec<Stage>> {
        Ok(Vec::new())
    }

    fn dirty_bytes(&self) -> u64 {
        0
    }
}
