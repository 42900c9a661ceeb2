//! The first sector of an encrypted volume: which layout, and where the metadata stand.
//!
//! Source: libbde's public format documentation; volumes of Windows Vista, 7 and 10.

use adit_core::bytes::array;
use adit_core::{Error, Place, Problem, Result, on_disk};

pub(crate) const SIGNATURE: [u8; 8] = *b"-FVE-FS-";
const TO_GO: [u8; 8] = *b"MSWIN4.1";

on_disk! {
    /// First sector of a volume encrypted by Windows Vista.
    pub struct VistaHeader (512 bytes, little_endian) {
        0x003 signature: [u8; 8],
        0x00b sector_bytes: u16,
        /// Unit: sectors.
        0x00d cluster_sectors: u8,
        /// First copy of the metadata. Unit: clusters.
        0x038 metadata: u64,
    }
}

on_disk! {
    /// First sector of a volume encrypted by Windows 7 or later.
    pub struct Header (512 bytes, little_endian) {
        0x003 signature: [u8; 8],
        0x00b sector_bytes: u16,
        0x0a0 kind: [u8; 16],
        /// The three copies of the metadata. Unit: bytes.
        0x0b0 metadata: [u64; 3],
    }
}

on_disk! {
    /// First sector of a removable volume: a FAT boot sector that old systems can read.
    pub struct ToGoHeader (512 bytes, little_endian) {
        0x003 signature: [u8; 8],
        0x00b sector_bytes: u16,
        0x1a8 kind: [u8; 16],
        /// The three copies of the metadata. Unit: bytes.
        0x1b8 metadata: [u64; 3],
    }
}

/// 4967d63b-2e29-4ad8-8399-f6a339e3d001, as it stands on the disk.
const WHOLE: [u8; 16] = [
    0x3b, 0xd6, 0x67, 0x49, 0x29, 0x2e, 0xd8, 0x4a, 0x83, 0x99, 0xf6, 0xa3, 0x39, 0xe3, 0xd0, 0x01,
];
/// 92a84d3b-dd80-4d0e-9e4e-b1e3284eaed8, as it stands on the disk: encryption of used space only,
/// before its conversion is done.
const USED_ONLY: [u8; 16] = [
    0x3b, 0x4d, 0xa8, 0x92, 0x80, 0xdd, 0x0e, 0x4d, 0x9e, 0x4e, 0xb1, 0xe3, 0x28, 0x4e, 0xae, 0xd8,
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Layout {
    Vista,
    Seven,
    ToGo,
}

impl Layout {
    pub fn word(self) -> &'static str {
        match self {
            Layout::Vista => "Windows Vista",
            Layout::Seven => "Windows 7 or later",
            Layout::ToGo => "BitLocker To Go",
        }
    }
}

/// What the first sector says.
#[derive(Debug, Clone)]
pub(crate) struct Start {
    pub layout: Layout,
    /// A conversion by used space goes on, or went on when the image was taken.
    pub used_only: bool,
    /// Unit: bytes.
    pub sector_bytes: u32,
    /// Copies of the metadata. Unit: bytes.
    pub metadata: Vec<u64>,
}

/// The layout, if the sector is that of an encrypted volume.
pub(crate) fn layout(sector: &[u8]) -> Option<(Layout, bool)> {
    let known = |at: usize| match array::<16>(sector, at)? {
        WHOLE => Some(false),
        USED_ONLY => Some(true),
        _ => None,
    };
    match (array::<8>(sector, 3)?, sector.get(..2)?) {
        (SIGNATURE, [0xeb, 0x52]) => Some((Layout::Vista, false)),
        (SIGNATURE, _) => known(0xa0).map(|used| (Layout::Seven, used)),
        (TO_GO, _) => known(0x1a8).map(|used| (Layout::ToGo, used)),
        _ => None,
    }
}

pub(crate) fn parse(sector: &[u8]) -> Result<Start> {
    let place = || Place::new("BitLocker volume header").byte(0);
    let (layout, used_only) = layout(sector).ok_or_else(|| {
        Error::corrupt(Problem::BadMagic, "no BitLocker volume header").at(place())
    })?;
    let (sector_bytes, metadata) = match layout {
        Layout::Vista => {
            let header = VistaHeader::read(sector)?;
            let cluster =
                u64::from(header.sector_bytes).saturating_mul(header.cluster_sectors.into());
            let first = header.metadata.checked_mul(cluster).ok_or_else(|| {
                Error::corrupt(Problem::OutOfRange, "the metadata stand beyond any disk")
                    .at(place().field("metadata"))
            })?;
            (header.sector_bytes, vec![first])
        }
        Layout::Seven => {
            let header = Header::read(sector)?;
            (header.sector_bytes, header.metadata.to_vec())
        }
        Layout::ToGo => {
            let header = ToGoHeader::read(sector)?;
            (header.sector_bytes, header.metadata.to_vec())
        }
    };
    if !matches!(sector_bytes, 512 | 1024 | 2048 | 4096) {
        let detail = format!("sectors of {sector_bytes} bytes");
        return Err(Error::corrupt(Problem::BadValue, detail).at(place().field("bytes per sector")));
    }
    Ok(Start { layout, used_only, sector_bytes: sector_bytes.into(), metadata })
}
