//! `adit resize` and `adit compact`.

use super::{code, edit, report};
use crate::args::Force;
use crate::session::Session;
use crate::units::{human_bytes, parse_bytes};
use adit_core::{DiskExt, Error, Problem, Result};
use serde_json::json;
use std::path::Path;

/// Changes the size of a disk.
pub fn resize(session: &Session, image: &Path, size: &str, shrink: bool, force: Force) -> u8 {
    let resized = change(session, image, size, shrink, force);
    code(session, &format!("resize {}", image.display()), resized)
}

fn change(session: &Session, image: &Path, size: &str, shrink: bool, force: Force) -> Result<()> {
    let edit = edit(session, image, force)?;
    let old = edit.image.size_bytes();
    let new = wanted(size, old)?;
    if new < old && !shrink {
        let detail = format!("from {} to {}", human_bytes(old), human_bytes(new));
        return Err(Error::invalid(Problem::Refused, format!("the disk would be cut: {detail}"))
            .advise("what is cut off is gone; --shrink does it"));
    }
    edit.image.resize(new)?;
    edit.image.close()?;
    let document = json!({
        "schema": "adit.resize/1", "image": image, "old_bytes": old, "virtual_bytes": new,
    });
    report(session, &document, &format!("{} to {}", human_bytes(old), human_bytes(new)));
    Ok(())
}

fn wanted(text: &str, old: u64) -> Result<u64> {
    let bad = |why: String| Error::invalid(Problem::BadValue, format!("size {text:?}: {why}"));
    let (sign, digits) = match text.as_bytes().first() {
        Some(b'+') => (1, &text[1..]),
        Some(b'-') => (-1, &text[1..]),
        _ => (0, text),
    };
    let bytes = parse_bytes(digits).map_err(bad)?;
    match sign {
        0 => Some(bytes),
        1 => old.checked_add(bytes),
        _ => old.checked_sub(bytes),
    }
    .ok_or_else(|| bad("no disk has that size".to_owned()))
}

/// Makes a file smaller.
pub fn compact(session: &Session, image: &Path, force: Force) -> u8 {
    let action = format!("compact {}", image.display());
    let done = session.opener.compact(image, force.into(), &session.interrupt).map(|freed| {
        let document = json!({ "schema": "adit.compact/1", "image": image, "freed_bytes": freed });
        report(session, &document, &format!("{} given back", human_bytes(freed)));
    });
    code(session, &action, done)
}
