//! What tools change in an image beside its content: identity, parent, fields; and emptying it.

use super::extent::{Layout, State, changes};
use super::map::{DiskMap, PartKind};
use super::random;
use super::text::check_value;
use crate::layout::FLAG_ZERO_GRAINS;
use crate::{Descriptor, NO_PARENT, SECTOR_BYTES};
use adit_core::bytes::{narrow, wide};
use adit_core::{Change, Error, ParentRecord, Place, Problem, Result, Stage};

/// CID of a disk whose identity is in `ddb.longContentID`.
const CID_IS_LONG: u32 = 0xffff_fffe;

/// Fields of `modify` by the names people know them by.
const ALIASES: [(&str, &str); 6] = [
    ("adapterType", "ddb.adapterType"),
    ("hwversion", "ddb.virtualHWVersion"),
    ("toolsVersion", "ddb.toolsVersion"),
    ("thin", "ddb.thinProvisioned"),
    ("uuid", "ddb.uuid"),
    ("comment", "ddb.comment"),
];

/// A content identity that is not `old` and means nothing else.
pub(crate) fn new_cid(old: u32) -> u32 {
    loop {
        let cid = u32::try_from(random() & 0xffff_ffff).unwrap_or(1);
        if ![0, NO_PARENT, CID_IS_LONG, old].contains(&cid) {
            return cid;
        }
    }
}

/// The CID in an identity.
///
/// Errors: `Unsupported` for parents that are no VMDK.
pub(crate) fn parent_cid(parent: &ParentRecord) -> Result<u32> {
    let text = std::str::from_utf8(&parent.identity).unwrap_or_default();
    let cid = u32::from_str_radix(text, 16).ok().filter(|&cid| cid != NO_PARENT);
    match cid.filter(|_| parent.format.starts_with("vmdk") && text.len() == 8) {
        Some(cid) => Ok(cid),
        None => {
            let detail = format!("a VMDK stands on a VMDK with a CID, not on {:?}", parent.format);
            Err(Error::unsupported(detail).advise(
                "give the parent a descriptor (monolithicFlat), or make the overlay a qcow2",
            ))
        }
    }
}

impl DiskMap {
    fn parsed(&self) -> Result<Descriptor> {
        Descriptor::parse(self.text().text.bytes(), &self.limits)
    }

    /// Another content identity, and no change tracking any more.
    pub fn renew_identity(&self) -> Result<Vec<Stage>> {
        let descriptor = self.parsed()?;
        let mut held = self.text();
        let mut text = held.text.clone();
        let cid = format!("{:08x}", new_cid(descriptor.cid.unwrap_or(0)));
        text.set("CID", cid.as_bytes());
        if let Some(long) = long_id(&descriptor, &cid) {
            text.set("ddb.longContentID", long.as_bytes());
        }
        let modified = descriptor.text("ddb.uuid.modification");
        if modified.is_some_and(|uuid| uuid.len() == 36 && uuid.bytes().any(|b| b > b'0')) {
            text.set("ddb.uuid.modification", uuid().as_bytes());
        }
        text.end_tracking(&descriptor);
        let mut stages = self.rewrite(&mut held, text)?;
        drop(held);
        stages.push(self.each_extent(|state| match &mut state.layout {
            Layout::Hosted(header) if header.raw.version == 3 => {
                header.raw.version = if header.zero_grains() { 2 } else { 1 };
                Some((4, header.raw.version.to_le_bytes().to_vec()))
            }
            _ => None,
        }));
        Ok(stages)
    }

    /// Records another parent.
    pub fn set_parent(&self, parent: Option<&ParentRecord>) -> Result<Vec<Stage>> {
        if parent.is_some() && self.sparse().next().is_none() {
            return Err(Error::unsupported(
                "a flat disk has no parent: it holds every byte itself",
            )
            .advise("make a delta above it instead"));
        }
        let mut held = self.text();
        let mut text = held.text.clone();
        match parent {
            Some(parent) => {
                check_value(&parent.name)?;
                text.set("parentCID", format!("{:08x}", parent_cid(parent)?).as_bytes());
                text.set("parentFileNameHint", &parent.name);
            }
            None => {
                text.set("parentCID", b"ffffffff");
                text.remove("parentFileNameHint");
            }
        }
        // VirtualBox would go on looking for the parent that was.
        let descriptor = Descriptor::parse(held.text.bytes(), &self.limits)?;
        for key in ["ddb.uuid.parent", "ddb.uuid.parentmodification"] {
            if descriptor.bytes(key).is_some() {
                text.set(key, b"00000000-0000-0000-0000-000000000000");
            }
        }
        self.rewrite(&mut held, text)
    }

