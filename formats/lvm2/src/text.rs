//! The text of volume group metadata: sections, numbers, strings and lists.

use adit_core::{Error, Place, Problem, Result};

/// Deepest nesting of sections and lists; real text has four levels.
const DEPTH_MAX: usize = 16;

/// A value of the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    Number(i64),
    Text(String),
    List(Vec<Value>),
    Section(Section),
}

impl Value {
    pub fn text(&self) -> Option<&str> {
        match self {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    pub fn number(&self) -> Option<u64> {
        match self {
            Value::Number(number) => u64::try_from(*number).ok(),
            _ => None,
        }
    }
}

/// A section: named values in the order of the text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Section(Vec<(String, Value)>);

impl Section {
    pub fn value(&self, name: &str) -> Option<&Value> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value)
    }

    pub fn section(&self, name: &str) -> Option<&Section> {
        match self.value(name)? {
            Value::Section(section) => Some(section),
            _ => None,
        }
    }

    /// The sections inside, with their names.
    pub fn sections(&self) -> impl Iterator<Item = (&str, &Section)> {
        self.0.iter().filter_map(|(name, value)| match value {
            Value::Section(section) => Some((name.as_str(), section)),
            _ => None,
        })
    }

    /// A number that may be left out.
    ///
    /// Errors: `Corrupt` when it is something else, or negative.
    pub fn optional(&self, name: &str) -> Result<Option<u64>> {
        let Some(value) = self.value(name) else { return Ok(None) };
        value.number().map(Some).ok_or_else(|| {
            let detail = format!("{name} is no number from 0 on");
            Error::corrupt(Problem::BadValue, detail).at(place(name))
        })
    }

    /// A number that must be there.
    pub fn number(&self, name: &str) -> Result<u64> {
        self.optional(name)?.ok_or_else(|| missing(name))
    }

    /// A string that must be there.
    pub fn text(&self, name: &str) -> Result<&str> {
        self.value(name).and_then(Value::text).ok_or_else(|| missing(name))
    }

    /// A list, empty where there is none.
    pub fn list(&self, name: &str) -> &[Value] {
        match self.value(name) {
            Some(Value::List(list)) => list,
            _ => &[],
        }
    }

    /// Whether a list of words holds `word`.
    pub fn has_word(&self, name: &str, word: &str) -> bool {
        self.list(name).iter().any(|value| value.text() == Some(word))
    }
}

fn place(name: &str) -> Place {
    Place::new("metadata text").field(name.to_owned())
}

fn missing(name: &str) -> Error {
    Error::corrupt(Problem::Missing, format!("{name} is not there or of the wrong kind"))
        .at(place(name))
}

/// Reads a text. The caller has bounded its length.
///
/// Errors: `Corrupt` with the byte where it stops making sense.
pub(crate) fn parse(text: &[u8]) -> Result<Section> {
    let mut reader = Reader { text, at: 0 };
    let section = reader.section(0)?;
    match reader.peek() {
        None => Ok(section),
        Some(_) => Err(reader.bad("a brace closes what was never opened")),
    }
}

