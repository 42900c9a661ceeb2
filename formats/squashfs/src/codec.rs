//! From packed bytes to bytes. Every codec writes into a buffer that was sized before.

use adit_core::{Error, Problem, Result};
use std::io::Read;

/// Largest window of an LZMA stream, as the decoder counts its memory. Unit: KiB.
const LZMA_KIB_MAX: u32 = 16 << 10;

/// How blocks are packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Codec {
    /// zlib.
    Gzip,
    /// LZMA as before xz.
    Lzma,
    /// LZO1X.
    Lzo,
    /// xz.
    Xz,
    /// LZ4 blocks.
    Lz4,
    /// Zstandard.
    Zstd,
}

impl Codec {
    pub(crate) fn of(number: u16) -> Option<Codec> {
        Some(match number {
            1 => Codec::Gzip,
            2 => Codec::Lzma,
            3 => Codec::Lzo,
            4 => Codec::Xz,
            5 => Codec::Lz4,
            6 => Codec::Zstd,
            _ => return None,
        })
    }

    /// Its usual name.
    pub fn title(self) -> &'static str {
        match self {
            Codec::Gzip => "gzip",
            Codec::Lzma => "lzma",
            Codec::Lzo => "lzo",
            Codec::Xz => "xz",
            Codec::Lz4 => "lz4",
            Codec::Zstd => "zstd",
        }
    }

    /// Unpacks a whole block and gives its length.
    ///
    /// Errors: `Corrupt` where it cannot be unpacked, or not into `out`.
    pub(crate) fn unpack(self, packed: &[u8], out: &mut [u8]) -> Result<usize> {
        let bad = |why: &dyn std::fmt::Display| {
            let detail = format!("cannot be unpacked as {}: {why}", self.title());
            Error::corrupt(Problem::BadChecksum, detail)
        };
        match self {
            Codec::Gzip => {
                let mut inflate = flate2::Decompress::new(true);
                match inflate.decompress(packed, out, flate2::FlushDecompress::Finish) {
                    Ok(flate2::Status::StreamEnd) => {
                        usize::try_from(inflate.total_out()).map_err(|error| bad(&error))
                    }
                    Ok(_) => Err(bad(&"it does not end where it should")),
                    Err(error) => Err(bad(&error)),
                }
            }
            Codec::Lzma => {
                let reader = lzma_rust2::LzmaReader::new_mem_limit(packed, LZMA_KIB_MAX, None);
                fill(reader.map_err(|error| bad(&error))?, out).map_err(|error| bad(&error))
            }
            Codec::Lzo => crate::lzo::unpack(packed, out).ok_or_else(|| bad(&"it makes no sense")),
            Codec::Xz => crate::xz::unpack(packed, out).map_err(|error| bad(&error)),
            Codec::Lz4 => {
                lz4_flex::block::decompress_into(packed, out).map_err(|error| bad(&error))
            }
            Codec::Zstd => {
                zstd::bulk::decompress_to_buffer(packed, out).map_err(|error| bad(&error))
            }
        }
    }
}

/// Reads to the end, which must come before `out` is too short.
pub(crate) fn fill(mut reader: impl Read, out: &mut [u8]) -> std::io::Result<usize> {
    let mut filled = 0usize;
    while let Some(rest) = out.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match reader.read(rest)? {
            0 => return Ok(filled),
            count => filled = filled.saturating_add(count),
        }
    }
    match reader.read(&mut [0])? {
        0 => Ok(filled),
        _ => Err(std::io::Error::other("it is longer than a block")),
    }
}
