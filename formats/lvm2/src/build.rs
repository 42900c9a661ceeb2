//! Segments to disks: each logical volume becomes a chain of pieces of what lies below it.

use crate::cache::Cache;
use crate::metadata::{Lv, Segment, Vg, bytes};
use crate::raid::RaidKind;
use crate::snapshot::Store;
use crate::text::Value;
use crate::thin::Pool;
use adit_core::bytes::wide;
use adit_core::{
    Concat, Disk, DiskExt, Error, Finding, Limits, Piece, PieceKind, Place, Problem, Result,
};
use adit_md::raid::{Array, Leg, Level, Turns};
use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

/// A disk, and what is known to be lost of it.
#[derive(Clone, Debug)]
pub(crate) struct Built {
    pub disk: Arc<dyn Disk>,
    /// Ranges that hold lost bytes, and maybe good ones between them.
    pub lost: Vec<Range<u64>>,
    /// How many bytes are lost.
    pub lost_bytes: u64,
}

impl Built {
    pub fn whole(disk: Arc<dyn Disk>) -> Self {
        Built { disk, lost: Vec::new(), lost_bytes: 0 }
    }

    /// A disk of `length` bytes of which so many are lost somewhere.
    pub fn without(disk: Arc<dyn Disk>, length: u64, lost_bytes: u64) -> Self {
        let lost = if lost_bytes > 0 { vec![one(length)] } else { Vec::new() };
        Built { disk, lost, lost_bytes }
    }
}

fn one(length: u64) -> Range<u64> {
    0..length
}

/// Builds the volumes of one group; parts that several share are built once.
pub(crate) struct Builder<'a> {
    pub vg: &'a Vg,
    pub limits: &'a Limits,
    pub notes: Vec<Finding>,
    pvs: Vec<Result<Arc<dyn Disk>, Error>>,
    built: HashMap<String, Result<Built>>,
    pools: HashMap<String, Result<Arc<Pool>>>,
    /// The volumes that are being built, to notice one that contains itself.
    open: Vec<String>,
}

/// Part of what a segment lies on: a stretch of a physical or logical volume.
pub(crate) struct Area {
    pub source: Result<Built, Error>,
    /// Unit: bytes of the source.
    pub offset: u64,
    /// Why all of it is lost, where it is.
    pub reason: Option<Error>,
}

impl Area {
    /// The stretch as a member of an array.
    pub fn leg(self, length: u64) -> Leg {
        let built = match self.source {
            Ok(built) => built,
            Err(reason) => return Leg::missing(length, reason),
        };
        let reason = || Error::lost("an image lies on a physical volume that is missing");
        let lost = shifted(&built.lost, self.offset, length, 0);
        if lost.contains(&one(length)) {
            return Leg::missing(length, self.reason.unwrap_or_else(reason));
        }
        let leg = Leg::present(built.disk, self.offset, length);
        lost.into_iter().fold(leg, |leg, range| leg.without(range, reason()))
    }
}

/// The parts of `lost` within a stretch, moved to where the stretch stands.
pub(crate) fn shifted(lost: &[Range<u64>], from: u64, length: u64, to: u64) -> Vec<Range<u64>> {
    let end = from.saturating_add(length);
    let moved = |at: u64| at.clamp(from, end).saturating_sub(from).saturating_add(to);
    let parts = lost.iter().map(|range| moved(range.start)..moved(range.end));
    parts.filter(|range| !range.is_empty()).collect()
}

/// Adds a range to ranges in order, joined to the last where they touch.
fn join(ranges: &mut Vec<Range<u64>>, range: Range<u64>) {
    match ranges.last_mut() {
        Some(last) if last.end >= range.start => last.end = last.end.max(range.end),
        _ => ranges.push(range),
    }
}

/// What a segment adds to its volume.
struct Part {
    piece: Piece,
    lost: Vec<Range<u64>>,
    lost_bytes: u64,
}

