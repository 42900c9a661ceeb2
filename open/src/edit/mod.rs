//! Images opened to be written: which files that takes, and whether it is safe.
//!
//! [`Opener::edit`] opens one, [`Opener::family`] tells what stands on what. Every format that
//! can be written has a file here that says in these words what its crate offers.

mod family;
mod raw;

pub use family::{ParentState, Relative};

use crate::formats::recognise_image;
use crate::{Locator, Opener};
use adit_core::{Disk, Error, Finding, ImageFile, Kind, Problem, Result, WritableImage};
use adit_io::{Sharing, WritableFile};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What the user takes upon himself.
#[derive(Clone, Copy, Debug, Default)]
pub struct Risks {
    /// Write although another program holds the file.
    pub held: bool,
    /// Write although other images stand on it, which then read otherwise.
    pub children: bool,
}

/// An image opened to be written.
#[derive(Debug)]
pub struct Edit {
    /// Its file.
    pub path: PathBuf,
    /// Its format's name in the table of formats; `"raw"` for a raw file.
    pub format: &'static str,
    /// The image.
    pub image: Arc<dyn WritableImage>,
    /// What it stands on, read-only.
    pub parent: Option<EditParent>,
    /// What opening it had to say.
    pub notes: Vec<Finding>,
}

/// What an image stands on.
#[derive(Clone, Debug)]
pub struct EditParent {
    /// Its file, where it is one of the host.
    pub path: Option<PathBuf>,
    /// Its place.
    pub locator: Locator,
    /// Its disk.
    pub disk: Arc<dyn Disk>,
}

impl Opener {
    /// Opens an image of the host to be written.
    ///
    /// Errors: `Busy` where another program holds it, or other images stand on it; `Unsupported`
    /// for formats that are only read; those of [`Opener::open`].
    pub fn edit(&self, path: &Path, risks: Risks) -> Result<Edit> {
        if !risks.children {
            self.refuse_parents(path)?;
        }
        let sharing = if risks.held { Sharing::Forced } else { Sharing::Alone };
        let named = |error: Error| error.in_layer(path.display().to_string());
        let file: Arc<dyn ImageFile> = Arc::new(WritableFile::open(path, sharing).map_err(named)?);
        let source = self.host_source(path)?;
        let format = if self.options().raw { None } else { recognise_image(&source.disk)? };
        let Some(format) = format else {
            let image: Arc<dyn WritableImage> = Arc::new(raw::RawImage(file));
            return Ok(Edit {
                path: path.to_owned(),
                format: "raw",
                image,
                parent: None,
                notes: Vec::new(),
            });
        };
        Err(Error::unsupported(format!("{} images are only read", format.title))
            .advise("`adit convert` makes one that can be written"))
    }

    /// Refuses to change what other images stand on.
    fn refuse_parents(&self, path: &Path) -> Result<()> {
        let children = self.children(path)?;
        let Some(first) = children.first() else { return Ok(()) };
        let detail = match children.len() {
            1 => format!("{} stands on {}", first.display(), path.display()),
            count => {
                format!("{} and {} more stand on {}", first.display(), count - 1, path.display())
            }
        };
        Err(Error::new(Kind::Busy, Problem::Refused, detail)
            .advise("writing here would change what they hold; write into the last image of the chain, or use --force"))
    }
}
