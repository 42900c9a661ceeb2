//! What in a tree has some name, kind, size or age.

use crate::glob::Glob;
use crate::walk::{Found, Go, Step, Tree, walk};
use adit_core::{Error, Interrupt, Limits, NodeKind, Result, Timestamp};
use std::ops::RangeInclusive;

/// A node that was found, or a path that could not be searched and why.
pub type Hit = std::result::Result<Found, (Vec<u8>, Error)>;

/// What is looked for: all that is given must hold.
#[derive(Clone, Debug, Default)]
pub struct Query {
    /// Its last name matches one of these; any name where there are none.
    pub names: Vec<Glob>,
    /// It is one of these; anything where there are none.
    pub kinds: Vec<NodeKind>,
    /// Its length. Unit: bytes.
    pub sizes: Vec<RangeInclusive<u64>>,
    /// Last changed after this.
    pub newer: Option<Timestamp>,
    /// Last changed before this.
    pub older: Option<Timestamp>,
    /// Go no deeper than this many names below the start.
    pub depth_max: Option<usize>,
}

impl Query {
    /// Whether a node is one of those looked for. What has no time is neither new nor old.
    pub fn matches(&self, found: &Found) -> bool {
        let metadata = &found.metadata;
        (self.names.is_empty() || self.names.iter().any(|glob| glob.matches(found.name())))
            && (self.kinds.is_empty() || self.kinds.contains(&metadata.kind))
            && self.sizes.iter().all(|sizes| sizes.contains(&metadata.size_bytes))
            && self.newer.is_none_or(|limit| metadata.modified.is_some_and(|time| time > limit))
            && self.older.is_none_or(|limit| metadata.modified.is_some_and(|time| time < limit))
    }
}

/// Finds everything below a place that a query asks for, in the order of paths. The start itself
/// is found only if it is a single file.
///
/// Errors: those of `tell` and of the start; `Interrupted`. What cannot be listed is told.
pub fn find(
    tree: &Tree,
    query: &Query,
    limits: &Limits,
    interrupt: &Interrupt,
    tell: &mut dyn FnMut(Hit) -> Result<()>,
) -> Result<()> {
    walk(tree, limits, interrupt, &mut |step| match step {
        Step::Problem(path, error) => tell(Err((path, error))).map(|()| Go::Past),
        Step::Node(found) => {
            let depth = found.depth();
            let is_start = depth == 0 && found.metadata.kind == NodeKind::Directory;
            if !is_start && query.matches(&found) {
                tell(Ok(found))?;
            }
            Ok(if query.depth_max.is_some_and(|most| depth >= most) { Go::Past } else { Go::In })
        }
    })
}
