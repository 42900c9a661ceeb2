//! An open file system: its shape, its table, its letters.

use crate::bitmap::Bitmap;
use crate::chain::Runs;
use crate::directory::Known;
use crate::layout::{BitmapEntry, FsInfo, LabelEntry, ShortEntry, UpcaseEntry, attribute, slot};
use crate::notes::Notes;
use crate::scan::{Scan, Step};
use crate::shape::{Shape, Variant, label_text};
use crate::table::Table;
use crate::upcase::{BYTES_MAX, Upcase};
use crate::{bpb, exboot};
use adit_core::bytes::narrow;
use adit_core::{Disk, DiskExt, Error, Finding, Limits, Place, Problem, Result};
use std::sync::{Arc, Mutex, OnceLock};

/// Where a copy of the boot sector of FAT32 stands, always. Unit: sectors.
const BACKUP_SECTOR: u64 = 6;
/// Slots of the root directory that are looked through for labels and tables.
const ROOT_SLOTS_MAX: usize = 1 << 16;
/// Where BitLocker To Go names itself in the boot sector of the small FAT it shows to old
/// systems, and how. Unit: bytes.
const BITLOCKER_OFFSET: u64 = 0x1a8;
const BITLOCKER: [u8; 16] = *b"\x3b\xd6\x67\x49\x29\x2e\xd8\x4a\x83\x99\xf6\xa3\x39\xe3\xd0\x01";
/// Sizes a sector can have. Unit: bytes.
const SECTOR_SIZES: [u64; 4] = [512, 1024, 2048, 4096];

/// An open FAT12, FAT16, FAT32 or exFAT file system.
#[derive(Debug)]
pub struct Fat {
    disk: Arc<dyn Disk>,
    shape: Shape,
    limits: Limits,
    table: Table,
    notes: Arc<Notes>,
    label: String,
    upcase: Upcase,
    bitmap: Option<Bitmap>,
    /// Clusters of the bitmap and of the table of letters.
    system: Vec<Runs>,
    pub(crate) known: Mutex<Known>,
    pub(crate) free: OnceLock<u64>,
}

/// Whether a disk starts like FAT12, FAT16, FAT32 or exFAT.
///
/// FAT has no magic number. What counts is a jump, 55 AA, sizes that are powers of two and fit
/// together, a media byte, a FAT that covers all clusters, and the same media byte at the start
/// of a FAT or, failing that, the words "FAT12", "FAT16" or "FAT32" where they belong. A
/// partition table, NTFS and BitLocker never pass.
///
/// Errors: only those of reading.
pub fn probe(disk: &Arc<dyn Disk>) -> Result<bool> {
    let disk = disk.as_ref();
    let sector = disk.read_prefix(0, 512)?;
    Ok(exboot::looks_right(&sector)
        || fat_at(disk, 0).is_ok()
        || exfat_backup(disk).is_some()
        || (adit_core::bytes::all_zero(&sector) && fat_backup(disk).is_some()))
}

/// A boot sector of FAT with at least one FAT that starts right, or with the words for it.
fn fat_at(disk: &dyn Disk, offset: u64) -> Result<Shape> {
    let bytes = disk.read_prefix(offset, 512)?;
    let shape = bpb::parse(&bytes, offset)?;
    let right = (0..shape.fats).any(|copy| {
        let start = disk.read_prefix(crate::table::copy_offset(&shape, copy), 8);
        start.is_ok_and(|start| bpb::fat_starts_right(&shape, &start))
    });
    let words = if shape.variant == Variant::Fat32 { 0x52..0x5a } else { 0x36..0x3e };
    let named = matches!(bytes.get(words), Some(b"FAT12   " | b"FAT16   " | b"FAT32   "));
    if right || named {
        return Ok(shape);
    }
    let detail = "no FAT starts with the media descriptor of the boot sector";
    let place = Place::new("FAT").byte(shape.fat_offset);
    Err(Error::corrupt(Problem::Mismatch, detail).at(place))
}

/// The copy of the boot sector of FAT32, if it is a sound one.
fn fat_backup(disk: &dyn Disk) -> Option<Shape> {
    SECTOR_SIZES.iter().find_map(|size| {
        let at = size.checked_mul(BACKUP_SECTOR)?;
        let shape = fat_at(disk, at).ok()?;
        (shape.variant == Variant::Fat32 && shape.sector_bytes.get() == *size).then_some(shape)
    })
}

/// The copy of the boot region of exFAT, if its checksum is right.
fn exfat_backup(disk: &dyn Disk) -> Option<Shape> {
    SECTOR_SIZES.iter().find_map(|size| {
        let at = size.checked_mul(exboot::REGION_SECTORS)?;
        let sector = disk.read_prefix(at, 512).ok()?;
        let shape = exboot::parse(&sector, at).ok()?;
        exboot::verify(disk, &shape, at).ok()?;
        (shape.sector_bytes.get() == *size).then_some(shape)
    })
}

