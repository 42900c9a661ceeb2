//! What a caller can choose about a mount.

use std::num::NonZeroUsize;
use std::time::Duration;

/// Whom the mounted files belong to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// Whoever the file system says.
    Stored,
    /// Everything belongs to the one who mounts.
    MountingUser,
    /// Everything belongs to these.
    Fixed {
        /// User.
        uid: u32,
        /// Group.
        gid: u32,
    },
}

impl Owner {
    /// What to put in place of the stored owner, if anything.
    pub(crate) fn replacement(self) -> Option<(u32, u32)> {
        match self {
            Owner::Stored => None,
            Owner::MountingUser => {
                let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
                Some((uid.as_raw(), gid.as_raw()))
            }
            Owner::Fixed { uid, gid } => Some((uid, gid)),
        }
    }
}

/// How to mount. The defaults suit a source that does not change.
#[derive(Clone, Debug)]
pub struct MountOptions {
    /// What is mounted, as a person names it: the first column of `mount`, and
    /// `user.adit.source` of every file.
    pub source: String,
    /// Whom files belong to. Without an answer: as stored for root, otherwise the mounting user.
    pub owner: Option<Owner>,
    /// Let other users look as well; the kernel then checks permissions. Needs
    /// `user_allow_other` in `/etc/fuse.conf` unless root mounts.
    pub allow_other: bool,
    /// Let nothing be run from there.
    pub no_exec: bool,
    /// Show where files come from as `user.adit.*` attributes.
    pub provenance: bool,
    /// Files from this size on are read past the page cache: twice as fast for the large reads
    /// that copy disk images, slower for many small ones. Unit: bytes.
    pub direct_io_from_bytes: u64,
    /// Let the kernel read files by itself where one host file holds exactly their bytes.
    /// Takes effect with `CAP_SYS_ADMIN` only.
    pub passthrough: bool,
    /// How long the kernel may believe names and attributes. Shorten it for sources in use.
    pub believe_for: Duration,
    /// Threads that answer the kernel. Without an answer: one per processor, 2 to 8.
    pub threads: Option<NonZeroUsize>,
    /// Window of the kernel's read-ahead; takes effect for root only. Unit: bytes.
    pub read_ahead_bytes: u64,
    /// How long unmounting waits for reads of a source that hangs.
    pub unmount_patience: Duration,
}

impl Default for MountOptions {
    fn default() -> Self {
        MountOptions {
            source: "adit".to_owned(),
            owner: None,
            allow_other: false,
            no_exec: false,
            provenance: true,
            direct_io_from_bytes: 256 << 20,
            passthrough: true,
            believe_for: Duration::from_secs(365 * 86_400),
            threads: None,
            read_ahead_bytes: 1 << 20,
            unmount_patience: Duration::from_secs(5),
        }
    }
}

impl MountOptions {
    pub(crate) fn thread_count(&self) -> usize {
        let processors = || std::thread::available_parallelism().map_or(2, NonZeroUsize::get);
        self.threads.map_or_else(|| processors().clamp(2, 8), NonZeroUsize::get)
    }

    pub(crate) fn chosen_owner(&self) -> Option<(u32, u32)> {
        let root = rustix::process::geteuid().is_root();
        let default = if root { Owner::Stored } else { Owner::MountingUser };
        self.owner.unwrap_or(default).replacement()
    }
}
