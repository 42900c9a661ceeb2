//! Little-endian numbers in byte buffers.

/// Copies `bytes` to `at`.
pub(crate) fn put(buf: &mut [u8], at: usize, bytes: &[u8]) {
    buf[at..at + bytes.len()].copy_from_slice(bytes);
}

pub(crate) fn put16(buf: &mut [u8], at: usize, value: u64) {
    put(buf, at, &(value as u16).to_le_bytes());
}

pub(crate) fn put32(buf: &mut [u8], at: usize, value: u64) {
    put(buf, at, &(value as u32).to_le_bytes());
}

pub(crate) fn put64(buf: &mut [u8], at: usize, value: u64) {
    put(buf, at, &value.to_le_bytes());
}

pub(crate) fn get16(buf: &[u8], at: usize) -> u64 {
    u64::from(u16::from_le_bytes(buf[at..at + 2].try_into().unwrap()))
}

pub(crate) fn get32(buf: &[u8], at: usize) -> u64 {
    u64::from(u32::from_le_bytes(buf[at..at + 4].try_into().unwrap()))
}

pub(crate) fn get64(buf: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(buf[at..at + 8].try_into().unwrap())
}