    /// Changes one field.
    pub fn modify(&self, field: &str, value: &str) -> Result<Vec<Stage>> {
        let field = field.trim();
        if field.eq_ignore_ascii_case("zeroed_grain") {
            return self.modify_zeroed(value);
        }
        check_value(value.as_bytes())?;
        let known = ALIASES.iter().find(|(name, _)| name.eq_ignore_ascii_case(field));
        let key = known.map_or(field, |(_, key)| key);
        let lower = key.to_ascii_lowercase();
        let descriptor = self.parsed()?;
        let is_new_ddb = lower.strip_prefix("ddb.").is_some_and(|rest| {
            !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'.')
        });
        if !["cid", "parentcid", "parentfilenamehint"].contains(&lower.as_str()) && !is_new_ddb {
            return Err(unknown(field, &descriptor));
        }
        let mut held = self.text();
        let mut text = held.text.clone();
        match lower.as_str() {
            "cid" | "parentcid" => {
                let number = u32::from_str_radix(value, 16).map_err(|_| {
                    let detail = format!("{value:?} is not up to 8 hexadecimal digits");
                    Error::invalid(Problem::BadValue, detail)
                })?;
                let is_own = lower == "cid";
                if is_own && [NO_PARENT, CID_IS_LONG].contains(&number) {
                    let detail = format!("{number:08x} means something else than a content");
                    return Err(Error::invalid(Problem::BadValue, detail));
                }
                let cid = format!("{number:08x}");
                text.set(key, cid.as_bytes());
                if let Some(long) = long_id(&descriptor, &cid).filter(|_| is_own) {
                    text.set("ddb.longContentID", long.as_bytes());
                }
            }
            "ddb.thinprovisioned" if !["0", "1"].contains(&value) => {
                return Err(Error::invalid(Problem::BadValue, "thin is 0 or 1"));
            }
            "ddb.adaptertype" => {
                super::create::check_adapter(value).map(|()| text.set(key, value.as_bytes()))?
            }
            "ddb.virtualhwversion" if value.parse::<u32>().is_err() => {
                return Err(Error::invalid(Problem::BadValue, "the version is a number"));
            }
            _ => text.set(key, value.as_bytes()),
        }
        self.rewrite(&mut held, text)
    }

    /// Lets entry 1 of grain tables mean zeros, which older programs do not know.
    fn modify_zeroed(&self, value: &str) -> Result<Vec<Stage>> {
        if value != "on" {
            let detail = "zeroed grains cannot be turned off: there may be some";
            return Err(Error::unsupported(detail).advise("convert the disk"));
        }
        Ok(vec![self.each_extent(|state| match &mut state.layout {
            Layout::Hosted(header) if !header.zero_grains() => {
                header.raw.version = header.raw.version.max(2);
                header.raw.flags |= FLAG_ZERO_GRAINS;
                state.map.tables.dialect = crate::tables::Dialect::Sectors { zero_grains: true };
                let version = header.raw.version.to_le_bytes();
                Some((4, [version, header.raw.flags.to_le_bytes()].concat()))
            }
            _ => None,
        })])
    }

    /// Drops every grain.
    pub fn empty(&self) -> Result<Vec<Stage>> {
        let stays = |kind: &PartKind| !matches!(kind, PartKind::Sparse { writable: true, .. });
        if self.parts.iter().any(|part| stays(&part.kind)) {
            let detail = "the disk has extents that are not sparse, which cannot be emptied";
            return Err(Error::unsupported(detail).advise("write zeros instead"));
        }
        // What can fail comes first: memory must not be ahead of what is written.
        let mut stages: Vec<Stage> = Vec::new();
        let mut ends = Vec::new();
        for extent in self.sparse() {
            let (own, end) = extent.read().plan_empty(extent.file, self.limits.table_bytes_max)?;
            ends.push(end);
            stages.resize_with(stages.len().max(own.len()), Stage::new);
            for (stage, changes) in stages.iter_mut().zip(own) {
                stage.extend(changes);
            }
        }
        for (extent, end) in self.sparse().zip(ends) {
            extent.write().emptied(end);
        }
        Ok(stages)
    }
}

