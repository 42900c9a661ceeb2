//! The images of a folder: which stands on which.

use crate::formats::recognise_image;
use crate::source::{Source, directory_of};
use crate::{Locator, Opener, Origin, images};
use adit_core::{Error, Problem, Result};
use std::path::{Path, PathBuf};

/// How many files of a folder are looked at.
const FILES_MAX: usize = 4096;

/// One image of a folder.
#[derive(Clone, Debug)]
pub struct Relative {
    /// Its file.
    pub path: PathBuf,
    /// The format's name in the table of formats.
    pub format: &'static str,
    /// Length of the file. Unit: bytes.
    pub file_bytes: u64,
    /// The file it stands on, as its headers say.
    pub parent: ParentState,
}

/// What became of an image's parent.
#[derive(Clone, Debug)]
pub enum ParentState {
    /// It has none.
    None,
    /// It is here.
    Found(PathBuf),
    /// It has one, and that was not found or is not the right one.
    Missing(Error),
}

impl Opener {
    /// The images directly in a folder, by name, with their parents. Raw files are not images
    /// here, but may be parents.
    ///
    /// Errors: `Io` where the folder cannot be read; `Limit` where it holds too many files.
    /// A file that cannot be read is left out: nobody said that it is an image.
    pub fn family(&self, folder: &Path) -> Result<Vec<Relative>> {
        let failed = |why| Error::io(Problem::Unreadable, folder.display().to_string(), &why);
        let mut paths = Vec::new();
        for entry in std::fs::read_dir(folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            if entry.file_type().is_ok_and(|kind| kind.is_file()) {
                paths.push(entry.path());
            }
            if paths.len() > FILES_MAX {
                let detail = format!("more than {FILES_MAX} files in {}", folder.display());
                return Err(Error::limit("files", detail));
            }
        }
        paths.sort();
        Ok(paths.iter().filter_map(|path| self.relative(path)).collect())
    }

    /// The images beside `path` that stand on it.
    pub fn children(&self, path: &Path) -> Result<Vec<PathBuf>> {
        let is_it = |found: &Path| same_file(found, path);
        let family = self.family(directory_of(path))?;
        let children = family.into_iter().filter(
            |relative| matches!(&relative.parent, ParentState::Found(parent) if is_it(parent)),
        );
        Ok(children.map(|relative| relative.path).collect())
    }

    fn relative(&self, path: &Path) -> Option<Relative> {
        let file = self.host_source(path).ok()?;
        let format = recognise_image(&file.disk).ok()??;
        let file_bytes = file.disk.geometry().size_bytes;
        let parent = match images::parent_of(self, file, format) {
            Ok(None) => ParentState::None,
            Ok(Some(Source { origin: Origin::Host(path), .. })) => ParentState::Found(path),
            Ok(Some(_)) => ParentState::None,
            Err(error) => ParentState::Missing(error),
        };
        Some(Relative { path: path.to_owned(), format: format.name, file_bytes, parent })
    }

    /// A host file as what may be an image.
    pub(crate) fn host_source(&self, path: &Path) -> Result<Source> {
        let disk = adit_io::open(path, &self.options().reads)?;
        let locator = Locator { host: path.to_path_buf(), steps: Vec::new() };
        Ok(Source { disk, origin: Origin::Host(path.to_path_buf()), locator })
    }
}

/// Whether two paths lead to one file.
pub(crate) fn same_file(a: &Path, b: &Path) -> bool {
    match (a.canonicalize(), b.canonicalize()) {
        (Ok(a), Ok(b)) => a == b,
        _ => false,
    }
}
