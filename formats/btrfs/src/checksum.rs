//! The four checksums a btrfs may use.

use blake2::Digest as _;
use blake2::digest::consts::U32;

/// Which checksum a file system uses, for all its nodes and data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checksum {
    /// CRC-32C, four bytes.
    Crc32c,
    /// xxHash64, eight bytes.
    XxHash64,
    /// SHA-256, 32 bytes.
    Sha256,
    /// BLAKE2b with 32 bytes.
    Blake2b,
}

impl Checksum {
    /// By its number in the superblock.
    pub fn from_number(number: u16) -> Option<Checksum> {
        Some(match number {
            0 => Checksum::Crc32c,
            1 => Checksum::XxHash64,
            2 => Checksum::Sha256,
            3 => Checksum::Blake2b,
            _ => return None,
        })
    }

    /// Its name as mkfs.btrfs knows it.
    pub fn word(self) -> &'static str {
        match self {
            Checksum::Crc32c => "crc32c",
            Checksum::XxHash64 => "xxhash64",
            Checksum::Sha256 => "sha256",
            Checksum::Blake2b => "blake2b",
        }
    }

    /// Its length. Unit: bytes.
    pub fn length(self) -> usize {
        match self {
            Checksum::Crc32c => 4,
            Checksum::XxHash64 => 8,
            Checksum::Sha256 | Checksum::Blake2b => 32,
        }
    }

    /// Whether `sum`, at least as long as the checksum, is that of `bytes`.
    pub fn matches(self, bytes: &[u8], sum: &[u8]) -> bool {
        let sum = sum.get(..self.length());
        match self {
            Checksum::Crc32c => sum == Some(&crc32c::crc32c(bytes).to_le_bytes()),
            Checksum::XxHash64 => {
                sum == Some(&twox_hash::XxHash64::oneshot(0, bytes).to_le_bytes())
            }
            Checksum::Sha256 => {
                sum == Some(<sha2::Sha256 as sha2::Digest>::digest(bytes).as_slice())
            }
            Checksum::Blake2b => sum == Some(blake2::Blake2b::<U32>::digest(bytes).as_slice()),
        }
    }
}

/// The hash of a name, under which its directory keeps it.
pub(crate) fn name_hash(name: &[u8]) -> u64 {
    // The register starts at !1 and is not inverted at the end.
    u64::from(!crc32c::crc32c_append(1, name))
}

/// The hash of a name in a directory, under which its inode keeps it once it has many.
pub(crate) fn extref_hash(parent: u64, name: &[u8]) -> u64 {
    let low = u32::try_from(parent & 0xffff_ffff).unwrap_or(0);
    u64::from(!crc32c::crc32c_append(!low, name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksums_are_those_of_their_specifications() {
        let known = [
            (Checksum::Crc32c, "00000000"),
            (Checksum::XxHash64, "99e9d85137db46ef"),
            (Checksum::Sha256, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
            (Checksum::Blake2b, "0e5751c026e543b2e8ab2eb06099daa1d1e5df47778f7787faab45cdf12fe3a8"),
        ];
        for (kind, hex) in known {
            let byte = |i: usize| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).unwrap();
            let mut sum: Vec<u8> = (0..kind.length()).map(byte).collect();
            assert!(kind.matches(b"", &sum), "{}", kind.word());
            sum[0] ^= 1;
            assert!(!kind.matches(b"", &sum), "{}", kind.word());
        }
        assert!(Checksum::Crc32c.matches(b"123456789", &0xe306_9283u32.to_le_bytes()));
    }

    #[test]
    fn a_name_has_the_hash_its_directory_keeps_it_under() {
        // What mkfs.btrfs puts into the tree of roots.
        assert_eq!(name_hash(b"default"), 0x8dbf_c2d2);
    }
}
