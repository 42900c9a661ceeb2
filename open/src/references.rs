//! Which files an image may name.
//!
//! Every reference is hostile text. By default it may name a file in the image's own directory
//! and nothing else; inside a datastore the user may widen that to the datastore.

use crate::source::{Source, directory_of};
use crate::{Files, OpenOptions, Origin, ReferencePolicy};
use adit_core::{
    Error, FileSystemExt, FindOptions, Fork, Kind, Name, NodeId, NodeKind, Problem, Result,
};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// How many files beside an image are looked at for one that is known by its identity alone.
const SIBLINGS_MAX: usize = 1024;

/// Opens the file that the image `from` calls `name`.
///
/// Errors: `Denied` when the policy forbids it, `NotFound` when it is not there.
pub(crate) fn resolve(name: &[u8], from: &Source, options: &OpenOptions) -> Result<Source> {
    match (plain_name(name), &from.origin) {
        (Ok(plain), _) => beside(&plain, from, options),
        (Err(_), Origin::File { files, .. })
            if options.references == ReferencePolicy::Datastore =>
        {
            let inside = files.link_roots.iter().find_map(|root| {
                name.strip_prefix(root.as_slice()).filter(|rest| rest.starts_with(b"/"))
            });
            match inside {
                Some(inside) => in_datastore(inside, from, files),
                None => Err(denied(name).advise("the name leads out of this datastore")),
            }
        }
        (Err(error), Origin::File { .. }) => {
            Err(error
                .advise("`--references datastore` lets images name any file of their datastore"))
        }
        (Err(error), _) => Err(error),
    }
}

/// Opens a file in the directory of an image.
pub(crate) fn beside(name: &Name, from: &Source, options: &OpenOptions) -> Result<Source> {
    match &from.origin {
        Origin::Host(path) => on_host(name, &directory_of(path).join(os(name)), from, options),
        Origin::File { files, parent, .. } => {
            let node = files.fs.lookup(*parent, name)?;
            let mut locator = from.locator.clone();
            if let Some(step) = locator.steps.last_mut() {
                let dir = step.iter().rposition(|&b| b == b'/').map_or(0, |slash| slash + 1);
                step.truncate(dir);
                step.extend_from_slice(name.as_bytes());
            }
            in_files(files, node, *parent, name, locator)
        }
        Origin::Snapshot | Origin::Inner => Err(denied(name.as_bytes())),
    }
}

/// The last part of a name, whatever parts it: a moved parent is looked for under it.
pub(crate) fn base_name(name: &[u8]) -> Option<Name> {
    let base = name.rsplit(|b| matches!(b, b'/' | b'\\')).next().unwrap_or(name);
    plain_name(base).ok()
}

/// The names of the files beside an image, and whether there are too many to look at.
pub(crate) fn siblings(from: &Source, options: &OpenOptions) -> Result<(Vec<Name>, bool)> {
    let mut names: Vec<Name> = match &from.origin {
        Origin::Host(path) => {
            let dir = directory_of(path);
            let failed = |e| Error::io(Problem::Unreadable, dir.display().to_string(), &e);
            let entries = std::fs::read_dir(dir).map_err(failed)?.flatten();
            // The kind is that of the entry itself: links are not among the files.
            let files = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_file()));
            let names = files.filter_map(|entry| Name::new(entry.file_name().as_bytes()).ok());
            names.take(SIBLINGS_MAX + 1).collect()
        }
        Origin::File { files, parent, .. } => {
            let (entries, _) = files.fs.list(*parent, &options.limits)?;
            let found = entries.into_iter().filter(|entry| entry.kind == NodeKind::File);
            found.map(|entry| entry.name).take(SIBLINGS_MAX + 1).collect()
        }
        Origin::Snapshot | Origin::Inner => Vec::new(),
    };
    let too_many = names.len() > SIBLINGS_MAX;
    names.truncate(SIBLINGS_MAX);
    names.sort();
    Ok((names, too_many))
}

fn on_host(name: &Name, path: &Path, from: &Source, options: &OpenOptions) -> Result<Source> {
    // A link may lead anywhere, and a device is not a file beside the image.
    let found = match path.symlink_metadata() {
        Ok(found) if found.is_file() => found,
        Ok(_) => {
            return Err(
                denied(name.as_bytes()).advise("it is not a regular file of the image's directory")
            );
        }
        Err(error) => {
            return Err(Error::io(Problem::Missing, path.display().to_string(), &error));
        }
    };
    let disk = adit_io::open(path, &options.reads)?;
    let mut locator = from.locator.clone();
    locator.host = path.to_path_buf();
    locator.steps.clear();
    let source = Source { disk, origin: Origin::Host(path.to_path_buf()), locator };
    // What was looked at must be what was opened.
    let wanted = crate::source::FileId::Inode(found.dev(), found.ino());
    if source.id() != Some(wanted) {
        return Err(denied(name.as_bytes()).advise("it was replaced while it was opened"));
    }
    Ok(source)
}

