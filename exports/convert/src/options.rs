//! What is made, and what came of it.

use adit_copy::{FileEntry, Hashes, Manifest};
use adit_core::{Error, Problem, Result};

/// What a disk is converted to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// The bytes of the disk, holes as holes.
    Raw,
    /// QCOW2, version 3.
    Qcow2,
    /// VMDK of one sparse extent: `monolithicSparse`.
    VmdkSparse,
    /// VMDK of one compressed stream: `streamOptimized`.
    VmdkStream,
    /// VMDK of a descriptor and a flat extent: `monolithicFlat`.
    VmdkFlat,
    /// VHD that grows.
    VhdDynamic,
    /// VHD of full size.
    VhdFixed,
    /// VHDX that grows.
    Vhdx,
    /// VDI that grows.
    Vdi,
    /// One expanding Parallels image.
    Parallels,
    /// Parallels bundle: a directory with a plain image and its descriptor.
    ParallelsPlain,
}

impl Format {
    /// Every format, the usual ones first.
    pub const ALL: [Format; 11] = [
        Format::Raw,
        Format::Qcow2,
        Format::VmdkSparse,
        Format::VmdkStream,
        Format::VmdkFlat,
        Format::VhdDynamic,
        Format::VhdFixed,
        Format::Vhdx,
        Format::Vdi,
        Format::Parallels,
        Format::ParallelsPlain,
    ];

    /// The stable name, for people and `--json`.
    pub fn word(self) -> &'static str {
        match self {
            Format::Raw => "raw",
            Format::Qcow2 => "qcow2",
            Format::VmdkSparse => "vmdk",
            Format::VmdkStream => "vmdk-stream",
            Format::VmdkFlat => "vmdk-flat",
            Format::VhdDynamic => "vhd",
            Format::VhdFixed => "vhd-fixed",
            Format::Vhdx => "vhdx",
            Format::Vdi => "vdi",
            Format::Parallels => "parallels",
            Format::ParallelsPlain => "parallels-plain",
        }
    }

    /// The format of a name: those of [`Format::word`], those of the vendors, `stream`, `vpc`.
    pub fn parse(name: &str) -> Option<Format> {
        let name = name.to_ascii_lowercase();
        match name.as_str() {
            "stream" | "streamoptimized" => Some(Format::VmdkStream),
            "monolithicsparse" => Some(Format::VmdkSparse),
            "monolithicflat" | "flat" => Some(Format::VmdkFlat),
            "parallels-fixed" => Some(Format::ParallelsPlain),
            "vpc" => Some(Format::VhdDynamic),
            "qcow" => Some(Format::Qcow2),
            _ => Format::ALL.into_iter().find(|format| format.word() == name),
        }
    }

    /// The format that a file name ends with, as far as one says it.
    pub fn of_extension(extension: &str) -> Option<Format> {
        match extension.to_ascii_lowercase().as_str() {
            "raw" | "img" => Some(Format::Raw),
            "qcow2" => Some(Format::Qcow2),
            "vmdk" => Some(Format::VmdkSparse),
            "vhd" => Some(Format::VhdDynamic),
            "vhdx" => Some(Format::Vhdx),
            "vdi" => Some(Format::Vdi),
            "hds" => Some(Format::Parallels),
            "hdd" => Some(Format::ParallelsPlain),
            _ => None,
        }
    }
}

/// How data is compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Compression {
    /// As the format always does: not at all, but `streamOptimized` with zlib.
    #[default]
    Usual,
    /// Deflate: QCOW2 and `streamOptimized`.
    Zlib,
    /// Zstandard: QCOW2.
    Zstd,
}

impl Compression {
    /// The compression of a name: `none`, `zlib`, `zstd`.
    pub fn parse(name: &str) -> Option<Compression> {
        match name {
            "none" => Some(Compression::Usual),
            "zlib" | "deflate" => Some(Compression::Zlib),
            "zstd" => Some(Compression::Zstd),
            _ => None,
        }
    }
}

/// What becomes of the page cache while a disk is converted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Cache {
    /// As `Drop` for more data than half of memory holds, otherwise as `Keep`.
    #[default]
    Auto,
    /// What was read and written stays there as long as the system likes.
    Keep,
    /// It is written out and forgotten on the way, so that other data stay.
    Drop,
}

impl Cache {
    /// The choice of a name: `auto`, `keep`, `drop`.
    pub fn parse(name: &str) -> Option<Cache> {
        match name {
            "auto" => Some(Cache::Auto),
            "keep" => Some(Cache::Keep),
            "drop" => Some(Cache::Drop),
            _ => None,
        }
    }
}

