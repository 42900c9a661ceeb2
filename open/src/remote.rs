//! Places that are no files of the host, named by URI: `nbd://server/disk`.

use adit_core::{Disk, Error, Result};
use std::path::Path;
use std::sync::Arc;

/// Schemes that a locator may start with. What follows holds no `//` of its own.
const SCHEMES: &[&str] = &["nbd", "nbds", "nbd+tcp", "nbd+unix", "nbds+unix"];

/// Somebody who opens URIs: this crate stands below the ones that can.
#[derive(Clone, Copy, Debug)]
pub struct Remote {
    /// What URIs it opens, by what stands before `://`.
    pub schemes: &'static [&'static str],
    /// Opens one as a disk.
    pub open: fn(&str) -> Result<Arc<dyn Disk>>,
}

/// Where a URI's own part ends, behind `://`, if the text starts with one.
pub(crate) fn after_scheme(text: &[u8]) -> Option<usize> {
    let at = text.windows(3).position(|three| three == b"://")?;
    SCHEMES.iter().any(|scheme| scheme.as_bytes() == &text[..at]).then_some(at + 3)
}

/// The disk behind a URI; nothing if the name is none, or a file is called so.
pub(crate) fn open(path: &Path, remotes: &[Remote]) -> Option<Result<Arc<dyn Disk>>> {
    let uri = path.to_str()?;
    after_scheme(uri.as_bytes())?;
    if path.symlink_metadata().is_ok() {
        return None;
    }
    let scheme = uri.split("://").next().unwrap_or_default();
    let remote = remotes.iter().find(|remote| remote.schemes.contains(&scheme));
    Some(match remote {
        Some(remote) => (remote.open)(uri),
        None => Err(Error::unsupported(format!("nobody here opens {scheme}://"))
            .advise("name a file, or let another program bring the disk")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scheme_is_told_from_a_path() {
        assert_eq!(after_scheme(b"nbd://host/x"), Some(6));
        assert_eq!(after_scheme(b"nbd+unix:///?socket=/x"), Some(11));
        for path in [&b"/a/nbd://x"[..], b"nbd:/x", b"nbd", b"http://x", b"lun.img//p1"] {
            assert_eq!(after_scheme(path), None);
        }
    }
}
