//! One conversion, from the options to the finished file.

use crate::cache::Behind;
use crate::compare;
use crate::device;
use crate::encode::Coding;
use crate::engine::Work;
use crate::hash::Hashing;
use crate::layout::{Clusters, Grains, Layout, ParallelsClusters, Pieces, Stream, Units};
use crate::layout::{VdiBlocks, Verbatim, VhdBlocks, VhdxBlocks};
use crate::options::{Compression, ConvertOptions, Converted, Format};
use crate::plan::{self, Survey};
use crate::reopen::reopen;
use crate::resume::{self, Asked, Journal};
use crate::write::write;
use adit_core::{
    Disk, DiskExt, Error, Interrupt, Kind, Place, Problem, Progress, Result, WritableDisk,
};
use adit_io::{Finish, Keep, Overwrite, Target};
use adit_parallels::write as parallels;
use adit_qcow::write as qcow;
use adit_vmdk::write as vmdk;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::SystemTime;

/// What one thread takes at a time. Unit: bytes.
const PIECE_BYTES: u64 = 1 << 20;
/// What is searched for zeros and left out. Unit: bytes.
const GRAIN_BYTES: u64 = 64 << 10;
/// What is read begins and ends on these, as files are stored. Unit: bytes.
const BLOCK_BYTES: u64 = 4 << 10;
/// Levels where none is asked for.
const ZLIB_LEVEL: i32 = 5;
const ZSTD_LEVEL: i32 = 3;

/// Writes the disk as a new image file, which has its name only once it is whole.
///
/// Holes are not read, and data that are all zeros are not stored. Where source and target share
/// a file system that can share storage, data are not copied at all. With `verify`, the new file
/// is opened by our own reader and compared with the source before it gets its name. A
/// `vmdk-flat` also makes `NAME-flat.vmdk`, and `parallels-plain` a directory, whose descriptor
/// has its name last.
///
/// A block device is overwritten from its beginning, raw and with `overwrite` alone; what it has
/// beyond the disk stays, and its first MiB is written last.
///
/// `locator` is what to call the source in the manifest.
///
/// Errors: `Invalid` for options and sizes the format does not have; `Lost` before anything is
/// written when the source is known to be incomplete; `Denied` when a name is taken; those of
/// the source and of the host; `Corrupt` when the result does not hold the source's bytes;
/// `Interrupted`. After an error nothing is left behind, unless `resume` is asked for: then
/// `NAME.adit-partial` and its journal `NAME.adit-resume` stay, and the same conversion goes on
/// from there; for another source or other options it is `Invalid`.
pub fn convert(
    source: &Arc<dyn Disk>,
    locator: &str,
    target: &Path,
    options: &ConvertOptions,
    progress: &dyn Progress,
    interrupt: &Interrupt,
) -> Result<Converted> {
    options.check()?;
    progress.subject(locator);
    let size = source.size_bytes();
    if size == 0 {
        return Err(Error::invalid(Problem::Truncated, "the source is a disk of 0 bytes"));
    }
    if device::is_device(target) {
        return device::write(source, locator, target, options, progress, interrupt);
    }
    let mut shape = Shape::of(size, source, target, options)?;
    let survey = Survey::of(source, shape.units, interrupt)?;
    let rounds = if options.verify { 2 } else { 1 };
    progress.total(survey.data_bytes.saturating_mul(rounds));
    let (files, mut journal) = match options.resume {
        true => {
            let fingerprint = resume::fingerprint(source, options, interrupt)?;
            let (files, journal) =
                Files::carry_on(target, &mut shape, survey, options, fingerprint)?;
            (files, Some(journal))
        }
        false => (Files::create(target, &shape, survey, options)?, None),
    };
    let (cache, data, moved) = (options.cache, files.data(), survey.data_bytes);
    let behind = Behind::of(progress, cache, source, data, moved, interrupt)?;
    let progress: &dyn Progress = &behind;
    let reached = journal.as_ref().map(Journal::reached).unwrap_or_default();
    let sharing = AtomicBool::new(true);
    let mut work = Work {
        source,
        from: reached.end,
        units: shape.units,
        coding: shape.coding,
        detect_zeroes: options.detect_zeroes,
        threads: options.threads.unwrap_or_else(processors).clamp(1, 256),
        sharing: may_share(files.data(), options, shape.coding).then_some(&sharing),
        interrupt,
    };
    if options.resume {
        resume::limit_pieces(&mut work, survey.data_bytes);
    }
    let whole = size.saturating_sub(survey.data_bytes) <= options.hashed_holes_bytes_max;
    let hashing = options.verify.then_some(Hashing { size_bytes: size, whole });
    let written = write(&work, shape.layout, files.data(), hashing, journal.as_mut(), progress)?;
    if options.verify {
        files.verify(source, options.format, progress, interrupt)?;
    }
    interrupt.check()?;
    if behind.is_on() {
        // What is not on the medium cannot be forgotten; by now that is little.
        files.data().flush()?;
        behind.forget();
    }
    files.commit(options)?;
    if let Some(journal) = journal {
        journal.remove();
    }
    Ok(Converted {
        virtual_bytes: size,
        data_bytes: written.data_bytes.min(size),
        in_kernel_bytes: written.in_kernel_bytes,
        resumed_bytes: reached.moved_bytes,
        file_bytes: written.file_bytes,
        hashes: written.hashes,
        source: locator.to_owned(),
        target: target.to_string_lossy().into_owned(),
    })
}

