//! Level 1: the first member that can be read.

use super::{Array, Spot};
use adit_core::{Run, bytes::wide};

impl Array {
    pub(super) fn lookup_mirror(&self, offset: u64, size: u64) -> Run {
        let length = size.saturating_sub(offset);
        let spots = (0..self.legs.len()).map(|leg| Spot { leg, offset, length });
        let mut first = None;
        // A later copy is used only up to where an earlier one can be read again.
        for spot in spots {
            first = first.or(Some(spot));
            if let Some(spot) = self.readable(spot) {
                return self.stored(offset, self.until_better(spot));
            }
        }
        let spot = first.unwrap_or(Spot { leg: 0, offset, length });
        let why = format!("none of the {} copies can be read", wide(self.legs.len()));
        let run = self.lost(offset, spot, Some(&why));
        // No further than the nearest place where any copy may be good again.
        let end = self.legs.iter().flat_map(|leg| &leg.lost).map(|range| range.end);
        let near = end.filter(|&end| end > offset).min().unwrap_or(u64::MAX);
        Run { length: run.length.min(near.saturating_sub(offset)).max(1), ..run }
    }

    /// Shortens a spot on a later copy to where an earlier copy is good again.
    fn until_better(&self, spot: Spot) -> Spot {
        let earlier = self.legs.iter().take(spot.leg).filter(|leg| leg.is_present());
        let ends = earlier.flat_map(|leg| &leg.lost).map(|range| range.end);
        let near = ends.filter(|&end| end > spot.offset).min().unwrap_or(u64::MAX);
        Spot { length: spot.length.min(near.saturating_sub(spot.offset)).max(1), ..spot }
    }
}
