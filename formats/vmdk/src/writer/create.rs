//! New, empty images: extents first, the descriptor or header last, so that what was not
//! finished is no image.

use super::blank::{cowd_extent, flat_extent, hosted_extent, sesparse_extent};
use super::change::{new_cid, parent_cid};
use super::random;
use super::text::check_value;
use crate::{Descriptor, SECTOR_BYTES};
use adit_core::bytes::wide;
use adit_core::{Error, ImageFile, ParentRecord, Problem, Result};
use std::sync::Arc;

/// Largest piece of a disk in pieces of 2 GB. Unit: sectors.
pub(crate) const SPLIT_SECTORS: u64 = 4_192_256;

/// How a new disk is stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Subformat {
    /// One hosted sparse file with the descriptor inside.
    #[default]
    MonolithicSparse,
    /// A descriptor and one flat file.
    MonolithicFlat,
    /// A descriptor and hosted sparse files of up to 2 GB.
    TwoGbMaxExtentSparse,
    /// A descriptor and flat files of up to 2 GB.
    TwoGbMaxExtentFlat,
    /// A descriptor and one flat file, as on a VMFS.
    Vmfs,
    /// A delta in the layout of ESX (COWD), as on VMFS 5.
    VmfsSparse,
    /// A delta in the seSparse layout, as on VMFS 6.
    SeSparse,
}

impl Subformat {
    /// Every one, by the `createType` it has.
    pub const ALL: [Subformat; 7] = [
        Subformat::MonolithicSparse,
        Subformat::MonolithicFlat,
        Subformat::TwoGbMaxExtentSparse,
        Subformat::TwoGbMaxExtentFlat,
        Subformat::Vmfs,
        Subformat::VmfsSparse,
        Subformat::SeSparse,
    ];

    /// The `createType`.
    pub fn word(self) -> &'static str {
        match self {
            Subformat::MonolithicSparse => "monolithicSparse",
            Subformat::MonolithicFlat => "monolithicFlat",
            Subformat::TwoGbMaxExtentSparse => "twoGbMaxExtentSparse",
            Subformat::TwoGbMaxExtentFlat => "twoGbMaxExtentFlat",
            Subformat::Vmfs => "vmfs",
            Subformat::VmfsSparse => "vmfsSparse",
            Subformat::SeSparse => "seSparse",
        }
    }

    /// By its `createType`, in any case.
    ///
    /// Errors: `Unsupported` with the choices.
    pub fn of_word(word: &str) -> Result<Subformat> {
        let found = Subformat::ALL.into_iter().find(|kind| kind.word().eq_ignore_ascii_case(word));
        found.ok_or_else(|| {
            let all: Vec<&str> = Subformat::ALL.iter().map(|kind| kind.word()).collect();
            Error::unsupported(format!("VMDKs of the kind {word:?} are not made to be written to"))
                .advise(format!("choose one of {}", all.join(", ")))
        })
    }

    fn extent_word(self) -> &'static str {
        match self {
            Subformat::MonolithicSparse | Subformat::TwoGbMaxExtentSparse => "SPARSE",
            Subformat::MonolithicFlat | Subformat::TwoGbMaxExtentFlat => "FLAT",
            Subformat::Vmfs => "VMFS",
            Subformat::VmfsSparse => "VMFSSPARSE",
            Subformat::SeSparse => "SESPARSE",
        }
    }

    fn is_flat(self) -> bool {
        matches!(self, Subformat::MonolithicFlat | Subformat::TwoGbMaxExtentFlat | Subformat::Vmfs)
    }
}

/// What a new image is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreateOptions {
    /// Size of the disk, in whole sectors. Unit: bytes.
    pub size_bytes: u64,
    /// How it is stored.
    pub subformat: Subformat,
    /// Grain of sparse extents; `None` for the usual one. Unit: bytes.
    pub grain_bytes: Option<u64>,
    /// Controller: `ide`, `buslogic`, `lsilogic`, `legacyESX`, `pvscsi`, `lsisas1068`.
    pub adapter: String,
    /// Version of the virtual hardware.
    pub hw_version: u32,
    /// Whether grain tables may say "zeros", which hosted extents of version 2 do.
    pub zeroed_grain: bool,
    /// What the disk is a delta of.
    pub parent: Option<ParentRecord>,
    /// Whether a flat disk is written full of zeros.
    pub preallocate: bool,
    /// Whether a flat disk calls itself thin.
    pub thin: bool,
    /// Heads and sectors per track; `None` for what the adapter has.
    pub geometry: Option<(u32, u32)>,
    /// Content identity; `None` for a random one.
    pub cid: Option<u32>,
}

