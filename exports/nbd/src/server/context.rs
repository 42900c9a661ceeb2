//! Metadata contexts: which there are, which a client wants, and what they say of a range.

use super::handshake::split_string;
use crate::export::Export;
use crate::protocol::{ALLOCATION_DEPTH, BASE_ALLOCATION, DIRTY_BITMAP_PREFIX, state};
use adit_core::{Disk, DiskExt, ExtentKind, Result};
use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

/// Most queries of one option.
const QUERIES_MAX: u32 = 1024;
/// Most extents of one answer; a client asks again for the rest.
const EXTENTS_MAX: usize = 4096;
/// Most lookups for one answer, however small the pieces are.
const LOOKUPS_MAX: u32 = 100_000;
/// No real stack of disks is deeper.
const LAYERS_MAX: usize = 64;

/// One metadata context of an export.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Context {
    Allocation,
    Depth,
    /// Index of the bitmap.
    Dirty(usize),
}

impl Context {
    pub(crate) fn name(self, export: &Export) -> Cow<'_, str> {
        match self {
            Context::Allocation => BASE_ALLOCATION.into(),
            Context::Depth => ALLOCATION_DEPTH.into(),
            Context::Dirty(index) => {
                let name = export.bitmaps.get(index).map_or("", |bitmap| bitmap.name.as_str());
                format!("{DIRTY_BITMAP_PREFIX}{name}").into()
            }
        }
    }

    fn all(export: &Export) -> impl Iterator<Item = Context> {
        let bitmaps = (0..export.bitmaps.len()).map(Context::Dirty);
        [Context::Allocation, Context::Depth].into_iter().chain(bitmaps)
    }

    /// Appends length and flags of the consecutive extents of `range`, at least one, perhaps not
    /// all. Neighbours of one kind are joined.
    pub(crate) fn describe(
        self,
        export: &Export,
        range: Range<u64>,
        extents_max: usize,
        out: &mut Vec<(u64, u32)>,
    ) -> Result<()> {
        let extents_max = extents_max.min(EXTENTS_MAX);
        let mut at = range.start;
        for _ in 0..LOOKUPS_MAX {
            if at >= range.end {
                break;
            }
            let (length, flags) = match self {
                Context::Allocation => allocation(&export.disk, at)?,
                Context::Depth => depth(export, at)?,
                Context::Dirty(index) => dirty(export, index, at),
            };
            let length = length.clamp(1, range.end - at);
            let full = out.len() >= extents_max;
            match out.last_mut() {
                Some((before, same)) if *same == flags => *before += length,
                _ if full => break,
                _ => out.push((length, flags)),
            }
            at += length;
        }
        Ok(())
    }
}

/// What stands at an offset, followed down to the disk that holds it.
struct Found {
    length: u64,
    kind: Kind,
    /// Index of the deepest of the export's layers on the way.
    layer: usize,
}

enum Kind {
    Hole,
    Zero,
    Data,
}

fn find(disk: &Arc<dyn Disk>, offset: u64, layers: &[Arc<dyn Disk>]) -> Result<Found> {
    let place = |disk: &Arc<dyn Disk>| layers.iter().position(|layer| Arc::ptr_eq(layer, disk));
    let (mut disk, mut offset) = (Arc::clone(disk), offset);
    let mut found = Found { length: disk.size_bytes() - offset, kind: Kind::Data, layer: 0 };
    for _ in 0..LAYERS_MAX {
        found.layer = place(&disk).unwrap_or(found.layer);
        let extent = disk.extent_at(offset)?;
        found.length = found.length.min(extent.length);
        match extent.kind {
            ExtentKind::Verbatim { disk: below, offset: there } => (disk, offset) = (below, there),
            ExtentKind::Hole => return Ok(Found { kind: Kind::Hole, ..found }),
            ExtentKind::Zero => return Ok(Found { kind: Kind::Zero, ..found }),
            // Lost bytes are no zeros; a read of them tells what is the matter.
            ExtentKind::Data | ExtentKind::Lost(_) => return Ok(found),
        }
    }
    Ok(found)
}

fn allocation(disk: &Arc<dyn Disk>, at: u64) -> Result<(u64, u32)> {
    let found = find(disk, at, &[])?;
    let flags = match found.kind {
        Kind::Hole => state::HOLE | state::ZERO,
        Kind::Zero => state::ZERO,
        Kind::Data => 0,
    };
    Ok((found.length, flags))
}

