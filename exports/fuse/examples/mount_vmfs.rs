//! Mounts a VMFS device (its partition, LVM included) until it is unmounted:
//! `mount_vmfs DEVICE DIR [DIRECT_IO_FROM_BYTES]`.

use adit_core::Limits;
use adit_fuse::{MountOptions, Source, mount};
use std::path::Path;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, device, dir, rest @ ..] = &arguments[..] else {
        return Err("usage: mount_vmfs DEVICE DIR [DIRECT_IO_FROM_BYTES]".into());
    };
    let limits = Limits::default();
    let disk = adit_io::open(Path::new(device), &adit_io::ReadPolicy::default())?;
    let member = adit_vmfs_lvm::Member::read(disk, device, &limits)?;
    let volume = adit_vmfs_lvm::assemble(vec![member], &limits)?;
    let fs = adit_vmfs::Vmfs::open(volume.disk, &limits)?;
    let mut options = MountOptions { source: device.clone(), ..MountOptions::default() };
    if let Some(bytes) = rest.first() {
        options.direct_io_from_bytes = bytes.parse()?;
    }
    let mounted = mount(Source::Files(fs), Path::new(dir), &options)?;
    mounted.wait()?;
    Ok(())
}
