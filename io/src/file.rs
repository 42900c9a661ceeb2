//! A regular file or block device of the host as a [`Disk`].

use crate::place::{file_extent, open_error, unfit, unfit_error};
use crate::retry::{ReadPolicy, Reader};
use adit_core::{
    Disk, DiskExt, Error, Extent, ExtentKind, Geometry, Hop, Limits, Next, Place, Problem,
    ReadRequest, Result, read_each,
};
use rustix::fs::{Mode, OFlags, SeekFrom, fcntl_getfl, fcntl_setfl, seek};
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Opens a regular file or a block device, read-only.
///
/// Errors: `Invalid` for anything else (directory, FIFO, socket, character device) and for an
/// empty file; `NotFound`, `Denied`, `Busy`, `Io` as the system answers.
pub fn open(path: &Path, policy: &ReadPolicy) -> Result<Arc<dyn Disk>> {
    Ok(Arc::new(FileDisk::open(path, policy)?))
}

/// Reads a small file whole.
///
/// Errors: `Limit` if it holds more than `text_bytes_max`; otherwise as [`open`], except that an
/// empty file is fine.
pub fn read_text(path: &Path, limits: &Limits) -> Result<Vec<u8>> {
    let file = open_file(path)?;
    let most = limits.text_bytes_max;
    let mut text = Vec::new();
    file.take(most.saturating_add(1)).read_to_end(&mut text).map_err(|why| {
        Error::io(Problem::Unreadable, format!("reading {}", path.display()), &why)
    })?;
    if text.len() as u64 > most {
        return Err(Error::limit(
            "text_bytes_max",
            format!("{} is too large for a text file: more than {most} bytes", path.display()),
        ));
    }
    Ok(text)
}

/// A host file or block device, read through the page cache.
#[derive(Debug)]
pub struct FileDisk {
    file: File,
    path: PathBuf,
    is_device: bool,
    geometry: Geometry,
    policy: ReadPolicy,
}

impl FileDisk {
    /// Opens it; see [`open`].
    pub fn open(path: &Path, policy: &ReadPolicy) -> Result<FileDisk> {
        let file = open_file(path)?;
        let failed = |why| open_error(path, &why);
        let is_device = file.metadata().map_err(failed)?.file_type().is_block_device();
        // For devices the metadata say 0; the seek tells the truth for both.
        let size_bytes = seek(&file, SeekFrom::End(0)).map_err(|why| failed(why.into()))?;
        if size_bytes == 0 {
            let (what, advice) = if is_device {
                ("it has no size or no medium", "attach the medium, or name another device")
            } else {
                ("0 bytes", "an interrupted copy leaves such files; get the file again")
            };
            let detail = format!("{} is empty: {what}", path.display());
            return Err(Error::invalid(Problem::Truncated, detail).advise(advice));
        }
        let mut geometry = Geometry::of_size(size_bytes);
        if is_device {
            ask_device(&file, &mut geometry);
        }
        Ok(FileDisk { file, path: path.to_owned(), is_device, geometry, policy: policy.clone() })
    }

    /// The path it was opened by.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn layer(&self) -> String {
        let what = if self.is_device { "device" } else { "file" };
        format!("{what} {}", self.path.display())
    }
}

/// Opens for reading what [`unfit`] does not refuse.
fn open_file(path: &Path) -> Result<File> {
    let refuse = |kind| match unfit(kind) {
        Some(words) => Err(unfit_error(path, words)),
        None => Ok(()),
    };
    // Looked at before it is opened, because opening some devices has effects (tapes rewind).
    refuse(std::fs::metadata(path).map_err(|why| open_error(path, &why))?.file_type())?;
    // NONBLOCK, in case it became a FIFO since.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file: File = rustix::fs::open(path, flags, Mode::empty())
        .map_err(|why| open_error(path, &why.into()))?
        .into();
    refuse(file.metadata().map_err(|why| open_error(path, &why))?.file_type())?;
    let flags = fcntl_getfl(&file).map_err(|why| open_error(path, &why.into()))?;
    fcntl_setfl(&file, flags - OFlags::NONBLOCK).map_err(|why| open_error(path, &why.into()))?;
    Ok(file)
}

/// Sector and block size of a device; absurd answers are not believed.
pub(crate) fn ask_device(device: &File, geometry: &mut Geometry) {
    let sane = |size: &u32| size.is_power_of_two() && (512..=1 << 16).contains(size);
    if let Some(sector) = rustix::fs::ioctl_blksszget(device).ok().filter(sane) {
        geometry.sector_size_bytes = sector;
    }
    let sane = |size: &u32| size.is_power_of_two() && *size <= 1 << 24;
    if let Some(physical) = rustix::fs::ioctl_blkpbszget(device).ok().filter(sane) {
        geometry.io_size_bytes = geometry.io_size_bytes.max(physical);
    }
}

impl Disk for FileDisk {
    fn geometry(&self) -> Geometry {
        self.geometry
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let reader = Reader {
            source: &self.file,
            policy: &self.policy,
            sector_size_bytes: self.geometry.sector_size_bytes,
        };
        self.check_range(offset, buf.len() as u64)
            .and_then(|()| reader.read(buf, offset))
            .map_err(|error| error.in_layer(self.layer()))
    }

    fn read_batch(&self, batch: &mut [ReadRequest<'_>]) -> Result<()> {
        read_each(self, batch)
    }

    fn extent_at(&self, offset: u64) -> Result<Extent> {
        self.check_range(offset, 1).map_err(|error| error.in_layer(self.layer()))?;
        if self.is_device {
            let length = self.geometry.size_bytes - offset;
            return Ok(Extent { offset, length, kind: ExtentKind::Data });
        }
        file_extent(&self.file, self.geometry.size_bytes, offset)
    }

    fn as_file(&self) -> Option<BorrowedFd<'_>> {
        Some(self.file.as_fd())
    }

    fn explain(&self, offset: u64) -> Result<Hop> {
        let next = match self.extent_at(offset)?.kind {
            ExtentKind::Hole => Next::Zero,
            _ => Next::Here,
        };
        let place = Place::new("sector").index(offset / u64::from(self.geometry.sector_size_bytes));
        Ok(Hop { layer: self.layer(), offset, steps: vec![place.to_string()], next })
    }
}
