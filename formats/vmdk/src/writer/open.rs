//! Taking an image apart before it is written to: everything is looked at once, so that nothing
//! is written into what is damaged.

use super::extent::{Layout, SparseExtent, State};
use super::map::{DescriptorText, DiskMap, Part, PartKind};
use super::survey::{Survey, metadata_apart};
use super::text::Text;
use super::tracked::Tracked;
use super::{Writer, to_read};
use crate::directory::Budget;
use crate::open::{check_readable, is_sparse, own_line, place};
use crate::probe::{Kind as FileKind, probe};
use crate::sparse::ExtentHeader;
use crate::{Access, Descriptor, ExtentLine, ExtentType, Purpose, Reference};
use adit_core::bytes::{narrow, wide};
use adit_core::{
    Disk, DiskExt, Error, Finding, ImageFile, Interrupt, Kind, Limits, Place, Problem, Result,
    Severity,
};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

impl Writer {
    /// Opens a disk to write to it; `name` is what to call it.
    ///
    /// `file` is the descriptor, or the sparse file that holds one. `resolve` finds the files of
    /// the extents; it is asked for nothing else. `parent` is the parent's *virtual disk*, whose
    /// identity [`Descriptor::accepts_parent`] has compared.
    ///
    /// Every table is read once: an image with an entry that cannot be is refused, because new
    /// grains might come to stand where it points.
    ///
    /// Errors: `Unsupported` for compressed and encrypted disks, raw devices, an extent without
    /// its descriptor; `Corrupt` and `Lost` for damage; `Invalid` for a parent that is missing
    /// or too many.
    pub fn open(
        name: &str,
        file: Arc<dyn ImageFile>,
        parent: Option<Arc<dyn Disk>>,
        resolve: &mut dyn FnMut(&Reference) -> Result<Arc<dyn ImageFile>>,
        limits: &Limits,
    ) -> Result<Writer> {
        let layer = format!("VMDK {name}");
        open(&layer, file, parent, resolve, limits).map_err(|error| error.in_layer(layer))
    }
}

/// Who an image is, as its children record it: its CID, in hexadecimal digits.
///
/// Errors: as [`Descriptor::parse`]; `Unsupported` for an extent without descriptor.
pub fn identity(file: &Arc<dyn ImageFile>, limits: &Limits) -> Result<Vec<u8>> {
    let disk: Arc<dyn Disk> = to_read(file);
    let text = descriptor_text(&disk, limits)?;
    let descriptor = Descriptor::parse(text.text.bytes(), limits)?;
    Ok(format!("{:08x}", descriptor.cid.unwrap_or(0)).into_bytes())
}

/// The descriptor of an image, and where it stands.
pub(crate) fn descriptor_text(file: &Arc<dyn Disk>, limits: &Limits) -> Result<DescriptorText> {
    let kind = probe(&file.read_prefix(0, 64 << 10)?);
    let (range, alone) = match kind {
        Some(FileKind::Descriptor) => (0..file.size_bytes(), true),
        Some(FileKind::Sparse) => {
            let header = crate::hosted::Hosted::read(file, 0)?;
            if header.descriptor.is_empty() {
                return Err(piece("hosted sparse extent"));
            }
            (header.descriptor, false)
        }
        Some(kind) => return Err(piece(kind.word())),
        None => {
            let detail = "the file is no VMDK descriptor and holds none";
            return Err(Error::unsupported(detail)
                .advise("flat extents are written through the descriptor that names them"));
        }
    };
    let length = range.end.saturating_sub(range.start);
    if length > limits.text_bytes_max {
        let detail = format!("the descriptor has {length} bytes");
        return Err(Error::limit("text_bytes_max", detail));
    }
    let bytes = file.read_prefix(range.start, narrow(length).unwrap_or(0))?;
    let room = if alone { limits.text_bytes_max } else { length };
    let text = Text::new(&bytes);
    if text.bytes().is_empty() {
        return Err(piece("hosted sparse extent"));
    }
    Ok(DescriptorText { text, start: range.start, room, alone })
}

fn piece(word: &str) -> Error {
    Error::unsupported(format!("the file is a {word} without the descriptor that belongs to it"))
        .advise("open the descriptor that names it, so that children learn of the change")
}

