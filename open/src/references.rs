//! Which files an image may name.
//!
//! Every reference is hostile text. By default it may name a file in the image's own directory
//! and nothing else; inside a datastore the user may widen that to the datastore.

use crate::{OpenOptions, Origin, ReferencePolicy};
use adit_core::{
    Disk, Error, FileSystemExt, FindOptions, Fork, Kind, Name, NodeKind, Problem, Result,
};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

/// Opens the file that an image from `origin` calls `name`.
///
/// Errors: `Denied` when the policy forbids it, `NotFound` when it is not there.
pub fn resolve(name: &[u8], origin: &Origin, options: &OpenOptions) -> Result<Arc<dyn Disk>> {
    match origin {
        Origin::Host(path) => on_host(name, path, options),
        Origin::File { files, parent, .. } => {
            if let Ok(plain) = plain_name(name) {
                let node = files.fs.lookup(*parent, &plain)?;
                return open_file(files, node, name);
            }
            if options.references != ReferencePolicy::Datastore {
                return Err(denied(name).advise(
                    "`--references datastore` lets images name any file of their datastore",
                ));
            }
            let inside = files.link_roots.iter().find_map(|root| {
                name.strip_prefix(root.as_slice()).filter(|rest| rest.starts_with(b"/"))
            });
            let Some(inside) = inside else {
                return Err(denied(name).advise("the name leads out of this datastore"));
            };
            let find = FindOptions { link_roots: &files.link_roots, ..FindOptions::default() };
            open_file(files, files.fs.find(inside, &find)?, name)
        }
        Origin::Inner => Err(denied(name)),
    }
}

fn open_file(files: &crate::Files, node: adit_core::NodeId, name: &[u8]) -> Result<Arc<dyn Disk>> {
    match files.fs.metadata(node)?.kind {
        NodeKind::File | NodeKind::RawDevice => files.fs.open(node, &Fork::Data),
        kind => Err(Error::new(
            Kind::Denied,
            Problem::Refused,
            format!("{:?} is a {}, not a file", String::from_utf8_lossy(name), kind.word()),
        )),
    }
}

fn on_host(name: &[u8], image: &Path, options: &OpenOptions) -> Result<Arc<dyn Disk>> {
    let plain = plain_name(name).map_err(|_| {
        denied(name).advise("copy the file beside the image, or correct the name in the image")
    })?;
    let dir = match image.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    };
    let path = dir.join(OsStr::from_bytes(plain.as_bytes()));
    // A link may lead anywhere, and a device is not a file beside the image.
    match path.symlink_metadata() {
        Ok(found) if found.is_file() => adit_io::open(&path, &options.reads),
        Ok(_) => Err(denied(name).advise("it is not a regular file of the image's directory")),
        Err(error) => Err(Error::io(Problem::Missing, path.display().to_string(), &error)),
    }
}

fn plain_name(name: &[u8]) -> Result<Name> {
    let plain = Name::new(name)?;
    if plain.is_dots() || name.contains(&b'\\') || has_scheme(name) {
        return Err(denied(name));
    }
    Ok(plain)
}

/// Whether the text starts like `nbd:` or `C:`, which some tools would follow elsewhere.
fn has_scheme(name: &[u8]) -> bool {
    let word = name.iter().take_while(|byte| byte.is_ascii_alphanumeric()).count();
    word > 0 && name.get(word) == Some(&b':')
}

fn denied(name: &[u8]) -> Error {
    let name = String::from_utf8_lossy(name);
    Error::new(
        Kind::Denied,
        Problem::Refused,
        format!("the image names {name:?}, outside the directory it was opened from"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(dir: &Path, name: &[u8]) -> Result<Arc<dyn Disk>> {
        resolve(name, &Origin::Host(dir.join("disk.vmdk")), &OpenOptions::default())
    }

    #[test]
    fn only_a_regular_file_beside_the_image_is_opened() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("disk-flat.vmdk"), b"x").unwrap();
        std::os::unix::fs::symlink("/etc/passwd", dir.path().join("link")).unwrap();
        std::fs::create_dir(dir.path().join("sub")).unwrap();
        std::fs::write(dir.path().join("sub/inner"), b"x").unwrap();
        assert!(host(dir.path(), b"disk-flat.vmdk").is_ok());
        let refused: [&[u8]; 9] = [
            b"/etc/passwd",
            b"../x",
            b"..",
            b"link",
            b"sub",
            b"sub/inner",
            b"nbd:host:1",
            b"C:x",
            b"\\\\server\\share",
        ];
        for name in refused {
            let error = host(dir.path(), name).unwrap_err();
            assert_eq!(error.kind(), Kind::Denied, "{:?}", String::from_utf8_lossy(name));
        }
        assert_eq!(host(dir.path(), b"gone").unwrap_err().kind(), Kind::NotFound);
    }
}
