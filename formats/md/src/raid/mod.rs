//! RAID as a translation of offsets: which member holds a byte, and how to compute it when
//! that member is gone. Linux md, device mapper and Windows dynamic disks share it.

mod gf;
mod mirror;
mod parity;
mod ten;
mod zones;

pub use parity::Rotation;

use adit_core::bytes::{index, wide};
use adit_core::{
    Disk, DiskExt, Error, ExtentMap, Geometry, Mapped, Place, Problem, Result, Run, RunKind,
};
use std::ops::Range;
use std::sync::Arc;

/// One member of an array, in the array's order.
#[derive(Clone, Debug)]
pub struct Leg {
    held: Option<(Arc<dyn Disk>, u64)>,
    size_bytes: u64,
    /// Sorted ranges of the member's data that cannot be used, with the reason in `reason`.
    lost: Vec<Range<u64>>,
    reason: Error,
}

impl Leg {
    /// A member whose data are the `size_bytes` of `disk` from `offset` on. What lies past the
    /// end of `disk` counts as lost.
    pub fn present(disk: Arc<dyn Disk>, offset: u64, size_bytes: u64) -> Self {
        let there = disk.size_bytes().saturating_sub(offset);
        let reason = Error::new(
            adit_core::Kind::Lost,
            Problem::Truncated,
            format!("a member ends after {there} bytes of {size_bytes}"),
        );
        let leg = Leg { held: Some((disk, offset)), size_bytes, lost: Vec::new(), reason };
        if there < size_bytes { leg.without_range(there..size_bytes) } else { leg }
    }

    /// A member that is not there, or not to be used, for this reason.
    pub fn missing(size_bytes: u64, reason: Error) -> Self {
        Leg { held: None, size_bytes, lost: Vec::new(), reason }
    }

    /// The same member without a range of its data: what is not rebuilt yet, what lies on a
    /// device that is gone.
    pub fn without(mut self, range: Range<u64>, reason: Error) -> Self {
        self.reason = reason;
        self.without_range(range)
    }

    /// Whether any of it can be read.
    pub fn is_present(&self) -> bool {
        self.held.is_some()
    }

    fn without_range(mut self, range: Range<u64>) -> Self {
        self.lost.push(range);
        self.lost.sort_by_key(|range| range.start);
        self
    }

    /// How many bytes from `offset` on can be read, up to `length`.
    fn readable(&self, offset: u64, length: u64) -> u64 {
        if self.held.is_none() || offset >= self.size_bytes {
            return 0;
        }
        let mut length = length.min(self.size_bytes.saturating_sub(offset));
        for range in &self.lost {
            if range.contains(&offset) {
                return 0;
            }
            if range.start > offset {
                length = length.min(range.start.saturating_sub(offset));
            }
        }
        length
    }

    fn read(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let (disk, base) = self.held.as_ref().ok_or_else(|| self.reason.clone())?;
        disk.read_at(buf, base.saturating_add(offset))
    }
}

/// How the members of an array share its bytes. Chunk sizes in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// One after the other.
    Linear,
    /// In turns of `chunk_bytes`. With members of different sizes the longer ones go on alone;
    /// `turns` says how they take turns then.
    Stripes {
        /// Length of a turn.
        chunk_bytes: u64,
        /// How members take turns past the end of the shortest.
        turns: Turns,
    },
    /// All the same.
    Mirror,
    /// Stripes of copies.
    Ten {
        /// Length of a turn.
        chunk_bytes: u64,
        /// Copies beside each other.
        near: u32,
        /// Copies far apart.
        far: u32,
        /// Whether far copies lie in the next stripe rather than in the next part of a member.
        offset: bool,
        /// How many neighbouring members exchange far copies; all where it is none.
        far_set: Option<u32>,
    },
    /// Stripes with one block of parity each (`q` false) or two.
    Parity {
        /// Length of a turn.
        chunk_bytes: u64,
        /// How parity moves from stripe to stripe.
        rotation: Rotation,
        /// Whether there is a second syndrome.
        q: bool,
        /// Whether parity is known to match its data, so that missing data may be computed.
        trusted: bool,
    },
}

