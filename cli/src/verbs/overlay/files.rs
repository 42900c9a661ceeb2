//! Which files an overlay changes, where what lies below it holds file systems.

use crate::session::Session;
use adit_core::{Error, Quiet, Result, Volume};
use adit_open::{At, Opened, Opener, Origin};
use adit_trees::{DiffOptions, Difference, Summary, Tree};
use std::collections::BTreeSet;
use std::ops::Range;

/// What is told, in order.
pub enum News {
    /// A file system of which differences follow.
    Begin(String),
    /// One of them.
    Difference(Box<Difference>),
    /// That was all of it.
    End(Summary),
    /// A changed place in which no files can be told apart, and why.
    Unread(String, Error),
    /// A volume that only one side has: the overlay if true.
    Volume(String, bool),
}

/// Compares a disk with the same disk under an overlay.
pub struct Files<'a> {
    pub session: &'a Session,
    pub opener: &'a Opener,
    /// What the overlay holds. Unit: bytes of the disk.
    pub changes: &'a [Range<u64>],
    /// Groups of volumes that were compared: each of their members leads to them.
    seen: BTreeSet<(String, String)>,
}

type Tell<'a> = dyn FnMut(News) -> Result<()> + 'a;

impl Files<'_> {
    pub fn new<'a>(
        session: &'a Session,
        opener: &'a Opener,
        changes: &'a [Range<u64>],
    ) -> Files<'a> {
        Files { session, opener, changes, seen: BTreeSet::new() }
    }

    /// Goes into both, as deep as there is one way or several volumes. `at` is where the place
    /// begins on the disk, if it is one piece of it.
    ///
    /// Errors: those of `tell`; `Interrupted`. What cannot be read is told.
    pub fn compare(
        &mut self,
        below: Opened,
        above: Opened,
        at: Option<u64>,
        depth: u64,
        tell: &mut Tell<'_>,
    ) -> Result<()> {
        self.session.interrupt.check()?;
        let place = below.locator.to_string();
        if depth == 0 {
            let error = Error::limit("layers_max", "too many layers");
            return tell(News::Unread(place, error));
        }
        let (below, above) = match (self.opener.enter(below), self.opener.enter(above)) {
            (Ok(below), Ok(above)) => (below, above),
            // Only what can be read on both sides has files to compare.
            (Err(error), _) => return tell(News::Unread(place, error)),
            (_, Err(error)) => {
                let error = error.in_layer("the disk with the overlay's changes");
                return tell(News::Unread(place, error));
            }
        };
        match (&below.at, &above.at) {
            (At::Volumes { .. }, At::Volumes { .. }) => {
                self.volumes(&below, &above, at, depth, tell)
            }
            (At::Node { .. }, At::Node { .. }) => self.trees(place, &below, &above, tell),
            (At::Disk { .. }, At::Disk { .. }) => self.compare(below, above, None, depth - 1, tell),
            _ => {
                tell(News::Unread(place, Error::unsupported("it holds another kind of thing now")))
            }
        }
    }

    fn volumes(
        &mut self,
        below: &Opened,
        above: &Opened,
        at: Option<u64>,
        depth: u64,
        tell: &mut Tell<'_>,
    ) -> Result<()> {
        let (At::Volumes { table: old, .. }, At::Volumes { table: new, .. }) =
            (&below.at, &above.at)
        else {
            return Ok(());
        };
        let is_group = old.volumes.iter().all(|volume| volume.offset.is_none());
        if is_group && !self.seen.insert((old.format.to_owned(), old.uuid.clone())) {
            return Ok(());
        }
        let same = |a: &Volume, b: &Volume| a.name == b.name;
        for volume in &old.volumes {
            let (first, name) = picked(below, volume);
            let Some(other) = new.volumes.iter().find(|it| same(it, volume)) else {
                tell(News::Volume(name, false))?;
                continue;
            };
            let start = at.zip(volume.offset).and_then(|(at, offset)| at.checked_add(offset));
            let moved = volume.offset != other.offset || volume.size_bytes() != other.size_bytes();
            if !moved && start.is_some_and(|start| !self.touched(start, volume.size_bytes())) {
                continue;
            }
            let second = picked(above, other).0;
            self.compare(first, second, start.filter(|_| !moved), depth - 1, tell)?;
        }
        let added = new.volumes.iter().filter(|it| !old.volumes.iter().any(|was| same(was, it)));
        added.into_iter().try_for_each(|volume| tell(News::Volume(picked(above, volume).1, true)))
    }

    fn touched(&self, start: u64, length: u64) -> bool {
        let end = start.saturating_add(length);
        self.changes.iter().any(|range| range.start < end && start < range.end)
    }

    fn trees(
        &self,
        place: String,
        below: &Opened,
        above: &Opened,
        tell: &mut Tell<'_>,
    ) -> Result<()> {
        let tree = |here: &Opened| match &here.at {
            At::Node { files, node, .. } => {
                let locator = here.locator.to_string();
                Some(Tree { fs: files.fs.clone(), node: *node, locator })
            }
            _ => None,
        };
        let (Some(first), Some(second)) = (tree(below), tree(above)) else { return Ok(()) };
        let limits = self.session.opener.options().limits.clone();
        let options = DiffOptions { limits, ..DiffOptions::default() };
        tell(News::Begin(place))?;
        let interrupt = &self.session.interrupt;
        let summary =
            adit_trees::diff(&first, &second, &options, &Quiet, interrupt, &mut |found| {
                tell(News::Difference(Box::new(found)))
            })?;
        tell(News::End(summary))
    }
}

/// A volume of the table that was opened, and what it is called.
fn picked(table: &Opened, volume: &Volume) -> (Opened, String) {
    let mut here = table.clone();
    here.locator = here.locator.step(volume.name.as_bytes());
    here.at = At::Disk { disk: volume.disk.clone(), origin: Origin::Inner };
    let name = here.locator.to_string();
    (here, name)
}