fn open(
    layer: &str,
    file: Arc<dyn ImageFile>,
    parent: Option<Arc<dyn Disk>>,
    resolve: &mut dyn FnMut(&Reference) -> Result<Arc<dyn ImageFile>>,
    limits: &Limits,
) -> Result<Writer> {
    let disk: Arc<dyn Disk> = to_read(&file);
    let held = descriptor_text(&disk, limits)?;
    let descriptor = Descriptor::parse(held.text.bytes(), limits)?;
    check_readable(&descriptor)?;
    check_parent(&descriptor, parent.as_ref())?;
    let own = if held.alone { None } else { own_line(&descriptor)? };
    let mut parts = Parts {
        descriptor: &descriptor,
        limits,
        files: vec![file],
        known: HashMap::new(),
        sparse: BTreeSet::new(),
        resolve,
        parent: parent.clone(),
        budget: Budget::new(limits),
        parts: Vec::new(),
        notes: descriptor.notes.clone(),
        start: 0,
    };
    for (index, line) in descriptor.extents.iter().enumerate() {
        parts.push(index, line, own == Some(index))?;
    }
    let Parts { files, parts, mut notes, .. } = parts;
    check_apart(&files, &parts)?;
    if let Some(path) = &descriptor.change_track_path {
        let text =
            format!("the first write ends change tracking in {:?}", String::from_utf8_lossy(path));
        notes.push(
            Finding::warning("vmdk-change-track", text)
                .advise("make the next backup a full one, and delete the list"),
        );
    }
    notes.iter_mut().for_each(|note| note.trail.push(layer.to_owned()));
    let files: Vec<Arc<dyn ImageFile>> = files.into_iter().map(Tracked::wrap).collect();
    let sources = files.iter().map(to_read).collect();
    let map = DiskMap {
        name: layer.to_owned(),
        files,
        sources,
        parent,
        unit_bytes: unit_of(&parts),
        parts,
        size_bytes: AtomicU64::new(descriptor.size_bytes),
        descriptor: std::sync::Mutex::new(held),
        limits: limits.clone(),
        dirty_bytes: AtomicU64::new(0),
    };
    Ok(Writer::new(map, notes))
}

fn check_parent(descriptor: &Descriptor, parent: Option<&Arc<dyn Disk>>) -> Result<()> {
    let place = Place::new("VMDK descriptor").field("parentCID");
    match (descriptor.has_parent(), parent) {
        (true, None) => {
            let detail = "the disk holds only what differs from a parent, which is not given";
            Err(Error::invalid(Problem::Missing, detail).at(place).advise("give the parent"))
        }
        (false, Some(_)) => {
            let detail = "a parent is given, but the disk has none";
            Err(Error::invalid(Problem::Mismatch, detail).at(place))
        }
        _ => Ok(()),
    }
}

/// Errors: `Corrupt` if what the guest writes in one place would change another.
fn check_apart(files: &[Arc<dyn ImageFile>], parts: &[Part]) -> Result<()> {
    let overlaps = |what: &str| {
        Err(Error::corrupt(Problem::Overlaps, format!("{what}: a write to one changes the other"))
            .at(Place::new("VMDK descriptor").field("extents")))
    };
    let mut flat: Vec<(usize, u64, u64)> = Vec::new();
    for part in parts {
        let file = match &part.kind {
            PartKind::Zero => continue,
            PartKind::Sparse { extent, .. } => extent.file,
            PartKind::Flat { file, offset, .. } => {
                let length = part.end().saturating_sub(part.start);
                flat.push((*file, *offset, offset.saturating_add(length)));
                *file
            }
        };
        if file != 0 && is_same(files.first(), files.get(file))? {
            return overlaps("an extent is the file of the descriptor");
        }
    }
    flat.sort_unstable();
    let mut pairs = flat.iter().zip(flat.iter().skip(1));
    if pairs.any(|(a, b)| a.0 == b.0 && b.1 < a.2) {
        return overlaps("two flat extents share bytes of a file");
    }
    let sparse = |file: usize| {
        parts.iter().any(|part| part.sparse().is_some_and(|extent| extent.file == file))
    };
    if flat.iter().any(|(file, ..)| *file == 0 || sparse(*file)) {
        return overlaps("a flat extent lies in the file of another or of the descriptor");
    }
    Ok(())
}

/// Whether two files are one, as far as their bytes tell: whoever found them may have opened one
/// file twice.
fn is_same(a: Option<&Arc<dyn ImageFile>>, b: Option<&Arc<dyn ImageFile>>) -> Result<bool> {
    let (Some(a), Some(b)) = (a, b) else { return Ok(false) };
    if Arc::ptr_eq(a, b) {
        return Ok(true);
    }
    Ok(a.size_bytes() == b.size_bytes()
        && a.read_prefix(0, 64 << 10)? == b.read_prefix(0, 64 << 10)?)
}