impl CreateOptions {
    /// A monolithicSparse disk on an LSI controller.
    pub fn new(size_bytes: u64) -> CreateOptions {
        CreateOptions {
            size_bytes,
            subformat: Subformat::default(),
            grain_bytes: None,
            adapter: "lsilogic".to_owned(),
            hw_version: 4,
            zeroed_grain: false,
            parent: None,
            preallocate: false,
            thin: false,
            geometry: None,
            cid: None,
        }
    }
}

/// Makes a new image called `name`. `files` makes each of its files, by names derived from that;
/// they are empty. The last one asked for is `name` itself.
///
/// Errors: `Invalid` for sizes, grains and names that cannot be; `Unsupported` for flat disks
/// with a parent, and parents that are no VMDK.
pub fn create(
    name: &str,
    options: &CreateOptions,
    files: &mut dyn FnMut(&str) -> Result<Arc<dyn ImageFile>>,
) -> Result<()> {
    make(name, options, files).map_err(|error| error.in_layer(format!("VMDK {name}")))
}

fn make(
    name: &str,
    options: &CreateOptions,
    files: &mut dyn FnMut(&str) -> Result<Arc<dyn ImageFile>>,
) -> Result<()> {
    check_value(name.as_bytes())?;
    check_adapter(&options.adapter)?;
    let kind = options.subformat;
    let sectors = sectors_of(options.size_bytes)?;
    match (&options.parent, kind) {
        (Some(_), kind) if kind.is_flat() => {
            return Err(Error::unsupported(
                "a flat disk has no parent: it holds every byte itself",
            )
            .advise("make the delta monolithicSparse"));
        }
        (None, Subformat::VmfsSparse | Subformat::SeSparse) => {
            let detail = format!("a {} disk is a delta, and no parent is given", kind.word());
            return Err(Error::invalid(Problem::Missing, detail));
        }
        _ => {}
    }
    let stem = name.strip_suffix(".vmdk").unwrap_or(name);
    if kind == Subformat::MonolithicSparse {
        let text = text(options, &[(sectors, name.to_owned())])?;
        let file = files(name)?;
        let grain = options.grain_bytes.unwrap_or(64 << 10);
        return hosted_extent(&file, sectors, grain, options.zeroed_grain, Some(&text));
    }
    let pieces = pieces(kind, stem, sectors);
    let text = text(options, &pieces)?;
    let mut made = Vec::with_capacity(pieces.len());
    for (sectors, name) in &pieces {
        let file = files(name)?;
        match kind {
            Subformat::VmfsSparse => cowd_extent(&file, *sectors, options.grain_bytes)?,
            Subformat::SeSparse => sesparse_extent(&file, *sectors, options.grain_bytes)?,
            _ if kind.is_flat() => flat_extent(&file, *sectors, options.preallocate)?,
            _ => {
                let grain = options.grain_bytes.unwrap_or(64 << 10);
                hosted_extent(&file, *sectors, grain, options.zeroed_grain, None)?;
            }
        }
        made.push(file);
    }
    made.iter().try_for_each(|file| file.flush())?;
    let file = files(name)?;
    file.set_size(wide(text.len()))?;
    file.write_at(text.as_bytes(), 0)?;
    file.flush()
}

/// The extents and their files.
fn pieces(kind: Subformat, stem: &str, sectors: u64) -> Vec<(u64, String)> {
    let letter = match kind {
        Subformat::TwoGbMaxExtentSparse => 's',
        Subformat::TwoGbMaxExtentFlat => 'f',
        Subformat::VmfsSparse => return vec![(sectors, format!("{stem}-delta.vmdk"))],
        Subformat::SeSparse => return vec![(sectors, format!("{stem}-sesparse.vmdk"))],
        _ => return vec![(sectors, format!("{stem}-flat.vmdk"))],
    };
    let count = sectors.div_ceil(SPLIT_SECTORS);
    let piece = |index: u64| {
        let done = index.saturating_sub(1).saturating_mul(SPLIT_SECTORS);
        let length = sectors.saturating_sub(done).min(SPLIT_SECTORS);
        (length, format!("{stem}-{letter}{index:03}.vmdk"))
    };
    (1..=count).map(piece).collect()
}

