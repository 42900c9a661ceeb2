//! Changing the text of a descriptor, so that no power cut leaves one that means neither the old
//! nor the new.
//!
//! The medium writes whole sectors, so a change inside one sector is safe. A line that grows
//! takes its room from blank lines and comments behind it, which nobody reads, and one that
//! shrinks leaves blank lines: then what follows stays where it is. What needs more than one
//! sector is written sector by sector, in an order of which every step was read beforehand.

use crate::Descriptor;
use adit_core::bytes::{until_nul, wide};
use adit_core::{Error, Limits, Place, Problem, Result};
use std::ops::Range;

const SECTOR: usize = 512;

/// The text of a descriptor, up to its first NUL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Text {
    bytes: Vec<u8>,
}

/// Writes that may reach the medium in any order, at bytes of the text.
pub(crate) type Patch = Vec<(u64, Vec<u8>)>;

impl Text {
    pub fn new(bytes: &[u8]) -> Text {
        Text { bytes: until_nul(bytes).to_vec() }
    }

    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The lines with their ends, as ranges of the text.
    fn lines(&self) -> impl Iterator<Item = Range<usize>> + '_ {
        let mut at = 0usize;
        self.bytes.split_inclusive(|&b| b == b'\n').map(move |line| {
            let start = at;
            at = at.saturating_add(line.len());
            start..at
        })
    }

    fn part(&self, range: Range<usize>) -> &[u8] {
        self.bytes.get(range).unwrap_or_default()
    }

    /// The first line of a key, without its end.
    fn line_of(&self, key: &str) -> Option<Range<usize>> {
        self.lines().find_map(|range| {
            let line = self.part(range.clone()).trim_ascii();
            let name = line.split(|&b| b == b'=').next().unwrap_or_default().trim_ascii();
            let found = line.contains(&b'=')
                && !line.starts_with(b"#")
                && name.eq_ignore_ascii_case(key.as_bytes());
            found.then(|| self.without_end(range))
        })
    }

    fn without_end(&self, range: Range<usize>) -> Range<usize> {
        let line = self.part(range.clone());
        let ends = line.iter().rev().take_while(|b| matches!(b, b'\n' | b'\r')).count();
        range.start..range.end.saturating_sub(ends)
    }

    /// The value of a key, without quotes.
    fn value_of(&self, key: &str) -> Option<Range<usize>> {
        let line = self.line_of(key)?;
        let text = self.part(line.clone());
        let equals = text.iter().position(|&b| b == b'=')?.saturating_add(1);
        let blank = |b: &u8| b.is_ascii_whitespace();
        let lead = text.get(equals..)?.iter().take_while(|b| blank(b)).count();
        let start = equals.saturating_add(lead);
        let value = text.get(start..)?;
        let (start, length) = match value.strip_prefix(b"\"") {
            Some(inside) => {
                let end = inside.iter().position(|&b| b == b'"').unwrap_or(inside.len());
                (start.saturating_add(1), end)
            }
            None => (start, value.trim_ascii_end().len()),
        };
        let start = line.start.saturating_add(start);
        Some(start..start.saturating_add(length))
    }

    /// Gives a key another value, or adds it at the end; header keys keep their style.
    pub fn set(&mut self, key: &str, value: &[u8]) {
        match self.value_of(key) {
            Some(range) => self.splice(range, value),
            None => {
                let spaced = key.to_ascii_lowercase().starts_with("ddb.");
                let number =
                    key.eq_ignore_ascii_case("CID") || key.eq_ignore_ascii_case("parentCID");
                let (open, close) = match (spaced, number) {
                    (true, _) => (" = \"", "\""),
                    (_, true) => ("=", ""),
                    _ => ("=\"", "\""),
                };
                let line = [key.as_bytes(), open.as_bytes(), value, close.as_bytes()].concat();
                self.add_line(key, &line);
            }
        }
    }

    /// Adds a line: keys of the header behind its last line, others at the end.
    fn add_line(&mut self, key: &str, line: &[u8]) {
        let header = ["parentCID", "CID", "version"].into_iter().find_map(|key| self.line_of(key));
        match header.filter(|_| !key.to_ascii_lowercase().starts_with("ddb.")) {
            Some(after) => self.splice(after.end..after.end, &[b"\n", line].concat()),
            None => self.append_line(line),
        }
    }

    /// Adds a line at the very end, in place of blank lines that stand there.
    pub fn append_line(&mut self, line: &[u8]) {
        let used = self.bytes.trim_ascii_end().len();
        let blank = self.bytes.len().saturating_sub(used);
        let added = [b"\n", line, b"\n"].concat();
        let length = self.bytes.len();
        self.bytes.truncate(used);
        self.bytes.extend_from_slice(&added);
        if blank > added.len() {
            self.bytes.resize(length, b'\n');
        }
    }

    /// Lets go of the list of changed blocks.
    pub fn end_tracking(&mut self, descriptor: &Descriptor) {
        self.comment_out("changeTrackPath");
        if descriptor.version == Some(3) {
            self.set("version", b"1");
        }
    }

    /// Makes the line of a key a comment, by one byte.
    fn comment_out(&mut self, key: &str) {
        while let Some(line) = self.line_of(key) {
            let text = self.part(line.clone());
            let blanks = text.iter().take_while(|b| b.is_ascii_whitespace()).count();
            let Some(first) = self.bytes.get_mut(line.start.saturating_add(blanks)) else { return };
            *first = b'#';
        }
    }

    /// Takes the line of a key away.
    pub fn remove(&mut self, key: &str) {
        while let Some(line) = self.line_of(key) {
            self.splice(line, b"");
        }
    }

    /// Gives another number of sectors to the extent in line `number`, counted from 1.
    pub fn resize_extent(&mut self, number: u64, sectors: u64) {
        let found = self.lines().zip(1u64..).find(|(_, n)| *n == number).map(|(range, _)| range);
        let Some(line) = found else { return };
        let text = self.part(line.clone());
        let blank = |b: &&u8| b.is_ascii_whitespace();
        let lead = text.iter().take_while(blank).count();
        let word = text.iter().skip(lead).take_while(|b| !blank(b)).count();
        let before = lead.saturating_add(word);
        let gap = text.iter().skip(before).take_while(blank).count();
        let start = before.saturating_add(gap);
        let digits = text.iter().skip(start).take_while(|b| b.is_ascii_digit()).count();
        let start = line.start.saturating_add(start);
        self.splice(start..start.saturating_add(digits), sectors.to_string().as_bytes());
    }

    /// Replaces a part of one line, and moves what follows only if nothing behind it gives way.
    fn splice(&mut self, range: Range<usize>, with: &[u8]) {
        let (old, new) = (range.len(), with.len());
        let line_end = self.bytes.iter().skip(range.end).position(|&b| b == b'\n');
        let line_end =
            line_end.map_or(self.bytes.len(), |at| range.end.saturating_add(at).saturating_add(1));
        // From the back to the front, so that places stay true.
        if new > old {
            self.give_way(line_end, new.saturating_sub(old));
        } else {
            let blank = vec![b'\n'; old.saturating_sub(new)];
            self.bytes.splice(line_end..line_end, blank);
        }
        self.bytes.splice(range, with.iter().copied());
    }

    /// Takes up to `wanted` bytes of decoration away from `from` on.
    fn give_way(&mut self, from: usize, wanted: usize) {
        let idle =
            |line: &[u8]| line.trim_ascii().is_empty() || line.trim_ascii().starts_with(b"#");
        let mut found: Vec<Range<usize>> = Vec::new();
        let mut total = 0usize;
        for line in self.lines().filter(|line| line.start >= from) {
            if total >= wanted {
                break;
            }
            if idle(self.part(line.clone())) {
                total = total.saturating_add(line.len());
                found.push(line);
            }
        }
        let mut spare = total.saturating_sub(wanted);
        for line in found.into_iter().rev() {
            let keep = vec![b'\n'; std::mem::take(&mut spare).min(line.len())];
            self.bytes.splice(line, keep);
        }
    }

    /// The writes that make `self` out of `old`, where there is room for `room` bytes.
    ///
    /// Errors: `Unsupported` if it does not fit, or some step on the way would mean something
    /// else.
    pub fn patches(&self, old: &Text, room: u64) -> Result<Vec<Patch>> {
        if wide(self.bytes.len()) > room {
            let detail = format!("the descriptor needs more than the {room} bytes it has");
            return Err(Error::unsupported(detail)
                .at(Place::new("embedded descriptor"))
                .advise("convert the disk into a new image"));
        }
        let length = self.bytes.len().max(old.bytes.len());
        let padded = |text: &Text| {
            let mut bytes = text.bytes.clone();
            bytes.resize(length, 0);
            bytes
        };
        let (from, to) = (padded(old), padded(self));
        let sectors = from.chunks(SECTOR).zip(to.chunks(SECTOR)).zip(0u64..);
        let changed: Vec<(u64, Vec<u8>)> = sectors
            .filter(|((from, to), _)| from != to)
            .map(|((_, to), index)| (index.saturating_mul(wide(SECTOR)), to.to_vec()))
            .collect();
        if changed.len() <= 1 {
            return Ok(if changed.is_empty() { Vec::new() } else { vec![changed] });
        }
        // Same lines at the same places: any mixture of sectors has whole lines, or digits of both.
        if old.bytes.len() == self.bytes.len() && old.harmless(self) {
            return Ok(vec![changed]);
        }
        let backward: Vec<_> = changed.iter().rev().cloned().collect();
        [backward, changed]
            .into_iter()
            .find(|order| steps_are_sound(&from, old, self, order))
            .map(|order| order.into_iter().map(|write| vec![write]).collect())
            .ok_or_else(|| {
                Error::unsupported(
                    "the descriptor cannot be changed in a way that a power cut cannot spoil",
                )
                .at(Place::new("VMDK descriptor"))
                .advise("shorten its comments, or convert the disk into a new image")
            })
    }

    /// Whether the lines stand at the same places and mean the same disk and parent, so that any
    /// mixture of sectors does too.
    fn harmless(&self, other: &Text) -> bool {
        let ends = |text: &Text| text.lines().map(|line| line.end).collect::<Vec<_>>();
        if ends(self) != ends(other) {
            return false;
        }
        match (meaning(&self.bytes), meaning(&other.bytes)) {
            (Some(a), Some(b)) => a == b,
            _ => false,
        }
    }
}

