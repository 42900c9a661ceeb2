//! Run lists: which clusters a stream has, as the file's record tells it.

use crate::record::{Attribute, Body};
use adit_core::{Error, Problem, Result};

/// What is behind a range of a stream.
#[derive(Clone, Debug)]
pub enum Backing {
    /// Clusters of the volume, from this one on.
    Clusters(u64),
    /// Nothing; zeros.
    Sparse,
    /// The run list is damaged here.
    Bad(Error),
}

/// A range of a stream. Unit: clusters.
#[derive(Clone, Debug)]
pub struct Piece {
    /// First cluster of the stream.
    pub vcn: u64,
    /// Number of clusters, at least 1.
    pub length: u64,
    /// What is there.
    pub backing: Backing,
}

impl Piece {
    /// First cluster after the range.
    pub fn end(&self) -> u64 {
        self.vcn.saturating_add(self.length)
    }
}

/// The run list of a stream, put together from its attributes in order.
#[derive(Debug)]
pub(crate) struct Builder {
    pieces: Vec<Piece>,
    volume_clusters: u64,
    pieces_max: u64,
}

impl Builder {
    pub(crate) fn new(volume_clusters: u64, pieces_max: u64) -> Self {
        Builder { pieces: Vec::new(), volume_clusters, pieces_max }
    }

    /// First cluster that is not described yet.
    pub(crate) fn end(&self) -> u64 {
        self.pieces.last().map_or(0, Piece::end)
    }

    pub(crate) fn pieces(&self) -> &[Piece] {
        &self.pieces
    }

    /// The whole list, up to `clusters`. What no attribute describes is lost, for `reason` if
    /// one is known.
    pub(crate) fn finish(mut self, clusters: u64, reason: Option<&Error>) -> Vec<Piece> {
        self.gap_until(clusters, reason);
        self.pieces
    }

    /// Adds the next attribute's run list. Damage is kept in the list and loses what it covers.
    ///
    /// Errors: `Limit` past `list_steps_max`; `Corrupt` where it maps what is mapped already.
    pub(crate) fn add(&mut self, attribute: &Attribute, reason: Option<&Error>) -> Result<()> {
        let Body::NonResident { raw, .. } = &attribute.body else {
            let detail = "a resident attribute goes on with a stream in clusters";
            return Err(Error::corrupt(Problem::BadValue, detail).at(attribute.place()));
        };
        // An empty stream says it ends before it starts.
        let end = raw.last_vcn.wrapping_add(1);
        if end < raw.first_vcn || end > 1 << 55 {
            let detail = format!("maps clusters {:#x} to {:#x}", raw.first_vcn, raw.last_vcn);
            return Err(Error::corrupt(Problem::OutOfRange, detail).at(attribute.place()));
        }
        if raw.first_vcn < self.end() {
            let detail = format!("maps cluster {:#x} of the stream again", raw.first_vcn);
            return Err(Error::corrupt(Problem::Overlaps, detail).at(attribute.place()));
        }
        self.gap_until(raw.first_vcn, reason);
        let damage = match self.decode(attribute.pairs(), end) {
            Ok(()) => None,
            Err(error) if error.kind() == adit_core::Kind::Limit => return Err(error),
            Err(error) => Some(error.at(attribute.place())),
        };
        self.gap_until(end, damage.as_ref());
        Ok(())
    }

    fn gap_until(&mut self, vcn: u64, reason: Option<&Error>) {
        let start = self.end();
        if let Some(length) = vcn.checked_sub(start).filter(|length| *length > 0) {
            let error = reason.cloned().unwrap_or_else(|| {
                let detail = format!("no run list maps clusters {start:#x} to {vcn:#x}");
                Error::corrupt(Problem::Missing, detail)
            });
            self.pieces.push(Piece { vcn: start, length, backing: Backing::Bad(error) });
        }
    }

    /// Decodes one run list, which ends before cluster `end` of the stream.
    fn decode(&mut self, pairs: &[u8], end: u64) -> Result<()> {
        let mut rest = pairs;
        let mut lcn = 0i64;
        loop {
            let (head, after) = rest.split_first().ok_or_else(truncated)?;
            if *head == 0 {
                return Ok(());
            }
            let (length_bytes, lcn_bytes) = (usize::from(head & 15), usize::from(head >> 4));
            let (length, after) = after.split_at_checked(length_bytes).ok_or_else(truncated)?;
            let (delta, after) = after.split_at_checked(lcn_bytes).ok_or_else(truncated)?;
            rest = after;
            let length = signed(length).and_then(|length| u64::try_from(length).ok());
            let length = length.filter(|length| *length > 0).ok_or_else(|| {
                Error::corrupt(Problem::BadValue, "a run's length is not a positive number")
            })?;
            let vcn = self.end();
            if vcn.checked_add(length).is_none_or(|next| next > end) {
                let detail = format!("a run of {length} clusters at {vcn:#x} passes {end:#x}");
                return Err(Error::corrupt(Problem::OutOfRange, detail));
            }
            let backing = if lcn_bytes == 0 {
                Backing::Sparse
            } else {
                let delta = signed(delta).ok_or_else(truncated)?;
                lcn = lcn.checked_add(delta).ok_or_else(truncated)?;
                self.clusters(lcn, length)
            };
            self.push(Piece { vcn, length, backing })?;
        }
    }

