//! Level 10: stripes of copies, near, far or offset.

use super::{Array, Spot, bad, leg};
use adit_core::bytes::wide;
use adit_core::{Error, Place, Problem, Result, Run};

#[derive(Debug)]
pub(super) struct Ten {
    legs: u64,
    chunk: u64,
    near: u64,
    far: u64,
    offset: bool,
    /// Distance of far copies on a member. Unit: bytes.
    stride: u64,
    /// How many neighbouring members exchange far copies.
    far_set: u64,
    size_bytes: u64,
}

impl Ten {
    pub fn new(
        legs: usize,
        smallest: u64,
        chunk: u64,
        near: u32,
        far: u32,
        offset: bool,
        far_set: Option<u32>,
    ) -> Result<Self> {
        let (legs, near, far) = (wide(legs), u64::from(near), u64::from(far));
        let far_set = far_set.map_or(legs, u64::from);
        let copies = near.saturating_mul(far);
        let field = |name| Place::new("array").field(name);
        if copies == 0 || copies > legs || far_set == 0 {
            let detail = format!("{near} near and {far} far copies on {legs} members");
            return Err(Error::corrupt(Problem::BadValue, detail).at(field("layout")));
        }
        if !legs.is_multiple_of(far_set) {
            let detail = format!("far copies among {far_set} of {legs} members");
            return Err(Error::unsupported(detail).at(field("layout")));
        }
        let div = |a: u64, b: u64| a.checked_div(b).ok_or_else(|| bad("layout"));
        let per_member = div(smallest, chunk)?;
        // Chunks of the array, then of a member that are in use.
        let chunks =
            div(div(per_member, far)?.checked_mul(legs).ok_or_else(|| bad("size"))?, near)?;
        let used = chunks.checked_mul(copies).ok_or_else(|| bad("size"))?.div_ceil(legs);
        let stride = if offset {
            chunk
        } else {
            div(used, far)?.checked_mul(chunk).ok_or_else(|| bad("size"))?
        };
        let size_bytes = chunks.checked_mul(chunk).ok_or_else(|| bad("size"))?;
        Ok(Ten { legs, chunk, near, far, offset, stride, far_set, size_bytes })
    }

    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// Where copy `near`, `far` of a byte stands.
    pub fn copy(&self, offset: u64, near: u64, far: u64) -> Result<Spot> {
        let number = offset.checked_div(self.chunk).ok_or_else(|| bad("chunk"))?;
        let within = offset.checked_rem(self.chunk).ok_or_else(|| bad("chunk"))?;
        let place = number.checked_mul(self.near).and_then(|at| at.checked_add(near));
        let place = place.ok_or_else(|| bad("offset"))?;
        let member = place.checked_rem(self.legs).ok_or_else(|| bad("members"))?;
        let mut row = place.checked_div(self.legs).ok_or_else(|| bad("members"))?;
        if self.offset {
            row = row.checked_mul(self.far).ok_or_else(|| bad("offset"))?;
        }
        // Far copies move on by the near ones, round their own set of members.
        let set = member.checked_div(self.far_set).unwrap_or(0).saturating_mul(self.far_set);
        let moved = far.checked_mul(self.near).and_then(|by| by.checked_add(member));
        let moved = moved.and_then(|to| to.checked_rem(self.far_set)).ok_or_else(|| bad("far"))?;
        let at = row.checked_mul(self.chunk).and_then(|at| at.checked_add(within));
        let at = at.and_then(|at| at.checked_add(far.checked_mul(self.stride)?));
        Ok(Spot {
            leg: leg(moved.saturating_add(set)),
            offset: at.ok_or_else(|| bad("offset"))?,
            length: self.chunk.saturating_sub(within),
        })
    }
}

impl Array {
    pub(super) fn lookup_ten(&self, ten: &Ten, offset: u64) -> Result<Run> {
        for far in 0..ten.far {
            for near in 0..ten.near {
                if let Some(spot) = self.readable(ten.copy(offset, near, far)?) {
                    return Ok(self.stored(offset, spot));
                }
            }
        }
        let copies = ten.near.saturating_mul(ten.far);
        let mut run = self.lost(
            offset,
            ten.copy(offset, 0, 0)?,
            Some(&format!("nor any of its {copies} copies")),
        );
        for (far, near) in (0..ten.far).flat_map(|far| (0..ten.near).map(move |near| (far, near))) {
            let spot = ten.copy(offset, near, far)?;
            run.length = run.length.min(self.lost(offset, spot, None).length);
        }
        Ok(run)
    }
}