/// Whether every state between the two texts reads as one of them.
fn steps_are_sound(from: &[u8], old: &Text, new: &Text, order: &[(u64, Vec<u8>)]) -> bool {
    let (Some(before), Some(after)) = (meaning(&old.bytes), meaning(&new.bytes)) else {
        return false;
    };
    let mut bytes = from.to_vec();
    order.iter().all(|(at, sector)| {
        let at = usize::try_from(*at).unwrap_or(usize::MAX);
        if let Some(place) = at.checked_add(sector.len()).and_then(|end| bytes.get_mut(at..end)) {
            place.copy_from_slice(sector);
        }
        meaning(&bytes).is_some_and(|meaning| meaning == before || meaning == after)
    })
}

/// What decides how a disk reads: extents and parent.
#[derive(PartialEq, Eq)]
struct Meaning {
    extents: Vec<crate::ExtentLine>,
    parent_cid: Option<u32>,
    parent_hint: Option<Vec<u8>>,
    parent_uuid: Option<String>,
}

fn meaning(bytes: &[u8]) -> Option<Meaning> {
    let descriptor = Descriptor::parse(bytes, &Limits::default()).ok()?;
    let parent_uuid = descriptor.parent_uuid().map(|uuid| uuid.into_owned());
    let parent_hint = descriptor.parent_hint.filter(|_| descriptor.parent_cid.is_some());
    let mut extents = descriptor.extents;
    extents.iter_mut().for_each(|line| line.line = 0);
    Some(Meaning { extents, parent_cid: descriptor.parent_cid, parent_hint, parent_uuid })
}

