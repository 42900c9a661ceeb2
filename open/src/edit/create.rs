//! New images.

use super::choices::Choices;
use super::{Blueprint, EDITABLE};
use crate::Opener;
use crate::source::directory_of;
use adit_core::{Error, Finding, ImageFile, ParentRecord, Problem, Result};
use adit_io::WritableFile;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// An image to be made.
#[derive(Clone, Debug, Default)]
pub struct Blank {
    /// Its format, by its name in the table of formats, or `raw`.
    pub format: String,
    /// Length of its disk; that of its parent if nobody says. Unit: bytes.
    pub size_bytes: Option<u64>,
    /// The image it stands on.
    pub parent: Option<PathBuf>,
    /// Options, `key=value`, several in one text apart by commas.
    pub options: Vec<String>,
}

impl Opener {
    /// Makes a new, empty image; nothing is left behind if that fails.
    ///
    /// Errors: `Denied` where the name is taken; `Invalid` for what the format does not have.
    pub fn create(&self, path: &Path, blank: &Blank) -> Result<Vec<Finding>> {
        let mut choices = Choices::parse(&blank.options)?;
        let parent = blank.parent.as_ref().map(|parent| self.record(parent, path)).transpose()?;
        let size_bytes = blank.size_bytes.or(parent.as_ref().map(|it| it.size_bytes));
        let Some(size_bytes) = size_bytes else {
            return Err(Error::invalid(Problem::Missing, "nobody said how large the disk is")
                .advise("give a size, or a backing image to take it from"));
        };
        let notes = parent.iter().filter_map(apart).collect();
        let mut made: Vec<PathBuf> = Vec::new();
        let result = make(path, blank, size_bytes, parent, &mut choices, &mut made);
        if result.is_err() {
            for path in &made {
                let _ = std::fs::remove_file(path);
            }
        }
        result.map(|()| notes)
    }
}

fn make(
    path: &Path,
    blank: &Blank,
    size_bytes: u64,
    parent: Option<ParentRecord>,
    choices: &mut Choices,
    made: &mut Vec<PathBuf>,
) -> Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let format = blank.format.as_str();
    let mut create = |path: &Path| -> Result<Arc<dyn ImageFile>> {
        let file = WritableFile::create(path)?;
        made.push(path.to_owned());
        Ok(Arc::new(file))
    };
    if format == "raw" {
        choices.clone().finish(format)?;
        if parent.is_some() {
            return Err(Error::unsupported("a raw disk stands on nothing")
                .advise("choose qcow2, vhd, vhdx or vmdk"));
        }
        let file = create(path)?;
        file.set_size(size_bytes)?;
        return file.flush();
    }
    let Some(editable) = EDITABLE.iter().find(|it| it.names.contains(&format)) else {
        let names: Vec<&str> = EDITABLE.iter().map(|it| it.names[0]).collect();
        let detail = format!("{format:?} is no format that is made here");
        return Err(Error::invalid(Problem::BadValue, detail)
            .advise(format!("the formats are: raw, {}", names.join(", "))));
    };
    let file = create(path)?;
    let folder = directory_of(path).to_owned();
    let mut beside = |name: &str| create(&folder.join(name));
    let mut blueprint = Blueprint { file, name, size_bytes, parent, choices, beside: &mut beside };
    (editable.create)(&mut blueprint)?;
    choices.clone().finish(format)
}

/// A parent in another folder is not opened on its child's word alone.
fn apart(parent: &ParentRecord) -> Option<Finding> {
    parent.name.contains(&b'/').then(|| {
        let text = "the parent lies in another folder, where images may not lead by themselves";
        Finding::info("parent-apart", text).advise("open it with `--parent PLACE`")
    })
}
