//! As much of XML as descriptors use: elements and text.
//!
//! Attributes, comments and instructions are skipped. Document types are refused, and with them
//! every entity but the five of XML itself: text cannot grow.

use adit_core::bytes::wide;
use adit_core::{Error, Place, Problem, Result};
use std::borrow::Cow;

/// Deepest nesting that is read; real descriptors have five levels.
const DEPTH_MAX: usize = 32;
/// Longest name of an element. Unit: bytes.
const NAME_BYTES_MAX: usize = 128;

/// What stands in a document.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Event<'a> {
    /// An element begins.
    Open(&'a [u8]),
    /// The innermost element ends.
    Close,
    /// Text inside an element, entities replaced; may come in several parts.
    Text(Cow<'a, [u8]>),
}

/// Reads a document from front to back.
#[derive(Debug)]
pub(crate) struct Xml<'a> {
    bytes: &'a [u8],
    at: usize,
    open: Vec<&'a [u8]>,
    /// The last tag was `<a/>`: its end is the next event.
    close_due: bool,
}

impl<'a> Xml<'a> {
    /// Errors: `Unsupported` for UTF-16.
    pub fn new(bytes: &'a [u8]) -> Result<Self> {
        if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
            return Err(Error::unsupported("the text is UTF-16").at(place(0)));
        }
        let at = if bytes.starts_with(b"\xef\xbb\xbf") { 3 } else { 0 };
        Ok(Xml { bytes, at, open: Vec::new(), close_due: false })
    }

    /// The next event; `None` at the end of the document.
    ///
    /// Errors: `Corrupt` where the text is not XML; `Unsupported` for document types; `Limit`.
    pub fn next(&mut self) -> Result<Option<Event<'a>>> {
        if self.close_due {
            self.close_due = false;
            self.open.pop();
            return Ok(Some(Event::Close));
        }
        loop {
            let rest = self.rest();
            if rest.is_empty() {
                let Some(name) = self.open.last() else { return Ok(None) };
                let name = String::from_utf8_lossy(name).into_owned();
                return Err(self.wrong(Problem::Truncated, format!("<{name}> never ends")));
            } else if rest.starts_with(b"<!--") {
                self.past(4, b"-->")?;
            } else if rest.starts_with(b"<![CDATA[") {
                return Ok(Some(Event::Text(Cow::Borrowed(self.past(9, b"]]>")?))));
            } else if rest.starts_with(b"<?") {
                self.past(2, b"?>")?;
            } else if rest.starts_with(b"<!") {
                return Err(Error::unsupported("a document type").at(place(self.at)));
            } else if rest.starts_with(b"</") {
                return self.close().map(Some);
            } else if rest.starts_with(b"<") {
                return self.open().map(Some);
            } else {
                return self.text().map(Some);
            }
        }
    }

    fn rest(&self) -> &'a [u8] {
        self.bytes.get(self.at..).unwrap_or(&[])
    }

    /// What stands between `skip` bytes from here and `end`; goes on behind that.
    fn past(&mut self, skip: usize, end: &[u8]) -> Result<&'a [u8]> {
        let from = self.rest().get(skip..).unwrap_or(&[]);
        let Some(length) = from.windows(end.len()).position(|window| window == end) else {
            let end = String::from_utf8_lossy(end).into_owned();
            return Err(self.wrong(Problem::Truncated, format!("there is no {end:?} after this")));
        };
        let found = from.get(..length).unwrap_or(&[]);
        self.at = self.at.saturating_add(skip).saturating_add(length).saturating_add(end.len());
        Ok(found)
    }

    fn open(&mut self) -> Result<Event<'a>> {
        let start = self.at;
        let length = self.tag_length()?;
        let tag = self.past_tag(length);
        let empty = tag.ends_with(b"/");
        let name = tag.strip_suffix(b"/").unwrap_or(tag);
        let name = name.split(u8::is_ascii_whitespace).next().unwrap_or(&[]);
        let plain = |b: &u8| b.is_ascii_alphanumeric() || b"_-.:".contains(b) || *b >= 0x80;
        if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.iter().all(plain) {
            self.at = start;
            return Err(self.wrong(Problem::BadValue, "no element has such a name"));
        }
        if self.open.len() >= DEPTH_MAX {
            return Err(self.wrong(
                Problem::TooMany,
                format!("elements lie more than {DEPTH_MAX} deep in each other"),
            ));
        }
        self.open.push(name);
        self.close_due = empty;
        Ok(Event::Open(name))
    }

    /// Length of the tag at hand from behind its `<` to before its `>`, which may also stand in
    /// the value of an attribute.
    fn tag_length(&self) -> Result<usize> {
        let mut quote = None;
        for (at, &byte) in self.rest().iter().enumerate().skip(1) {
            match (quote, byte) {
                (None, b'>') => return Ok(at.saturating_sub(1)),
                (None, b'"' | b'\'') => quote = Some(byte),
                (None, b'<') => break,
                (Some(open), byte) if open == byte => quote = None,
                _ => {}
            }
        }
        Err(self.wrong(Problem::Truncated, "this tag never ends"))
    }

    fn past_tag(&mut self, length: usize) -> &'a [u8] {
        let tag = self.rest().get(1..length.saturating_add(1)).unwrap_or(&[]);
        self.at = self.at.saturating_add(length).saturating_add(2);
        tag
    }

    fn close(&mut self) -> Result<Event<'a>> {
        let start = self.at;
        let name = self.past(2, b">")?.trim_ascii();
        match self.open.pop() {
            Some(open) if open == name => Ok(Event::Close),
            _ => {
                self.at = start;
                Err(self.wrong(Problem::Mismatch, "this ends no element that is open"))
            }
        }
    }

    fn text(&mut self) -> Result<Event<'a>> {
        let rest = self.rest();
        let length = rest.iter().position(|&b| b == b'<').unwrap_or(rest.len());
        let text = rest.get(..length).unwrap_or(&[]);
        if self.open.is_empty() && !text.trim_ascii().is_empty() {
            return Err(self.wrong(Problem::BadValue, "there is text outside of all elements"));
        }
        let decoded = if text.contains(&b'&') {
            Cow::Owned(decode(text).ok_or_else(|| {
                self.wrong(Problem::BadValue, "there is an entity XML does not know")
            })?)
        } else {
            Cow::Borrowed(text)
        };
        self.at = self.at.saturating_add(length);
        Ok(Event::Text(decoded))
    }

    fn wrong(&self, problem: Problem, detail: impl Into<String>) -> Error {
        Error::corrupt(problem, detail).at(place(self.at))
    }
}

