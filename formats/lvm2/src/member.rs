//! One physical volume: its label, and the newest metadata text it holds.

use crate::checksum::crc;
use crate::layout::{
    AREA_HEADER, AREA_MAGIC, AreaHeader, DiskArea, LABEL_MAGIC, LABEL_SECTORS, LABEL_TYPE,
    LOCATION_IGNORED, LabelHeader, PvHeader, SECTOR,
};
use crate::metadata::{Vg, printed_uuid};
use adit_core::bytes::{narrow, wide};
use adit_core::{Disk, DiskExt, Error, Finding, Limits, Place, Problem, Result};
use std::sync::Arc;

/// Most areas a label lists; LVM writes at most two of a kind.
const AREAS_MAX: usize = 8;

/// Whether `disk` is a physical volume of LVM. Reads 2 KiB.
///
/// Errors: those of reading; a disk too short to be one is no error.
pub fn probe(disk: &Arc<dyn Disk>) -> Result<bool> {
    let sectors = disk.read_prefix(0, 2048)?;
    let is_label = |sector: &[u8]| {
        sector.starts_with(&LABEL_MAGIC) && sector.get(24..32) == Some(&LABEL_TYPE[..])
    };
    Ok(sectors.chunks(512).any(is_label))
}

/// One physical volume, read.
#[derive(Clone, Debug)]
pub struct Member {
    pub(crate) label: String,
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) uuid: String,
    pub(crate) vg: Option<Arc<Vg>>,
    /// Where the label stands. Unit: bytes.
    pub(crate) label_at: u64,
    pub(crate) label_header: LabelHeader,
    /// The metadata areas the label lists.
    pub(crate) areas: Vec<DiskArea>,
    pub(crate) notes: Vec<Finding>,
}

impl Member {
    /// Reads the label and the metadata text of one physical volume.
    ///
    /// A damaged copy of the text is noted and the other one used. A volume without metadata is
    /// a member all the same: the others know what lies on it.
    ///
    /// Errors: `Corrupt` when the label is damaged; `Limit`.
    pub fn open(disk: Arc<dyn Disk>, limits: &Limits) -> Result<Member> {
        let (label_at, label) = label(&disk)?;
        let header_at = adit_core::bytes::index(label.0.offset);
        let sector = label.1.get(header_at..).unwrap_or_default();
        let place = || Place::new("PV header").byte(label_at);
        let header = PvHeader::read(sector).map_err(|error| error.at(place()))?;
        let uuid = std::str::from_utf8(&header.uuid).ok().filter(|uuid| uuid.is_ascii());
        let uuid = printed_uuid(uuid.ok_or_else(|| {
            Error::corrupt(Problem::BadValue, "the PV's UUID is not text").at(place().field("uuid"))
        })?);
        let lists = sector.get(PvHeader::SIZE..).unwrap_or_default();
        // Data areas come first, then metadata areas.
        let (_, rest) = areas(lists)?;
        let (texts, _) = areas(rest)?;
        let mut member = Member {
            label: format!("PV {uuid}"),
            disk,
            uuid,
            vg: None,
            label_at,
            label_header: label.0.clone(),
            areas: texts.clone(),
            notes: vec![],
        };
        for (number, area) in texts.iter().enumerate() {
            match member.read_area(area, limits) {
                Ok(Some(vg)) => member.keep_newest(vg),
                Ok(None) => {}
                Err(error) if error.kind() == adit_core::Kind::Limit => return Err(error),
                Err(error) => member.notes.push(
                    Finding::from_error("lvm2-metadata-damaged", &error.at(area_place(area)))
                        .advise(format!("copy {number} is not used; another copy decides")),
                ),
            }
        }
        Ok(member)
    }

    /// Names the device as a person knows it, for messages.
    pub fn with_label(mut self, label: impl Into<String>) -> Self {
        self.label = label.into();
        self
    }

    /// How a person knows the device.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// The device itself.
    pub fn disk(&self) -> &Arc<dyn Disk> {
        &self.disk
    }

    /// UUID of the physical volume as LVM prints it.
    pub fn pv_uuid(&self) -> &str {
        &self.uuid
    }

    /// UUID of its volume group; none where the device holds no metadata.
    pub fn vg_uuid(&self) -> Option<&str> {
        self.vg.as_ref().map(|vg| vg.uuid.as_str())
    }

    /// Name of its volume group.
    pub fn vg_name(&self) -> Option<&str> {
        self.vg.as_ref().map(|vg| vg.name.as_str())
    }

    /// Number of the metadata's last change.
    pub fn seqno(&self) -> Option<u64> {
        self.vg.as_ref().map(|vg| vg.seqno)
    }

    /// UUIDs of all physical volumes of its group, itself included; none where it holds no
    /// metadata.
    pub fn pv_uuids(&self) -> Vec<String> {
        let pvs = self.vg.iter().flat_map(|vg| &vg.pvs);
        pvs.map(|pv| pv.uuid.clone()).collect()
    }