/// The shape of a volume, from its boot sector or the copy of it.
fn load(disk: &dyn Disk, notes: &Notes) -> Result<Shape> {
    let sector = disk.read_prefix(0, 512)?;
    let backup_used = |error: &Error, shape: &Shape| {
        let text = format!("the boot sector is damaged ({error}); its copy is used");
        let place = Place::new("boot sector").byte(shape.boot_offset);
        notes.add(Finding::warning("fat-boot-copy", text).at(place));
    };
    if !exboot::looks_right(&sector) {
        let error = match fat_at(disk, 0) {
            Ok(shape) => return Ok(shape),
            Err(error) => error,
        };
        return match fat_backup(disk).or_else(|| exfat_backup(disk)) {
            Some(shape) => {
                backup_used(&error, &shape);
                Ok(shape)
            }
            None => Err(error),
        };
    }
    let main =
        exboot::parse(&sector, 0).and_then(|shape| exboot::verify(disk, &shape, 0).map(|()| shape));
    let error = match main {
        Ok(shape) => return Ok(shape),
        Err(error) if error.kind() == adit_core::Kind::Unsupported => return Err(error),
        Err(error) => error,
    };
    if let Some(shape) = exfat_backup(disk) {
        backup_used(&error, &shape);
        return Ok(shape);
    }
    // Fields that make sense are better than nothing, as long as it is said.
    let shape = exboot::parse(&sector, 0)?;
    notes.add(Finding::from_error("fat-boot-checksum", &error));
    Ok(shape)
}

/// What the root directory holds beside files.
#[derive(Default)]
struct Special {
    label: Option<String>,
    bitmap: Option<BitmapEntry>,
    upcase: Option<UpcaseEntry>,
}

impl Fat {
    /// Opens a file system.
    ///
    /// Errors: `Corrupt` or `Unsupported` where the boot sector is not one we can read.
    pub fn open(disk: Arc<dyn Disk>, limits: &Limits) -> Result<Arc<Fat>> {
        let notes = Arc::new(Notes::default());
        let shape = load(disk.as_ref(), &notes)?;
        let table = Table::new(Arc::clone(&disk), &shape, limits, Arc::clone(&notes));
        let mut fs = Fat {
            disk,
            shape,
            limits: limits.clone(),
            table,
            notes,
            label: String::new(),
            upcase: Upcase::unicode(),
            bitmap: None,
            system: Vec::new(),
            known: Mutex::default(),
            free: OnceLock::new(),
        };
        fs.first_notes();
        let special = fs.special();
        fs.label = special.label.clone().unwrap_or_else(|| label_text(&fs.shape.boot_label));
        if fs.shape.variant == Variant::ExFat {
            let own = [
                special.bitmap.as_ref().map(|entry| (entry.cluster, entry.length)),
                special.upcase.as_ref().map(|entry| (entry.cluster, entry.length)),
            ];
            for (first, length) in own.into_iter().flatten() {
                fs.system.push(fs.chain(first, Some(fs.shape.clusters_of(length))));
            }
            match fs.load_upcase(special.upcase.as_ref()) {
                Ok(upcase) => fs.upcase = upcase,
                Err(error) => {
                    let text = format!("{error}; Unicode's letters are used instead");
                    fs.notes.add(Finding::warning("exfat-upcase", text));
                }
            }
            match Bitmap::new(&fs, special.bitmap.as_ref()) {
                Ok(bitmap) => fs.bitmap = Some(bitmap),
                Err(error) => fs.notes.add(Finding::from_error("exfat-bitmap", &error)),
            }
        }
        Ok(Arc::new(fs))
    }

    /// Where everything is.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// The disk the file system is on.
    pub fn disk(&self) -> &Arc<dyn Disk> {
        &self.disk
    }

