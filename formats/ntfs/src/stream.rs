//! A stream of a file: one attribute, put together from all records that hold a part of it.

use crate::layout::{attribute_flag, kind};
use crate::names::to_text;
use crate::record::{Attribute, Body, place};
use crate::runlist::{Backing, Builder, Piece};
use adit_core::{Error, Place, Problem, Result};

/// Largest compression unit that is decoded. Windows makes 64 KiB. Unit: bytes.
const UNIT_BYTES_MAX: u64 = 1 << 20;

/// Where a stream's bytes are.
#[derive(Clone, Debug)]
pub enum Content {
    /// In the file's record.
    Resident(Vec<u8>),
    /// In clusters, in order and without gaps.
    Pieces(Vec<Piece>),
}

/// A stream: sizes, flags and where its bytes are.
#[derive(Clone, Debug)]
pub struct Stream {
    /// The record its first part stands in.
    pub record: u64,
    /// Its attribute type.
    pub kind: u32,
    /// Its name, UTF-16; empty for the main stream.
    pub name: Vec<u16>,
    /// Its attribute flags.
    pub flags: u16,
    /// Unit: bytes.
    pub size_bytes: u64,
    /// Space it takes. Unit: bytes.
    pub allocated_bytes: u64,
    /// What was written; zeros follow. Unit: bytes.
    pub initialized_bytes: u64,
    /// Clusters that are compressed together; 0: not compressed.
    pub unit_clusters: u64,
    /// Its bytes.
    pub content: Content,
}

impl Stream {
    /// Puts a stream together. `parts` are its attributes, `lost` why some could not be had.
    ///
    /// Errors: `Corrupt` where the first part is missing or contradicts itself; `Limit`.
    pub(crate) fn join(
        mut parts: Vec<Attribute>,
        lost: Option<&Error>,
        geometry: (u64, u64),
        pieces_max: u64,
    ) -> Result<Stream> {
        let (cluster_bytes, volume_clusters) = geometry;
        parts.sort_by_key(Attribute::first_vcn);
        let Some(first) = parts.first() else {
            return Err(Error::invalid(Problem::Missing, "a stream has no parts"));
        };
        let mut stream = Stream {
            record: first.record,
            kind: first.kind,
            name: first.name.clone(),
            flags: first.flags,
            size_bytes: 0,
            allocated_bytes: 0,
            initialized_bytes: 0,
            unit_clusters: 0,
            content: Content::Resident(Vec::new()),
        };
        let raw = match &first.body {
            Body::Resident(_) => {
                let value = first.value()?.to_vec();
                stream.size_bytes = crate::names::length(&value);
                stream.initialized_bytes = stream.size_bytes;
                stream.content = Content::Resident(value);
                return Ok(stream);
            }
            Body::NonResident { raw, total_allocated, .. } => {
                stream.allocated_bytes = total_allocated.unwrap_or(raw.allocated_bytes);
                raw
            }
        };
        if raw.first_vcn != 0 {
            let missing = || {
                let detail = format!("the part before cluster {:#x} is missing", raw.first_vcn);
                Error::corrupt(Problem::Missing, detail).at(first.place())
            };
            return Err(lost.cloned().unwrap_or_else(missing));
        }
        if raw.size_bytes >= 1 << 63 {
            let detail = format!("{:#x} bytes are more than a file can have", raw.size_bytes);
            return Err(Error::corrupt(Problem::OutOfRange, detail).at(first.place()));
        }
        stream.size_bytes = raw.size_bytes;
        stream.initialized_bytes = raw.initialized_bytes.min(raw.size_bytes);
        stream.unit_clusters = stream.unit(raw.compression_unit, cluster_bytes)?;
        let mut builder = Builder::new(volume_clusters, pieces_max);
        for part in &parts {
            builder.add(part, lost)?;
        }
        let clusters = stream.size_bytes.div_ceil(cluster_bytes.max(1));
        stream.content = Content::Pieces(builder.finish(clusters, lost));
        Ok(stream)
    }

    fn unit(&self, exponent: u16, cluster_bytes: u64) -> Result<u64> {
        match self.flags & attribute_flag::COMPRESSION_MASK {
            0 => return Ok(0),
            attribute_flag::LZNT1 => {}
            other => {
                let detail = format!("compression method {other} is not known");
                return Err(Error::unsupported(detail).at(self.place()));
            }
        }
        if exponent == 0 {
            // Set on a directory or an empty file: new data will be compressed, this is not.
            return Ok(0);
        }
        let clusters = 1u64.checked_shl(exponent.into()).unwrap_or(0);
        match clusters.checked_mul(cluster_bytes) {
            Some(1..=UNIT_BYTES_MAX) => Ok(clusters),
            _ => {
                let detail = format!("2^{exponent} clusters cannot be compressed together");
                Err(Error::corrupt(Problem::OutOfRange, detail).at(self.place()))
            }
        }
    }

    /// Whether some of it has no clusters.
    pub fn has_holes(&self) -> bool {
        match &self.content {
            Content::Resident(_) => false,
            Content::Pieces(pieces) => {
                pieces.iter().any(|piece| matches!(piece.backing, Backing::Sparse))
            }
        }
    }

    /// Whether it is encrypted (EFS).
    pub fn is_encrypted(&self) -> bool {
        self.flags & attribute_flag::ENCRYPTED != 0
    }

    /// Where it is, for errors.
    pub fn place(&self) -> Place {
        let word = kind::word(self.kind);
        let field = match self.name.as_slice() {
            [] => word.to_owned(),
            name => format!("{word}:{}", to_text(name)),
        };
        place(self.record).field(field)
    }
}
