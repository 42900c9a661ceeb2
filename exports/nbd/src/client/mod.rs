//! Another server's export as a disk.

mod address;
mod connection;
mod negotiate;
mod reply;
mod tls;

use crate::protocol::{REQUEST_BYTES_MAX, state};
pub use address::Address;
use adit_core::{
    Disk, DiskExt, Error, Extent, ExtentKind, Geometry, Hop, Kind, Next, Problem, ReadRequest,
    Result,
};
use connection::{Connection, Piece};
use negotiate::Offer;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;
use tls::ClientTls;

/// What stands before `://` in the URIs of [`open_uri`].
pub const SCHEMES: &[&str] = &["nbd", "nbds", "nbd+tcp", "nbd+unix", "nbds+unix"];

/// Another server's export as a disk, by its URI. One that is open already is the same disk: a
/// server may take no second connection beside the first.
///
/// Errors: `Invalid` for what is no URI; those of [`NbdDisk::open`].
pub fn open_uri(uri: &str) -> Result<Arc<dyn Disk>> {
    static OPEN: Mutex<Vec<(String, Weak<NbdDisk>)>> = Mutex::new(Vec::new());
    let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
    open.retain(|(_, disk)| disk.strong_count() > 0);
    let known = open.iter().find(|(name, _)| name == uri).and_then(|(_, disk)| disk.upgrade());
    if let Some(disk) = known {
        return Ok(disk);
    }
    let disk = Arc::new(NbdDisk::open(&uri.parse()?, ClientOptions::default())?);
    open.push((uri.to_owned(), Arc::downgrade(&disk)));
    Ok(disk)
}

/// Requests that are on their way at once on one connection.
const WINDOW: usize = 64;
/// Bytes of one request: small enough to overlap, large enough not to matter.
const PIECE_BYTES: u64 = 1 << 20;
/// How long a connection beside others may take to come about. A server may say that several are
/// safe and yet take one at a time, and lets the next wait.
const EXTRA_PATIENCE: Duration = Duration::from_secs(2);
/// Bytes that one block status question covers.
const STATUS_BYTES: u64 = 1 << 30;

/// Patience and bounds of a client.
#[derive(Clone, Debug)]
pub struct ClientOptions {
    /// Most connections, if the server says that several are safe.
    pub connections_max: usize,
    /// How often a request is sent again over a new connection when the old one fails.
    pub retries: u32,
    /// Wait before the first new try; doubles with each further one, up to 5 s.
    pub first_delay: Duration,
    /// Silence after which a connection counts as dead.
    pub silence_max: Duration,
}

impl Default for ClientOptions {
    fn default() -> Self {
        ClientOptions {
            connections_max: 4,
            retries: 3,
            first_delay: Duration::from_millis(50),
            silence_max: Duration::from_secs(30),
        }
    }
}

/// What a client did so far.
#[derive(Debug, Default)]
pub struct ClientCounters {
    /// Requests that were sent.
    pub requests: AtomicU64,
    /// Bytes that were read.
    pub read_bytes: AtomicU64,
    /// Requests that were sent again over a new connection.
    pub retries: AtomicU64,
    /// Connections that were made.
    pub connections: AtomicU64,
}

/// An export of an NBD server, read-only.
#[derive(Debug)]
pub struct NbdDisk {
    address: Address,
    options: ClientOptions,
    tls: Option<ClientTls>,
    offer: Offer,
    geometry: Geometry,
    pool: Mutex<Pool>,
    free: Condvar,
    /// Extents that the server told last: where they start, and length and flags of each.
    extents: Mutex<(u64, Vec<(u64, u32)>)>,
    counters: ClientCounters,
}

#[derive(Debug)]
struct Pool {
    idle: Vec<Connection>,
    /// Connections that exist, idle or not.
    open: usize,
    /// Most that may: fewer than we would like once the server did not take one more.
    most: usize,
}

impl NbdDisk {
    /// Connects and asks for the export.
    ///
    /// Errors: `NotFound` if the server has no such export or nothing listens; `Unsupported` if
    /// it insists on TLS where the address does not, does not encrypt where it should, or insists on blocks that do not divide the export; `Corrupt` if it does not
    /// speak the protocol; `Io`.
    pub fn open(address: &Address, options: ClientOptions) -> Result<NbdDisk> {
        let tls = ClientTls::of(address).map_err(|error| error.in_layer(address.layer()))?;
        let connection = Connection::open(address, &options, tls.as_ref(), None)?;
        let offer = connection.offer;
        let block = u64::from(offer.block_bytes_min);
        if !offer.size_bytes.is_multiple_of(block) {
            let detail = format!("{} bytes in blocks of {block}", offer.size_bytes);
            return Err(Error::unsupported(detail).in_layer(address.layer()));
        }
        let sector = offer.block_bytes_min.max(512);
        let geometry = Geometry {
            size_bytes: offer.size_bytes,
            sector_size_bytes: sector,
            io_size_bytes: offer.block_bytes_preferred.clamp(1 << 16, 1 << 20).max(sector),
        };
        let most = if offer.multi { options.connections_max.max(1) } else { 1 };
        let counters = ClientCounters::default();
        counters.connections.fetch_add(1, Ordering::Relaxed);
        Ok(NbdDisk {
            address: address.clone(),
            options,
            tls,
            offer,
            geometry,
            pool: Mutex::new(Pool { idle: vec![connection], open: 1, most }),
            free: Condvar::new(),
            extents: Mutex::default(),
            counters,
        })
    }

