//! Names by pattern: `*`, `?`, `[a-z]`, `[!a-z]`, `\` before any of them.

use adit_core::{Error, Problem, Result};

/// A pattern that a whole name matches or not.
///
/// A character is one of UTF-8, or one byte that is none; `*` stands for any number of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Glob {
    parts: Vec<Part>,
    fold: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    One(u32),
    Any,
    Star,
    Set { negated: bool, ranges: Vec<(u32, u32)> },
}

impl Glob {
    /// Reads a pattern; `fold` makes it blind to upper and lower case.
    ///
    /// Errors: `Invalid` for a bracket that is never closed and a `\` at the end.
    pub fn parse(pattern: &[u8], fold: bool) -> Result<Glob> {
        let wrong = |why: &str| {
            let detail = format!("the pattern {:?} {why}", String::from_utf8_lossy(pattern));
            Error::invalid(Problem::BadValue, detail)
        };
        let code = units(pattern, fold);
        let is = |at: usize, c: char| code.get(at) == Some(&u32::from(c));
        let (mut parts, mut at) = (Vec::new(), 0);
        while let Some(&unit) = code.get(at) {
            at += 1;
            match char::from_u32(unit) {
                Some('*') if parts.last() == Some(&Part::Star) => {}
                Some('*') => parts.push(Part::Star),
                Some('?') => parts.push(Part::Any),
                Some('\\') => {
                    let next = code.get(at).ok_or_else(|| wrong("ends with a backslash"))?;
                    parts.push(Part::One(*next));
                    at += 1;
                }
                Some('[') => {
                    let negated = is(at, '!') || is(at, '^');
                    at += usize::from(negated);
                    let first = at;
                    let mut ranges = Vec::new();
                    // A bracket that stands first is one of the set.
                    while at == first || !is(at, ']') {
                        let low = *code.get(at).ok_or_else(|| wrong("has an open bracket"))?;
                        let range = is(at + 1, '-') && !is(at + 2, ']');
                        let high = if range { code.get(at + 2) } else { Some(&low) };
                        let high = *high.ok_or_else(|| wrong("has an open bracket"))?;
                        ranges.push((low, high));
                        at += if range { 3 } else { 1 };
                    }
                    at += 1;
                    parts.push(Part::Set { negated, ranges });
                }
                _ => parts.push(Part::One(unit)),
            }
        }
        Ok(Glob { parts, fold })
    }

    /// Whether the whole name matches. Takes at most name times pattern steps.
    pub fn matches(&self, name: &[u8]) -> bool {
        let name = units(name, self.fold);
        let (mut at, mut part) = (0, 0);
        // Where the last star stood, and how much it has swallowed.
        let mut star: Option<(usize, usize)> = None;
        while at < name.len() {
            match self.parts.get(part) {
                Some(Part::Star) => {
                    star = Some((part, at));
                    part += 1;
                }
                Some(one) if one.takes(name[at]) => {
                    at += 1;
                    part += 1;
                }
                _ => match &mut star {
                    Some((back, swallowed)) => {
                        *swallowed += 1;
                        at = *swallowed;
                        part = *back + 1;
                    }
                    None => return false,
                },
            }
        }
        self.parts[part..].iter().all(|part| *part == Part::Star)
    }
}

impl Part {
    fn takes(&self, unit: u32) -> bool {
        match self {
            Part::One(wanted) => *wanted == unit,
            Part::Any => true,
            Part::Star => false,
            Part::Set { negated, ranges } => {
                ranges.iter().any(|(low, high)| (*low..=*high).contains(&unit)) != *negated
            }
        }
    }
}

/// Characters by their number; bytes that are no UTF-8 by theirs, past all characters.
fn units(bytes: &[u8], fold: bool) -> Vec<u32> {
    const PAST_CHARACTERS: u32 = 0x0011_0000;
    let mut units = Vec::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match fold {
                true => units.extend(c.to_lowercase().map(u32::from)),
                false => units.push(u32::from(c)),
            }
        }
        units.extend(chunk.invalid().iter().map(|&byte| PAST_CHARACTERS + u32::from(byte)));
    }
    units
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, name: &str) -> bool {
        Glob::parse(pattern.as_bytes(), false).unwrap().matches(name.as_bytes())
    }

    #[test]
    fn patterns_mean_what_the_shell_means_by_them() {
        for (pattern, yes, no) in [
            ("*.log", "a.log", "a.log.1"),
            ("*", "", "-"),
            ("a*b*c", "aXbYbZc", "aXbYbZ"),
            ("?.txt", "é.txt", "ab.txt"),
            ("[a-c]x", "bx", "dx"),
            ("[!a-c]x", "dx", "bx"),
            ("[]x]", "]", "a"),
            ("[a-]", "-", "b"),
            ("\\*", "*", "a"),
            ("plain", "plain", "plain2"),
        ] {
            assert!(matches(pattern, yes), "{pattern} {yes}");
            assert!(pattern == "*" || !matches(pattern, no), "{pattern} {no}");
        }
    }

    #[test]
    fn bytes_that_are_no_text_are_characters_of_their_own() {
        let glob = Glob::parse(b"a?c", false).unwrap();
        assert!(glob.matches(b"a\xffc"));
        assert!(Glob::parse(b"a\xffc", false).unwrap().matches(b"a\xffc"));
        assert!(!glob.matches(b"a\xff\xffc"));
    }

    #[test]
    fn case_is_folded_on_request_and_a_bad_pattern_is_refused() {
        assert!(Glob::parse("*.ÄÖ".as_bytes(), true).unwrap().matches("x.äö".as_bytes()));
        assert!(!matches("*.LOG", "x.log"));
        for bad in ["[a", "[", "a\\", "[a-"] {
            assert!(Glob::parse(bad.as_bytes(), false).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_pattern_of_many_stars_does_not_take_forever() {
        let pattern = "*a".repeat(50) + "b";
        assert!(!matches(&pattern, &"a".repeat(5000)));
    }
}
