//! Verbs that make and change disk images; each opens, calls one library function and renders.

mod create;
pub mod family;
mod fields;
mod merge;
mod repair;
mod size;
mod snapshot;
mod write;

use crate::args::{Force, ImageVerb};
use crate::exit;
use crate::output::Out;
use crate::progress::Bar;
use crate::session::Session;
use adit_core::Result;
use adit_open::{Edit, Risks};
use serde_json::Value;
use std::path::Path;

/// Runs a verb and gives the exit code.
pub fn run(session: &Session, verb: &ImageVerb) -> u8 {
    match verb {
        ImageVerb::Create(create) => create::run(session, create),
        ImageVerb::Repair { image, leaks, errors, force } => {
            repair::run(session, image, *leaks, *errors, *force)
        }
        ImageVerb::Snapshot(snapshot) => snapshot::run(session, snapshot),
        ImageVerb::Commit { image, keep, force } => merge::commit(session, image, *keep, *force),
        ImageVerb::Flatten { image, force } => merge::flatten(session, image, *force),
        ImageVerb::Rebase { image, onto, alone: _, is_unsafe, force } => {
            merge::rebase(session, image, onto.as_deref(), *is_unsafe, *force)
        }
        ImageVerb::Resize { image, size, shrink, force } => {
            size::resize(session, image, size, *shrink, *force)
        }
        ImageVerb::Compact { image, force } => size::compact(session, image, *force),
        ImageVerb::Modify { image, fields, force } => fields::run(session, image, fields, *force),
        ImageVerb::Write(write) => write::run(session, write),
    }
}

impl From<Force> for Risks {
    fn from(force: Force) -> Risks {
        Risks { held: force.force, children: force.force }
    }
}

/// Opens an image to be written, and tells what that had to say.
fn edit(session: &Session, path: &Path, force: Force) -> Result<Edit> {
    let edit = session.opener.edit(path, force.into())?;
    session.tell(&edit.notes);
    Ok(edit)
}

/// A progress line for one of these verbs.
fn bar(session: &Session, path: &Path) -> Bar {
    let bar = Bar::new(session.common.quiet || session.common.json);
    adit_core::Progress::subject(&bar, &path.display().to_string());
    bar
}

/// Reports what was done: a document, or a line for a person.
fn report(session: &Session, document: &Value, line: &str) {
    if session.common.json {
        let mut out = Out::new();
        out.json(document);
        out.finish();
    } else if !session.common.quiet {
        eprintln!("{line}");
    }
}

/// The exit code of a verb that either did its work or failed.
fn code(session: &Session, action: &str, result: Result<()>) -> u8 {
    match result {
        Ok(()) => exit::GOOD,
        Err(error) => session.fail(action, &error),
    }
}
