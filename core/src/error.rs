//! One error for all layers: what kind, where, which problem, and the way up.

use std::borrow::Cow;
use std::fmt::{self, Write as _};
use std::sync::Arc;

/// The result of everything that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What a caller can do about it. Small and stable: exports map it to errno, NBD and HTTP codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// The operating system or the medium failed.
    Io,
    /// The bytes contradict the format.
    Corrupt,
    /// Valid, or possibly valid, but not understood by this version.
    Unsupported,
    /// There is nothing of that name.
    NotFound,
    /// Policy or permission forbids it.
    Denied,
    /// A write to something opened read-only.
    ReadOnly,
    /// A bound of [`crate::Limits`] was reached.
    Limit,
    /// Somebody else holds it.
    Busy,
    /// The request itself makes no sense.
    Invalid,
    /// The bytes existed but cannot be had: a missing member, a device cut short.
    Lost,
    /// The user asked to stop.
    Interrupted,
}

impl Kind {
    /// The stable lower-case word used in text and `--json`.
    pub fn word(self) -> &'static str {
        match self {
            Kind::Io => "io",
            Kind::Corrupt => "corrupt",
            Kind::Unsupported => "unsupported",
            Kind::NotFound => "not-found",
            Kind::Denied => "denied",
            Kind::ReadOnly => "read-only",
            Kind::Limit => "limit",
            Kind::Busy => "busy",
            Kind::Invalid => "invalid",
            Kind::Lost => "lost",
            Kind::Interrupted => "interrupted",
        }
    }
}

/// The closed vocabulary of problems, shared by all formats.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Problem {
    /// A signature is not what the format demands.
    BadMagic,
    /// A checksum does not match its data.
    BadChecksum,
    /// A field holds a value that the format does not allow.
    BadValue,
    /// A number points outside what it indexes.
    OutOfRange,
    /// A number is not a multiple of what it must be.
    Misaligned,
    /// The data ends before the structure does.
    Truncated,
    /// Two things claim the same place.
    Overlaps,
    /// A list or tree comes back to itself.
    Cycle,
    /// Two copies, or two sides of a link, disagree.
    Mismatch,
    /// Something that is named is not there.
    Missing,
    /// A read failed.
    Unreadable,
    /// More than a limit allows.
    TooMany,
    /// Several answers are possible.
    Ambiguous,
    /// A feature that is not implemented.
    NotSupported,
    /// Not allowed.
    Refused,
    /// A write that must not happen, or failed.
    Unwritable,
    /// Stopped on request.
    Stopped,
}

impl Problem {
    /// The stable lower-case word used in `--json`.
    pub fn word(self) -> &'static str {
        match self {
            Problem::BadMagic => "bad-magic",
            Problem::BadChecksum => "bad-checksum",
            Problem::BadValue => "bad-value",
            Problem::OutOfRange => "out-of-range",
            Problem::Misaligned => "misaligned",
            Problem::Truncated => "truncated",
            Problem::Overlaps => "overlaps",
            Problem::Cycle => "cycle",
            Problem::Mismatch => "mismatch",
            Problem::Missing => "missing",
            Problem::Unreadable => "unreadable",
            Problem::TooMany => "too-many",
            Problem::Ambiguous => "ambiguous",
            Problem::NotSupported => "not-supported",
            Problem::Refused => "refused",
            Problem::Unwritable => "unwritable",
            Problem::Stopped => "stopped",
        }
    }
}

/// Where in a structure something is. Every part but the structure is optional.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// The structure, in the format's own words: `"LVM header"`, `"grain table"`.
    pub structure: Cow<'static, str>,
    /// Which of several.
    pub index: Option<u64>,
    /// The field of the structure.
    pub field: Option<Cow<'static, str>>,
    /// Byte offset, relative to the layer that is named by the trail.
    pub byte: Option<u64>,
}

impl Place {
    /// A place known by its structure only.
    pub fn new(structure: impl Into<Cow<'static, str>>) -> Self {
        Place { structure: structure.into(), ..Place::default() }
    }

