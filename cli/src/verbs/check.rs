//! `adit check`: every invariant, changing nothing.

use super::shown;
use crate::exit;
use crate::output::{self, Out};
use crate::session::Session;
use adit_core::{Check, Finding, Result, Severity};
use adit_open::{At, Opened};
use serde_json::{Value, json};
use std::ffi::{OsStr, OsString};

/// What was checked, and what was found.
struct Checked {
    opened: Opened,
    findings: Vec<Finding>,
    is_image: bool,
}

impl Checked {
    /// As `qemu-img check` for images: 2 corrupt, 3 leaks; otherwise 3 for any finding.
    fn code(&self) -> u8 {
        let is_leak = |finding: &Finding| finding.code.ends_with("-leak");
        if self.findings.is_empty() {
            exit::GOOD
        } else if self.is_image && !self.findings.iter().all(is_leak) {
            exit::CORRUPT
        } else {
            exit::PARTIAL
        }
    }
}

/// Checks every image and datastore.
pub fn run(session: &Session, paths: &[OsString]) -> u8 {
    let (mut out, mut documents, mut code) = (Out::new(), Vec::new(), exit::GOOD);
    for path in paths {
        match check(session, path) {
            Ok(checked) => {
                if !session.common.json {
                    text(&mut out, &checked.opened, &checked.findings);
                }
                code = exit::worse(code, checked.code());
                let findings = checked.findings.iter().map(output::finding_json);
                documents.push(json!({
                    "path": checked.opened.locator.to_string(),
                    "findings": findings.collect::<Vec<Value>>(),
                    "notes": output::notes_json(&checked.opened.notes),
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

/// An image by itself; of everything else all findings: of the tables and layers passed on the
/// way, of the volume, of the file system.
fn check(session: &Session, path: &OsStr) -> Result<Checked> {
    let here = session.opener.open(path)?;
    let mut findings: Vec<Finding> = Vec::new();
    let mut take = |finding: Finding| findings.push(finding);
    if session.opener.check_image(&here, &mut take, &session.interrupt)? {
        findings.retain(|finding| finding.severity > Severity::Info);
        return Ok(Checked { opened: here, findings, is_image: true });
    }
    let opened = session.opener.descend(here)?;
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
        let guest = files.guest.as_ref().and_then(|guest| guest.check.as_deref());
        let vmfs = files.vmfs.as_deref().map(|vmfs| vmfs as &dyn Check);
        if let Some(fs) = guest.or(vmfs) {
            let mut found = Vec::new();
            fs.check(&mut |finding| found.push(finding), &session.interrupt)?;
            // One damage can show in many places; each is told once, and no list is searched.
            findings.extend(found.into_iter().filter(|f| f.severity > Severity::Info));
        }
    }
    Ok(Checked { opened, findings, is_image: false })
}

fn text(out: &mut Out, opened: &Opened, findings: &[Finding]) {
    for finding in findings {
        out.line(finding.to_string());
    }
    let formats: Vec<&str> =
        opened.layers.iter().skip(1).map(|layer| layer.format.as_str()).collect();
    let count = findings.len();
    let plural = if count == 1 { "" } else { "s" };
    let of = if formats.is_empty() { String::new() } else { format!(" ({})", formats.join(", ")) };
    out.line(format!("{}: {count} finding{plural}{of}", opened.locator));
    for note in opened.notes.iter().filter(|note| note.severity == Severity::Info) {
        out.line(format!("note: {}", note.text));
    }
}