fn text(options: &CreateOptions, pieces: &[(u64, String)]) -> Result<String> {
    let kind = options.subformat;
    let cid = options.cid.filter(|&cid| cid < 0xffff_fffe).unwrap_or_else(|| new_cid(0));
    let mut text =
        format!("# Disk DescriptorFile\nversion=1\nencoding=\"UTF-8\"\nCID={cid:08x}\nparentCID=");
    match &options.parent {
        None => text.push_str("ffffffff\n"),
        Some(parent) => {
            check_value(&parent.name)?;
            let name = std::str::from_utf8(&parent.name).map_err(|_| {
                Error::invalid(Problem::BadValue, "the parent's name is no UTF-8 text")
            })?;
            let cid = parent_cid(parent)?;
            text.push_str(&format!("{cid:08x}\nparentFileNameHint=\"{name}\"\n"));
        }
    }
    text.push_str(&format!("createType=\"{}\"\n\n# Extent description\n", kind.word()));
    for (sectors, name) in pieces {
        let offset = if kind.extent_word() == "FLAT" { " 0" } else { "" };
        text.push_str(&format!("RW {sectors} {} \"{name}\"{offset}\n", kind.extent_word()));
    }
    let ide = options.adapter.eq_ignore_ascii_case("ide");
    let (heads, track) = options.geometry.unwrap_or(if ide { (16, 63) } else { (255, 63) });
    let sectors = sectors_of(options.size_bytes)?;
    let cylinders = cylinders(sectors, heads.into(), track.into()).ok_or_else(|| {
        Error::invalid(Problem::BadValue, format!("a geometry of {heads} heads, {track} sectors"))
    })?;
    // pvscsi is known to the machine, not to the disk.
    let adapter =
        if options.adapter.eq_ignore_ascii_case("pvscsi") { "lsilogic" } else { &options.adapter };
    text.push_str(&format!(
        "\n# The Disk Data Base\n#DDB\n\n\
         ddb.virtualHWVersion = \"{}\"\n\
         ddb.geometry.cylinders = \"{cylinders}\"\n\
         ddb.geometry.heads = \"{heads}\"\n\
         ddb.geometry.sectors = \"{track}\"\n\
         ddb.adapterType = \"{adapter}\"\n",
        options.hw_version
    ));
    if matches!(kind, Subformat::Vmfs | Subformat::VmfsSparse | Subformat::SeSparse) {
        let long = format!("{:016x}{:08x}{cid:08x}", random(), random() & 0xffff_ffff);
        text.push_str(&format!("ddb.longContentID = \"{long}\"\n"));
    }
    if options.thin && kind.is_flat() {
        text.push_str("ddb.thinProvisioned = \"1\"\n");
    }
    Ok(text)
}

/// The cylinders of a disk of another size, where its descriptor gives a geometry.
pub(crate) fn geometry(descriptor: &Descriptor, size_bytes: u64) -> Option<u64> {
    let number = |key: &str| descriptor.text(key)?.trim().parse::<u64>().ok();
    number("ddb.geometry.cylinders")?;
    let (heads, track) = (number("ddb.geometry.heads")?, number("ddb.geometry.sectors")?);
    cylinders(size_bytes.checked_div(SECTOR_BYTES)?, heads, track)
}

fn cylinders(sectors: u64, heads: u64, track: u64) -> Option<u64> {
    let most = if heads == 16 { 16383 } else { 65535 };
    let cylinders = sectors.checked_div(heads.checked_mul(track)?)?;
    (heads <= 255 && track <= 63).then_some(cylinders.clamp(1, most))
}

/// Errors: `Invalid` with the choices.
pub(crate) fn check_adapter(adapter: &str) -> Result<()> {
    const KNOWN: [&str; 6] = ["ide", "buslogic", "lsilogic", "legacyESX", "pvscsi", "lsisas1068"];
    if KNOWN.iter().any(|known| known.eq_ignore_ascii_case(adapter)) {
        return Ok(());
    }
    Err(Error::invalid(Problem::BadValue, format!("there is no adapter type {adapter:?}"))
        .advise(format!("choose one of {}", KNOWN.join(", "))))
}

fn sectors_of(size_bytes: u64) -> Result<u64> {
    let sectors = size_bytes.checked_div(SECTOR_BYTES).unwrap_or(0);
    if sectors == 0 || sectors.checked_mul(SECTOR_BYTES) != Some(size_bytes) {
        let detail = format!("{size_bytes} bytes are no whole sectors of 512 bytes");
        return Err(Error::invalid(Problem::Misaligned, detail));
    }
    Ok(sectors)
}