    /// Says which of several structures.
    pub fn index(mut self, index: u64) -> Self {
        self.index = Some(index);
        self
    }

    /// Says which field.
    pub fn field(mut self, field: impl Into<Cow<'static, str>>) -> Self {
        self.field = Some(field.into());
        self
    }

    /// Says at which byte of the layer.
    pub fn byte(mut self, offset: u64) -> Self {
        self.byte = Some(offset);
        self
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.structure)?;
        if let Some(index) = self.index {
            write!(f, " {index}")?;
        }
        if let Some(field) = &self.field {
            write!(f, ", {field}")?;
        }
        if let Some(byte) = self.byte {
            write!(f, " (byte {byte:#x})")?;
        }
        Ok(())
    }
}

/// What failed, where, why, and what to do next. Cheap to clone and to keep.
#[derive(Clone)]
pub struct Error(Arc<Inner>);

#[derive(Clone, Debug)]
struct Inner {
    kind: Kind,
    problem: Problem,
    place: Option<Place>,
    detail: String,
    advice: Option<String>,
    trail: Vec<String>,
    os_code: Option<i32>,
}

impl Error {
    /// An error from its three obligatory parts. `detail` is a clause without a final stop.
    pub fn new(kind: Kind, problem: Problem, detail: impl Into<String>) -> Self {
        Error(Arc::new(Inner {
            kind,
            problem,
            place: None,
            detail: detail.into(),
            advice: None,
            trail: Vec::new(),
            os_code: None,
        }))
    }

    /// The bytes contradict the format.
    pub fn corrupt(problem: Problem, detail: impl Into<String>) -> Self {
        Self::new(Kind::Corrupt, problem, detail)
    }

    /// Not understood by this version.
    pub fn unsupported(detail: impl Into<String>) -> Self {
        Self::new(Kind::Unsupported, Problem::NotSupported, detail)
    }

    /// Nothing of that name.
    pub fn not_found(detail: impl Into<String>) -> Self {
        Self::new(Kind::NotFound, Problem::Missing, detail)
    }

    /// The request makes no sense.
    pub fn invalid(problem: Problem, detail: impl Into<String>) -> Self {
        Self::new(Kind::Invalid, problem, detail)
    }

    /// A bound of `Limits` was reached; names it so that the user can raise it.
    pub fn limit(name: &'static str, detail: impl Into<String>) -> Self {
        Self::new(Kind::Limit, Problem::TooMany, detail)
            .advise(format!("`--limit {name}=N` raises the bound if you trust the image"))
    }

    /// Bytes that existed but cannot be had.
    pub fn lost(detail: impl Into<String>) -> Self {
        Self::new(Kind::Lost, Problem::Missing, detail)
    }

    /// Wraps an error of the operating system.
    pub fn io(problem: Problem, detail: impl Into<String>, source: &std::io::Error) -> Self {
        let kind = match source.kind() {
            std::io::ErrorKind::NotFound => Kind::NotFound,
            std::io::ErrorKind::PermissionDenied => Kind::Denied,
            std::io::ErrorKind::ResourceBusy => Kind::Busy,
            std::io::ErrorKind::ReadOnlyFilesystem => Kind::ReadOnly,
            _ => Kind::Io,
        };
        let mut error = Self::new(kind, problem, format!("{}: {source}", detail.into()));
        error.inner().os_code = source.raw_os_error();
        error
    }

    /// Says where. The innermost place wins: a later call does not replace it.
    pub fn at(mut self, place: Place) -> Self {
        let inner = self.inner();
        if inner.place.is_none() {
            inner.place = Some(place);
        }
        self
    }

    /// Says what to do next. The innermost advice wins.
    pub fn advise(mut self, advice: impl Into<String>) -> Self {
        let inner = self.inner();
        if inner.advice.is_none() {
            inner.advice = Some(advice.into());
        }
        self
    }