    fn keep_newest(&mut self, vg: Vg) {
        match &self.vg {
            Some(have) if have.seqno >= vg.seqno => {}
            _ => self.vg = Some(Arc::new(vg)),
        }
    }

    fn read_area(&self, area: &DiskArea, limits: &Limits) -> Result<Option<Vg>> {
        let raw = self.disk.read_prefix(area.offset, 512)?;
        let header = AreaHeader::read(&raw)?;
        let bad = |problem, detail: String| Err(Error::corrupt(problem, detail));
        if header.magic != AREA_MAGIC {
            return bad(Problem::BadMagic, "a metadata area does not begin as one".into());
        }
        if crc(&[raw.get(4..).unwrap_or_default()]) != header.crc {
            return bad(Problem::BadChecksum, "the header's checksum does not match".into());
        }
        if header.version != 1 {
            let detail = format!("metadata areas of version {}", header.version);
            return Err(Error::unsupported(detail));
        }
        if header.start != area.offset {
            let detail = format!("the area says it begins at byte {:#x}", header.start);
            return bad(Problem::Mismatch, detail);
        }
        if header.text_offset == 0 || header.text_flags & LOCATION_IGNORED != 0 {
            return Ok(None);
        }
        let text = self.read_text(&header, limits)?;
        Vg::parse(&text, limits).map(Some)
    }

    /// The text, which goes round at the end of its area.
    pub(crate) fn read_text(&self, header: &AreaHeader, limits: &Limits) -> Result<Vec<u8>> {
        let length = header.text_length;
        let room = header.length.saturating_sub(AREA_HEADER);
        if length > room || header.text_offset < AREA_HEADER || header.text_offset >= header.length
        {
            let detail = format!(
                "{length} bytes of text at byte {:#x} of an area of {} bytes",
                header.text_offset, header.length
            );
            return Err(Error::corrupt(Problem::OutOfRange, detail));
        }
        if length > limits.text_bytes_max {
            return Err(Error::limit("text_bytes_max", format!("{length} bytes of metadata text")));
        }
        let first = length.min(header.length.saturating_sub(header.text_offset));
        let too_large = || Error::limit("text_bytes_max", "the metadata text exceeds memory");
        let mut text = Vec::new();
        let parts = [(header.text_offset, first), (AREA_HEADER, length.saturating_sub(first))];
        for (offset, part) in parts {
            let part = narrow(part).ok_or_else(too_large)?;
            let at = header.start.saturating_add(offset);
            if part > 0 {
                let piece = self.disk.read_prefix(at, part)?;
                if piece.len() < part {
                    let detail = "the device ends within the metadata text";
                    return Err(Error::corrupt(Problem::Truncated, detail));
                }
                text.extend(piece);
            }
        }
        if crc(&[&text]) != header.text_crc {
            let detail = "the checksum of the metadata text does not match";
            return Err(Error::corrupt(Problem::BadChecksum, detail));
        }
        Ok(text)
    }
}

fn area_place(area: &DiskArea) -> Place {
    Place::new("metadata area").byte(area.offset)
}

/// The label and its sector: the first of four that is whole.
fn label(disk: &Arc<dyn Disk>) -> Result<(u64, (LabelHeader, Vec<u8>))> {
    let mut problem = None;
    for number in 0..LABEL_SECTORS {
        let at = number.saturating_mul(SECTOR);
        let sector = disk.read_prefix(at, 512)?;
        let Ok(label) = LabelHeader::read(&sector) else { continue };
        if label.magic != LABEL_MAGIC || label.kind != LABEL_TYPE {
            continue;
        }
        let place = || Place::new("PV label").byte(at);
        if crc(&[sector.get(20..).unwrap_or_default()]) != label.crc {
            let detail = "the label's checksum does not match";
            problem = Some(Error::corrupt(Problem::BadChecksum, detail).at(place().field("crc")));
        } else if label.sector != number {
            let detail = format!("the label is of sector {}, not {number}", label.sector);
            problem = Some(Error::corrupt(Problem::Mismatch, detail).at(place().field("sector")));
        } else {
            return Ok((at, (label, sector)));
        }
    }
    Err(problem.unwrap_or_else(|| {
        Error::corrupt(Problem::BadMagic, "there is no label of LVM in the first four sectors")
            .at(Place::new("PV label"))
    }))
}

/// A list of areas up to its end, and what follows.
fn areas(bytes: &[u8]) -> Result<(Vec<DiskArea>, &[u8])> {
    let mut list = Vec::new();
    let mut rest = bytes;
    loop {
        let area = DiskArea::read(rest)?;
        rest = rest.get(DiskArea::SIZE..).unwrap_or_default();
        if area.offset == 0 {
            return Ok((list, rest));
        }
        if list.len() >= AREAS_MAX {
            let detail = format!("more than {} areas", wide(AREAS_MAX));
            return Err(Error::corrupt(Problem::TooMany, detail).at(Place::new("PV header")));
        }
        list.push(area);
    }
}
