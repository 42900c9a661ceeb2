//! Reparse points: links, and files whose bytes another filter keeps.

use crate::layout::{dos, kind, record, record_flag, tag};
use crate::names::{to_bytes, units};
use crate::node::Node;
use crate::ntfs::Ntfs;
use crate::record::place;
use adit_core::bytes::{u16_le, u32_le};
use adit_core::{Error, NodeKind, Problem, Result};

/// Largest value Windows allows. Unit: bytes.
const REPARSE_BYTES_MAX: u64 = 16 << 10;

/// What a link of Interix, as ntfs-3g makes them, starts with.
const INTERIX_LINK: &[u8; 8] = b"IntxLNK\x01";

/// A reparse point.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reparse {
    /// Which filter it is for.
    pub tag: u32,
    /// What the filter keeps.
    pub data: Vec<u8>,
}

impl Reparse {
    /// Reads the value of `$REPARSE_POINT`.
    ///
    /// Errors: `Corrupt` where the data leaves the value.
    pub fn parse(value: &[u8]) -> Result<Reparse> {
        let short = || Error::corrupt(Problem::Truncated, "a reparse point is too short");
        let tag = u32_le(value, 0).ok_or_else(short)?;
        let length = usize::from(u16_le(value, 4).ok_or_else(short)?);
        // Tags that are not Microsoft's have a GUID first, which is not part of the length.
        let start = if tag & 0x8000_0000 == 0 { 24usize } else { 8 };
        let data = value.get(start..start.saturating_add(length)).ok_or_else(short)?;
        Ok(Reparse { tag, data: data.to_vec() })
    }

    /// What kind of node it makes of a file, if it does.
    pub fn kind(&self) -> Option<NodeKind> {
        match self.tag {
            tag::SYMLINK | tag::MOUNT_POINT | tag::LX_SYMLINK => Some(NodeKind::Symlink),
            tag::AF_UNIX => Some(NodeKind::Socket),
            tag::LX_FIFO => Some(NodeKind::Fifo),
            tag::LX_CHR => Some(NodeKind::CharDevice),
            tag::LX_BLK => Some(NodeKind::BlockDevice),
            _ => None,
        }
    }

    /// The target of a link, in Windows's own words: what is opened, and what is shown.
    ///
    /// Errors: `Corrupt` where a name leaves the data; `Invalid` for no link.
    pub fn names(&self) -> Result<(Vec<u16>, Vec<u16>)> {
        let names = match self.tag {
            tag::SYMLINK => 12usize,
            tag::MOUNT_POINT => 8,
            other => {
                let detail = format!("tag {other:#010x} is no link");
                return Err(Error::invalid(Problem::BadValue, detail));
            }
        };
        let part = |at: usize| {
            let start = usize::from(u16_le(&self.data, at)?).checked_add(names)?;
            let length = usize::from(u16_le(&self.data, at.checked_add(2)?)?);
            self.data.get(start..start.checked_add(length)?).map(units)
        };
        part(0).zip(part(4)).ok_or_else(|| {
            Error::corrupt(Problem::OutOfRange, "the target leaves the reparse point")
        })
    }

    /// The target of a link with `/` between its parts. Absolute ones start with `/` and the
    /// drive or volume: `/C:/Users`, `/Volume{…}/x`, `//server/share`; those relative to the
    /// volume's root with `/`.
    ///
    /// Errors: as `names`.
    pub fn target(&self) -> Result<Vec<u8>> {
        if self.tag == tag::LX_SYMLINK {
            // A version number, then UTF-8.
            let target = self.data.get(4..).unwrap_or_default();
            return Ok(target.to_vec());
        }
        let (opened, _) = self.names()?;
        let text: Vec<u8> = to_bytes(&opened)
            .into_iter()
            .map(|byte| if byte == b'\\' { b'/' } else { byte })
            .collect();
        let Some(rest) = text.strip_prefix(b"/??/").or_else(|| text.strip_prefix(b"//?/")) else {
            let drive = text.get(1) == Some(&b':');
            return Ok(if drive { [b"/", &text[..]].concat() } else { text });
        };
        Ok(match rest.strip_prefix(b"UNC/") {
            Some(share) => [b"//", share].concat(),
            None => [b"/", rest].concat(),
        })
    }
}

impl Ntfs {
    /// The reparse point of a file, if it has one.
    ///
    /// Errors: `Corrupt`.
    pub fn reparse(&self, node: &Node) -> Result<Option<Reparse>> {
        let value = self.value(node, kind::REPARSE_POINT, REPARSE_BYTES_MAX)?;
        let parsed = value.map(|value| Reparse::parse(&value)).transpose();
        parsed.map_err(|error| error.at(place(node.record.number).field("$REPARSE_POINT")))
    }

