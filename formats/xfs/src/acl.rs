//! POSIX ACLs: from the form on disk to the one programs read.

use adit_core::bytes::{index, u16_be, u32_be};
use adit_core::{Error, Problem, Result};

/// Length of an entry on disk.
const ENTRY: usize = 12;
const USER: u32 = 2;
const GROUP: u32 = 8;

/// The value of `system.posix_acl_*` as programs expect it: version 2, entries of eight bytes.
///
/// Errors: `Corrupt`.
pub(crate) fn decode(bytes: &[u8]) -> Result<Vec<u8>> {
    let cut = || Error::corrupt(Problem::Truncated, "an ACL is cut off");
    let count = index(u32_be(bytes, 0).ok_or_else(cut)?);
    let entries = bytes.get(4..).unwrap_or(&[]);
    if count > entries.len() / ENTRY {
        return Err(cut());
    }
    let mut out = 2u32.to_le_bytes().to_vec();
    for entry in entries.chunks_exact(ENTRY).take(count) {
        let tag = u32_be(entry, 0).ok_or_else(cut)?;
        let id = u32_be(entry, 4).ok_or_else(cut)?;
        let permissions = u16_be(entry, 8).ok_or_else(cut)?;
        let short = u16::try_from(tag).map_err(|_| {
            Error::corrupt(Problem::BadValue, format!("an ACL entry with tag {tag:#x}"))
        })?;
        out.extend(short.to_le_bytes());
        out.extend(permissions.to_le_bytes());
        out.extend(if matches!(tag, USER | GROUP) { id } else { u32::MAX }.to_le_bytes());
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_acl_becomes_what_programs_read() {
        let mut disk = vec![0, 0, 0, 2];
        disk.extend([0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff, 0, 6, 0, 0]);
        disk.extend([0, 0, 0, 2, 0, 0, 3, 0xe8, 0, 4, 0, 0]);
        let mut expected = vec![2, 0, 0, 0];
        expected.extend([1, 0, 6, 0, 0xff, 0xff, 0xff, 0xff]);
        expected.extend([2, 0, 4, 0, 0xe8, 3, 0, 0]);
        assert_eq!(decode(&disk).unwrap(), expected);
        assert!(decode(&disk[..20]).is_err());
        assert!(decode(&[0xff; 16]).is_err());
    }
}
