//! Targets whose input is text: locators, settings, descriptors.

use adit_core::{Limits, MemoryDisk};
use adit_open::Locator;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

/// Splitting and joining a locator; the full form must come back as it was.
pub fn locator(data: &[u8]) {
    let text = OsStr::from_bytes(data);
    let locator = Locator::parse(text);
    let again = Locator::parse(&locator.to_os_string());
    assert_eq!(locator.to_os_string(), again.to_os_string());
    assert!(!locator.to_string().contains('\x1b'), "an escape reaches the terminal");
    let _ = locator.step(b"p1");
}

/// A `.vmx` file.
pub fn vmx(data: &[u8]) {
    if let Ok(vmx) = adit_vmx::Vmx::parse(data, &Limits::default()) {
        let _ = format!("{vmx:?}");
    }
}

/// A `.vmsd` file; its tree must be finite.
pub fn vmsd(data: &[u8]) {
    if let Ok(snapshots) = adit_vmx::Snapshots::parse(data, &Limits::default()) {
        assert!(snapshots.iter().count() <= data.len());
    }
}

/// A VMDK descriptor, opened over extents of one size.
pub fn vmdk(data: &[u8]) {
    let _ = adit_vmdk::probe(data);
    let Ok(descriptor) = adit_vmdk::Descriptor::parse(data, &Limits::default()) else { return };
    let _ = descriptor.references();
    let extent = MemoryDisk::open("extent", vec![7; 4096]);
    let opened = adit_vmdk::open("fuzz", &descriptor, &mut |_| Ok(extent.clone()));
    if let Ok(opened) = opened {
        crate::patched::walk_disk(&opened.disk, 200);
    }
}
