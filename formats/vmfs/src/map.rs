//! A file's data as an [`ExtentMap`]: offsets of the file to offsets of the volume.

use crate::address::{Address, Target};
use crate::descriptor::{Addressing, FileDescriptor};
use crate::pointers::{PointerWalk, Slot};
use crate::resource::ResourceKind;
use crate::vmfs::Vmfs;
use adit_core::bytes::wide;
use adit_core::{
    Disk, DiskExt, Error, ExtentMap, Geometry, Kind, Mapped, Place, Problem, Result, Run, RunKind,
};
use std::num::NonZeroU64;
use std::sync::Arc;

/// One lookup enters at most this many pointer blocks before it settles for what it has.
const LOADS_MAX: u32 = 16;

/// The map behind an open file.
#[derive(Debug)]
pub struct FileMap {
    fs: Arc<Vmfs>,
    fd: Arc<FileDescriptor>,
}

impl FileMap {
    /// The data of `fd` as a disk.
    ///
    /// Errors: `Unsupported` for raw device mappings and unknown addressing.
    pub fn open(fs: Arc<Vmfs>, fd: Arc<FileDescriptor>) -> Result<Arc<dyn Disk>> {
        let place = || Place::new(format!("FD {}", fd.address)).byte(fd.offset);
        match fd.addressing {
            _ if fd.file_type == crate::descriptor::FileType::RawDevice => {
                return Err(crate::rdm::refuse(&fd));
            }
            Addressing::Unknown(raw) => {
                let detail = format!("addressing mode {raw} is unknown");
                return Err(Error::unsupported(detail).at(place()));
            }
            Addressing::None if fd.length() > 0 => {
                let detail = format!("has {} bytes but no addressing", fd.length());
                return Err(Error::corrupt(Problem::BadValue, detail).at(place()));
            }
            Addressing::None | Addressing::Resident => {}
            _ => {
                fd.block_size()?;
            }
        }
        Ok(Arc::new(Mapped::new(FileMap { fs, fd })))
    }

    /// The FD whose data it is.
    pub fn descriptor(&self) -> &Arc<FileDescriptor> {
        &self.fd
    }
}

impl ExtentMap for FileMap {
    fn geometry(&self) -> Geometry {
        Geometry::of_size(self.fd.length())
    }

    fn lookup(&self, offset: u64, at_most: u64) -> Result<Run> {
        self.fs.run_of(&self.fd, offset, at_most)
    }

    fn source(&self, index: usize) -> Option<&Arc<dyn Disk>> {
        (index == 0).then_some(self.fs.volume())
    }

    fn parent(&self) -> Option<&Arc<dyn Disk>> {
        None
    }

    fn decode(&self, _run: &Run, _buf: &mut [u8]) -> Result<()> {
        Err(Error::unsupported("VMFS encodes nothing"))
    }

    fn name(&self) -> String {
        let version = self.fs.superblock().version.number();
        format!("VMFS{version} file FD {}", self.fd.address)
    }

    fn steps(&self, offset: u64) -> Result<Vec<String>> {
        let fd = &self.fd;
        let mut steps = vec![format!("FD {} at byte {:#x}", fd.address, fd.offset)];
        if fd.addressing == Addressing::Resident {
            steps.push("the data stands in the FD".into());
            return Ok(steps);
        }
        let block_size = fd.block_size()?;
        let index = offset / block_size;
        steps.push(format!("block {index} of {block_size} bytes, {}", fd.addressing.word()));
        for step in PointerWalk::new(&self.fs, fd)?.steps(index) {
            let of = match step.block {
                None => "pointer".to_owned(),
                Some(address) => format!("pointer block {}, entry", show(address)),
            };
            let names = match self.fs.parse_address(step.raw) {
                Ok(None) => "hole".to_owned(),
                Ok(Some(address)) => show(address),
                Err(_) => "nothing valid".to_owned(),
            };
            steps.push(format!("{of} {}: {:#x} = {names}", step.index, step.raw));
        }
        Ok(steps)
    }
}

