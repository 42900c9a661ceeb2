//! Options as people give them: `key=value`, with the names `qemu-img` uses where it has them.

use adit_core::{Error, Problem, Result};
use std::collections::BTreeMap;

/// What was given, and what a format understands; the rest is refused at the end.
#[derive(Clone, Debug, Default)]
pub(crate) struct Choices {
    given: BTreeMap<String, String>,
    known: Vec<&'static str>,
}

impl Choices {
    /// Options from a command line.
    ///
    /// Errors: `Invalid` for text without `=`, and for a key given twice.
    pub fn parse(texts: &[String]) -> Result<Choices> {
        let mut given = BTreeMap::new();
        for text in texts.iter().flat_map(|text| text.split(',')).filter(|text| !text.is_empty()) {
            let Some((key, value)) = text.split_once('=') else {
                let detail = format!("{text:?} is no option");
                return Err(Error::invalid(Problem::BadValue, detail).advise("write KEY=VALUE"));
            };
            if given.insert(key.trim().to_owned(), value.trim().to_owned()).is_some() {
                let detail = format!("the option {key} is given twice");
                return Err(Error::invalid(Problem::Ambiguous, detail));
            }
        }
        Ok(Choices { given, known: Vec::new() })
    }

    /// The text of an option, if it was given.
    pub fn text(&mut self, key: &'static str) -> Option<String> {
        self.known.push(key);
        self.given.remove(key)
    }

    /// A number of bytes: `65536`, `64k`, `2M`.
    pub fn bytes(&mut self, key: &'static str) -> Result<Option<u64>> {
        self.text(key).map(|text| size(&text).ok_or_else(|| bad(key, &text, "a size"))).transpose()
    }

    /// A plain number.
    pub fn number(&mut self, key: &'static str) -> Result<Option<u64>> {
        self.text(key).map(|text| text.parse().map_err(|_| bad(key, &text, "a number"))).transpose()
    }

    /// `on` or `off`.
    pub fn switch(&mut self, key: &'static str) -> Result<Option<bool>> {
        self.text(key)
            .map(|text| match text.as_str() {
                "on" | "yes" | "true" => Ok(true),
                "off" | "no" | "false" => Ok(false),
                _ => Err(bad(key, &text, "on or off")),
            })
            .transpose()
    }

    /// One of some words.
    pub fn word<T: Copy>(&mut self, key: &'static str, words: &[(&str, T)]) -> Result<Option<T>> {
        let Some(text) = self.text(key) else { return Ok(None) };
        let found = words.iter().find(|(word, _)| word.eq_ignore_ascii_case(&text));
        let all = || words.iter().map(|(word, _)| *word).collect::<Vec<_>>().join(", ");
        found.map(|(_, value)| Some(*value)).ok_or_else(|| bad(key, &text, &all()))
    }

    /// Refuses what the format did not ask for.
    pub fn finish(self, format: &str) -> Result<()> {
        let Some(key) = self.given.keys().next() else { return Ok(()) };
        let detail = format!("{format} images have no option {key:?}");
        Err(Error::invalid(Problem::Missing, detail)
            .advise(format!("the options are: {}", self.known.join(", "))))
    }
}

fn bad(key: &str, value: &str, wanted: &str) -> Error {
    let detail = format!("{key}={value}: that is none of {wanted}");
    Error::invalid(Problem::BadValue, detail)
}

/// A size with an optional binary unit.
pub(crate) fn size(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = text.get(digits.len()..)?.to_ascii_lowercase();
    let shift = match unit.trim_end_matches("ib").trim_end_matches('b') {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        "p" => 50,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(1 << shift)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_binary_units() {
        assert_eq!(size("64k"), Some(65536));
        assert_eq!(size("2MiB"), Some(2 << 20));
        assert_eq!(size("8T"), Some(8 << 40));
        assert_eq!(size("512"), Some(512));
        assert_eq!(size("12x"), None);
        assert_eq!(size("99999999999T"), None);
    }

    #[test]
    fn an_option_nobody_asks_for_is_refused_with_those_there_are() {
        let mut choices = Choices::parse(&["cluster_size=64k,nonsense=1".into()]).unwrap();
        assert_eq!(choices.bytes("cluster_size").unwrap(), Some(65536));
        let error = choices.finish("qcow2").unwrap_err();
        assert!(error.advice().unwrap().contains("cluster_size"));
    }
}