    /// What it did so far.
    pub fn counters(&self) -> &ClientCounters {
        &self.counters
    }

    /// Runs `work` on a connection of its own, again on a new one if it breaks.
    fn with_connection<T>(
        &self,
        mut work: impl FnMut(&mut Connection) -> Result<T, Broken>,
    ) -> Result<T> {
        let mut delay = self.options.first_delay;
        let mut left = self.options.retries.min(100);
        loop {
            let broken = match self.borrow() {
                Err(error) => error,
                Ok(mut lent) => match lent.connection.as_mut().map(&mut work) {
                    Some(Ok(answer)) => return Ok(answer),
                    Some(Err(Broken::Answer(error))) => return Err(error.in_layer(self.layer())),
                    Some(Err(Broken::Connection(error))) => {
                        lent.connection = None;
                        self.forget_idle();
                        error
                    }
                    None => Error::new(Kind::Io, Problem::Unreadable, "no connection"),
                },
            };
            // What the server says on purpose will not change by asking again.
            let final_ = matches!(broken.kind(), Kind::Unsupported | Kind::Invalid | Kind::Denied);
            if left == 0 || final_ {
                return Err(broken.in_layer(self.layer()));
            }
            self.counters.retries.fetch_add(1, Ordering::Relaxed);
            std::thread::sleep(delay);
            delay = delay.saturating_mul(2).min(Duration::from_secs(5));
            left -= 1;
        }
    }

    fn borrow(&self) -> Result<Lent<'_>> {
        let mut pool = self.pool();
        loop {
            if let Some(connection) = pool.idle.pop() {
                return Ok(Lent { disk: self, connection: Some(connection) });
            }
            if pool.open >= pool.most {
                pool = self.free.wait(pool).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            let is_extra = pool.open > 0;
            pool.open += 1;
            drop(pool);
            // From here on its place is given back whatever happens.
            let mut lent = Lent { disk: self, connection: None };
            match self.connect(is_extra) {
                Ok(connection) => {
                    lent.connection = Some(connection);
                    return Ok(lent);
                }
                Err(error) if !is_extra => return Err(error),
                Err(_) => drop(lent),
            }
            // Those there are will do.
            pool = self.pool();
            pool.most = pool.open.max(1);
        }
    }

    fn connect(&self, is_extra: bool) -> Result<Connection> {
        let patience = self.options.silence_max;
        let mut options = self.options.clone();
        if is_extra {
            options.silence_max = patience.min(EXTRA_PATIENCE);
        }
        let tls = self.tls.as_ref();
        let connection = Connection::open(&self.address, &options, tls, Some(self.offer))?;
        connection.wait_at_most(patience);
        self.counters.connections.fetch_add(1, Ordering::Relaxed);
        Ok(connection)
    }

    /// Where one connection broke the others mostly did too; trying each would use up the tries.
    fn forget_idle(&self) {
        let mut pool = self.pool();
        let idle = std::mem::take(&mut pool.idle);
        pool.open -= idle.len();
        drop(pool);
        self.free.notify_all();
    }

    fn pool(&self) -> MutexGuard<'_, Pool> {
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn layer(&self) -> String {
        self.address.layer()
    }

