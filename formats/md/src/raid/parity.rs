//! Levels 4, 5 and 6: where data and parity stand, and data computed from parity.

use super::{Array, Spot, bad, gf, leg};
use adit_core::bytes::wide;
use adit_core::{Error, Place, Problem, Result, Run, RunKind};

/// How parity moves over the members from stripe to stripe. Names as in Linux and in SNIA's DDF.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rotation {
    /// Parity moves left, data begins with the first member.
    LeftAsymmetric,
    /// Parity moves right, data begins with the first member.
    RightAsymmetric,
    /// Parity moves left, data begins after it.
    LeftSymmetric,
    /// Parity moves right, data begins after it.
    RightSymmetric,
    /// Parity on the first member or members.
    First,
    /// Parity on the last member or members.
    Last,
    /// DDF: parity moves right, data begins with the first member; P and Q counted in place.
    ZeroRestart,
    /// DDF: parity moves left, one stripe ahead; P and Q counted in place.
    NRestart,
    /// DDF: parity moves left, Q before P, data begins after P; P and Q counted in place.
    NContinue,
    /// Q on the last member, the others as level 5 left asymmetric.
    LeftAsymmetric6,
    /// Q on the last member, the others as level 5 right asymmetric.
    RightAsymmetric6,
    /// Q on the last member, the others as level 5 left symmetric.
    LeftSymmetric6,
    /// Q on the last member, the others as level 5 right symmetric.
    RightSymmetric6,
    /// P on the first member, Q on the last.
    First6,
}

impl Rotation {
    /// The rotation that a level 5 superblock means by its `layout`.
    pub fn of_level5(layout: u32) -> Option<Self> {
        use Rotation::*;
        Some(match layout {
            0 => LeftAsymmetric,
            1 => RightAsymmetric,
            2 => LeftSymmetric,
            3 => RightSymmetric,
            4 => First,
            5 => Last,
            _ => return None,
        })
    }

    /// The rotation that a level 6 superblock means by its `layout`.
    pub fn of_level6(layout: u32) -> Option<Self> {
        use Rotation::*;
        Some(match layout {
            0..=5 => return Self::of_level5(layout),
            8 => ZeroRestart,
            9 => NRestart,
            10 => NContinue,
            16 => LeftAsymmetric6,
            17 => RightAsymmetric6,
            18 => LeftSymmetric6,
            19 => RightSymmetric6,
            20 => First6,
            _ => return None,
        })
    }

    /// Whether P and Q count as blocks of their own in the powers of Q.
    fn counts_in_place(self) -> bool {
        matches!(self, Rotation::ZeroRestart | Rotation::NRestart | Rotation::NContinue)
    }
}

#[derive(Debug)]
pub(super) struct Parity {
    legs: u64,
    data: u64,
    chunk: u64,
    rotation: Rotation,
    q: bool,
    trusted: bool,
    size_bytes: u64,
}

/// Where a byte stands and what protects it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stripe {
    /// The member that holds the byte.
    pub leg: usize,
    /// Where on every member of the stripe. Unit: bytes.
    pub offset: u64,
    /// To the end of the chunk.
    pub length: u64,
    /// The member with P.
    pub p: usize,
    /// The member with Q.
    pub q: Option<usize>,
}

impl Parity {
    pub fn new(
        legs: usize,
        smallest: u64,
        chunk: u64,
        rotation: Rotation,
        q: bool,
        trusted: bool,
    ) -> Result<Self> {
        let legs = wide(legs);
        let data = legs.saturating_sub(if q { 2 } else { 1 });
        if data == 0 || legs > 255 {
            let detail = format!("{legs} members make no array with parity");
            return Err(Error::corrupt(Problem::BadValue, detail).at(Place::new("array")));
        }
        let rows = smallest.checked_div(chunk).ok_or_else(|| bad("chunk"))?;
        let size = rows.checked_mul(chunk).and_then(|size| size.checked_mul(data));
        let size_bytes = size.ok_or_else(|| bad("size"))?;
        let level = Parity { legs, data, chunk, rotation, q, trusted, size_bytes };
        let six_only = rotation.counts_in_place()
            || matches!(
                rotation,
                Rotation::LeftAsymmetric6
                    | Rotation::RightAsymmetric6
                    | Rotation::LeftSymmetric6
                    | Rotation::RightSymmetric6
                    | Rotation::First6
            );
        if six_only && !q {
            let detail = format!("{rotation:?} needs two syndromes");
            return Err(Error::corrupt(Problem::BadValue, detail).at(Place::new("array")));
        }
        Ok(level)
    }

    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    pub fn stripe(&self, offset: u64) -> Result<Stripe> {
        let number = offset.checked_div(self.chunk).ok_or_else(|| bad("chunk"))?;
        let within = offset.checked_rem(self.chunk).ok_or_else(|| bad("chunk"))?;
        let row = number.checked_div(self.data).ok_or_else(|| bad("members"))?;
        let turn = number.checked_rem(self.data).ok_or_else(|| bad("members"))?;
        let (member, p, q) = self.members(row, turn).ok_or_else(|| bad("members"))?;
        let at = row.checked_mul(self.chunk).and_then(|at| at.checked_add(within));
        Ok(Stripe {
            leg: leg(member),
            offset: at.ok_or_else(|| bad("offset"))?,
            length: self.chunk.saturating_sub(within),
            p: leg(p),
            q: q.map(leg),
        })
    }

