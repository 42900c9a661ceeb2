//! Metadata text to a volume group: what LVM calls things, checked.

use crate::layout::SECTOR;
use crate::text::{Section, parse};
use adit_core::bytes::wide;
use adit_core::{Error, Limits, Place, Problem, Result};
use std::collections::HashMap;

/// A volume group by one copy of its metadata.
#[derive(Debug)]
pub(crate) struct Vg {
    pub name: String,
    pub uuid: String,
    pub seqno: u64,
    /// Unit: bytes.
    pub extent_bytes: u64,
    pub pvs: Vec<Pv>,
    pub lvs: Vec<Lv>,
    pv_index: HashMap<String, usize>,
    lv_index: HashMap<String, usize>,
}

/// A physical volume as the group knows it.
#[derive(Debug)]
pub(crate) struct Pv {
    /// Name within the text: `pv0`.
    pub name: String,
    pub uuid: String,
    /// The device's path when the text was written.
    pub device: String,
    /// Where extents begin. Unit: bytes.
    pub start: u64,
    pub extents: u64,
    /// Whether it was missing when the group was last changed.
    pub was_missing: bool,
}

/// A logical volume.
#[derive(Debug)]
pub(crate) struct Lv {
    pub name: String,
    pub uuid: String,
    pub visible: bool,
    /// Whether it was made without synchronising its images.
    pub unsynchronised: bool,
    /// Unit: extents.
    pub extents: u64,
    pub segments: Vec<Segment>,
}

/// A stretch of a logical volume.
#[derive(Debug)]
pub(crate) struct Segment {
    /// Unit: bytes.
    pub length: u64,
    /// LVM's word: `striped`, `raid5_ls`, `thin`.
    pub kind: String,
    pub body: Section,
}

impl Vg {
    pub fn parse(text: &[u8], limits: &Limits) -> Result<Vg> {
        let all = parse(text)?;
        let mut groups = all.sections();
        let (name, group) = groups.next().ok_or_else(|| missing("volume group"))?;
        if groups.next().is_some() {
            let detail = "the text describes several volume groups";
            return Err(Error::corrupt(Problem::Ambiguous, detail).at(place()));
        }
        let format = group.value("format").and_then(|value| value.text());
        if let Some(format) = format.filter(|&format| format != "lvm2") {
            return Err(Error::unsupported(format!("metadata format {format:?}")).at(place()));
        }
        let extent_bytes = bytes(group.number("extent_size")?)?;
        if extent_bytes == 0 {
            return Err(bad("extent_size", "extents of no length".into()));
        }
        let mut vg = Vg {
            name: name.to_owned(),
            uuid: group.text("id")?.to_owned(),
            seqno: group.number("seqno")?,
            extent_bytes,
            pvs: Vec::new(),
            lvs: Vec::new(),
            pv_index: HashMap::new(),
            lv_index: HashMap::new(),
        };
        for (name, body) in
            group.section("physical_volumes").into_iter().flat_map(Section::sections)
        {
            vg.add_pv(name, body, limits)?;
        }
        for (name, body) in group.section("logical_volumes").into_iter().flat_map(Section::sections)
        {
            vg.add_lv(name, body, limits)?;
        }
        Ok(vg)
    }

    pub fn pv(&self, name: &str) -> Option<(usize, &Pv)> {
        let number = *self.pv_index.get(name)?;
        Some((number, self.pvs.get(number)?))
    }

    pub fn lv(&self, name: &str) -> Option<&Lv> {
        self.lvs.get(*self.lv_index.get(name)?)
    }

    /// Extents in bytes.
    pub fn extents(&self, count: u64) -> Result<u64> {
        count
            .checked_mul(self.extent_bytes)
            .ok_or_else(|| bad("extent_count", format!("{count} extents exceed 2^64 bytes")))
    }

