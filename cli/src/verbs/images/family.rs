//! `adit tree FOLDER`: which image stands on which.

use crate::exit;
use crate::output::{self, Out};
use crate::session::Session;
use crate::units::human_bytes;
use adit_core::{DiskExt, Result};
use adit_open::{At, ParentState, Relative};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// Shows the images of a host folder; a missing parent gives exit code 3.
pub fn show(session: &Session, folder: &Path, out: &mut Out) -> Result<(Value, u8)> {
    let family = session.opener.family(folder)?;
    let mut code = exit::GOOD;
    let mut list = Vec::new();
    for relative in &family {
        let (parent, error) = match &relative.parent {
            ParentState::None => (None, None),
            ParentState::Found(path) => (Some(path.clone()), None),
            ParentState::Missing(error) => {
                code = exit::PARTIAL;
                (None, Some(output::error_json("find the parent", error)))
            }
        };
        list.push(json!({
            "image": relative.path,
            "format": relative.format,
            "file_bytes": relative.file_bytes,
            "virtual_bytes": virtual_size(session, &relative.path),
            "parent": parent,
            "parent_missing": error,
        }));
    }
    if !session.common.json {
        out.line(folder.display().to_string());
        let view = View { session, folder, family: &family };
        let mut roots: Vec<PathBuf> = Vec::new();
        for relative in &family {
            let root = match &relative.parent {
                ParentState::None | ParentState::Missing(_) => relative.path.clone(),
                // A raw parent is no image by itself; it is shown where others stand on it.
                ParentState::Found(path) if !view.is_image(path) => path.clone(),
                ParentState::Found(_) => continue,
            };
            if !roots.contains(&root) {
                roots.push(root);
            }
        }
        for (at, root) in roots.iter().enumerate() {
            view.branch(out, root, "", at + 1 == roots.len(), 0);
        }
    }
    Ok((json!({ "path": folder, "images": list }), code))
}

struct View<'a> {
    session: &'a Session,
    folder: &'a Path,
    family: &'a [Relative],
}

impl View<'_> {
    fn is_image(&self, path: &Path) -> bool {
        self.family.iter().any(|relative| relative.path == *path)
    }

    fn branch(&self, out: &mut Out, path: &Path, indent: &str, is_last: bool, depth: usize) {
        let relative = self.family.iter().find(|relative| relative.path == *path);
        let name = path.strip_prefix(self.folder).unwrap_or(path).display();
        let format = relative.map_or("raw", |relative| relative.format);
        let size = virtual_size(self.session, path).map(human_bytes).unwrap_or_default();
        let mut line = format!("{indent}{}{name}  {format}  {size}", tip(is_last));
        if let Some(ParentState::Missing(error)) = relative.map(|relative| &relative.parent) {
            line.push_str(&format!("  [parent missing: {}]", error.detail()));
        }
        out.line(line.trim_end());
        // Images that stand on each other in a circle were refused when their parents were looked for.
        if depth > 256 {
            return;
        }
        let is_child = |relative: &&Relative| matches!(&relative.parent, ParentState::Found(parent) if parent == path);
        let children: Vec<&Relative> = self.family.iter().filter(is_child).collect();
        let indent = format!("{indent}{}", if is_last { "    " } else { "│   " });
        for (at, child) in children.iter().enumerate() {
            self.branch(out, &child.path, &indent, at + 1 == children.len(), depth + 1);
        }
    }
}

fn tip(is_last: bool) -> &'static str {
    if is_last { "└── " } else { "├── " }
}

/// Length of an image's disk, where it can be opened.
fn virtual_size(session: &Session, path: &Path) -> Option<u64> {
    let opened = session.opener.open(path.as_os_str()).ok()?;
    match session.opener.enter(opened.clone()).ok().unwrap_or(opened).at {
        At::Disk { disk, .. } | At::Volumes { disk, .. } => Some(disk.size_bytes()),
        At::Node { .. } => None,
    }
}
