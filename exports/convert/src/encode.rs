//! From a unit as it was read to the bytes that are stored.

use crate::probe::is_incompressible;
use adit_core::{Error, Problem, Result};
use flate2::{Compress, Compression, FlushCompress, Status};
use libdeflater::{CompressionLvl, Compressor};

/// The format allows no longer window, and readers that hold it to that refuse one; libdeflate
/// cannot be told. Unit: bits.
const QCOW_WINDOW_BITS: u8 = 12;

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
    Deflate(Compress),
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
            Coding::Deflate(level) => {
                // zlib's levels end at 9, where libdeflate goes on.
                let level = u32::try_from(level.clamp(1, 9)).map_err(|_| bad(level))?;
                let level = Compression::new(level);
                Encoder::Deflate(Compress::new_with_window_bits(level, false, QCOW_WINDOW_BITS))
            }
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
                // Room for what gets larger too: without it, level 1 of zlib-rs 0.6 panics.
                out.resize(start + unit.len() + unit.len() / 4 + 4096, 0);
                compressor.reset();
                match compressor.compress(unit, &mut out[start..], FlushCompress::Finish) {
                    Ok(Status::StreamEnd) => usize::try_from(compressor.total_out()).ok(),
                    _ => None,
                }
                .filter(|length| *length <= smaller)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_qcow2_cluster_is_compressed_within_the_window_of_the_format() {
        let half: Vec<u8> =
            (0..8192u32).flat_map(|n| n.wrapping_mul(0x9e37_79b9).to_le_bytes()).collect();
        // The halves are equal and 32 KiB apart, and each holds short repeats.
        let mut unit = [half.clone(), half].concat();
        unit.chunks_exact_mut(64).for_each(|chunk| chunk.copy_within(0..16, 32));
        let mut encoder = Encoder::new(Coding::Deflate(6)).unwrap();
        let mut out = Vec::new();
        for _ in 0..2 {
            out.clear();
            let length = encoder.encode(0, &unit, &mut out).unwrap().expect("it compresses");
            // A decoder that keeps 4 KiB and is fed byte by byte has nothing older to look at.
            let mut decoder = flate2::Decompress::new_with_window_bits(false, QCOW_WINDOW_BITS);
            let (mut plain, mut piece) = (Vec::new(), [0; 256]);
            loop {
                let before = decoder.total_out();
                let from = decoder.total_in() as usize;
                let status = decoder
                    .decompress(&out[from..length], &mut piece, flate2::FlushDecompress::None)
                    .unwrap();
                plain.extend_from_slice(&piece[..(decoder.total_out() - before) as usize]);
                if status == Status::StreamEnd {
                    break;
                }
            }
            assert!(plain == unit);
        }
    }

    #[test]
    fn what_does_not_get_smaller_is_left_as_it_is_at_every_level() {
        let noise: Vec<u8> = (0..1u64 << 18)
            .map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ n << 31)
            .flat_map(u64::to_le_bytes)
            .collect();
        for (level, size) in (1..=9).flat_map(|level| [4096, 65_536, 1 << 20].map(|s| (level, s))) {
            let mut encoder = Encoder::new(Coding::Deflate(level)).unwrap();
            for plain in [0, 100, 1000, size / 50, size / 20, size / 4] {
                let mut unit = noise[plain..plain + size].to_vec();
                unit[..plain].fill(b' ');
                let mut out = Vec::new();
                let length = encoder.encode(0, &unit, &mut out).unwrap();
                assert_eq!(out.len(), length.unwrap_or(0));
                let Some(length) = length else { continue };
                assert!(length < size);
                let mut back = Vec::with_capacity(size);
                let mut decoder = flate2::Decompress::new(false);
                let finish = flate2::FlushDecompress::Finish;
                assert_eq!(
                    decoder.decompress_vec(&out, &mut back, finish).unwrap(),
                    Status::StreamEnd
                );
                assert!(back == unit, "level {level}, {size} bytes, {plain} of them plain");
            }
        }
    }
}