fn in_datastore(inside: &[u8], from: &Source, files: &Files) -> Result<Source> {
    let find = FindOptions { link_roots: &files.link_roots, ..FindOptions::default() };
    let parts: Vec<&[u8]> = inside.split(|&b| b == b'/').filter(|part| !part.is_empty()).collect();
    let Some((last, dir)) = parts.split_last() else { return Err(denied(inside)) };
    let parent = files.fs.find(&dir.join(&b'/'), &find)?;
    let node = files.fs.find(inside, &find)?;
    let locator = from.locator.at_path(&parts.join(&b'/'), false);
    in_files(files, node, parent, &Name::new(*last)?, locator)
}

fn in_files(
    files: &Files,
    node: NodeId,
    parent: NodeId,
    name: &Name,
    locator: crate::Locator,
) -> Result<Source> {
    match files.fs.metadata(node)?.kind {
        NodeKind::File | NodeKind::RawDevice => {
            let disk = files.fs.open(node, &Fork::Data)?;
            let name = name.as_bytes().to_vec();
            let origin = Origin::File { files: files.clone(), node, parent, name };
            Ok(Source { disk, origin, locator })
        }
        kind => Err(Error::new(
            Kind::Denied,
            Problem::Refused,
            format!("\"{name}\" is a {}, not a file", kind.word()),
        )),
    }
}

/// A name without any path; `./` before it means nothing.
fn plain_name(name: &[u8]) -> Result<Name> {
    let mut bare = name;
    while let Some(rest) = bare.strip_prefix(b"./") {
        bare = rest;
    }
    let plain = Name::new(bare).map_err(|_| denied(name))?;
    if plain.is_dots() || name.contains(&b'\\') || has_scheme(bare) {
        return Err(denied(name));
    }
    Ok(plain)
}

/// Whether the text starts like `nbd:` or `C:`, which some tools would follow elsewhere.
fn has_scheme(name: &[u8]) -> bool {
    let is_word = |byte: &&u8| byte.is_ascii_alphanumeric() || b"+-._".contains(byte);
    let word = name.iter().take_while(is_word).count();
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

fn os(name: &Name) -> &OsStr {
    OsStr::from_bytes(name.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_regular_file_beside_the_image_is_opened() {
        let dir = tempfile::tempdir().unwrap();
        let image = dir.path().join("disk.vmdk");
        for name in ["disk.vmdk", "disk-flat.vmdk"] {
            std::fs::write(dir.path().join(name), b"x").unwrap();
        }
        std::os::unix::fs::symlink("/etc/passwd", dir.path().join("link")).unwrap();
        std::fs::create_dir(dir.path().join("sub")).unwrap();
        std::fs::write(dir.path().join("sub/inner"), b"x").unwrap();
        let options = OpenOptions::default();
        let from = Source {
            disk: adit_io::open(&image, &options.reads).unwrap(),
            origin: Origin::Host(image.clone()),
            locator: crate::Locator { host: image, steps: Vec::new() },
        };
        let find = |name: &[u8]| resolve(name, &from, &options);
        let found = find(b"disk-flat.vmdk").unwrap();
        assert_eq!(found.locator.host, dir.path().join("disk-flat.vmdk"));
        assert_eq!(find(b"././disk-flat.vmdk").unwrap().id(), found.id());
        let refused: [&[u8]; 14] = [
            b"/etc/passwd",
            b"../x",
            b"..",
            b"./..",
            b"",
            b"./",
            b"link",
            b"sub",
            b"sub/inner",
            b"nbd:host:1",
            b"nbd+unix:",
            b"json:{}",
            b"C:x",
            b"\\\\server\\share",
        ];
        for name in refused {
            let error = find(name).unwrap_err();
            assert_eq!(error.kind(), Kind::Denied, "{:?}", String::from_utf8_lossy(name));
        }
        assert_eq!(find(b"gone").unwrap_err().kind(), Kind::NotFound);
    }

    #[test]
    fn the_base_name_is_what_stands_behind_the_last_separator() {
        let base = |name: &[u8]| base_name(name).map(|name| name.to_string());
        assert_eq!(base(b"/vmfs/volumes/x/base.vmdk").unwrap(), "base.vmdk");
        assert_eq!(base(b"C:\\vms\\base.vhd").unwrap(), "base.vhd");
        assert_eq!(base(b"/a/.."), None);
        assert_eq!(base(b"/a/"), None);
    }
}