fn show(address: Address) -> String {
    let text = match address.target {
        Target::FileBlock(number) => format!("FB {number}"),
        Target::SmallBlock { cluster, item } => format!("SFB {cluster}:{item}"),
        Target::LargeBlock(number) => format!("LFB {number}"),
        Target::SubBlock { cluster, item } => format!("SB {cluster}:{item}"),
        Target::PointerBlock { cluster, item } => format!("PB {cluster}:{item}"),
        Target::PointerBlock2 { cluster, item } => format!("PB2 {cluster}:{item}"),
        Target::JournalBlock { cluster, item } => format!("JB {cluster}:{item}"),
        Target::Descriptor(fd) => format!("FD {fd}"),
    };
    match (address.tbz, address.cow) {
        (0, false) => text,
        (0, true) => format!("{text} COW"),
        (tbz, cow) => format!("{text} TBZ {tbz:#04x}{}", if cow { " COW" } else { "" }),
    }
}

/// Data from an offset on: its length (never past the block) and where it is.
#[derive(Debug)]
struct Piece {
    length: u64,
    kind: RunKind,
}

impl Piece {
    fn lost(length: u64, error: Error) -> Piece {
        Piece { length, kind: RunKind::Lost(error) }
    }
}

impl Vmfs {
    /// The run of `fd`'s data at `offset`, joined with what follows it up to `at_most` bytes.
    pub(crate) fn run_of(&self, fd: &FileDescriptor, offset: u64, at_most: u64) -> Result<Run> {
        let left = fd.length().checked_sub(offset).filter(|left| *left > 0).ok_or_else(|| {
            let detail = format!("byte {offset:#x} lies past the file's {} bytes", fd.length());
            Error::corrupt(Problem::OutOfRange, detail)
                .at(Place::new(format!("FD {}", fd.address)).byte(fd.offset))
        })?;
        let goal = at_most.min(left);
        if fd.addressing == Addressing::Resident {
            let piece = resident_piece(fd, offset);
            return Ok(Run { start: offset, length: piece.length.min(left), kind: piece.kind });
        }
        let block_size = fd.block_size()?;
        let blocks = (goal / block_size).saturating_add(2);
        let mut walk = PointerWalk::new(self, fd)?.reach(blocks);
        let first = self.piece(&mut walk, fd, block_size, offset);
        let mut run = Run { start: offset, length: first.length, kind: first.kind };
        while run.length < goal && walk.loads() < LOADS_MAX {
            let next = self.piece(&mut walk, fd, block_size, offset.saturating_add(run.length));
            if !joins(&run, &next.kind) {
                break;
            }
            run.length = run.length.saturating_add(next.length);
        }
        run.length = run.length.min(left);
        Ok(run)
    }

    fn piece(
        &self,
        walk: &mut PointerWalk<'_>,
        fd: &FileDescriptor,
        block_size: NonZeroU64,
        offset: u64,
    ) -> Piece {
        let index = offset / block_size;
        let left = block_size.get().saturating_sub(offset % block_size);
        let span = |blocks: u64| {
            let more = blocks.saturating_sub(1).saturating_mul(block_size.get());
            more.saturating_add(left)
        };
        let raw = match walk.slot(index) {
            Slot::Hole(blocks) => return Piece { length: span(blocks), kind: RunKind::Hole },
            Slot::Broken(error, blocks) => return Piece::lost(span(blocks), error),
            Slot::Pointer(raw) => raw,
        };
        let found = self.parse_address(raw).and_then(|address| match address {
            None => Ok(Piece { length: left, kind: RunKind::Hole }),
            Some(address) => self.data_piece(address, fd.rank, offset, left),
        });
        found.unwrap_or_else(|error| Piece::lost(left, error.at(walk.place_of(index))))
    }

    /// Where byte `offset` of a file is, in the block `address`; at most `left` bytes of it.
    fn data_piece(&self, address: Address, rank: u8, offset: u64, left: u64) -> Result<Piece> {
        let superblock = self.superblock();
        let (number, unit) = match address.target {
            Target::FileBlock(number) => (Some(number), superblock.block_size),
            Target::SmallBlock { cluster, item } => {
                (self.small_block_number(cluster, item), superblock.block_size)
            }
            Target::LargeBlock(number) => (Some(number), superblock.large_block_size),
            Target::SubBlock { cluster, item } => {
                return self.sub_block_piece(cluster, item, rank, offset, left);
            }
            _ => {
                let detail = format!("{} cannot hold data", show(address));
                return Err(Error::corrupt(Problem::BadValue, detail));
            }
        };
        let within = offset % unit;
        let length = unit.get().saturating_sub(within).min(left);
        let start = number
            .and_then(|number| number.checked_mul(unit.get())?.checked_add(within))
            .filter(|start| start.saturating_add(length) <= self.blocks_end())
            .ok_or_else(|| {
                let detail = format!("names {}, past the last block", show(address));
                Error::corrupt(Problem::OutOfRange, detail)
            })?;
        if address.tbz != 0 {
            return Ok(self.tbz_piece(address, start, within, unit, length));
        }
        Ok(self.stored_piece(start, length))
    }

