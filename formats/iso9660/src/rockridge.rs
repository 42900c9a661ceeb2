//! Rock Ridge: what the system use entries say of a file.

use crate::record::both_u32;
use crate::susp::Entry;
use crate::time;
use adit_core::bytes::{array, u64_le};
use adit_core::{NodeKind, Timestamp};

/// What Rock Ridge says of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct RockRidge {
    /// Mode with its type, links, owner, group, serial number.
    pub attributes: Option<Attributes>,
    pub name: Option<Vec<u8>>,
    /// Target of a symbolic link, unless it is damaged.
    pub target: Option<Vec<u8>>,
    /// Numbers of a device.
    pub device: Option<(u32, u32)>,
    pub created: Option<Timestamp>,
    pub modified: Option<Timestamp>,
    pub accessed: Option<Timestamp>,
    pub changed: Option<Timestamp>,
    /// First block of a directory that was moved elsewhere.
    pub child: Option<u32>,
    /// First block of the directory above, of one that was moved.
    pub parent: Option<u32>,
    /// Belongs elsewhere in the tree.
    pub moved: bool,
    pub packed: Option<Packed>,
}

/// The attributes of Unix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Attributes {
    pub mode: u32,
    pub links: u32,
    pub uid: u32,
    pub gid: u32,
    pub serial: Option<u32>,
}

/// How a file is packed by zisofs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Packed {
    /// "pz" or "PZ".
    pub algorithm: [u8; 2],
    /// Unit: bytes.
    pub header_bytes: u64,
    pub block_shift: u8,
    /// Unpacked. Unit: bytes.
    pub size: u64,
}

impl RockRidge {
    /// Puts together what the entries say.
    pub(crate) fn of(entries: &[Entry]) -> RockRidge {
        let mut all = RockRidge::default();
        let mut link = Link::default();
        let mut name_goes_on = true;
        for entry in entries {
            let data = entry.data();
            match &entry.signature {
                b"PX" => all.attributes = attributes(data),
                b"PN" => all.device = device(data),
                b"NM" if name_goes_on => {
                    let flags = data.first().copied().unwrap_or(0);
                    // Bits 1 and 2 stand for `.` and `..`, which have records of their own.
                    if flags & 6 == 0 {
                        let name = all.name.get_or_insert_default();
                        name.extend_from_slice(data.get(1..).unwrap_or(&[]));
                    }
                    name_goes_on = flags & 1 != 0;
                }
                b"SL" => link.add(data),
                b"TF" => times(data, &mut all),
                b"CL" => all.child = both_u32(data, 0),
                b"PL" => all.parent = both_u32(data, 0),
                b"RE" => all.moved = true,
                b"ZF" => all.packed = packed(entry.version, data),
                _ => {}
            }
        }
        all.target = link.finish();
        all
    }

    /// What the mode says it is.
    pub(crate) fn kind(&self) -> Option<NodeKind> {
        Some(match self.attributes?.mode >> 12 & 0xf {
            0x1 => NodeKind::Fifo,
            0x2 => NodeKind::CharDevice,
            0x4 => NodeKind::Directory,
            0x6 => NodeKind::BlockDevice,
            0x8 => NodeKind::File,
            0xa => NodeKind::Symlink,
            0xc => NodeKind::Socket,
            _ => return None,
        })
    }
}

fn attributes(data: &[u8]) -> Option<Attributes> {
    Some(Attributes {
        mode: both_u32(data, 0)?,
        links: both_u32(data, 8)?,
        uid: both_u32(data, 16)?,
        gid: both_u32(data, 24)?,
        serial: both_u32(data, 32),
    })
}

/// Some tools put both numbers of a device into the second field, as Unix has always packed
/// them: eight bits of each below, more of the minor one above.
fn device(data: &[u8]) -> Option<(u32, u32)> {
    let (high, low) = (both_u32(data, 0)?, both_u32(data, 8)?);
    let split = ((low >> 8) & 0xfff, (low & 0xff) | ((low >> 12) & 0xf_ff00));
    Some(if high == 0 && low > 0xff { split } else { (high, low) })
}

