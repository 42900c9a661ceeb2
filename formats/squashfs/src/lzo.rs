//! LZO1X: literals and copies of what came before, told apart by the byte that leads each.
//!
//! Source: the published description of the stream as Linux understands it.

/// Distance from which on the longest copies count.
const FAR: usize = 0x4000;
/// Distance from which on three-byte copies after literals count.
const MIDDLE: usize = 0x0801;

/// Unpacks a block and gives its length; nothing where it makes no sense or does not fit.
pub(crate) fn unpack(packed: &[u8], out: &mut [u8]) -> Option<usize> {
    let mut stream = Stream { packed, from: 0, out, to: 0 };
    // How many literals came right before; 4 stands for a run of them.
    let mut state = 0usize;
    let first = usize::from(*packed.first()?);
    if first > 17 {
        stream.from = 1;
        let count = first.saturating_sub(17);
        stream.literals(count)?;
        state = count.min(4);
    }
    loop {
        let lead = usize::from(stream.byte()?);
        let (distance, length, literals) = match lead {
            0..=15 if state == 0 => {
                let count = stream.long(lead, 15)?.checked_add(3)?;
                stream.literals(count)?;
                state = 4;
                continue;
            }
            0..=15 => {
                let more = usize::from(stream.byte()?).checked_mul(4)?;
                let distance = (lead >> 2).checked_add(more)?;
                match state {
                    4 => (distance.checked_add(MIDDLE)?, 3, lead & 3),
                    _ => (distance.checked_add(1)?, 2, lead & 3),
                }
            }
            16..=31 => {
                let length = stream.long(lead & 7, 7)?.checked_add(2)?;
                let two = stream.two()?;
                let distance = ((lead & 8) << 11).checked_add(two >> 2)?;
                if distance == 0 {
                    // The end, which nothing may follow.
                    let whole = stream.from == packed.len() && length == 3;
                    return whole.then_some(stream.to);
                }
                (distance.checked_add(FAR)?, length, two & 3)
            }
            32..=63 => {
                let length = stream.long(lead & 31, 31)?.checked_add(2)?;
                let two = stream.two()?;
                ((two >> 2).checked_add(1)?, length, two & 3)
            }
            _ => {
                let more = usize::from(stream.byte()?).checked_mul(8)?;
                let distance = ((lead >> 2) & 7).checked_add(more)?.checked_add(1)?;
                (distance, (lead >> 5).checked_add(1)?, lead & 3)
            }
        };
        stream.copy(distance, length)?;
        stream.literals(literals)?;
        state = literals;
    }
}

struct Stream<'a> {
    packed: &'a [u8],
    from: usize,
    out: &'a mut [u8],
    to: usize,
}

impl Stream<'_> {
    fn byte(&mut self) -> Option<u8> {
        let byte = *self.packed.get(self.from)?;
        self.from = self.from.checked_add(1)?;
        Some(byte)
    }

    fn two(&mut self) -> Option<usize> {
        let low = usize::from(self.byte()?);
        Some(low | usize::from(self.byte()?) << 8)
    }

    /// A length that goes on in further bytes where its first bits are all zero.
    fn long(&mut self, bits: usize, base: usize) -> Option<usize> {
        if bits != 0 {
            return Some(bits);
        }
        let mut length = base;
        loop {
            match self.byte()? {
                0 => length = length.checked_add(255)?,
                last => return length.checked_add(usize::from(last)),
            }
        }
    }

    fn literals(&mut self, count: usize) -> Option<()> {
        let (from, to) = (self.from.checked_add(count)?, self.to.checked_add(count)?);
        self.out.get_mut(self.to..to)?.copy_from_slice(self.packed.get(self.from..from)?);
        (self.from, self.to) = (from, to);
        Some(())
    }

    /// Copies what came before; a copy may run into itself.
    fn copy(&mut self, distance: usize, length: usize) -> Option<()> {
        let start = self.to.checked_sub(distance)?;
        let end = self.to.checked_add(length).filter(|end| *end <= self.out.len())?;
        if distance >= length {
            let stop = start.checked_add(length)?;
            self.out.copy_within(start..stop, self.to);
        } else {
            for (from, to) in (start..).zip(self.to..end) {
                let byte = *self.out.get(from)?;
                *self.out.get_mut(to)? = byte;
            }
        }
        self.to = end;
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_and_a_copy_into_itself() {
        // Five literals, a copy of 10 from distance 5, the end.
        let packed = [22, b'a', b'b', b'c', b'd', b'e', 32 | 8, 4 << 2, 0, 17, 0, 0];
        let mut out = [0; 15];
        assert_eq!(unpack(&packed, &mut out), Some(15));
        assert_eq!(&out, b"abcdeabcdeabcde");
        assert_eq!(unpack(&packed, &mut [0; 14]), None);
        assert_eq!(unpack(&packed[..9], &mut out), None);
        // From before the start.
        assert_eq!(unpack(&[22, 1, 2, 3, 4, 5, 40, 5 << 2, 0, 17, 0, 0], &mut out), None);
    }
}