impl State {
    /// What takes every pointer out, then the space away; and where the file then ends.
    fn plan_empty(&self, file: usize, bytes_max: u64) -> Result<(Vec<Stage>, u64)> {
        let tables = &self.map.tables;
        let zeros = |length: u64| vec![0u8; narrow(length).unwrap_or(0)];
        let directory = tables.directory.range();
        let wiped = (directory.start, zeros(directory.end.saturating_sub(directory.start)));
        let [mut first, mut second, mut third] = super::extent::Steps::default();
        let end = match &self.layout {
            Layout::Hosted(header) => {
                let length = tables.table_bytes();
                let mut end = header.overhead_bytes();
                for index in 0..tables.directory.entries() {
                    let at = tables.table_at(tables.directory.entry(index)).ok();
                    let copy = tables.redundant.as_ref().map(|copy| copy.entry(index));
                    let copy = copy.and_then(|value| tables.table_at(value).ok());
                    end = end.max(at.max(copy).unwrap_or(0).saturating_add(length));
                    if tables.load(index)?.is_empty() {
                        continue;
                    }
                    first.extend(at.map(|at| (at, zeros(length))));
                    second.extend(copy.map(|at| (at, zeros(length))));
                }
                let metadata = tables.metadata.iter().map(|range| range.end).max();
                end.max(metadata.unwrap_or(0))
            }
            Layout::Cowd(_) => {
                first.push(wiped);
                let end = directory.end.div_ceil(SECTOR_BYTES);
                let next = u32::try_from(end).unwrap_or(u32::MAX);
                second.push((28, next.to_le_bytes().to_vec()));
                end.saturating_mul(SECTOR_BYTES)
            }
            Layout::SeSparse(header) => {
                let areas = &header.areas;
                let used = self.end.saturating_sub(areas.grains.start);
                let grains = used.div_ceil(self.map.grain_bytes.max(1));
                if grains.saturating_mul(8) > bytes_max {
                    let detail = format!("the back map of {grains} grains exceeds memory");
                    return Err(Error::limit("table_bytes_max", detail)
                        .at(Place::new("back map"))
                        .advise_also("or make a new, empty delta in its place"));
                }
                first.push(wiped);
                second.push((areas.volatile.start.saturating_add(8), zeros(8)));
                second.push((areas.back_map.start, zeros(grains.saturating_mul(8))));
                third.push((areas.free_bitmap.start, zeros(grains.div_ceil(8))));
                areas.grains.start
            }
        };
        let size_bytes = end.min(self.file_size());
        let stages = [first, second, third].map(|writes| changes(file, writes).collect());
        let mut stages: Vec<Stage> = stages.into();
        stages.push(vec![Change::SetSize { file, size_bytes }]);
        Ok((stages, end))
    }

    /// Nothing is stored any more, and the file ends at `end`.
    fn emptied(&mut self, end: u64) {
        match &mut self.layout {
            Layout::Hosted(_) => {}
            Layout::Cowd(header) => {
                header.raw.next_free =
                    u32::try_from(end.div_ceil(SECTOR_BYTES)).unwrap_or(u32::MAX);
                self.map.tables.directory.clear();
            }
            Layout::SeSparse(header) => {
                header.volatile.free_table = 0;
                self.map.tables.directory.clear();
            }
        }
        self.map.tables.cache.forget_all();
        self.map.tables.changed.clear();
        self.changed.clear();
        self.free.clear();
        self.freed.clear();
        self.freeing.clear();
        self.end = self.aligned(end);
    }
}

/// `ddb.longContentID` with the CID at its end, where there is one to keep.
fn long_id(descriptor: &Descriptor, cid: &str) -> Option<String> {
    let long = descriptor.text("ddb.longContentID")?;
    let front = long.get(..24).filter(|_| long.len() == 32)?;
    Some(format!("{front}{cid}"))
}

fn uuid() -> String {
    let text = format!("{:016x}{:016x}", random(), random());
    let part = |from: usize, to: usize| text.get(from..to).unwrap_or_default().to_owned();
    [part(0, 8), part(8, 12), part(12, 16), part(16, 20), part(20, 32)].join("-")
}

fn unknown(field: &str, descriptor: &Descriptor) -> Error {
    let mut names: Vec<String> = ["CID", "parentCID", "parentFileNameHint", "zeroed_grain"]
        .into_iter()
        .chain(ALIASES.iter().map(|(name, _)| *name))
        .map(str::to_owned)
        .collect();
    let ddb = descriptor.entries.iter().map(|entry| entry.key.clone());
    names.extend(ddb.filter(|key| key.to_ascii_lowercase().starts_with("ddb.")));
    let count = wide(names.len());
    Error::not_found(format!("{field:?} is none of the {count} fields that can be changed"))
        .advise(format!("the fields are: {}, and ddb.NAME", names.join(", ")))
}
