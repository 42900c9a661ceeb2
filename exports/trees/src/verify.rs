//! A manifest that was read, and what has changed since.

use crate::hashes::{HashedNode, HashesHead, HashesTail};
use adit_core::{Error, Place, Problem, Result};
use std::collections::BTreeMap;
use std::io::BufRead;

/// Longest line of a manifest. Unit: bytes.
const LINE_BYTES_MAX: u64 = 1 << 20;

/// What a manifest says should be there.
#[derive(Clone, Debug, Default)]
pub struct Expected {
    /// By path; a disk has the empty one.
    nodes: BTreeMap<Vec<u8>, HashedNode>,
    /// Whether it lists everything, so that what is not in it is new.
    pub lists_all: bool,
}

/// How a node agrees with what a manifest says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It has the same content.
    Same,
    /// This differs: `kind`, `size`, `content`, `target`.
    Differs(&'static str),
    /// The manifest has no hash of it: it could not be read then.
    Unhashed,
    /// The manifest does not list it.
    New,
}

impl Expected {
    /// Reads a manifest, or the output of `sha256sum`.
    ///
    /// Errors: `Invalid` at the line that is neither; `Truncated` where the last line is missing.
    pub fn read(input: &mut dyn BufRead) -> Result<Expected> {
        let mut expected = Expected::default();
        let (mut number, mut nodes, mut tail) = (0u64, 0u64, None);
        let mut line = Vec::new();
        loop {
            line.clear();
            let read = std::io::Read::take(&mut *input, LINE_BYTES_MAX)
                .read_until(b'\n', &mut line)
                .map_err(|error| Error::io(Problem::Unreadable, "reading the manifest", &error))?;
            if read == 0 {
                break;
            }
            number += 1;
            let text = line.strip_suffix(b"\n").unwrap_or(&line);
            let at = || Place::new("manifest, line").index(number);
            if text.is_empty() {
                continue;
            }
            if number == 1 && text.starts_with(b"{") {
                head(text).map_err(|error| error.at(at()))?;
                expected.lists_all = true;
            } else if !expected.lists_all {
                let (path, node) = sum_line(text)
                    .ok_or_else(|| wrong("no line of sha256sum"))
                    .map_err(|error| error.at(at()))?;
                expected.nodes.insert(path, node);
            } else if let Ok(last) = serde_json::from_slice::<HashesTail>(text) {
                tail = Some(last);
            } else {
                let node: HashedNode = serde_json::from_slice(text)
                    .map_err(|error| wrong(&error.to_string()).at(at()))?;
                nodes += 1;
                // A directory that could not be listed has a line of its own beside its node's.
                if node.kind != "unknown" {
                    let path = node.path_bytes().map_err(|error| error.at(at()))?;
                    expected.nodes.insert(path, node);
                }
            }
        }
        match tail {
            None if expected.lists_all => Err(Error::invalid(
                Problem::Truncated,
                "the manifest has no last line: it was cut off, or is still being written",
            )),
            Some(tail) if tail.nodes != nodes => Err(Error::invalid(
                Problem::Mismatch,
                format!("the manifest has {nodes} lines of {}", tail.nodes),
            )),
            _ => Ok(expected),
        }
    }

    /// Compares a node with what is expected, which is then no longer missing.
    ///
    /// Errors: `Invalid` where the node's own path is none.
    pub fn check(&mut self, node: &HashedNode) -> Result<Verdict> {
        let Some(wanted) = self.nodes.remove(&node.path_bytes()?) else {
            return Ok(Verdict::New);
        };
        Ok(verdict(&wanted, node))
    }

    /// What a disk is compared with: the only line there is, whatever it is called.
    ///
    /// Errors: `Invalid` where the manifest lists several.
    pub fn check_disk(&mut self, node: &HashedNode) -> Result<Verdict> {
        match (self.nodes.len(), self.nodes.pop_first()) {
            (1, Some((_, wanted))) => {
                Ok(verdict(&HashedNode { kind: node.kind.clone(), ..wanted }, node))
            }
            (count, _) => Err(Error::invalid(
                Problem::Mismatch,
                format!("the manifest lists {count} files, and the place is one"),
            )),
        }
    }

    /// The paths that were expected and not checked.
    pub fn missing(&self) -> impl Iterator<Item = &[u8]> {
        self.nodes.keys().map(Vec::as_slice)
    }
}

fn verdict(wanted: &HashedNode, node: &HashedNode) -> Verdict {
    if wanted.kind != node.kind {
        return Verdict::Differs("kind");
    }
    if wanted.size_bytes.is_some() && wanted.size_bytes != node.size_bytes {
        return Verdict::Differs("size");
    }
    if wanted.target_hex != node.target_hex {
        return Verdict::Differs("target");
    }
    let pairs = [
        (&wanted.sha256, &node.sha256),
        (&wanted.blake3, &node.blake3),
        (&wanted.data_blake3, &node.data_blake3),
    ];
    let both = pairs.iter().filter(|(a, b)| a.is_some() && b.is_some());
    let agrees = |(a, b): &(&Option<String>, &Option<String>)| match (a, b) {
        (Some(a), Some(b)) => a.eq_ignore_ascii_case(b),
        _ => true,
    };
    match both.clone().count() {
        0 if matches!(node.kind.as_str(), "file" | "disk") => Verdict::Unhashed,
        _ if both.clone().all(agrees) => Verdict::Same,
        _ => Verdict::Differs("content"),
    }
}

