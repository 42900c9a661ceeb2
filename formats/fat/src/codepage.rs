//! Code page 437, in which short names are written.

/// Characters of the bytes from 0x80 on.
///
/// Source: Unicode consortium, mapping table CP437.TXT.
const UPPER_HALF: &str = "ÇüéâäàåçêëèïîìÄÅÉæÆôöòûùÿÖÜ¢£¥₧ƒáíóúñÑªº¿⌐¬½¼¡«»░▒▓│┤╡╢╖╕╣║╗╝╜╛┐└┴┬├─┼╞╟╚╔╩╦╠═╬╧╨╤╥╙╘╒╓╫╪┘┌█▄▌▐▀αßΓπΣσµτΦΘΩδ∞φε∩≡±≥≤⌠⌡÷≈°∙·√ⁿ²■\u{a0}";

/// The character of a byte.
pub(crate) fn decode(byte: u8) -> char {
    match byte.checked_sub(0x80) {
        None => char::from(byte),
        Some(index) => UPPER_HALF.chars().nth(index.into()).unwrap_or('\u{fffd}'),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_upper_half_has_a_character_for_every_byte() {
        assert_eq!(super::UPPER_HALF.chars().count(), 128);
        assert_eq!(super::decode(0x81), 'ü');
        assert_eq!(super::decode(0xe1), 'ß');
        assert_eq!(super::decode(0xff), '\u{a0}');
        assert_eq!(super::decode(b'A'), 'A');
    }
}
