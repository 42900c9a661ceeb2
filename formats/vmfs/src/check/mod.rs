//! Checks every invariant of the format and reports what breaks it. Nothing is repaired.
//!
//! The order follows what later steps need: resource files and their bitmaps, then every FD and
//! all it points to, then the directory tree, then what nobody claimed. Memory is one bit for
//! each item of each resource file, twice, and a few words for each FD.

mod bits;
mod descriptors;
mod directories;
mod hashes;
mod locks;
mod pointers;
mod report;
mod resources;
mod superblock;

use crate::address::FdAddress;
use crate::heartbeat::{Heartbeat, HeartbeatRegion};
use crate::resource::ResourceKind;
use crate::superblock::Version;
use crate::vmfs::Vmfs;
use adit_core::{Check, Disk, Error, Finding, Interrupt, Place, Result};
use bits::Bits;
use report::Report;
use resources::Resource;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

impl Check for Vmfs {
    fn check(&self, report: &mut dyn FnMut(Finding), interrupt: &Interrupt) -> Result<()> {
        let mut checker = Checker {
            fs: self,
            report: Report::new(report, interrupt),
            six: self.superblock().version == Version::Vmfs6,
            heartbeats: Vec::new(),
            resources: BTreeMap::new(),
            nodes: HashMap::new(),
            affinity: HashMap::new(),
            affinity_complete: true,
            unread: false,
        };
        checker.heartbeats()?;
        checker.superblock()?;
        checker.resources()?;
        checker.descriptors()?;
        checker.journals();
        checker.affinities()?;
        checker.directories()?;
        checker.links();
        checker.unclaimed();
        checker.report.finish();
        Ok(())
    }
}

/// What is remembered of an FD.
#[derive(Clone, Debug, Default)]
struct Node {
    file_type: u32,
    generation: u32,
    links: u32,
    parent: u32,
    directory: bool,
    /// Entries that name it, `.` and `..` apart.
    named: u32,
    /// Directories: subdirectories found in it.
    subdirectories: u32,
}

struct Checker<'a> {
    fs: &'a Vmfs,
    report: Report<'a>,
    six: bool,
    heartbeats: Vec<Heartbeat>,
    resources: BTreeMap<ResourceKind, Resource<'a>>,
    nodes: HashMap<u32, Node>,
    /// Small file blocks by cluster and owner, as the FDs' pointers count them.
    affinity: HashMap<(u64, u32), u32>,
    affinity_complete: bool,
    /// Something could not be read, so that what nobody claimed proves nothing.
    unread: bool,
}

impl Checker<'_> {
    /// The content of an FD, directories included.
    fn content(&self, fd: FdAddress) -> Result<Arc<dyn Disk>> {
        self.fs.data(self.fs.descriptor(fd)?)
    }

    fn region(&self) -> HeartbeatRegion {
        let (_, slots, slot_size_bytes) = self.fs.superblock().heartbeats();
        HeartbeatRegion { slot_size_bytes, slots: u32::try_from(slots).unwrap_or(0) }
    }

    fn error(&mut self, code: &'static str, place: Place, text: impl Into<String>) {
        self.report.add(Finding::error(code, text).at(place));
    }

    fn warning(&mut self, code: &'static str, place: Place, text: impl Into<String>) {
        self.report.add(Finding::warning(code, text).at(place));
    }

    /// Turns a failure to look into a finding; what must stop the check goes on as an error.
    fn failed(&mut self, code: &'static str, place: Place, error: Error) -> Result<()> {
        use adit_core::Kind::{Interrupted, Limit};
        if matches!(error.kind(), Interrupted | Limit) {
            return Err(error);
        }
        self.unread = true;
        self.report.add(Finding::from_error(code, &error.at(place)));
        Ok(())
    }

    fn bits(&self, len: u64) -> Result<Bits> {
        Bits::new(len, self.fs.limits())
    }
}
