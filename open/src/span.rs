//! Finds the other devices of a spanned volume.

use crate::OpenOptions;
use adit_core::{Disk, Error, Limits, Result};
use adit_io::ReadPolicy;
use adit_vmfs_lvm::Member;
use std::collections::HashSet;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// How many neighbours of a source are looked at for missing members.
const NEIGHBOURS_MAX: usize = 1024;

/// Adds to `first` every member of its volume that was given or that lies beside the source.
///
/// A device that was given but is no VMFS member is an error; one of another volume is passed
/// on, so that assembling refuses it with both identities.
pub fn gather(first: Member, source: Option<&Path>, options: &OpenOptions) -> Result<Vec<Member>> {
    let (wanted, identity) = (first.device_count() as usize, first.identity());
    let mut seen: HashSet<PathBuf> = HashSet::new();
    let mut members = vec![first];
    if wanted <= 1 {
        return Ok(members);
    }
    for path in &options.members {
        if real(path).is_none_or(|path| seen.insert(path)) {
            let given = members_of(path, options)?;
            if given.is_empty() {
                return Err(Error::not_found("it holds no VMFS volume member")
                    .in_layer(path.display().to_string())
                    .advise("`adit info` tells what it holds"));
            }
            add(&mut members, given);
        }
    }
    let reads = ReadPolicy { retries: 0, ..ReadPolicy::default() };
    let glance = OpenOptions { reads, ..options.clone() };
    // The source itself comes first: other partitions of it may be members.
    for path in source.map(neighbours).unwrap_or_default() {
        if members.len() >= wanted {
            break;
        }
        if real(&path).is_none_or(|path| seen.insert(path)) {
            // A neighbour nobody named may be anything; what cannot be read is not a member, and
            // is neither waited for nor reported.
            let found = members_of(&path, &glance).unwrap_or_default();
            add(&mut members, found.into_iter().filter(|m| m.identity() == identity).collect());
        }
    }
    Ok(members)
}

fn add(members: &mut Vec<Member>, more: Vec<Member>) {
    for member in more {
        let known = |have: &Member| have.device_uuid() == member.device_uuid();
        if !members.iter().any(known) {
            members.push(member);
        }
    }
}

/// The members on a device: the device itself, or partitions of it.
fn members_of(path: &Path, options: &OpenOptions) -> Result<Vec<Member>> {
    let disk = adit_io::open(path, &options.reads)?;
    let label = path.display().to_string();
    let limits = &options.limits;
    if let Some(table) = adit_partitions::open(&disk, limits)? {
        let volumes = table.volumes.into_iter();
        let found = volumes.filter_map(|volume| {
            read_member(&volume.disk, &format!("{label}//{}", volume.name), limits).transpose()
        });
        return found.collect();
    }
    Ok(read_member(&disk, &label, limits)?.into_iter().collect())
}

fn read_member(disk: &Arc<dyn Disk>, label: &str, limits: &Limits) -> Result<Option<Member>> {
    if !adit_vmfs_lvm::probe(disk)? {
        return Ok(None);
    }
    Member::read(Arc::clone(disk), label, limits).map(Some)
}

/// Regular files beside a regular file, block devices beside a block device.
fn neighbours(source: &Path) -> Vec<PathBuf> {
    let is_device = |path: &Path| path.metadata().is_ok_and(|m| m.file_type().is_block_device());
    let wants_device = is_device(source);
    let Ok(entries) = std::fs::read_dir(crate::source::directory_of(source)) else {
        return Vec::new();
    };
    let mut paths: Vec<PathBuf> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| if wants_device { is_device(path) } else { path.is_file() })
        .take(NEIGHBOURS_MAX)
        .collect();
    paths.sort();
    paths.insert(0, source.to_path_buf());
    paths
}

fn real(path: &Path) -> Option<PathBuf> {
    path.canonicalize().ok()
}
