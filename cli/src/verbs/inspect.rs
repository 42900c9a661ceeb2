//! `adit inspect`: on-disk structures, field by field.

use super::shown;
use crate::exit;
use crate::output::{self, Out, raw_json};
use crate::session::Session;
use adit_core::{Disk, Error, Inspect, Inspected, Kind, Result};
use adit_open::{At, Opened, Origin};
use serde_json::{Value, json};
use std::ffi::OsStr;
use std::sync::Arc;

/// Shows one structure, or lists those there are.
pub fn run(session: &Session, path: &OsStr, structure: &[String]) -> u8 {
    match inspect(session, path, &structure.join(" ")) {
        Ok(()) => exit::GOOD,
        Err(error) => {
            let what = if structure.is_empty() { "anything".into() } else { structure.join(" ") };
            session.fail(&format!("inspect {what} of {}", shown(path)), &error)
        }
    }
}

/// The layers of a place that have structures to show: what they are, and how to ask them.
struct Layers<'a> {
    session: &'a Session,
    /// The place itself, which may be the file of an image.
    here: Opened,
    disk: Option<Arc<dyn Disk>>,
    inside: Option<Opened>,
}

impl Layers<'_> {
    fn of<'a>(session: &'a Session, path: &OsStr) -> Result<Layers<'a>> {
        let opened = session.open(path)?;
        let here = opened.clone();
        let disk = match &opened.at {
            At::Disk { disk, .. } => Some(Arc::clone(disk)),
            At::Volumes { disk, origin: Origin::Host(_) | Origin::Inner, .. } => {
                Some(Arc::clone(disk))
            }
            _ => None,
        };
        match session.opener.descend(opened) {
            Ok(inside) => Ok(Layers { session, here, disk, inside: Some(inside) }),
            // A disk with a damaged file system still has tables to show.
            Err(_) if disk.is_some() => Ok(Layers { session, here, disk, inside: None }),
            Err(error) => Err(error),
        }
    }

    fn structures(&self) -> Vec<(String, String)> {
        let mut list = self.session.opener.image_structures(&self.here).unwrap_or_default();
        if let Some(disk) = &self.disk {
            list.extend(adit_partitions::structures(disk));
        }
        if let Some(At::Node { files, .. }) = self.inside.as_ref().map(|inside| &inside.at) {
            list.extend(
                files.members.first().map(|member| member.structures()).unwrap_or_default(),
            );
            list.extend(files.vmfs.as_ref().map(|vmfs| vmfs.structures()).unwrap_or_default());
            let guest = files.guest.as_ref();
            list.extend(guest.map(|guest| guest.inspect.structures()).unwrap_or_default());
        }
        list
    }

    /// Every layer that knows the name answers: all members of a span have an LVM header.
    fn inspect(&self, name: &str) -> Result<Vec<Inspected>> {
        let mut found = Vec::new();
        let mut unknown = Error::not_found(format!("there is no structure {name:?} here"));
        let mut take = |result: Result<Vec<Inspected>>| match result {
            Ok(inspected) => {
                found.extend(inspected);
                Ok(())
            }
            Err(error) if error.kind() == Kind::NotFound => {
                // What the format says of its own structures is more use than our guess.
                if error.place().is_some() {
                    unknown = error;
                }
                Ok(())
            }
            Err(error) => Err(error),
        };
        take(self.session.opener.inspect_image(&self.here, name))?;
        if let Some(disk) = &self.disk {
            take(adit_partitions::inspect(disk, name))?;
        }
        if let Some(At::Node { files, .. }) = self.inside.as_ref().map(|inside| &inside.at) {
            for member in files.members.iter() {
                take(member.inspect(name))?;
            }
            if let Some(vmfs) = &files.vmfs {
                take(vmfs.inspect(name))?;
            }
            if let Some(guest) = &files.guest {
                take(guest.inspect.inspect(name))?;
            }
        }
        if found.is_empty() {
            return Err(unknown.advise("`adit inspect PATH` without a name lists the structures"));
        }
        Ok(found)
    }
}

fn inspect(session: &Session, path: &OsStr, name: &str) -> Result<()> {
    let layers = Layers::of(session, path)?;
    let mut out = Out::new();
    if name.is_empty() {
        let structures = layers.structures();
        if session.common.json {
            let list: Vec<Value> = structures
                .iter()
                .map(|(name, meaning)| json!({ "name": name, "meaning": meaning }))
                .collect();
            out.json(&json!({ "schema": "adit.inspect/1", "structures": list }));
        } else {
            let rows: Vec<_> =
                structures.into_iter().map(|(name, meaning)| vec![name, meaning]).collect();
            output::table(&mut out, &["structure", "meaning"], &rows);
        }
    } else {
        let inspected = layers.inspect(name)?;
        if session.common.json {
            let list: Vec<Value> = inspected.iter().map(document).collect();
            out.json(&json!({ "schema": "adit.inspect/1", "inspected": list }));
        } else {
            inspected.iter().for_each(|structure| text(&mut out, structure));
        }
    }
    out.finish();
    Ok(())
}

fn document(inspected: &Inspected) -> Value {
    let fields: Vec<Value> = inspected
        .fields
        .iter()
        .map(|field| {
            json!({
                "name": field.name,
                "offset": field.offset,
                "length": field.length,
                "value": raw_json(&field.value),
                "meaning": field.meaning,
            })
        })
        .collect();
    json!({ "structure": inspected.structure, "offset_bytes": inspected.offset, "fields": fields })
}

fn text(out: &mut Out, inspected: &Inspected) {
    out.line(format!("{} at byte {:#x}", inspected.structure, inspected.offset));
    let rows: Vec<_> = inspected
        .fields
        .iter()
        .map(|field| {
            let first = field.meaning.split(". ").next().unwrap_or_default();
            vec![
                format!("  {:#06x}", field.offset),
                field.length.to_string(),
                field.name.clone(),
                field.value.to_string(),
                first.trim_end_matches('.').to_owned(),
            ]
        })
        .collect();
    output::table(out, &["  offset", ">length", "field", "value", "meaning"], &rows);
}
