//! One sparse extent of any kind, and sparse files that are opened by themselves.

use crate::cowd::{self, Cowd};
use crate::directory::Budget;
use crate::grains::GrainMap;
use crate::hosted::{self, Hosted};
use crate::layout::SESPARSE_VERSION;
use crate::open::{Opened, assemble};
use crate::probe::{Kind, probe};
use crate::sesparse::{self, SeSparse};
use crate::{Descriptor, Purpose, Reference};
use adit_core::bytes::{all_zero, narrow};
use adit_core::{
    Disk, DiskExt, Error, Finding, Kind as ErrorKind, Limits, Mapped, Place, Problem, Result,
};
use std::sync::Arc;

/// What the header of a sparse extent says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SparseFacts {
    /// Index of the extent in the descriptor; 0 for a file without one.
    pub extent: usize,
    /// Hosted, ESX or seSparse.
    pub kind: Kind,
    /// Version of the header, in the numbers of its kind.
    pub version: u64,
    /// Unit: bytes.
    pub capacity_bytes: u64,
    /// Unit: bytes.
    pub grain_bytes: u64,
    /// Whether grains are compressed.
    pub compressed: bool,
}

/// A sparse extent whose headers were read.
#[derive(Clone, Debug)]
pub(crate) enum ExtentHeader {
    Hosted(Box<Hosted>),
    Cowd(Box<Cowd>),
    SeSparse(Box<SeSparse>),
}

impl ExtentHeader {
    /// Reads the headers. What is written first in the file decides, not the descriptor's word.
    ///
    /// Errors: `Corrupt`, `Unsupported`.
    pub fn read(file: &Arc<dyn Disk>) -> Result<ExtentHeader> {
        match probe(&file.read_prefix(0, 512)?) {
            Some(Kind::Sparse) => Ok(ExtentHeader::Hosted(Box::new(Hosted::read(file, 0)?))),
            Some(Kind::Cowd) => Ok(ExtentHeader::Cowd(Box::new(Cowd::read(file)?))),
            Some(Kind::SeSparse) => Ok(ExtentHeader::SeSparse(Box::new(SeSparse::read(file)?))),
            other => {
                let found = other.map_or("nothing known", Kind::word);
                let detail = format!("the file is no sparse extent, but {found}");
                Err(Error::corrupt(Problem::BadMagic, detail).at(Place::new("extent header")))
            }
        }
    }

    pub fn capacity_bytes(&self) -> u64 {
        match self {
            ExtentHeader::Hosted(header) => header.capacity_bytes,
            ExtentHeader::Cowd(header) => header.capacity_bytes,
            ExtentHeader::SeSparse(header) => header.capacity_bytes,
        }
    }

    pub fn kind(&self) -> Kind {
        match self {
            ExtentHeader::Hosted(_) => Kind::Sparse,
            ExtentHeader::Cowd(_) => Kind::Cowd,
            ExtentHeader::SeSparse(_) => Kind::SeSparse,
        }
    }

    pub fn facts(&self, extent: usize) -> SparseFacts {
        let (version, grain_bytes, compressed) = match self {
            ExtentHeader::Hosted(header) => {
                (header.raw.version.into(), header.grain_bytes, header.coding.is_some())
            }
            ExtentHeader::Cowd(header) => (header.raw.version.into(), header.grain_bytes, false),
            ExtentHeader::SeSparse(header) => (SESPARSE_VERSION, header.grain_bytes, false),
        };
        let capacity_bytes = self.capacity_bytes();
        SparseFacts { extent, kind: self.kind(), version, capacity_bytes, grain_bytes, compressed }
    }

    /// The extent as a disk of its capacity; `parent` is what lies below its first byte.
    pub fn open(
        &self,
        name: &str,
        file: &Arc<dyn Disk>,
        parent: Option<Arc<dyn Disk>>,
        budget: &mut Budget,
        notes: &mut Vec<Finding>,
    ) -> Result<Arc<dyn Disk>> {
        match self {
            ExtentHeader::Hosted(header) => hosted::open(name, file, header, parent, budget, notes),
            _ => Ok(Arc::new(Mapped::new(self.map(name, file, parent, budget, notes)?))),
        }
    }

