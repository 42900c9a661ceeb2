//! From what happened to the states a power cut may leave.

use super::{Event, SECTOR};
use crate::random::Random;
use std::collections::VecDeque;
use std::ops::Range;

/// What a sector holds whose first write was lost.
const POISON: u8 = 0xdb;

/// Up to this many pending events every subset is dealt out.
const ALL_SUBSETS_MAX: usize = 6;

/// A state that a power cut may leave.
#[derive(Clone, Debug)]
pub struct Cut {
    /// The last number given to `World::acknowledge` before the cut; 0 if none was.
    pub acknowledged: usize,
    /// The files.
    pub images: Vec<Vec<u8>>,
    /// Which state it is, for the message of a failed assertion.
    pub label: String,
}

/// The states, one after the other.
#[derive(Debug)]
pub struct Cuts {
    durable: Vec<Content>,
    events: VecDeque<Event>,
    /// Not flushed yet, oldest first.
    pending: Vec<Event>,
    /// Whether anything was added to `pending` since it was last dealt out.
    is_new: bool,
    acknowledged: usize,
    flushes: usize,
    random: Random,
    seed: u64,
    samples: usize,
    ready: VecDeque<(usize, Vec<bool>)>,
    /// Applied once `ready` is empty.
    then: Option<Event>,
    is_over: bool,
}

/// A file: its bytes, and which sectors were ever written.
#[derive(Clone, Debug)]
struct Content {
    bytes: Vec<u8>,
    written: Vec<bool>,
}

impl Cuts {
    pub(super) fn new(start: Vec<Vec<u8>>, events: Vec<Event>, seed: u64, samples: usize) -> Cuts {
        let known =
            |bytes: Vec<u8>| Content { written: vec![true; bytes.len().div_ceil(SECTOR)], bytes };
        Cuts {
            durable: start.into_iter().map(known).collect(),
            events: events.into(),
            pending: Vec::new(),
            is_new: true,
            acknowledged: 0,
            flushes: 0,
            random: Random::new(seed),
            seed,
            samples,
            ready: VecDeque::new(),
            then: None,
            is_over: false,
        }
    }

    /// Goes to the next flush, or to the end, and chooses subsets of what is pending there.
    fn deal(&mut self) {
        loop {
            match self.events.pop_front() {
                None => self.is_over = true,
                Some(event @ Event::Flush { .. }) => self.then = Some(event),
                Some(Event::Acknowledge(id)) => {
                    self.acknowledged = id;
                    self.is_new = true;
                    continue;
                }
                Some(event) => {
                    self.pending.push(event);
                    self.is_new = true;
                    continue;
                }
            }
            if self.is_new {
                self.choose();
            }
            self.is_new = false;
            return;
        }
    }

    fn choose(&mut self) {
        let count = self.pending.len();
        let mut choices: Vec<Vec<bool>> = Vec::new();
        if count <= ALL_SUBSETS_MAX {
            choices
                .extend((0..1 << count).map(|bits: usize| subset(count, |i| bits >> i & 1 == 1)));
        } else {
            choices.push(vec![false; count]);
            choices.push(vec![true; count]);
            for round in 0..self.samples.saturating_sub(2) {
                let choice = match round % 4 {
                    0 => {
                        let until = self.random.below(count as u64) as usize;
                        subset(count, |i| i < until)
                    }
                    1 => {
                        let lost = self.random.below(count as u64) as usize;
                        subset(count, |i| i != lost)
                    }
                    2 => {
                        let kept = self.random.below(count as u64) as usize;
                        subset(count, |i| i == kept)
                    }
                    _ => (0..count).map(|_| self.random.below(2) == 1).collect(),
                };
                choices.push(choice);
            }
        }
        self.ready.extend(choices.into_iter().enumerate());
    }

    /// What is flushed is certain from now on.
    fn settle(&mut self, flushed: usize) {
        self.flushes += 1;
        let pending = std::mem::take(&mut self.pending);
        let (certain, pending): (Vec<_>, Vec<_>) =
            pending.into_iter().partition(|event| event.file() == flushed);
        self.pending = pending;
        for event in &certain {
            self.durable[flushed].apply(event);
        }
    }

    fn cut(&self, number: usize, choice: &[bool]) -> Cut {
        let mut files = self.durable.clone();
        let mut lost: Vec<Vec<Range<usize>>> = vec![Vec::new(); files.len()];
        for (event, &reached) in self.pending.iter().zip(choice) {
            let file = event.file();
            let before = files[file].bytes.len();
            match event {
                Event::Sector { index, bytes, .. } if !reached => {
                    let range = index * SECTOR..index * SECTOR + bytes.len();
                    files[file].poison(&range);
                    lost[file].push(range);
                }
                _ if !reached => {}
                _ => {
                    files[file].make_room(event);
                    let added = before..files[file].bytes.len();
                    for range in &lost[file] {
                        let range = range.start.max(added.start)..range.end.min(added.end);
                        if range.start < range.end {
                            files[file].poison(&range);
                        }
                    }
                    files[file].apply(event);
                }
            }
        }
        let count = choice.iter().filter(|&&reached| reached).count();
        let label = format!(
            "seed {}, after {} flushes, choice {number}: {count} of {} pending changes",
            self.seed,
            self.flushes,
            choice.len()
        );
        let images = files.into_iter().map(|content| content.bytes).collect();
        Cut { acknowledged: self.acknowledged, images, label }
    }
}

impl Iterator for Cuts {
    type Item = Cut;

    fn next(&mut self) -> Option<Cut> {
        loop {
            if let Some((number, choice)) = self.ready.pop_front() {
                return Some(self.cut(number, &choice));
            }
            if let Some(Event::Flush { file }) = self.then.take() {
                self.settle(file);
            }
            if self.is_over {
                return None;
            }
            self.deal();
        }
    }
}

impl Event {
    fn file(&self) -> usize {
        match self {
            Event::Sector { file, .. }
            | Event::SetSize { file, .. }
            | Event::Punch { file, .. }
            | Event::Flush { file } => *file,
            Event::Acknowledge(_) => usize::MAX,
        }
    }
}

impl Content {
    fn make_room(&mut self, event: &Event) {
        let end = match event {
            Event::Sector { index, bytes, .. } => index * SECTOR + bytes.len(),
            Event::SetSize { size, .. } => *size,
            _ => 0,
        };
        if self.bytes.len() < end {
            self.bytes.resize(end, 0);
            self.written.resize(end.div_ceil(SECTOR), false);
        }
    }

    fn apply(&mut self, event: &Event) {
        self.make_room(event);
        match event {
            Event::Sector { index, bytes, .. } => {
                self.bytes[index * SECTOR..][..bytes.len()].copy_from_slice(bytes);
                self.written[*index] = true;
            }
            Event::SetSize { size, .. } => {
                self.bytes.truncate(*size);
                self.written.truncate(size.div_ceil(SECTOR));
            }
            Event::Punch { range, .. } => {
                let size = self.bytes.len();
                self.bytes[range.start.min(size)..range.end.min(size)].fill(0);
            }
            Event::Flush { .. } | Event::Acknowledge(_) => {}
        }
    }

    /// A write that was lost: where nothing ever stood, anything may stand now.
    fn poison(&mut self, range: &Range<usize>) {
        let end = range.end.min(self.bytes.len());
        if range.start < end && !self.written[range.start / SECTOR] {
            self.bytes[range.start..end].fill(POISON);
        }
    }
}

fn subset(count: usize, holds: impl Fn(usize) -> bool) -> Vec<bool> {
    (0..count).map(holds).collect()
}
