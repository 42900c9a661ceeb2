//! The checksum of labels and metadata: CRC-32 that starts elsewhere and ends without inversion.

/// Start value of LVM's checksum.
const START: u32 = 0xf597_a6cf;

/// LVM's checksum of `bytes`.
///
/// Source: observed on labels and metadata areas made by LVM 2.03.
pub(crate) fn crc(parts: &[&[u8]]) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(!START);
    parts.iter().for_each(|part| hasher.update(part));
    !hasher.finalize()
}

/// The checksum of a block of device mapper metadata, its own field left out.
pub(crate) fn block_crc(block: &[u8], salt: u32) -> u32 {
    !crc32c::crc32c(block.get(4..).unwrap_or_default()) ^ salt
}
