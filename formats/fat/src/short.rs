//! Directory entries of FAT: short names, and the long ones before them.

use crate::layout::{LongEntry, ShortEntry, attribute};
use crate::node::Node;
use crate::scan::{Entries, Found, Step};
use crate::shape::Variant;
use crate::time::moment;
use crate::volume::Fat;
use adit_core::{Error, NodeId, Result};

/// Pieces of the longest long name.
const PIECES_MAX: u8 = 20;
const LAST_PIECE: u8 = 0x40;
const DELETED: u8 = 0xe5;
const DIRECTORY_END: u8 = 0x00;

/// A long name that is being gathered, from its end to its start.
#[derive(Debug, Default)]
struct Long {
    units: Vec<u16>,
    checksum: u8,
    /// The piece that must come next; 0 where the name is complete.
    next: u8,
    active: bool,
}

impl Long {
    /// Adds a piece; one that does not follow ends what there was.
    fn add(&mut self, entry: &LongEntry) {
        let number = entry.sequence & !LAST_PIECE;
        if entry.sequence & LAST_PIECE != 0 {
            let fits = (1..=PIECES_MAX).contains(&number);
            *self = Long { checksum: entry.checksum, next: number, active: fits, units: vec![] };
        }
        let follows = self.active
            && self.next != 0
            && number == self.next
            && entry.checksum == self.checksum
            && entry.kind == 0
            && entry.cluster == 0;
        if !follows {
            *self = Long::default();
            return;
        }
        let mut units = [&entry.first[..], &entry.second[..], &entry.third[..]].concat();
        units.append(&mut self.units);
        self.units = units;
        self.next = self.next.saturating_sub(1);
    }

    /// The name, if it is complete and belongs to this short name.
    fn finish(&mut self, short: &[u8; 11]) -> Option<Vec<u16>> {
        let long = std::mem::take(self);
        if !long.active || long.next != 0 || long.checksum != checksum(short) {
            return None;
        }
        let end = long.units.iter().position(|unit| *unit == 0);
        let (name, _) = long.units.split_at(end.unwrap_or(long.units.len()));
        (!name.is_empty() && name.len() <= 255).then(|| name.to_vec())
    }
}

/// Of a short name, as its long name repeats it.
pub(crate) fn checksum(short: &[u8; 11]) -> u8 {
    short.iter().fold(0u8, |sum, byte| sum.rotate_right(1).wrapping_add(*byte))
}

/// The next file or directory, or what cannot be read.
pub(crate) fn step(entries: &mut Entries<'_>) -> Option<Result<Found, Error>> {
    let mut long = Long::default();
    loop {
        let slot = match entries.scan.step()? {
            Step::Gap(error) => return Some(Err(error)),
            Step::Slot(slot) => slot,
        };
        let Ok(raw) = ShortEntry::read(&slot.bytes) else { continue };
        match raw.name {
            [DIRECTORY_END, ..] => return None,
            [DELETED, ..] => {
                long = Long::default();
                continue;
            }
            _ => {}
        }
        if is_long(raw.attributes) {
            if let Ok(piece) = LongEntry::read(&slot.bytes) {
                long.add(&piece);
            }
            continue;
        }
        let name = long.finish(&raw.name);
        let node = match node(entries.fs, &slot.bytes, slot.position) {
            Ok(Some(node)) => node,
            Ok(None) => continue,
            Err(error) => return Some(Err(error)),
        };
        let short: Vec<u16> = short_name(&raw).encode_utf16().collect();
        // A long name no path can hold loses itself, not the file.
        let name = name.filter(|name| crate::names::to_name(name).is_ok_and(|n| !n.is_dots()));
        let after = entries.scan.at();
        return Some(Ok(match name {
            Some(name) => Found { name, alias: Some(short), node, after },
            None => Found { name: short, alias: None, node, after },
        }));
    }
}

fn is_long(attributes: u8) -> bool {
    attributes & 0x3f == 0x0f
}

/// What a slot says of a file; nothing for labels, `.`, `..` and slots nobody uses.
///
/// Errors: only where the slot is too short.
pub(crate) fn node(fs: &Fat, bytes: &[u8], position: u64) -> Result<Option<Node>> {
    let raw = ShortEntry::read(bytes)?;
    let attributes = u16::from(raw.attributes);
    let dots = raw.name == *b".          " || raw.name == *b"..         ";
    let free = matches!(raw.name, [DIRECTORY_END | DELETED, ..]);
    if free || dots || is_long(raw.attributes) || attributes & attribute::LABEL != 0 {
        return Ok(None);
    }
    let directory = attributes & attribute::DIRECTORY != 0;
    let length = if directory { 0 } else { u64::from(raw.size) };
    let created = moment(raw.created_date, raw.created_time, raw.created_fine);
    Ok(Some(Node {
        id: NodeId(position),
        attributes: attributes & 0x3f,
        first: first_cluster(fs.shape().variant, &raw),
        contiguous: false,
        length,
        valid: length,
        created,
        modified: moment(raw.modified_date, raw.modified_time, 0),
        accessed: moment(raw.accessed_date, 0, 0),
    }))
}

/// First cluster of a file.
pub(crate) fn first_cluster(variant: Variant, raw: &ShortEntry) -> u32 {
    let high = if variant == Variant::Fat32 { u32::from(raw.cluster_hi) << 16 } else { 0 };
    high | u32::from(raw.cluster_lo)
}

/// `NAME.EXT`, in lower case where the entry says so.
pub(crate) fn short_name(raw: &ShortEntry) -> String {
    let mut name = raw.name;
    // The byte that marks deleted entries is a letter in some code pages.
    if let [first @ 0x05, ..] = &mut name {
        *first = DELETED;
    }
    let (base, extension) = name.split_at(8);
    let text = |bytes: &[u8], lower: bool| {
        let text: String = bytes
            .trim_ascii_end()
            .iter()
            .map(|byte| crate::codepage::decode(*byte))
            .map(|c| match c {
                // No path can hold these; no path has a replacement character by chance.
                '/' | '\0' => '\u{fffd}',
                c => c,
            })
            .collect();
        if lower { lower_case(&text) } else { text }
    };
    let base = text(base, raw.case & 0x08 != 0);
    let extension = text(extension, raw.case & 0x10 != 0);
    if extension.is_empty() { base } else { format!("{base}.{extension}") }
}

fn lower_case(text: &str) -> String {
    let one = |c: char| {
        let mut lower = c.to_lowercase();
        lower.next().filter(|_| lower.next().is_none()).unwrap_or(c)
    };
    text.chars().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &[u8; 11], case: u8) -> ShortEntry {
        let mut bytes = [0; 32];
        bytes[..11].copy_from_slice(name);
        bytes[12] = case;
        ShortEntry::read(&bytes).unwrap()
    }

    #[test]
    fn short_names_are_put_together() {
        assert_eq!(short_name(&entry(b"README  TXT", 0)), "README.TXT");
        assert_eq!(short_name(&entry(b"README  TXT", 0x08)), "readme.TXT");
        assert_eq!(short_name(&entry(b"README  TXT", 0x18)), "readme.txt");
        assert_eq!(short_name(&entry(b"NOEXT      ", 0)), "NOEXT");
        assert_eq!(short_name(&entry(b"\x05BC     \x9a  ", 0x10)), "σBC.ü");
    }

    #[test]
    fn the_checksum_of_a_short_name_is_that_of_the_specification() {
        // A known pair: "The quick brown.fox" is stored with short name THEQUI~1.FOX, 0x07.
        assert_eq!(checksum(b"THEQUI~1FOX"), 0x07);
    }
}
