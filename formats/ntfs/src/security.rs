//! Who owns a file, and its ids in `$Secure`.

use crate::index::Entry;
use crate::layout::{StandardNewRaw, StandardRaw, kind, record};
use crate::names::moment;
use crate::node::Node;
use crate::ntfs::Ntfs;
use adit_core::bytes::{array, index, narrow, u32_le, u64_le};
use adit_core::{DiskExt, Error, Place, Problem, Result, Timestamp};

/// Largest security descriptor Windows keeps. Unit: bytes.
const DESCRIPTOR_BYTES_MAX: u64 = 64 << 10;

/// Header of an entry of `$SDS`: hash, id, offset, length.
const SDS_HEADER_BYTES: u64 = 20;

/// `$STANDARD_INFORMATION`, decoded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standard {
    /// Creation.
    pub created: Option<Timestamp>,
    /// Last change of the data.
    pub modified: Option<Timestamp>,
    /// Last change of the record.
    pub changed: Option<Timestamp>,
    /// Last read.
    pub accessed: Option<Timestamp>,
    /// DOS attributes.
    pub attributes: u32,
    /// Key in `$Secure`; from NTFS 3.0 on.
    pub security_id: Option<u32>,
    /// Last entry in the change journal; from NTFS 3.0 on. Unit: bytes.
    pub usn: Option<u64>,
}

impl Ntfs {
    /// Times and DOS attributes of a file.
    ///
    /// Errors: `Corrupt`.
    pub fn standard(&self, node: &Node) -> Result<Option<Standard>> {
        let Some(attribute) = self.first(node, kind::STANDARD_INFORMATION)? else {
            return Ok(None);
        };
        let value = attribute.value()?;
        let raw = StandardRaw::read(value).map_err(|error| error.at(attribute.place()))?;
        let new = StandardNewRaw::read(value).ok();
        Ok(Some(Standard {
            created: moment(raw.created),
            modified: moment(raw.modified),
            changed: moment(raw.changed),
            accessed: moment(raw.accessed),
            attributes: raw.attributes,
            security_id: new.as_ref().map(|new| new.security_id),
            usn: new.as_ref().map(|new| new.usn),
        }))
    }

    /// The security descriptor of a file, self-relative, as Windows keeps it.
    ///
    /// Errors: `Corrupt` where `$Secure` does not have it.
    pub fn security_descriptor(&self, node: &Node) -> Result<Option<Vec<u8>>> {
        if let Some(own) = self.value(node, kind::SECURITY_DESCRIPTOR, DESCRIPTOR_BYTES_MAX)? {
            return Ok(Some(own));
        }
        match self.standard(node)?.and_then(|standard| standard.security_id) {
            None | Some(0) => Ok(None),
            Some(id) => self.shared_descriptor(id).map(Some),
        }
    }

    fn shared_descriptor(&self, id: u32) -> Result<Vec<u8>> {
        let place = || Place::new("$Secure").field(format!("security id {id:#x}"));
        let missing =
            || Error::corrupt(Problem::Missing, "$Secure has no such descriptor").at(place());
        let secure = self.node(record::SECURE)?;
        let ids = self.index(&secure, "$SII")?;
        let order = |entry: &Entry<'_>| Ok(id.cmp(&u32_le(entry.key, 0).unwrap_or(u32::MAX)));
        let found = ids.find(self, order, |entry| {
            let data = entry.data().unwrap_or_default();
            Ok(u64_le(data, 8).zip(u32_le(data, 16)))
        })?;
        let (offset, length) = found.flatten().ok_or_else(missing)?;
        let length = u64::from(length);
        let body = length.checked_sub(SDS_HEADER_BYTES);
        let body = body.filter(|body| *body <= DESCRIPTOR_BYTES_MAX).ok_or_else(missing)?;
        let name: Vec<u16> = "$SDS".encode_utf16().collect();
        let stream = self.stream(&secure, kind::DATA, &name)?.ok_or_else(missing)?;
        let total = narrow(body.saturating_add(SDS_HEADER_BYTES)).unwrap_or(0);
        let bytes = self.disk(stream, "$SDS").read_prefix(offset, total)?;
        if u32_le(&bytes, 4) != Some(id) {
            let detail = format!("$SDS holds id {:#x} there", u32_le(&bytes, 4).unwrap_or(0));
            return Err(Error::corrupt(Problem::Mismatch, detail).at(place().byte(offset)));
        }
        Ok(bytes.get(narrow(SDS_HEADER_BYTES).unwrap_or(0)..).unwrap_or_default().to_vec())
    }
}

/// The owner of a self-relative security descriptor, as `S-1-5-…`.
pub(crate) fn owner(descriptor: &[u8]) -> Option<String> {
    sid_at(descriptor, 4)
}

/// Its group.
pub(crate) fn group(descriptor: &[u8]) -> Option<String> {
    sid_at(descriptor, 8)
}

fn sid_at(descriptor: &[u8], field: usize) -> Option<String> {
    let at = u32_le(descriptor, field).filter(|at| *at != 0)?;
    let sid = descriptor.get(index(at)..)?;
    let [revision, count, a, b, c, d, e, f] = array::<8>(sid, 0)?;
    if count > 15 {
        return None;
    }
    let authority = u64::from_be_bytes([0, 0, a, b, c, d, e, f]);
    let mut text = format!("S-{revision}-{authority}");
    for part in 0..usize::from(count) {
        let part = u32_le(sid, part.checked_mul(4)?.checked_add(8)?)?;
        text.push_str(&format!("-{part}"));
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sid_prints_as_windows_does() {
        let mut descriptor = vec![1, 0, 4, 0x80, 20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        descriptor.extend([1, 2, 0, 0, 0, 0, 0, 5, 32, 0, 0, 0, 0x20, 2, 0, 0]);
        assert_eq!(owner(&descriptor).as_deref(), Some("S-1-5-32-544"));
        assert_eq!(group(&descriptor), None);
        descriptor.truncate(30);
        assert_eq!(owner(&descriptor), None);
    }
}
