//! `adit hash`: hashes of a tree or a disk, and whether they still hold.

use super::tar::Archive;
use super::{diff, map::disk_of, shown};
use crate::args::Hash;
use crate::exit;
use crate::output::{self, Out};
use crate::progress::Bar;
use crate::session::{Session, code_of};
use crate::units::human_bytes;
use adit_core::{Disk, Error, Finding, NodeKind, Problem, Progress as _, Result};
use adit_open::At;
use adit_trees::{
    Expected, HashedNode, HashesHead, HashesTail, Tree, Verdict, hash_one, hash_tree, sum_line_of,
};
use serde_json::{Map, Value, json};
use std::ffi::OsStr;
use std::fs::File;
use std::io::{BufReader, Write};
use std::path::Path;
use std::sync::Arc;

/// What is there is not what the manifest says.
const DIFFERENT: u8 = 1;
/// Whether it is cannot be told.
const UNKNOWN: u8 = 2;

/// Hashes, or checks.
pub fn run(session: &Session, hash: &Hash) -> u8 {
    let result = match &hash.check {
        Some(manifest) => check(session, hash, manifest),
        None => make(session, hash),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            let code = session.fail(&format!("hash {}", shown(&hash.path)), &error);
            if hash.check.is_some() { UNKNOWN } else { code }
        }
    }
}

/// What is hashed.
struct Subject {
    what: What,
    locator: String,
    notes: Vec<Finding>,
}

enum What {
    Tree(Tree),
    Disk(Arc<dyn Disk>),
}

/// A directory is a tree; anything else is the disk a guest would see.
fn subject(session: &Session, path: &OsStr) -> Result<Subject> {
    let tree = |session: &Session| {
        let place = diff::place(session, path)?;
        let locator = place.tree.locator.clone();
        Ok(Subject { what: What::Tree(place.tree), locator, notes: place.notes })
    };
    if Path::new(path).is_dir() {
        return tree(session);
    }
    let opened = session.opener.follow(session.opener.open(path)?)?;
    if let At::Node { files, node, .. } = &opened.at
        && files.fs.metadata(*node)?.kind == NodeKind::Directory
    {
        return tree(session);
    }
    let (disk, opened) = disk_of(session, session.open_disk(path)?)?;
    let locator = opened.locator.to_string();
    Ok(Subject { what: What::Disk(disk), locator, notes: opened.notes })
}

type Tell<'a> = &'a mut dyn FnMut(HashedNode, Option<Error>) -> Result<()>;

impl Subject {
    fn hash(&self, session: &Session, tell: Tell<'_>) -> Result<HashesTail> {
        let bar = Bar::new(session.common.quiet || session.common.json);
        let interrupt = &session.interrupt;
        match &self.what {
            What::Tree(tree) => {
                let limits = &session.opener.options().limits;
                hash_tree(tree, limits, &bar, interrupt, tell)
            }
            What::Disk(disk) => {
                bar.subject(&self.locator);
                let node = hash_one(disk, &bar, interrupt)?;
                let hashed_bytes = node.size_bytes.unwrap_or(0);
                tell(node, None)?;
                Ok(HashesTail { complete: true, nodes: 1, hashed_bytes })
            }
        }
    }
}

fn make(session: &Session, hash: &Hash) -> Result<u8> {
    let subject = subject(session, &hash.path)?;
    let mut file = match &hash.output {
        Some(path) => Some(Archive::create(path, hash.force)?),
        None => None,
    };
    let mut out = Out::new();
    let as_lines = session.common.json || file.is_some();
    let mut line = |text: String| -> Result<()> {
        match &mut file {
            Some(file) => writeln!(file.out, "{text}")
                .map_err(|error| Error::io(Problem::Unwritable, "writing the manifest", &error)),
            None => {
                out.line(text);
                Ok(())
            }
        }
    };
    let own_name = subject.locator.rsplit('/').find(|part| !part.is_empty()).unwrap_or("-");
    let mut sums: Vec<u8> = Vec::new();
    if as_lines {
        line(json!(HashesHead::new(&subject.locator)).to_string())?;
    }
    let mut stdout = Out::new();
    let tail = subject.hash(session, &mut |node, error| {
        if let Some(error) = &error {
            let action = format!("hash {}", node.path);
            output::fail(session.common.json, &action, error);
        }
        if as_lines {
            return line(json!(node).to_string());
        }
        let path = node.path_bytes()?;
        let path = if path.is_empty() { own_name.as_bytes() } else { &path };
        sums.clear();
        match (&node.sha256, &node.data_blake3) {
            (Some(sha256), _) => sums = sum_line_of(path, sha256),
            (None, Some(_)) => {
                return Err(Error::unsupported(format!(
                    "{} has too many holes for SHA-256",
                    node.path
                ))
                .advise("`-o FILE` writes a manifest with a hash that leaves holes out"));
            }
            _ => {}
        }
        stdout.bytes(&sums);
        Ok(())
    })?;
    stdout.finish();
    if as_lines {
        line(json!(tail).to_string())?;
    }
    out.finish();
    if let Some(file) = file {
        file.finish()?;
    }
    if !session.common.json && !session.common.quiet && hash.output.is_some() {
        eprintln!("{} hashed, {} nodes", human_bytes(tail.hashed_bytes), tail.nodes);
    }
    let code = if tail.complete { exit::GOOD } else { exit::PARTIAL };
    Ok(exit::worse(code, code_of(&subject.notes)))
}

