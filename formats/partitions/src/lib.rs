//! Partition tables, read only: GPT, MBR with its logical partitions, Apple map, BSD and Sun
//! labels.
//!
//! [`open`] turns a disk into a [`VolumeTable`] of slices. Each table has its own file:
//! `gpt.rs`, `mbr.rs`, `apple.rs`, `bsd.rs`, `sun.rs`; raw structures are in `layout.rs`, names
//! of partition types in `types.rs`, and `table.rs` cuts the slices. [`sniff`] names what a
//! disk holds if it is none of them; [`structures`] and [`inspect`] show raw fields.
//!
//! # How a table is told from a file system
//!
//! A boot sector of FAT or NTFS ends in 55 AA like an MBR, so the signature alone proves
//! nothing. An MBR counts as one when every slot has status 0x00 or 0x80, every used slot has a
//! start and a size of at least 1, no two overlap, and at least one starts inside the disk (the
//! others may lie past its end: the disk may have been cut short). A table without any used
//! slot counts only where nothing else is recognised. A protective slot (0xEE) means GPT.
//! Without any MBR a GPT counts only where nothing else is recognised either.
#![forbid(unsafe_code)]
#![deny(
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::indexing_slicing))]

mod apple;
mod bsd;
mod gpt;
mod inspect;
mod layout;
mod mbr;
mod sniff;
mod sun;
mod table;
mod types;

pub use inspect::{inspect, structures};
pub use sniff::sniff;

use adit_core::bytes::all_zero;
use adit_core::{
    Disk, DiskExt, Error, Finding, Limits, Place, Problem, Result, Volume, VolumeTable,
};
use mbr::Mbr;
use std::sync::Arc;
use table::Table;

/// Reads the partition table of a disk, or nothing if there is none.
///
/// Volumes are called `p1`, `p2`, … as Linux numbers them: MBR primaries 1 to 4 and logicals
/// from 5, GPT and Apple by entry, BSD `a` is `p1`, Sun slice 0 is `p1`; the letter or slice is
/// the label. What is damaged but could be read around is said in the table's notes.
///
/// Errors: `Corrupt` if there must be a GPT but neither copy is valid; `Limit` if the table has
/// more entries than `volumes_max`; errors of the disk if its first sector cannot be read.
/// Source: UEFI specification 2.10, chapter 5; the headers of `layout.rs` for the others.
pub fn open(disk: &Arc<dyn Disk>, limits: &Limits) -> Result<Option<VolumeTable>> {
    Ok(read(disk, limits)?.map(|table| table.finish(disk)))
}

/// Whether the table says that the volume holds a VMFS, VMFS-L included.
///
/// `VMFS_volume_member` in libblkid's words: only the type counts, not the contents.
pub fn type_is_vmfs(volume: &Volume) -> bool {
    ["VMFS (0xfb)", "VMFS (AA31E02A-", "VMFS-L (4EB2EA39-"]
        .iter()
        .any(|kind| volume.kind.starts_with(kind))
}

/// Checks the partition table; each thing worth saying goes to `report`.
///
/// A disk without a table has no findings; a table that cannot be opened is one.
///
/// Errors: only when checking itself cannot go on, as when the disk cannot be read.
pub fn check(disk: &Arc<dyn Disk>, report: &mut dyn FnMut(Finding)) -> Result<()> {
    match open(disk, &Limits::default()) {
        Ok(table) => table.into_iter().flat_map(|table| table.notes).for_each(report),
        Err(error) if matches!(error.kind(), adit_core::Kind::Corrupt | adit_core::Kind::Limit) => {
            report(Finding::from_error("partition-table-damaged", &error));
        }
        Err(error) => return Err(error),
    }
    Ok(())
}

fn read(disk: &Arc<dyn Disk>, limits: &Limits) -> Result<Option<Table>> {
    if disk.size_bytes() < 512 {
        return Ok(None);
    }
    let first = match disk.read_vec(0, 512) {
        Ok(first) => first,
        Err(error) => return read_blind(disk, limits, error),
    };
    let mbr = Mbr::parse(&first);
    if let Some(mbr) = mbr.as_ref().filter(|mbr| mbr.is_protective()) {
        return read_protected(disk, limits, mbr);
    }
    if let Some(mbr) = mbr.as_ref().filter(|mbr| mbr.own().next().is_some() && mbr.describes(disk))
    {
        let mut table = mbr.table(disk, limits);
        if gpt::has_primary(disk) {
            let text = "a valid GPT is there too, but the MBR does not point to it";
            let advice = "it is probably left over from earlier use of the disk";
            let place = Place::new("GPT header");
            table.notes.push(Finding::warning("gpt-ignored", text).at(place).advise(advice));
        }
        if let Some(contents) = sniff(disk) {
            let text = format!("the disk as a whole also looks like this: {contents}");
            table.notes.push(Finding::info("mbr-and-contents", text));
        }
        return Ok(Some(table));
    }
    if let Some(label) = sun::parse(&first) {
        return Ok(Some(label.table()));
    }
    if let Some(label) = bsd::find(disk) {
        return Ok(Some(label.table(disk)));
    }
    if let Some(block_size) = apple::block_size(disk, &first) {
        return apple::read(disk, block_size, limits).map(Some);
    }
    if sniff(disk).is_some() || sniff::is_vmfs(disk) {
        return Ok(None);
    }
    // A backup at the far end means something only where the start was wiped.
    if (gpt::has_magic(disk) || all_zero(&first))
        && let Some(table) = gpt::read(disk, limits, mbr.as_ref(), false)?
    {
        return Ok(Some(table));
    }
    let empty = mbr.filter(|mbr| mbr.used().next().is_none() && mbr.is_plausible());
    Ok(empty.map(|mbr| mbr.table(disk, limits)))
}

/// The first sector cannot be read: a GPT may still be found by its backup.
fn read_blind(disk: &Arc<dyn Disk>, limits: &Limits, error: Error) -> Result<Option<Table>> {
    match gpt::read(disk, limits, None, false) {
        Ok(Some(mut table)) => {
            table.notes.push(Finding::from_error("mbr-unreadable", &error));
            Ok(Some(table))
        }
        _ => Err(error.at(Place::new("MBR").byte(0))),
    }
}

/// The MBR points to a GPT. If none is valid, partitions of a hybrid MBR are better than none.
fn read_protected(disk: &Arc<dyn Disk>, limits: &Limits, mbr: &Mbr) -> Result<Option<Table>> {
    let error = match gpt::read(disk, limits, Some(mbr), true) {
        Ok(Some(table)) => return Ok(Some(table)),
        Ok(None) => Error::corrupt(Problem::Missing, "the protective MBR has no GPT behind it"),
        Err(error) => error,
    };
    if mbr.own().next().is_none() || !mbr.describes(disk) {
        return Err(error);
    }
    let mut table = mbr.table(disk, limits);
    let finding = Finding::from_error("gpt-damaged", &error);
    table.notes.insert(0, finding);
    Ok(Some(table))
}