    /// The bounds it was opened with.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    pub(crate) fn table(&self) -> &Table {
        &self.table
    }

    pub(crate) fn upcase(&self) -> &Upcase {
        &self.upcase
    }

    pub(crate) fn bitmap(&self) -> Option<&Bitmap> {
        self.bitmap.as_ref()
    }

    pub(crate) fn system_runs(&self) -> &[Runs] {
        &self.system
    }

    pub(crate) fn label(&self) -> &str {
        &self.label
    }

    pub(crate) fn notes_so_far(&self) -> Vec<Finding> {
        self.notes.all()
    }

    fn first_notes(&self) {
        let shape = &self.shape;
        let (dirty, failing) = self.table.state();
        if dirty || shape.dirty {
            let text = "the volume was not unmounted; files that were open may be cut short";
            let place = Place::new("boot sector").byte(shape.boot_offset);
            self.notes.add(Finding::warning("fat-dirty", text).at(place));
        }
        if failing || shape.failing {
            let text = "the volume says of itself that errors were met";
            self.notes.add(Finding::warning("fat-failing", text));
        }
        if self.disk.size_bytes() < shape.heap_end() {
            let text = format!(
                "the file system has {} bytes, but the disk ends after {}",
                shape.heap_end(),
                self.disk.size_bytes()
            );
            let advice = "get a complete copy; what lies past the end is lost";
            self.notes.add(Finding::error("fat-disk-short", text).advise(advice));
        }
        if self.disk.read_prefix(BITLOCKER_OFFSET, 16).is_ok_and(|bytes| bytes == BITLOCKER) {
            let text = "BitLocker To Go: what is seen here is not what the volume holds, which is \
                        encrypted";
            self.notes.add(Finding::warning("fat-bitlocker", text));
        }
        if let Some(offset) = shape.info_offset {
            let place = Place::new("FSInfo").byte(offset);
            let sector = self.disk.read_prefix(offset, FsInfo::SIZE);
            let sound = sector.and_then(|bytes| FsInfo::read(&bytes)).is_ok_and(|info| {
                info.lead == *b"RRaA" && info.signature == *b"rrAa" && info.trail == 0xaa55
            });
            if !sound {
                let text = "is damaged; it holds only hints and is not needed";
                self.notes.add(Finding::warning("fat-info", text).at(place));
            }
        }
    }

    /// Looks through the root directory for what is not a file.
    fn special(&self) -> Special {
        let mut special = Special::default();
        let root = match self.node(crate::node::ROOT) {
            Ok(root) => root,
            Err(_) => return special,
        };
        let runs = Arc::new(self.runs(&root));
        let mut scan = Scan::new(self, runs, 0);
        for _ in 0..ROOT_SLOTS_MAX {
            let bytes = match scan.step() {
                Some(Step::Slot(slot)) => slot.bytes,
                Some(Step::Gap(_)) => continue,
                None => break,
            };
            let [kind, ..] = bytes;
            if kind == 0 {
                break;
            }
            if self.shape.variant != Variant::ExFat {
                if special.label.is_none() {
                    special.label = fat_label(&bytes);
                }
                continue;
            }
            match kind {
                slot::LABEL if special.label.is_none() => {
                    special.label = LabelEntry::read(&bytes).ok().map(|entry| {
                        let length = usize::from(entry.characters).min(11);
                        String::from_utf16_lossy(entry.label.get(..length).unwrap_or(&[]))
                    });
                }
                slot::BITMAP if special.bitmap.is_none() => {
                    special.bitmap = BitmapEntry::read(&bytes).ok().filter(|b| b.flags & 1 == 0);
                }
                slot::UPCASE if special.upcase.is_none() => {
                    special.upcase = UpcaseEntry::read(&bytes).ok();
                }
                _ => {}
            }
        }
        special
    }

    fn load_upcase(&self, entry: Option<&UpcaseEntry>) -> Result<Upcase> {
        let place = || Place::new("up-case table");
        let entry = entry.ok_or_else(|| {
            Error::corrupt(Problem::Missing, "the root directory names none").at(place())
        })?;
        let at = place().byte(self.shape.cluster_offset(entry.cluster));
        if entry.length == 0 || entry.length > BYTES_MAX {
            let detail = format!("cannot have {} bytes", entry.length);
            return Err(Error::corrupt(Problem::OutOfRange, detail).at(at));
        }
        let runs = self.chain(entry.cluster, Some(self.shape.clusters_of(entry.length)));
        let disk = self.open_runs("exFAT up-case table", runs, entry.length);
        let bytes = disk.read_vec(0, narrow(entry.length).unwrap_or(0));
        bytes.and_then(|bytes| Upcase::parse(&bytes, entry.checksum)).map_err(|e| e.at(at))
    }

    /// Some of the volume's own clusters as a disk.
    pub(crate) fn open_runs(&self, name: &str, runs: Runs, length: u64) -> Arc<dyn Disk> {
        let disk = Arc::clone(&self.disk);
        crate::map::FileMap::open(name.to_owned(), disk, Arc::new(runs), length, length)
    }
}

/// The label in a slot of the root directory.
fn fat_label(bytes: &[u8]) -> Option<String> {
    let raw = ShortEntry::read(bytes).ok()?;
    let attributes = u16::from(raw.attributes);
    let is_label = attributes & attribute::LABEL != 0
        && attributes & 0x3f != attribute::LONG_NAME
        && raw.name.first() != Some(&0xe5);
    let mut name = raw.name;
    if let [first @ 0x05, ..] = &mut name {
        *first = 0xe5;
    }
    is_label.then(|| label_text(&name))
}
