//! Images that are recognised and not read, so that nobody takes them for raw disks.

use super::Image;
use adit_core::{Disk, Error, Limits, Result};
use std::sync::Arc;

/// Refuses a QED image.
pub(crate) fn qed(_file: Arc<dyn Disk>, _limits: &Limits) -> Result<Box<dyn Image>> {
    Err(refused("a QED disk image").advise("`qemu-img convert` turns it into QCOW2"))
}

/// Refuses an ASIF image.
pub(crate) fn asif(_file: Arc<dyn Disk>, _limits: &Limits) -> Result<Box<dyn Image>> {
    Err(refused("an ASIF disk image (Apple sparse image)")
        .advise("`diskutil image create from` on a Mac turns it into a raw disk"))
}

fn refused(what: &str) -> Error {
    Error::unsupported(format!("it is {what}, which is not read"))
}