struct Reader<'a> {
    text: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn bad(&self, detail: impl Into<String>) -> Error {
        let at = adit_core::bytes::wide(self.at);
        Error::corrupt(Problem::BadValue, detail).at(Place::new("metadata text").byte(at))
    }

    fn step(&mut self) {
        self.at = self.at.saturating_add(1);
    }

    /// The next byte that is neither blank nor comment; the text ends at a NUL.
    fn peek(&mut self) -> Option<u8> {
        loop {
            match *self.text.get(self.at)? {
                0 => return None,
                b'#' => {
                    while self.text.get(self.at).is_some_and(|&byte| byte != b'\n' && byte != 0) {
                        self.step();
                    }
                }
                byte if byte.is_ascii_whitespace() => self.step(),
                byte => return Some(byte),
            }
        }
    }

    fn take(&mut self, wanted: u8) -> bool {
        let there = self.peek() == Some(wanted);
        if there {
            self.step();
        }
        there
    }

    fn section(&mut self, depth: usize) -> Result<Section> {
        if depth > DEPTH_MAX {
            return Err(self.bad("sections nest too deep"));
        }
        let mut section = Section::default();
        while self.peek().is_some_and(|byte| byte != b'}') {
            let name = self.word()?;
            let value = if self.take(b'{') {
                let inner = self.section(depth.saturating_add(1))?;
                if !self.take(b'}') {
                    return Err(self.bad(format!("section {name} does not end")));
                }
                Value::Section(inner)
            } else if self.take(b'=') {
                self.value(depth)?
            } else {
                return Err(self.bad(format!("neither a section nor a value follows {name}")));
            };
            section.0.push((name, value));
        }
        Ok(section)
    }

    fn value(&mut self, depth: usize) -> Result<Value> {
        if depth > DEPTH_MAX {
            return Err(self.bad("lists nest too deep"));
        }
        match self.peek() {
            Some(quote @ (b'"' | b'\'')) => self.string(quote).map(Value::Text),
            Some(b'[') => {
                self.step();
                let mut list = Vec::new();
                while !self.take(b']') {
                    list.push(self.value(depth.saturating_add(1))?);
                    let comma = self.take(b',');
                    if !comma && self.peek() != Some(b']') {
                        return Err(self.bad("a list does not end"));
                    }
                }
                Ok(Value::List(list))
            }
            _ => {
                let word = self.word()?;
                // Fractions are rare and never matter here; they stay words.
                Ok(word.parse().map_or(Value::Text(word), Value::Number))
            }
        }
    }

    fn word(&mut self) -> Result<String> {
        self.peek();
        let rest = self.text.get(self.at..).unwrap_or_default();
        let part_of = |byte: &u8| byte.is_ascii_alphanumeric() || b"_-+./@:".contains(byte);
        let length = rest.iter().take_while(|byte| part_of(byte)).count();
        let word = rest.get(..length).unwrap_or_default();
        if word.is_empty() {
            return Err(self.bad("a name or number is missing"));
        }
        self.at = self.at.saturating_add(length);
        Ok(String::from_utf8_lossy(word).into_owned())
    }

    fn string(&mut self, quote: u8) -> Result<String> {
        self.step();
        let mut bytes = Vec::new();
        loop {
            let byte = self.text.get(self.at).copied();
            self.step();
            match byte {
                Some(end) if end == quote => break,
                Some(b'\\') if quote == b'"' => {
                    bytes.extend(self.text.get(self.at));
                    self.step();
                }
                None | Some(0) => return Err(self.bad("a string does not end")),
                Some(byte) => bytes.push(byte),
            }
        }
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_strings_lists_numbers_and_comments_are_read() {
        let text = br#"vg0 { # a comment }
            id = "a\"b\\c" seqno = 12
            status = ["READ", 'x', -3]	empty = []
            inner { deep { x = 1 } }
        }
        contents = "Text"
        "#;
        let all = parse(text).unwrap();
        let vg = all.section("vg0").unwrap();
        assert_eq!(vg.text("id").unwrap(), "a\"b\\c");
        assert_eq!(vg.number("seqno").unwrap(), 12);
        assert!(vg.has_word("status", "x") && vg.list("empty").is_empty());
        assert_eq!(vg.list("status")[2], Value::Number(-3));
        assert_eq!(vg.section("inner").unwrap().section("deep").unwrap().number("x").unwrap(), 1);
        assert!(vg.number("id").is_err() && vg.number("nothing").is_err());
    }

    #[test]
    fn broken_text_is_an_error_with_its_place() {
        let deep = "a {".repeat(1000);
        let lists = format!("a = {}", "[".repeat(1000));
        let cases =
            ["a {", "a }", "a = ", "a = \"x", "a = [1 2]", "a = [1,", "= 1", "}", &deep, &lists];
        for text in cases {
            let error = parse(text.as_bytes()).unwrap_err();
            assert!(error.place().unwrap().byte.is_some(), "{text:.20}");
        }
    }
}
