//! Arithmetic of power-of-two units: nothing here can overflow or divide by zero.

/// A unit of 2ⁿ. `n` is below 64.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Power(u32);

impl Power {
    /// The unit of 2^`bits`; the caller has checked that `bits` is small.
    pub(crate) const fn new(bits: u32) -> Self {
        Power(if bits < 63 { bits } else { 63 })
    }

    /// `n`.
    pub(crate) const fn bits(self) -> u32 {
        self.0
    }

    /// 2ⁿ.
    pub(crate) const fn size(self) -> u64 {
        1u64.wrapping_shl(self.0)
    }

    /// Which unit `value` lies in.
    pub(crate) const fn index(self, value: u64) -> u64 {
        value.wrapping_shr(self.0)
    }

    /// How far `value` lies inside its unit.
    pub(crate) const fn within(self, value: u64) -> u64 {
        value & self.size().wrapping_sub(1)
    }

    /// First value of the unit `value` lies in.
    pub(crate) const fn floor(self, value: u64) -> u64 {
        value & !self.size().wrapping_sub(1)
    }

    /// Whether `value` is a multiple of the unit.
    pub(crate) const fn divides(self, value: u64) -> bool {
        self.within(value) == 0
    }

    /// Units that hold `value`, the last one perhaps in part.
    pub(crate) const fn count(self, value: u64) -> u64 {
        let whole = self.index(value);
        if self.divides(value) { whole } else { whole.saturating_add(1) }
    }

    /// `count` units, at most `u64::MAX`.
    pub(crate) const fn times(self, count: u64) -> u64 {
        count.saturating_mul(self.size())
    }

    /// A unit of that many of these units.
    pub(crate) const fn of(self, other: Power) -> Power {
        Power::new(self.0.saturating_add(other.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_split_into_unit_and_rest() {
        let unit = Power::new(9);
        assert_eq!((unit.index(1025), unit.within(1025), unit.floor(1025)), (2, 1, 1024));
        assert_eq!((unit.count(1024), unit.count(1025)), (2, 3));
        assert_eq!(unit.times(u64::MAX), u64::MAX);
        assert_eq!(unit.of(Power::new(3)).size(), 4096);
    }
}
