//! Images opened to be written, made and repaired: which files that takes, and whether it is safe.
//!
//! [`Opener::edit`] opens one to be written, [`Opener::create`] makes one, [`Opener::repair`]
//! puts one right, [`Opener::family`] tells what stands on what. Every format that can be written
//! has a file here that says in the words of [`Editable`] what its crate offers; options come as
//! [`choices`].

mod choices;
mod create;
mod family;
mod qcow;
mod raw;
mod record;
mod snapshots;
mod vhd;
mod vhdx;
mod vmdk;

pub use create::Blank;
pub use family::{ParentState, Relative};
pub use snapshots::{InnerSnapshot, SnapshotWork};

use crate::formats::recognise_image;
use crate::images;
use crate::source::Source;
use crate::{Locator, Opener, Origin};
use adit_core::{
    Disk, Error, Finding, ImageFile, Interrupt, Kind, Limits, ParentRecord, Problem, Result,
    WritableImage,
};
use adit_io::{Sharing, WritableFile};
use choices::Choices;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// An image that may be written, and what whoever writes should know.
type Opening = (Arc<dyn WritableImage>, Vec<Finding>);

/// What a format that can be written offers.
pub(crate) struct Editable {
    /// Its names in the table of formats, first the one that stands for it.
    pub names: &'static [&'static str],
    /// Opens an image to be written, and says what whoever writes should know.
    pub open: fn(Given<'_>) -> Result<Opening>,
    /// Makes an empty image.
    pub create: fn(&mut Blueprint<'_>) -> Result<()>,
    /// Who an image is, for its children.
    pub identity: fn(Arc<dyn Disk>, &Limits) -> Result<Vec<u8>>,
    /// Puts an image right.
    pub repair: RepairImage,
    /// Makes the file smaller in place, and tells by how many bytes.
    pub compact: fn(Given<'_>, &Interrupt) -> Result<u64>,
}

type RepairImage = fn(Given<'_>, Repair, &mut dyn FnMut(Finding)) -> Result<Repaired>;
type FindFile<'a> = &'a mut dyn FnMut(&[u8]) -> Result<Arc<dyn ImageFile>>;
type MakeFile<'a> = &'a mut dyn FnMut(&str) -> Result<Arc<dyn ImageFile>>;

/// Every format that can be written.
const EDITABLE: &[Editable] = &[qcow::EDITABLE, vhd::EDITABLE, vhdx::EDITABLE, vmdk::EDITABLE];

/// An image to be opened for writing.
pub(crate) struct Given<'a> {
    /// Its file.
    pub file: Arc<dyn ImageFile>,
    /// What to call it.
    pub name: String,
    /// What it stands on.
    pub parent: Option<Arc<dyn Disk>>,
    /// Opens another file of the image by the name it has there, under the policy for references.
    pub beside: FindFile<'a>,
    /// What may open an encrypted image.
    pub secrets: &'a [crate::Secret],
    /// Bounds.
    pub limits: &'a Limits,
}

/// An image to be made.
pub(crate) struct Blueprint<'a> {
    /// Its file, empty.
    pub file: Arc<dyn ImageFile>,
    /// The name of that file, without its folder.
    pub name: String,
    /// Length of its disk, where the user said one; otherwise that of the parent. Unit: bytes.
    pub size_bytes: u64,
    /// What it stands on.
    pub parent: Option<ParentRecord>,
    /// Options.
    pub choices: &'a mut Choices,
    /// Makes another file beside it.
    pub beside: MakeFile<'a>,
}

/// What the user takes upon himself.
#[derive(Clone, Copy, Debug, Default)]
pub struct Risks {
    /// Write although another program holds the file.
    pub held: bool,
    /// Write although other images stand on it, which then read otherwise.
    pub children: bool,
}

/// What is to be put right, beside what is certain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Repair {
    /// Space that nothing uses is given back.
    pub leaks: bool,
    /// Entries that point nowhere are forgotten; what they pointed to is lost.
    pub errors: bool,
}

