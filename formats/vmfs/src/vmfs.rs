//! An open volume: the superblock, the resource files as they are needed, FDs by address.

use crate::address::FdAddress;
use crate::descriptor::FileDescriptor;
use crate::map::{FileMap, volume_ends};
use crate::resource::{ResourceFile, ResourceKind};
use crate::superblock::{Superblock, Version};
use adit_core::bytes::narrow;
use adit_core::{Disk, DiskExt, Error, Finding, Kind, Limits, Place, Problem, Result, TableCache};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

/// Notes taken while reading are kept up to this number.
const NOTES_MAX: usize = 64;

/// Whether a volume starts like a VMFS file system; one too short for that does not.
///
/// Units: byte 0 of `volume` is byte 0 of the volume, past any LVM metadata.
/// Errors: only those of reading.
pub fn probe(volume: &Arc<dyn Disk>) -> Result<bool> {
    Superblock::probe(volume.as_ref())
}

/// What the cache keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum CacheKey {
    /// A block of pointers: resource file, cluster, item.
    Pointers(ResourceKind, u64, u64),
    /// A cluster entry.
    Cluster(ResourceKind, u64),
}

/// An open VMFS 3, 5 or 6 file system.
#[derive(Debug)]
pub struct Vmfs {
    this: Weak<Vmfs>,
    volume: Arc<dyn Disk>,
    superblock: Superblock,
    limits: Limits,
    cache: TableCache<CacheKey>,
    resources: [OnceLock<ResourceFile>; ResourceKind::ALL.len()],
    /// Number of file blocks and of small blocks in a cluster, once their bitmap is known.
    blocks: OnceLock<(u64, u64)>,
    notes: Mutex<Vec<Finding>>,
    /// What heartbeats and journals say, once somebody asked.
    use_notes: OnceLock<Vec<Finding>>,
    partial_tbz: AtomicBool,
}

impl Vmfs {
    /// Opens the file system on a volume. Reads little: the superblock and the block bitmap's
    /// header; everything else when it is needed.
    ///
    /// Units: byte 0 of `volume` is byte 0 of the volume, past any LVM metadata.
    /// Errors: `Corrupt` or `Unsupported` where the superblock is not one we can read.
    pub fn open(volume: Arc<dyn Disk>, limits: &Limits) -> Result<Arc<Vmfs>> {
        let superblock = Superblock::load(volume.as_ref())?;
        let fs = Arc::new_cyclic(|this| Vmfs {
            this: this.clone(),
            notes: Mutex::new(superblock.notes()),
            volume,
            superblock,
            limits: limits.clone(),
            cache: TableCache::new(limits),
            resources: Default::default(),
            blocks: OnceLock::new(),
            use_notes: OnceLock::new(),
            partial_tbz: AtomicBool::new(false),
        });
        fs.learn_blocks();
        Ok(fs)
    }

    /// The checked superblock.
    pub fn superblock(&self) -> &Superblock {
        &self.superblock
    }

    /// The volume the file system is on.
    pub fn volume(&self) -> &Arc<dyn Disk> {
        &self.volume
    }

    /// The bounds it was opened with.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// The resource files, in the order of `ResourceKind::ALL`; each is opened when needed.
    pub(crate) fn resources(&self) -> &[OnceLock<ResourceFile>] {
        &self.resources
    }

    pub(crate) fn cache(&self) -> &TableCache<CacheKey> {
        &self.cache
    }

    /// This file system, shared, for what outlives the call.
    pub(crate) fn shared(&self) -> Result<Arc<Vmfs>> {
        self.this
            .upgrade()
            .ok_or_else(|| Error::invalid(Problem::Missing, "the file system is being closed"))
    }

    /// Learns how many blocks there are, for range checks. A damaged bitmap is only noted: data
    /// may be readable all the same.
    fn learn_blocks(&self) {
        let file = match self.resource(ResourceKind::FileBlocks) {
            Ok(file) => file,
            Err(error) => {
                let mut note = Finding::from_error("vmfs-block-bitmap", &error);
                note.text = format!("the header of .fbb.sf cannot be used: {}", note.text);
                return self.note(note.advise("pointers are checked against the volume size only"));
            }
        };
        let (items, per_cluster) = (file.header.items, file.header.items_per_cluster.get());
        let expected = self.superblock.small_blocks_per_cluster();
        if self.superblock.version == Version::Vmfs6 && per_cluster != expected {
            let text = format!("clusters hold {per_cluster} small blocks, not {expected}");
            self.note(Finding::warning("vmfs-cluster-size", text));
        }
        let end = items.saturating_mul(self.superblock.block_size.get());
        let size = self.volume.size_bytes();
        if end > size {
            let text = format!("the file system has {end} bytes, but the volume only {size}");
            let note = Finding::warning("vmfs-volume-short", text)
                .at(Place::new("volume end").byte(size))
                .advise("files with blocks past the end are damaged; get a complete copy");
            self.note(note);
        }
        // Set once: nobody else knows this value yet.
        let _ = self.blocks.set((items, per_cluster));
    }

