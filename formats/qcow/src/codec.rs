//! Compressed clusters: raw deflate and zstd.

use adit_core::bytes::wide;
use adit_core::{Error, Problem, Result};
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use zstd::zstd_safe::find_frame_compressed_size;
use zune_inflate::errors::DecodeErrorStatus;
use zune_inflate::{DeflateDecoder, DeflateOptions};

/// How clusters are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// Deflate without any header.
    Deflate,
    /// One zstd frame, or several in a row.
    Zstd,
}

impl Compression {
    /// The word for it, as `qemu-img` takes it.
    pub fn word(self) -> &'static str {
        match self {
            Compression::Deflate => "zlib",
            Compression::Zstd => "zstd",
        }
    }
}

/// A decoder of clusters, shared by threads.
pub(crate) struct Codec {
    compression: Compression,
    /// What waits for its next use; a new one costs more than a cluster.
    idle: Mutex<Vec<Context>>,
}

/// What one thread needs to decode a cluster.
struct Context {
    /// What was read. Only grows: clusters of an image have one size.
    data: Vec<u8>,
    decoder: Decoder,
}

enum Decoder {
    Deflate(libdeflater::Decompressor),
    Zstd(zstd::bulk::Decompressor<'static>),
}

/// As many contexts as are kept; more threads than that do not decode at once for long.
const IDLE_MAX: usize = 16;

impl fmt::Debug for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Codec").field(&self.compression).finish()
    }
}

impl Codec {
    pub(crate) fn new(compression: Compression) -> Self {
        Codec { compression, idle: Mutex::new(Vec::new()) }
    }

    /// Fills `cluster`, a whole cluster, from `length` bytes that `read` gets. `complete` says
    /// that the file holds all of them, which may then end with bytes of the next cluster.
    ///
    /// Errors: those of `read`; `Corrupt` when the data do not fill the cluster.
    pub(crate) fn decode(
        &self,
        length: usize,
        complete: bool,
        cluster: &mut [u8],
        read: impl FnOnce(&mut [u8]) -> Result<()>,
    ) -> Result<()> {
        let kept = self.idle().pop();
        let mut context = kept.unwrap_or_else(|| Context::new(self.compression));
        let done = context.decode(length, complete, cluster, read);
        let mut idle = self.idle();
        if idle.len() < IDLE_MAX {
            idle.push(context);
        }
        done
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Context>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Context {
    fn new(compression: Compression) -> Self {
        let decoder = match compression {
            Compression::Deflate => Decoder::Deflate(libdeflater::Decompressor::new()),
            Compression::Zstd => Decoder::Zstd(zstd::bulk::Decompressor::default()),
        };
        Context { data: Vec::new(), decoder }
    }

    fn decode(
        &mut self,
        length: usize,
        complete: bool,
        cluster: &mut [u8],
        read: impl FnOnce(&mut [u8]) -> Result<()>,
    ) -> Result<()> {
        if self.data.len() < length {
            self.data.resize(length, 0);
        }
        let data = self.data.get_mut(..length).unwrap_or_default();
        read(data)?;
        match &mut self.decoder {
            // Whatever it has to say against a stream, the careful way knows better.
            Decoder::Deflate(fast) => match fast.deflate_decompress(data, cluster) {
                Ok(filled) if filled == cluster.len() => Ok(()),
                _ => inflate(data, complete, cluster),
            },
            Decoder::Zstd(context) => unzstd(context, data, cluster),
        }
    }
}

/// Raw deflate. A stream that goes on past the cluster is cut, as QEMU cuts it.
fn inflate(data: &[u8], complete: bool, cluster: &mut [u8]) -> Result<()> {
    // Room for the decoder's copies past the end spares it an enlargement.
    const SLACK: usize = 1024;
    let options = DeflateOptions::default()
        .set_limit(cluster.len())
        .set_size_hint(cluster.len().saturating_add(SLACK));
    let decoded = match DeflateDecoder::new_with_options(data, options).decode_deflate() {
        Ok(decoded) => decoded,
        // Where the file was cut short, the last bytes may come of bits that are not there.
        Err(cut) if complete && matches!(cut.error, DecodeErrorStatus::OutputLimitExceeded(..)) => {
            cut.data
        }
        Err(cut) => {
            return Err(damaged(format!(
                "deflate stream damaged after {} of {} bytes",
                cut.data.len(),
                cluster.len()
            )));
        }
    };
    let whole = decoded.get(..cluster.len()).ok_or_else(|| short(decoded.len(), cluster.len()))?;
    cluster.copy_from_slice(whole);
    Ok(())
}

/// Frame by frame, each in one go: so no window is allocated, whatever a frame asks for.
fn unzstd(
    context: &mut zstd::bulk::Decompressor<'_>,
    data: &[u8],
    cluster: &mut [u8],
) -> Result<()> {
    let length = cluster.len();
    let (mut data, mut room) = (data, cluster);
    while !room.is_empty() {
        let at = length.saturating_sub(room.len());
        if data.is_empty() {
            return Err(short(at, length));
        }
        let broken = |what: String| damaged(format!("zstd frame after {at} bytes: {what}"));
        let frame_length = find_frame_compressed_size(data)
            .map_err(|code| broken(zstd::zstd_safe::get_error_name(code).to_owned()))?;
        let (frame, rest) =
            data.split_at_checked(frame_length.max(1)).ok_or_else(|| short(at, length))?;
        let filled =
            context.decompress_to_buffer(frame, room).map_err(|error| broken(error.to_string()))?;
        room = room.get_mut(filled..).unwrap_or_default();
        data = rest;
    }
    Ok(())
}

fn damaged(detail: String) -> Error {
    Error::corrupt(Problem::BadValue, detail)
}

fn short(filled: usize, length: usize) -> Error {
    let detail = format!("the compressed cluster holds {} of {} bytes", wide(filled), wide(length));
    Error::corrupt(Problem::Truncated, detail)
}
