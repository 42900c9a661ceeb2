//! The identities of snapshots and images.

use adit_core::bytes::array;
use std::fmt;

/// A GUID as the descriptor writes it, in order of its digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Guid([u8; 16]);

impl Guid {
    /// Nobody: the parent of an image without parent.
    pub const NULL: Guid = Guid([0; 16]);

    /// The topmost image where the descriptor names none.
    pub const TOP: Guid = Guid([
        0x5f, 0xba, 0xab, 0xe3, 0x69, 0x58, 0x40, 0xff, 0x92, 0xa7, 0x86, 0x0e, 0x32, 0x9a, 0xab,
        0x41,
    ]);

    /// The GUID of these bytes, in order of its digits.
    pub fn of(bytes: [u8; 16]) -> Guid {
        Guid(bytes)
    }

    /// Reads `{5fbaabe3-6958-40ff-92a7-860e329aab41}`, braces or not, in any case.
    pub fn parse(text: &[u8]) -> Option<Guid> {
        let text = text.trim_ascii();
        let text = match text.strip_prefix(b"{") {
            Some(rest) => rest.strip_suffix(b"}")?,
            None => text,
        };
        let text: [u8; 36] = array(text, 0).filter(|_| text.len() == 36)?;
        let mut digits = Vec::with_capacity(32);
        for (at, &byte) in text.iter().enumerate() {
            if matches!(at, 8 | 13 | 18 | 23) {
                if byte != b'-' {
                    return None;
                }
            } else {
                digits.push(u8::try_from(char::from(byte).to_digit(16)?).ok()?);
            }
        }
        let mut bytes = [0; 16];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            let [high, low] = pair else { return None };
            *byte = (high << 4) | low;
        }
        Some(Guid(bytes))
    }

    /// Whether it is nobody.
    pub fn is_null(self) -> bool {
        self == Guid::NULL
    }
}

impl fmt::Display for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{")?;
        for (at, byte) in self.0.iter().enumerate() {
            if matches!(at, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{byte:02x}")?;
        }
        f.write_str("}")
    }
}

impl fmt::Debug for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::Guid;

    #[test]
    fn a_guid_prints_as_it_was_written() {
        let text = "{5fbaabe3-6958-40ff-92a7-860e329aab41}";
        let guid = Guid::parse(b" {5FBAABE3-6958-40FF-92A7-860E329AAB41}\n").unwrap();
        assert_eq!((guid, guid.to_string().as_str()), (Guid::TOP, text));
        assert_eq!(Guid::parse(&text.as_bytes()[1..37]), Some(Guid::TOP));
    }

    #[test]
    fn text_that_is_no_guid_is_refused() {
        for text in [
            "",
            "{}",
            "{5fbaabe3-6958-40ff-92a7-860e329aab41",
            "5fbaabe3695840ff92a7860e329aab41",
            "{5fbaabe3-6958-40ff-92a7-860e329aab4g}",
            "{5fbaabe3-6958-40ff-92a7_860e329aab41}",
            "{5fbaabe3-6958-40ff-92a7-860e329aab410}",
        ] {
            assert_eq!(Guid::parse(text.as_bytes()), None, "{text}");
        }
    }
}