/// What came of a repair.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Repaired {
    /// Things put right.
    pub fixed: u64,
    /// Things that remain.
    pub left: u64,
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
        let file = open_file(path, risks)?;
        let (format, editable) = self.editable(path)?;
        let Some(editable) = editable else {
            let image: Arc<dyn WritableImage> = Arc::new(raw::RawImage(file));
            let (path, parent, notes) = (path.to_owned(), None, Vec::new());
            return Ok(Edit { path, format, image, parent, notes });
        };
        let below = self.below(path)?;
        let notes = below.parent.iter().flat_map(|(_, chain)| chain.notes.clone());
        let mut notes: Vec<Finding> = notes.collect();
        let parent = below.parent.map(|(source, chain)| {
            let path = match &source.origin {
                Origin::Host(path) => Some(path.clone()),
                _ => None,
            };
            EditParent { path, locator: source.locator, disk: chain.disk }
        });
        let disk = parent.as_ref().map(|parent| Arc::clone(&parent.disk));
        let (image, own) =
            self.with_given(path, file, disk, risks, |given| (editable.open)(given))?;
        notes.extend(own);
        Ok(Edit { path: path.to_owned(), format, image, parent, notes })
    }

    /// Puts an image right in place; everything found is reported, and what was done about it.
    ///
    /// Errors: as [`Opener::edit`].
    pub fn repair(
        &self,
        path: &Path,
        risks: Risks,
        what: Repair,
        report: &mut dyn FnMut(Finding),
    ) -> Result<Repaired> {
        let file = open_file(path, risks)?;
        let (format, Some(editable)) = self.editable(path)? else {
            return Err(Error::unsupported("a raw disk has nothing to repair"));
        };
        let _ = format;
        self.with_given(path, file, None, risks, |given| (editable.repair)(given, what, report))
    }

    /// Makes the file of an image smaller in place, as far as its format can, and tells by how
    /// many bytes.
    ///
    /// Errors: as [`Opener::edit`].
    pub fn compact(&self, path: &Path, risks: Risks, interrupt: &Interrupt) -> Result<u64> {
        if !risks.children {
            self.refuse_parents(path)?;
        }
        let file = open_file(path, risks)?;
        let (_, Some(editable)) = self.editable(path)? else {
            return Err(Error::unsupported("a raw disk has no unused space of its own")
                .advise("`adit convert` leaves zeros out"));
        };
        let parent = self.below(path)?.parent.map(|(_, chain)| chain.disk);
        self.with_given(path, file, parent, risks, |given| (editable.compact)(given, interrupt))
    }

    /// The format of a file, and how it is written; nothing for a raw one.
    fn editable(&self, path: &Path) -> Result<(&'static str, Option<&'static Editable>)> {
        let source = self.host_source(path)?;
        let format = if self.options().raw { None } else { recognise_image(&source.disk)? };
        let Some(format) = format else { return Ok(("raw", None)) };
        match EDITABLE.iter().find(|it| it.names.contains(&format.name)) {
            Some(editable) => Ok((format.name, Some(editable))),
            None => Err(Error::unsupported(format!("{} images are only read", format.title))
                .in_layer(path.display().to_string())
                .advise("`adit convert` makes an image that can be written")),
        }
    }

    /// What an image stands on, without the image itself.
    fn below(&self, path: &Path) -> Result<images::Below> {
        let source = self.host_source(path)?;
        match recognise_image(&source.disk)? {
            Some(format) => images::below(self, source, format),
            None => Ok(images::Below::default()),
        }
    }

    fn with_given<T>(
        &self,
        path: &Path,
        file: Arc<dyn ImageFile>,
        parent: Option<Arc<dyn Disk>>,
        risks: Risks,
        op: impl FnOnce(Given<'_>) -> Result<T>,
    ) -> Result<T> {
        let source = self.host_source(path)?;
        let mut beside = |name: &[u8]| -> Result<Arc<dyn ImageFile>> {
            let found = crate::references::resolve(name, &source, self.options())?;
            match found {
                Source { origin: Origin::Host(path), .. } => open_file(&path, risks),
                _ => Err(Error::unsupported("only files of the host are written")),
            }
        };
        let name = path.display().to_string();
        let limits = &self.options().limits;
        let secrets = &self.options().secrets;
        op(Given { file, name: name.clone(), parent, beside: &mut beside, secrets, limits })
            .map_err(|error| error.in_layer(name))
    }

    /// Refuses to change what other images stand on.
    fn refuse_parents(&self, path: &Path) -> Result<()> {
        let children = self.children(path)?;
        let Some(first) = children.first() else { return Ok(()) };
        let (first, path) = (first.display(), path.display());
        let detail = match children.len() {
            1 => format!("{first} stands on {path}"),
            count => format!("{first} and {} more stand on {path}", count - 1),
        };
        Err(Error::new(Kind::Busy, Problem::Refused, detail).advise(
            "writing here would change what they hold; write into the last image of the chain, or use --force",
        ))
    }
}

fn open_file(path: &Path, risks: Risks) -> Result<Arc<dyn ImageFile>> {
    let sharing = if risks.held { Sharing::Forced } else { Sharing::Alone };
    let file = WritableFile::open(path, sharing)
        .map_err(|error| error.in_layer(path.display().to_string()))?;
    Ok(Arc::new(file))
}