impl Part {
    fn of(built: Built, offset: u64, length: u64) -> Self {
        let lost = shifted(&built.lost, offset, length, 0);
        let reach: u64 = lost.iter().map(|range| range.end.saturating_sub(range.start)).sum();
        let piece = Piece::part(built.disk, offset, length);
        Part { piece, lost, lost_bytes: built.lost_bytes.min(reach) }
    }

    fn lost(length: u64, reason: Error) -> Self {
        Part { piece: Piece::lost(length, reason), lost: vec![one(length)], lost_bytes: length }
    }
}

impl<'a> Builder<'a> {
    pub fn new(vg: &'a Vg, pvs: Vec<Result<Arc<dyn Disk>, Error>>, limits: &'a Limits) -> Self {
        Builder {
            vg,
            limits,
            notes: Vec::new(),
            pvs,
            built: HashMap::new(),
            pools: HashMap::new(),
            open: Vec::new(),
        }
    }

    /// The volume as users read it, with its kind; none for what holds no data of its own.
    pub fn present(&mut self, lv: &Lv) -> Option<(String, Result<Built>)> {
        let first = lv.segments.first()?;
        if matches!(first.kind.as_str(), "thin-pool" | "cache-pool" | "snapshot" | "vdo-pool") {
            return None;
        }
        if let Some(snapshot) = self.snapshot_of(lv) {
            return Some(("snapshot".into(), snapshot));
        }
        if let Some(error) = self.merging(lv) {
            return Some((kind_of(first), Err(error)));
        }
        Some((kind_of(first), self.lv(&lv.name)))
    }

    /// The bytes of a logical volume, built at first use.
    pub fn lv(&mut self, name: &str) -> Result<Built> {
        if let Some(built) = self.built.get(name) {
            return built.clone();
        }
        let place = || Place::new("logical volume").field(name.to_owned());
        if self.open.iter().any(|open| open == name) {
            let detail = format!("{name} contains itself");
            return Err(Error::corrupt(Problem::Cycle, detail).at(place()));
        }
        if wide(self.open.len()) >= self.limits.layers_max {
            return Err(Error::limit("layers_max", "volumes nest deeper").at(place()));
        }
        self.open.push(name.to_owned());
        let built = self.build(name).map_err(|error| error.at(place()));
        self.open.pop();
        self.built.insert(name.to_owned(), built.clone());
        built
    }

    fn build(&mut self, name: &str) -> Result<Built> {
        let lv = self.vg.lv(name).ok_or_else(|| {
            let detail = format!("the metadata names {name}, but does not describe it");
            Error::corrupt(Problem::Missing, detail)
        })?;
        let title = format!("LV {}/{name}", self.vg.name);
        let mut pieces = Vec::new();
        let (mut lost, mut lost_bytes) = (Vec::<Range<u64>>::new(), 0u64);
        let mut at = 0u64;
        for segment in &lv.segments {
            let part = self.segment(lv, segment)?;
            shifted(&part.lost, 0, segment.length, at)
                .into_iter()
                .for_each(|range| join(&mut lost, range));
            lost_bytes = lost_bytes.saturating_add(part.lost_bytes);
            at = at.saturating_add(segment.length);
            pieces.push(part.piece);
        }
        let alone = match pieces.as_slice() {
            // One array or thin volume needs no layer of its own.
            [Piece { length, kind: PieceKind::Disk { disk, offset: 0 } }]
                if *length == disk.size_bytes() =>
            {
                Some(Arc::clone(disk))
            }
            _ => None,
        };
        let disk = alone.map_or_else(|| Concat::open(title, pieces), Ok)?;
        Ok(Built { disk, lost, lost_bytes })
    }

