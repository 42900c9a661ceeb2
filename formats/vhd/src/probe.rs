//! What a file is, from its first and last bytes.

use crate::footer::{Ends, Kind};

/// How many of the last bytes [`probe`] looks at. Unit: bytes.
pub const SUFFIX_BYTES: usize = 512;

/// What kind of VHD a file is, from its first and its last bytes, of each of which 512 are
/// enough; `None` if it is none.
///
/// A fixed disk is one only with a sound footer at its end that leaves room for the size it
/// gives; its first sector is the guest's and proves nothing. A damaged image with cookies but
/// without any sound footer is none either: opening it as VHD says what is wrong with it.
///
/// Units: `file_bytes` in bytes.
pub fn probe(prefix: &[u8], suffix: &[u8], file_bytes: u64) -> Option<Kind> {
    let tail = suffix.get(suffix.len().saturating_sub(512)..).unwrap_or(suffix);
    let front = prefix.get(..512).unwrap_or(prefix);
    let ends = Ends { front: front.to_vec(), tail: tail.to_vec(), file_bytes };
    if let Some(Ok(footer)) = ends.trailing() {
        let room = file_bytes.saturating_sub(footer.tail_bytes());
        if footer.kind != Kind::Fixed || footer.raw.current_size <= room {
            return Some(footer.kind);
        }
    }
    match ends.front() {
        Some(Ok(footer)) if footer.kind != Kind::Fixed => Some(footer.kind),
        _ => None,
    }
}

/// Whether a file without sound footer still bears the cookie of one, or that of an unfinished
/// resize: it is a damaged VHD rather than a raw disk.
pub fn is_damaged(prefix: &[u8], suffix: &[u8]) -> bool {
    use crate::layout::{COOKIE, COOKIE_POISONED};
    let marked = |bytes: &[u8]| bytes.starts_with(COOKIE) || bytes.starts_with(COOKIE_POISONED);
    let from_end = |count: usize| suffix.len().checked_sub(count).and_then(|at| suffix.get(at..));
    marked(prefix) || from_end(512).is_some_and(marked) || from_end(511).is_some_and(marked)
}
