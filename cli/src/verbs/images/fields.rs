//! `adit modify`: fields of headers.

use super::{code, edit, report};
use crate::args::Force;
use crate::session::Session;
use adit_core::{Error, Problem, Result};
use serde_json::json;
use std::path::Path;

/// Changes fields, in the order given.
pub fn run(session: &Session, image: &Path, fields: &[String], force: Force) -> u8 {
    code(session, &format!("modify {}", image.display()), change(session, image, fields, force))
}

fn change(session: &Session, image: &Path, fields: &[String], force: Force) -> Result<()> {
    let mut pairs = Vec::new();
    for field in fields {
        let pair = field.split_once('=').ok_or_else(|| {
            Error::invalid(Problem::BadValue, format!("{field:?} is not FIELD=VALUE"))
        })?;
        pairs.push(pair);
    }
    let edit = edit(session, image, force)?;
    for (field, value) in &pairs {
        edit.image.modify(field, value)?;
    }
    edit.image.close()?;
    let document = json!({ "schema": "adit.modify/1", "image": image, "fields": fields });
    report(session, &document, &format!("{} changed", fields.join(", ")));
    Ok(())
}