    /// What a file is.
    ///
    /// Errors: `Corrupt` where its reparse point cannot be read.
    pub(crate) fn kind(&self, node: &Node) -> Result<NodeKind> {
        let attributes = self.standard(node)?.map_or(0, |info| info.attributes);
        if attributes & dos::REPARSE_POINT != 0
            && let Some(kind) = self.reparse(node)?.and_then(|reparse| reparse.kind())
        {
            return Ok(kind);
        }
        let system = node.record.number < record::FIRST_USER
            || node.record.raw.flags & record_flag::EXTEND != 0;
        Ok(match node.record.is_directory() {
            true => NodeKind::Directory,
            false if system => NodeKind::System,
            false if attributes & dos::SYSTEM != 0 => {
                let interix = self.interix(node)?;
                interix.map_or(NodeKind::File, |(kind, _)| kind)
            }
            false => NodeKind::File,
        })
    }

    /// What a small system file of Interix stands for, and its whole data.
    fn interix(&self, node: &Node) -> Result<Option<(NodeKind, Vec<u8>)>> {
        let Some(data) = self.first(node, kind::DATA)? else { return Ok(None) };
        if !data.name.is_empty() || data.sizes().0 > REPARSE_BYTES_MAX {
            return Ok(None);
        }
        let Some(bytes) = self.value(node, kind::DATA, REPARSE_BYTES_MAX)? else { return Ok(None) };
        let kind = match bytes.get(..8) {
            Some(magic) if magic == INTERIX_LINK => NodeKind::Symlink,
            Some(b"IntxCHR\0") => NodeKind::CharDevice,
            Some(b"IntxBLK\0") => NodeKind::BlockDevice,
            _ => return Ok(None),
        };
        Ok(Some((kind, bytes)))
    }

    /// Where a link leads.
    ///
    /// Errors: `Invalid` for no link; `Corrupt`.
    pub(crate) fn link_target(&self, node: &Node) -> Result<Vec<u8>> {
        let number = node.record.number;
        let no_link = || {
            let detail = format!("MFT record {number} is no symbolic link");
            Error::invalid(Problem::BadValue, detail).at(place(number))
        };
        if let Some(reparse) = self.reparse(node)? {
            return match reparse.kind() {
                Some(NodeKind::Symlink) => reparse.target().map_err(|e| e.at(place(number))),
                _ => Err(no_link()),
            };
        }
        match self.interix(node)? {
            Some((NodeKind::Symlink, bytes)) => {
                Ok(to_bytes(&units(bytes.get(INTERIX_LINK.len()..).unwrap_or_default())))
            }
            _ => Err(no_link()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(tag: u32, target: &str) -> Reparse {
        let name: Vec<u8> = target.encode_utf16().flat_map(u16::to_le_bytes).collect();
        let length = u16::try_from(name.len()).unwrap().to_le_bytes();
        let mut data = [&[0, 0], &length[..], &length, &[0, 0]].concat();
        if tag == tag::SYMLINK {
            data.extend([1, 0, 0, 0]);
        }
        data.extend(name);
        let size = u16::try_from(data.len()).unwrap().to_le_bytes();
        let value = [&tag.to_le_bytes()[..], &size, &[0, 0], &data].concat();
        Reparse::parse(&value).unwrap()
    }

    #[test]
    fn targets_are_translated_to_slashes() {
        let cases = [
            (tag::SYMLINK, r"..\a\b", "../a/b"),
            (tag::SYMLINK, r"\??\C:\Users\x", "/C:/Users/x"),
            (tag::SYMLINK, r"\??\UNC\server\share", "//server/share"),
            (tag::SYMLINK, r"\top", "/top"),
            (tag::MOUNT_POINT, r"\??\C:\ProgramData", "/C:/ProgramData"),
            (tag::MOUNT_POINT, r"\??\Volume{1-2}\", "/Volume{1-2}/"),
        ];
        for (tag, windows, expected) in cases {
            assert_eq!(link(tag, windows).target().unwrap(), expected.as_bytes(), "{windows}");
        }
    }

    #[test]
    fn a_target_outside_its_reparse_point_is_corrupt() {
        let mut reparse = link(tag::SYMLINK, "a");
        reparse.data[2] = 200;
        assert_eq!(reparse.target().unwrap_err().problem(), Problem::OutOfRange);
        assert!(Reparse::parse(&[0x0c, 0, 0, 0xa0, 9, 0, 0, 0]).is_err());
    }
}