    /// The map of the extent by its directory.
    pub fn map(
        &self,
        name: &str,
        file: &Arc<dyn Disk>,
        parent: Option<Arc<dyn Disk>>,
        budget: &mut Budget,
        notes: &mut Vec<Finding>,
    ) -> Result<GrainMap> {
        match self {
            ExtentHeader::Hosted(header) => hosted::map(name, file, header, parent, budget, notes),
            ExtentHeader::Cowd(header) => cowd::map(name, file, header, parent, budget, notes),
            ExtentHeader::SeSparse(header) => {
                sesparse::map(name, file, header, parent, budget, notes)
            }
        }
    }
}

/// The descriptor inside a hosted sparse extent; `None` if it has none, or only room for one.
///
/// Errors: `Corrupt` if it does not lie in the file, and as [`Descriptor::parse`].
pub fn embedded_descriptor(file: &Arc<dyn Disk>, limits: &Limits) -> Result<Option<Descriptor>> {
    if probe(&file.read_prefix(0, 512)?) != Some(Kind::Sparse) {
        return Ok(None);
    }
    let range = Hosted::read(file, 0)?.descriptor;
    let place = || Place::new("embedded descriptor").byte(range.start);
    let length = range.end.saturating_sub(range.start);
    if length > limits.text_bytes_max {
        let detail = format!("the embedded descriptor has room for {length} bytes");
        return Err(Error::limit("text_bytes_max", detail).at(place()));
    }
    if range.end > file.size_bytes() {
        let detail = "the embedded descriptor leaves the file";
        return Err(Error::corrupt(Problem::OutOfRange, detail).at(place()));
    }
    let text = file.read_vec(range.start, narrow(length).unwrap_or(0))?;
    if all_zero(&text) { Ok(None) } else { Descriptor::parse(&text, limits).map(Some) }
}

/// Opens a sparse extent by itself; `name` is what to call it.
///
/// With a descriptor inside, this is the whole disk, and `resolve` is asked as [`crate::open`]
/// asks it. Without one, it is one extent of a disk: a piece of a split disk reads as zeros where
/// it holds nothing, and a finding says so; the delta of an ESX snapshot (COWD, seSparse) has
/// `resolve` asked for a parent without a name, and is refused where there is none.
///
/// Errors: as [`crate::open`].
pub fn open_sparse(
    name: &str,
    file: Arc<dyn Disk>,
    limits: &Limits,
    resolve: &mut dyn FnMut(&Reference) -> Result<Arc<dyn Disk>>,
) -> Result<Opened> {
    let layer = format!("VMDK {name}");
    let opened = match embedded_descriptor(&file, limits) {
        Ok(Some(descriptor)) => assemble(&layer, descriptor, Some(file), resolve),
        Ok(None) => bare(&layer, file, limits, resolve),
        Err(error) => Err(error),
    };
    opened.map(|opened| opened.named(&layer)).map_err(|error| error.in_layer(layer))
}

fn bare(
    layer: &str,
    file: Arc<dyn Disk>,
    limits: &Limits,
    resolve: &mut dyn FnMut(&Reference) -> Result<Arc<dyn Disk>>,
) -> Result<Opened> {
    let sparse = ExtentHeader::read(&file)?;
    let parent = match sparse {
        ExtentHeader::Hosted(_) => None,
        _ => Some(unnamed_parent(&sparse, resolve)?),
    };
    let mut notes = vec![alone(parent.is_some())];
    let mut budget = Budget::new(limits);
    let disk = sparse.open(layer, &file, parent, &mut budget, &mut notes)?;
    Ok(Opened { disk, notes, descriptor: None, sparse: vec![sparse.facts(0)] })
}

fn alone(with_parent: bool) -> Finding {
    let text = if with_parent {
        "it is one extent without its descriptor, read above the parent that was given"
    } else {
        "it is one extent of a split disk without its descriptor: what it does not hold reads as \
         zeros, which is wrong if the disk has a parent"
    };
    Finding::warning("vmdk-extent-alone", text).advise("open the descriptor that names it")
}

fn unnamed_parent(
    sparse: &ExtentHeader,
    resolve: &mut dyn FnMut(&Reference) -> Result<Arc<dyn Disk>>,
) -> Result<Arc<dyn Disk>> {
    resolve(&Reference { name: Vec::new(), purpose: Purpose::Parent }).map_err(|error| {
        if error.kind() != ErrorKind::NotFound {
            return error;
        }
        let word = sparse.kind().word();
        Error::unsupported(format!("a {word} holds only what differs from its parent"))
            .at(Place::new("extent header"))
            .advise("open the descriptor that names it, or give the parent")
    })
}
