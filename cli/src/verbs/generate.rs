//! Completions, manual pages, the list of limits: all made from the command line itself.

use crate::args::Arguments;
use crate::exit;
use crate::output::{self, Out};
use crate::session::Session;
use adit_core::{Error, Limits, Problem};
use clap::CommandFactory;
use serde_json::{Value, json};
use std::path::Path;

/// Prints a completion script.
pub fn completions(shell: clap_complete::Shell) -> u8 {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "adit", &mut script);
    let mut out = Out::new();
    out.bytes(&script);
    out.finish();
    exit::GOOD
}

/// Writes `adit.1` and a page for every verb.
pub fn man(session: &Session, directory: &Path) -> u8 {
    let written = std::fs::create_dir_all(directory)
        .and_then(|()| clap_mangen::generate_to(Arguments::command(), directory));
    match written {
        Ok(()) => exit::GOOD,
        Err(error) => {
            let what = directory.display().to_string();
            session.fail("write the manual pages", &Error::io(Problem::Unwritable, what, &error))
        }
    }
}

/// Lists the limits.
pub fn limits(session: &Session) -> u8 {
    let mut out = Out::new();
    if session.common.json {
        let list: Vec<Value> = Limits::ALL
            .iter()
            .map(|(name, value, meaning)| {
                json!({ "name": name, "default": value, "meaning": meaning.trim() })
            })
            .collect();
        out.json(&json!({ "schema": "adit.limits/1", "limits": list }));
    } else {
        let row = |limit: &(&str, u64, &str)| {
            vec![limit.0.to_owned(), limit.1.to_string(), limit.2.trim().to_owned()]
        };
        let rows: Vec<_> = Limits::ALL.iter().map(row).collect();
        output::table(&mut out, &["limit", ">default", "meaning"], &rows);
    }
    out.finish();
    exit::GOOD
}
