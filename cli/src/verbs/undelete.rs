//! `adit undelete`: deleted files, how much of each may be left, and their bytes.

use super::{map::disk_of, shown};
use crate::args::Undelete;
use crate::exit;
use crate::output::{self, Out, put_bytes};
use crate::progress::Bar;
use crate::session::{Session, code_of};
use crate::units::{human_bytes, moment};
use adit_copy::{Attributes, CopyOptions, Source, copy_file};
use adit_core::{Error, Problem, Result};
use adit_trees::{Confidence, DeletedFile};
use serde_json::{Map, Value, json};
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// Lists or copies deleted files.
pub fn run(session: &Session, undelete: &Undelete) -> u8 {
    match find(session, undelete) {
        Ok(code) => code,
        Err(error) => {
            session.fail(&format!("find deleted files on {}", shown(&undelete.path)), &error)
        }
    }
}

fn find(session: &Session, undelete: &Undelete) -> Result<u8> {
    let (disk, opened) = disk_of(session, session.open_disk(&undelete.path)?)?;
    let locator = opened.locator.to_string();
    if let Some(to) = &undelete.to {
        std::fs::create_dir_all(to).map_err(|error| {
            Error::io(Problem::Unwritable, format!("making {}", to.display()), &error)
        })?;
    }
    let mut out = Out::new();
    let as_json = session.common.json;
    if as_json {
        out.line(json!({ "schema": "adit.undelete/1", "path": locator }).to_string());
    }
    let mut code = code_of(&opened.notes);
    let (mut found, mut copied) = (0u64, 0u64);
    let limits = &session.opener.options().limits;
    adit_trees::undelete(&disk, limits, &session.interrupt, &mut |file| {
        found += 1;
        let wanted = file.confidence == Confidence::Good
            || (undelete.all && file.confidence != Confidence::None);
        let target = undelete.to.as_ref().filter(|_| wanted).map(|to| to.join(name_of(&file)));
        if let Some(target) = &target {
            match copy(session, &locator, &file, target) {
                Ok(()) => copied += 1,
                Err(error) => {
                    session.interrupt.check()?;
                    let action = format!("copy deleted file {}", label(&file));
                    code = exit::worse(code, exit::PARTIAL);
                    output::fail(as_json, &action, &error);
                }
            }
        }
        match as_json {
            true => out.line(file_json(&file, target.as_deref()).to_string()),
            false => out.line(text(&file)),
        }
        Ok(())
    })?;
    out.finish();
    if !as_json && !session.common.quiet {
        match &undelete.to {
            Some(to) => eprintln!("{found} found, {copied} copied to {}", to.display()),
            None => {
                eprintln!("{found} found; what is called good may still have been written over")
            }
        }
    }
    Ok(code)
}

fn copy(session: &Session, locator: &str, file: &DeletedFile, target: &Path) -> Result<()> {
    let data = file.data.clone()?;
    let name = format!("{locator} deleted file {}", label(file));
    let mut source = Source::whole(data, name);
    source.attributes = Attributes { modified: file.modified, ..Attributes::default() };
    let bar = Bar::new(session.common.quiet || session.common.json);
    copy_file(&source, target, &CopyOptions::default(), &bar, &session.interrupt)?;
    bar.finish();
    Ok(())
}

/// The number first: names are not unique, and not always known.
fn name_of(file: &DeletedFile) -> PathBuf {
    let mut name = file.node.to_string().into_bytes();
    if let Some(own) = &file.name {
        name.push(b'-');
        let plain = |byte: &u8| if matches!(byte, b'/' | 0) { b'_' } else { *byte };
        name.extend(own.iter().take(200).map(plain));
    }
    PathBuf::from(OsString::from_vec(name))
}

fn label(file: &DeletedFile) -> String {
    match &file.name {
        Some(name) => adit_trees::shown(name),
        None => format!("number {}", file.node),
    }
}

fn text(file: &DeletedFile) -> String {
    let size = match output::on_terminal() {
        true => human_bytes(file.size_bytes),
        false => file.size_bytes.to_string(),
    };
    let name = file.name.as_ref().map_or("?".to_owned(), |name| adit_trees::shown(name));
    let more = match (&file.data, file.confidence) {
        (Err(error), _) => format!("  ({})", error.detail()),
        (_, Confidence::Partial { reused_bytes }) if reused_bytes > 0 => {
            format!("  ({reused_bytes} bytes belong to other files)")
        }
        _ => String::new(),
    };
    format!(
        "{:<7} {:>10} {size:>12} {:>19} {name}{more}",
        file.confidence.word(),
        file.node,
        moment(file.deleted.or(file.modified)),
    )
}

fn file_json(file: &DeletedFile, target: Option<&Path>) -> Value {
    let mut map = Map::new();
    map.insert("node".into(), file.node.into());
    if let Some(name) = &file.name {
        put_bytes(&mut map, "name", name);
    }
    map.insert("size_bytes".into(), file.size_bytes.into());
    map.insert("modified".into(), json!(file.modified.map(|time| time.seconds)));
    map.insert("deleted".into(), json!(file.deleted.map(|time| time.seconds)));
    map.insert("source".into(), file.source.into());
    map.insert("confidence".into(), file.confidence.word().into());
    if let Confidence::Partial { reused_bytes } = file.confidence {
        map.insert("reused_bytes".into(), reused_bytes.into());
    }
    let error = file.data.as_ref().err().map(|error| output::error_json("recover", error));
    map.insert("error".into(), json!(error));
    map.insert("target".into(), json!(target));
    Value::Object(map)
}
