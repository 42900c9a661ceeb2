//! Levels linear and 0: zones, in each of which some members take turns.

use super::{Spot, Turns, bad, leg};
use adit_core::bytes::wide;
use adit_core::{Error, Place, Problem, Result};

/// A stretch of the array that the same members share.
#[derive(Debug)]
struct Zone {
    /// First byte in the array.
    start: u64,
    /// Length in the array.
    length: u64,
    /// Where it begins on each of its members.
    member_start: u64,
    /// The members, in order.
    members: Vec<usize>,
    /// Length of a turn.
    chunk: u64,
}

/// All zones, in order.
#[derive(Debug)]
pub(super) struct Zones {
    zones: Vec<Zone>,
    turns: Turns,
}

impl Zones {
    /// Members end to end.
    pub fn linear(sizes: &[u64]) -> Result<Self> {
        let mut start = 0u64;
        let mut zones = Vec::new();
        for (number, &length) in sizes.iter().enumerate() {
            let members = vec![number];
            if length > 0 {
                zones.push(Zone { start, length, member_start: 0, members, chunk: length });
            }
            start = start.checked_add(length).ok_or_else(|| bad("size"))?;
        }
        Ok(Zones { zones, turns: Turns::Alternate })
    }

    /// Members in turns; whoever is longer than the shortest goes on in a further zone.
    pub fn stripes(sizes: &[u64], chunk: u64, turns: Turns) -> Result<Self> {
        let whole = |size: u64| size.saturating_sub(size.checked_rem(chunk).unwrap_or(0));
        let sizes: Vec<u64> = sizes.iter().map(|&size| whole(size)).collect();
        let mut zones: Vec<Zone> = Vec::new();
        let (mut start, mut member_start) = (0u64, 0u64);
        loop {
            let longer = sizes.iter().enumerate().filter(|(_, size)| **size > member_start);
            let members: Vec<usize> = longer.map(|(number, _)| number).collect();
            let ends = members.iter().filter_map(|&number| sizes.get(number).copied());
            let Some(end) = ends.min() else { break };
            let part = end.saturating_sub(member_start);
            let length = part.checked_mul(wide(members.len())).ok_or_else(|| bad("size"))?;
            zones.push(Zone { start, length, member_start, members, chunk });
            start = start.checked_add(length).ok_or_else(|| bad("size"))?;
            member_start = end;
        }
        // Only zones of several members, after the first, depend on how turns are counted.
        let matters = zones.iter().skip(1).any(|zone| zone.members.len() > 1);
        if turns == Turns::Unknown && matters {
            return Err(Error::new(
                adit_core::Kind::Unsupported,
                Problem::Ambiguous,
                "members of different sizes, and the superblock does not say whether the \
                 original or the alternate layout places them",
            )
            .at(Place::new("array").field("layout")));
        }
        Ok(Zones { zones, turns })
    }

    pub fn size_bytes(&self) -> u64 {
        self.zones.last().map_or(0, |zone| zone.start.saturating_add(zone.length))
    }

    pub fn spot(&self, offset: u64) -> Result<Spot> {
        let after = self.zones.partition_point(|zone| zone.start <= offset);
        let zone = self.zones.get(after.saturating_sub(1)).ok_or_else(|| bad("offset"))?;
        let inside = offset.saturating_sub(zone.start);
        let members = wide(zone.members.len());
        let number = inside.checked_div(zone.chunk).ok_or_else(|| bad("chunk"))?;
        let within = inside.checked_rem(zone.chunk).ok_or_else(|| bad("chunk"))?;
        let counted = match self.turns {
            Turns::Original => offset.checked_div(zone.chunk).ok_or_else(|| bad("chunk"))?,
            Turns::Alternate | Turns::Unknown => number,
        };
        let turn = leg(counted.checked_rem(members).ok_or_else(|| bad("members"))?);
        let row = number.checked_div(members).ok_or_else(|| bad("members"))?;
        let member = zone.members.get(turn).copied().ok_or_else(|| bad("members"))?;
        let at = row.checked_mul(zone.chunk).and_then(|at| at.checked_add(within));
        let at =
            at.and_then(|at| at.checked_add(zone.member_start)).ok_or_else(|| bad("offset"))?;
        Ok(Spot { leg: member, offset: at, length: zone.chunk.saturating_sub(within) })
    }
}
