//! Files that the Windows Overlay Filter compressed (`compact /exe`, CompactOS).
//!
//! The main stream is one hole; the bytes stand in the stream `WofCompressedData`: the ends of
//! all chunks but the last, then the chunks.

use crate::layout::tag;
use crate::{lzx, xpress};
use adit_core::bytes::{narrow, u32_le, u64_le, wide};
use adit_core::{Disk, DiskExt, Error, ExtentMap, Geometry, Place, Problem, Result, Run, RunKind};
use std::sync::Arc;

/// The stream that holds the compressed bytes.
pub(crate) const STREAM: &str = "WofCompressedData";

/// How the chunks are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Method {
    Xpress,
    Lzx,
}

/// What the reparse point says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Provider {
    pub method: Method,
    pub chunk_bytes: u64,
}

impl Provider {
    /// Reads the data of the reparse point.
    ///
    /// Errors: `Unsupported` for files whose bytes stand in a WIM file, and for new methods.
    pub(crate) fn parse(data: &[u8]) -> Result<Provider> {
        let field = |at| u32_le(data, at).unwrap_or(u32::MAX);
        let unsupported = |what: String| Err(Error::unsupported(what).at(place()));
        match (field(0), field(4)) {
            (1, 2) => {}
            (1, 1) => return unsupported("the file's bytes stand in a WIM file elsewhere".into()),
            (version, provider) => {
                return unsupported(format!("provider {provider} of version {version}"));
            }
        }
        let (method, chunk_bytes) = match (field(8), field(12)) {
            (1, 0) => (Method::Xpress, 4 << 10),
            (1, 1) => (Method::Lzx, 32 << 10),
            (1, 2) => (Method::Xpress, 8 << 10),
            (1, 3) => (Method::Xpress, 16 << 10),
            (version, method) => {
                return unsupported(format!("compression {method} of version {version}"));
            }
        };
        Ok(Provider { method, chunk_bytes })
    }

    /// The word `compact` uses.
    pub(crate) fn word(self) -> &'static str {
        match (self.method, self.chunk_bytes) {
            (Method::Lzx, _) => "LZX",
            (Method::Xpress, 0x1000) => "XPRESS4K",
            (Method::Xpress, 0x2000) => "XPRESS8K",
            (Method::Xpress, _) => "XPRESS16K",
        }
    }
}

fn place() -> Place {
    Place::new("reparse point").field(format!("tag {:#010x}", tag::WOF))
}

/// The map of such a file.
#[derive(Debug)]
pub(crate) struct WofMap {
    name: String,
    stored: Arc<dyn Disk>,
    size_bytes: u64,
    provider: Provider,
    /// Length of an entry of the chunk table.
    entry_bytes: u64,
    table_bytes: u64,
}

impl WofMap {
    /// Errors: `Corrupt` where the stream is too short for its table.
    pub(crate) fn new(
        name: String,
        stored: Arc<dyn Disk>,
        size_bytes: u64,
        provider: Provider,
    ) -> Result<WofMap> {
        let chunks = size_bytes.div_ceil(provider.chunk_bytes.max(1));
        let entry_bytes = if size_bytes > u64::from(u32::MAX) { 8 } else { 4 };
        let table_bytes = chunks.saturating_sub(1).saturating_mul(entry_bytes);
        if table_bytes > stored.size_bytes() {
            let detail = format!(
                "the table of {chunks} chunks leaves a stream of {} bytes",
                stored.size_bytes()
            );
            return Err(Error::corrupt(Problem::Truncated, detail).at(Place::new(STREAM)));
        }
        Ok(WofMap { name, stored, size_bytes, provider, entry_bytes, table_bytes })
    }

    /// Where chunk `chunk` stands in the stream: start and length.
    fn chunk(&self, chunk: u64) -> Result<(u64, u64)> {
        let before = chunk.saturating_sub(1).saturating_mul(self.entry_bytes);
        let two = narrow(self.entry_bytes.saturating_mul(2)).unwrap_or(16);
        let room = narrow(self.table_bytes.saturating_sub(before)).unwrap_or(two).min(two);
        let entries = self.stored.read_vec(before, room)?;
        let step = narrow(self.entry_bytes).unwrap_or(8);
        let entry = |index: usize| {
            let at = index.saturating_mul(step);
            match step {
                4 => u32_le(&entries, at).map(u64::from),
                _ => u64_le(&entries, at),
            }
        };
        let data = self.stored.size_bytes().saturating_sub(self.table_bytes);
        let (start, end) = match chunk {
            0 => (0, entry(0).unwrap_or(data)),
            _ => (entry(0).unwrap_or(data), entry(1).unwrap_or(data)),
        };
        let length = end.checked_sub(start).filter(|_| end <= data);
        let length = length.filter(|length| *length > 0 && *length <= self.provider.chunk_bytes);
        length.map(|length| (start.saturating_add(self.table_bytes), length)).ok_or_else(|| {
            let detail = format!("a chunk from {start:#x} to {end:#x} of {data:#x} bytes");
            Error::corrupt(Problem::OutOfRange, detail).at(Place::new(STREAM).index(chunk))
        })
    }
}

impl ExtentMap for WofMap {
    fn geometry(&self) -> Geometry {
        Geometry { size_bytes: self.size_bytes, ..self.stored.geometry() }
    }

    fn lookup(&self, offset: u64, _at_most: u64) -> Result<Run> {
        let chunk = offset.checked_div(self.provider.chunk_bytes).unwrap_or(0);
        let start = chunk.saturating_mul(self.provider.chunk_bytes);
        let length = self.size_bytes.saturating_sub(start).min(self.provider.chunk_bytes);
        Ok(Run { start, length, kind: RunKind::Encoded { token: chunk } })
    }

    fn source(&self, _index: usize) -> Option<&Arc<dyn Disk>> {
        None
    }

    fn parent(&self) -> Option<&Arc<dyn Disk>> {
        None
    }

    fn decode(&self, run: &Run, buf: &mut [u8]) -> Result<()> {
        let RunKind::Encoded { token: chunk } = run.kind else {
            return Err(Error::invalid(Problem::BadValue, "the run is not of this map"));
        };
        let (start, length) = self.chunk(chunk)?;
        if length == wide(buf.len()) {
            return self.stored.read_at(buf, start);
        }
        let from = self.stored.read_vec(start, narrow(length).unwrap_or(0))?;
        let decoded = match self.provider.method {
            Method::Xpress => xpress::decode(&from, buf),
            Method::Lzx => lzx::decode(&from, buf),
        };
        decoded.map_err(|error| error.at(Place::new(STREAM).index(chunk).byte(start)))
    }

    fn name(&self) -> String {
        self.name.clone()
    }

    fn steps(&self, offset: u64) -> Result<Vec<String>> {
        let chunk = offset.checked_div(self.provider.chunk_bytes).unwrap_or(0);
        let (start, length) = self.chunk(chunk)?;
        Ok(vec![format!(
            "chunk {chunk} ({}), bytes {start:#x}+{length:#x} of {STREAM}",
            self.provider.word()
        )])
    }
}
