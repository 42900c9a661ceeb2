//! `adit ls`: directories and volumes.

use super::list::Wanted;
use super::{list, shown};
use crate::args::Ls;
use crate::output::{self, Out, put_bytes};
use crate::session::{Session, code_of};
use crate::units::{human_bytes, moment, permissions};
use crate::{exit, verbs::list::Listed};
use adit_core::{Error, NodeId, NodeKind, Result, VolumeTable};
use adit_open::{At, Files, Opened};
use serde_json::{Map, Value, json};
use std::ffi::OsStr;

/// How many unreadable nodes of one directory are reported one by one.
const DAMAGED_SHOWN_MAX: usize = 3;

/// Lists every path.
pub fn run(session: &Session, ls: &Ls) -> u8 {
    let mut out = Out::new();
    let mut documents = Vec::new();
    let mut code = exit::GOOD;
    for path in &ls.paths {
        let human = !ls.bytes && output::on_terminal();
        let mut listing = Listing { session, ls, out: &mut out, human, code: exit::GOOD };
        match listing.path(path) {
            Ok(document) => documents.push(document),
            Err(error) => {
                code = exit::worse(code, session.fail(&format!("list {}", shown(path)), &error));
            }
        }
        code = exit::worse(code, listing.code);
    }
    if session.common.json {
        out.json(&json!({ "schema": "adit.ls/1", "listings": documents }));
    }
    out.finish();
    code
}

struct Listing<'a> {
    session: &'a Session,
    ls: &'a Ls,
    out: &'a mut Out,
    /// Sizes for people, not for programs.
    human: bool,
    code: u8,
}