/// Refuses what would end a value or a line.
pub(crate) fn check_value(value: &[u8]) -> Result<()> {
    if value.iter().any(|b| matches!(b, b'"' | b'\n' | b'\r' | 0)) {
        let text = String::from_utf8_lossy(value);
        let detail = format!("{text:?} cannot stand in a VMDK descriptor");
        return Err(
            Error::invalid(Problem::BadValue, detail).advise("leave out quotes and line ends")
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: &str = "# Disk DescriptorFile\nversion=1\nCID=0000abcd\nparentCID=ffffffff\n\
        createType=\"monolithicSparse\"\n\n# Extent description\nRW 2048 SPARSE \"a.vmdk\"\n\n\
        # The Disk Data Base\n#DDB\n\nddb.adapterType = \"ide\"\n";

    fn text() -> Text {
        Text::new(OLD.as_bytes())
    }

    #[test]
    fn a_key_is_found_whole_and_never_in_a_comment_or_another_key() {
        let mut text = Text::new(b"# CID=1\nparentCID=ffffffff\n cid = 0000abcd \r\n");
        text.set("CID", b"12345678");
        assert_eq!(text.bytes(), b"# CID=1\nparentCID=ffffffff\n cid = 12345678 \r\n");
    }

    #[test]
    fn a_line_that_grows_takes_its_room_from_comments() {
        let mut text = text();
        text.resize_extent(8, 409_600_000);
        text.set("ddb.adapterType", b"lsilogic");
        let new = String::from_utf8(text.bytes().to_vec()).unwrap();
        assert!(new.contains("RW 409600000 SPARSE \"a.vmdk\"\n"), "{new}");
        assert!(new.ends_with("ddb.adapterType = \"lsilogic\"\n"), "{new}");
        assert_eq!(new.len(), OLD.len() + 5);
        text.set("ddb.adapterType", b"ide");
        text.remove("createType");
        assert_eq!(text.bytes().len(), OLD.len() + 5);
    }

    #[test]
    fn one_sector_is_one_write() {
        let mut new = text();
        new.set("parentCID", b"00000001");
        new.set("parentFileNameHint", b"/a/b/c/base.vmdk");
        let patches = new.patches(&text(), 10240).unwrap();
        assert_eq!((patches.len(), patches[0].len()), (1, 1));
    }

    #[test]
    fn steps_over_several_sectors_read_as_the_old_or_the_new() {
        let mut long = OLD.to_owned();
        for index in 0..20 {
            long.push_str(&format!("ddb.number{index} = \"a value of some length\"\n"));
        }
        let old = Text::new(long.as_bytes());
        let mut new = old.clone();
        new.set("parentCID", b"00000001");
        new.set("parentFileNameHint", &[b'x'; 600]);
        assert!(new.patches(&old, 10240).is_err());
        let mut new = old.clone();
        new.append_line(b"RW 4096 FLAT \"a name that is long enough to reach beyond.vmdk\" 0");
        let patches = new.patches(&old, 10240).unwrap();
        assert!(patches.iter().all(|patch| patch.len() == 1));
        assert!(new.patches(&old, 600).is_err());
    }

    #[test]
    fn a_key_is_commented_out_by_one_byte() {
        let mut text = Text::new(b"version=3\nchangeTrackPath=\"a-ctk.vmdk\"\n");
        text.comment_out("changeTrackPath");
        assert_eq!(text.bytes(), b"version=3\n#hangeTrackPath=\"a-ctk.vmdk\"\n");
    }
}