    /// The members that hold data block `turn` of stripe `row`, P and Q.
    fn members(&self, row: u64, turn: u64) -> Option<(u64, u64, Option<u64>)> {
        if !self.q {
            let (member, p) = self.rotate(self.rotation, self.legs, row, turn)?;
            return Some((member, p, None));
        }
        let n = self.legs;
        let last = n.checked_sub(1)?;
        let level5 = |rotation| {
            let (member, p) = self.rotate(rotation, last, row, turn)?;
            Some((member, p, Some(last)))
        };
        // P, with Q behind it and data in the places that are left.
        let restart = |p: u64| match p == last {
            true => Some((turn.checked_add(1)?, p, Some(0))),
            false => {
                let skip = if turn >= p { 2 } else { 0 };
                Some((turn.checked_add(skip)?, p, Some(p.checked_add(1)?)))
            }
        };
        let after = |p: u64| {
            let q = p.checked_add(1)?.checked_rem(n)?;
            Some((p.checked_add(2)?.checked_add(turn)?.checked_rem(n)?, p, Some(q)))
        };
        let right = row.checked_rem(n)?;
        let left = last.checked_sub(right)?;
        match self.rotation {
            Rotation::LeftAsymmetric => restart(left),
            Rotation::RightAsymmetric | Rotation::ZeroRestart => restart(right),
            Rotation::NRestart => restart(last.checked_sub(row.checked_add(1)?.checked_rem(n)?)?),
            Rotation::LeftSymmetric => after(left),
            Rotation::RightSymmetric => after(right),
            Rotation::NContinue => {
                let q = left.checked_add(last)?.checked_rem(n)?;
                Some((left.checked_add(1)?.checked_add(turn)?.checked_rem(n)?, left, Some(q)))
            }
            Rotation::First => Some((turn.checked_add(2)?, 0, Some(1))),
            Rotation::Last => Some((turn, self.data, Some(last))),
            Rotation::LeftAsymmetric6 => level5(Rotation::LeftAsymmetric),
            Rotation::RightAsymmetric6 => level5(Rotation::RightAsymmetric),
            Rotation::LeftSymmetric6 => level5(Rotation::LeftSymmetric),
            Rotation::RightSymmetric6 => level5(Rotation::RightSymmetric),
            Rotation::First6 => level5(Rotation::First),
        }
    }

    /// Level 5 over `n` members.
    fn rotate(&self, rotation: Rotation, n: u64, row: u64, turn: u64) -> Option<(u64, u64)> {
        let right = row.checked_rem(n)?;
        let left = n.checked_sub(1)?.checked_sub(right)?;
        let beside = |p: u64| Some((turn.checked_add(u64::from(turn >= p))?, p));
        let after = |p: u64| Some((p.checked_add(1)?.checked_add(turn)?.checked_rem(n)?, p));
        match rotation {
            Rotation::LeftAsymmetric => beside(left),
            Rotation::RightAsymmetric => beside(right),
            Rotation::LeftSymmetric => after(left),
            Rotation::RightSymmetric => after(right),
            Rotation::First => beside(0),
            Rotation::Last => beside(n.checked_sub(1)?),
            _ => None,
        }
    }

    /// The power of 2 by which each member's block counts in Q; none for P and Q themselves.
    fn weights(&self, stripe: &Stripe) -> Vec<Option<u64>> {
        let legs = leg(self.legs);
        let mut weights = vec![None; legs];
        let is_parity = |member: usize| member == stripe.p || Some(member) == stripe.q;
        let first = match stripe.q {
            Some(q) if !self.rotation.counts_in_place() => q.saturating_add(1),
            _ => 0,
        };
        let mut next = 0u64;
        for step in 0..legs {
            let member = first.saturating_add(step).checked_rem(legs).unwrap_or(0);
            if let Some(weight) = weights.get_mut(member).filter(|_| !is_parity(member)) {
                *weight = Some(next);
            }
            if !is_parity(member) || self.rotation.counts_in_place() {
                next = next.saturating_add(1);
            }
        }
        weights
    }
}

/// What is left of a stripe beside the block that is wanted.
struct Rest {
    /// Members whose data are missing too.
    gone: Vec<usize>,
    /// Whether P can be read.
    p: bool,
    /// Whether Q can be read.
    q: bool,
}

impl Rest {
    fn can_recover(&self) -> bool {
        match self.gone.len() {
            0 => self.p || self.q,
            1 => self.p && self.q,
            _ => false,
        }
    }
}

