//! From an offset in a stream to the bytes of the volume.

use crate::lznt1;
use crate::runlist::{Backing, Piece};
use crate::stream::{Content, Stream};
use adit_core::bytes::narrow;
use adit_core::{Disk, Error, ExtentMap, Geometry, Kind, Place, Problem, Result, Run, RunKind};
use std::sync::Arc;

/// The map of one stream.
#[derive(Debug)]
pub struct StreamMap {
    name: String,
    volume: Arc<dyn Disk>,
    cluster_bytes: u64,
    stream: Stream,
}

impl StreamMap {
    pub(crate) fn new(
        name: String,
        volume: Arc<dyn Disk>,
        cluster_bytes: u64,
        stream: Stream,
    ) -> Self {
        StreamMap { name, volume, cluster_bytes, stream }
    }

    /// What the map was made of.
    pub fn stream(&self) -> &Stream {
        &self.stream
    }

    fn pieces(&self) -> &[Piece] {
        match &self.stream.content {
            Content::Pieces(pieces) => pieces,
            Content::Resident(_) => &[],
        }
    }

    fn piece_at(&self, vcn: u64) -> Option<&Piece> {
        let after = self.pieces().partition_point(|piece| piece.vcn <= vcn);
        self.pieces().get(after.checked_sub(1)?).filter(|piece| vcn < piece.end())
    }

    fn bytes(&self, clusters: u64) -> u64 {
        clusters.saturating_mul(self.cluster_bytes)
    }

    /// A run from cluster `vcn` of the stream on, up to `end` bytes.
    fn run(&self, vcn: u64, clusters: u64, end: u64, kind: RunKind) -> Run {
        let start = self.bytes(vcn);
        let stop = self.bytes(vcn.saturating_add(clusters)).min(end);
        Run { start, length: stop.saturating_sub(start), kind }
    }

    fn piece_kind(&self, piece: &Piece, vcn: u64) -> RunKind {
        let skip = vcn.saturating_sub(piece.vcn);
        match &piece.backing {
            Backing::Clusters(lcn) => {
                RunKind::Stored { source: 0, offset: self.bytes(lcn.saturating_add(skip)) }
            }
            Backing::Sparse => RunKind::Hole,
            Backing::Bad(error) => RunKind::Lost(error.clone()),
        }
    }

    fn unmapped(&self, vcn: u64) -> Error {
        let detail = format!("no run list maps cluster {vcn:#x} of the stream");
        Error::corrupt(Problem::Missing, detail).at(self.stream.place())
    }

    fn lookup_plain(&self, offset: u64) -> Result<Run> {
        let vcn = offset.checked_div(self.cluster_bytes).unwrap_or(0);
        let piece = self.piece_at(vcn).ok_or_else(|| self.unmapped(vcn))?;
        let end = self.stream.initialized_bytes;
        Ok(self.run(piece.vcn, piece.length, end, self.piece_kind(piece, piece.vcn)))
    }

    fn lookup_compressed(&self, offset: u64, unit: u64) -> Result<Run> {
        let vcn = offset.checked_div(self.cluster_bytes).unwrap_or(0);
        let within = vcn.checked_rem(unit).unwrap_or(0);
        let first = vcn.saturating_sub(within);
        let after = first.saturating_add(unit);
        let size = self.stream.size_bytes;
        let piece = self.piece_at(first).ok_or_else(|| self.unmapped(first))?;
        if piece.end() >= after {
            // Every unit that lies in one piece is of one kind: stored as it is, or not at all.
            let left = piece.end().saturating_sub(first);
            let whole = left.saturating_sub(left.checked_rem(unit).unwrap_or(0));
            let end = match piece.backing {
                Backing::Clusters(_) => self.stream.initialized_bytes,
                _ => size,
            };
            return Ok(self.run(first, whole, end, self.piece_kind(piece, first)));
        }
        let (mut stored, mut at, mut hole) = (0u64, first, false);
        while at < after {
            // Clusters after the last one of the stream were never needed.
            let Some(piece) = self.piece_at(at) else { break };
            let next = piece.end().min(after);
            match &piece.backing {
                Backing::Bad(error) => {
                    return Ok(self.run(first, unit, size, RunKind::Lost(error.clone())));
                }
                Backing::Sparse => hole = true,
                Backing::Clusters(_) if hole => {
                    let detail = "a compressed unit has clusters after a hole";
                    let error = Error::corrupt(Problem::BadValue, detail).at(self.stream.place());
                    return Ok(self.run(first, unit, size, RunKind::Lost(error)));
                }
                Backing::Clusters(_) => {
                    stored = stored.saturating_add(next.saturating_sub(at));
                }
            }
            at = next;
        }
        if stored == 0 {
            return Ok(self.run(first, unit, size, RunKind::Hole));
        }
        if stored < unit {
            return Ok(self.run(first, unit, size, RunKind::Encoded { token: first }));
        }
        // Stored as it is, in several pieces.
        let piece = self.piece_at(vcn).ok_or_else(|| self.unmapped(vcn))?;
        let start = piece.vcn.max(first);
        let length = piece.end().min(after).saturating_sub(start);
        let end = self.stream.initialized_bytes;
        Ok(self.run(start, length, end, self.piece_kind(piece, start)))
    }

