//! `|22` for `"`: what the values of a dictionary hide, and where they do not.

/// How bytes of the file form characters, as far as escapes depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bytes {
    /// Every `|` is a `|`.
    Single,
    /// A lead byte takes the next byte with it, which may look like `|`.
    Double {
        /// 0xa1–0xdf are characters of their own, as in Shift-JIS.
        half_width: bool,
    },
}

impl Bytes {
    /// What a declared encoding means for text that is not UTF-8.
    pub(crate) fn of_encoding(declared: &str) -> Bytes {
        let plain: String = declared
            .chars()
            .filter(char::is_ascii_alphanumeric)
            .map(|c| c.to_ascii_lowercase())
            .collect();
        match plain.as_str() {
            "shiftjis" | "sjis" | "windows31j" | "windows932" | "cp932" => {
                Bytes::Double { half_width: true }
            }
            "gbk" | "gb2312" | "gb18030" | "windows936" | "cp936" | "big5" | "windows950"
            | "cp950" | "euckr" | "windows949" | "cp949" => Bytes::Double { half_width: false },
            _ => Bytes::Single,
        }
    }

    fn leads(self, byte: u8) -> bool {
        match self {
            Bytes::Single => false,
            Bytes::Double { half_width: false } => (0x81..=0xfe).contains(&byte),
            Bytes::Double { half_width: true } => {
                (0x81..=0x9f).contains(&byte) || (0xe0..=0xfc).contains(&byte)
            }
        }
    }
}

/// Replaces every `|XX` by the byte it stands for; a `|` before anything else stays.
pub(crate) fn unescape(value: &[u8], form: Bytes) -> Vec<u8> {
    let mut plain = Vec::with_capacity(value.len());
    let mut rest = value;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte == b'|'
            && let Some((code, after)) = hex_pair(rest)
        {
            plain.push(code);
            rest = after;
            continue;
        }
        plain.push(byte);
        if form.leads(byte)
            && let Some((&trail, after)) = rest.split_first()
        {
            plain.push(trail);
            rest = after;
        }
    }
    plain
}

fn hex_pair(bytes: &[u8]) -> Option<(u8, &[u8])> {
    let (pair, after) = bytes.split_first_chunk::<2>()?;
    if !pair.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    let text = std::str::from_utf8(pair).ok()?;
    Some((u8::from_str_radix(text, 16).ok()?, after))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_escape_is_a_bar_and_two_hex_digits() {
        let plain = |value: &[u8]| unescape(value, Bytes::Single);
        assert_eq!(plain(b"a |22b|22 |7C |0a."), b"a \"b\" | \n.");
        assert_eq!(plain(b"a|b |2 |+1 |"), b"a|b |2 |+1 |");
    }

    #[test]
    fn the_second_byte_of_a_shift_jis_character_is_no_bar() {
        // KATAKANA POOPU is 83 7c in Shift-JIS; "22" after it is text.
        let form = Bytes::of_encoding("Shift_JIS");
        assert_eq!(unescape(b"\x83\x7c22|22", form), b"\x83\x7c22\"");
        // A half-width katakana leads nothing.
        assert_eq!(unescape(b"\xb1|22", form), b"\xb1\"");
        assert_eq!(unescape(b"\xb1|22", Bytes::of_encoding("GBK")), b"\xb1|22");
        assert_eq!(unescape(b"\xb1|22", Bytes::of_encoding("windows-1252")), b"\xb1\"");
    }
}
