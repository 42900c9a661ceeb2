//! `adit diff`: two trees.

use super::shown;
use crate::args::{Diff, Ignore};
use crate::exit;
use crate::output::{self, Out, put_bytes};
use crate::progress::Bar;
use crate::session::{Session, code_of};
use crate::units::{human_bytes, moment};
use adit_core::{Error, FileSystem as _, Metadata, NodeKind, Problem, Result};
use adit_open::At;
use adit_trees::{Aspect, DiffOptions, Difference, HostTree, Summary, Tree, Which};
use serde_json::{Map, Value, json};
use std::ffi::{OsStr, OsString};
use std::path::Path;

/// The trees differ.
const DIFFERENT: u8 = 1;
/// Whether they differ cannot be told; as `diff` and `adit compare` have it.
const UNKNOWN: u8 = 2;

/// Compares two trees.
pub fn run(session: &Session, diff: &Diff) -> u8 {
    match compare(session, diff) {
        Ok(code) => code,
        Err(error) => {
            let action = format!("compare {} and {}", shown(&diff.first), shown(&diff.second));
            session.fail(&action, &error);
            UNKNOWN
        }
    }
}

/// A place from where a tree is taken.
pub struct Place {
    /// The tree.
    pub tree: Tree,
    /// What goes before the paths of the tree to make a place of them.
    pub prefix: OsString,
    /// What the layers above had to say.
    pub notes: Vec<adit_core::Finding>,
}

/// Opens a directory or file of a file system, or a folder of the host.
///
/// Errors: those of opening; `Invalid` with the choices where there are several file systems.
pub fn place(session: &Session, path: &OsStr) -> Result<Place> {
    let with_slash = |text: OsString| {
        let mut prefix = text;
        if !prefix.as_encoded_bytes().ends_with(b"/") {
            prefix.push("/");
        }
        prefix
    };
    if Path::new(path).is_dir() {
        let fs = HostTree::open(Path::new(path), &session.opener.options().reads)?;
        let node = fs.root();
        let tree = Tree { fs, node, locator: shown(path) };
        return Ok(Place { tree, prefix: with_slash(path.to_owned()), notes: Vec::new() });
    }
    let (opened, _) = session.open_files(path)?;
    let opened = session.opener.follow(opened)?;
    let At::Node { files, node, .. } = &opened.at else {
        return Err(Error::unsupported("it holds no file system"));
    };
    let (fs, node, locator) = (files.fs.clone(), *node, opened.locator.to_string());
    let prefix = opened.locator.to_os_string();
    let is_directory = fs.metadata(node)?.kind == NodeKind::Directory;
    let prefix = if is_directory { with_slash(prefix) } else { prefix };
    Ok(Place { tree: Tree { fs, node, locator }, prefix, notes: opened.notes })
}

fn directory(session: &Session, path: &OsStr) -> Result<Place> {
    let place = place(session, path)?;
    if place.tree.fs.metadata(place.tree.node)?.kind != NodeKind::Directory {
        let detail = format!("{} is no directory", place.tree.locator);
        return Err(Error::invalid(Problem::BadValue, detail)
            .advise("`adit compare` compares files and disks"));
    }
    Ok(place)
}

fn compare(session: &Session, diff: &Diff) -> Result<u8> {
    let named = |path: &OsStr| directory(session, path).map_err(|e| e.in_layer(shown(path)));
    let (first, second) = (named(&diff.first)?, named(&diff.second)?);
    let ignore = |what| diff.ignore.contains(&what);
    let options = DiffOptions {
        content_only: diff.content_only,
        ignore_mode: ignore(Ignore::Mode),
        ignore_owner: ignore(Ignore::Owner),
        ignore_times: ignore(Ignore::Times),
        ignore_xattrs: ignore(Ignore::Xattrs),
        limits: session.opener.options().limits.clone(),
    };
    let as_json = session.common.json;
    let mut out = Out::new();
    if as_json {
        out.line(
            json!({
                "schema": "adit.diff/1",
                "first": first.tree.locator,
                "second": second.tree.locator,
                "notes": [output::notes_json(&first.notes), output::notes_json(&second.notes)],
            })
            .to_string(),
        );
    }
    let bar = Bar::new(session.common.quiet || as_json);
    let (a, b) = (&first.tree, &second.tree);
    let summary = adit_trees::diff(a, b, &options, &bar, &session.interrupt, &mut |found| {
        match as_json {
            true => out.line(difference_json(&found).to_string()),
            false => out.line(difference_text(&found)),
        }
        Ok(())
    })?;
    bar.finish();
    if as_json {
        out.line(json!({ "summary": summary_json(&summary) }).to_string());
    }
    out.finish();
    if !as_json && !session.common.quiet {
        eprintln!("{}", summary_text(&summary));
    }
    let damaged = code_of(&first.notes) != exit::GOOD || code_of(&second.notes) != exit::GOOD;
    Ok(match summary {
        _ if summary.unknown > 0 || damaged => UNKNOWN,
        _ if summary.is_same() => exit::GOOD,
        _ => DIFFERENT,
    })
}

