//! Several disks end to end: split images, spanned and striped-by-extent volumes.

use crate::{Disk, DiskExt, Error, ExtentMap, Geometry, Mapped, Problem, Result, Run, RunKind};
use std::sync::Arc;

/// One piece of a [`Concat`].
#[derive(Clone, Debug)]
pub struct Piece {
    /// Number of bytes it contributes.
    pub length: u64,
    /// Where they are.
    pub kind: PieceKind,
}

/// Where the bytes of a piece are.
#[derive(Clone, Debug)]
pub enum PieceKind {
    /// In `disk`, from `offset` on.
    Disk {
        /// The disk that holds them.
        disk: Arc<dyn Disk>,
        /// Where they start in it. Unit: bytes.
        offset: u64,
    },
    /// Nowhere: zeros by definition.
    Zero,
    /// Out of reach, for this reason.
    Lost(Error),
}

impl Piece {
    /// A whole disk.
    pub fn whole(disk: Arc<dyn Disk>) -> Self {
        Piece { length: disk.size_bytes(), kind: PieceKind::Disk { disk, offset: 0 } }
    }

    /// Part of a disk.
    pub fn part(disk: Arc<dyn Disk>, offset: u64, length: u64) -> Self {
        Piece { length, kind: PieceKind::Disk { disk, offset } }
    }

    /// Zeros.
    pub fn zero(length: u64) -> Self {
        Piece { length, kind: PieceKind::Zero }
    }

    /// Bytes that cannot be had.
    pub fn lost(length: u64, reason: Error) -> Self {
        Piece { length, kind: PieceKind::Lost(reason) }
    }
}

/// The map behind [`Concat::open`].
#[derive(Debug)]
pub struct Concat {
    name: String,
    geometry: Geometry,
    starts: Vec<u64>,
    pieces: Vec<Piece>,
    disks: Vec<Option<Arc<dyn Disk>>>,
}

impl Concat {
    /// Joins the pieces, in order, into one disk.
    ///
    /// Errors: `Corrupt` if their lengths add up to more than 2^64 bytes.
    pub fn open(name: impl Into<String>, pieces: Vec<Piece>) -> Result<Arc<dyn Disk>> {
        let pieces: Vec<Piece> = pieces.into_iter().filter(|piece| piece.length > 0).collect();
        let mut starts = Vec::with_capacity(pieces.len());
        let mut size = 0u64;
        for piece in &pieces {
            starts.push(size);
            size = size.checked_add(piece.length).ok_or_else(|| {
                Error::corrupt(Problem::OutOfRange, "the pieces exceed 2^64 bytes")
            })?;
        }
        let disks: Vec<_> = pieces
            .iter()
            .map(|piece| match &piece.kind {
                PieceKind::Disk { disk, .. } => Some(Arc::clone(disk)),
                _ => None,
            })
            .collect();
        let mut geometry = Geometry::of_size(size);
        for below in disks.iter().flatten().map(|disk| disk.geometry()) {
            geometry.sector_size_bytes = geometry.sector_size_bytes.max(below.sector_size_bytes);
        }
        Ok(Arc::new(Mapped::new(Concat { name: name.into(), geometry, starts, pieces, disks })))
    }

    fn index_of(&self, offset: u64) -> usize {
        self.starts.partition_point(|&start| start <= offset).saturating_sub(1)
    }
}

impl ExtentMap for Concat {
    fn geometry(&self) -> Geometry {
        self.geometry
    }

    fn lookup(&self, offset: u64, _at_most: u64) -> Result<Run> {
        let index = self.index_of(offset);
        let (start, piece) = (self.starts[index], &self.pieces[index]);
        let kind = match &piece.kind {
            PieceKind::Zero => RunKind::Zero,
            PieceKind::Lost(reason) => RunKind::Lost(reason.clone()),
            PieceKind::Disk { disk, offset: from } => {
                // A piece that is shorter than promised is lost from there on.
                let held = disk.size_bytes().saturating_sub(*from).min(piece.length);
                if offset - start >= held {
                    let lost = Error::new(
                        crate::Kind::Lost,
                        Problem::Truncated,
                        format!("piece {index} ends {} bytes early", piece.length - held),
                    );
                    let kind = RunKind::Lost(lost);
                    return Ok(Run { start: start + held, length: piece.length - held, kind });
                }
                let kind = RunKind::Stored { source: index, offset: *from };
                return Ok(Run { start, length: held, kind });
            }
        };
        Ok(Run { start, length: piece.length, kind })
    }

    fn source(&self, index: usize) -> Option<&Arc<dyn Disk>> {
        self.disks.get(index)?.as_ref()
    }

    fn parent(&self) -> Option<&Arc<dyn Disk>> {
        None
    }

    fn decode(&self, _run: &Run, _buf: &mut [u8]) -> Result<()> {
        Err(Error::unsupported("a concatenation encodes nothing"))
    }

    fn name(&self) -> String {
        self.name.clone()
    }

    fn steps(&self, offset: u64) -> Result<Vec<String>> {
        let index = self.index_of(offset);
        let start = self.starts.get(index).copied().unwrap_or(0);
        Ok(vec![format!(
            "piece {} of {}, which starts at byte {start:#x}",
            index + 1,
            self.pieces.len()
        )])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ExtentKind, Extents, MemoryDisk};

    fn disk(bytes: &[u8]) -> Arc<dyn Disk> {
        MemoryDisk::open("memory", bytes.to_vec())
    }

    #[test]
    fn a_read_crosses_pieces_and_zeros() {
        let joined = Concat::open(
            "joined",
            vec![Piece::whole(disk(b"abc")), Piece::zero(2), Piece::part(disk(b"0123456"), 4, 3)],
        )
        .unwrap();
        assert_eq!(joined.read_vec(0, 8).unwrap(), b"abc\0\x00456");
        assert_eq!(joined.read_vec(2, 3).unwrap(), b"c\0\0");
        assert!(joined.read_vec(7, 2).is_err());
    }

    #[test]
    fn a_lost_piece_fails_only_where_it_lies() {
        let joined = Concat::open(
            "joined",
            vec![Piece::whole(disk(b"abc")), Piece::lost(3, Error::lost("member 2 is missing"))],
        )
        .unwrap();
        assert_eq!(joined.read_vec(0, 3).unwrap(), b"abc");
        let error = joined.read_vec(2, 2).unwrap_err();
        assert_eq!((error.kind(), error.detail()), (crate::Kind::Lost, "member 2 is missing"));
        let kinds: Vec<_> = Extents::of(&joined, 0..6).map(|e| e.unwrap()).collect();
        assert_eq!(kinds.len(), 2);
        assert!(matches!(kinds[1].kind, ExtentKind::Lost(_)));
    }

    #[test]
    fn a_piece_shorter_than_promised_is_lost_from_there_on() {
        let joined = Concat::open("joined", vec![Piece::part(disk(b"abc"), 1, 5)]).unwrap();
        assert_eq!(joined.read_vec(0, 2).unwrap(), b"bc");
        assert_eq!(joined.read_vec(2, 1).unwrap_err().problem(), Problem::Truncated);
    }
}
