//! Compressed grains.

use crate::SECTOR_BYTES;
use crate::layout::{LENGTH_DATA, MARKER_DATA};
use adit_core::bytes::{narrow, u32_le, u64_le};
use adit_core::{Disk, DiskExt, Error, Kind, Place, Problem, Result};
use libdeflater::Decompressor;
use std::cell::{Cell, RefCell};
use std::sync::Arc;
use zune_inflate::{DeflateDecoder, DeflateOptions};

/// Largest grain that is decoded: a small read must not cost much memory. Unit: bytes.
pub(crate) const GRAIN_BYTES_MAX: u64 = 16 << 20;

/// Longest buffer that a thread keeps from one grain to the next. Unit: bytes.
const KEPT_BYTES_MAX: usize = 1 << 20;

// What a thread needs for every grain. Nobody holds them while a file is read: that may be a
// grain of another stream.
thread_local! {
    static DATA: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
    static FAST: RefCell<Decompressor> = RefCell::new(Decompressor::new());
}

/// How grains are compressed.
#[derive(Clone, Debug)]
pub(crate) struct Coding {
    /// A marker with the grain's sector stands before the data; otherwise only a length.
    pub markers: bool,
    /// Unit: bytes.
    pub grain_bytes: u64,
}

impl Coding {
    /// Longest data a grain can have: what does not compress grows a little. Unit: bytes.
    pub fn length_max(&self) -> u64 {
        let hundredth = self.grain_bytes.checked_div(100).unwrap_or(0);
        self.grain_bytes.saturating_add(hundredth).saturating_add(64)
    }

    /// Fills `buf` with the front of the grain that starts at byte `start` of the extent and
    /// whose data is announced at byte `at` of the file.
    ///
    /// Errors: `Corrupt` if it is another grain, or inflates to less than `buf` or more than a
    /// grain; `Lost` if the file ends before the data does.
    pub fn decode(&self, file: &Arc<dyn Disk>, at: u64, start: u64, buf: &mut [u8]) -> Result<()> {
        self.decode_at(file, at, start, buf)
            .map_err(|error| error.at(Place::new("compressed grain").byte(at)))
    }

    fn decode_at(&self, file: &Arc<dyn Disk>, at: u64, start: u64, buf: &mut [u8]) -> Result<()> {
        let mut data = DATA.take();
        self.read(file, at, start, &mut data)?;
        let most = narrow(self.grain_bytes)
            .filter(|_| self.grain_bytes <= GRAIN_BYTES_MAX)
            .ok_or_else(|| Error::limit("table_bytes_max", "the grain is too large"))?;
        // Whatever the fast way has against a stream, the careful way knows better.
        let fast = |buf: &mut [u8]| FAST.with_borrow_mut(|fast| fast.zlib_decompress(&data, buf));
        if buf.len() != most || fast(buf) != Ok(most) {
            inflate(&data, most, buf)?;
        }
        if data.capacity() <= KEPT_BYTES_MAX {
            DATA.set(data);
        }
        Ok(())
    }

    /// Fills `data` with the compressed bytes.
    fn read(&self, file: &Arc<dyn Disk>, at: u64, start: u64, data: &mut Vec<u8>) -> Result<()> {
        let lead = if self.markers { MARKER_DATA } else { LENGTH_DATA };
        let from = at.saturating_add(lead);
        let cut = || {
            Error::new(Kind::Lost, Problem::Truncated, "the file ends before the grain does")
                .advise("the file was cut short; get a complete copy")
        };
        if from > file.size_bytes() {
            return Err(cut());
        }
        let head = file.read_vec(at, narrow(lead).unwrap_or(0))?;
        let length = if self.markers {
            let sector = u64_le(&head, 0).unwrap_or(0);
            if sector.checked_mul(SECTOR_BYTES) != Some(start) {
                let wanted = start.checked_div(SECTOR_BYTES).unwrap_or(0);
                let detail = format!("the grain of sector {sector} stands where {wanted} should");
                return Err(Error::corrupt(Problem::Mismatch, detail));
            }
            u32_le(&head, 8)
        } else {
            u32_le(&head, 0)
        };
        let length = u64::from(length.unwrap_or(0));
        if length == 0 || length > self.length_max() {
            let detail = format!("{length} bytes are announced for a grain");
            return Err(Error::corrupt(Problem::BadValue, detail));
        }
        if from.saturating_add(length) > file.size_bytes() {
            return Err(cut());
        }
        data.resize(narrow(length).unwrap_or(0), 0);
        file.read_at(data, from)
    }
}

/// The careful way, which tells what is wrong.
fn inflate(data: &[u8], most: usize, buf: &mut [u8]) -> Result<()> {
    // A decoder may stop a little late; what it made is measured below all the same.
    let options = DeflateOptions::default()
        .set_limit(most.saturating_add(1))
        .set_size_hint(most)
        .set_confirm_checksum(true);
    let grain = DeflateDecoder::new_with_options(data, options).decode_zlib().map_err(|e| {
        let problem = Problem::BadValue;
        Error::corrupt(problem, format!("the data cannot be inflated: {:?}", e.error))
    })?;
    if grain.len() > most {
        let detail = format!("it inflates to more than the {most} bytes of a grain");
        return Err(Error::corrupt(Problem::OutOfRange, detail));
    }
    let front = grain.get(..buf.len()).ok_or_else(|| {
        let detail = format!("it inflates to {} of {} bytes", grain.len(), buf.len());
        Error::corrupt(Problem::Truncated, detail)
    })?;
    buf.copy_from_slice(front);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_may_be_a_little_longer_than_the_grain_it_makes() {
        // Seen on a stream whose writer stores what it cannot compress.
        let coding = Coding { markers: true, grain_bytes: 65536 };
        assert!((65562..70000).contains(&coding.length_max()));
    }
}