/// 0 where no layer holds anything, otherwise the number of the layer that does, from 1.
fn depth(export: &Export, at: u64) -> Result<(u64, u32)> {
    let found = find(&export.disk, at, &export.layers)?;
    let depth = if matches!(found.kind, Kind::Hole) { 0 } else { found.layer as u32 + 1 };
    Ok((found.length, depth))
}

fn dirty(export: &Export, index: usize, at: u64) -> (u64, u32) {
    let ranges = export.bitmaps.get(index).map_or(&[][..], |bitmap| &bitmap.ranges);
    match ranges.get(ranges.partition_point(|range| range.end <= at)) {
        Some(range) if range.start <= at => (range.end - at, 1),
        Some(range) => (range.start - at, 0),
        None => (export.size_bytes() - at, 0),
    }
}

/// The queries of one option.
#[derive(Debug)]
pub(crate) struct Queries<'a>(Vec<&'a [u8]>);

impl<'a> Queries<'a> {
    pub(crate) fn parse(data: &'a [u8]) -> Option<Queries<'a>> {
        let (count, mut rest) = data.split_first_chunk::<4>()?;
        let count = u32::from_be_bytes(*count);
        if count > QUERIES_MAX {
            return None;
        }
        let mut queries = Vec::new();
        for _ in 0..count {
            let query;
            (query, rest) = split_string(rest)?;
            queries.push(query);
        }
        rest.is_empty().then_some(Queries(queries))
    }

    /// The contexts that are asked for: by their full names when `set`, else by prefixes as well.
    pub(crate) fn select(&self, export: &Export, set: bool) -> Vec<Context> {
        let wanted = |context: &Context| {
            let name = context.name(export);
            let name = name.as_bytes();
            let wildcards: [&[u8]; 3] = [b"base:", b"qemu:", DIRTY_BITMAP_PREFIX.as_bytes()];
            let matches = |query: &&[u8]| {
                *query == name || !set && wildcards.contains(query) && name.starts_with(query)
            };
            !set && self.0.is_empty() || self.0.iter().any(matches)
        };
        Context::all(export).filter(wanted).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use adit_core::{Concat, MemoryDisk, Piece, Slice};

    #[test]
    fn holes_are_found_below_other_layers_and_neighbours_are_joined() {
        let data = MemoryDisk::open("data", vec![1; 300]);
        let inner = Concat::open(
            "inner",
            vec![
                Piece::part(data.clone(), 0, 100),
                Piece::part(data.clone(), 200, 100),
                Piece::zero(50),
                Piece::zero(50),
                Piece::part(data, 100, 100),
            ],
        )
        .unwrap();
        let export = Export::read_only("x", Slice::open("slice", inner, 50, 350));
        let mut extents = Vec::new();
        Context::Allocation.describe(&export, 0..350, 9, &mut extents).unwrap();
        assert_eq!(extents, [(150, 0), (100, 2), (100, 0)]);
        extents.clear();
        Context::Allocation.describe(&export, 10..350, 2, &mut extents).unwrap();
        assert_eq!(extents, [(140, 0), (100, 2)]);
    }

    #[test]
    fn depth_counts_the_layers_that_were_named() {
        let base = MemoryDisk::open("base", vec![1; 100]);
        let top = Concat::open(
            "top",
            vec![
                Piece::part(MemoryDisk::open("own", vec![2; 30]), 0, 30),
                Piece::part(base.clone(), 30, 30),
                Piece::zero(40),
            ],
        )
        .unwrap();
        let export = Export::read_only("x", top.clone()).with_layers(vec![top, base]);
        let mut extents = Vec::new();
        Context::Depth.describe(&export, 0..100, 9, &mut extents).unwrap();
        assert_eq!(extents, [(30, 1), (30, 2), (40, 1)]);
    }

    #[test]
    fn a_bitmap_alternates_clean_and_dirty() {
        let disk = MemoryDisk::open("memory", vec![0; 100]);
        let export = Export::read_only("x", disk).with_bitmap("b", vec![10..20, 90..100]);
        let mut extents = Vec::new();
        Context::Dirty(0).describe(&export, 15..100, 9, &mut extents).unwrap();
        assert_eq!(extents, [(5, 1), (70, 0), (10, 1)]);
    }
}
