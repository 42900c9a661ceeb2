//! LZO1X: bytes that repeat, told by distance and length.
//!
//! An instruction copies what stands some distance back in the output, then up to three bytes
//! of the input; or it copies a run of the input. What a small instruction means depends on how
//! many bytes of input the one before it copied.
//!
//! Source: "LZO stream format as understood by Linux's LZO decompressor" (its bit patterns).

use adit_core::{Error, Problem, Result};

/// After a run of four bytes or more.
const AFTER_RUN: usize = 4;

struct Input<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Input<'a> {
    fn byte(&mut self) -> Result<usize> {
        let byte = self.bytes.get(self.at).copied().ok_or_else(cut)?;
        self.at = self.at.saturating_add(1);
        Ok(byte.into())
    }

    fn run(&mut self, length: usize) -> Result<&'a [u8]> {
        let end = self.at.checked_add(length).ok_or_else(cut)?;
        let run = self.bytes.get(self.at..end).ok_or_else(cut)?;
        self.at = end;
        Ok(run)
    }

    /// A length that did not fit: 255 for every zero byte, then the byte that is none.
    fn long(&mut self, base: usize) -> Result<usize> {
        let mut length = base;
        loop {
            match self.byte()? {
                0 => length = length.saturating_add(255),
                last => return Ok(length.saturating_add(last)),
            }
        }
    }
}

struct Output<'a> {
    bytes: &'a mut [u8],
    at: usize,
}

impl Output<'_> {
    fn push(&mut self, run: &[u8]) -> Result<()> {
        let end = self.at.checked_add(run.len()).ok_or_else(full)?;
        self.bytes.get_mut(self.at..end).ok_or_else(full)?.copy_from_slice(run);
        self.at = end;
        Ok(())
    }

    fn repeat(&mut self, distance: usize, length: usize) -> Result<()> {
        let from = self.at.checked_sub(distance).filter(|_| distance > 0).ok_or_else(|| {
            Error::corrupt(Problem::OutOfRange, format!("LZO goes back {distance} bytes"))
        })?;
        let end = self.at.checked_add(length).filter(|end| *end <= self.bytes.len());
        let end = end.ok_or_else(full)?;
        // Source and target may overlap: then the bytes just written repeat.
        for (step, to) in (self.at..end).enumerate() {
            let byte = self.bytes.get(from.saturating_add(step)).copied().unwrap_or(0);
            if let Some(slot) = self.bytes.get_mut(to) {
                *slot = byte;
            }
        }
        self.at = end;
        Ok(())
    }
}

fn cut() -> Error {
    Error::corrupt(Problem::Truncated, "LZO data is cut off")
}

fn full() -> Error {
    Error::corrupt(Problem::OutOfRange, "LZO data gives more bytes than it may")
}

/// Fills the front of `output` and tells how much of it.
///
/// Errors: `Corrupt`.
pub(crate) fn decompress(input: &[u8], output: &mut [u8]) -> Result<usize> {
    let mut input = Input { bytes: input, at: 0 };
    let mut output = Output { bytes: output, at: 0 };
    let mut state = 0usize;
    if let Some(length) = input.bytes.first().copied().filter(|byte| *byte > 17) {
        input.byte()?;
        let length = usize::from(length).saturating_sub(17);
        output.push(input.run(length)?)?;
        state = length.min(AFTER_RUN);
    }
    loop {
        let code = input.byte()?;
        let (distance, length, after);
        match code {
            0..16 if state == 0 => {
                let length = if code == 0 { input.long(15)? } else { code };
                output.push(input.run(length.saturating_add(3))?)?;
                state = AFTER_RUN;
                continue;
            }
            0..16 => {
                let far = input.byte()?.saturating_mul(4).saturating_add(code >> 2);
                let run = state == AFTER_RUN;
                distance = far.saturating_add(if run { 2049 } else { 1 });
                length = if run { 3 } else { 2 };
                after = code & 3;
            }
            64.. => {
                let far = input.byte()?.saturating_mul(8).saturating_add((code >> 2) & 7);
                distance = far.saturating_add(1);
                length = (code >> 5).saturating_add(1);
                after = code & 3;
            }
            32..64 => {
                let short = code & 31;
                length = if short == 0 { input.long(31)? } else { short }.saturating_add(2);
                let word = input.byte()? | input.byte()? << 8;
                distance = (word >> 2).saturating_add(1);
                after = word & 3;
            }
            16..32 => {
                let short = code & 7;
                length = if short == 0 { input.long(7)? } else { short }.saturating_add(2);
                let word = input.byte()? | input.byte()? << 8;
                let far = (code & 8) << 11 | word >> 2;
                if far == 0 {
                    return Ok(output.at);
                }
                distance = far.saturating_add(0x4000);
                after = word & 3;
            }
        }
        output.repeat(distance, length)?;
        output.push(input.run(after)?)?;
        state = after;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_repeats_and_the_end() {
        // Four bytes; back 4 for 6 and one more byte; the end.
        let input = [21, b'a', b'b', b'c', b'd', 0x20 | 4, 3 << 2 | 1, 0, b'X', 17, 0, 0];
        let mut output = [0; 64];
        let length = decompress(&input, &mut output).unwrap();
        assert_eq!(&output[..length], b"abcdabcdabX");
    }

    #[test]
    fn nothing_outside_is_touched_whatever_the_input() {
        let mut state = 1u32;
        for _ in 0..20_000 {
            let input: Vec<u8> = (0..24)
                .map(|_| {
                    state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    (state >> 24) as u8
                })
                .collect();
            let _ = decompress(&input, &mut [0; 100]);
        }
    }
}
