//! Chains of images by GUID.

use crate::{Descriptor, Guid};
use adit_core::{Error, Place, Problem, Result};
use std::collections::{HashMap, HashSet};

/// One state of the disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The images that hold it.
    pub guid: Guid,
    /// The state it was made from, if any.
    pub parent: Option<Guid>,
}

impl Descriptor {
    /// The GUIDs from `top` down to the one without parent.
    ///
    /// Errors: `NotFound` if there is no such snapshot; `Corrupt` for a parent that is not there
    /// and for a circle; `Limit`.
    pub fn chain(&self, top: Guid) -> Result<Vec<Guid>> {
        if self.snapshots.is_empty() {
            // Without snapshots every image stands for itself.
            return Ok(vec![top]);
        }
        let parents: HashMap<Guid, Option<Guid>> =
            self.snapshots.iter().map(|snapshot| (snapshot.guid, snapshot.parent)).collect();
        let place = || Place::new("disk descriptor").field("Snapshots");
        let (mut chain, mut seen, mut at) = (Vec::new(), HashSet::new(), top);
        loop {
            let Some(parent) = parents.get(&at) else {
                return Err(if at == top {
                    Error::not_found(format!("there is no snapshot {top}")).at(place())
                } else {
                    let detail = format!("names the parent {at}, which is not there");
                    Error::corrupt(Problem::Missing, detail).at(place())
                });
            };
            if !seen.insert(at) {
                let detail = format!("the parents of {top} come back to {at}");
                return Err(Error::corrupt(Problem::Cycle, detail).at(place()));
            }
            chain.push(at);
            if adit_core::bytes::wide(chain.len()) > self.limits.chain_length_max {
                let detail = format!("more than {} images", self.limits.chain_length_max);
                return Err(Error::limit("chain_length_max", detail).at(place()));
            }
            match parent {
                Some(parent) => at = *parent,
                None => return Ok(chain),
            }
        }
    }

    /// The newest state, which the virtual machine uses: the one the descriptor names, or else
    /// the one GUID that Parallels uses for it, or else the only one nothing was made from.
    ///
    /// Errors: `Corrupt` if several could be meant, or none is there.
    pub fn top(&self) -> Result<Guid> {
        if let Some(top) = self.top {
            return Ok(top);
        }
        let known: Vec<Guid> = if self.snapshots.is_empty() {
            let images = self.storages.iter().flat_map(|storage| &storage.images);
            images.map(|image| image.guid).collect()
        } else {
            self.snapshots.iter().map(|snapshot| snapshot.guid).collect()
        };
        if known.contains(&Guid::TOP) {
            return Ok(Guid::TOP);
        }
        let parents: HashSet<Guid> =
            self.snapshots.iter().filter_map(|snapshot| snapshot.parent).collect();
        let leaves: HashSet<Guid> =
            known.into_iter().filter(|guid| !parents.contains(guid)).collect();
        let mut leaves = leaves.into_iter();
        match (leaves.next(), leaves.next()) {
            (Some(only), None) => Ok(only),
            (first, _) => Err(Error::corrupt(
                if first.is_some() { Problem::Ambiguous } else { Problem::Missing },
                "nothing tells which image is the newest",
            )
            .at(Place::new("disk descriptor").field("TopGUID"))
            .advise("name one of the snapshots")),
        }
    }
}