pub(crate) fn processors() -> usize {
    std::thread::available_parallelism().map_or(2, usize::from)
}

/// How the new file is built.
struct Shape {
    units: plan::Units,
    coding: Coding,
    layout: Box<dyn Layout>,
    /// The length of the file where it is known already.
    file_bytes: Option<u64>,
    /// Text of a descriptor beside the data, and the file of the data.
    descriptor: Option<(Vec<u8>, PathBuf)>,
    /// Whether the target is a directory, which both are in.
    bundle: bool,
}

impl Shape {
    fn of(
        size: u64,
        source: &Arc<dyn Disk>,
        target: &Path,
        options: &ConvertOptions,
    ) -> Result<Shape> {
        let identity = options.identity.unwrap_or_else(|| random(target));
        let coding = coding(options);
        let sized = |usual: u64| options.cluster_size_bytes.unwrap_or(usual);
        let shape = |unit: u64, layout: Box<dyn Layout>| Shape {
            units: units(unit, coding, source),
            coding,
            layout,
            file_bytes: None,
            descriptor: None,
            bundle: false,
        };
        let verbatim = |pieces: Pieces, file_bytes: u64| Shape {
            file_bytes: Some(file_bytes),
            ..shape(GRAIN_BYTES, Box::new(Verbatim { pieces, file_bytes }))
        };
        Ok(match options.format {
            Format::Raw => verbatim(Vec::new(), size),
            Format::VhdFixed => {
                let finished = adit_vhd::write::fixed(size, vhd_identity(identity))?;
                verbatim(finished.pieces, finished.file_bytes)
            }
            Format::VmdkFlat => {
                let extent = flat_path(target);
                let (text, file_bytes) = vmdk::flat(size, &naming(&extent, identity)?)?;
                Shape { descriptor: Some((text, extent)), ..verbatim(Vec::new(), file_bytes) }
            }
            Format::Qcow2 => {
                let unit = sized(64 << 10);
                let compression = match options.compression {
                    Compression::Zstd => adit_qcow::Compression::Zstd,
                    _ => adit_qcow::Compression::Deflate,
                };
                let builder = qcow::Builder::new(size, unit, compression)?;
                shape(unit, Box::new(Clusters { builder, units: Units::of(unit) }))
            }
            Format::VmdkSparse => {
                let unit = sized(vmdk::GRAIN_BYTES);
                let builder = vmdk::Sparse::new(size, unit, &naming(target, identity)?)?;
                shape(unit, Box::new(Grains { builder, units: Units::of(unit) }))
            }
            Format::VmdkStream => {
                let builder = vmdk::Stream::new(size, &naming(target, identity)?)?;
                shape(vmdk::GRAIN_BYTES, Box::new(Stream(builder)))
            }
            Format::VhdDynamic => {
                let unit = sized(adit_vhd::write::BLOCK_BYTES);
                let builder = adit_vhd::write::Builder::new(size, unit, vhd_identity(identity))?;
                shape(unit, Box::new(VhdBlocks { builder, units: Units::of(unit) }))
            }
            Format::Vhdx => {
                let unit = sized(adit_vhdx::write::block_bytes(size));
                let builder = adit_vhdx::write::Builder::new(size, unit, identity)?;
                shape(unit, Box::new(VhdxBlocks { builder, units: Units::of(unit) }))
            }
            Format::Parallels => {
                let unit = parallels::CLUSTER_BYTES;
                let builder = parallels::Builder::new(size)?;
                shape(unit, Box::new(ParallelsClusters { builder, units: Units::of(unit) }))
            }
            Format::ParallelsPlain => {
                let name = name_of(target, "a disk descriptor")?;
                let (text, file_bytes) = parallels::plain(size, &name, identity)?;
                let image = target.join(parallels::plain_name(&name));
                let verbatim = verbatim(Vec::new(), file_bytes);
                Shape { descriptor: Some((text, image)), bundle: true, ..verbatim }
            }
            Format::Vdi => {
                let unit = adit_vdi::write::BLOCK_BYTES;
                let builder = adit_vdi::write::Builder::new(size, identity)?;
                shape(unit, Box::new(VdiBlocks { builder, units: Units::of(unit) }))
            }
        })
    }

