//! POSIX ACLs: from the short form on disk to the one programs read.

use adit_core::bytes::{u16_le, u32_le};
use adit_core::{Error, Problem, Result};

const USER: u16 = 2;
const GROUP: u16 = 8;

/// The value of `system.posix_acl_*` as programs expect it: version 2, entries of eight bytes.
///
/// Errors: `Corrupt`.
pub(crate) fn decode(bytes: &[u8]) -> Result<Vec<u8>> {
    let bad = |what: String| Error::corrupt(Problem::BadValue, what);
    match u32_le(bytes, 0) {
        Some(1) => {}
        other => return Err(bad(format!("an ACL of version {other:?}"))),
    }
    let mut out = 2u32.to_le_bytes().to_vec();
    let mut at = 4usize;
    while at < bytes.len() {
        let entry = bytes.get(at..).unwrap_or(&[]);
        let (Some(tag), Some(permissions)) = (u16_le(entry, 0), u16_le(entry, 2)) else {
            return Err(bad("an ACL entry is cut off".into()));
        };
        let named = matches!(tag, USER | GROUP);
        let id = if named { u32_le(entry, 4) } else { Some(u32::MAX) };
        let id = id.ok_or_else(|| bad("an ACL entry is cut off".into()))?;
        out.extend(tag.to_le_bytes());
        out.extend(permissions.to_le_bytes());
        out.extend(id.to_le_bytes());
        at = at.saturating_add(if named { 8 } else { 4 });
    }
    Ok(out)
}
