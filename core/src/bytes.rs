//! Checked access to raw bytes, for tables that are not fixed structures.

/// Reads a little-endian u16, or nothing past the end.
pub fn u16_le(bytes: &[u8], offset: usize) -> Option<u16> {
    Some(u16::from_le_bytes(array(bytes, offset)?))
}

/// Reads a little-endian u32, or nothing past the end.
pub fn u32_le(bytes: &[u8], offset: usize) -> Option<u32> {
    Some(u32::from_le_bytes(array(bytes, offset)?))
}

/// Reads a little-endian u64, or nothing past the end.
pub fn u64_le(bytes: &[u8], offset: usize) -> Option<u64> {
    Some(u64::from_le_bytes(array(bytes, offset)?))
}

/// Reads a big-endian u16, or nothing past the end.
pub fn u16_be(bytes: &[u8], offset: usize) -> Option<u16> {
    Some(u16::from_be_bytes(array(bytes, offset)?))
}

/// Reads a big-endian u32, or nothing past the end.
pub fn u32_be(bytes: &[u8], offset: usize) -> Option<u32> {
    Some(u32::from_be_bytes(array(bytes, offset)?))
}

/// Reads a big-endian u64, or nothing past the end.
pub fn u64_be(bytes: &[u8], offset: usize) -> Option<u64> {
    Some(u64::from_be_bytes(array(bytes, offset)?))
}

/// Copies `N` bytes out, or nothing past the end.
pub fn array<const N: usize>(bytes: &[u8], offset: usize) -> Option<[u8; N]> {
    bytes.get(offset..offset.checked_add(N)?)?.try_into().ok()
}

/// The bytes before the first NUL, or all of them.
pub fn until_nul(bytes: &[u8]) -> &[u8] {
    bytes.split(|&b| b == 0).next().unwrap_or(bytes)
}

/// Whether every byte is zero.
pub fn all_zero(bytes: &[u8]) -> bool {
    // Whole chunks without an early exit let the compiler use vectors.
    let mut chunks = bytes.chunks_exact(256);
    chunks.by_ref().all(|chunk| chunk.iter().fold(0u8, |acc, &b| acc | b) == 0)
        && chunks.remainder().iter().all(|&b| b == 0)
}

/// `usize` to `u64`, which never loses anything on the platforms we support.
pub const fn wide(value: usize) -> u64 {
    value as u64
}

/// `u32` to `usize`, which never loses anything on the platforms we support.
pub const fn index(value: u32) -> usize {
    value as usize
}

/// `u64` to `usize`, or nothing where it would not fit.
pub fn narrow(value: u64) -> Option<usize> {
    usize::try_from(value).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_past_the_end_give_nothing() {
        assert_eq!(u32_le(&[1, 2, 3], 0), None);
        assert_eq!(u32_le(&[1, 0, 0, 0, 9], 0), Some(1));
        assert_eq!(u64_be(&[0, 0, 0, 0, 0, 0, 1, 2], 0), Some(258));
        assert_eq!(u16_le(&[0; 4], usize::MAX), None);
    }

    #[test]
    fn a_single_set_bit_anywhere_is_not_zero() {
        for at in [0, 1, 255, 256, 257, 511, 999] {
            let mut bytes = vec![0; 1000];
            assert!(all_zero(&bytes));
            bytes[at] = 0x80;
            assert!(!all_zero(&bytes), "byte {at}");
        }
    }
}
