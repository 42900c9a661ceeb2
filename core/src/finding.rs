//! Things worth saying that are not failures: notes on opening, results of `check`.

use crate::{Error, Place};
use std::fmt;

/// How much a finding matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// Good to know; nothing is wrong.
    Info,
    /// Not as it should be, but every byte is still right.
    Warning,
    /// Something is damaged or missing.
    Error,
}

impl Severity {
    /// The stable lower-case word used in text and `--json`.
    pub fn word(self) -> &'static str {
        match self {
            Severity::Info => "info",
            Severity::Warning => "warning",
            Severity::Error => "error",
        }
    }
}

/// One observation about an image, with a stable code, the place, and what to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// How much it matters.
    pub severity: Severity,
    /// Stable name, `format-topic` in lower case: `"gpt-backup-used"`.
    pub code: &'static str,
    /// Where it was seen.
    pub place: Option<Place>,
    /// What was seen, a clause without a final stop.
    pub text: String,
    /// What to do next.
    pub advice: Option<String>,
    /// The layers above the place, innermost first; filled by whoever opened them.
    pub trail: Vec<String>,
}

impl Finding {
    /// A finding from its obligatory parts.
    pub fn new(severity: Severity, code: &'static str, text: impl Into<String>) -> Self {
        Finding { severity, code, place: None, text: text.into(), advice: None, trail: Vec::new() }
    }

    /// Good to know.
    pub fn info(code: &'static str, text: impl Into<String>) -> Self {
        Self::new(Severity::Info, code, text)
    }

    /// Not as it should be, but every byte is still right.
    pub fn warning(code: &'static str, text: impl Into<String>) -> Self {
        Self::new(Severity::Warning, code, text)
    }

    /// Something is damaged or missing.
    pub fn error(code: &'static str, text: impl Into<String>) -> Self {
        Self::new(Severity::Error, code, text)
    }

    /// An error met while looking, turned into a finding.
    pub fn from_error(code: &'static str, error: &Error) -> Self {
        Finding {
            severity: Severity::Error,
            code,
            place: error.place().cloned(),
            text: error.detail().to_owned(),
            advice: error.advice().map(str::to_owned),
            trail: error.trail().to_vec(),
        }
    }

    /// Says where.
    pub fn at(mut self, place: Place) -> Self {
        self.place = Some(place);
        self
    }

    /// Says what to do next.
    pub fn advise(mut self, advice: impl Into<String>) -> Self {
        self.advice = Some(advice.into());
        self
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.severity.word())?;
        for layer in self.trail.iter().rev() {
            write!(f, "{layer} > ")?;
        }
        if let Some(place) = &self.place {
            write!(f, "{place}: ")?;
        }
        f.write_str(&self.text)?;
        if let Some(advice) = &self.advice {
            write!(f, "; {advice}")?;
        }
        write!(f, " [{}]", self.code)
    }
}
