//! A walk along a disk that asks every layer for each of its runs once.

use crate::{Disk, DiskExt, Error, Extent, ExtentKind, Leaf, LeafKind, Place, Result};
use std::sync::Arc;

/// More disks than this are not remembered at once; stacks are lower than that.
const KNOWN_MAX: usize = 96;

/// [`Leaf::find`] for many offsets of one disk, best asked for in ascending order.
///
/// The last run of every disk on the way down is remembered. A small cluster of an overlay so
/// does not make its base, whose run goes on behind it, look its tables through once more.
/// Right only while nobody writes to the disk.
#[derive(Debug)]
pub struct Leaves {
    disk: Arc<dyn Disk>,
    known: Vec<(Arc<dyn Disk>, Extent)>,
    /// Which is forgotten next.
    oldest: usize,
}

impl Leaves {
    /// A walk that has seen nothing yet.
    pub fn of(disk: &Arc<dyn Disk>) -> Leaves {
        Leaves { disk: Arc::clone(disk), known: Vec::new(), oldest: 0 }
    }

    /// What really holds the byte at `offset`, and for how many bytes that is so.
    ///
    /// Errors: as [`Leaf::find`].
    pub fn at(&mut self, offset: u64) -> Result<Leaf> {
        self.disk.check_range(offset, 1)?;
        let (mut disk, mut at) = (Arc::clone(&self.disk), offset);
        let mut length = disk.size_bytes().saturating_sub(offset);
        for _ in 0..Leaf::LAYERS_MAX {
            let extent = self.extent(&disk, at)?;
            length = length.min(extent.end().saturating_sub(at));
            let kind = match &extent.kind {
                ExtentKind::Verbatim { disk: below, offset } => {
                    let next = offset.saturating_add(at.saturating_sub(extent.offset));
                    (disk, at) = (Arc::clone(below), next);
                    continue;
                }
                ExtentKind::Data => LeafKind::Stored { disk, offset: at },
                ExtentKind::Hole => LeafKind::Hole,
                ExtentKind::Zero => LeafKind::Zero,
                ExtentKind::Lost(error) => LeafKind::Lost(error.clone()),
            };
            return Ok(Leaf { length, kind });
        }
        Err(Error::limit("layers_max", format!("more than {} layers of disks", Leaf::LAYERS_MAX))
            .at(Place::new("disk stack").byte(offset)))
    }

    /// The remembered or a new extent of `disk` that holds `offset`.
    fn extent(&mut self, disk: &Arc<dyn Disk>, offset: u64) -> Result<&Extent> {
        let found = self.known.iter().position(|(known, _)| same(known, disk));
        let holds = |extent: &Extent| extent.offset <= offset && offset < extent.end();
        let index = match found {
            Some(index) if holds(&self.known[index].1) => return Ok(&self.known[index].1),
            Some(index) => {
                self.known[index].1 = disk.extent_at(offset)?;
                index
            }
            None => {
                let entry = (Arc::clone(disk), disk.extent_at(offset)?);
                let index = match self.known.len() {
                    KNOWN_MAX => {
                        self.oldest = (self.oldest + 1) % KNOWN_MAX;
                        self.oldest
                    }
                    next => next,
                };
                match self.known.get_mut(index) {
                    Some(old) => *old = entry,
                    None => self.known.push(entry),
                }
                index
            }
        };
        Ok(&self.known[index].1)
    }
}

/// Whether two handles are of one disk; what is remembered keeps its address taken.
fn same(a: &Arc<dyn Disk>, b: &Arc<dyn Disk>) -> bool {
    std::ptr::addr_eq(Arc::as_ptr(a), Arc::as_ptr(b))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Concat, Geometry, Hop, MemoryDisk, Next, Piece, ReadRequest, Slice};
    use std::os::fd::BorrowedFd;
    use std::sync::atomic::{AtomicU32, Ordering};

    /// Answers as another disk does, and counts how often it is asked what it holds.
    #[derive(Debug)]
    struct Counting(Arc<dyn Disk>, AtomicU32);

    impl Disk for Counting {
        fn geometry(&self) -> Geometry {
            self.0.geometry()
        }
        fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
            self.0.read_at(buf, offset)
        }
        fn read_batch(&self, batch: &mut [ReadRequest<'_>]) -> Result<()> {
            self.0.read_batch(batch)
        }
        fn extent_at(&self, offset: u64) -> Result<Extent> {
            self.1.fetch_add(1, Ordering::Relaxed);
            self.0.extent_at(offset)
        }
        fn as_file(&self) -> Option<BorrowedFd<'_>> {
            None
        }
        fn explain(&self, offset: u64) -> Result<Hop> {
            let next = Next::Disk(Arc::clone(&self.0), offset);
            Ok(Hop { layer: "counting".to_owned(), offset, steps: Vec::new(), next })
        }
    }

    #[test]
    fn a_base_is_asked_once_however_often_something_lies_over_it() {
        let memory = MemoryDisk::open("base", vec![1; 4096]);
        let counting = Arc::new(Counting(Slice::open("base", memory, 96, 4000), AtomicU32::new(0)));
        let base: Arc<dyn Disk> = Arc::<Counting>::clone(&counting);
        let over = MemoryDisk::open("over", vec![2; 4000]);
        let pieces = (0..4000).step_by(10).map(|at| match at % 20 {
            0 => Piece::part(Arc::clone(&base), at, 10),
            _ => Piece::part(Arc::clone(&over), at, 10),
        });
        let top = Concat::open("top", pieces.collect()).unwrap();
        let mut leaves = Leaves::of(&top);
        for at in 0..4000 {
            let (leaf, found) = (Leaf::find(&top, at).unwrap(), leaves.at(at).unwrap());
            assert_eq!(leaf.length, found.length, "{at}");
            let (LeafKind::Stored { disk, offset }, LeafKind::Stored { disk: same, offset: then }) =
                (leaf.kind, found.kind)
            else {
                panic!("{at}")
            };
            assert!(Arc::ptr_eq(&disk, &same) && offset == then, "{at}");
        }
        counting.1.store(0, Ordering::Relaxed);
        let mut leaves = Leaves::of(&top);
        (0..4000).for_each(|at| drop(leaves.at(at).unwrap()));
        assert_eq!(counting.1.load(Ordering::Relaxed), 1);
        assert!(leaves.at(4000).is_err());
    }

    #[test]
    fn more_disks_than_are_remembered_are_found_all_the_same() {
        let pieces = (0..300u64).map(|at| {
            let byte = u8::try_from(at % 256).unwrap();
            Piece::whole(MemoryDisk::open("piece", vec![byte; 3]))
        });
        let top = Concat::open("top", pieces.collect()).unwrap();
        let mut leaves = Leaves::of(&top);
        for at in (0..900).chain((0..900).rev()) {
            let LeafKind::Stored { disk, offset } = leaves.at(at).unwrap().kind else {
                panic!("{at}")
            };
            assert_eq!(disk.read_vec(offset, 1).unwrap()[0], u8::try_from(at / 3 % 256).unwrap());
        }
    }
}