    fn add_pv(&mut self, name: &str, body: &Section, limits: &Limits) -> Result<()> {
        if wide(self.pvs.len()) >= limits.members_max {
            return Err(Error::limit("members_max", "the group has more physical volumes"));
        }
        let device = body.value("device").and_then(|value| value.text()).unwrap_or_default();
        let pv = Pv {
            name: name.to_owned(),
            uuid: body.text("id")?.to_owned(),
            device: device.to_owned(),
            start: bytes(body.number("pe_start")?)?,
            extents: body.number("pe_count")?,
            was_missing: body.has_word("flags", "MISSING") || body.has_word("status", "MISSING"),
        };
        // Every byte of it has a 64-bit address.
        let end = self.extents(pv.extents)?.checked_add(pv.start);
        end.ok_or_else(|| bad("pe_count", format!("{name} exceeds 2^64 bytes")))?;
        if self.pv_index.insert(pv.name.clone(), self.pvs.len()).is_some() {
            return Err(bad("physical_volumes", format!("{name} is there twice")));
        }
        self.pvs.push(pv);
        Ok(())
    }

    fn add_lv(&mut self, name: &str, body: &Section, limits: &Limits) -> Result<()> {
        if wide(self.lvs.len()) >= limits.volumes_max {
            return Err(Error::limit("volumes_max", "the group has more logical volumes"));
        }
        let mut segments = Vec::new();
        let mut extents = 0u64;
        // Segments may stand in any order; each says where it begins.
        let mut bodies: Vec<(u64, &Section)> = Vec::new();
        for (_, body) in body.sections().filter(|(name, _)| name.starts_with("segment")) {
            bodies.push((body.number("start_extent")?, body));
        }
        bodies.sort_by_key(|(start, _)| *start);
        for (start, body) in bodies {
            if start != extents {
                let detail = format!("{name}: a segment begins at extent {start}, not {extents}");
                return Err(bad("start_extent", detail));
            }
            let count = body.number("extent_count")?;
            extents = extents.saturating_add(count);
            let length = self.extents(count)?;
            let kind = body.text("type")?.to_owned();
            // Words behind a plus sign are flags a reader must know. Those of pools change
            // nothing for it; others leave a type nobody knows, which is refused.
            let kind = match kind.split_once('+') {
                Some((pool @ ("thin-pool" | "cache" | "cache-pool"), _)) => pool.to_owned(),
                _ => kind,
            };
            segments.push(Segment { length, kind, body: body.clone() });
        }
        self.extents(extents)?;
        let lv = Lv {
            name: name.to_owned(),
            uuid: body.text("id")?.to_owned(),
            visible: body.has_word("status", "VISIBLE"),
            unsynchronised: body.has_word("status", "NOTSYNCED")
                || body.has_word("flags", "NOTSYNCED"),
            extents,
            segments,
        };
        if self.lv_index.insert(lv.name.clone(), self.lvs.len()).is_some() {
            return Err(bad("logical_volumes", format!("{name} is there twice")));
        }
        self.lvs.push(lv);
        Ok(())
    }
}

fn place() -> Place {
    Place::new("metadata text")
}

fn missing(what: &'static str) -> Error {
    Error::corrupt(Problem::Missing, format!("the text has no {what}")).at(place())
}

fn bad(field: &'static str, detail: String) -> Error {
    Error::corrupt(Problem::BadValue, detail).at(place().field(field))
}

/// Sectors in bytes.
pub(crate) fn bytes(sectors: u64) -> Result<u64> {
    sectors
        .checked_mul(SECTOR)
        .ok_or_else(|| bad("sectors", format!("{sectors} sectors exceed 2^64 bytes")))
}

/// A UUID as LVM prints it: six, five times four, and six characters.
pub(crate) fn printed_uuid(raw: &str) -> String {
    let mut text = String::new();
    for (at, letter) in raw.chars().enumerate() {
        if [6, 10, 14, 18, 22, 26].contains(&at) {
            text.push('-');
        }
        text.push(letter);
    }
    text
}
