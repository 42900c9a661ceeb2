//! `adit hexdump`: bytes in hexadecimal, runs of equal lines folded.

use super::{map::disk_of, shown};
use crate::args::Range;
use crate::output::Out;
use crate::session::{Session, code_of};
use adit_core::{DiskExt, Extents, Result};
use serde_json::json;
use std::ffi::OsStr;
use std::fmt::Write as _;

/// How much is read at once.
const CHUNK_BYTES: u64 = 1 << 20;

/// Dumps one place.
pub fn run(session: &Session, path: &OsStr, range: &Range) -> u8 {
    match dump(session, path, range) {
        Ok(code) => code,
        Err(error) => session.fail(&format!("dump {}", shown(path)), &error),
    }
}

fn dump(session: &Session, path: &OsStr, range: &Range) -> Result<u8> {
    let (disk, opened) = disk_of(session, session.open(path)?)?;
    let range = range.on(disk.size_bytes());
    let mut out = Out::new();
    if session.common.json {
        let length = range.end.saturating_sub(range.start).min(CHUNK_BYTES);
        let bytes = disk.read_prefix(range.start, usize::try_from(length).unwrap_or(0))?;
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        out.json(&json!({
            "schema": "adit.hexdump/1",
            "path": opened.locator.to_string(),
            "offset_bytes": range.start,
            "length_bytes": bytes.len(),
            "complete": bytes.len() as u64 == range.end.saturating_sub(range.start),
            "hex": hex,
        }));
        out.finish();
        return Ok(code_of(&opened.notes));
    }
    let mut lines = Lines { out: &mut out, last: None, folded: false };
    for extent in Extents::of(&disk, range.clone()) {
        let extent = extent?;
        let mut at = extent.offset;
        while at < extent.end() {
            session.interrupt.check()?;
            // A hole of terabytes is one folded line.
            if extent.kind.is_zero() && at % 16 == 0 && extent.end() - at > 32 {
                let lines_left = (extent.end() - at) / 16;
                lines.line(at, &[0; 16]);
                lines.line(at + 16, &[0; 16]);
                at += lines_left * 16;
                continue;
            }
            let length = (extent.end() - at).min(CHUNK_BYTES - at % CHUNK_BYTES);
            let length = if extent.kind.is_zero() { length.min(16 - at % 16) } else { length };
            let bytes = disk.read_vec(at, usize::try_from(length).unwrap_or(0))?;
            for (i, line) in bytes.chunks(16).enumerate() {
                lines.line(at + 16 * i as u64, line);
            }
            at += length;
        }
    }
    out.line(format!("{:012x}", range.end));
    out.finish();
    Ok(code_of(&opened.notes))
}

struct Lines<'a> {
    out: &'a mut Out,
    last: Option<Vec<u8>>,
    folded: bool,
}

impl Lines<'_> {
    fn line(&mut self, offset: u64, bytes: &[u8]) {
        if bytes.len() == 16 && self.last.as_deref() == Some(bytes) {
            if !self.folded {
                self.out.line("*");
                self.folded = true;
            }
            return;
        }
        self.folded = false;
        self.last = Some(bytes.to_vec());
        let mut text = format!("{offset:012x} ");
        for i in 0..16 {
            if i % 8 == 0 {
                text.push(' ');
            }
            match bytes.get(i) {
                Some(byte) => {
                    let _ = write!(text, "{byte:02x} ");
                }
                None => text.push_str("   "),
            }
        }
        text.push_str(" |");
        text.extend(bytes.iter().map(|&b| if (0x20..0x7f).contains(&b) { b as char } else { '.' }));
        text.push('|');
        self.out.line(text);
    }
}
