//! `adit explain`: every hop from a byte of a file down to the device.

use super::{map::disk_of, shown};
use crate::output::{self, Out};
use crate::session::{Session, code_of};
use crate::{exit, units};
use adit_core::{Disk, DiskExt, Error, Next, Problem, Result};
use serde_json::{Value, json};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

/// Explains one byte.
pub fn run(session: &Session, place: &OsStr) -> u8 {
    match explain(session, place) {
        Ok(code) => code,
        Err(error) => session.fail(&format!("explain {}", shown(place)), &error),
    }
}

/// Splits `PATH@OFFSET`.
fn split(place: &OsStr) -> Result<(OsString, u64)> {
    let bytes = place.as_bytes();
    let wrong = |why: String| {
        Error::invalid(Problem::BadValue, why)
            .advise("write PATH@OFFSET, for example lun.img//web01/web01-flat.vmdk@42G")
    };
    let at = bytes.iter().rposition(|&byte| byte == b'@');
    let (path, offset) = match at {
        Some(at) => (&bytes[..at], String::from_utf8_lossy(&bytes[at + 1..])),
        None => return Err(wrong("there is no @OFFSET".into())),
    };
    let offset = units::parse_bytes(&offset).map_err(wrong)?;
    Ok((OsStr::from_bytes(path).to_owned(), offset))
}

fn explain(session: &Session, place: &OsStr) -> Result<u8> {
    let (path, offset) = split(place)?;
    let (disk, opened) = disk_of(session, session.open(&path)?)?;
    disk.check_range(offset, 1)?;
    let mut out = Out::new();
    let mut hops: Vec<Value> = Vec::new();
    let (mut disk, mut at): (Arc<dyn Disk>, u64) = (disk, offset);
    let mut code = code_of(&opened.notes);
    if !session.common.json {
        out.line(format!("{}@{offset:#x}", opened.locator));
    }
    for _ in 0..session.opener.options().limits.layers_max {
        let hop = disk.explain(at)?;
        let (end, error) = match &hop.next {
            Next::Disk(..) => ("disk", None),
            Next::Here => ("here", None),
            Next::Zero => ("zero", None),
            Next::Lost(error) => ("lost", Some(error.clone())),
        };
        if !session.common.json {
            out.line(format!("  {:#x} of {}", hop.offset, hop.layer));
            hop.steps.iter().for_each(|step| out.line(format!("      {step}")));
            match &error {
                None if end == "zero" => {
                    out.line("      nothing is stored there: it reads as zero")
                }
                Some(error) => out.line(format!("      lost: {error}")),
                None => {}
            }
        }
        hops.push(json!({
            "layer": hop.layer,
            "offset_bytes": hop.offset,
            "steps": hop.steps,
            "end": end,
            "error": error.as_ref().map(|error| output::error_json("read", error)),
        }));
        if error.is_some() {
            code = exit::worse(code, exit::PARTIAL);
        }
        match hop.next {
            Next::Disk(next, offset) => (disk, at) = (next, offset),
            _ => break,
        }
    }
    if session.common.json {
        out.json(&json!({
            "schema": "adit.explain/1",
            "path": opened.locator.to_string(),
            "offset_bytes": offset,
            "hops": hops,
        }));
    }
    out.finish();
    Ok(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_at_sign_parts_path_and_offset() {
        let (path, offset) = split(OsStr::new("a@b//c@0x10")).unwrap();
        assert_eq!((path.to_str(), offset), (Some("a@b//c"), 16));
        assert!(split(OsStr::new("a//b")).is_err());
        assert!(split(OsStr::new("a//b@x")).is_err());
    }
}