    /// Reads the stored clusters of a compressed unit and decodes them.
    fn decode_unit(&self, first: u64, buf: &mut [u8]) -> Result<()> {
        let after = first.saturating_add(self.stream.unit_clusters);
        // The map bounded the unit when it was opened.
        let mut stored = Vec::new();
        let mut at = first;
        while let Some(piece) = self.piece_at(at).filter(|_| at < after) {
            let Backing::Clusters(lcn) = &piece.backing else { break };
            let next = piece.end().min(after);
            let length = narrow(self.bytes(next.saturating_sub(at))).unwrap_or(0);
            let start = stored.len();
            stored.resize(start.saturating_add(length), 0);
            let skip = at.saturating_sub(piece.vcn);
            let room = stored.get_mut(start..).unwrap_or_default();
            self.volume.read_at(room, self.bytes(lcn.saturating_add(skip)))?;
            at = next;
        }
        lznt1::decode(&stored, buf).map_err(|error| {
            let place = self.stream.place().byte(self.bytes(first));
            error.at(place)
        })?;
        let written = self.stream.initialized_bytes.saturating_sub(self.bytes(first));
        let written = narrow(written).unwrap_or(usize::MAX).min(buf.len());
        buf.get_mut(written..).unwrap_or_default().fill(0);
        Ok(())
    }
}

impl ExtentMap for StreamMap {
    fn geometry(&self) -> Geometry {
        let below = self.volume.geometry();
        Geometry { size_bytes: self.stream.size_bytes, ..below }
    }

    fn lookup(&self, offset: u64, _at_most: u64) -> Result<Run> {
        let size = self.stream.size_bytes;
        if let Content::Resident(_) = self.stream.content {
            return Ok(Run { start: 0, length: size, kind: RunKind::Encoded { token: 0 } });
        }
        let unit = self.stream.unit_clusters;
        let mut zeros = self.stream.initialized_bytes;
        if offset >= zeros {
            // A unit that is written in part is decoded as a whole.
            let in_unit = self.bytes(unit);
            if unit > 0 && zeros.checked_rem(in_unit) != Some(0) {
                let start = zeros.saturating_sub(zeros.checked_rem(in_unit).unwrap_or(0));
                let run = self.lookup_compressed(start, unit)?;
                if matches!(run.kind, RunKind::Encoded { .. }) {
                    zeros = start.saturating_add(run.length);
                    if offset < zeros {
                        return Ok(run);
                    }
                }
            }
            return Ok(Run {
                start: zeros,
                length: size.saturating_sub(zeros),
                kind: RunKind::Zero,
            });
        }
        if unit == 0 { self.lookup_plain(offset) } else { self.lookup_compressed(offset, unit) }
    }

    fn source(&self, index: usize) -> Option<&Arc<dyn Disk>> {
        (index == 0).then_some(&self.volume)
    }

    fn parent(&self) -> Option<&Arc<dyn Disk>> {
        None
    }

    fn decode(&self, run: &Run, buf: &mut [u8]) -> Result<()> {
        match (&self.stream.content, &run.kind) {
            (Content::Resident(value), _) if value.len() == buf.len() => {
                buf.copy_from_slice(value);
                Ok(())
            }
            (Content::Pieces(_), RunKind::Encoded { token }) => self.decode_unit(*token, buf),
            _ => Err(Error::new(Kind::Invalid, Problem::BadValue, "the run is not of this map")),
        }
    }

    fn name(&self) -> String {
        self.name.clone()
    }

    fn steps(&self, offset: u64) -> Result<Vec<String>> {
        let mut steps = vec![show(&self.stream.place())];
        if let Content::Resident(_) = self.stream.content {
            steps.push("resident: the record itself holds the bytes".into());
            return Ok(steps);
        }
        if offset >= self.stream.initialized_bytes {
            let end = self.stream.initialized_bytes;
            steps.push(format!("only the first {end} bytes were ever written"));
        }
        let vcn = offset.checked_div(self.cluster_bytes).unwrap_or(0);
        let piece = self.piece_at(vcn).ok_or_else(|| self.unmapped(vcn))?;
        let skip = vcn.saturating_sub(piece.vcn);
        steps.push(match &piece.backing {
            Backing::Clusters(lcn) => {
                format!(
                    "cluster {vcn:#x} of the stream, {:#x} of the volume",
                    lcn.saturating_add(skip)
                )
            }
            Backing::Sparse => format!("cluster {vcn:#x} of the stream, in a sparse run"),
            Backing::Bad(error) => format!("cluster {vcn:#x} of the stream, damaged: {error}"),
        });
        if self.stream.unit_clusters > 0 {
            let unit = vcn.checked_div(self.stream.unit_clusters).unwrap_or(0);
            steps.push(format!(
                "compression unit {unit:#x} of {} clusters",
                self.stream.unit_clusters
            ));
        }
        Ok(steps)
    }
}

fn show(place: &Place) -> String {
    place.to_string()
}
