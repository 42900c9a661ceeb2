//! `adit df`: capacity and free space.

use super::shown;
use crate::exit;
use crate::output::{self, Out};
use crate::session::{Session, code_of};
use crate::units::human_bytes;
use serde_json::json;
use std::ffi::OsString;

/// Shows every datastore.
pub fn run(session: &Session, paths: &[OsString]) -> u8 {
    let (mut rows, mut documents, mut code) = (Vec::new(), Vec::new(), exit::GOOD);
    for path in paths {
        let found = session
            .open_files(path)
            .and_then(|(opened, files)| Ok((files.fs.space()?, files.fs.identity(), opened)));
        let (space, identity, opened) = match found {
            Ok(found) => found,
            Err(error) => {
                let action = format!("measure {}", shown(path));
                code = exit::worse(code, session.fail(&action, &error));
                continue;
            }
        };
        code = exit::worse(code, code_of(&opened.notes));
        let used = space.total_bytes.saturating_sub(space.free_bytes);
        let percent = (u128::from(used) * 100).div_ceil(u128::from(space.total_bytes.max(1)));
        let nodes_used = space.nodes_total.saturating_sub(space.nodes_free);
        let size = |bytes| {
            if output::on_terminal() { human_bytes(bytes) } else { format!("{bytes}") }
        };
        rows.push(vec![
            identity.label.clone(),
            identity.format.clone(),
            size(space.total_bytes),
            size(used),
            size(space.free_bytes),
            format!("{percent}%"),
            nodes_used.to_string(),
            space.nodes_free.to_string(),
            opened.locator.to_string(),
        ]);
        documents.push(json!({
            "path": opened.locator.to_string(),
            "label": identity.label,
            "format": identity.format,
            "uuid": identity.uuid,
            "block_size_bytes": space.block_size_bytes,
            "total_bytes": space.total_bytes,
            "used_bytes": used,
            "free_bytes": space.free_bytes,
            "nodes_total": space.nodes_total,
            "nodes_free": space.nodes_free,
            "notes": output::notes_json(&opened.notes),
        }));
    }
    let mut out = Out::new();
    if session.common.json {
        out.json(&json!({ "schema": "adit.df/1", "file_systems": documents }));
    } else if !rows.is_empty() {
        let header =
            ["label", "format", ">size", ">used", ">free", ">use", ">files", ">files free", "path"];
        output::table(&mut out, &header, &rows);
    }
    out.finish();
    code
}
