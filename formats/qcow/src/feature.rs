//! Feature bits and their names.

use crate::layout::{FeatureName, incompatible};
use adit_core::bytes::until_nul;
use adit_core::{Error, Place, Result};

/// Refuses incompatible features that nobody here knows, by the names the image itself gives.
///
/// Errors: `Unsupported`, naming each bit.
pub(crate) fn check_incompatible(bits: u64, names: &[FeatureName]) -> Result<()> {
    let unknown = bits & !incompatible::KNOWN;
    if unknown == 0 {
        return Ok(());
    }
    let list: Vec<String> = (0..64u8)
        .filter(|&bit| unknown.wrapping_shr(u32::from(bit)) & 1 == 1)
        .map(|bit| name_of(bit, names))
        .collect();
    Err(Error::unsupported(format!("needs features that are not known: {}", list.join(", ")))
        .at(Place::new("QCOW2 header").field("incompatible_features").byte(0x48))
        .advise("a newer version may read it; or convert the image with the program that made it"))
}

fn name_of(bit: u8, names: &[FeatureName]) -> String {
    let named = names.iter().find(|name| name.kind == 0 && name.bit == bit);
    match named.map(|name| until_nul(&name.name)) {
        Some(text) if !text.is_empty() => {
            format!("bit {bit} ({:?})", String::from_utf8_lossy(text))
        }
        _ => format!("bit {bit}"),
    }
}