    /// The file that is opened: the image or its descriptor.
    fn image(&self, target: &Path) -> PathBuf {
        if self.bundle { target.join("DiskDescriptor.xml") } else { target.to_owned() }
    }

    /// A length that the file does not exceed; what is too much is cut off at the end.
    fn bound(&self, survey: Survey) -> u64 {
        self.file_bytes.unwrap_or_else(|| {
            let tables = survey.unit_bytes / 32 + survey.size_bytes / 2048;
            survey.unit_bytes.saturating_add(tables).saturating_add(64 << 20)
        })
    }
}

fn coding(options: &ConvertOptions) -> Coding {
    match (options.format, options.compression) {
        (Format::VmdkStream, _) => Coding::Grain(options.level.unwrap_or(ZLIB_LEVEL)),
        (_, Compression::Zlib) => Coding::Deflate(options.level.unwrap_or(ZLIB_LEVEL)),
        (_, Compression::Zstd) => Coding::Zstd(options.level.unwrap_or(ZSTD_LEVEL)),
        (_, Compression::Usual) => Coding::Plain,
    }
}

/// Grains and pieces for a unit. Encoded units are read whole, and so are those of the source.
fn units(unit: u64, coding: Coding, source: &Arc<dyn Disk>) -> plan::Units {
    let grain = if coding == Coding::Plain { unit.min(GRAIN_BYTES) } else { unit };
    let likes = u64::from(source.geometry().io_size_bytes).next_power_of_two();
    // An encoder takes whole units.
    let block = if coding == Coding::Plain { grain.min(BLOCK_BYTES) } else { grain };
    plan::Units { unit, grain, block, piece: PIECE_BYTES.max(grain).max(likes.min(4 << 20)) }
}

/// Whether the kernel is asked to copy. Hashes and compressors have to see the bytes, and so has
/// the search for zeros; but storage that is shared costs less than zeros that are not stored.
fn may_share(target: &Target, options: &ConvertOptions, coding: Coding) -> bool {
    if coding != Coding::Plain || options.verify {
        return false;
    }
    !options.detect_zeroes || shares_storage(target)
}

/// Whether the target's file system can have two files use one storage: XFS, btrfs, bcachefs.
fn shares_storage(target: &Target) -> bool {
    let types: [u64; 3] = [0x5846_5342, 0x9123_683e, 0xca45_1a4e];
    let found = target.as_file().and_then(|file| rustix::fs::fstatfs(file).ok());
    found.is_some_and(|found| types.contains(&(found.f_type as u64 & 0xffff_ffff)))
}

