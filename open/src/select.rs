//! Which volume of a table a step means.

use adit_core::{Error, Problem, Result, Volume, VolumeTable};

/// `p2`, `label=EFI`, `uuid=…`; the bare name of a volume works too.
pub(crate) fn select_volume(table: &VolumeTable, step: &[u8]) -> Result<Option<Volume>> {
    let text = String::from_utf8_lossy(step);
    let (key, value) = text.split_once('=').unwrap_or(("name", &text));
    let matches = |volume: &&Volume| match key {
        "name" => volume.name == value,
        "label" => volume.label == value,
        "uuid" => !value.is_empty() && volume.uuid.eq_ignore_ascii_case(value),
        _ => false,
    };
    let mut found = table.volumes.iter().filter(matches);
    let first = found.next().cloned();
    let others: Vec<&str> = found.map(|volume| volume.name.as_str()).collect();
    if let (Some(first), false) = (&first, others.is_empty()) {
        let detail = format!("{text:?} means {} and {}", first.name, others.join(", "));
        return Err(Error::invalid(Problem::Ambiguous, detail).advise("name one of them"));
    }
    Ok(first)
}

/// The error for a step that names no volume.
pub(crate) fn no_such_volume(table: &VolumeTable, step: &[u8], choices: &[Volume]) -> Error {
    let step = String::from_utf8_lossy(step);
    let names =
        |volumes: &[Volume]| volumes.iter().map(|v| v.name.as_str()).collect::<Vec<_>>().join(", ");
    if choices.len() > 1 {
        let detail = format!("{step:?} could be in any of several volumes");
        return Error::invalid(Problem::Ambiguous, detail).advise(format!(
            "name the volume first; those with a file system: {}",
            names(choices)
        ));
    }
    let detail = format!("the {} has no volume {step:?}", table.format);
    Error::not_found(detail).advise(format!("its volumes: {}", names(&table.volumes)))
}
