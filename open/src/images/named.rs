//! The parents the user named.

use super::Wanted;
use crate::NamedParent;
use crate::source::Source;
use adit_core::{Error, Problem, Result};
use std::os::unix::ffi::OsStrExt;

/// Those that were not used yet, in the order in which they were named.
#[derive(Debug)]
pub(super) struct Named<'a> {
    left: Vec<&'a NamedParent>,
    /// Whether an image found a parent by itself.
    found_one: bool,
}

impl<'a> Named<'a> {
    pub fn new(parents: &'a [NamedParent]) -> Named<'a> {
        Named { left: parents.iter().collect(), found_one: false }
    }

    /// The next one that was named for this child. It is used whatever the child says.
    pub fn for_child(&mut self, child: &Source) -> Option<&'a NamedParent> {
        let is_it = |named: &&NamedParent| {
            named.child.as_ref().is_some_and(|name| child.is_called(name.as_bytes()))
        };
        let at = self.left.iter().position(is_it)?;
        Some(self.left.remove(at))
    }

    /// The next one that was named for whoever needs it.
    pub fn for_anybody(&mut self) -> Option<&'a NamedParent> {
        let at = self.left.iter().position(|named| named.child.is_none())?;
        Some(self.left.remove(at))
    }

    /// An image did without.
    pub fn not_needed(&mut self) {
        self.found_one = true;
    }

    /// A parent that was named and passed over may be the one that was meant.
    ///
    /// Errors: `Invalid` if one is left that some image could have used.
    pub fn finish(&self) -> Result<()> {
        match self.left.iter().find(|named| named.child.is_none()) {
            Some(named) if self.found_one => {
                let place = named.place.to_string_lossy();
                let detail = format!("`--parent {place}` was not needed: every parent was found");
                Err(Error::invalid(Problem::Ambiguous, detail)
                    .advise(format!("say whose parent it is: `--parent CHILD={place}`")))
            }
            _ => Ok(()),
        }
    }
}

/// Tells how to name the file that `child` wants.
pub(super) fn advice(child: &Source, wanted: &Wanted) -> String {
    let what = if wanted.is_data { "data file" } else { "parent" };
    let name = String::from_utf8_lossy(child.name());
    format!("`--parent {name}=PLACE` names its {what}")
}
