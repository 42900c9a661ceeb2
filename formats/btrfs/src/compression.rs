//! Compressed extents, at most 128 KiB before and after.

use adit_core::bytes::{index, narrow, u32_le};
use adit_core::{Error, Problem, Result};
use std::num::NonZeroU64;

/// No compressed extent holds more, nor takes more. Unit: bytes.
pub(crate) const COMPRESSED_MAX: u64 = 128 << 10;
/// Window of zstd that is still taken; btrfs uses 17. Unit: power of two.
const WINDOW_MAX: u32 = 20;

/// How an extent is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Compression {
    None,
    Zlib,
    Lzo,
    Zstd,
}

impl Compression {
    /// By its number.
    ///
    /// Errors: `Unsupported`.
    pub fn from_number(number: u8) -> Result<Compression> {
        Ok(match number {
            0 => Compression::None,
            1 => Compression::Zlib,
            2 => Compression::Lzo,
            3 => Compression::Zstd,
            _ => return Err(Error::unsupported(format!("compression of type {number}"))),
        })
    }

    /// Its name.
    pub fn word(self) -> &'static str {
        match self {
            Compression::None => "none",
            Compression::Zlib => "zlib",
            Compression::Lzo => "lzo",
            Compression::Zstd => "zstd",
        }
    }

    /// Fills `output`, which is as long as the extent before compression.
    ///
    /// Errors: `Corrupt`. An extent that ends less than a sector early ends in zeros, which is
    /// how kernels fill the last page; one that ends earlier is damaged.
    pub fn decompress(self, input: &[u8], output: &mut [u8], sector: NonZeroU64) -> Result<()> {
        let filled = match self {
            Compression::None => {
                let length = input.len().min(output.len());
                for (to, from) in output.iter_mut().zip(input) {
                    *to = *from;
                }
                length
            }
            Compression::Zlib => zlib(input, output)?,
            Compression::Lzo => lzo(input, output, sector)?,
            Compression::Zstd => zstd(input, output)?,
        };
        let rest = output.get_mut(filled..).unwrap_or(&mut []);
        if narrow(sector.get()).is_none_or(|sector| rest.len() >= sector) {
            let detail = format!("{} data ends {} bytes early", self.word(), rest.len());
            return Err(Error::corrupt(Problem::Truncated, detail));
        }
        rest.fill(0);
        Ok(())
    }
}

fn zlib(input: &[u8], output: &mut [u8]) -> Result<usize> {
    let mut stream = flate2::Decompress::new(true);
    let done = stream.decompress(input, output, flate2::FlushDecompress::Finish);
    let filled = narrow(stream.total_out()).unwrap_or(0);
    match done {
        Ok(flate2::Status::StreamEnd) => Ok(filled),
        // More than fits: the rest is of no use, as kernels have it too.
        Ok(_) if filled == output.len() => Ok(filled),
        Ok(_) => Err(Error::corrupt(Problem::Truncated, "zlib data is cut off")),
        Err(error) => Err(Error::corrupt(Problem::BadValue, format!("zlib data: {error}"))),
    }
}

fn zstd(input: &[u8], output: &mut [u8]) -> Result<usize> {
    use zstd::stream::raw::{DParameter, Decoder, InBuffer, Operation, OutBuffer};
    let bad =
        |error: std::io::Error| Error::corrupt(Problem::BadValue, format!("zstd data: {error}"));
    let mut decoder = Decoder::new().map_err(bad)?;
    decoder.set_parameter(DParameter::WindowLogMax(WINDOW_MAX)).map_err(bad)?;
    let length = output.len();
    let mut source = InBuffer::around(input);
    let mut target = OutBuffer::around(output);
    loop {
        let before = (source.pos(), target.pos());
        let left = decoder.run(&mut source, &mut target).map_err(bad)?;
        // What follows the first frame fills up the last sector.
        if left == 0 || target.pos() == length {
            return Ok(target.pos());
        }
        if (source.pos(), target.pos()) == before {
            return Err(Error::corrupt(Problem::Truncated, "zstd data is cut off"));
        }
    }
}

/// The length of all, then segments with their lengths, each a sector of data; no length
/// crosses a sector's end.
fn lzo(input: &[u8], output: &mut [u8], sector: NonZeroU64) -> Result<usize> {
    let cut = || Error::corrupt(Problem::Truncated, "LZO data is cut off");
    let step = narrow(sector.get()).unwrap_or(4096).max(512);
    let total = index(u32_le(input, 0).ok_or_else(cut)?);
    let input = input.get(..total).ok_or_else(cut)?;
    let (mut at, mut filled) = (4usize, 0usize);
    let mut segment = vec![0; step];
    while at < total && filled < output.len() {
        let left = step.saturating_sub(at & step.saturating_sub(1));
        if left < 4 {
            at = at.saturating_add(left);
            continue;
        }
        let length = index(u32_le(input, at).ok_or_else(cut)?);
        at = at.saturating_add(4);
        let end = at.checked_add(length).ok_or_else(cut)?;
        let packed = input.get(at..end).ok_or_else(cut)?;
        let got = crate::lzo::decompress(packed, &mut segment)?;
        let room = output.get_mut(filled..).unwrap_or(&mut []);
        let fits = got.min(room.len());
        for (to, from) in room.iter_mut().zip(segment.iter().take(fits)) {
            *to = *from;
        }
        filled = filled.saturating_add(fits);
        at = end;
    }
    Ok(filled)
}
