//! Raw device mappings: files that stand for another device.

use crate::descriptor::FileDescriptor;
use crate::layout::ScsiIdRaw;
use adit_core::bytes::until_nul;
use adit_core::{Error, Place, Result};

/// The identity of a SCSI device as a mapping keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScsiId(pub ScsiIdRaw);

impl ScsiId {
    /// Reads the 78 bytes of an identity.
    pub fn read(bytes: &[u8]) -> Result<ScsiId> {
        ScsiIdRaw::read(bytes).map(ScsiId)
    }

    /// Vendor, trimmed; empty if not recorded.
    pub fn vendor(&self) -> String {
        text(&self.0.vendor)
    }

    /// Model, trimmed; empty if not recorded.
    pub fn model(&self) -> String {
        text(&self.0.model)
    }

    /// Revision, trimmed; empty if not recorded.
    pub fn revision(&self) -> String {
        text(&self.0.revision)
    }

    /// The used bytes of the identity.
    pub fn id(&self) -> &[u8] {
        self.0.id.get(..usize::from(self.0.id_length)).unwrap_or(&self.0.id)
    }

    /// The identity as text where it is text, else in hexadecimal.
    pub fn id_text(&self) -> String {
        let trimmed = until_nul(self.id());
        if !trimmed.is_empty() && trimmed.iter().all(|b| (0x20..0x7f).contains(b)) {
            return String::from_utf8_lossy(trimmed).trim().to_owned();
        }
        self.id_hex()
    }

    /// The identity in hexadecimal.
    pub fn id_hex(&self) -> String {
        self.id().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// Why a mapping cannot be opened, with everything that helps to find its device.
pub(crate) fn refuse(fd: &FileDescriptor) -> Error {
    let mut detail =
        format!("is a raw device mapping of {} bytes; its data is on another device", fd.length());
    if let Some(id) = fd.scsi_id() {
        let parts = [("vendor", id.vendor()), ("model", id.model()), ("id", id.id_text())];
        for (label, value) in parts.iter().filter(|(_, value)| !value.is_empty()) {
            detail.push_str(&format!(", {label} {value:?}"));
        }
        detail.push_str(&format!(", LUN {}", id.0.lun));
    }
    Error::unsupported(detail)
        .at(Place::new(format!("FD {}", fd.address)).byte(fd.offset))
        .advise("open the mapped device itself")
}

fn text(bytes: &[u8]) -> String {
    let shown = until_nul(bytes).iter().map(|b| if (0x20..0x7f).contains(b) { *b } else { b'?' });
    String::from_utf8_lossy(&shown.collect::<Vec<u8>>()).trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_adapter_path_is_shown_as_text_and_a_binary_id_in_hexadecimal() {
        let mut bytes = [0u8; 78];
        bytes[1] = 15;
        bytes[6..9].copy_from_slice(b"Sun");
        bytes[0x22..0x31].copy_from_slice(b"vmhba0:C0:T0:L0");
        let id = ScsiId::read(&bytes).unwrap();
        assert_eq!((id.vendor(), id.id_text()), ("Sun".into(), "vmhba0:C0:T0:L0".into()));
        bytes[0x22..0x25].copy_from_slice(&[2, 0, 0xff]);
        bytes[1] = 3;
        assert_eq!(ScsiId::read(&bytes).unwrap().id_text(), "0200ff");
    }
}
