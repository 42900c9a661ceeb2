//! `adit commit`, `flatten`, `rebase`: what moves between an image and its parents.

use super::{bar, code, edit, report};
use crate::args::Force;
use crate::session::Session;
use crate::units::human_bytes;
use adit_core::{Disk, Error, Problem, Result};
use adit_edit::Moved;
use adit_open::{At, Edit, EditParent, Risks};
use serde_json::json;
use std::path::Path;
use std::sync::Arc;

/// Writes an overlay into the image below it.
pub fn commit(session: &Session, image: &Path, keep: bool, force: Force) -> u8 {
    let done = commit_one(session, image, keep, force);
    code(session, &format!("commit {}", image.display()), done)
}

fn commit_one(session: &Session, image: &Path, keep: bool, force: Force) -> Result<()> {
    let top = edit(session, image, force)?;
    let below = parent_of(&top)?.clone();
    let path = below.path.clone().ok_or_else(|| {
        Error::unsupported(format!("{} is no file of the host, and is not written", below.locator))
    })?;
    if !force.force {
        only_child(session, &path, image)?;
    }
    // The one image that stands on it is the one being committed.
    let base = session.opener.edit(&path, Risks { held: force.force, children: true })?;
    let bar = bar(session, image);
    let (from, parent) = (disk_of(&top), Some(&below.disk));
    let interrupt = &session.interrupt;
    let moved = adit_edit::commit(&*from, parent, &*base.image, &bar, interrupt)?;
    bar.finish();
    base.image.close()?;
    // The parent has changed, and only this child may still stand on it.
    top.image.set_parent(Some(&session.opener.record(&path, image)?))?;
    if !keep {
        top.image.empty()?;
    }
    top.image.close()?;
    tell(session, "commit", image, Some(&path), moved);
    Ok(())
}

/// Refuses to change what other images stand on.
fn only_child(session: &Session, parent: &Path, child: &Path) -> Result<()> {
    let is_child = |path: &Path| match (path.canonicalize(), child.canonicalize()) {
        (Ok(a), Ok(b)) => a == b,
        _ => false,
    };
    let others = session.opener.children(parent)?;
    match others.iter().find(|path| !is_child(path)) {
        None => Ok(()),
        Some(other) => {
            let detail = format!("{} stands on {} too", other.display(), parent.display());
            Err(Error::new(adit_core::Kind::Busy, Problem::Refused, detail)
                .advise("`adit flatten` makes it stand alone first; --force changes what it holds"))
        }
    }
}

/// Copies what an image reads from below into it.
pub fn flatten(session: &Session, image: &Path, force: Force) -> u8 {
    let done = || -> Result<()> {
        let top = edit(session, image, force)?;
        let below = parent_of(&top)?;
        let bar = bar(session, image);
        let moved = adit_edit::flatten(&*top.image, &below.disk, &bar, &session.interrupt)?;
        bar.finish();
        top.image.close()?;
        tell(session, "flatten", image, None, moved);
        Ok(())
    };
    code(session, &format!("flatten {}", image.display()), done())
}

/// Stands an image on another parent.
pub fn rebase(
    session: &Session,
    image: &Path,
    onto: Option<&Path>,
    is_unsafe: bool,
    force: Force,
) -> u8 {
    let done = rebase_one(session, image, onto, is_unsafe, force);
    code(session, &format!("rebase {}", image.display()), done)
}

fn rebase_one(
    session: &Session,
    image: &Path,
    onto: Option<&Path>,
    is_unsafe: bool,
    force: Force,
) -> Result<()> {
    let record = onto.map(|path| session.opener.record(path, image)).transpose()?;
    let top = match session.opener.edit(image, force.into()) {
        // With its parent gone, only the name can be changed; any disk may stand in for it.
        Err(error) if is_unsafe => match onto {
            Some(onto) => {
                // One that is there was changed since; one that is not has the new one stand in.
                let mut options = session.opener.options().clone();
                options.parents_unchecked = true;
                let named = adit_open::NamedParent::parse(onto.as_os_str())?;
                let again = adit_open::Opener::new(options.clone()).edit(image, force.into());
                again
                    .or_else(|_| {
                        options.parents = vec![named];
                        adit_open::Opener::new(options).edit(image, force.into())
                    })
                    .map_err(|_| error)?
            }
            None => return Err(error),
        },
        opened => opened?,
    };
    session.tell(&top.notes);
    let moved = if is_unsafe {
        top.image.set_parent(record.as_ref())?;
        Moved::default()
    } else {
        let new = onto.map(|path| parent_disk(session, path)).transpose()?;
        let new = new.as_ref().zip(record.as_ref());
        let old = top.parent.as_ref().map(|parent| &parent.disk);
        let bar = bar(session, image);
        let moved = adit_edit::rebase(&*top.image, old, new, &bar, &session.interrupt)?;
        bar.finish();
        moved
    };
    top.image.close()?;
    tell(session, "rebase", image, onto, moved);
    Ok(())
}

fn parent_disk(session: &Session, path: &Path) -> Result<Arc<dyn Disk>> {
    match session.open_disk(path.as_os_str())?.at {
        At::Disk { disk, .. } => Ok(disk),
        _ => Err(Error::invalid(Problem::BadValue, "the new parent holds no disk")),
    }
}

fn parent_of(edit: &Edit) -> Result<&EditParent> {
    edit.parent.as_ref().ok_or_else(|| {
        let detail = format!("{} stands on no other image", edit.path.display());
        Error::invalid(Problem::Missing, detail)
    })
}

fn disk_of(edit: &Edit) -> Arc<dyn Disk> {
    Arc::clone(&edit.image) as Arc<dyn Disk>
}

fn tell(session: &Session, verb: &str, image: &Path, other: Option<&Path>, moved: Moved) {
    let document = json!({
        "schema": format!("adit.{verb}/1"),
        "image": image,
        "parent": other,
        "data_bytes": moved.data_bytes,
        "zero_bytes": moved.zero_bytes,
    });
    let line = format!("{} moved", human_bytes(moved.data_bytes));
    report(session, &document, &line);
}
