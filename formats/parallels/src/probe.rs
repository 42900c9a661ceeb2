//! What a file is, from its first bytes.

use crate::Variant;
use crate::reader::ROOT;
use crate::xml::{Event, Xml};

/// What a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// One expanding image: [`crate::Image::open`].
    Image(Variant),
    /// The descriptor of a bundle: [`crate::Descriptor::parse`].
    Descriptor,
}

/// Recognises a file by its first bytes; 64 KiB are plenty. Plain images cannot be told from raw
/// disks, which is what they are.
pub fn probe(prefix: &[u8]) -> Option<Kind> {
    if let Some(variant) = Variant::of(prefix) {
        return Some(Kind::Image(variant));
    }
    let mut xml = Xml::new(prefix).ok()?;
    loop {
        match xml.next() {
            Ok(Some(Event::Open(name))) if name.eq_ignore_ascii_case(ROOT.as_bytes()) => {
                return Some(Kind::Descriptor);
            }
            Ok(Some(Event::Text(text))) if text.trim_ascii().is_empty() => {}
            _ => return None,
        }
    }
}
