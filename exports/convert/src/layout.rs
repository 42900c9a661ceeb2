//! One face for the layouts of all formats.

use crate::buffer::Stored;
use adit_core::{Error, Problem, Result};
use adit_qcow::write as qcow;
use adit_vmdk::write as vmdk;
use std::fmt::Debug;

/// Bytes and where they go in the file, in the order in which they are to be written.
pub(crate) type Pieces = Vec<(u64, Vec<u8>)>;

/// Says where everything goes in the new file.
pub(crate) trait Layout: Debug {
    /// Where the item at `offset` of the disk goes. Items come in rising order.
    fn place(&mut self, offset: u64, stored: Stored) -> Result<u64>;
    /// Tables that are complete already.
    fn drain(&mut self) -> Pieces;
    /// Whether an item has its place whatever came before it.
    fn is_fixed(&self) -> bool;
    /// All that is left to write, and the length of the file.
    fn finish(self: Box<Self>) -> Result<(Pieces, u64)>;
}

/// Everything stays where it is: raw, flat and fixed disks.
#[derive(Debug)]
pub(crate) struct Verbatim {
    pub pieces: Pieces,
    pub file_bytes: u64,
}

impl Layout for Verbatim {
    fn place(&mut self, offset: u64, stored: Stored) -> Result<u64> {
        plain(stored).map(|()| offset)
    }

    fn drain(&mut self) -> Pieces {
        Vec::new()
    }

    fn is_fixed(&self) -> bool {
        true
    }

    fn finish(self: Box<Self>) -> Result<(Pieces, u64)> {
        Ok((self.pieces, self.file_bytes))
    }
}

/// Clusters of a QCOW2 image.
#[derive(Debug)]
pub(crate) struct Clusters {
    pub builder: qcow::Builder,
    pub units: Units,
}

impl Layout for Clusters {
    fn place(&mut self, offset: u64, stored: Stored) -> Result<u64> {
        let stored = match stored {
            Stored::Plain => qcow::Stored::Plain,
            Stored::Packed { length_bytes } => qcow::Stored::Compressed { length_bytes },
        };
        self.units.place(offset, |index| self.builder.place(index, stored))
    }

    fn drain(&mut self) -> Pieces {
        self.builder.drain()
    }

    fn is_fixed(&self) -> bool {
        false
    }

    fn finish(self: Box<Self>) -> Result<(Pieces, u64)> {
        let finished = self.builder.finish()?;
        Ok((finished.pieces, finished.file_bytes))
    }
}

/// Grains of a VMDK stream.
#[derive(Debug)]
pub(crate) struct Stream(pub vmdk::Stream);

impl Layout for Stream {
    fn place(&mut self, offset: u64, stored: Stored) -> Result<u64> {
        match stored {
            Stored::Packed { length_bytes } => {
                self.0.place(offset / vmdk::GRAIN_BYTES, length_bytes)
            }
            Stored::Plain => Err(misplaced()),
        }
    }

    fn drain(&mut self) -> Pieces {
        self.0.drain()
    }

    fn is_fixed(&self) -> bool {
        false
    }

    fn finish(self: Box<Self>) -> Result<(Pieces, u64)> {
        let finished = self.0.finish()?;
        Ok((finished.pieces, finished.file_bytes))
    }
}

/// From items to the units that a format places, which may be larger.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Units {
    unit_bytes: u64,
    /// The unit of the last item, and where it went.
    last: Option<(u64, u64)>,
}

impl Units {
    pub fn of(unit_bytes: u64) -> Self {
        Units { unit_bytes, last: None }
    }

    fn place(&mut self, offset: u64, new: impl FnOnce(u64) -> Result<u64>) -> Result<u64> {
        let (index, within) = (offset / self.unit_bytes, offset % self.unit_bytes);
        let at = match self.last {
            Some((last, at)) if last == index => at,
            _ => new(index)?,
        };
        self.last = Some((index, at));
        Ok(at + within)
    }
}

/// Blocks of a format that stores them as they are.
macro_rules! blocks {
    ($($(#[doc = $doc:expr])* $name:ident: $builder:ty, $drain:expr;)*) => {$(
        $(#[doc = $doc])*
        #[derive(Debug)]
        pub(crate) struct $name {
            pub builder: $builder,
            pub units: Units,
        }

        impl Layout for $name {
            fn place(&mut self, offset: u64, stored: Stored) -> Result<u64> {
                plain(stored)?;
                self.units.place(offset, |index| self.builder.place(index))
            }

            fn drain(&mut self) -> Pieces {
                let drain: fn(&mut $builder) -> Pieces = $drain;
                drain(&mut self.builder)
            }

            fn is_fixed(&self) -> bool {
                false
            }

            fn finish(self: Box<Self>) -> Result<(Pieces, u64)> {
                let finished = self.builder.finish()?;
                Ok((finished.pieces, finished.file_bytes))
            }
        }
    )*};
}

blocks! {
    /// Grains of a sparse VMDK extent.
    Grains: vmdk::Sparse, vmdk::Sparse::drain;
    /// Blocks of a dynamic VHD.
    VhdBlocks: adit_vhd::write::Builder, adit_vhd::write::Builder::drain;
    /// Blocks of a dynamic VHDX.
    VhdxBlocks: adit_vhdx::write::Builder, |_| Vec::new();
    /// Clusters of an expanding Parallels image.
    ParallelsClusters: adit_parallels::write::Builder, |_| Vec::new();
    /// Blocks of a dynamic VDI.
    VdiBlocks: adit_vdi::write::Builder, |_| Vec::new();
}

fn plain(stored: Stored) -> Result<()> {
    if stored == Stored::Plain { Ok(()) } else { Err(misplaced()) }
}

fn misplaced() -> Error {
    Error::invalid(Problem::BadValue, "this format stores its units in one way only")
}