/// The files of a conversion, none of which has its name yet.
struct Files {
    /// The image, or its descriptor.
    image: Target,
    /// The flat extent.
    extent: Option<Target>,
    /// Last, so that it is empty when nothing came of the others.
    _bundle: Option<Bundle>,
}

/// The directory of a bundle, which goes when it is empty.
struct Bundle(PathBuf);

impl Bundle {
    fn create(path: &Path) -> Result<Bundle> {
        match std::fs::create_dir(path) {
            Err(_) if path.is_dir() => {}
            Err(why) if why.kind() == std::io::ErrorKind::AlreadyExists => {
                let detail = format!("{} exists already, and is no directory", path.display());
                return Err(Error::new(Kind::Denied, Problem::Refused, detail)
                    .advise("choose another name"));
            }
            made => made.map_err(|why| {
                let detail = format!("making the directory {}", path.display());
                Error::io(Problem::Unwritable, detail, &why)
            })?,
        }
        Ok(Bundle(path.to_owned()))
    }
}

impl Drop for Bundle {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir(&self.0);
    }
}

impl Files {
    fn create(
        target: &Path,
        shape: &Shape,
        survey: Survey,
        options: &ConvertOptions,
    ) -> Result<Files> {
        let overwrite = overwrite(options);
        let Some((text, extent)) = &shape.descriptor else {
            let image = Target::create(target, shape.bound(survey), overwrite)?;
            return Ok(Files { image, extent: None, _bundle: None });
        };
        let bundle = shape.bundle.then(|| Bundle::create(target)).transpose()?;
        let image = Target::create(&shape.image(target), text.len() as u64, overwrite)?;
        image.write_at(text, 0)?;
        let size = shape.file_bytes.unwrap_or(0);
        Ok(Files { image, extent: Some(Target::create(extent, size, overwrite)?), _bundle: bundle })
    }

    /// The files of an earlier run, or new ones that outlive an error.
    fn carry_on(
        target: &Path,
        shape: &mut Shape,
        survey: Survey,
        options: &ConvertOptions,
        fingerprint: blake3::Hash,
    ) -> Result<(Files, Journal)> {
        let overwrite = overwrite(options);
        let bundle = shape.bundle.then(|| Bundle::create(target)).transpose()?;
        let target = shape.image(target);
        let target = target.as_path();
        let extent = shape.descriptor.as_ref().map(|(_, extent)| extent.as_path());
        for path in [Some(target), extent].into_iter().flatten() {
            if overwrite == Overwrite::Refuse && path.symlink_metadata().is_ok() {
                let detail = format!("{} exists already", path.display());
                return Err(Error::new(Kind::Denied, Problem::Refused, detail)
                    .advise("choose another name, or allow it to be overwritten"));
            }
        }
        let file_bytes = shape.bound(survey);
        let asked = Asked {
            fingerprint,
            file_bytes,
            disk_bytes: survey.size_bytes,
            grain_bytes: shape.units.grain,
            data_bytes: survey.data_bytes,
            overwrite,
        };
        let (data, journal) = resume::open(extent.unwrap_or(target), &asked, &mut *shape.layout)?;
        let Some((text, _)) = &shape.descriptor else {
            return Ok((Files { image: data, extent: None, _bundle: None }, journal));
        };
        let length = text.len() as u64;
        let image = match Target::reopen_partial(target) {
            Err(error) if error.kind() == Kind::NotFound => {
                Target::create_with(target, length, overwrite, Keep::ForResume)?
            }
            reopened => reopened?.overwriting(overwrite),
        };
        if image.size_bytes() != length {
            let detail = format!("{} was changed since", image.partial_path().display());
            return Err(Error::new(Kind::Invalid, Problem::Mismatch, detail)
                .advise("remove it, and repeat the command"));
        }
        image.write_at(text, 0)?;
        Ok((Files { image, extent: Some(data), _bundle: bundle }, journal))
    }

    /// Where the disk's bytes go.
    fn data(&self) -> &Target {
        self.extent.as_ref().unwrap_or(&self.image)
    }

