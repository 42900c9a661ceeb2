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
    // `mount` may have called, with arguments of its own.
    let arguments = match verbs::mount::arguments(args::is_verb) {
        verbs::mount::Call::Nothing => return ExitCode::SUCCESS,
        verbs::mount::Call::Refused(why) => {
            eprintln!("adit: {why}");
            return ExitCode::from(exit::ERROR);
        }
        verbs::mount::Call::Mount(given) => args::Arguments::parse_from(given),
    };
    let session = session::Session::new(&arguments);
    let code = match session {
        Ok(session) => verbs::run(arguments.verb, &session),
        Err(error) => output::fail(arguments.common.json, "start", &error),
    };
    ExitCode::from(code)
}