fn place(at: usize) -> Place {
    Place::new("disk descriptor").byte(wide(at))
}

/// Replaces entities, each by fewer bytes than it has.
fn decode(text: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let mut parts = text.split(|&b| b == b'&');
    out.extend_from_slice(parts.next()?);
    for part in parts {
        let end = part.iter().take(12).position(|&b| b == b';')?;
        let (entity, after) = (part.get(..end)?, part.get(end.checked_add(1)?..)?);
        match entity {
            b"amp" => out.push(b'&'),
            b"lt" => out.push(b'<'),
            b"gt" => out.push(b'>'),
            b"quot" => out.push(b'"'),
            b"apos" => out.push(b'\''),
            _ => {
                let digits = std::str::from_utf8(entity.strip_prefix(b"#")?).ok()?;
                let code = match digits.strip_prefix('x') {
                    Some(hex) => u32::from_str_radix(hex, 16),
                    None => digits.parse(),
                };
                let found = char::from_u32(code.ok()?).filter(|&c| c != '\0')?;
                out.extend_from_slice(found.encode_utf8(&mut [0; 4]).as_bytes());
            }
        }
        out.extend_from_slice(after);
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::{Event, Xml};
    use adit_core::{Kind, Problem, Result};

    fn read(text: &str) -> Result<String> {
        let mut xml = Xml::new(text.as_bytes())?;
        let mut out = String::new();
        while let Some(event) = xml.next()? {
            match event {
                Event::Open(name) => out.push_str(&format!("<{}", String::from_utf8_lossy(name))),
                Event::Close => out.push('>'),
                Event::Text(text) => out.push_str(&String::from_utf8_lossy(&text)),
            }
        }
        Ok(out)
    }

    #[test]
    fn elements_and_text_are_read_and_the_rest_is_skipped() {
        let text = "\u{feff}<?xml version='1.0'?><!-- <x> --><a b='>' c=\"/\"><d/>1&lt;&#x41;&#66;\
                    <![CDATA[<&>]]><é x = ''  />&amp;</a >\n";
        assert_eq!(read(text).unwrap(), "<a<d>1<AB<&><é>&>\n");
    }

    #[test]
    fn what_is_no_xml_is_refused_where_it_stands() {
        for (text, problem, byte) in [
            ("<a>", Problem::Truncated, 3),
            ("<a></b>", Problem::Mismatch, 3),
            ("</a>", Problem::Mismatch, 0),
            ("<a", Problem::Truncated, 0),
            ("<a b='>", Problem::Truncated, 0),
            ("<a <b>", Problem::Truncated, 0),
            ("<>", Problem::BadValue, 0),
            ("< a>", Problem::BadValue, 0),
            ("x", Problem::BadValue, 0),
            ("<a>&x;</a>", Problem::BadValue, 3),
            ("<a>&#0;</a>", Problem::BadValue, 3),
            ("<a>&amp</a>", Problem::BadValue, 3),
            ("<!-- ", Problem::Truncated, 0),
            ("<a><![CDATA[", Problem::Truncated, 3),
        ] {
            let error = read(text).unwrap_err();
            assert_eq!((error.kind(), error.problem()), (Kind::Corrupt, problem), "{text}");
            assert_eq!(error.place().unwrap().byte, Some(byte), "{text}");
        }
    }

    #[test]
    fn document_types_and_endless_depth_are_refused() {
        let bomb = "<!DOCTYPE a [<!ENTITY b 'bbb'>]><a>&b;</a>";
        assert_eq!(read(bomb).unwrap_err().kind(), Kind::Unsupported);
        assert_eq!(read(&"<a>".repeat(100_000)).unwrap_err().problem(), Problem::TooMany);
    }
}
