//! A block device as the target: written in place, never cut, holes as zeros.

use crate::cache::Behind;
use crate::compare;
use crate::encode::Coding;
use crate::engine::{self, Work};
use crate::options::{ConvertOptions, Converted, Format};
use crate::plan::{Survey, Units};
use crate::resume::host_file;
use adit_core::{
    Disk, DiskExt, Error, Interrupt, Kind, LeafKind, Leaves, Place, Problem, Progress, Result,
    Slice, WritableDisk,
};
use adit_io::{ReadPolicy, Sharing, WritableFile};
use std::fs::{File, Metadata};
use std::ops::Range;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::sync::Arc;

/// Written last, and zeros until then: what is half-written does not look like a disk.
/// Unit: bytes.
const HEAD_BYTES: u64 = 1 << 20;
/// Zeros that are written without looking whether to stop. Unit: bytes.
const ZERO_BYTES_MAX: u64 = 16 << 20;

/// Whether the name leads to a block device.
pub(crate) fn is_device(target: &Path) -> bool {
    std::fs::metadata(target).is_ok_and(|found| found.file_type().is_block_device())
}

/// Writes the disk over the beginning of a device.
///
/// Errors: `Denied` without `overwrite`; `Invalid` for other formats than raw, or if the device
/// is too small or is what is read; `Busy` while it is in use; otherwise as
/// [`crate::convert`]. After a late error the device holds a part, and its beginning is zeros.
pub(crate) fn write(
    source: &Arc<dyn Disk>,
    locator: &str,
    target: &Path,
    options: &ConvertOptions,
    progress: &dyn Progress,
    interrupt: &Interrupt,
) -> Result<Converted> {
    let size = source.size_bytes();
    let name = target.display();
    let refuse = |kind, detail: String, advice: &str| {
        Err(Error::new(kind, Problem::Refused, detail).advise(advice))
    };
    if options.format != Format::Raw || options.resume {
        let detail = format!("{name} is a block device, which is written raw and in one go");
        return refuse(Kind::Invalid, detail, "convert to raw without resuming");
    }
    if !options.overwrite {
        let detail = format!("{name} is a block device, and all that it holds would be lost");
        return refuse(Kind::Denied, detail, "`--force` if that is meant");
    }
    let device = WritableFile::open(target, Sharing::Alone).map_err(in_use)?;
    let opened = metadata(&device)?.filter(|found| found.file_type().is_block_device());
    let Some(opened) = opened else {
        return refuse(Kind::Invalid, format!("{name} is no device any more"), "try again");
    };
    if device.size_bytes() < size {
        let detail = format!("{name} has {} bytes, and the disk {size}", device.size_bytes());
        return refuse(Kind::Invalid, detail, "choose a larger device");
    }
    let units = Units { unit: 64 << 10, grain: 64 << 10, block: 64 << 10, piece: 1 << 20 };
    let survey = Survey::of(source, units, interrupt)?;
    if reads_from(source, &opened, interrupt)? {
        return refuse(Kind::Invalid, format!("{name} is what is read"), "choose another device");
    }
    progress.total(survey.data_bytes.saturating_mul(if options.verify { 2 } else { 1 }));
    let data_bytes = survey.data_bytes;
    let behind = Behind::of(progress, options.cache, source, &device, data_bytes, interrupt)?;
    let progress: &dyn Progress = &behind;
    let work = Work {
        source,
        from: 0,
        units,
        coding: Coding::Plain,
        detect_zeroes: false,
        threads: options.threads.unwrap_or_else(crate::convert::processors).clamp(1, 256),
        sharing: None,
        interrupt,
    };
    let data_bytes = write_over(&work, &device, progress).map_err(|error| {
        error.advise_also("the device now holds a part of the disk; its beginning is zeros")
    })?;
    if options.verify {
        verify(source, &device, target, progress, interrupt)?;
    }
    behind.forget();
    Ok(Converted {
        virtual_bytes: size,
        data_bytes,
        file_bytes: size,
        source: locator.to_owned(),
        target: target.to_string_lossy().into_owned(),
        ..Converted::default()
    })
}

