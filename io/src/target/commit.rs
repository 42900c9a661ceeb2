//! How a partial file becomes the final one.

use super::{Finish, Overwrite, Target};
use crate::target::Keep;
use adit_core::{Error, Problem, Result};
use rustix::fs::{
    AtFlags, Mode, OFlags, RenameFlags, Timespec, Timestamps, fchmod, fsync, futimens, linkat,
    openat, renameat, renameat_with, unlinkat,
};
use rustix::io::Errno;
use std::fs::File;
use std::time::SystemTime;

impl Target {
    /// Gives the file its attributes and its final name, in one step.
    ///
    /// Errors: `Denied` if the name was taken meanwhile and may not be overwritten; `Io` if an
    /// earlier flush failed. If only the name is the trouble, the whole file stays under its
    /// partial name, which the error tells.
    pub fn commit(mut self, finish: Finish) -> Result<()> {
        self.settle(&finish).map_err(|error| error.in_layer(self.layer()))?;
        if let Err(error) = self.rename() {
            self.keep = Keep::ForResume;
            let kept = self.partial_path();
            let detail =
                format!("{}; the finished file is kept as {}", error.detail(), kept.display());
            return Err(Error::new(error.kind(), error.problem(), detail)
                .advise("rename the kept file yourself"));
        }
        self.committed = true;
        if finish.sync {
            self.sync_directory()?;
        }
        Ok(())
    }

    fn settle(&self, finish: &Finish) -> Result<()> {
        self.flushed_so_far()?;
        if let Some(mode) = finish.mode {
            // Attributes may come from an image; setuid must not.
            fchmod(&self.file, Mode::from_raw_mode(mode & 0o777))
                .map_err(|why| attribute_error("setting the permissions", why))?;
        }
        // Set after the last write, which would set it anew.
        if let Some(modified) = finish.modified {
            let times = Timestamps {
                last_access: timespec(modified),
                last_modification: timespec(modified),
            };
            futimens(&self.file, &times)
                .map_err(|why| attribute_error("setting the time of modification", why))?;
        }
        if finish.sync {
            self.sync(File::sync_all)?;
        }
        Ok(())
    }

    fn rename(&self) -> Result<()> {
        // What stands there may have changed since the start.
        self.names.check_destination(self.overwrite)?;
        let renamed = match self.overwrite {
            Overwrite::Replace => {
                renameat(&self.names.dir, &self.names.partial, &self.names.dir, &self.names.name)
            }
            Overwrite::Refuse => self.rename_if_free(),
        };
        renamed.map_err(|why| match why {
            Errno::EXIST => Error::new(
                adit_core::Kind::Denied,
                Problem::Refused,
                format!("{} appeared while the file was written", self.path().display()),
            ),
            _ => Error::io(
                Problem::Unwritable,
                format!("renaming {} to {}", self.partial_path().display(), self.path().display()),
                &why.into(),
            ),
        })
    }

    /// Renames without ever replacing, by the best means that the file system has.
    fn rename_if_free(&self) -> rustix::io::Result<()> {
        let (dir, from, to) = (&self.names.dir, &self.names.partial, &self.names.name);
        match renameat_with(dir, from, dir, to, RenameFlags::NOREPLACE) {
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {}
            answer => return answer,
        }
        match linkat(dir, from, dir, to, AtFlags::empty()) {
            Ok(()) => return unlinkat(dir, from, AtFlags::empty()),
            Err(Errno::PERM | Errno::NOSYS | Errno::OPNOTSUPP | Errno::MLINK) => {}
            Err(why) => return Err(why),
        }
        // No links either: claim the name with an empty file, then replace that.
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        drop(openat(dir, to, flags, Mode::from_raw_mode(0o600))?);
        renameat(dir, from, dir, to)
    }

    fn sync_directory(&self) -> Result<()> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        // A directory that may be written but not read cannot be synced; the name is there.
        let Ok(dir) = openat(&self.names.dir, ".", flags, Mode::empty()) else { return Ok(()) };
        match fsync(&dir) {
            // Some file systems do not sync directories.
            Ok(()) | Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP | Errno::ROFS) => Ok(()),
            Err(why) => {
                let detail = format!("making the name {} durable", self.path().display());
                Err(Error::io(Problem::Unwritable, detail, &why.into()))
            }
        }
    }
}

fn attribute_error(action: &str, why: Errno) -> Error {
    Error::io(Problem::Unwritable, action, &why.into())
}

/// Nanoseconds since 1970, before it too.
pub(super) fn timespec(time: SystemTime) -> Timespec {
    let seconds =
        |duration: std::time::Duration| i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
    match time.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(after) => Timespec { tv_sec: seconds(after), tv_nsec: after.subsec_nanos().into() },
        Err(before) => {
            let before = before.duration();
            let (tv_sec, nanos) = (-seconds(before), before.subsec_nanos());
            if nanos == 0 {
                Timespec { tv_sec, tv_nsec: 0 }
            } else {
                Timespec { tv_sec: tv_sec - 1, tv_nsec: (1_000_000_000 - nanos).into() }
            }
        }
    }
}
