//! An opened image: its headers, its names for the parent, its disk.

use crate::batmap::Batmap;
use crate::footer::{Ends, Footer, FooterPlace, Kind, choose};
use crate::header::Header;
use crate::layout::SECTOR_BYTES;
use crate::locator::{self, ParentIdentity, Purpose, Reference};
use crate::map::{BlockMap, Tables};
use adit_core::bytes::{narrow, u32_be};
use adit_core::on_disk::Value;
use adit_core::{
    Disk, DiskExt, Error, Finding, Limits, Mapped, Place, Problem, Result, Severity, Slice, guid,
};
use std::sync::Arc;

/// Which of its two sizes the disk has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum SizeRule {
    /// The size field: no byte is ever left out.
    #[default]
    Current,
    /// Cylinders × heads × sectors, as Virtual PC showed the disk to its guest; the size field
    /// where the geometry is the largest one or larger than the size.
    Geometry,
}

/// A VHD whose headers were read and checked.
#[derive(Debug)]
pub struct Image {
    pub(crate) file: Arc<dyn Disk>,
    pub(crate) footer: Footer,
    pub(crate) header: Option<Header>,
    batmap: Option<Batmap>,
    references: Vec<Reference>,
    notes: Vec<Finding>,
    size_rule: SizeRule,
    pub(crate) limits: Limits,
}

impl Image {
    /// Reads the footer, the dynamic header and the names of the parent; blocks are not touched.
    ///
    /// Errors: `Corrupt`, `Unsupported`; those of the file.
    /// Source: VHD specification; what tapdisk and Windows write (observed).
    pub fn open(file: Arc<dyn Disk>, limits: &Limits) -> Result<Image> {
        let ends = Ends::read(&*file)?;
        let mut notes = Vec::new();
        let mut footer = choose(&ends, &mut notes)?;
        let (mut header, mut batmap, mut references) = (None, None, Vec::new());
        if footer.kind == Kind::Fixed {
            check_fixed(&footer, ends.file_bytes)?;
        } else {
            let mut read = Header::read(&*file, &footer, footer.raw.current_size)?;
            if let Some(grown) = front_needed(&*file, &ends, &footer, &read)? {
                notes.push(Finding::warning(
                    "vhd-footer-outdated",
                    "blocks are allocated past the size in the footer at the end; the copy at \
                     offset 0 is used",
                ));
                read = Header::read(&*file, &grown, grown.raw.current_size)?;
                footer = Footer { place: footer.place, ..grown };
            }
            batmap = Batmap::read(&*file, &footer, &read, limits, &mut notes)?;
            if footer.kind == Kind::Differencing {
                references = locator::read(&*file, &footer, &read, &mut notes)?;
            }
            header = Some(read);
        }
        note_flags(&footer, header.as_ref(), &mut notes);
        Ok(Image {
            file,
            footer,
            header,
            batmap,
            references,
            notes,
            size_rule: SizeRule::default(),
            limits: limits.clone(),
        })
    }

    /// The same image with another rule for its size.
    pub fn with_size_rule(mut self, rule: SizeRule) -> Image {
        self.size_rule = rule;
        self
    }

    /// What kind of image it is.
    pub fn kind(&self) -> Kind {
        self.footer.kind
    }

    /// Size of the disk by the rule in force. Unit: bytes.
    pub fn size_bytes(&self) -> u64 {
        let (current, chs) = (self.footer.raw.current_size, self.footer.chs_bytes());
        let largest = (self.footer.raw.cylinders, self.footer.raw.heads, self.footer.raw.sectors)
            == (65535, 16, 255);
        match self.size_rule {
            SizeRule::Geometry if chs > 0 && chs <= current && !largest => chs,
            _ => current,
        }
    }

    /// Size by the geometry, for programs that count so. Unit: bytes.
    pub fn geometry_bytes(&self) -> u64 {
        self.footer.chs_bytes()
    }