/// `--force` says that the device may be overwritten, not that it may be pulled from under others.
fn in_use(error: Error) -> Error {
    match error.kind() {
        Kind::Busy => Error::new(Kind::Busy, error.problem(), error.detail())
            .advise("end its use first: unmount it, or stop what holds it"),
        _ => error,
    }
}

fn metadata(disk: &dyn Disk) -> Result<Option<Metadata>> {
    let Some(file) = disk.as_file() else { return Ok(None) };
    let found = file.try_clone_to_owned().map(File::from).and_then(|file| file.metadata());
    found.map(Some).map_err(|why| Error::io(Problem::Unreadable, "looking at the device", &why))
}

/// Whether any byte of the source comes from the device.
fn reads_from(source: &Arc<dyn Disk>, device: &Metadata, interrupt: &Interrupt) -> Result<bool> {
    let (size, mut at) = (source.size_bytes(), 0);
    let mut leaves = Leaves::of(source);
    while at < size {
        interrupt.check()?;
        let leaf = leaves.at(at)?;
        if let LeafKind::Stored { disk, offset } = leaf.kind
            && let Some(file) = host_file(disk, offset)?
            && let Ok(file) = file.metadata()
            && file.file_type().is_block_device()
            && file.rdev() == device.rdev()
        {
            return Ok(true);
        }
        at += leaf.length.clamp(1, size - at);
    }
    Ok(false)
}

/// All of the source, its beginning last. The result is the data that were written.
fn write_over(work: &Work<'_>, to: &dyn WritableDisk, progress: &dyn Progress) -> Result<u64> {
    let size = work.source.size_bytes();
    let head = HEAD_BYTES.min(size);
    zero(to, 0..head, work.interrupt)?;
    to.flush()?;
    let data_bytes = engine::run(work, |buffers, back| {
        let (mut end, mut data_bytes) = (head, 0);
        for buffer in buffers {
            work.interrupt.check()?;
            let buffer = buffer?;
            for range in &buffer.ranges {
                data_bytes += range.end - range.start;
                let range = range.start.max(head)..range.end.max(head);
                if range.is_empty() {
                    continue;
                }
                zero(to, end..range.start, work.interrupt)?;
                to.write_at(&buffer.raw[buffer.place(&range)], range.start)?;
                end = range.end;
            }
            progress.advance(buffer.data_bytes());
            back.send(buffer).unwrap_or_default();
        }
        zero(to, end..size, work.interrupt)?;
        Ok(data_bytes)
    })?;
    to.flush()?;
    let mut first = vec![0; head as usize];
    work.source.read_at(&mut first, 0)?;
    to.write_at(&first, 0)?;
    to.flush()?;
    Ok(data_bytes)
}

fn zero(to: &dyn WritableDisk, range: Range<u64>, interrupt: &Interrupt) -> Result<()> {
    let mut at = range.start;
    while at < range.end {
        interrupt.check()?;
        let end = range.end.min(at.saturating_add(ZERO_BYTES_MAX));
        to.write_zeroes(at..end)?;
        at = end;
    }
    Ok(())
}

fn verify(
    source: &Arc<dyn Disk>,
    device: &WritableFile,
    target: &Path,
    progress: &dyn Progress,
    interrupt: &Interrupt,
) -> Result<()> {
    if let Some(file) = device.as_file() {
        // Only advice: where it is refused, the cache is what gets verified.
        let _ = rustix::fs::fadvise(file, 0, None, rustix::fs::Advice::DontNeed);
    }
    let whole = adit_io::open(target, &ReadPolicy::default())?;
    // What the device has beyond the disk is none of the disk's.
    let made = Slice::open(target.to_string_lossy(), whole, 0, source.size_bytes());
    match compare(source, &made, progress, interrupt)? {
        None => Ok(()),
        Some(at) => {
            let detail = "the device does not hold the source's bytes";
            Err(Error::corrupt(Problem::Mismatch, detail)
                .at(Place::new("device").byte(at))
                .advise("the device or the memory between is faulty; do not trust it"))
        }
    }
}