impl Array {
    pub(super) fn lookup_parity(&self, parity: &Parity, at: u64, at_most: u64) -> Result<Run> {
        let stripe = parity.stripe(at)?;
        let spot = Spot { leg: stripe.leg, offset: stripe.offset, length: stripe.length };
        if let Some(spot) = self.readable(spot) {
            return Ok(self.stored(at, spot));
        }
        let run = self.lost(at, spot, None);
        if !parity.trusted {
            let why = "the array was not synchronised, or in use when it stopped, so that its \
                       parity cannot be trusted";
            return Ok(Run { length: run.length, ..self.lost(at, spot, Some(why)) });
        }
        let (rest, length) = self.rest(&stripe, run.length.min(at_most.max(1)));
        if rest.can_recover() {
            return Ok(Run { start: at, length, kind: RunKind::Encoded { token: 0 } });
        }
        let why = "too many other members are missing to compute it";
        Ok(Run { length, ..self.lost(at, spot, Some(why)) })
    }

    /// What else is missing, and for how many bytes that holds.
    fn rest(&self, stripe: &Stripe, length: u64) -> (Rest, u64) {
        let mut rest = Rest { gone: Vec::new(), p: false, q: false };
        let mut length = length;
        for (number, member) in self.legs.iter().enumerate().filter(|(n, _)| *n != stripe.leg) {
            let there = member.readable(stripe.offset, length);
            if there > 0 {
                length = there;
            } else {
                // A lost range may end before the run does.
                let spot = Spot { leg: number, offset: stripe.offset, length };
                length = self.lost(0, spot, None).length;
            }
            match number {
                n if n == stripe.p => rest.p = there > 0,
                n if Some(n) == stripe.q => rest.q = there > 0,
                n if there == 0 => rest.gone.push(n),
                _ => {}
            }
        }
        (rest, length)
    }

    /// Computes the bytes of a missing data block.
    pub(super) fn reconstruct(&self, parity: &Parity, at: u64, buf: &mut [u8]) -> Result<()> {
        let stripe = parity.stripe(at)?;
        let (rest, length) = self.rest(&stripe, wide(buf.len()));
        if !rest.can_recover() || length < wide(buf.len()) {
            return Err(Error::lost("too many members are missing to compute it"));
        }
        match rest.gone.first() {
            None if rest.p => self.by_p(&stripe, buf),
            None => self.by_q(parity, &stripe, buf),
            Some(&other) => self.by_both(parity, &stripe, other, buf),
        }
    }

    fn others(&self, stripe: &Stripe, but: Option<usize>) -> impl Iterator<Item = usize> {
        let (own, p, q) = (stripe.leg, stripe.p, stripe.q);
        (0..self.legs.len()).filter(move |&n| n != own && n != p && Some(n) != q && Some(n) != but)
    }

    fn block(&self, member: usize, stripe: &Stripe, into: &mut [u8]) -> Result<()> {
        let member = self.legs.get(member).ok_or_else(|| bad("members"))?;
        member.read(into, stripe.offset)
    }

    fn by_p(&self, stripe: &Stripe, buf: &mut [u8]) -> Result<()> {
        self.block(stripe.p, stripe, buf)?;
        let mut block = vec![0; buf.len()];
        for member in self.others(stripe, None) {
            self.block(member, stripe, &mut block)?;
            gf::add(buf, &block);
        }
        Ok(())
    }

    fn by_q(&self, parity: &Parity, stripe: &Stripe, buf: &mut [u8]) -> Result<()> {
        let weights = parity.weights(stripe);
        self.block(stripe.q.ok_or_else(|| bad("members"))?, stripe, buf)?;
        let mut block = vec![0; buf.len()];
        for member in self.others(stripe, None) {
            self.block(member, stripe, &mut block)?;
            gf::add_times(buf, weight(&weights, member)?, &block);
        }
        gf::scale(buf, gf::inverse(weight(&weights, stripe.leg)?));
        Ok(())
    }

    /// Both this block and that of `other` are missing: two equations, P and Q.
    fn by_both(
        &self,
        parity: &Parity,
        stripe: &Stripe,
        other: usize,
        buf: &mut [u8],
    ) -> Result<()> {
        let weights = parity.weights(stripe);
        let (own, that) = (weight(&weights, stripe.leg)?, weight(&weights, other)?);
        let mut p = vec![0; buf.len()];
        self.block(stripe.p, stripe, &mut p)?;
        self.block(stripe.q.ok_or_else(|| bad("members"))?, stripe, buf)?;
        let mut block = vec![0; buf.len()];
        for member in self.others(stripe, Some(other)) {
            self.block(member, stripe, &mut block)?;
            gf::add(&mut p, &block);
            gf::add_times(buf, weight(&weights, member)?, &block);
        }
        // p = x + y and q = own*x + that*y, so x = (q + that*p) / (own + that).
        gf::add_times(buf, that, &p);
        gf::scale(buf, gf::inverse(own ^ that));
        Ok(())
    }
}

fn weight(weights: &[Option<u64>], member: usize) -> Result<u8> {
    let power = weights.get(member).copied().flatten().ok_or_else(|| bad("members"))?;
    Ok(gf::power(power))
}