    /// Who it is, for its children.
    pub fn identity(&self) -> ParentIdentity {
        let raw = &self.footer.raw;
        ParentIdentity { unique_id: raw.unique_id, timestamp: raw.timestamp }
    }

    /// The names of the parent, in the order in which they are worth trying; none if there is
    /// no parent.
    pub fn references(&self) -> Vec<Reference> {
        self.references.clone()
    }

    /// Whether the parent is a raw disk, which has no identity to compare.
    pub fn parent_is_raw(&self) -> bool {
        self.header.as_ref().is_some_and(|header| header.parent_is_raw(&self.footer))
    }

    /// Whether the image of this identity is the parent.
    ///
    /// The timestamp decides nothing, because many writers leave it wrong: see
    /// [`Image::parent_notes`].
    ///
    /// Errors: `Corrupt` if it is another image, with both identities; `Invalid` if there is no
    /// parent, or a raw one.
    pub fn accepts_parent(&self, parent: &ParentIdentity) -> Result<()> {
        let wanted = self.wanted_parent()?.parent_unique_id;
        if self.parent_is_raw() {
            return Err(Error::invalid(
                Problem::Mismatch,
                format!("the parent is a raw disk, not the VHD {}", hex(&parent.unique_id)),
            )
            .at(Place::new("dynamic header").field("parent_unique_id")));
        }
        if wanted == parent.unique_id {
            return Ok(());
        }
        Err(Error::corrupt(
            Problem::Mismatch,
            format!("names the parent {}, but this is {}", hex(&wanted), hex(&parent.unique_id)),
        )
        .at(Place::new("dynamic header").field("parent_unique_id"))
        .advise("find the image with that identity; another one gives other data"))
    }

    /// What is worth saying about an accepted parent: its timestamp, if it differs.
    pub fn parent_notes(&self, parent: &ParentIdentity) -> Vec<Finding> {
        let Ok(wanted) = self.wanted_parent() else { return Vec::new() };
        if wanted.parent_timestamp == 0 || wanted.parent_timestamp == parent.timestamp {
            return Vec::new();
        }
        let text = format!(
            "the parent was written at {} by its footer, at {} by its child (seconds since 2000)",
            parent.timestamp, wanted.parent_timestamp
        );
        // A child that was made here knows the stamp, and every change here gives another.
        let is_ours = self.footer.raw.creator_version == crate::layout::CREATOR_VERSION;
        let severity = if is_ours { Severity::Warning } else { Severity::Info };
        let finding = Finding::new(severity, "vhd-parent-timestamp", text)
            .at(Place::new("dynamic header").field("parent_timestamp"));
        vec![if is_ours {
            finding.advise(
                "the parent was changed after the child was made; if its data are the same, \
                 `adit rebase --unsafe` onto it says so",
            )
        } else {
            finding
        }]
    }

    fn wanted_parent(&self) -> Result<&crate::layout::RawHeader> {
        match &self.header {
            Some(header) if self.footer.kind == Kind::Differencing => Ok(&header.raw),
            _ => Err(Error::invalid(Problem::Missing, "this image has no parent")),
        }
    }

    /// The disk. `parent` is the disk of the parent, which [`Image::accepts_parent`] has seen.
    ///
    /// Errors: `NotFound` if a parent is needed and none is given; `Invalid` if one is given and
    /// none is needed.
    pub fn disk(&self, name: &str, parent: Option<Arc<dyn Disk>>) -> Result<Arc<dyn Disk>> {
        match (self.footer.kind, &parent) {
            (Kind::Differencing, None) => return Err(self.parent_missing()),
            (Kind::Fixed | Kind::Dynamic, Some(_)) => {
                return Err(Error::invalid(Problem::BadValue, "this image has no parent"));
            }
            _ => {}
        }
        match self.map(name, parent) {
            Some(map) => Ok(Arc::new(Mapped::new(map))),
            None => {
                let (name, file) = (format!("VHD image {name}"), Arc::clone(&self.file));
                Ok(Slice::open(name, file, 0, self.size_bytes()))
            }
        }
    }

