//! `adit check`: every invariant, changing nothing.

use super::shown;
use crate::exit;
use crate::output::{self, Out};
use crate::session::Session;
use adit_core::{Check, Finding, Result, Severity};
use adit_open::{At, Opened};
use serde_json::{Value, json};
use std::ffi::{OsStr, OsString};

/// Checks every datastore; findings give exit code 3.
pub fn run(session: &Session, paths: &[OsString]) -> u8 {
    let (mut out, mut documents, mut code) = (Out::new(), Vec::new(), exit::GOOD);
    for path in paths {
        match check(session, path) {
            Ok((opened, findings)) => {
                if !session.common.json {
                    text(&mut out, &opened, &findings);
                }
                if !findings.is_empty() {
                    code = exit::worse(code, exit::PARTIAL);
                }
                documents.push(json!({
                    "path": opened.locator.to_string(),
                    "findings": findings.iter().map(output::finding_json).collect::<Vec<Value>>(),
                    "notes": output::notes_json(&opened.notes),
                }));
            }
            Err(error) => {
                let action = format!("check {}", shown(path));
                code = exit::worse(code, session.fail(&action, &error));
            }
        }
    }
    if session.common.json {
        out.json(&json!({ "schema": "adit.check/1", "checked": documents }));
    }
    out.finish();
    code
}

/// All findings: of the tables and layers passed on the way, of the volume, of the file system.
fn check(session: &Session, path: &OsStr) -> Result<(Opened, Vec<Finding>)> {
    let opened = session.opener.descend(session.opener.open(path)?)?;
    let mut findings: Vec<Finding> = Vec::new();
    let add = |findings: &mut Vec<Finding>, finding: Finding| {
        let known = |have: &Finding| (&have.code, &have.text) == (&finding.code, &finding.text);
        if finding.severity > Severity::Info && !findings.iter().any(known) {
            findings.push(finding);
        }
    };
    for note in &opened.notes {
        add(&mut findings, note.clone());
    }
    if let At::Node { files, .. } = &opened.at {
        adit_vmfs_lvm::check(&files.members, &mut |finding| add(&mut findings, finding))?;
        if let Some(vmfs) = &files.vmfs {
            let mut found = Vec::new();
            vmfs.check(&mut |finding| found.push(finding), &session.interrupt)?;
            // One damage can show in many places; each is told once, and no list is searched.
            findings.extend(found.into_iter().filter(|f| f.severity > Severity::Info));
        }
    }
    Ok((opened, findings))
}

fn text(out: &mut Out, opened: &Opened, findings: &[Finding]) {
    for finding in findings {
        out.line(finding.to_string());
    }
    let formats: Vec<&str> =
        opened.layers.iter().skip(1).map(|layer| layer.format.as_str()).collect();
    let count = findings.len();
    let plural = if count == 1 { "" } else { "s" };
    out.line(format!("{}: {} finding{plural} ({})", opened.locator, count, formats.join(", ")));
    for note in opened.notes.iter().filter(|note| note.severity == Severity::Info) {
        out.line(format!("note: {}", note.text));
    }
}
