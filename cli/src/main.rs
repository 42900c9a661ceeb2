//! The `adit` command: parses arguments, calls a library, renders text or JSON.
#![forbid(unsafe_code)]

mod args;
mod exit;
mod output;
mod progress;
mod session;
mod units;
mod verbs;

use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments = args::Arguments::parse();
    let session = session::Session::new(&arguments);
    let code = match session {
        Ok(session) => verbs::run(arguments.verb, &session),
        Err(error) => output::fail(arguments.common.json, "start", &error),
    };
    ExitCode::from(code)
}
