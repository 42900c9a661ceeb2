//! From a unit as it was read to the bytes that are stored.

use crate::probe::is_incompressible;
use adit_core::{Error, Problem, Result};
use libdeflater::{CompressionLvl, Compressor};

/// What is made of every unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Coding {
    /// Nothing.
    Plain,
    /// Raw deflate of a QCOW2 cluster.
    Deflate(i32),
    /// A zstd frame of a QCOW2 cluster.
    Zstd(i32),
    /// A grain of a VMDK stream, marker and padding with it.
    Grain(i32),
}

/// The compressor of one thread.
pub(crate) enum Encoder {
    Plain,
    Deflate(Compressor),
    Zstd(zstd::bulk::Compressor<'static>),
    Grain {
        compressor: Compressor,
        /// For what does not compress: stored blocks.
        stored: Compressor,
    },
}

impl Encoder {
    pub fn new(coding: Coding) -> Result<Encoder> {
        let bad = |level: i32| Error::invalid(Problem::BadValue, format!("level {level}"));
        let deflate = |level: i32| {
            let level = CompressionLvl::new(level).map_err(|_| bad(level))?;
            Ok::<_, Error>(Compressor::new(level))
        };
        Ok(match coding {
            Coding::Plain => Encoder::Plain,
            Coding::Deflate(level) => Encoder::Deflate(deflate(level)?),
            Coding::Grain(level) => {
                Encoder::Grain { compressor: deflate(level)?, stored: deflate(0)? }
            }
            Coding::Zstd(level) => {
                let zstd = zstd::bulk::Compressor::new(level).map_err(|_| bad(level))?;
                Encoder::Zstd(zstd)
            }
        })
    }

    /// Appends the stored form of the unit at `offset` of the disk to `out`. The result is the
    /// length of the compressed form, or none if the unit is to be stored as it is.
    pub fn encode(&mut self, offset: u64, unit: &[u8], out: &mut Vec<u8>) -> Result<Option<usize>> {
        let start = out.len();
        let smaller = unit.len().saturating_sub(1);
        let length = match self {
            Encoder::Grain { compressor, stored } => {
                let compressor = if is_incompressible(unit) { stored } else { compressor };
                return grain(compressor, offset, unit, out).map(Some);
            }
            Encoder::Plain => None,
            _ if is_incompressible(unit) => None,
            Encoder::Deflate(compressor) => {
                out.resize(start + smaller, 0);
                compressor.deflate_compress(unit, &mut out[start..]).ok()
            }
            // Whatever fails here, the unit itself is at hand.
            Encoder::Zstd(compressor) => {
                out.resize(start + smaller, 0);
                compressor.compress_to_buffer(unit, &mut out[start..]).ok()
            }
        };
        out.truncate(start + length.unwrap_or(0));
        Ok(length)
    }
}

fn grain(
    compressor: &mut Compressor,
    offset: u64,
    unit: &[u8],
    out: &mut Vec<u8>,
) -> Result<usize> {
    let start = out.len();
    let data = start + 12;
    out.resize(data + compressor.zlib_compress_bound(unit.len()), 0);
    let length = compressor
        .zlib_compress(unit, &mut out[data..])
        .map_err(|_| Error::invalid(Problem::OutOfRange, "a grain does not fit its own bound"))?;
    let length_bytes = u32::try_from(length)
        .map_err(|_| Error::invalid(Problem::OutOfRange, "a compressed grain exceeds 4 GiB"))?;
    out[start..data].copy_from_slice(&adit_vmdk::write::grain_marker(offset, length_bytes));
    out.truncate(data + length);
    let padded = (12 + length).next_multiple_of(512);
    out.resize(start + padded, 0);
    Ok(length)
}

impl std::fmt::Debug for Encoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Encoder")
    }
}