fn wrong(why: &str) -> Error {
    Error::invalid(Problem::BadValue, format!("it is no manifest of hashes: {why}"))
        .advise("`adit hash -o FILE` writes one; the output of sha256sum is read as well")
}

fn head(line: &[u8]) -> Result<()> {
    let head: HashesHead =
        serde_json::from_slice(line).map_err(|error| wrong(&error.to_string()))?;
    match (head.schema.as_str(), head.version) {
        (HashesHead::SCHEMA, 1) => Ok(()),
        (HashesHead::SCHEMA, version) => {
            Err(Error::unsupported(format!("a manifest of version {version}")))
        }
        (schema, _) => Err(wrong(&format!("its schema is {schema:?}"))),
    }
}

/// A line of `sha256sum`: `HEX  name`; with a backslash before it `\n` and `\\` are escaped.
fn sum_line(line: &[u8]) -> Option<(Vec<u8>, HashedNode)> {
    let (escaped, line) = match line.strip_prefix(b"\\") {
        Some(rest) => (true, rest),
        None => (false, line),
    };
    let (digits, rest) = line.split_at_checked(64)?;
    if !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    let name = rest.strip_prefix(b"  ").or_else(|| rest.strip_prefix(b" *"))?;
    let name = name.strip_prefix(b"./").unwrap_or(name);
    let mut path = Vec::with_capacity(name.len());
    let mut bytes = name.iter();
    while let Some(&byte) = bytes.next() {
        match (escaped, byte) {
            (true, b'\\') => path.push(match bytes.next()? {
                b'n' => b'\n',
                b'r' => b'\r',
                b'\\' => b'\\',
                _ => return None,
            }),
            _ => path.push(byte),
        }
    }
    let sha256 = Some(String::from_utf8_lossy(digits).into_owned());
    Some((path, HashedNode { kind: "file".into(), sha256, ..HashedNode::default() }))
}

/// A line as `sha256sum` writes it and `sha256sum -c` reads it.
pub fn sum_line_of(path: &[u8], sha256: &str) -> Vec<u8> {
    let escape = path.iter().any(|byte| matches!(byte, b'\n' | b'\r' | b'\\'));
    let mut line = if escape { b"\\".to_vec() } else { Vec::new() };
    line.extend_from_slice(sha256.as_bytes());
    line.extend_from_slice(b"  ");
    for &byte in path {
        match byte {
            b'\n' => line.extend_from_slice(b"\\n"),
            b'\r' => line.extend_from_slice(b"\\r"),
            b'\\' => line.extend_from_slice(b"\\\\"),
            _ => line.push(byte),
        }
    }
    line.push(b'\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    const SUM: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn read(text: &str) -> Result<Expected> {
        Expected::read(&mut text.as_bytes())
    }

    #[test]
    fn a_line_of_sha256sum_comes_back_with_any_name() {
        for name in [&b"a b"[..], b"line\nbreak", b"back\\slash", b"odd\xff", b"*star"] {
            let line = sum_line_of(name, SUM);
            let (path, node) = sum_line(line.strip_suffix(b"\n").unwrap()).unwrap();
            assert_eq!((path.as_slice(), node.sha256.as_deref()), (name, Some(SUM)));
        }
        for bad in ["", "abc  x", &SUM[1..], &format!("{SUM}x"), &format!("\\{SUM}  a\\x")] {
            assert!(sum_line(bad.as_bytes()).is_none(), "{bad}");
        }
    }

    #[test]
    fn a_manifest_without_its_last_line_or_with_lines_missing_is_refused() {
        let head = serde_json::to_string(&HashesHead::new("x")).unwrap();
        let node = r#"{"path":"a","kind":"directory"}"#;
        let tail = |nodes| format!(r#"{{"complete":true,"nodes":{nodes},"hashed_bytes":0}}"#);
        assert!(read(&format!("{head}\n{node}\n{}\n", tail(1))).is_ok());
        let cut = read(&format!("{head}\n{node}\n")).unwrap_err();
        assert_eq!(cut.problem(), Problem::Truncated);
        let short = read(&format!("{head}\n{}\n", tail(1))).unwrap_err();
        assert_eq!(short.problem(), Problem::Mismatch);
        let error = read(&format!("{head}\nnonsense\n{}\n", tail(1))).unwrap_err();
        assert_eq!(error.place().unwrap().index, Some(2));
        assert!(read(r#"{"schema":"other","version":1,"tool":"","source":""}"#).is_err());
    }
}
