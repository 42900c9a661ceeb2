//! `adit repair`: puts an image right, in place.

use super::report;
use crate::args::Force;
use crate::exit;
use crate::output;
use crate::session::Session;
use adit_core::Finding;
use adit_open::Repair;
use serde_json::json;
use std::path::Path;

/// Repairs one image; what remains gives exit code 3.
pub fn run(session: &Session, image: &Path, leaks: bool, errors: bool, force: Force) -> u8 {
    let mut findings: Vec<Finding> = Vec::new();
    let what = Repair { leaks, errors };
    let done = session.opener.repair(image, force.into(), what, &mut |found| findings.push(found));
    let done = match done {
        Ok(done) => done,
        Err(error) => return session.fail(&format!("repair {}", image.display()), &error),
    };
    if !session.common.json && !session.common.quiet {
        findings.iter().for_each(|finding| eprintln!("{finding}"));
    }
    let document = json!({
        "schema": "adit.repair/1",
        "image": image,
        "fixed": done.fixed,
        "left": done.left,
        "findings": output::notes_json(&findings),
    });
    let line = match (done.fixed, done.left) {
        (0, 0) => "nothing was wrong".to_owned(),
        (fixed, 0) => format!("{fixed} put right"),
        (fixed, left) => format!("{fixed} put right, {left} left"),
    };
    report(session, &document, &line);
    if done.left > 0 { exit::PARTIAL } else { exit::GOOD }
}
