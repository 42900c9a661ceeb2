//! How a new child names its parent.

use super::{EDITABLE, family::same_file};
use crate::formats::recognise_image;
use crate::source::directory_of;
use crate::{At, Opener};
use adit_core::{DiskExt, Error, ParentRecord, Problem, Result};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

impl Opener {
    /// What an image in `child`'s folder records of its parent `path`: a name relative to that
    /// folder, its format and identity, and its disk's length.
    ///
    /// Errors: those of opening the parent; `Invalid` where it is the child itself.
    pub fn record(&self, path: &Path, child: &Path) -> Result<ParentRecord> {
        if same_file(path, child) {
            let detail = format!("{} cannot stand on itself", child.display());
            return Err(Error::invalid(Problem::Cycle, detail));
        }
        let source = self.host_source(path)?;
        let format = if self.options().raw { None } else { recognise_image(&source.disk)? };
        let (format, identity, size_bytes) = match format {
            None => ("raw", Vec::new(), source.disk.size_bytes()),
            Some(format) => {
                let editable = EDITABLE.iter().find(|it| it.names.contains(&format.name));
                let identity = editable
                    .map(|it| (it.identity)(source.disk, &self.options().limits))
                    .transpose()?;
                let opened = self.enter(self.open(path.as_os_str())?)?;
                let At::Disk { disk, .. } = opened.at else {
                    return Err(Error::invalid(Problem::BadValue, "the parent holds no disk"));
                };
                // QEMU's words, which images record.
                let name = match editable.map_or(format.name, |it| it.names[0]) {
                    "vhd" => "vpc",
                    name => name,
                };
                (name, identity.unwrap_or_default(), disk.size_bytes())
            }
        };
        let absolute = path
            .canonicalize()
            .map_err(|why| Error::io(Problem::Unreadable, path.display().to_string(), &why))?;
        let folder = directory_of(child).canonicalize().map_err(|why| {
            Error::io(Problem::Unreadable, directory_of(child).display().to_string(), &why)
        })?;
        let name = relative(&absolute, &folder);
        Ok(ParentRecord {
            name: name.as_os_str().as_bytes().to_vec(),
            absolute: Some(absolute.as_os_str().as_bytes().to_vec()),
            format: format.to_owned(),
            identity,
            size_bytes,
        })
    }
}

/// The way from a folder to a file; both are absolute and without links.
fn relative(file: &Path, folder: &Path) -> PathBuf {
    let (file, folder): (Vec<Component>, Vec<Component>) =
        (file.components().collect(), folder.components().collect());
    let same = file.iter().zip(&folder).take_while(|(a, b)| a == b).count();
    let up = folder[same..].iter().map(|_| Component::ParentDir.as_os_str());
    up.chain(file[same..].iter().map(|part| part.as_os_str())).map(OsStr::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parent_is_named_from_the_folder_of_its_child() {
        let way = |file: &str, folder: &str| {
            relative(Path::new(file), Path::new(folder)).display().to_string()
        };
        assert_eq!(way("/a/b/base.vhd", "/a/b"), "base.vhd");
        assert_eq!(way("/a/base.vhd", "/a/b/c"), "../../base.vhd");
        assert_eq!(way("/x/base.vhd", "/a"), "../x/base.vhd");
    }
}
