//! A guest's file system, with what its format offers beside names and bytes.

use adit_core::{Check, Disk, FileSystem, Inspect, Limits, Result};
use std::fmt::{self, Debug};
use std::ops::Range;
use std::sync::Arc;

/// Takes the next allocated range. Units: bytes of the volume.
pub type EachRange<'a> = &'a mut dyn FnMut(Range<u64>) -> Result<()>;

/// A guest's file system.
#[derive(Clone)]
pub struct Guest {
    /// Names to nodes.
    pub fs: Arc<dyn FileSystem>,
    /// Verifies itself, if its format has that.
    pub check: Option<Arc<dyn Check>>,
    /// Shows its structures.
    pub inspect: Arc<dyn Inspect>,
    allocated: Arc<Allocated>,
}

type Allocated = dyn Fn(EachRange<'_>) -> Result<()> + Send + Sync;

impl Guest {
    /// Gives every range of the volume that is in use, in order, metadata included.
    ///
    /// Errors: those of reading its bitmaps; a range in doubt counts as used.
    pub fn allocated(&self, each: EachRange<'_>) -> Result<()> {
        (self.allocated)(each)
    }
}

impl Debug for Guest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.fs.fmt(f)
    }
}

/// A format of guests' file systems.
#[derive(Clone, Copy, Debug)]
pub(crate) struct GuestFormat {
    /// Whether a disk holds one.
    pub probe: fn(&Arc<dyn Disk>) -> Result<bool>,
    /// Opens it.
    pub open: fn(Arc<dyn Disk>, &Limits) -> Result<Guest>,
}

impl Guest {
    /// A btrfs, which several disks may hold.
    pub(crate) fn btrfs(fs: Arc<adit_btrfs::Btrfs>) -> Guest {
        let of = Arc::clone(&fs);
        let allocated: Arc<Allocated> = Arc::new(move |each| of.allocated(each));
        Guest { check: by_itself(&fs), inspect: fs.clone(), fs, allocated }
    }
}

macro_rules! guest {
    ($name:ident, $crate_name:ident :: $type:ident, $check:expr) => {
        pub(crate) const $name: GuestFormat = GuestFormat {
            probe: $crate_name::probe,
            open: |disk, limits| {
                let fs = $crate_name::$type::open(disk, limits)?;
                let of = Arc::clone(&fs);
                let allocated: Arc<Allocated> = Arc::new(move |each| of.allocated(each));
                Ok(Guest { check: $check(&fs), inspect: fs.clone(), fs, allocated })
            },
        };
    };
}

fn by_itself<F: Check + 'static>(fs: &Arc<F>) -> Option<Arc<dyn Check>> {
    Some(Arc::<F>::clone(fs))
}

guest!(APFS, adit_apfs::Apfs, by_itself);
guest!(EXT, adit_ext::Ext, by_itself);
guest!(FAT, adit_fat::Fat, by_itself);
guest!(ISO, adit_iso9660::Iso, by_itself);
guest!(NTFS, adit_ntfs::Ntfs, by_itself);
guest!(SQUASHFS, adit_squashfs::Squash, by_itself);
guest!(XFS, adit_xfs::Xfs, by_itself);
