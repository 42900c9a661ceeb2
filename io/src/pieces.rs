//! How split programs number their pieces.

/// Shortest run of digits that counts as a piece number; `.1` and `.01` are versions too often.
const DIGITS_MIN: usize = 3;
/// Longest suffix looked at.
const WIDTH_MAX: usize = 8;
/// `split` without `-a` numbers `aa`..`yz`, then goes on with `zaaa`.
const GROWS_AT: u64 = 25 * 26;

/// One way to number pieces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scheme {
    /// Decimal, padded with zeros to this width, growing past it (`.999`, `.1000`).
    Digits(usize),
    /// `aa`, `ab`, …, all of this width.
    Letters(usize),
    /// `aa` … `yz`, `zaaa` … `zyzz`.
    GrowingLetters,
}

impl Scheme {
    /// Every scheme in which `suffix` is the number of a piece, the likeliest first.
    pub(crate) fn of(suffix: &str) -> Vec<Scheme> {
        let width = suffix.len();
        let widths = (DIGITS_MIN..=width.min(WIDTH_MAX)).rev().map(Scheme::Digits);
        widths
            .chain([Scheme::Letters(width), Scheme::GrowingLetters])
            .filter(|scheme| scheme.number(suffix).is_some())
            .collect()
    }

    /// The number that `suffix` stands for.
    pub(crate) fn number(self, suffix: &str) -> Option<u64> {
        let width = suffix.len();
        match self {
            _ if width > WIDTH_MAX => None,
            Scheme::Digits(least) => {
                let digits = suffix.bytes().all(|byte| byte.is_ascii_digit());
                let padded = width == least || (width > least && !suffix.starts_with('0'));
                (digits && padded).then(|| suffix.parse().ok()).flatten()
            }
            Scheme::Letters(exact) => (width == exact && width >= 2).then(|| base26(suffix))?,
            Scheme::GrowingLetters => match (width, suffix.strip_prefix('z')) {
                (2, None) => base26(suffix),
                (4, Some(rest)) if !rest.starts_with('z') => Some(GROWS_AT + base26(rest)?),
                _ => None,
            },
        }
    }

    /// The suffix of piece `number`.
    pub(crate) fn suffix(self, number: u64) -> String {
        match self {
            Scheme::Digits(width) => format!("{number:0width$}"),
            Scheme::Letters(width) => letters(number, width),
            Scheme::GrowingLetters if number < GROWS_AT => letters(number, 2),
            Scheme::GrowingLetters => format!("z{}", letters(number - GROWS_AT, 3)),
        }
    }
}

fn base26(text: &str) -> Option<u64> {
    text.bytes().try_fold(0, |number: u64, byte| {
        let digit = byte.is_ascii_lowercase().then(|| u64::from(byte - b'a'))?;
        number.checked_mul(26)?.checked_add(digit)
    })
}

fn letters(mut number: u64, width: usize) -> String {
    let mut text = vec!['a'; width];
    for place in text.iter_mut().rev() {
        *place = char::from(b'a' + (number % 26) as u8);
        number /= 26;
    }
    text.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suffixes_mean_what_the_split_programs_mean() {
        let digits = Scheme::Digits(3);
        assert_eq!(
            (digits.number("007"), digits.number("1000"), digits.number("0007")),
            (Some(7), Some(1000), None)
        );
        let grown = Scheme::GrowingLetters;
        assert_eq!(
            (grown.number("yz"), grown.number("zaaa"), grown.number("za"), grown.number("zzaa")),
            (Some(649), Some(650), None, None)
        );
        assert_eq!(Scheme::Letters(2).number("zz"), Some(675));
    }

    #[test]
    fn a_number_and_its_suffix_belong_together() {
        for scheme in
            [Scheme::Digits(3), Scheme::Digits(5), Scheme::Letters(3), Scheme::GrowingLetters]
        {
            for number in [0, 1, 25, 26, 649, 650, 675, 676, 999, 1000, 9999] {
                assert_eq!(scheme.number(&scheme.suffix(number)), Some(number), "{scheme:?}");
            }
        }
    }

    #[test]
    fn versions_and_extensions_of_one_letter_are_no_pieces() {
        for suffix in ["1", "01", "a", "AA", "vmdk1", "0x1", "123456789", ""] {
            assert!(Scheme::of(suffix).is_empty(), "{suffix}");
        }
    }
}
