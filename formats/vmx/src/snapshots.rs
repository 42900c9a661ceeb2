//! A `.vmsd` file: the snapshots of a machine.

use crate::dictionary::{Dictionary, Entry};
use crate::notes::Notes;
use crate::tree::{Node, plant};
use adit_core::{Error, Finding, Limits, Place, Result, Timestamp};
use std::collections::BTreeMap;

/// The snapshots of a machine, as trees. A machine without any has an empty file, or none.
///
/// Source: `.vmsd` files of ESXi and Workstation.
#[derive(Clone, Debug)]
pub struct Snapshots {
    /// The snapshot the present state grew from, by its uid.
    pub current: Option<u64>,
    /// The first snapshots; there may be several once the state before them was deleted.
    pub roots: Vec<Snapshot>,
    /// What contradicts itself or is missing.
    pub problems: Vec<Finding>,
}

/// One snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Its number, which others name as their parent. Unique unless `problems` says otherwise.
    pub uid: u64,
    /// The name people gave it.
    pub name: String,
    /// What they wrote about it.
    pub description: String,
    /// When it was taken.
    pub created: Option<Timestamp>,
    /// File with the machine's state and settings (`.vmsn`).
    pub state_file: Option<Vec<u8>>,
    /// The disks it froze.
    pub disks: Vec<SnapshotDisk>,
    /// Snapshots taken later from here.
    pub children: Vec<Snapshot>,
}

/// A disk as a snapshot froze it: open its file to see that state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotDisk {
    /// The descriptor, in the file's own bytes: relative to the machine, or absolute.
    pub file_name: Vec<u8>,
    /// Where it was attached: `scsi0:0`.
    pub node: String,
}

impl Snapshots {
    /// Reads a `.vmsd`.
    ///
    /// Parents that are missing or form a loop are problems, not errors: every snapshot of the
    /// file appears once.
    ///
    /// Errors: those of [`Dictionary::parse`].
    pub fn parse(bytes: &[u8], limits: &Limits) -> Result<Snapshots> {
        let raw =
            Dictionary::parse(bytes, limits).map_err(|error: Error| error.in_layer(".vmsd"))?;
        let mut problems = Notes::default();
        raw.notes.iter().cloned().for_each(|note| problems.push(note));
        let drafts = drafts(&raw);
        if let Some(count) = raw.number("snapshot.numSnapshots")
            && u64::try_from(drafts.len()) != Ok(count)
        {
            let text = format!("announces {count} snapshots and describes {}", drafts.len());
            problems.push(Finding::warning("vmsd-count", text));
        }
        let nodes: Vec<Node> = drafts
            .into_iter()
            .filter_map(|(index, draft)| draft.finish(index, &mut problems))
            .collect();
        let current = raw.number("snapshot.current").filter(|&uid| uid != 0);
        if let Some(uid) = current.filter(|uid| nodes.iter().all(|node| node.snapshot.uid != *uid))
        {
            let text = format!("the current snapshot, uid {uid}, is not described");
            problems.push(Finding::warning("vmsd-current", text));
        }
        let roots = plant(nodes, limits.chain_length_max, &mut problems);
        Ok(Snapshots { current, roots, problems: problems.into_list() })
    }

    /// Every snapshot, parents before children.
    pub fn iter(&self) -> impl Iterator<Item = &Snapshot> {
        let mut todo: Vec<&Snapshot> = self.roots.iter().rev().collect();
        std::iter::from_fn(move || {
            let next = todo.pop()?;
            todo.extend(next.children.iter().rev());
            Some(next)
        })
    }
}

/// The `snapshotN.` lines of one N.
#[derive(Default)]
struct Draft<'a> {
    fields: BTreeMap<String, &'a Entry>,
    disks: BTreeMap<u64, SnapshotDisk>,
}

/// Collects the lines by N, which has gaps and says nothing about order.
fn drafts(raw: &Dictionary) -> BTreeMap<u64, Draft<'_>> {
    let mut drafts: BTreeMap<u64, Draft<'_>> = BTreeMap::new();
    for (key, entry) in raw.effective() {
        let Some((index, field)) = numbered(&key, "snapshot") else { continue };
        let draft = drafts.entry(index).or_default();
        let Some((disk, part)) = numbered(field, "disk") else {
            draft.fields.insert(field.to_owned(), entry);
            continue;
        };
        let disk = draft
            .disks
            .entry(disk)
            .or_insert_with(|| SnapshotDisk { file_name: Vec::new(), node: String::new() });
        match part {
            "filename" => disk.file_name = entry.value.clone(),
            "node" => disk.node = entry.text().into_owned(),
            _ => {}
        }
    }
    drafts
}

/// `snapshot12.uid` with `snapshot` gives 12 and `uid`.
fn numbered<'a>(key: &'a str, word: &str) -> Option<(u64, &'a str)> {
    let (number, field) = key.strip_prefix(word)?.split_once('.')?;
    let digits = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| number.parse().ok())?.map(|number| (number, field))
}

impl Draft<'_> {
    fn finish(mut self, index: u64, problems: &mut Notes) -> Option<Node> {
        let place = || Place::new("snapshot").index(index);
        let text = |field: &str| -> Option<String> {
            let entry = self.fields.get(field)?;
            (!entry.value.is_empty()).then(|| entry.text().into_owned())
        };
        let Some(uid) = text("uid").and_then(|uid| uid.trim().parse::<u64>().ok()) else {
            let note = "has no uid and was left out";
            problems.push(Finding::error("vmsd-uid", note).at(place()));
            return None;
        };
        let parent = text("parent").and_then(|parent| {
            let number = parent.trim().parse::<u64>();
            if number.is_err() {
                let note = format!("names the parent {parent:?}, which is no uid");
                problems.push(Finding::error("vmsd-parent", note).at(place()));
            }
            number.ok()
        });
        let nameless = self.disks.values().any(|disk| disk.file_name.is_empty());
        let announced = text("numdisks").and_then(|count| count.trim().parse::<u64>().ok());
        if nameless || announced.is_some_and(|n| u64::try_from(self.disks.len()) != Ok(n)) {
            let note = "does not name all the disks it announces";
            problems.push(Finding::warning("vmsd-disks", note).at(place()));
        }
        self.disks.retain(|_, disk| !disk.file_name.is_empty());
        let snapshot = Snapshot {
            uid,
            name: text("displayname").unwrap_or_default(),
            description: text("description").unwrap_or_default(),
            created: created(text("createtimehigh"), text("createtimelow")),
            state_file: self
                .fields
                .get("filename")
                .map(|entry| entry.value.clone())
                .filter(|name| !name.is_empty()),
            disks: self.disks.into_values().collect(),
            children: Vec::new(),
        };
        Some(Node { snapshot, parent })
    }
}

/// Microseconds since 1970 in two halves of 32 bits, each printed as a signed number.
fn created(high: Option<String>, low: Option<String>) -> Option<Timestamp> {
    let half = |text: Option<String>| -> Option<[u8; 4]> {
        let value: i64 = text?.trim().parse().ok()?;
        i32::try_from(value)
            .map(i32::to_be_bytes)
            .or_else(|_| u32::try_from(value).map(u32::to_be_bytes))
            .ok()
    };
    let ([a, b, c, d], [e, f, g, h]) = (half(high)?, half(low)?);
    let micros = i64::from_be_bytes([a, b, c, d, e, f, g, h]);
    let nanos = u32::try_from(micros.rem_euclid(1_000_000)).ok()?.checked_mul(1000)?;
    Some(Timestamp { seconds: micros.div_euclid(1_000_000), nanos })
}