    /// Cuts reads into requests and keeps many of them under way.
    fn read_pieces(&self, batch: &mut [ReadRequest<'_>]) -> Result<()> {
        let most = PIECE_BYTES.min(self.offer.request_bytes_max) as usize;
        let mut pieces: Vec<Piece<'_>> = Vec::new();
        for read in batch.iter_mut() {
            self.check_range(read.offset, read.buf.len() as u64)
                .map_err(|error| error.in_layer(self.layer()))?;
            let mut offset = read.offset;
            for buf in read.buf.chunks_mut(most) {
                let length = buf.len() as u64;
                pieces.push(Piece { offset, buf });
                offset += length;
            }
        }
        for window in pieces.chunks_mut(WINDOW) {
            let bytes: u64 = window.iter().map(|piece| piece.buf.len() as u64).sum();
            self.counters.requests.fetch_add(window.len() as u64, Ordering::Relaxed);
            self.with_connection(|connection| connection.read(window))?;
            self.counters.read_bytes.fetch_add(bytes, Ordering::Relaxed);
        }
        Ok(())
    }

    /// A read that does not keep to the server's blocks, by way of whole ones.
    fn read_unaligned(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let block = u64::from(self.offer.block_bytes_min);
        let (mut at, mut rest) = (offset, buf);
        while !rest.is_empty() {
            let start = at - at % block;
            let wanted = (at - start + rest.len() as u64).min(PIECE_BYTES);
            let mut whole = vec![0; wanted.next_multiple_of(block) as usize];
            self.read_pieces(&mut [ReadRequest { offset: start, buf: &mut whole }])?;
            let skip = (at - start) as usize;
            let length = (whole.len() - skip).min(rest.len());
            let (now, later) = rest.split_at_mut(length);
            now.copy_from_slice(&whole[skip..skip + length]);
            (at, rest) = (at + length as u64, later);
        }
        Ok(())
    }

    fn is_aligned(&self, offset: u64, length: usize) -> bool {
        let block = u64::from(self.offer.block_bytes_min);
        offset.is_multiple_of(block) && (length as u64).is_multiple_of(block)
    }

    /// Length and flags of what lies at `offset`, from what is known or by asking.
    fn status_at(&self, offset: u64) -> Result<(u64, u32)> {
        let rest = self.offer.size_bytes - offset;
        if !self.offer.status {
            return Ok((rest, 0));
        }
        let mut known = self.extents.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = find(&known, offset) {
            return Ok(found);
        }
        let block = u64::from(self.offer.block_bytes_min);
        let start = offset - offset % block;
        let length = STATUS_BYTES.min(self.offer.size_bytes - start);
        self.counters.requests.fetch_add(1, Ordering::Relaxed);
        match self.with_connection(|connection| connection.status(start, length)) {
            Ok(extents) => *known = (start, extents),
            // A server that will not tell says nothing about the data: read it to have it.
            Err(error)
                if matches!(error.kind(), Kind::Invalid | Kind::Unsupported | Kind::Limit) =>
            {
                return Ok((length - (offset - start), 0));
            }
            Err(error) => return Err(error),
        }
        let (length, flags) = find(&known, offset).unwrap_or((1, 0));
        Ok((length.min(rest), flags))
    }
}

fn find(known: &(u64, Vec<(u64, u32)>), offset: u64) -> Option<(u64, u32)> {
    let mut at = known.0;
    if offset < at {
        return None;
    }
    for (length, flags) in &known.1 {
        let end = at.checked_add(*length)?;
        if offset < end {
            return Some((end - offset, *flags));
        }
        at = end;
    }
    None
}

/// Why work on a connection ended.
#[derive(Debug)]
enum Broken {
    /// The server answered with an error; the connection is fine.
    Answer(Error),
    /// The connection is of no more use.
    Connection(Error),
}

/// A connection on loan; without one, its place goes back all the same.
struct Lent<'a> {
    disk: &'a NbdDisk,
    connection: Option<Connection>,
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        let mut pool = self.disk.pool();
        match self.connection.take() {
            Some(connection) => pool.idle.push(connection),
            None => pool.open -= 1,
        }
        drop(pool);
        self.disk.free.notify_one();
    }
}

impl Disk for NbdDisk {
    fn geometry(&self) -> Geometry {
        self.geometry
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.check_range(offset, buf.len() as u64).map_err(|error| error.in_layer(self.layer()))?;
        if self.is_aligned(offset, buf.len()) {
            self.read_pieces(&mut [ReadRequest { offset, buf }])
        } else {
            self.read_unaligned(buf, offset)
        }
    }

    fn read_batch(&self, batch: &mut [ReadRequest<'_>]) -> Result<()> {
        if batch.iter().all(|read| self.is_aligned(read.offset, read.buf.len())) {
            return self.read_pieces(batch);
        }
        adit_core::read_each(self, batch)
    }

    fn extent_at(&self, offset: u64) -> Result<Extent> {
        self.check_range(offset, 1).map_err(|error| error.in_layer(self.layer()))?;
        let (length, flags) = self.status_at(offset)?;
        let kind = match (flags & state::ZERO != 0, flags & state::HOLE != 0) {
            (true, true) => ExtentKind::Hole,
            (true, false) => ExtentKind::Zero,
            // A hole that does not promise zeros holds anything: read it.
            _ => ExtentKind::Data,
        };
        let length = length.clamp(1, self.offer.size_bytes - offset);
        Ok(Extent { offset, length, kind })
    }

    fn as_file(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn explain(&self, offset: u64) -> Result<Hop> {
        let next = if self.extent_at(offset)?.kind.is_zero() { Next::Zero } else { Next::Here };
        Ok(Hop { layer: self.layer(), offset, steps: Vec::new(), next })
    }
}

const _: () = assert!(PIECE_BYTES <= REQUEST_BYTES_MAX);
