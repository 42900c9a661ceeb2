//! `adit tree`: a directory tree with sizes.

use super::{list, shown};
use crate::output::{self, Out, put_bytes};
use crate::session::{Session, code_of};
use crate::units::human_bytes;
use crate::{exit, verbs::list::Listed};
use adit_core::{Error, NodeId, NodeKind, Result};
use adit_open::{At, Files};
use serde_json::{Map, Value, json};
use std::ffi::OsString;

/// Shows every path.
pub fn run(session: &Session, paths: &[OsString], depth: Option<usize>, all: bool) -> u8 {
    let depth_max = usize::try_from(session.opener.options().limits.directory_depth_max);
    let depth = depth.unwrap_or(usize::MAX).min(depth_max.unwrap_or(usize::MAX));
    let mut tree = Tree { session, all, depth, out: Out::new(), code: exit::GOOD, counts: (0, 0) };
    let mut documents = Vec::new();
    for path in paths {
        let folder = std::path::Path::new(path);
        if folder.is_dir() {
            match super::images::family::show(session, folder, &mut tree.out) {
                Ok((document, code)) => {
                    tree.code = exit::worse(tree.code, code);
                    documents.push(document);
                }
                Err(error) => {
                    let code = session.fail(&format!("show {}", shown(path)), &error);
                    tree.code = exit::worse(tree.code, code);
                }
            }
            continue;
        }
        match tree.path(path) {
            Ok(document) => documents.push(document),
            Err(error) => {
                let code = session.fail(&format!("show {}", shown(path)), &error);
                tree.code = exit::worse(tree.code, code);
            }
        }
    }
    if session.common.json {
        tree.out.json(&json!({ "schema": "adit.tree/1", "trees": documents }));
    }
    tree.out.finish();
    tree.code
}

struct Tree<'a> {
    session: &'a Session,
    all: bool,
    depth: usize,
    out: Out,
    code: u8,
    counts: (u64, u64),
}

impl Tree<'_> {
    fn path(&mut self, path: &OsString) -> Result<Value> {
        let (opened, files) = self.session.open_files(path)?;
        self.code = exit::worse(self.code, code_of(&opened.notes));
        let At::Node { node, .. } = opened.at else { return Ok(Value::Null) };
        self.line(&opened.locator.to_string());
        self.counts = (0, 0);
        let entries = if files.fs.metadata(node)?.kind == NodeKind::Directory {
            self.below(&files, node, "", 1)?
        } else {
            Value::Null
        };
        let (directories, others) = self.counts;
        self.line(&format!("{directories} directories, {others} files"));
        Ok(json!({
            "path": opened.locator.to_string(),
            "notes": output::notes_json(&opened.notes),
            "directories": directories,
            "files": others,
            "entries": entries,
        }))
    }

    fn line(&mut self, text: &str) {
        if !self.session.common.json {
            self.out.line(text);
        }
    }

    fn below(&mut self, files: &Files, dir: NodeId, indent: &str, level: usize) -> Result<Value> {
        let (listed, problems) =
            list::read(self.session, files, dir, self.all, list::Wanted::Nodes)?;
        for problem in &problems {
            self.damaged("list a directory", problem);
        }
        let mut values = Vec::new();
        let last = listed.len().saturating_sub(1);
        for (i, entry) in listed.iter().enumerate() {
            let (branch, follow) =
                if i == last { ("└── ", "    ") } else { ("├── ", "│   ") };
            self.line(&format!("{indent}{branch}{}", describe(entry)));
            let mut map = Map::new();
            put_bytes(&mut map, "name", entry.entry.name.as_bytes());
            if let Some(metadata) = entry.known() {
                map.extend(output::metadata_json(metadata));
            }
            if let Some(error) = entry.error() {
                self.damaged(&format!("read {}", entry.entry.name), error);
            }
            if entry.kind() == NodeKind::Directory {
                self.counts.0 += 1;
                if level < self.depth {
                    match self.below(
                        files,
                        entry.entry.node,
                        &format!("{indent}{follow}"),
                        level + 1,
                    ) {
                        Ok(inside) => {
                            map.insert("entries".into(), inside);
                        }
                        Err(error) => {
                            self.session.interrupt.check()?;
                            self.damaged(&format!("list {}", entry.entry.name), &error);
                        }
                    }
                }
            } else {
                self.counts.1 += 1;
            }
            values.push(Value::Object(map));
        }
        Ok(Value::Array(values))
    }

    fn damaged(&mut self, action: &str, error: &Error) {
        output::fail(self.session.common.json, action, error);
        self.code = exit::worse(self.code, exit::PARTIAL);
    }
}

fn describe(listed: &Listed) -> String {
    let name = &listed.entry.name;
    match (listed.known(), &listed.target) {
        (None, _) => format!("{name}  [unreadable]"),
        (Some(_), Some(target)) => {
            format!("{name} -> {}", String::from_utf8_lossy(target).escape_debug())
        }
        (Some(metadata), None) => match metadata.kind {
            NodeKind::Directory => format!("{name}/"),
            NodeKind::RawDevice => {
                format!("{name}  [raw device of {}]", human_bytes(metadata.size_bytes))
            }
            _ => {
                let size = human_bytes(metadata.size_bytes);
                let stored = human_bytes(metadata.allocated_bytes);
                if metadata.allocated_bytes < metadata.size_bytes && metadata.size_bytes > 65536 {
                    format!("{name}  [{size}, {stored} stored]")
                } else {
                    format!("{name}  [{size}]")
                }
            }
        },
    }
}
