//! `key = "value"` lines, kept in order.

use crate::escape::{Bytes, unescape};
use crate::notes::Notes;
use adit_core::bytes::{all_zero, until_nul, wide};
use adit_core::{Error, Finding, Limits, Place, Problem, Result};
use std::borrow::Cow;
use std::collections::HashMap;

/// A dictionary file that was read: every entry, in order.
///
/// Source: the `.vmx` and `.vmsd` files of ESXi and Workstation.
#[derive(Clone, Debug, Default)]
pub struct Dictionary {
    /// The entries in the order of the file, duplicates included.
    pub entries: Vec<Entry>,
    /// What `.encoding` declares, if anything.
    pub encoding: Option<String>,
    /// What is odd about the file.
    pub notes: Vec<Finding>,
    /// From the key in lower case to the entry that counts.
    index: HashMap<String, usize>,
}

/// One line of a dictionary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The key as it is spelled.
    pub key: String,
    /// The value without quotes and escapes, in the file's own encoding.
    pub value: Vec<u8>,
    /// Line number, from 1.
    pub line: u64,
}

impl Entry {
    /// The value as text; bytes that are not UTF-8 become replacement characters.
    pub fn text(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.value)
    }
}

impl Dictionary {
    /// Reads a dictionary. An empty file is an empty dictionary, as a new `.vmsd` is.
    ///
    /// Errors: `Limit` past `text_bytes_max`; `Unsupported` for UTF-16; `Corrupt` for a file of
    /// NUL bytes, which is what a crashed host leaves.
    pub fn parse(bytes: &[u8], limits: &Limits) -> Result<Dictionary> {
        let mut notes = Notes::default();
        let text = text_of(bytes, limits, &mut notes)?;
        let lines = read_lines(text, &mut notes);
        let encoding = lines
            .iter()
            .find(|line| line.key.eq_ignore_ascii_case(b".encoding"))
            .map(|line| String::from_utf8_lossy(line.value).into_owned());
        let form = byte_form(text, encoding.as_deref(), &mut notes);
        let mut dictionary = Dictionary { encoding, ..Dictionary::default() };
        for line in lines {
            dictionary.add(line, form, &mut notes);
        }
        dictionary.notes = notes.into_list();
        Ok(dictionary)
    }

    /// The entry that counts for a key: the last one, as most readers have it.
    pub fn entry(&self, key: &str) -> Option<&Entry> {
        self.entries.get(*self.index.get(&key.to_ascii_lowercase())?)
    }

    /// A value as it is, unless it is absent or empty.
    pub fn bytes(&self, key: &str) -> Option<&[u8]> {
        self.entry(key).map(|entry| entry.value.as_slice()).filter(|value| !value.is_empty())
    }

    /// A value as text, unless it is absent or empty.
    pub fn text(&self, key: &str) -> Option<Cow<'_, str>> {
        self.bytes(key).map(String::from_utf8_lossy)
    }

    /// A value as a number, if it is one.
    pub fn number(&self, key: &str) -> Option<u64> {
        self.text(key)?.trim().parse().ok()
    }

    /// A value as yes or no, if it is either.
    pub fn flag(&self, key: &str) -> Option<bool> {
        match self.text(key)?.trim().to_ascii_lowercase().as_str() {
            "true" | "yes" | "on" | "t" | "y" | "1" => Some(true),
            "false" | "no" | "off" | "f" | "n" | "0" => Some(false),
            _ => None,
        }
    }

    /// The entries that count: of duplicates the last one alone.
    pub fn effective(&self) -> impl Iterator<Item = (String, &Entry)> {
        self.entries.iter().enumerate().filter_map(|(at, entry)| {
            let key = entry.key.to_ascii_lowercase();
            (self.index.get(&key) == Some(&at)).then_some((key, entry))
        })
    }

    fn add(&mut self, line: Line<'_>, form: Bytes, notes: &mut Notes) {
        let entry = Entry {
            key: String::from_utf8_lossy(line.key).into_owned(),
            value: unescape(line.value, form),
            line: line.number,
        };
        let at = self.entries.len();
        let before = self.index.insert(entry.key.to_ascii_lowercase(), at);
        if let Some(before) = before.and_then(|before| self.entries.get(before)) {
            let text = if before.value == entry.value {
                format!("{:?} is there twice with one value", entry.key)
            } else {
                format!(
                    "{:?} is {:?} in line {} and {:?} here; the last one is taken",
                    entry.key,
                    before.text(),
                    before.line,
                    entry.text()
                )
            };
            notes.push(Finding::warning("vmx-duplicate-key", text).at(place(entry.line)));
        }
        self.entries.push(entry);
    }
}