/// The power of two of which every grain is a part; the whole disk where grains stand askew.
fn unit_of(parts: &[Part]) -> u64 {
    let grains = parts.iter().filter_map(|part| match &part.kind {
        PartKind::Sparse { extent, .. } => Some((part.start, extent.read().map.grain_bytes)),
        _ => None,
    });
    let grains: Vec<(u64, u64)> = grains.collect();
    let largest = grains.iter().map(|(_, grain)| *grain).max().unwrap_or(512);
    let even = |&(start, grain): &(u64, u64)| {
        grain.is_power_of_two() && start.checked_rem(grain) == Some(0)
    };
    if largest.is_power_of_two() && grains.iter().all(even) { largest } else { 1 << 63 }
}

/// The extents of a disk as they are opened.
struct Parts<'a> {
    descriptor: &'a Descriptor,
    limits: &'a Limits,
    files: Vec<Arc<dyn ImageFile>>,
    known: HashMap<Vec<u8>, usize>,
    /// Files that are the whole of a sparse extent.
    sparse: BTreeSet<usize>,
    resolve: &'a mut dyn FnMut(&Reference) -> Result<Arc<dyn ImageFile>>,
    parent: Option<Arc<dyn Disk>>,
    budget: Budget,
    parts: Vec<Part>,
    notes: Vec<Finding>,
    start: u64,
}

impl Parts<'_> {
    fn push(&mut self, index: usize, line: &ExtentLine, own: bool) -> Result<()> {
        let size = line.size_bytes();
        let writable = line.access == Access::ReadWrite;
        let kind = match &line.file {
            Some(name) if line.access != Access::None && line.kind != ExtentType::Zero => {
                let file = if own { 0 } else { self.file(index, line, name)? };
                if is_sparse(line) {
                    if size == 0 {
                        return Ok(());
                    }
                    let last = index.checked_add(1) == Some(self.descriptor.extents.len());
                    let state = self.sparse(index, line, file, last).map_err(|error| {
                        error.in_layer(format!("extent {:?}", String::from_utf8_lossy(name)))
                    })?;
                    PartKind::Sparse { extent: Box::new(SparseExtent::new(file, state)), writable }
                } else {
                    self.flat(line, file, writable)?
                }
            }
            _ => PartKind::Zero,
        };
        let size_bytes = AtomicU64::new(size);
        self.parts.push(Part { start: self.start, size_bytes, line: index, kind });
        self.start = self.start.saturating_add(size);
        Ok(())
    }

    fn file(&mut self, index: usize, line: &ExtentLine, name: &[u8]) -> Result<usize> {
        if let Some(&known) = self.known.get(name) {
            return Ok(known);
        }
        let reference = Reference { name: name.to_vec(), purpose: Purpose::Extent(index) };
        let file = (self.resolve)(&reference).map_err(|error| error.at(place(line)))?;
        let number = self.files.len();
        self.files.push(file);
        self.known.insert(name.to_vec(), number);
        Ok(number)
    }

    fn size_of(&self, file: usize) -> u64 {
        self.files.get(file).map_or(0, |file| file.size_bytes())
    }

    fn flat(&self, line: &ExtentLine, file: usize, writable: bool) -> Result<PartKind> {
        let offset = line.offset_sectors.saturating_mul(crate::SECTOR_BYTES);
        let end = offset.saturating_add(line.size_bytes());
        let size = self.size_of(file);
        if size < end {
            let detail = format!("the file has {size} bytes, but its extent ends at {end}");
            return Err(Error::new(Kind::Lost, Problem::Truncated, detail)
                .at(place(line))
                .advise("get a complete copy; nothing is written into what is left"));
        }
        Ok(PartKind::Flat { file, offset, writable })
    }

    fn sparse(
        &mut self,
        index: usize,
        line: &ExtentLine,
        file: usize,
        last: bool,
    ) -> Result<State> {
        if !self.sparse.insert(file) {
            let detail = "the file is named as two sparse extents";
            return Err(Error::corrupt(Problem::Overlaps, detail).at(place(line)));
        }
        if line.offset_sectors != 0 {
            let detail = "a sparse extent that does not start with its file is not known";
            return Err(Error::unsupported(detail).at(place(line)));
        }
        let Some(image) = self.files.get(file) else {
            return Err(Error::corrupt(Problem::Missing, "the extent has no file"));
        };
        let disk: Arc<dyn Disk> = to_read(image);
        let header = ExtentHeader::read(&disk)?;
        if header.capacity_bytes() < line.size_bytes() {
            let detail = format!(
                "its header knows {} bytes, but the descriptor promises {}",
                header.capacity_bytes(),
                line.size_bytes()
            );
            return Err(Error::corrupt(Problem::Mismatch, detail).at(place(line)));
        }
        if header.facts(index).compressed {
            return Err(Error::unsupported(
                "compressed extents are written once, from front to back",
            )
            .at(place(line))
            .advise("convert the disk to monolithicSparse, and write to that"));
        }
        let mut notes = Vec::new();
        let name = format!("extent {index}");
        let parent = self.parent.clone();
        let mut map = header.map(&name, &disk, parent, &mut self.budget, &mut notes)?;
        if let Some(damage) = notes.iter().find(|note| note.severity == Severity::Error) {
            return Err(Error::corrupt(Problem::Mismatch, damage.text.clone())
                .advise("repair the image first"));
        }
        metadata_apart(&map).map_err(|error| error.at(place(line)))?;
        self.notes.extend(notes);
        map.size_bytes = line.size_bytes();
        let layout = match header {
            ExtentHeader::Hosted(header) => Layout::Hosted(header),
            ExtentHeader::Cowd(header) => Layout::Cowd(header),
            ExtentHeader::SeSparse(header) => Layout::SeSparse(header),
        };
        state_of(map, layout, last, self.limits)
    }
}