    fn segment(&mut self, lv: &Lv, segment: &Segment) -> Result<Part> {
        let length = segment.length;
        match segment.kind.as_str() {
            "striped" | "linear" => self.striped(lv, segment),
            "mirror" => {
                let legs = self.legs(segment.body.list("mirrors"), length)?;
                self.mirror_note(lv, &legs);
                let gone = if legs.iter().any(Leg::is_present) { 0 } else { length };
                let title = format!("mirror LV {}/{}", self.vg.name, lv.name);
                let disk = Array::open(title, Level::Mirror, legs, Some(length))?;
                Ok(Part::of(Built::without(disk, length, gone), 0, length))
            }
            "thin" => Ok(Part::of(Built::whole(self.thin(lv, segment)?), 0, length)),
            "zero" => Ok(Part { piece: Piece::zero(length), lost: Vec::new(), lost_bytes: 0 }),
            "error" => {
                Ok(Part::lost(length, Error::lost("the volume's own table makes this part fail")))
            }
            "cache" => self.cache(lv, segment).map(|built| Part::of(built, 0, length)),
            kind => match RaidKind::parse(kind) {
                Some(raid) => Ok(Part::of(self.raid(lv, segment, raid)?, 0, length)),
                None => Err(Error::unsupported(refusal(kind)).at(Place::new("segment"))),
            },
        }
    }

    /// One area, or several in turns.
    fn striped(&mut self, lv: &Lv, segment: &Segment) -> Result<Part> {
        let (list, length) = (segment.body.list("stripes"), segment.length);
        let count = wide(list.len() / 2);
        if count == 1 {
            let area = self.areas(list, length)?.into_iter().next();
            let area = area.ok_or_else(|| bad("stripes", "a stripe without a place"))?;
            return Ok(match area.source {
                Err(reason) => Part::lost(length, reason),
                Ok(built) => Part::of(built, area.offset, length),
            });
        }
        let each = length.checked_div(count).unwrap_or(0);
        if each.checked_mul(count) != Some(length) || each == 0 {
            return Err(bad("extent_count", "the stripes do not share the segment evenly"));
        }
        let chunk_bytes = bytes(segment.body.number("stripe_size")?)?;
        let legs = self.legs(list, each)?;
        let gone = wide(legs.iter().filter(|leg| !leg.is_present()).count());
        let level = Level::Stripes { chunk_bytes, turns: Turns::Unknown };
        let disk =
            Array::open(format!("striped LV {}/{}", self.vg.name, lv.name), level, legs, None)?;
        if disk.size_bytes() != length {
            return Err(bad("stripe_size", "the stripes are no multiple of their size"));
        }
        Ok(Part::of(Built::without(disk, length, each.saturating_mul(gone)), 0, length))
    }

    /// Pairs of a name and a first extent.
    pub fn areas(&mut self, list: &[Value], length: u64) -> Result<Vec<Area>> {
        if wide(list.len() / 2) > self.limits.members_max.saturating_mul(8) {
            return Err(Error::limit("members_max", format!("{} areas", list.len() / 2)));
        }
        let pairs = list.chunks(2).map(|pair| match pair {
            [name, extent] => {
                let name = name.text().ok_or_else(|| bad("stripes", "an area without a name"))?;
                let extent = extent.number().ok_or_else(|| bad("stripes", "no first extent"))?;
                self.area(name, extent, length)
            }
            _ => Err(bad("stripes", "an area without a first extent")),
        });
        pairs.collect()
    }

    fn legs(&mut self, list: &[Value], each: u64) -> Result<Vec<Leg>> {
        let areas = self.areas(list, each)?;
        Ok(areas.into_iter().map(|area| area.leg(each)).collect())
    }

