//! `adit write`: bytes into the disk of an image.

use super::{code, edit, report};
use crate::args::Write;
use crate::session::Session;
use crate::units::human_bytes;
use adit_core::{DiskExt, Error, Problem, Result};
use serde_json::json;
use std::fs::File;
use std::io::Read;

/// What is read and written at a time. Unit: bytes.
const PIECE_BYTES: usize = 1 << 20;

/// Writes, zeroes or discards one range.
pub fn run(session: &Session, write: &Write) -> u8 {
    code(session, &format!("write into {}", write.image.display()), put(session, write))
}

fn put(session: &Session, write: &Write) -> Result<()> {
    let source = write.source.as_deref();
    let mut input: Option<Box<dyn Read>> = match source {
        None => None,
        Some(path) if path.as_os_str() == "-" => Some(Box::new(std::io::stdin().lock())),
        Some(path) => Some(Box::new(File::open(path).map_err(|why| {
            Error::io(Problem::Unreadable, format!("opening {}", path.display()), &why)
        })?)),
    };
    let edit = edit(session, &write.image, write.force)?;
    let image = &edit.image;
    let range = |length: u64| write.offset..write.offset.saturating_add(length);
    let done = match (&mut input, write.zero, write.discard) {
        (Some(input), ..) => copy(session, input, image.as_ref(), write.offset)?,
        (None, Some(length), _) => {
            image.check_range(write.offset, length)?;
            image.write_zeroes(range(length))?;
            length
        }
        (None, None, length) => {
            let length = length.unwrap_or(0);
            image.check_range(write.offset, length)?;
            image.discard(range(length))?;
            length
        }
    };
    image.close()?;
    let document = json!({
        "schema": "adit.write/1", "image": write.image, "offset_bytes": write.offset, "written_bytes": done,
    });
    report(session, &document, &format!("{} written", human_bytes(done)));
    Ok(())
}

fn copy(
    session: &Session,
    input: &mut dyn Read,
    image: &dyn adit_core::WritableImage,
    offset: u64,
) -> Result<u64> {
    let mut buf = vec![0; PIECE_BYTES];
    let mut at = offset;
    loop {
        session.interrupt.check()?;
        let mut filled = 0;
        while filled < buf.len() {
            match input.read(&mut buf[filled..]) {
                Ok(0) => break,
                Ok(length) => filled += length,
                Err(why) if why.kind() == std::io::ErrorKind::Interrupted => {}
                Err(why) => return Err(Error::io(Problem::Unreadable, "reading the input", &why)),
            }
        }
        if filled == 0 {
            return Ok(at - offset);
        }
        image.write_at(&buf[..filled], at)?;
        at += filled as u64;
    }
}
