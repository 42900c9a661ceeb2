//! Reading cluster entries: one by address, or all in order.

use crate::cluster::Cluster;
use crate::resource::{ResourceFile, ResourceKind};
use crate::vmfs::{CacheKey, Vmfs};
use adit_core::bytes::narrow;
use adit_core::{Error, Problem, Result};
use std::sync::Arc;

/// The cluster entries of a resource file, in order.
#[derive(Debug)]
pub struct Clusters<'a> {
    fs: &'a Vmfs,
    file: &'a ResourceFile,
    next: u64,
    /// First cluster of the batch, how many, and their bytes.
    batch: Option<(u64, u64, Arc<[u8]>)>,
}

/// Entries are read in batches of at most this many bytes.
const BATCH_BYTES: u64 = 1 << 20;

impl Clusters<'_> {
    fn load(&self, first: u64, count: u64) -> Result<Arc<[u8]>> {
        let size = count.saturating_mul(self.file.entry_size);
        let mut bytes = vec![0; narrow(size).unwrap_or(0)];
        self.fs.read_resource(self.file.kind, self.file.cluster_offset(first)?, &mut bytes)?;
        Ok(bytes.into())
    }

    /// Cluster `number`, from the batch read last or a new one.
    pub(crate) fn fetch(&mut self, number: u64) -> Result<Cluster> {
        let held = self.batch.as_ref().is_some_and(|(first, count, _)| {
            number.checked_sub(*first).is_some_and(|within| within < *count)
        });
        if !held {
            let most = BATCH_BYTES.checked_div(self.file.entry_size).unwrap_or(1).max(1);
            let count = self.file.clusters_together(number).clamp(1, most);
            // One bad spot must not hide its neighbours: fall back to single entries.
            self.batch = Some(match self.load(number, count) {
                Ok(bytes) => (number, count, bytes),
                Err(_) => (number, 1, self.load(number, 1)?),
            });
        }
        let (first, bytes) = match &self.batch {
            Some((first, _, bytes)) => (*first, Arc::clone(bytes)),
            None => return Err(Error::invalid(Problem::Missing, "no batch was read")),
        };
        let start = number.saturating_sub(first).saturating_mul(self.file.entry_size);
        let start = narrow(start).unwrap_or(usize::MAX);
        Cluster::read(self.file, number, bytes, start, self.fs.superblock())
    }
}

impl Iterator for Clusters<'_> {
    type Item = Result<Cluster>;

    fn next(&mut self) -> Option<Self::Item> {
        let number = self.next;
        if number >= self.file.header.clusters {
            return None;
        }
        self.next = number.saturating_add(1);
        Some(self.fetch(number))
    }
}

impl Vmfs {
    /// A cluster entry, cached. See [`Cluster::verify`] for whether it is sound.
    ///
    /// Errors: `NotFound` past the last cluster; `Corrupt` where it cannot be reached.
    pub fn cluster(&self, kind: ResourceKind, number: u64) -> Result<Cluster> {
        let file = self.resource(kind)?;
        let bytes = self.cache().load(CacheKey::Cluster(kind, number), || {
            let mut entry = vec![0; narrow(self.superblock().entry_size()).unwrap_or(0)];
            self.read_resource(kind, file.cluster_offset(number)?, &mut entry)?;
            Ok(entry)
        })?;
        Cluster::read(file, number, bytes, 0, self.superblock())
    }

    /// Volume offset of a cluster entry (its lock block). Unit: bytes.
    ///
    /// Errors: as `cluster`.
    pub fn cluster_volume_offset(&self, kind: ResourceKind, number: u64) -> Result<u64> {
        let offset = self.resource(kind)?.cluster_offset(number)?;
        Ok(self.resource_run(kind, offset, 1)?.0)
    }

    /// Every cluster entry in order, read a group at a time and not cached.
    ///
    /// Errors: as `resource`; those of single clusters come from the iterator.
    pub fn clusters(&self, kind: ResourceKind) -> Result<Clusters<'_>> {
        let file = self.resource(kind)?;
        Ok(Clusters { fs: self, file, next: 0, batch: None })
    }
}