    fn area(&mut self, name: &str, extent: u64, length: u64) -> Result<Area> {
        let from = self.vg.extents(extent)?;
        let end = from.checked_add(length);
        let fits = |size: u64| end.is_some_and(|end| end <= size);
        let (source, base, size) = match self.vg.pv(name) {
            Some((number, pv)) => {
                let disk = self.pvs.get(number).cloned();
                let disk = disk.unwrap_or_else(|| Err(Error::lost("no such physical volume")));
                let source = disk.map(Built::whole);
                (source, pv.start, self.vg.extents(pv.extents)?)
            }
            None => {
                let built = self.lv(name)?;
                let size = built.disk.size_bytes();
                (Ok(built), 0, size)
            }
        };
        if !fits(size) {
            let detail = format!("{length} bytes at extent {extent} leave {name}");
            return Err(Error::corrupt(Problem::OutOfRange, detail).at(Place::new("segment")));
        }
        Ok(Area { source, offset: base.saturating_add(from), reason: None })
    }

    fn mirror_note(&mut self, lv: &Lv, legs: &[Leg]) {
        let first_there = legs.first().is_some_and(Leg::is_present);
        if !first_there && legs.iter().any(Leg::is_present) {
            let text = format!(
                "{}: the first leg of the mirror is missing; another one is read, which may be \
                 behind where the mirror was not synchronised",
                lv.name
            );
            self.notes.push(Finding::warning("lvm2-mirror-leg", text));
        }
    }

    fn cache(&mut self, lv: &Lv, segment: &Segment) -> Result<Built> {
        let pool = segment.body.text("cache_pool").unwrap_or("its cache").to_owned();
        let of_pool = self.vg.lv(&pool).and_then(|pool| pool.segments.first());
        let mode = |body: &crate::text::Section| {
            body.value("cache_mode").and_then(Value::text).map(str::to_owned)
        };
        let mode = mode(&segment.body).or_else(|| of_pool.and_then(|of| mode(&of.body)));
        match mode.as_deref() {
            Some("writethrough" | "passthrough") => self.lv(segment.body.text("origin")?),
            Some("writeback") if of_pool.is_some_and(|of| of.kind == "cache-pool") => {
                self.writeback(lv, segment, &pool)
            }
            mode => Err(Error::unsupported(format!(
                "cached by {pool} in mode {}: the newest data may be in the cache alone",
                mode.unwrap_or("unknown")
            ))
            .advise("detach the cache (lvconvert --splitcache) where the volume was in use")),
        }
    }

    /// A volume whose newest data may be in its cache alone: read through the cache.
    fn writeback(&mut self, lv: &Lv, segment: &Segment, pool: &str) -> Result<Built> {
        let body = self.vg.lv(pool).and_then(|pool| pool.segments.first()).map(|of| &of.body);
        let body = body.ok_or_else(|| bad("cache_pool", "the cache is not described"))?;
        let metadata = self.lv(body.text("metadata")?)?;
        let data = self.lv(body.text("data")?)?;
        let origin = self.lv(segment.body.text("origin")?)?;
        let cache = Cache {
            name: format!("cached LV {}/{}", self.vg.name, lv.name),
            metadata: metadata.disk,
            data: data.disk,
            origin: origin.disk,
            chunk: bytes(body.number("chunk_size")?)?,
            size: segment.length,
        };
        let (disk, notes) = cache.open(self.limits)?;
        self.notes.extend(notes);
        // Where cached blocks stand in the origin is not told apart here.
        let lost_bytes = origin.lost_bytes.saturating_add(data.lost_bytes).min(segment.length);
        Ok(Built::without(disk, segment.length, lost_bytes))
    }

    fn thin(&mut self, lv: &Lv, segment: &Segment) -> Result<Arc<dyn Disk>> {
        let body = &segment.body;
        let pool_name = body.text("thin_pool")?;
        let device = body.number("device_id")?;
        let external = match body.value("external_origin").and_then(Value::text) {
            Some(origin) => Some(self.lv(origin)?.disk),
            None => None,
        };
        let pool = self.pool(pool_name)?;
        let pending = self.vg.lv(pool_name).and_then(|pool| pool.segments.first());
        // A volume whose creation the pool was not told of yet.
        let pending = pending.is_some_and(|pool| {
            pool.body
                .sections()
                .any(|(_, message)| message.value("create").and_then(Value::text) == Some(&lv.name))
        });
        let title = format!("thin LV {}/{}", self.vg.name, lv.name);
        pool.volume(title, device, segment.length, external, pending)
    }