/// How a disk is converted.
#[derive(Clone, Debug)]
pub struct ConvertOptions {
    /// What is made.
    pub format: Format,
    /// How data is compressed.
    pub compression: Compression,
    /// How hard: 1 to 12 for zlib, 1 to 19 for zstd; otherwise 5 and 3.
    pub level: Option<i32>,
    /// Unit of allocation: QCOW2 cluster, VMDK grain, VHD or VHDX block. Unit: bytes.
    pub cluster_size_bytes: Option<u64>,
    /// Search data for zeros, which then are not stored.
    pub detect_zeroes: bool,
    /// Hash what is read, open the result, and compare it with the source.
    pub verify: bool,
    /// Threads that read, decode and encode; otherwise one for every processor.
    pub threads: Option<usize>,
    /// Replace a file that is in the way.
    pub overwrite: bool,
    /// Make the file durable before it has its name. `verify` does so anyway.
    pub sync: bool,
    /// Keep what is done when the conversion ends early, and carry on what an earlier one left.
    /// At most one percent of moving the data is done again, and of hashing it; a comparison
    /// that `verify` had begun begins anew.
    pub resume: bool,
    /// What becomes of the page cache.
    pub cache: Cache,
    /// Identity of the new image; otherwise a random one.
    pub identity: Option<[u8; 16]>,
    /// Whole-content hashes are made up to this volume of holes; beyond it only the block hash.
    /// Unit: bytes.
    pub hashed_holes_bytes_max: u64,
}

impl ConvertOptions {
    /// To a format, with what is usual for it.
    pub fn to(format: Format) -> Self {
        ConvertOptions {
            format,
            compression: Compression::Usual,
            level: None,
            cluster_size_bytes: None,
            detect_zeroes: true,
            verify: false,
            threads: None,
            overwrite: false,
            sync: false,
            resume: false,
            cache: Cache::Auto,
            identity: None,
            hashed_holes_bytes_max: 64 << 30,
        }
    }

    /// Refuses what the format does not have.
    ///
    /// Errors: `Invalid`.
    pub fn check(&self) -> Result<()> {
        let refuse = |detail: String, advice: &str| {
            Err(Error::invalid(Problem::BadValue, detail).advise(advice))
        };
        let word = self.format.word();
        let levels = match (self.format, self.compression) {
            (Format::Qcow2 | Format::VmdkStream, Compression::Zlib)
            | (Format::VmdkStream, Compression::Usual) => Some(1..=12),
            (Format::Qcow2, Compression::Zstd) => Some(1..=19),
            (_, Compression::Usual) => None,
            (_, compression) => {
                let detail = format!("{word} images have no {compression:?} compression");
                return refuse(detail, "qcow2 has zlib and zstd, vmdk-stream zlib");
            }
        };
        match (self.level, levels) {
            (Some(level), None) => {
                return refuse(format!("level {level} of nothing"), "choose a compression first");
            }
            (Some(level), Some(levels)) if !levels.contains(&level) => {
                let advice = format!("levels are {} to {}", levels.start(), levels.end());
                return refuse(format!("level {level}"), &advice);
            }
            _ => {}
        }
        let sized = matches!(
            self.format,
            Format::Qcow2 | Format::VmdkSparse | Format::VhdDynamic | Format::Vhdx
        );
        match self.cluster_size_bytes {
            Some(size) if !sized => {
                let detail = format!("units of {size} bytes in a {word} image");
                refuse(detail, "qcow2, vmdk, vhd and vhdx have a choice")
            }
            _ => Ok(()),
        }
    }
}

/// What a conversion did. Units: bytes.
#[derive(Clone, Debug, Default)]
pub struct Converted {
    /// Length of the disk that was read.
    pub virtual_bytes: u64,
    /// How much of it was stored.
    pub data_bytes: u64,
    /// Of these, moved by the kernel without passing through this process.
    pub in_kernel_bytes: u64,
    /// Data of the source that an earlier run had moved.
    pub resumed_bytes: u64,
    /// Length of the new file, or of the extent beside its descriptor.
    pub file_bytes: u64,
    /// The hashes of the disk's content, when verified.
    pub hashes: Option<Hashes>,
    pub(crate) source: String,
    pub(crate) target: String,
}

impl Converted {
    /// The manifest of the conversion. Hashes and sizes are those of the disk, not of the file.
    pub fn manifest(&self) -> Manifest {
        let hashes = self.hashes.clone();
        let whole = hashes.clone().unwrap_or_default();
        let entry = FileEntry {
            source: self.source.clone(),
            target: self.target.clone(),
            size_bytes: self.virtual_bytes,
            copied_bytes: self.data_bytes,
            hole_bytes: self.virtual_bytes.saturating_sub(self.data_bytes),
            sha256: whole.sha256,
            blake3: whole.blake3,
            data_blake3: hashes.map(|hashes| hashes.data_blake3),
            ..FileEntry::default()
        };
        Manifest::new(self.source.clone(), self.target.clone(), vec![entry], Vec::new())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_format_is_found_by_its_word() {
        for format in Format::ALL {
            assert_eq!(Format::parse(format.word()), Some(format));
            ConvertOptions::to(format).check().unwrap();
        }
    }

    #[test]
    fn options_that_a_format_lacks_are_refused() {
        let refused = |change: fn(&mut ConvertOptions), format| {
            let mut options = ConvertOptions::to(format);
            change(&mut options);
            options.check().is_err()
        };
        assert!(refused(|it| it.compression = Compression::Zstd, Format::VmdkStream));
        assert!(refused(|it| it.compression = Compression::Zlib, Format::Vhdx));
        assert!(refused(|it| it.level = Some(5), Format::Qcow2));
        assert!(refused(|it| it.level = Some(13), Format::VmdkStream));
        assert!(refused(|it| it.cluster_size_bytes = Some(65536), Format::Raw));
    }
}