    /// Volume offset where the last file block ends; unbounded while the bitmap is unknown.
    pub(crate) fn blocks_end(&self) -> u64 {
        let size = self.superblock.block_size.get();
        self.blocks.get().map_or(u64::MAX, |(items, _)| items.saturating_mul(size))
    }

    /// The running number of a small file block; nothing where the item leaves its cluster.
    pub(crate) fn small_block_number(&self, cluster: u64, item: u64) -> Option<u64> {
        let known = self.blocks.get().map(|(_, per_cluster)| *per_cluster);
        let per_cluster = known.unwrap_or_else(|| self.superblock.small_blocks_per_cluster());
        let number = cluster.checked_mul(per_cluster)?.checked_add(item)?;
        (item < per_cluster).then_some(number)
    }

    /// Keeps a note that came up while reading; every place once.
    pub(crate) fn note(&self, finding: Finding) {
        let mut notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        let known = |note: &Finding| note.code == finding.code && note.place == finding.place;
        if notes.len() < NOTES_MAX && !notes.iter().any(known) {
            notes.push(finding);
        }
    }

    pub(crate) fn note_partial_tbz(&self) {
        if !self.partial_tbz.swap(true, Ordering::Relaxed) {
            let text = "a block is marked to-be-zeroed in part; marked eighths are read as zeros";
            self.note(Finding::warning("vmfs-partial-tbz", text));
        }
    }

    /// Notes on the superblock and what came up while reading so far.
    pub(crate) fn reading_notes(&self) -> Vec<Finding> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Who uses the volume, read at the first call.
    pub(crate) fn use_notes(&self) -> &[Finding] {
        self.use_notes.get_or_init(|| self.read_use_notes())
    }

    pub(crate) fn descriptor_at(&self, address: FdAddress, offset: u64) -> Result<FileDescriptor> {
        let size = self.superblock.fd_size();
        let end = offset.saturating_add(size);
        if end > self.volume.size_bytes() {
            return Err(volume_ends(end, self.volume.size_bytes()));
        }
        let bytes = self.volume.read_vec(offset, narrow(size).unwrap_or(0))?;
        FileDescriptor::parse(bytes, address, offset, &self.superblock)
    }

    /// Reads an FD that its cluster says is allocated.
    ///
    /// Errors: `NotFound` where there is no such FD, or it is free; `Corrupt` where its bytes
    /// are not that FD.
    pub fn descriptor(&self, address: FdAddress) -> Result<Arc<FileDescriptor>> {
        // The root and the first system files are there in every volume, whatever a damaged
        // bitmap says.
        let fixed = address.cluster() == 0 && address.item() <= 5;
        if !fixed && self.is_descriptor_free(address)? {
            let detail = format!("names FD {address}, which is free");
            return Err(Error::not_found(detail)
                .at(Place::new("cluster of .fdc.sf").index(address.cluster().into()))
                .advise("a check lists every entry that names a free FD"));
        }
        Ok(Arc::new(self.descriptor_unchecked(address)?))
    }

    /// Reads an FD whatever its cluster says; what stands in a free one may be anything.
    ///
    /// Errors: as `descriptor`.
    pub fn descriptor_unchecked(&self, address: FdAddress) -> Result<FileDescriptor> {
        let offset = self.descriptor_offset(address)?;
        self.descriptor_at(address, offset)
    }

    /// Where an FD stands in the volume. Unit: bytes.
    ///
    /// Errors: `NotFound` past the last FD.
    pub fn descriptor_offset(&self, address: FdAddress) -> Result<u64> {
        let file = self.resource(ResourceKind::Descriptors)?;
        let at = file.item_offset(address.cluster().into(), address.item().into())?;
        let size = self.superblock.fd_size();
        let (offset, length) = self.resource_run(ResourceKind::Descriptors, at, size)?;
        if length < size {
            let detail = "stands in two pieces".to_owned();
            return Err(Error::corrupt(Problem::Misaligned, detail)
                .at(Place::new(format!("FD {address}")).byte(offset)));
        }
        Ok(offset)
    }

    /// Whether the FD bitmap calls an FD free. A damaged cluster entry says nothing; the FD's
    /// own checks then decide.
    fn is_descriptor_free(&self, address: FdAddress) -> Result<bool> {
        let number = u64::from(address.cluster());
        let file = self.resource(ResourceKind::Descriptors)?;
        file.item_offset(number, address.item().into())?;
        match self.cluster(ResourceKind::Descriptors, number) {
            Ok(cluster) if cluster.verify(file.header.items_in(number)).is_ok() => {
                Ok(cluster.is_free(address.item().into()).unwrap_or(false))
            }
            Ok(_) => Ok(false),
            Err(error) if error.kind() == Kind::Corrupt => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The data of an FD as a disk, whatever the FD describes; directories too.
    ///
    /// Errors: `Unsupported` for raw device mappings and unknown addressing.
    pub fn data(&self, fd: Arc<FileDescriptor>) -> Result<Arc<dyn Disk>> {
        FileMap::open(self.shared()?, fd)
    }
}