impl Listing<'_> {
    fn path(&mut self, path: &OsStr) -> Result<Value> {
        let opened = self.session.open_inside(path)?;
        self.code = exit::worse(self.code, code_of(&opened.notes));
        let mut document = Map::new();
        let full = opened.locator.to_string();
        document.insert("path".into(), full.clone().into());
        document.insert("notes".into(), output::notes_json(&opened.notes));
        match &opened.at {
            At::Volumes { table, .. } => {
                let volumes = self.volumes(&opened, table);
                document.insert("volumes".into(), volumes);
            }
            At::Node { files, node, path, .. } => {
                if self.ls.paths.len() > 1 || self.ls.recursive {
                    self.text(&format!("{full}:"));
                }
                let entries = self.node(files, *node, path)?;
                document.insert("entries".into(), entries);
            }
            At::Disk { .. } => return Err(Error::unsupported("it holds no file system")),
        }
        Ok(Value::Object(document))
    }

    fn text(&mut self, line: &str) {
        if !self.session.common.json {
            self.out.line(line);
        }
    }

    fn volumes(&mut self, opened: &Opened, table: &VolumeTable) -> Value {
        let rows: Vec<Vec<String>> = table
            .volumes
            .iter()
            .map(|volume| {
                let start = volume.offset.map_or("-".into(), |offset| format!("{offset:#x}"));
                let size = self.size(volume.size_bytes());
                vec![volume.name.clone(), start, size, volume.kind.clone(), volume.label.clone()]
            })
            .collect();
        if !self.session.common.json {
            output::table(self.out, &["volume", ">start", ">size", "type", "label"], &rows);
            if !self.session.common.quiet && crate::output::on_terminal() {
                eprintln!(
                    "to go on: adit ls {}//NAME",
                    opened.locator.to_string().trim_end_matches('/')
                );
            }
        }
        super::info::volumes_json(table)
    }

    /// A directory's entries, or the one entry of a file.
    fn node(&mut self, files: &Files, node: NodeId, path: &[u8]) -> Result<Value> {
        let metadata = files.fs.metadata(node)?;
        if metadata.kind == NodeKind::Directory {
            return self.directory(files, node, path);
        }
        let name = path.rsplit(|&byte| byte == b'/').next().unwrap_or_default();
        let target = match metadata.kind {
            NodeKind::Symlink => files.fs.read_link(node).ok(),
            _ => None,
        };
        let name = adit_core::Name::new(name)?;
        let entry =
            adit_core::DirEntry { name, node, kind: metadata.kind, after: adit_core::Cursor(0) };
        let listed = [Listed { entry, metadata: Some(Ok(metadata)), target }];
        self.show(&listed);
        Ok(self.values(&listed).into())
    }

    /// The entries as JSON, when that is asked for.
    fn values(&self, listed: &[Listed]) -> Vec<Value> {
        if self.session.common.json { listed.iter().map(entry_json).collect() } else { Vec::new() }
    }

    /// A plain list needs names alone; a folder of 100 000 files then costs no node.
    fn wanted(&self) -> Wanted {
        if self.ls.long || self.session.common.json { Wanted::Nodes } else { Wanted::Names }
    }

    fn directory(&mut self, files: &Files, node: NodeId, path: &[u8]) -> Result<Value> {
        let wanted = self.wanted();
        let (listed, problems) = list::read(self.session, files, node, self.ls.all, wanted)?;
        self.problems(path, &problems);
        self.show(&listed);
        let mut entries = self.values(&listed);
        if self.ls.recursive {
            self.below(files, path, &listed, &mut entries, 1)?;
        }
        Ok(Value::Array(entries))
    }

    fn below(
        &mut self,
        files: &Files,
        path: &[u8],
        listed: &[Listed],
        entries: &mut [Value],
        depth: u64,
    ) -> Result<()> {
        for (index, listed) in listed.iter().enumerate() {
            if listed.kind() != NodeKind::Directory || listed.error().is_some() {
                continue;
            }
            let mut inner = path.to_vec();
            if !inner.is_empty() {
                inner.push(b'/');
            }
            inner.extend_from_slice(listed.entry.name.as_bytes());
            self.text("");
            self.text(&format!("{}:", String::from_utf8_lossy(&inner)));
            if depth >= self.session.opener.options().limits.directory_depth_max {
                self.problems(
                    &inner,
                    &[Error::limit("directory_depth_max", "the tree is too deep")],
                );
                continue;
            }
            let (children, problems) = match list::read(
                self.session,
                files,
                listed.entry.node,
                self.ls.all,
                self.wanted(),
            ) {
                Ok(read) => read,
                Err(error) => {
                    self.session.interrupt.check()?;
                    self.problems(&inner, &[error]);
                    continue;
                }
            };
            self.problems(&inner, &problems);
            self.show(&children);
            let mut inside = self.values(&children);
            self.below(files, &inner, &children, &mut inside, depth + 1)?;
            if let Some(Value::Object(map)) = entries.get_mut(index) {
                map.insert("entries".into(), Value::Array(inside));
            }
        }
        Ok(())
    }

    fn problems(&mut self, path: &[u8], problems: &[Error]) {
        for problem in problems {
            self.code = exit::worse(self.code, exit::PARTIAL);
            let action = format!("list all of /{}", String::from_utf8_lossy(path));
            output::fail(self.session.common.json, &action, problem);
        }
    }

    fn size(&self, bytes: u64) -> String {
        if self.human { human_bytes(bytes) } else { bytes.to_string() }
    }

    fn show(&mut self, listed: &[Listed]) {
        let damaged = listed.iter().filter_map(|entry| Some((entry, entry.error()?)));
        for (count, (entry, error)) in damaged.enumerate() {
            self.code = exit::worse(self.code, exit::PARTIAL);
            if count == DAMAGED_SHOWN_MAX {
                let left = listed.iter().filter(|entry| entry.error().is_some()).count() - count;
                eprintln!(
                    "… and {left} more names whose nodes cannot be read; `--json` tells of each"
                );
                break;
            }
            let action = format!("read the node of {}", entry.entry.name);
            output::fail(self.session.common.json, &action, error);
        }
        if self.session.common.json {
            return;
        }
        if self.ls.long {
            let mut rows: Vec<_> = listed.iter().map(|entry| self.long_row(entry)).collect();
            let mut header = vec![">", "", ">", ">", ">", ">", "", ""];
            if !self.ls.inode {
                header.remove(0);
                rows.iter_mut().for_each(|row| drop(row.remove(0)));
            }
            output::table(self.out, &header, &rows);
        } else {
            for entry in listed {
                let slash = if entry.kind() == NodeKind::Directory { "/" } else { "" };
                let node = if self.ls.inode {
                    format!("{:>10} ", entry.entry.node.0)
                } else {
                    String::new()
                };
                self.out.line(format!("{node}{}{slash}", entry.entry.name));
            }
        }
    }

    fn long_row(&self, listed: &Listed) -> Vec<String> {
        let name = match &listed.target {
            Some(target) => {
                format!(
                    "{} -> {}",
                    listed.entry.name,
                    String::from_utf8_lossy(target).escape_debug()
                )
            }
            None => listed.entry.name.to_string(),
        };
        let node = if self.ls.inode { listed.entry.node.0.to_string() } else { String::new() };
        let Some(metadata) = listed.known() else {
            let unknown = || "?".to_owned();
            return vec![
                node,
                "?".into(),
                unknown(),
                unknown(),
                unknown(),
                unknown(),
                unknown(),
                name,
            ];
        };
        vec![
            node,
            format!("{}{}", metadata.kind.letter(), permissions(metadata.mode)),
            metadata.links.to_string(),
            format!("{}:{}", metadata.uid, metadata.gid),
            self.size(metadata.allocated_bytes),
            self.size(metadata.size_bytes),
            moment(metadata.modified),
            name,
        ]
    }
}

fn entry_json(listed: &Listed) -> Value {
    let mut map = Map::new();
    put_bytes(&mut map, "name", listed.entry.name.as_bytes());
    if let Some(metadata) = listed.known() {
        map.extend(output::metadata_json(metadata));
    }
    if let Some(error) = listed.error() {
        map.insert("node".into(), listed.entry.node.0.into());
        map.insert("kind".into(), listed.entry.kind.word().into());
        map.insert("error".into(), output::error_json("read the node", error));
    }
    if let Some(target) = &listed.target {
        put_bytes(&mut map, "target", target);
    }
    Value::Object(map)
}
