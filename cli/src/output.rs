//! Rendering: text for people, JSON for programs.

use crate::exit;
use adit_core::on_disk::Value as Raw;
use adit_core::{Error, Finding, Kind, Metadata, Place, Timestamp};
use serde::Serialize;
use serde_json::{Map, Value, json};
use std::io::{self, IsTerminal, Write};

/// Standard output, buffered; a closed pipe ends the program quietly.
pub struct Out(io::BufWriter<io::Stdout>);

impl Out {
    /// Standard output.
    pub fn new() -> Self {
        Out(io::BufWriter::with_capacity(1 << 16, io::stdout()))
    }

    /// One line of text.
    pub fn line(&mut self, text: impl AsRef<str>) {
        let written = writeln!(self.0, "{}", text.as_ref());
        self.settle(written);
    }

    /// Raw bytes.
    pub fn bytes(&mut self, bytes: &[u8]) {
        let written = self.0.write_all(bytes);
        self.settle(written);
    }

    /// A JSON document and a line end.
    pub fn json(&mut self, value: &impl Serialize) {
        let written = serde_json::to_writer_pretty(&mut self.0, value).map_err(io::Error::from);
        self.settle(written);
        self.line("");
    }

    /// Writes out what is buffered.
    pub fn finish(mut self) {
        let flushed = self.0.flush();
        self.settle(flushed);
    }

    fn settle(&self, result: io::Result<()>) {
        if let Err(error) = result {
            if error.kind() != io::ErrorKind::BrokenPipe {
                eprintln!("error: cannot write the output: {error}");
                std::process::exit(i32::from(exit::ERROR));
            }
            // The reader has seen enough, as `head` does.
            std::process::exit(i32::from(exit::GOOD));
        }
    }
}

/// Whether a person reads standard output.
pub fn on_terminal() -> bool {
    io::stdout().is_terminal()
}

/// Reports an error on standard error and gives the exit code.
pub fn fail(as_json: bool, action: &str, error: &Error) -> u8 {
    if as_json {
        let document = json!({ "schema": "adit.error/1", "error": error_json(action, error) });
        eprintln!("{document}");
    } else {
        eprint!("{}", error.report(action));
    }
    exit::ERROR
}

/// An error as JSON; names are those of `docs/json.md`.
pub fn error_json(action: &str, error: &Error) -> Value {
    json!({
        "action": action,
        "kind": error.kind().word(),
        "problem": error.problem().word(),
        "what": error.detail(),
        "place": error.place().map(place_json),
        "layers": error.trail().iter().rev().collect::<Vec<_>>(),
        "try": error.advice(),
        "os_error": error.os_code(),
        "partial": error.kind() == Kind::Lost,
    })
}

/// A note or finding as JSON.
pub fn finding_json(finding: &Finding) -> Value {
    json!({
        "severity": finding.severity.word(),
        "code": finding.code,
        "text": finding.text,
        "place": finding.place.as_ref().map(place_json),
        "layers": finding.trail.iter().rev().collect::<Vec<_>>(),
        "try": finding.advice,
    })
}

/// All notes as JSON.
pub fn notes_json(notes: &[Finding]) -> Value {
    notes.iter().map(finding_json).collect()
}

fn place_json(place: &Place) -> Value {
    json!({
        "structure": place.structure,
        "index": place.index,
        "field": place.field,
        "byte": place.byte,
    })
}

/// Bytes as a JSON string; what is no UTF-8 is escaped as `\xNN`, and said in `key_hex`.
pub fn put_bytes(map: &mut Map<String, Value>, key: &str, bytes: &[u8]) {
    match std::str::from_utf8(bytes) {
        Ok(text) => {
            map.insert(key.to_owned(), text.into());
        }
        Err(_) => {
            let shown: String = bytes
                .utf8_chunks()
                .map(|chunk| {
                    let bad: String =
                        chunk.invalid().iter().map(|b| format!("\\x{b:02x}")).collect();
                    format!("{}{bad}", chunk.valid())
                })
                .collect();
            map.insert(key.to_owned(), shown.into());
            let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            map.insert(format!("{key}_hex"), hex.into());
        }
    }
}

/// Metadata as JSON.
pub fn metadata_json(metadata: &Metadata) -> Map<String, Value> {
    let seconds = |time: Option<Timestamp>| {
        time.map(|t| {
            if t.nanos == 0 {
                json!(t.seconds)
            } else {
                json!(t.seconds as f64 + f64::from(t.nanos) / 1e9)
            }
        })
    };
    // Whole nanoseconds, which a number with a fraction cannot hold.
    let exact = |time: Option<Timestamp>| {
        let ns = time.map(|t| i128::from(t.seconds) * 1_000_000_000 + i128::from(t.nanos))?;
        u64::try_from(ns).map(Value::from).or_else(|_| i64::try_from(ns).map(Value::from)).ok()
    };
    let value = json!({
        "node": metadata.node.0,
        "kind": metadata.kind.word(),
        "size_bytes": metadata.size_bytes,
        "allocated_bytes": metadata.allocated_bytes,
        "block_size_bytes": metadata.block_size_bytes,
        "links": metadata.links,
        "mode": metadata.mode,
        "uid": metadata.uid,
        "gid": metadata.gid,
        "modified": seconds(metadata.modified),
        "changed": seconds(metadata.changed),
        "accessed": seconds(metadata.accessed),
        "created": seconds(metadata.created),
        "modified_ns": exact(metadata.modified),
        "changed_ns": exact(metadata.changed),
        "accessed_ns": exact(metadata.accessed),
        "created_ns": exact(metadata.created),
        "generation": metadata.generation,
    });
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

/// A decoded on-disk value as JSON.
pub fn raw_json(value: &Raw) -> Value {
    match value {
        Raw::Uint(number) => json!(number),
        Raw::Text(text) => json!(text),
        Raw::List(list) => list.iter().map(raw_json).collect(),
        Raw::Bytes(bytes) => {
            json!(bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>())
        }
    }
}

/// A table with aligned columns; columns marked `>` are right-aligned.
pub fn table(out: &mut Out, header: &[&str], rows: &[Vec<String>]) {
    table_of(out, header, || rows.iter());
}

/// As [`table`], for more rows than one wants to keep as text: they are asked for twice.
pub fn table_of<I>(out: &mut Out, header: &[&str], rows: impl Fn() -> I)
where
    I: Iterator<Item: AsRef<[String]>>,
{
    let right: Vec<bool> = header.iter().map(|title| title.starts_with('>')).collect();
    let titles: Vec<String> = header.iter().map(|t| t.trim_start_matches('>').to_owned()).collect();
    let mut widths: Vec<usize> = titles.iter().map(|title| title.chars().count()).collect();
    for row in rows() {
        for (width, cell) in widths.iter_mut().zip(row.as_ref()) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let print = |out: &mut Out, cells: &[String]| {
        let mut line = String::new();
        for (i, cell) in cells.iter().enumerate() {
            let pad = widths.get(i).map_or(0, |width| width.saturating_sub(cell.chars().count()));
            if right.get(i) == Some(&true) {
                line.extend(std::iter::repeat_n(' ', pad));
                line.push_str(cell);
            } else {
                line.push_str(cell);
                line.extend(std::iter::repeat_n(' ', pad));
            }
            line.push_str("  ");
        }
        out.line(line.trim_end());
    };
    if titles.iter().any(|title| !title.is_empty()) {
        print(out, &titles);
    }
    for row in rows() {
        print(out, row.as_ref());
    }
}