    fn pool(&mut self, name: &str) -> Result<Arc<Pool>> {
        if let Some(pool) = self.pools.get(name) {
            return pool.clone();
        }
        let pool = self.open_pool(name).map(Arc::new);
        self.pools.insert(name.to_owned(), pool.clone());
        pool
    }

    fn open_pool(&mut self, name: &str) -> Result<Pool> {
        let lv = self.vg.lv(name).and_then(|lv| lv.segments.first());
        let segment = lv
            .filter(|segment| segment.kind == "thin-pool")
            .ok_or_else(|| Error::corrupt(Problem::Missing, format!("{name} is no thin pool")))?;
        let metadata = self.lv(segment.body.text("metadata")?)?;
        let data = self.lv(segment.body.text("pool")?)?;
        let chunk = bytes(segment.body.number("chunk_size")?)?;
        let transaction = segment.body.optional("transaction_id")?;
        let (pool, notes) = Pool::open(name, metadata.disk, data, chunk, transaction, self.limits)?;
        self.notes.extend(notes);
        Ok(pool)
    }

    /// The volume whose store `lv` is, if it is one.
    fn snapshot_of(&mut self, lv: &Lv) -> Option<Result<Built>> {
        let segment = self.snapshot_segment("cow_store", &lv.name)?;
        Some(self.snapshot(lv, segment))
    }

    /// The segment of a snapshot that names `lv` in `field`.
    fn snapshot_segment(&self, field: &str, name: &str) -> Option<&'a Segment> {
        let all = self.vg.lvs.iter().flat_map(|lv| &lv.segments);
        all.filter(|segment| segment.kind == "snapshot")
            .find(|segment| segment.body.value(field).and_then(Value::text) == Some(name))
    }

    fn snapshot(&mut self, lv: &Lv, segment: &Segment) -> Result<Built> {
        let origin = self.lv(segment.body.text("origin")?)?;
        let store = self.lv(&lv.name)?;
        let chunk = bytes(segment.body.number("chunk_size")?)?;
        let title = format!("snapshot LV {}/{}", self.vg.name, lv.name);
        let size = segment.length;
        Ok(Built::whole(Store::open(title, store.disk, origin.disk, chunk, size, self.limits)?))
    }

    /// Why a volume whose snapshot is being merged back cannot be read.
    fn merging(&self, lv: &Lv) -> Option<Error> {
        let all = self.vg.lvs.iter().flat_map(|lv| &lv.segments);
        let mut merging = all.filter(|segment| segment.body.value("merging_store").is_some());
        let names = |segment: &Segment, field| {
            segment.body.value(field).and_then(Value::text) == Some(&lv.name)
        };
        merging.any(|segment| names(segment, "origin") || names(segment, "merging_store")).then(
            || {
                Error::unsupported("a snapshot is being merged back into its origin")
                    .advise("let the merge end on a host that has the group active")
            },
        )
    }
}

/// How a person calls the kind of a volume.
fn kind_of(segment: &Segment) -> String {
    let stripes = segment.body.list("stripes").len() / 2;
    match segment.kind.as_str() {
        "striped" if stripes == 1 => "linear".to_owned(),
        kind => kind.to_owned(),
    }
}

fn refusal(kind: &str) -> String {
    match kind {
        "vdo" | "vdo-pool" => "it lies in a VDO pool, which compresses and deduplicates".into(),
        "writecache" => "cached by writecache: the newest data are in the cache alone".into(),
        "integrity" => "it carries dm-integrity tags, which are not read".into(),
        kind => format!("segments of type {kind:?} are not handled"),
    }
}

pub(crate) fn bad(field: &'static str, detail: &str) -> Error {
    Error::corrupt(Problem::BadValue, detail).at(Place::new("segment").field(field))
}