    /// Adds a second way out to the advice there is.
    pub fn advise_also(mut self, advice: impl Into<String>) -> Self {
        let inner = self.inner();
        inner.advice = Some(match inner.advice.take() {
            Some(first) => format!("{first}\n{}", advice.into()),
            None => advice.into(),
        });
        self
    }

    /// Adds the layer it passed on its way up.
    pub fn in_layer(mut self, layer: impl Into<String>) -> Self {
        let layer = layer.into();
        let inner = self.inner();
        if inner.trail.last() != Some(&layer) {
            inner.trail.push(layer);
        }
        self
    }

    /// What a caller can do about it.
    pub fn kind(&self) -> Kind {
        self.0.kind
    }

    /// Which of the shared problems.
    pub fn problem(&self) -> Problem {
        self.0.problem
    }

    /// Where, as far as known.
    pub fn place(&self) -> Option<&Place> {
        self.0.place.as_ref()
    }

    /// What was found, in words.
    pub fn detail(&self) -> &str {
        &self.0.detail
    }

    /// What to do next, as far as known.
    pub fn advice(&self) -> Option<&str> {
        self.0.advice.as_deref()
    }

    /// The layers it passed, innermost first.
    pub fn trail(&self) -> &[String] {
        &self.0.trail
    }

    /// The operating system's error number, if one was behind it.
    pub fn os_code(&self) -> Option<i32> {
        self.0.os_code
    }

    /// The text for a person: the action that failed, then `in`, `what`, `kind`, `try`.
    ///
    /// `action` completes "cannot …".
    pub fn report(&self, action: &str) -> String {
        let mut text = format!("error: cannot {action}\n");
        let mut line = |label: &str, value: &str| {
            let value = value.replace('\n', "\n        ");
            let _ = writeln!(text, "  {label:<5} {value}");
        };
        let mut place: Vec<String> = self.trail().iter().rev().cloned().collect();
        place.extend(self.place().map(Place::to_string));
        if !place.is_empty() {
            line("in", &place.join(" > "));
        }
        line("what", self.detail());
        line("kind", self.kind().word());
        if let Some(advice) = self.advice() {
            line("try", advice);
        }
        text
    }

    fn inner(&mut self) -> &mut Inner {
        Arc::make_mut(&mut self.0)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.detail())?;
        if let Some(place) = self.place() {
            write!(f, " [{place}]")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}: {self}", self.kind().word(), self.problem().word())?;
        if !self.trail().is_empty() {
            write!(f, " in {}", self.trail().join(" < "))?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_has_one_line_each_for_place_problem_kind_and_advice() {
        let error = Error::corrupt(Problem::OutOfRange, "names block 9 of 4")
            .at(Place::new("pointer block").index(17).field("entry 203").byte(0x8a4c))
            .in_layer("VMFS file /web01")
            .in_layer("lun.img//p1")
            .advise("`adit check lun.img` lists every bad pointer");
        assert_eq!(
            error.report("read lun.img//p1//web01"),
            "error: cannot read lun.img//p1//web01\n  \
             in    lun.img//p1 > VMFS file /web01 > pointer block 17, entry 203 (byte 0x8a4c)\n  \
             what  names block 9 of 4\n  \
             kind  corrupt\n  \
             try   `adit check lun.img` lists every bad pointer\n"
        );
    }

    #[test]
    fn the_innermost_place_and_advice_win() {
        let error = Error::unsupported("x")
            .at(Place::new("inner"))
            .at(Place::new("outer"))
            .advise("first")
            .advise("second");
        assert_eq!(error.place().unwrap().structure, "inner");
        assert_eq!(error.advice(), Some("first"));
    }

    #[test]
    fn a_missing_file_is_not_found_and_keeps_the_errno() {
        let os = std::io::Error::from_raw_os_error(2);
        let error = Error::io(Problem::Unreadable, "opening x", &os);
        assert_eq!((error.kind(), error.os_code()), (Kind::NotFound, Some(2)));
    }
}
