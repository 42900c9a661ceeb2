//! How core's types look in serialised form.

use adit_core::{Error, Finding};
use serde::{Serialize, Serializer};

#[derive(Serialize)]
struct FindingForm<'a> {
    severity: &'static str,
    code: &'static str,
    place: Option<String>,
    text: &'a str,
    advice: Option<&'a str>,
}

#[derive(Serialize)]
struct ErrorForm<'a> {
    kind: &'static str,
    problem: &'static str,
    place: Option<String>,
    detail: &'a str,
    advice: Option<&'a str>,
    trail: &'a [String],
}

pub(crate) fn findings<S: Serializer>(
    findings: &[Finding],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(findings.iter().map(|finding| FindingForm {
        severity: finding.severity.word(),
        code: finding.code,
        place: finding.place.as_ref().map(ToString::to_string),
        text: &finding.text,
        advice: finding.advice.as_deref(),
    }))
}

pub(crate) fn errors<S: Serializer>(errors: &[Error], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(errors.iter().map(|error| ErrorForm {
        kind: error.kind().word(),
        problem: error.problem().word(),
        place: error.place().map(ToString::to_string),
        detail: error.detail(),
        advice: error.advice(),
        trail: error.trail(),
    }))
}
