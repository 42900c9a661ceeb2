//! An open volume: the boot sector, the master file table, and what is learned on the way.

use crate::boot::Boot;
use crate::layout::{kind, record};
use crate::mft::Mft;
use crate::names::UpCase;
use crate::volume::VolumeInfo;
use adit_core::{Disk, DiskExt, Error, Finding, Limits, Problem, Result, Slice, TableCache};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// Notes taken while reading are kept up to this number.
const NOTES_MAX: usize = 64;

/// Whether a volume starts like NTFS; one too short for that does not.
///
/// Units: byte 0 of `volume` is byte 0 of the volume.
/// Errors: only those of reading.
pub fn probe(volume: &Arc<dyn Disk>) -> Result<bool> {
    crate::boot::probe(volume.as_ref())
}

/// What the cache keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum CacheKey {
    /// An MFT record, fixed up.
    Record(u64),
    /// A block of an index, fixed up: record, first letter of the index's name, offset.
    Block(u64, u16, u64),
}

/// An open NTFS 1.2, 3.0 or 3.1 file system.
#[derive(Debug)]
pub struct Ntfs {
    volume: Arc<dyn Disk>,
    boot: Boot,
    /// What of the volume the disk below holds.
    held_bytes: u64,
    limits: Limits,
    cache: TableCache<CacheKey>,
    mft: OnceLock<Mft>,
    root: OnceLock<u64>,
    info: OnceLock<VolumeInfo>,
    upcase: OnceLock<UpCase>,
    notes: Mutex<Vec<Finding>>,
    /// What the volume's state says, once somebody asked.
    state_notes: OnceLock<Vec<Finding>>,
}

impl Ntfs {
    /// Opens the file system on a volume. Reads little: the boot sector, the first records.
    ///
    /// Units: byte 0 of `volume` is byte 0 of the volume.
    /// Errors: `Corrupt` or `Unsupported` where the boot sector, the master file table or the
    /// root directory cannot be read.
    pub fn open(volume: Arc<dyn Disk>, limits: &Limits) -> Result<Arc<Ntfs>> {
        let (boot, note) = Boot::load(volume.as_ref())?;
        let size = volume.size_bytes();
        let short = boot.check_size(size);
        // What lies past the end is then lost, and says so.
        let volume = match short {
            Some(_) => Slice::open("NTFS volume", volume, 0, boot.volume_bytes()),
            None => volume,
        };
        let fs = Ntfs {
            notes: Mutex::new(note.into_iter().chain(short).collect()),
            volume,
            held_bytes: size.min(boot.volume_bytes()),
            boot,
            limits: limits.clone(),
            cache: TableCache::new(limits),
            mft: OnceLock::new(),
            root: OnceLock::new(),
            info: OnceLock::new(),
            upcase: OnceLock::new(),
            state_notes: OnceLock::new(),
        };
        let mft = fs.open_mft()?;
        let _ = fs.mft.set(mft);
        // A root that is torn leaves the files reachable by their numbers.
        let root = match fs.record(record::ROOT) {
            Ok(root) => root.reference(),
            Err(error) => {
                let mut note = Finding::from_error("ntfs-root-damaged", &error);
                note.text = format!("the root directory cannot be read: {}", note.text);
                fs.note(note);
                record::ROOT
            }
        };
        let _ = fs.root.set(root);
        let info = fs.read_volume_info();
        fs.check_version(&info)?;
        let _ = fs.info.set(info);
        Ok(Arc::new(fs))
    }

    fn check_version(&self, info: &VolumeInfo) -> Result<()> {
        match info.version {
            None | Some((1 | 3, _)) => Ok(()),
            Some((major, minor)) => {
                Err(Error::unsupported(format!("NTFS {major}.{minor} is not known")))
            }
        }
    }

    /// The checked boot sector.
    pub fn boot(&self) -> &Boot {
        &self.boot
    }

    /// The volume the file system is on.
    pub fn volume(&self) -> &Arc<dyn Disk> {
        &self.volume
    }

    /// The bounds it was opened with.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// What record `$Volume` says: label, version, flags.
    pub fn info(&self) -> &VolumeInfo {
        self.info.get_or_init(|| self.read_volume_info())
    }

    /// What of the volume the disk below holds: nothing real is larger. Unit: bytes.
    pub(crate) fn held_bytes(&self) -> u64 {
        self.held_bytes
    }

    pub(crate) fn cache(&self) -> &TableCache<CacheKey> {
        &self.cache
    }

    pub(crate) fn root_reference(&self) -> u64 {
        self.root.get().copied().unwrap_or(record::ROOT)
    }

    pub(crate) fn mft(&self) -> Result<&Mft> {
        let missing = || Error::invalid(Problem::Missing, "$MFT is not open yet");
        self.mft.get().ok_or_else(missing)
    }

    /// The table of capital letters, read at the first call.
    pub(crate) fn upcase(&self) -> &UpCase {
        self.upcase.get_or_init(|| {
            self.read_upcase().unwrap_or_else(|error| {
                let mut note = Finding::from_error("ntfs-upcase-damaged", &error);
                note.text = format!("$UpCase cannot be read ({}); Unicode's is used", note.text);
                self.note(note.advise("a few names may not be found by name, but are listed"));
                UpCase::unicode()
            })
        })
    }

    fn read_upcase(&self) -> Result<UpCase> {
        let missing = || Error::corrupt(Problem::Missing, "$UpCase has no data");
        let node = self.node(record::UPCASE)?;
        let stream = self.stream(&node, kind::DATA, &[])?.ok_or_else(missing)?;
        let bytes = self.disk(stream, "$UpCase").read_prefix(0, UpCase::BYTES)?;
        if bytes.len() != UpCase::BYTES {
            let detail = format!("it has {} bytes", bytes.len());
            return Err(Error::corrupt(Problem::Truncated, detail));
        }
        Ok(UpCase::parse(&bytes))
    }

    /// Keeps a note that came up while reading; every place once.
    pub(crate) fn note(&self, finding: Finding) {
        let mut notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        let known = |note: &Finding| note.code == finding.code && note.place == finding.place;
        if notes.len() < NOTES_MAX && !notes.iter().any(known) {
            notes.push(finding);
        }
    }

    /// Notes on opening and what came up while reading so far.
    pub(crate) fn reading_notes(&self) -> Vec<Finding> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Notes on the volume's state: dirty, log not empty, hibernated. Read at the first call.
    pub(crate) fn state_notes(&self) -> &[Finding] {
        self.state_notes.get_or_init(|| self.read_state_notes())
    }
}