    /// The map of a dynamic or differencing image.
    pub(crate) fn map(&self, name: &str, parent: Option<Arc<dyn Disk>>) -> Option<BlockMap> {
        let header = self.header.as_ref()?;
        Some(BlockMap {
            name: name.to_owned(),
            file: Arc::clone(&self.file),
            parent,
            header: header.clone(),
            batmap: self.batmap.clone(),
            bits_reversed: bits_reversed(&self.footer),
            size_bytes: self.size_bytes(),
            data_end: self.file.size_bytes().saturating_sub(self.footer.tail_bytes()),
            cache: Tables::new(&self.limits),
        })
    }

    fn parent_missing(&self) -> Error {
        let names: Vec<String> = self.references.iter().map(Reference::text).collect();
        let raw = self.references.iter().any(|r| r.purpose == Purpose::RawParent);
        let kind = if raw { "raw parent" } else { "parent" };
        Error::not_found(format!("the {kind} is missing; it is called {}", names.join(", or ")))
            .at(Place::new("parent locator"))
    }

    /// What is worth saying about the image.
    pub fn notes(&self) -> Vec<Finding> {
        self.notes.clone()
    }

    /// Facts for a person: name and value.
    pub fn facts(&self) -> Vec<(&'static str, Value)> {
        let raw = &self.footer.raw;
        let text = |text: String| Value::Text(text);
        let mut facts = vec![
            ("kind", text(self.footer.kind.word().to_owned())),
            ("size", Value::Uint(self.size_bytes())),
            ("current size", Value::Uint(raw.current_size)),
            ("original size", Value::Uint(raw.original_size)),
            ("geometry", text(format!("{}/{}/{}", raw.cylinders, raw.heads, raw.sectors))),
            ("geometry size", Value::Uint(self.footer.chs_bytes())),
            ("unique id", text(hex(&raw.unique_id))),
            ("unique id as GUID", text(guid(&raw.unique_id))),
            ("timestamp", Value::Uint(u64::from(raw.timestamp).saturating_add(946_684_800))),
            ("creator", text(creator(&self.footer))),
            ("hidden", Value::Uint(u64::from(raw.hidden))),
        ];
        if let Some(header) = &self.header {
            facts.push(("block size", Value::Uint(header.block_bytes)));
            facts.push(("blocks", Value::Uint(header.blocks)));
            facts.push(("table entries", Value::Uint(u64::from(header.raw.max_table_entries))));
            let batmap = if self.batmap.is_some() { "used" } else { "none" };
            facts.push(("batmap", text(batmap.to_owned())));
        }
        if let Ok(wanted) = self.wanted_parent() {
            facts.push(("parent unique id", text(hex(&wanted.parent_unique_id))));
            facts.push(("parent timestamp", Value::Uint(u64::from(wanted.parent_timestamp))));
        }
        facts
    }
}

fn check_fixed(footer: &Footer, file_bytes: u64) -> Result<()> {
    let room = file_bytes.saturating_sub(footer.tail_bytes());
    if footer.raw.current_size <= room {
        return Ok(());
    }
    Err(Error::corrupt(
        Problem::OutOfRange,
        format!("is {}, but the file holds {room} bytes of data", footer.raw.current_size),
    )
    .at(Place::new("footer").field("current_size"))
    .advise("open the file as raw to have what is there"))
}