    fn clusters(&self, lcn: i64, length: u64) -> Backing {
        let start = u64::try_from(lcn).ok();
        let inside = start.filter(|start| {
            start.checked_add(length).is_some_and(|end| end <= self.volume_clusters)
        });
        inside.map_or_else(
            || {
                let detail = format!(
                    "a run names clusters {lcn:#x}+{length:#x} of {:#x}",
                    self.volume_clusters
                );
                Backing::Bad(Error::corrupt(Problem::OutOfRange, detail))
            },
            Backing::Clusters,
        )
    }

    fn push(&mut self, piece: Piece) -> Result<()> {
        if let Some(last) = self.pieces.last_mut() {
            let joins = match (&last.backing, &piece.backing) {
                (Backing::Clusters(a), Backing::Clusters(b)) => {
                    a.checked_add(last.length) == Some(*b)
                }
                (Backing::Sparse, Backing::Sparse) => true,
                _ => false,
            };
            if joins {
                last.length = last.length.saturating_add(piece.length);
                return Ok(());
            }
        }
        if adit_core::bytes::wide(self.pieces.len()) >= self.pieces_max {
            return Err(Error::limit("list_steps_max", "a run list has too many runs"));
        }
        self.pieces.push(piece);
        Ok(())
    }
}

fn truncated() -> Error {
    Error::corrupt(Problem::Truncated, "a run list ends in the middle of a run")
}

/// A little-endian signed number of 1 to 8 bytes.
fn signed(bytes: &[u8]) -> Option<i64> {
    let fill = if *bytes.last()? & 0x80 != 0 { 0xff } else { 0 };
    let mut raw = [fill; 8];
    raw.get_mut(..bytes.len())?.copy_from_slice(bytes);
    Some(i64::from_le_bytes(raw))
}

#[cfg(test)]
mod tests {
    use super::*;

    type Shown = Vec<(u64, u64, Option<u64>)>;

    fn decoded(pairs: &[u8], end: u64) -> (Shown, Result<()>) {
        let mut builder = Builder::new(0x1_0000, 100);
        let result = builder.decode(pairs, end);
        let show = |piece: &Piece| match &piece.backing {
            Backing::Clusters(lcn) => (piece.vcn, piece.length, Some(*lcn)),
            Backing::Sparse => (piece.vcn, piece.length, None),
            Backing::Bad(error) => panic!("{error:?}"),
        };
        (builder.pieces.iter().map(show).collect(), result)
    }

    #[test]
    fn runs_are_signed_steps_from_the_run_before() {
        // 0x18 clusters at 0x5634, 0x10 sparse, 8 clusters 0x34 before.
        let (runs, result) = decoded(&[0x21, 0x18, 0x34, 0x56, 0x01, 0x10, 0x11, 8, 0xcc, 0], 0x30);
        result.unwrap();
        assert_eq!(runs, [(0, 0x18, Some(0x5634)), (0x18, 0x10, None), (0x28, 8, Some(0x5600))]);
    }

    #[test]
    fn neighbours_become_one_run() {
        let (runs, _) = decoded(&[0x11, 4, 0x10, 0x11, 4, 4, 0], 8);
        assert_eq!(runs, [(0, 8, Some(0x10))]);
    }

    #[test]
    fn damage_ends_the_list_and_keeps_what_came_before() {
        let broken: [&[u8]; 6] = [
            &[0x11, 4, 0x10, 0x11, 4],
            &[0x11, 4, 0x10],
            &[0x11, 4, 0x10, 0x01, 0],
            &[0x11, 4, 0x10, 0x01, 0x80],
            &[0x11, 4, 0x10, 0x19, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 0],
            &[0x11, 4, 0x10, 0x01, 9, 0],
        ];
        for pairs in broken {
            let (runs, result) = decoded(pairs, 8);
            assert_eq!((runs, result.is_err()), (vec![(0, 4, Some(0x10))], true), "{pairs:x?}");
        }
    }

    #[test]
    fn a_run_outside_the_volume_is_lost_alone() {
        let mut builder = Builder::new(0x100, 100);
        builder.decode(&[0x21, 1, 0xff, 0x00, 0x11, 1, 1, 0x11, 1, 0x80, 0], 3).unwrap();
        let bad: Vec<bool> =
            builder.pieces.iter().map(|p| matches!(p.backing, Backing::Bad(_))).collect();
        assert_eq!(bad, [false, true, false]);
    }

    #[test]
    fn more_runs_than_the_limit_are_refused() {
        let mut builder = Builder::new(0x100, 2);
        let error = builder.decode(&[0x11, 1, 4, 0x11, 1, 4, 0x11, 1, 4, 0], 3).unwrap_err();
        assert_eq!(error.kind(), adit_core::Kind::Limit);
    }
}
