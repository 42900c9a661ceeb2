//! How encrypted names are shown: recognisable, stable, and never a path.

const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
/// Encrypted bytes that are shown; a longer name is told apart by its inode.
const SHOWN_BYTES: usize = 150;

/// `encrypted-` and the encrypted bytes in base64url.
pub(crate) fn show(name: &[u8], inode: u32) -> String {
    let mut text = String::from("encrypted-");
    let head = name.get(..SHOWN_BYTES).unwrap_or(name);
    for three in head.chunks(3) {
        let byte = |at: usize| u32::from(three.get(at).copied().unwrap_or(0));
        let bits = (byte(0) << 16) | (byte(1) << 8) | byte(2);
        for shift in [18u32, 12, 6, 0].into_iter().take(three.len().saturating_add(1)) {
            let [low, ..] = (bits.checked_shr(shift).unwrap_or(0) & 63).to_le_bytes();
            let letter = LETTERS.get(usize::from(low)).copied().unwrap_or(b'A');
            text.push(char::from(letter));
        }
    }
    if head.len() < name.len() {
        text.push_str(&format!("~{inode}"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_shown_in_base64url_and_stays_short() {
        // RFC 4648, section 10.
        assert_eq!(show(b"foobar", 1), "encrypted-Zm9vYmFy");
        assert_eq!(show(b"foob", 1), "encrypted-Zm9vYg");
        assert_eq!(show(&[0xff, 0xff], 1), "encrypted-__8");
        assert!(show(&[7; 255], u32::MAX).len() <= 255);
    }
}
