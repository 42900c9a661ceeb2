//! `adit cat`: files to standard output.

use super::{map::disk_of, shown};
use crate::args::Range;
use crate::exit;
use crate::session::{Session, code_of};
use adit_core::{DiskExt, Result};
use std::ffi::{OsStr, OsString};
use std::os::fd::AsFd;

/// Writes every path in turn.
pub fn run(session: &Session, paths: &[OsString], range: &Range) -> u8 {
    let mut code = exit::GOOD;
    for path in paths {
        match one(session, path, range) {
            Ok((done, true)) => code = exit::worse(code, done),
            // The reader has seen enough, as `head` does.
            Ok((_, false)) => return code,
            Err(error) => {
                code = exit::worse(code, session.fail(&format!("read {}", shown(path)), &error));
                if session.interrupt.raised() {
                    break;
                }
            }
        }
    }
    code
}

fn one(session: &Session, path: &OsStr, range: &Range) -> Result<(u8, bool)> {
    let (disk, opened) = disk_of(session, session.open(path)?)?;
    let range = range.on(disk.size_bytes());
    let stdout = std::io::stdout();
    let mut out = stdout.lock();
    let streamed =
        adit_copy::stream(&disk, range, &mut out, Some(stdout.as_fd()), &session.interrupt)?;
    Ok((code_of(&opened.notes), !streamed.reader_gone))
}