/// How members of different sizes take turns past the end of the shortest one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turns {
    /// By the chunk's number in the array: Linux before 3.14, layout "original".
    Original,
    /// By the chunk's number in the zone: Linux since 3.14, layout "alternate".
    Alternate,
    /// Not recorded: refused where it matters.
    Unknown,
}

/// Where bytes of an array stand: up to `length` of them from `offset` of member `leg`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Spot {
    pub leg: usize,
    pub offset: u64,
    pub length: u64,
}

#[derive(Debug)]
enum Shape {
    Zones(zones::Zones),
    Mirror(u64),
    Ten(ten::Ten),
    Parity(parity::Parity),
}

/// The map of an array over its members.
#[derive(Debug)]
pub struct Array {
    name: String,
    geometry: Geometry,
    shape: Shape,
    legs: Vec<Leg>,
    disks: Vec<Option<Arc<dyn Disk>>>,
}

impl Array {
    /// Makes one disk of the members, given in the array's order. `size_bytes`, where it is
    /// known from elsewhere, bounds the disk; the members may hold more.
    ///
    /// Errors: `Corrupt` when members, chunk or layout cannot be of one array; `Unsupported`
    /// for shapes that are not handled.
    pub fn open(
        name: impl Into<String>,
        level: Level,
        legs: Vec<Leg>,
        size_bytes: Option<u64>,
    ) -> Result<Arc<dyn Disk>> {
        let shape = shape(level, &legs)?;
        let whole = shape.size_bytes();
        let mut geometry = Geometry::of_size(size_bytes.unwrap_or(whole).min(whole));
        let disks: Vec<_> =
            legs.iter().map(|leg| leg.held.as_ref().map(|held| Arc::clone(&held.0))).collect();
        for below in disks.iter().flatten().map(|disk| disk.geometry()) {
            geometry.sector_size_bytes = geometry.sector_size_bytes.max(below.sector_size_bytes);
        }
        if size_bytes.is_some_and(|said| said > whole) {
            let said = size_bytes.unwrap_or(0);
            let detail = format!("{said} bytes are said, the members have room for {whole}");
            return Err(Error::corrupt(Problem::OutOfRange, detail).at(Place::new("array size")));
        }
        Ok(Arc::new(Mapped::new(Array { name: name.into(), geometry, shape, legs, disks })))
    }

    fn stored(&self, at: u64, spot: Spot) -> Run {
        let base = self.legs.get(spot.leg).and_then(|leg| leg.held.as_ref()).map_or(0, |h| h.1);
        let offset = base.saturating_add(spot.offset);
        Run { start: at, length: spot.length, kind: RunKind::Stored { source: spot.leg, offset } }
    }

    /// The spot shortened to what can be read, or nothing.
    fn readable(&self, spot: Spot) -> Option<Spot> {
        let length = self.legs.get(spot.leg)?.readable(spot.offset, spot.length);
        (length > 0).then_some(Spot { length, ..spot })
    }

    fn lost(&self, at: u64, spot: Spot, why: Option<&str>) -> Run {
        let reason = self.legs.get(spot.leg).map(|leg| leg.reason.clone());
        let reason = reason.unwrap_or_else(|| Error::lost("there is no such member"));
        let place = Place::new("member").index(wide(spot.leg)).byte(spot.offset);
        let reason = match why {
            Some(why) => {
                let detail = format!("{}; {why}", reason.detail());
                let mut error = Error::new(reason.kind(), reason.problem(), detail);
                if let Some(advice) = reason.advice() {
                    error = error.advise(advice);
                }
                error
            }
            None => reason,
        };
        // Where the lost range of the member ends, a new answer begins.
        let end = self
            .legs
            .get(spot.leg)
            .and_then(|leg| leg.lost.iter().find(|range| range.contains(&spot.offset)))
            .map_or(spot.length, |range| range.end.saturating_sub(spot.offset));
        let length = spot.length.min(end).max(1);
        Run { start: at, length, kind: RunKind::Lost(reason.at(place)) }
    }
}

