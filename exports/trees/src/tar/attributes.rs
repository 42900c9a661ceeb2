//! Extended attributes and access control lists as records.

use super::header::Records;
use adit_core::Xattr;
use adit_core::bytes::{u16_le, u32_le};

/// Adds a record for each attribute, as `star`, GNU tar and libarchive write them: ACLs as text
/// under `SCHILY.acl`, everything else as bytes under `SCHILY.xattr`.
pub(crate) fn put(records: &mut Records, xattrs: &[Xattr]) {
    for xattr in xattrs {
        let name = xattr.name.as_bytes();
        let acl = match name {
            b"system.posix_acl_access" => Some(&b"SCHILY.acl.access"[..]),
            b"system.posix_acl_default" => Some(&b"SCHILY.acl.default"[..]),
            _ => None,
        };
        match acl.and_then(|key| Some((key, acl_text(&xattr.value)?))) {
            Some((key, text)) => records.put(key, text.as_bytes()),
            None => records.put(&[b"SCHILY.xattr.", &escaped(name)[..]].concat(), &xattr.value),
        }
    }
}

/// `=` ends a key, so it is escaped, as GNU tar does.
fn escaped(name: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(name.len());
    for &byte in name {
        match byte {
            b'%' => out.extend_from_slice(b"%25"),
            b'=' => out.extend_from_slice(b"%3D"),
            _ => out.push(byte),
        }
    }
    out
}

/// The short text form of an ACL, numbers for names; nothing if it is no ACL of version 2.
///
/// Source: `acl(5)`; the entries are those of the kernel's `posix_acl_xattr.h` as documented there.
fn acl_text(value: &[u8]) -> Option<String> {
    let entries = value.get(4..).filter(|_| u32_le(value, 0) == Some(2))?;
    let mut parts = Vec::new();
    for entry in entries.chunks(8) {
        let (tag, bits, id) = (u16_le(entry, 0)?, u16_le(entry, 2)?, u32_le(entry, 4)?);
        let who = match tag {
            0x01 => "user:".to_owned(),
            0x02 => format!("user:{id}"),
            0x04 => "group:".to_owned(),
            0x08 => format!("group:{id}"),
            0x10 => "mask:".to_owned(),
            0x20 => "other:".to_owned(),
            _ => return None,
        };
        let bit = |mask: u16, letter| if bits & mask != 0 { letter } else { '-' };
        parts.push(format!("{who}:{}{}{}", bit(4, 'r'), bit(2, 'w'), bit(1, 'x')));
    }
    Some(parts.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_acl_is_the_text_that_setfacl_reads() {
        let mut value = 2u32.to_le_bytes().to_vec();
        for (tag, bits, id) in [
            (1u16, 6u16, u32::MAX),
            (2, 4, 1000),
            (4, 4, u32::MAX),
            (0x10, 4, u32::MAX),
            (0x20, 0, u32::MAX),
        ] {
            value.extend(tag.to_le_bytes());
            value.extend(bits.to_le_bytes());
            value.extend(id.to_le_bytes());
        }
        let text = acl_text(&value).unwrap();
        assert_eq!(text, "user::rw-,user:1000:r--,group::r--,mask::r--,other::---");
        assert_eq!(acl_text(&value[..11]), None);
        assert_eq!(acl_text(b"\x01\0\0\0"), None);
    }
}
