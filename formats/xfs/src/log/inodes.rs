//! Logged inodes: the core in the byte order of the machine, forks as on disk.

use super::replay::Replay;
use super::transaction::Item;
use crate::bmap::block_header;
use crate::crc;
use crate::inode::CRC_FIELD;
use crate::layout::{INODE_MAGIC, RawInodeV3};
use adit_core::bytes::{array, narrow, u16_be, u16_le, u32_le, u64_be, u64_le};
use adit_core::{Error, Place, Problem, Result};

/// Bits of a logged inode's `fields`.
mod fields {
    pub(super) const DATA_LOCAL: u32 = 0x2;
    pub(super) const DATA_EXTENTS: u32 = 0x4;
    pub(super) const DATA_ROOT: u32 = 0x8;
    pub(super) const DEVICE: u32 = 0x10;
    pub(super) const ATTR_LOCAL: u32 = 0x40;
    pub(super) const ATTR_EXTENTS: u32 = 0x80;
    pub(super) const ATTR_ROOT: u32 = 0x100;
    pub(super) const DATA: u32 = DATA_LOCAL | DATA_EXTENTS | DATA_ROOT;
    pub(super) const ATTRIBUTES: u32 = ATTR_LOCAL | ATTR_EXTENTS | ATTR_ROOT;
}

/// Widths of the numbers in a logged core from its start, whose order must be turned; 1 is a
/// run of single bytes that stay. The link to the next orphan is not among them: it is logged
/// with its buffer.
const CORE: [(usize, usize); 30] = [
    (0x00, 2), // magic
    (0x02, 2), // mode
    (0x04, 1), // version
    (0x05, 1), // format
    (0x06, 2), // onlink, or the kind of metadata
    (0x08, 4), // uid
    (0x0c, 4), // gid
    (0x10, 4), // nlink
    (0x14, 2), // projid_lo
    (0x16, 2), // projid_hi
    (0x38, 8), // size
    (0x40, 8), // nblocks
    (0x48, 4), // extsize
    (0x52, 1), // forkoff
    (0x53, 1), // aformat
    (0x54, 4), // dmevmask
    (0x58, 2), // dmstate
    (0x5a, 2), // flags
    (0x5c, 4), // gen
    (0x68, 8), // changecount
    (0x78, 8), // flags2
    (0x80, 4), // cowextsize
    (0x98, 8), // ino
    (0xa0, 1), // uuid
    (0xa4, 1),
    (0xa8, 1),
    (0xac, 1),
    (0x84, 1), // padding
    (0x88, 1),
    (0x8c, 1),
];

/// How a logged inode says where it stands.
struct Format {
    fields: u32,
    ino: u64,
    device: u32,
    address: u64,
    length: u32,
    offset: u32,
}

impl Format {
    /// 64-bit machines pad it, 32-bit ones do not.
    fn parse(bytes: &[u8]) -> Option<Format> {
        let shift = if bytes.len() >= 56 { 4usize } else { 0 };
        let at = |offset: usize| offset.saturating_add(shift);
        Some(Format {
            fields: u32_le(bytes, 4)?,
            ino: u64_le(bytes, at(12))?,
            device: u32_le(bytes, at(20))?,
            address: u64_le(bytes, at(36))?,
            length: u32_le(bytes, at(44))?,
            offset: u32_le(bytes, at(48))?,
        })
    }
}

/// Puts a logged inode over the one that is there, unless that is newer.
pub(super) fn apply(replay: &mut Replay<'_>, item: &Item, lsn: u64) -> Result<()> {
    let format = Format::parse(item.region(0))
        .ok_or_else(|| Error::corrupt(Problem::Truncated, "an inode item is cut off"))?;
    if replay.is_cancelled(format.address, format.length.into()) {
        replay.skipped = replay.skipped.saturating_add(1);
        return Ok(());
    }
    let place = || Place::new("logged inode").index(format.ino);
    let offset =
        format.address.checked_mul(512).and_then(|at| at.checked_add(format.offset.into()));
    let offset = offset.ok_or_else(|| bad("stands outside the disk").at(place()))?;
    let size = narrow(replay.superblock.inode_size).unwrap_or(256);
    let mut inode = replay.memory.read(offset, size).map_err(|error| error.at(place()))?;
    if u16_be(&inode, 0) != Some(INODE_MAGIC) {
        let error = Error::corrupt(Problem::BadMagic, "there is no inode where one was logged");
        return Err(error.at(place().byte(offset)));
    }
    if is_newer(replay, &inode, item.region(1), lsn) {
        replay.skipped = replay.skipped.saturating_add(1);
        return Ok(());
    }
    build(replay, &mut inode, item, &format, lsn).map_err(|error| error.at(place()))?;
    replay.memory.write(offset, &inode).map_err(|error| error.at(place()))
}

/// Whether the inode on disk is newer than the logged one.
fn is_newer(replay: &Replay<'_>, disk: &[u8], core: &[u8], lsn: u64) -> bool {
    const FLUSHES_MAX: u16 = u16::MAX;
    if replay.superblock.is_v5() {
        // Several transactions may share a number, so an equal one is not newer.
        let there = u64_be(disk, 0x70).unwrap_or(0);
        return there != 0 && there != u64::MAX && there > lsn;
    }
    // Older inodes count how often they were written; the counter wraps.
    if disk.get(4) == Some(&3) {
        return false;
    }
    let (logged, there) = (u16_le(core, 0x1e).unwrap_or(0), u16_be(disk, 0x1e).unwrap_or(0));
    logged < there && !(there == FLUSHES_MAX && logged < FLUSHES_MAX >> 1)
}