/// One difference as a line.
pub fn difference_text(difference: &Difference) -> String {
    let shown = adit_trees::shown;
    match difference {
        Difference::Added(found) => format!("+ {}", shown(&found.path)),
        Difference::Removed(found) => format!("- {}", shown(&found.path)),
        Difference::Changed { path, first, second, aspects } => {
            let aspects: Vec<_> = aspects.iter().map(|a| aspect_text(a, first, second)).collect();
            format!("~ {}  ({})", shown(path), aspects.join(", "))
        }
        Difference::Unknown { path, tree, error } => {
            let tree = tree.map_or("", |tree| match tree {
                Which::First => "first: ",
                Which::Second => "second: ",
            });
            format!("? {}  ({tree}{error})", shown(path))
        }
    }
}

fn aspect_text(aspect: &Aspect, a: &Metadata, b: &Metadata) -> String {
    let word = aspect.word();
    match aspect {
        Aspect::Kind => format!("{} -> {}", a.kind.word(), b.kind.word()),
        Aspect::Size => format!("{word} {} -> {}", a.size_bytes, b.size_bytes),
        Aspect::Content(at) => format!("{word} from byte {at:#x}"),
        Aspect::Mode => format!("{word} {:04o} -> {:04o}", a.mode, b.mode),
        Aspect::Owner => format!("{word} {}:{} -> {}:{}", a.uid, a.gid, b.uid, b.gid),
        Aspect::Modified => {
            format!("{word} {} -> {}", moment(a.modified), moment(b.modified))
        }
        Aspect::Xattrs(names) => format!("{word} {}", names.join(" ")),
        Aspect::Target | Aspect::Device => word.to_owned(),
    }
}

/// One difference as a document.
pub fn difference_json(difference: &Difference) -> Value {
    let mut map = Map::new();
    let mut put = |path: &[u8], change: &str| {
        put_bytes(&mut map, "path", path);
        map.insert("change".into(), change.into());
    };
    match difference {
        Difference::Added(found) => {
            put(&found.path, "added");
            map.insert("second".into(), output::metadata_json(&found.metadata).into());
        }
        Difference::Removed(found) => {
            put(&found.path, "removed");
            map.insert("first".into(), output::metadata_json(&found.metadata).into());
        }
        Difference::Changed { path, first, second, aspects } => {
            put(path, "changed");
            let words: Vec<_> = aspects.iter().map(Aspect::word).collect();
            map.insert("aspects".into(), words.into());
            for aspect in aspects {
                match aspect {
                    Aspect::Content(at) => {
                        drop(map.insert("differs_at_bytes".into(), (*at).into()))
                    }
                    Aspect::Xattrs(names) => drop(map.insert("xattrs".into(), json!(names))),
                    _ => {}
                }
            }
            map.insert("first".into(), output::metadata_json(first).into());
            map.insert("second".into(), output::metadata_json(second).into());
        }
        Difference::Unknown { path, tree, error } => {
            put(path, "unknown");
            let tree = tree.map(|tree| if tree == Which::First { "first" } else { "second" });
            map.insert("tree".into(), json!(tree));
            map.insert("error".into(), output::error_json("compare", error));
        }
    }
    Value::Object(map)
}

/// The counts as a document.
pub fn summary_json(summary: &Summary) -> Value {
    json!({
        "same": summary.is_same() && summary.unknown == 0,
        "added": summary.added,
        "removed": summary.removed,
        "changed": summary.changed,
        "equal": summary.same,
        "unknown": summary.unknown,
        "compared_bytes": summary.effort.compared_bytes,
        "shared_bytes": summary.effort.shared_bytes,
    })
}

/// The counts as a line.
pub fn summary_text(summary: &Summary) -> String {
    let mut text = format!(
        "{} added, {} removed, {} changed, {} the same",
        summary.added, summary.removed, summary.changed, summary.same
    );
    if summary.unknown > 0 {
        text.push_str(&format!(", {} not known", summary.unknown));
    }
    text.push_str(&format!(
        "; {} compared, {} known to be equal unread",
        human_bytes(summary.effort.compared_bytes),
        human_bytes(summary.effort.shared_bytes)
    ));
    text
}