fn shape(level: Level, legs: &[Leg]) -> Result<Shape> {
    let sizes: Vec<u64> = legs.iter().map(|leg| leg.size_bytes).collect();
    let smallest = sizes.iter().copied().min().ok_or_else(|| {
        Error::corrupt(Problem::Missing, "an array of no members").at(Place::new("array"))
    })?;
    Ok(match level {
        Level::Linear => Shape::Zones(zones::Zones::linear(&sizes)?),
        Level::Stripes { chunk_bytes, turns } => {
            Shape::Zones(zones::Zones::stripes(&sizes, chunk(chunk_bytes)?, turns)?)
        }
        Level::Mirror => Shape::Mirror(smallest),
        Level::Ten { chunk_bytes, near, far, offset, far_set } => {
            let legs = legs.len();
            let chunk = chunk(chunk_bytes)?;
            Shape::Ten(ten::Ten::new(legs, smallest, chunk, near, far, offset, far_set)?)
        }
        Level::Parity { chunk_bytes, rotation, q, trusted } => {
            let chunk = chunk(chunk_bytes)?;
            Shape::Parity(parity::Parity::new(legs.len(), smallest, chunk, rotation, q, trusted)?)
        }
    })
}

fn chunk(bytes: u64) -> Result<u64> {
    if bytes < 512 || !bytes.is_multiple_of(512) {
        let detail = format!("a chunk of {bytes} bytes");
        return Err(
            Error::corrupt(Problem::BadValue, detail).at(Place::new("array").field("chunk"))
        );
    }
    Ok(bytes)
}

impl Shape {
    fn size_bytes(&self) -> u64 {
        match self {
            Shape::Zones(zones) => zones.size_bytes(),
            Shape::Mirror(size) => *size,
            Shape::Ten(ten) => ten.size_bytes(),
            Shape::Parity(parity) => parity.size_bytes(),
        }
    }
}

impl ExtentMap for Array {
    fn geometry(&self) -> Geometry {
        self.geometry
    }

    fn lookup(&self, offset: u64, at_most: u64) -> Result<Run> {
        let run = match &self.shape {
            Shape::Zones(zones) => {
                let spot = zones.spot(offset)?;
                match self.readable(spot) {
                    Some(spot) => self.stored(offset, spot),
                    None => self.lost(offset, spot, None),
                }
            }
            Shape::Mirror(size) => self.lookup_mirror(offset, *size),
            Shape::Ten(ten) => self.lookup_ten(ten, offset)?,
            Shape::Parity(parity) => self.lookup_parity(parity, offset, at_most)?,
        };
        let left = self.geometry.size_bytes.saturating_sub(offset).max(1);
        Ok(Run { length: run.length.clamp(1, left), ..run })
    }

    fn source(&self, index: usize) -> Option<&Arc<dyn Disk>> {
        self.disks.get(index)?.as_ref()
    }

    fn parent(&self) -> Option<&Arc<dyn Disk>> {
        None
    }

    fn decode(&self, run: &Run, buf: &mut [u8]) -> Result<()> {
        match &self.shape {
            Shape::Parity(parity) => self.reconstruct(parity, run.start, buf),
            _ => Err(Error::unsupported("only arrays with parity compute data")),
        }
    }

    fn name(&self) -> String {
        self.name.clone()
    }

    fn steps(&self, offset: u64) -> Result<Vec<String>> {
        let said = |spot: Spot| format!("member {}, byte {:#x} of its data", spot.leg, spot.offset);
        Ok(vec![match &self.shape {
            Shape::Zones(zones) => said(zones.spot(offset)?),
            Shape::Mirror(_) => format!("a mirror of {} members", self.legs.len()),
            Shape::Ten(ten) => said(ten.copy(offset, 0, 0)?),
            Shape::Parity(parity) => {
                let stripe = parity.stripe(offset)?;
                let spot = Spot { leg: stripe.leg, offset: stripe.offset, length: stripe.length };
                match stripe.q {
                    Some(q) => format!("{}; P on member {}, Q on {q}", said(spot), stripe.p),
                    None => format!("{}; parity on member {}", said(spot), stripe.p),
                }
            }
        }])
    }
}

/// A member's number as an index; numbers come from 32-bit fields.
pub(crate) fn leg(number: u64) -> usize {
    index(u32::try_from(number).unwrap_or(u32::MAX))
}

pub(crate) fn bad(what: &'static str) -> Error {
    Error::corrupt(Problem::OutOfRange, "the numbers of the array leave 64 bits")
        .at(Place::new("array").field(what))
}