    fn verify(
        &self,
        source: &Arc<dyn Disk>,
        format: Format,
        progress: &dyn Progress,
        interrupt: &Interrupt,
    ) -> Result<()> {
        self.data().flush()?;
        if let Some(file) = self.data().as_file() {
            // Only advice: where it is refused, the cache is what gets verified.
            let _ = rustix::fs::fadvise(file, 0, None, rustix::fs::Advice::DontNeed);
        }
        let extent = self.extent.as_ref().map(Target::partial_path);
        let made = reopen(format, &self.image.partial_path(), extent.as_deref())?;
        let differs = |detail: String, at: u64| {
            Error::corrupt(Problem::Mismatch, detail)
                .at(Place::new("new image").byte(at))
                .advise("the target's storage or the memory between is faulty; do not trust it")
        };
        if made.size_bytes() < source.size_bytes() {
            let detail = format!("the new image holds {} bytes", made.size_bytes());
            return Err(differs(detail, made.size_bytes()));
        }
        match compare(source, &made, progress, interrupt)? {
            None => Ok(()),
            Some(at) => Err(differs("the new image does not hold the source's bytes".into(), at)),
        }
    }

    fn commit(self, options: &ConvertOptions) -> Result<()> {
        let sync = options.sync || options.verify || options.resume;
        let finish = || Finish { sync, ..Finish::default() };
        let Some(extent) = self.extent else { return self.image.commit(finish()) };
        // The descriptor last: it never names an extent that is not there.
        let path = extent.path().to_owned();
        extent.commit(finish())?;
        let named = self.image.commit(finish());
        if named.is_err() && !options.overwrite {
            let _ = std::fs::remove_file(path);
        }
        named
    }
}

fn overwrite(options: &ConvertOptions) -> Overwrite {
    if options.overwrite { Overwrite::Replace } else { Overwrite::Refuse }
}

fn flat_path(target: &Path) -> PathBuf {
    let stem = target.file_stem().unwrap_or_default().to_string_lossy();
    target.with_file_name(format!("{stem}-flat.vmdk"))
}

fn naming(file: &Path, identity: [u8; 16]) -> Result<vmdk::Naming> {
    let file_name = name_of(file, "a VMDK descriptor")?;
    let [a, b, c, d, ..] = identity;
    Ok(vmdk::Naming { file_name, cid: u32::from_le_bytes([a, b, c, d]) })
}

fn name_of(file: &Path, stands_in: &str) -> Result<String> {
    let name = file.file_name().and_then(|name| name.to_str());
    name.map(str::to_owned).ok_or_else(|| {
        let detail = format!("{} cannot stand in {stands_in}", file.display());
        Error::invalid(Problem::BadValue, detail).advise("choose a name in UTF-8")
    })
}

fn vhd_identity(unique_id: [u8; 16]) -> adit_vhd::write::Identity {
    // Seconds from 1970 to 2000.
    const EPOCH: u64 = 946_684_800;
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let seconds = since.map_or(0, |since| since.as_secs().saturating_sub(EPOCH));
    let timestamp = u32::try_from(seconds).unwrap_or(u32::MAX);
    adit_vhd::write::Identity { unique_id, timestamp }
}

/// An identity nobody else has: from the keys that the process drew from the system, the time,
/// and the target.
fn random(target: &Path) -> [u8; 16] {
    use std::hash::{BuildHasher, RandomState};
    let keyed = RandomState::new();
    let mut hash = blake3::Hasher::new();
    hash.update(&keyed.hash_one(target).to_le_bytes());
    hash.update(&keyed.hash_one(SystemTime::now()).to_le_bytes());
    hash.update(&RandomState::new().hash_one(std::process::id()).to_le_bytes());
    let mut identity = [0; 16];
    identity.copy_from_slice(&hash.finalize().as_bytes()[..16]);
    // A random UUID, as RFC 9562 marks them.
    identity[6] = identity[6] & 0x0f | 0x40;
    identity[8] = identity[8] & 0x3f | 0x80;
    identity
}