/// The copy at offset 0, if the footer at the end gives a size that leaves out allocated blocks.
fn front_needed(
    file: &dyn Disk,
    ends: &Ends,
    footer: &Footer,
    header: &Header,
) -> Result<Option<Footer>> {
    let Some(Ok(front)) = ends.front() else { return Ok(None) };
    if footer.place == FooterPlace::Front
        || front.kind != footer.kind
        || front.raw.unique_id != footer.raw.unique_id
        || front.raw.data_offset != footer.raw.data_offset
        || front.raw.current_size <= footer.raw.current_size
    {
        return Ok(None);
    }
    let room = u64::from(header.raw.max_table_entries);
    let end = front.raw.current_size.div_ceil(header.block_bytes).min(room);
    let mut entry = header.blocks;
    while entry < end {
        let count = end.saturating_sub(entry).min(16384);
        let at = header.raw.table_offset.saturating_add(entry.saturating_mul(4));
        let page = file.read_vec(at, narrow(count.saturating_mul(4)).unwrap_or(0))?;
        if page.chunks_exact(4).any(|entry| u32_be(entry, 0) != Some(crate::layout::BAT_UNUSED)) {
            return Ok(Some(front));
        }
        entry = entry.saturating_add(count);
    }
    Ok(None)
}

/// The first tools of XenServer numbered the bits of a bitmap the other way.
fn bits_reversed(footer: &Footer) -> bool {
    footer.by_tap() && footer.raw.creator_version == 0x0000_0001
}

fn note_flags(footer: &Footer, header: Option<&Header>, notes: &mut Vec<Finding>) {
    let raw = &footer.raw;
    let place = |field: &'static str| Place::new("footer").field(field);
    if footer.place == FooterPlace::EndShort {
        notes.push(
            Finding::info("vhd-footer-short", "the footer has 511 bytes, as before 2004")
                .at(place("footer")),
        );
    }
    if raw.hidden != 0 {
        let text = "the image is marked hidden: an inner node of a XenServer chain, or garbage";
        notes.push(Finding::info("vhd-hidden", text).at(place("hidden")));
    }
    if raw.saved_state == 1 {
        let text = "the machine was suspended; its memory may hold writes the disk lacks";
        notes.push(Finding::info("vhd-saved-state", text).at(place("saved_state")));
    }
    let counts_chs = matches!(&raw.creator_application, b"vpc " | b"qemu");
    let largest = (raw.cylinders, raw.heads, raw.sectors) == (65535, 16, 255);
    if counts_chs && !largest && footer.chs_bytes() != raw.current_size {
        let text = format!(
            "the size is {} bytes, but the writer showed its guest the geometry, {} bytes",
            raw.current_size,
            footer.chs_bytes()
        );
        notes.push(Finding::info("vhd-geometry-size", text).at(place("geometry")));
    }
    if !raw.current_size.is_multiple_of(SECTOR_BYTES) {
        let text = format!("the size, {} bytes, ends inside a sector", raw.current_size);
        notes.push(Finding::warning("vhd-size-odd", text).at(place("current_size")));
    }
    if header.is_some() && bits_reversed(footer) {
        let text = "written by tapdisk 0.1, whose bitmaps count bits from the other end";
        notes.push(Finding::info("vhd-bitmap-reversed", text).at(place("creator_version")));
    }
    if header.is_some_and(|header| header.parent_is_raw(footer)) {
        let text = "the parent is a raw disk; nothing tells whether it is the right one";
        notes.push(Finding::info("vhd-parent-raw", text));
    }
}

fn creator(footer: &Footer) -> String {
    let raw = &footer.raw;
    let name = String::from_utf8_lossy(&raw.creator_application);
    let name = name.trim_end_matches(['\0', ' ']).to_owned();
    format!("{name} {}.{}", raw.creator_version >> 16, raw.creator_version & 0xffff)
}

/// Sixteen bytes as they stand: XenServer's UUIDs print so.
fn hex(id: &[u8; 16]) -> String {
    let mut out = String::with_capacity(36);
    for (at, byte) in id.iter().enumerate() {
        if matches!(at, 4 | 6 | 8 | 10) {
            out.push('-');
        }
        out.push_str(&format!("{byte:02x}"));
    }
    out
}