#[derive(Default)]
struct Counts {
    same: u64,
    differs: u64,
    new: u64,
    missing: u64,
    unknown: u64,
}

fn check(session: &Session, hash: &Hash, manifest: &Path) -> Result<u8> {
    let named = |error: std::io::Error| {
        Error::io(Problem::Unreadable, format!("opening {}", manifest.display()), &error)
    };
    let mut input = BufReader::new(File::open(manifest).map_err(named)?);
    let mut expected = Expected::read(&mut input)?;
    let subject = subject(session, &hash.path)?;
    let is_disk = matches!(subject.what, What::Disk(_));
    let mut report = Report { json: session.common.json, out: Out::new() };
    if session.common.json {
        let document = json!({
            "schema": "adit.hash-check/1", "manifest": manifest, "path": subject.locator,
        });
        report.out.line(document.to_string());
    }
    let mut counts = Counts::default();
    subject.hash(session, &mut |node, error| {
        let verdict = match is_disk {
            true => expected.check_disk(&node)?,
            false => expected.check(&node)?,
        };
        let path = node.path.clone();
        match (verdict, error) {
            (Verdict::New, None) if !expected.lists_all => {}
            (_, Some(error)) => {
                counts.unknown += 1;
                report.line(&path, "unknown", None, Some(&error));
            }
            (Verdict::Same, None) => counts.same += 1,
            (Verdict::Differs(aspect), None) => {
                counts.differs += 1;
                report.line(&path, "differs", Some(aspect), None);
            }
            (Verdict::New, None) => {
                counts.new += 1;
                report.line(&path, "new", None, None);
            }
            (Verdict::Unhashed, None) => {
                counts.unknown += 1;
                let error = Error::lost("the manifest has no hash of it: it was not readable then");
                report.line(&path, "unknown", None, Some(&error));
            }
        }
        Ok(())
    })?;
    for path in expected.missing() {
        counts.missing += 1;
        report.line(&adit_trees::shown(path), "missing", None, None);
    }
    let damaged = code_of(&subject.notes) != exit::GOOD;
    let same = counts.differs + counts.new + counts.missing == 0;
    report.summary(session, &counts, same);
    Ok(match same {
        _ if counts.unknown > 0 || damaged => UNKNOWN,
        true => exit::GOOD,
        false => DIFFERENT,
    })
}

struct Report {
    json: bool,
    out: Out,
}

impl Report {
    fn line(&mut self, path: &str, verdict: &str, aspect: Option<&str>, error: Option<&Error>) {
        if !self.json {
            let more = aspect.map(str::to_owned).or_else(|| error.map(Error::to_string));
            let more = more.map_or(String::new(), |more| format!("  ({more})"));
            return self.out.line(format!("{verdict}: {path}{more}"));
        }
        let mut map = Map::new();
        map.insert("path".into(), path.into());
        map.insert("verdict".into(), verdict.into());
        map.insert("aspect".into(), json!(aspect));
        map.insert("error".into(), json!(error.map(|error| output::error_json("hash", error))));
        self.out.line(Value::Object(map).to_string());
    }

    fn summary(mut self, session: &Session, counts: &Counts, same: bool) {
        if self.json {
            let summary = json!({ "summary": {
                "same": same && counts.unknown == 0,
                "checked": counts.same,
                "differs": counts.differs,
                "new": counts.new,
                "missing": counts.missing,
                "unknown": counts.unknown,
            }});
            self.out.line(summary.to_string());
        }
        self.out.finish();
        if !session.common.json && !session.common.quiet {
            eprintln!(
                "{} as the manifest has them, {} differ, {} new, {} missing, {} not known",
                counts.same, counts.differs, counts.new, counts.missing, counts.unknown
            );
        }
    }
}
