//! The new file, opened by the readers of this project.

use crate::options::Format;
use adit_core::{Disk, DiskExt, Error, Limits, Result};
use adit_io::ReadPolicy;
use std::path::Path;
use std::sync::Arc;

/// The disk in the new file; `extent` is the flat file of a descriptor.
pub(crate) fn reopen(format: Format, path: &Path, extent: Option<&Path>) -> Result<Arc<dyn Disk>> {
    let limits = Limits::default();
    let name = path.to_string_lossy();
    let file = adit_io::open(path, &ReadPolicy::default())?;
    let alone = |_: &adit_vmdk::Reference| Err(Error::not_found("the image is one file"));
    let extent = || match extent {
        Some(path) => adit_io::open(path, &ReadPolicy::default()),
        None => Err(Error::not_found("the file of the data")),
    };
    match format {
        Format::Raw => Ok(file),
        Format::Qcow2 => {
            let image = adit_qcow::Image::open(file, &limits)?;
            image.disk(&name, adit_qcow::Parts::default())
        }
        Format::VmdkSparse | Format::VmdkStream => {
            Ok(adit_vmdk::open_sparse(&name, file, &limits, &mut { alone })?.disk)
        }
        Format::VmdkFlat => {
            let text = file.read_prefix(0, 64 << 10)?;
            let descriptor = adit_vmdk::Descriptor::parse(&text, &limits)?;
            let extent = extent()?;
            let mut resolve = |_: &adit_vmdk::Reference| Ok(Arc::clone(&extent));
            Ok(adit_vmdk::open(&name, &descriptor, &mut resolve)?.disk)
        }
        Format::VhdDynamic | Format::VhdFixed => {
            adit_vhd::Image::open(file, &limits)?.disk(&name, None)
        }
        Format::Vhdx => adit_vhdx::Image::open(file, &limits)?.disk(&name, None),
        Format::Parallels => Ok(adit_parallels::Image::open(file, &limits)?.disk(&name, None)),
        Format::ParallelsPlain => {
            let text = file.read_prefix(0, 64 << 10)?;
            let descriptor = adit_parallels::Descriptor::parse(&text, &limits)?;
            let mut resolve = |_: &adit_parallels::Reference| extent();
            Ok(adit_parallels::open(&name, &descriptor, None, &mut resolve)?.disk)
        }
        Format::Vdi => adit_vdi::Image::open(file, &limits)?.disk(&name, None),
    }
}
