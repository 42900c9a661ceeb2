//! Small files of a tree: read whole, then made by names relative to their open folder.
//!
//! Everything that is not plain (losses, names that are taken, a full disk) is left to
//! [`crate::copy_file`], which knows what to do and what to say.

use crate::copy::Copied;
use crate::folder::{Folder, times_of};
use adit_core::{Disk, ExtentKind, Interrupt, Metadata};
use rustix::fd::OwnedFd;
use rustix::fs::{AtFlags, Mode, OFlags, RenameFlags};
use rustix::io::Errno;
use std::ffi::{CStr, OsStr};
use std::ops::Range;
use std::sync::Arc;

/// Files up to this length are small. Unit: bytes.
pub(crate) const SMALL_BYTES_MAX: u64 = 1 << 20;

/// What one thread needs again and again.
#[derive(Debug, Default)]
pub(crate) struct Small {
    bytes: Vec<u8>,
    data: Vec<Range<usize>>,
    /// Name of the file until it is whole: one a thread is enough.
    partial: Vec<u8>,
    /// The host has no means to rename without replacing.
    unable: bool,
}

impl Small {
    /// Copies one file, or leaves nothing behind and says so by `None`.
    pub(crate) fn copy(
        &mut self,
        disk: &Arc<dyn Disk>,
        metadata: &Metadata,
        (folder, name): (&Folder, &OsStr),
        interrupt: &Interrupt,
    ) -> Option<Copied> {
        if self.unable {
            return None;
        }
        let copied = self.read(disk, interrupt)?;
        if self.partial.is_empty() {
            let thread = std::thread::current().id();
            let name = format!(".adit-partial-{}-{thread:?}\0", std::process::id());
            self.partial = name.into_bytes();
        }
        let partial = CStr::from_bytes_with_nul(&self.partial).ok()?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&folder.fd, partial, flags, Mode::RUSR | Mode::WUSR).ok()?;
        let made = self.fill(&file, copied.size_bytes).and_then(|()| {
            // Attributes may come from an image; setuid must not.
            rustix::fs::fchmod(&file, Mode::from_raw_mode(metadata.mode & 0o777))?;
            if metadata.modified.is_some() {
                let mut times = times_of(metadata);
                times.last_access = times.last_modification;
                rustix::fs::futimens(&file, &times)?;
            }
            let only_new = RenameFlags::NOREPLACE;
            rustix::fs::renameat_with(&folder.fd, partial, &folder.fd, name, only_new)
        });
        match made {
            Ok(()) => Some(copied),
            Err(why) => {
                self.unable = matches!(why, Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP);
                let _ = rustix::fs::unlinkat(&folder.fd, partial, AtFlags::empty());
                None
            }
        }
    }

    /// Reads all data; holes stay holes.
    fn read(&mut self, disk: &Arc<dyn Disk>, interrupt: &Interrupt) -> Option<Copied> {
        let size_bytes = disk.geometry().size_bytes;
        let length = usize::try_from(size_bytes).ok().filter(|_| size_bytes <= SMALL_BYTES_MAX)?;
        let mut copied = Copied { size_bytes, ..Copied::default() };
        self.data.clear();
        if self.bytes.len() < length {
            self.bytes.resize(length.next_power_of_two(), 0);
        }
        // Only what the file itself calls a hole: asking every layer costs more than the copy.
        let mut at = 0;
        while at < size_bytes {
            let extent = disk.extent_at(at).ok()?;
            let end = extent.end().min(size_bytes);
            let range = usize::try_from(at).ok()?..usize::try_from(end).ok()?;
            match (extent.kind, self.data.last_mut()) {
                (kind, _) if kind.is_zero() => copied.hole_bytes += end - at,
                (ExtentKind::Lost(_), _) => return None,
                (_, Some(last)) if last.end == range.start => last.end = range.end,
                _ => self.data.push(range),
            }
            at = end.max(at.checked_add(1)?);
        }
        interrupt.check().ok()?;
        for range in &self.data {
            disk.read_at(self.bytes.get_mut(range.clone())?, range.start as u64).ok()?;
            copied.copied_bytes += range.len() as u64;
        }
        Some(copied)
    }

    fn fill(&self, file: &OwnedFd, size_bytes: u64) -> rustix::io::Result<()> {
        let mut end = 0;
        for range in &self.data {
            let (mut at, bytes) = (range.start, &self.bytes[..range.end]);
            while at < bytes.len() {
                match rustix::io::pwrite(file, &bytes[at..], at as u64) {
                    Ok(0) => return Err(Errno::NOSPC),
                    Ok(written) => at += written,
                    Err(Errno::INTR) => {}
                    Err(why) => return Err(why),
                }
            }
            end = range.end as u64;
        }
        if end < size_bytes {
            rustix::fs::ftruncate(file, size_bytes)?;
        }
        Ok(())
    }
}