/// Which moments there are, in this order, and how long each is.
fn times(data: &[u8], all: &mut RockRidge) {
    let Some((flags, mut rest)) = data.split_first() else { return };
    let length = if flags & 0x80 != 0 { 17 } else { 7 };
    for bit in 0..7u32 {
        if flags >> bit & 1 == 0 {
            continue;
        }
        let Some((bytes, after)) = rest.split_at_checked(length) else { return };
        rest = after;
        let moment = if length == 17 { time::long(bytes) } else { time::short(bytes) };
        match bit {
            0 => all.created = moment,
            1 => all.modified = moment,
            2 => all.accessed = moment,
            3 => all.changed = moment,
            _ => {}
        }
    }
}

fn packed(version: u8, data: &[u8]) -> Option<Packed> {
    let algorithm = array::<2>(data, 0)?;
    let (header, shift) = (*data.get(2)?, *data.get(3)?);
    let size = match (version, &algorithm) {
        (_, b"pz") => both_u32(data, 4)?.into(),
        _ => u64_le(data, 4)?,
    };
    let header_bytes = u64::from(header).saturating_mul(4);
    Some(Packed { algorithm, header_bytes, block_shift: shift, size })
}

/// The target of a symbolic link, part by part.
#[derive(Debug, Default)]
struct Link {
    target: Option<Vec<u8>>,
    /// The next part carries the last one on.
    joined: bool,
    /// More is to come in another entry.
    open: bool,
    /// A part leaves its entry, as some versions of genisoimage write it.
    damaged: bool,
}

impl Link {
    fn add(&mut self, data: &[u8]) {
        let target = self.target.get_or_insert_default();
        self.open = data.first().is_some_and(|flags| flags & 1 != 0);
        let mut rest = data.get(1..).unwrap_or(&[]);
        while let [flags, length, tail @ ..] = rest {
            let Some((content, after)) = tail.split_at_checked(usize::from(*length)) else {
                self.damaged = true;
                return;
            };
            rest = after;
            if !self.joined && !target.is_empty() && !target.ends_with(b"/") {
                target.push(b'/');
            }
            match flags & 0x0e {
                0x02 => target.extend_from_slice(b"."),
                0x04 => target.extend_from_slice(b".."),
                0x08 => {
                    target.clear();
                    target.push(b'/');
                }
                _ => target.extend_from_slice(content),
            }
            self.joined = flags & 1 != 0;
        }
    }

    fn finish(self) -> Option<Vec<u8>> {
        self.target.filter(|_| !self.damaged && !self.open)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(signature: &[u8; 2], data: &[u8]) -> Entry {
        let mut bytes = signature.to_vec();
        bytes.extend([data.len() as u8 + 4, 1]);
        bytes.extend_from_slice(data);
        Entry { signature: *signature, version: 1, bytes }
    }

    #[test]
    fn targets_and_names_are_joined_over_entries() {
        let entries = [
            entry(b"NM", b"\x01long-"),
            entry(b"NM", b"\x00name"),
            entry(b"SL", b"\x01\x08\x00\x00\x03usr\x01\x03loc"),
            entry(b"SL", b"\x00\x00\x02al\x04\x00\x00\x01x"),
        ];
        let all = RockRidge::of(&entries);
        assert_eq!(all.name.unwrap(), b"long-name");
        assert_eq!(all.target.unwrap(), b"/usr/local/../x");
    }

    #[test]
    fn a_target_with_a_part_that_leaves_its_entry_is_none() {
        assert_eq!(RockRidge::of(&[entry(b"SL", b"\x00\x00\x09usr")]).target, None);
        assert_eq!(RockRidge::of(&[entry(b"SL", b"\x01\x00\x03usr")]).target, None);
    }

    #[test]
    fn device_numbers_of_old_tools_are_split() {
        let both = |n: u32| [n.to_le_bytes(), n.to_be_bytes()].concat();
        let numbers = |high, low| {
            RockRidge::of(&[entry(b"PN", &[both(high), both(low)].concat())]).device.unwrap()
        };
        assert_eq!(numbers(8, 1), (8, 1));
        assert_eq!(numbers(0, 0x801), (8, 1));
        assert_eq!(numbers(0, 5), (0, 5));
        assert_eq!(numbers(0, 0x1111_2c70), (300, 70_000));
    }
}