/// Looks at every table, and starts with those that must be made equal.
pub(crate) fn state_of(
    map: crate::grains::GrainMap,
    layout: Layout,
    last: bool,
    limits: &Limits,
) -> Result<State> {
    let interrupt = Interrupt::default();
    let mut refuse = |_, _: Option<u64>, error: Error| Err(error.advise("repair the image first"));
    let survey = Survey::of(&map, limits.table_bytes_max, &interrupt, &mut refuse)?;
    let mut state = State {
        map,
        layout,
        last,
        end: 0,
        free: Default::default(),
        freed: Default::default(),
        freeing: Default::default(),
        changed: BTreeMap::new(),
        new_tables: BTreeSet::new(),
        backs: BTreeMap::new(),
        dead: Vec::new(),
    };
    state.adopt(&survey)?;
    state.make_equal(&survey.differ, limits)?;
    Ok(state)
}

impl State {
    /// Finds out where new grains and tables go.
    pub fn adopt(&mut self, survey: &Survey) -> Result<()> {
        let end = self.file_size().max(survey.end);
        match &mut self.layout {
            Layout::Hosted(_) => {}
            Layout::Cowd(_) => {}
            Layout::SeSparse(header) => {
                // A table that was taken and never named is taken again.
                let directory = &self.map.tables.directory;
                let named = (0..directory.entries()).map(|index| directory.entry(index));
                let next = named.filter(|&value| value != 0).map(|value| value & 0xffff_ffff);
                header.volatile.free_table = next.max().map_or(0, |last| last.saturating_add(1));
            }
        }
        self.end = match &self.layout {
            // The bitmap is kept in bytes.
            Layout::SeSparse(header) => {
                let base = header.areas.grains.start;
                let batch = self.map.grain_bytes.saturating_mul(8);
                let used = end.saturating_sub(base);
                base.saturating_add(used.checked_next_multiple_of(batch).unwrap_or(used))
            }
            Layout::Cowd(header) => {
                let next = u64::from(header.raw.next_free).saturating_mul(crate::SECTOR_BYTES);
                // One that is far off was never true.
                if next > end.saturating_add(1 << 30) { end } else { self.aligned(end.max(next)) }
            }
            Layout::Hosted(_) => self.aligned(end),
        };
        Ok(())
    }

    /// Tables that differ from their copies are written as they are read, with the next flush.
    fn make_equal(&mut self, differ: &[u64], limits: &Limits) -> Result<()> {
        let needed = wide(differ.len()).saturating_mul(self.map.tables.table_bytes());
        if needed > limits.table_bytes_max {
            let detail = format!("{} tables differ from their copies", differ.len());
            return Err(Error::corrupt(Problem::Mismatch, detail).advise("repair the image first"));
        }
        for &index in differ {
            let tables = &self.map.tables;
            let copy = tables.redundant.as_ref().map_or(0, |copy| copy.entry(index));
            let value = tables.directory.entry(index);
            if value == 0
                || copy == 0
                || tables.table_at(value).is_err()
                || tables.table_at(copy).is_err()
            {
                let detail = "the table or its copy is missing from its directory";
                return Err(Error::corrupt(Problem::Mismatch, detail)
                    .at(tables.place(index, 0))
                    .advise("repair the image first"));
            }
            let length = tables.table_bytes();
            let mut table = tables.load(index)?.to_vec();
            table.resize(narrow(length).unwrap_or(0), 0);
            self.map.tables.changed.insert(index, table.into());
            let sectors = 0..length.div_ceil(crate::SECTOR_BYTES);
            self.changed.insert(index, sectors.collect());
        }
        self.map.tables.read_both = false;
        Ok(())
    }
}