    /// A block marked to-be-zeroed: all of it, or eighths of it.
    fn tbz_piece(
        &self,
        address: Address,
        start: u64,
        within: u64,
        unit: NonZeroU64,
        length: u64,
    ) -> Piece {
        if address.is_tbz() {
            return Piece { length, kind: RunKind::Zero };
        }
        self.note_partial_tbz();
        let eighth = NonZeroU64::new(unit.get() / 8).unwrap_or(NonZeroU64::MIN);
        let marked = |at: u64| {
            let bit = u32::try_from(at / eighth).unwrap_or(7);
            address.tbz & 1u8.checked_shl(bit).unwrap_or(0) != 0
        };
        let length = eighth.get().saturating_sub(within % eighth).min(length);
        if marked(within) {
            return Piece { length, kind: RunKind::Zero };
        }
        self.stored_piece(start, length)
    }

    fn sub_block_piece(
        &self,
        cluster: u64,
        item: u64,
        rank: u8,
        offset: u64,
        left: u64,
    ) -> Result<Piece> {
        let kind = ResourceKind::SubBlocks;
        if kind.rank() >= rank {
            let detail = format!("data in a sub-block of {} would need itself", kind.file_name());
            return Err(Error::corrupt(Problem::Cycle, detail));
        }
        let file = self.resource(kind)?;
        let size = NonZeroU64::new(file.header.raw.item_size.into())
            .ok_or_else(|| Error::corrupt(Problem::BadValue, "sub-blocks have no size"))?;
        // A slot larger than a sub-block would read the block twice.
        if left > size.get().saturating_sub(offset % size) {
            let detail = format!("a sub-block of {size} bytes cannot fill the file's block");
            return Err(Error::corrupt(Problem::BadValue, detail));
        }
        let at = file.item_offset(cluster, item)?.saturating_add(offset % size);
        let (start, length) = self.resource_run(kind, at, left)?;
        Ok(self.stored_piece(start, length.min(left)))
    }

    /// Bytes of the volume; lost where the volume ends early.
    fn stored_piece(&self, start: u64, length: u64) -> Piece {
        let size = self.volume().size_bytes();
        match size.checked_sub(start).filter(|held| *held > 0) {
            Some(held) => {
                let kind = RunKind::Stored { source: 0, offset: start };
                Piece { length: length.min(held), kind }
            }
            None => Piece::lost(length, volume_ends(start, size)),
        }
    }
}

/// What lies past the end of a volume that was cut short.
pub(crate) fn volume_ends(offset: u64, size: u64) -> Error {
    let detail = format!("byte {offset:#x} is needed, but the volume ends at {size:#x}");
    Error::new(Kind::Lost, Problem::Truncated, detail)
        .at(Place::new("volume end").byte(size))
        .advise("the image or device is shorter than its file system; get a complete copy")
}

fn resident_piece(fd: &FileDescriptor, offset: u64) -> Piece {
    let (bytes, start) = fd.resident();
    let room = wide(bytes.len());
    match room.checked_sub(offset).filter(|left| *left > 0) {
        Some(length) => {
            let offset = fd.offset.saturating_add(start).saturating_add(offset);
            Piece { length, kind: RunKind::Stored { source: 0, offset } }
        }
        None => {
            let detail = format!("says {} bytes are resident, but {room} fit", fd.length());
            let place = Place::new(format!("FD {}", fd.address)).field("length");
            let error = Error::corrupt(Problem::OutOfRange, detail).at(place.byte(fd.offset));
            Piece::lost(u64::MAX, error)
        }
    }
}

fn joins(run: &Run, next: &RunKind) -> bool {
    match (&run.kind, next) {
        (RunKind::Hole, RunKind::Hole) | (RunKind::Zero, RunKind::Zero) => true,
        (RunKind::Stored { offset, .. }, RunKind::Stored { offset: next, .. }) => {
            offset.checked_add(run.length) == Some(*next)
        }
        _ => false,
    }
}