fn build(
    replay: &Replay<'_>,
    inode: &mut [u8],
    item: &Item,
    format: &Format,
    lsn: u64,
) -> Result<()> {
    let v3 = replay.superblock.is_v5();
    core(inode, item.region(1), v3, lsn)?;
    let start = if v3 { RawInodeV3::SIZE } else { 0x64 };
    let forkoff = inode.get(0x52).copied().map_or(0, usize::from).saturating_mul(8);
    let end = inode.len();
    let split = start.saturating_add(forkoff);
    if split > end {
        return Err(bad("has forks that leave it"));
    }
    let data = start..if forkoff == 0 { end } else { split };
    let header = block_header(replay.superblock);
    if format.fields & fields::DATA != 0 {
        let fork = inode.get_mut(data).unwrap_or(&mut []);
        let is_root = format.fields & fields::DATA_ROOT != 0;
        put_fork(fork, item.region(2), is_root, header)?;
    } else if format.fields & fields::DEVICE != 0
        && let Some(place) = inode.get_mut(start..start.saturating_add(4))
    {
        place.copy_from_slice(&format.device.to_be_bytes());
    }
    if format.fields & fields::ATTRIBUTES != 0 {
        let region = if format.fields & fields::DATA != 0 { 3 } else { 2 };
        let fork = if forkoff == 0 { None } else { inode.get_mut(split..end) };
        let fork = fork.ok_or_else(|| bad("has attributes but no room for them"))?;
        let is_root = format.fields & fields::ATTR_ROOT != 0;
        put_fork(fork, item.region(region), is_root, header)?;
    }
    if v3 {
        crc::update(inode, CRC_FIELD);
    }
    Ok(())
}

/// Turns a logged core into one as on disk.
fn core(inode: &mut [u8], logged: &[u8], v3: bool, lsn: u64) -> Result<()> {
    let needed = if v3 { RawInodeV3::SIZE } else { 0x60 };
    if logged.len() < needed || u16_le(logged, 0) != Some(INODE_MAGIC) {
        return Err(bad("has a core that is cut off"));
    }
    let mut turn = |at: usize, width: usize, step: usize| {
        let end = at.saturating_add(width);
        if let (Some(from), Some(to)) = (logged.get(at..end), inode.get_mut(at..end))
            && end <= needed
        {
            to.copy_from_slice(from);
            to.chunks_mut(step.max(1)).for_each(<[u8]>::reverse);
        }
    };
    for (at, width) in CORE {
        match width {
            1 if at >= 0x84 => turn(at, 4, 1),
            width => turn(at, width, width),
        }
    }
    let flags2 = if v3 { u64_le(logged, 0x78).unwrap_or(0) } else { 0 };
    let bigtime = flags2 & crate::layout::inode_flags2::BIGTIME != 0;
    for at in [0x20, 0x28, 0x30, 0x90] {
        turn(at, 8, if bigtime { 8 } else { 4 });
    }
    if flags2 & crate::layout::inode_flags2::NREXT64 != 0 {
        turn(0x18, 8, 8);
        turn(0x4c, 4, 4);
        turn(0x50, 2, 2);
    } else {
        turn(0x18, 6, 1);
        turn(0x4c, 4, 4);
        turn(0x50, 2, 2);
        // The counter of writes starts anew.
        if let Some(place) = inode.get_mut(0x1e..0x20) {
            place.fill(0);
        }
    }
    if let Some(place) = inode.get_mut(0x70..0x78).filter(|_| v3) {
        place.copy_from_slice(&lsn.to_be_bytes());
    }
    Ok(())
}

/// Puts a logged fork into its place; the root of a tree is logged in another shape.
fn put_fork(fork: &mut [u8], logged: &[u8], is_root: bool, header: usize) -> Result<()> {
    if !is_root {
        let place = fork.get_mut(..logged.len()).ok_or_else(|| bad("has a fork too long"))?;
        place.copy_from_slice(logged);
        return Ok(());
    }
    let cut = || bad("has the root of a tree that is cut off");
    let head = array::<4>(logged, 4).ok_or_else(cut)?;
    let [_, _, high, low] = head;
    let count = usize::from(u16::from_be_bytes([high, low]));
    let body = logged.get(header..).ok_or_else(cut)?;
    let (from, to) = (body.len() / 16, fork.len().saturating_sub(4) / 16);
    if count > from || count > to {
        return Err(bad("has the root of a tree too large for it"));
    }
    let length = count.saturating_mul(8);
    let mut copy = |at: usize, source: usize| {
        let to = fork.get_mut(at..at.saturating_add(length));
        let from = body.get(source..source.saturating_add(length));
        if let (Some(to), Some(from)) = (to, from) {
            to.copy_from_slice(from);
        }
    };
    copy(4, 0);
    copy(to.saturating_mul(8).saturating_add(4), from.saturating_mul(8));
    fork.get_mut(..4).ok_or_else(cut)?.copy_from_slice(&head);
    Ok(())
}

fn bad(what: &str) -> Error {
    Error::corrupt(Problem::BadValue, format!("the inode {what}"))
}
