//! The virtual machines on a datastore.
//!
//! [`machines`] walks a file system once and tells, for each `.vmx` it finds, what the machine
//! is, where every disk really lies, which snapshots there are, what is missing, and whether
//! it was running. What no machine names comes out too, as orphans. Everything can be
//! serialised: sizes are bytes, times are seconds since 1970.
//!
//! Files, in order: `catalogue` (the walk) → `machine` (one `.vmx`), which asks `place` (where
//! a name leads), `images` (descriptors and their chains), `snapshots` and `power` →
//! `orphans`. The answers' types are in `model`.
#![forbid(unsafe_code)]

mod catalogue;
mod images;
mod machine;
mod model;
mod orphans;
mod place;
mod power;
mod serial;
mod snapshots;

pub use model::{
    Drive, FileInfo, FilePath, FrozenDisk, Image, ImageExtent, ImageKind, Inventory, Location,
    LockHint, Machine, MachineDisk, Power, PowerState, Role, SnapshotInfo, SnapshotTree,
};

use adit_core::{Error, FileSystem, Interrupt, Limits, NodeId, Result};
use catalogue::Catalogue;
use images::Images;
use place::Places;

/// What the file system's locks tell of a file: `None` where it knows nothing.
pub type LockState<'a> = dyn Fn(NodeId) -> Option<LockHint> + 'a;

/// Finds every machine of a file system.
///
/// A file that cannot be read is a problem of the [`Inventory`], or a finding of its machine;
/// the others are listed all the same.
///
/// Errors: `Interrupted` alone.
pub fn machines(
    fs: &dyn FileSystem,
    limits: &Limits,
    interrupt: &Interrupt,
    lock_state: &LockState<'_>,
) -> Result<Inventory> {
    let mut problems = Problems::default();
    let catalogue = Catalogue::walk(fs, limits, interrupt, &mut problems)?;
    let places = Places::of(fs, limits);
    let mut images = Images::new(fs, &places, limits, interrupt);
    let mut machines = Vec::new();
    for settings in catalogue.machines() {
        interrupt.check()?;
        let survey = machine::Survey { fs, limits, catalogue: &catalogue, places: &places };
        match survey.machine(settings, &mut images, lock_state) {
            Ok(machine) => machines.push(machine),
            Err(error) if error.kind() == adit_core::Kind::Interrupted => return Err(error),
            Err(error) => problems.push(error.in_layer(settings.path.to_string())),
        }
    }
    let (orphan_disks, orphan_extents) =
        orphans::find(&catalogue, &mut images, interrupt, &mut problems)?;
    let problems = problems.into_list();
    Ok(Inventory { machines, orphan_disks, orphan_extents, problems })
}

const PROBLEMS_MAX: usize = 10_000;

/// What could not be read, as far as anybody would look at it.
#[derive(Default)]
pub(crate) struct Problems {
    list: Vec<Error>,
    left_out: u64,
}

impl Problems {
    pub(crate) fn push(&mut self, problem: Error) {
        if self.list.len() < PROBLEMS_MAX {
            self.list.push(problem);
        } else {
            self.left_out = self.left_out.saturating_add(1);
        }
    }

    fn into_list(mut self) -> Vec<Error> {
        if self.left_out > 0 {
            let text = format!("{} more problems were left out", self.left_out);
            self.list.push(Error::new(adit_core::Kind::Limit, adit_core::Problem::TooMany, text));
        }
        self.list
    }
}