/// A line before its escapes are resolved.
struct Line<'a> {
    number: u64,
    key: &'a [u8],
    value: &'a [u8],
}

fn place(line: u64) -> Place {
    Place::new("line").index(line)
}

/// The text part of the file: no byte order mark, nothing from the first NUL on.
fn text_of<'a>(bytes: &'a [u8], limits: &Limits, notes: &mut Notes) -> Result<&'a [u8]> {
    if wide(bytes.len()) > limits.text_bytes_max {
        let detail = format!("the file has {} bytes", bytes.len());
        return Err(Error::limit("text_bytes_max", detail));
    }
    if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
        return Err(Error::unsupported("the file is written in UTF-16")
            .advise("convert it to UTF-8 with a text editor"));
    }
    let bytes = bytes.strip_prefix(&[0xef, 0xbb, 0xbf]).unwrap_or(bytes);
    let text = until_nul(bytes);
    if text.is_empty() && !bytes.is_empty() {
        return Err(Error::corrupt(Problem::BadMagic, "the file starts with NUL bytes, not text")
            .advise("its contents were lost, as after a crash of the host; look for a backup"));
    }
    if bytes.get(text.len()..).is_some_and(|rest| !all_zero(rest)) {
        let note = "there is more after a NUL byte; only what stands before it was read";
        notes.push(Finding::warning("vmx-nul", note).at(Place::new("file").byte(wide(text.len()))));
    }
    Ok(text)
}

fn read_lines<'a>(text: &'a [u8], notes: &mut Notes) -> Vec<Line<'a>> {
    let mut lines = Vec::new();
    for (number, line) in (1u64..).zip(text.split(|&b| b == b'\n')) {
        let line = line.trim_ascii();
        if line.is_empty() || line.starts_with(b"#") {
            continue;
        }
        let mut halves = line.splitn(2, |&b| b == b'=');
        let key = halves.next().unwrap_or_default().trim_ascii();
        match halves.next() {
            Some(value) if !key.is_empty() => {
                lines.push(Line { number, key, value: unquote(value.trim_ascii(), number, notes) });
            }
            _ => notes.push(
                Finding::warning("vmx-line", "is no `key = \"value\"` line and was left out")
                    .at(place(number)),
            ),
        }
    }
    lines
}

fn unquote<'a>(value: &'a [u8], number: u64, notes: &mut Notes) -> &'a [u8] {
    let Some(inside) = value.strip_prefix(b"\"") else { return value };
    let mut parts = inside.splitn(2, |&b| b == b'"');
    let inside = parts.next().unwrap_or_default();
    let text = match parts.next().map(<[u8]>::trim_ascii) {
        Some(rest) if rest.is_empty() || rest.starts_with(b"#") => return inside,
        Some(_) => "has text after the closing quote, which was left out",
        None => "has no closing quote; the value was read to the end of the line",
    };
    notes.push(Finding::warning("vmx-quote", text).at(place(number)));
    inside
}

fn byte_form(text: &[u8], encoding: Option<&str>, notes: &mut Notes) -> Bytes {
    if std::str::from_utf8(text).is_ok() {
        return Bytes::Single;
    }
    let declared = encoding.unwrap_or("none");
    notes.push(Finding::warning(
        "vmx-encoding",
        format!(
            "the text is not UTF-8 (declared encoding: {declared}); other characters show as \
             replacements, file names are kept byte by byte"
        ),
    ));
    encoding.map_or(Bytes::Single, Bytes::of_encoding)
}
