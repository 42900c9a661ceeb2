//! Listening, and the threads behind it.

mod context;
mod handshake;
mod leaf;
pub(crate) mod listen;
mod out;
mod read;
mod receive;
mod session;
mod tls;
mod write;

use crate::export::Export;
use crate::socket::Socket;
use adit_core::{Error, Problem, Result};
use listen::{Listening, Wake};
use session::Session;
use std::collections::HashMap;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
pub use tls::Tls;

/// Bounds of a server.
#[derive(Clone, Debug)]
pub struct ServerOptions {
    /// Most connections at once; further ones are closed at once.
    pub clients_max: usize,
    /// Most threads of one connection: how many of its slow requests run side by side.
    pub threads_per_client_max: usize,
    /// Most threads of all connections together. Each holds a buffer of about 260 KiB.
    pub threads_max: usize,
    /// How long a stop waits for requests that are being answered.
    pub drain_max: Duration,
    /// What encrypts connections that ask for it.
    pub tls: Option<Tls>,
}

impl Default for ServerOptions {
    fn default() -> Self {
        ServerOptions {
            clients_max: 64,
            threads_per_client_max: 8,
            threads_max: 256,
            drain_max: Duration::from_secs(5),
            tls: None,
        }
    }
}

/// Disks offered over any number of sockets. Dropping it stops it.
#[derive(Debug)]
pub struct Server {
    hub: Arc<Hub>,
    wake: Arc<Wake>,
    listening: Mutex<Vec<(Listening, JoinHandle<()>)>>,
}

impl Server {
    /// A server of these exports that listens nowhere yet.
    ///
    /// Errors: `Invalid` when there is none, when two have one name, or when a name is too long.
    pub fn new(exports: Vec<Export>, options: ServerOptions) -> Result<Server> {
        if exports.is_empty() {
            return Err(Error::invalid(Problem::Missing, "there is nothing to export"));
        }
        let mut names: Vec<&str> = exports.iter().map(Export::name).collect();
        names.sort_unstable();
        if let Some(twice) = names.windows(2).find(|pair| pair[0] == pair[1]) {
            let detail = format!("two exports are called {:?}", twice[0]);
            return Err(Error::invalid(Problem::Ambiguous, detail)
                .advise("give each export a name of its own"));
        }
        exports.iter().try_for_each(Export::check)?;
        let wake = Wake::new().map_err(|why| listen::failed("making a pipe", &why))?;
        let hub = Hub {
            exports: exports.into_iter().map(Arc::new).collect(),
            options,
            stopping: AtomicBool::new(false),
            threads: AtomicUsize::new(0),
            next_client: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            clients: Mutex::default(),
            left: Condvar::new(),
        };
        Ok(Server { hub: Arc::new(hub), wake: Arc::new(wake), listening: Mutex::default() })
    }

    /// Listens on a Unix socket that only this user can reach. A stale socket file is replaced;
    /// the file goes when the server stops.
    ///
    /// Errors: `Busy` if something listens there; `Denied` if the path is taken by another kind
    /// of file; `Io`.
    pub fn serve_unix(&self, path: &Path) -> Result<()> {
        self.listen(listen::unix(path)?)
    }

    /// Listens on a TCP address and gives the one that was bound, for port 0. There is neither
    /// encryption nor a password: give a loopback address unless the network is trusted.
    ///
    /// Errors: `Busy`, `Denied`, `Io`.
    pub fn serve_tcp(&self, address: impl ToSocketAddrs) -> Result<SocketAddr> {
        let failed = |why| listen::failed("listening on a TCP address", &why);
        let listener = TcpListener::bind(address).map_err(failed)?;
        let bound = listener.local_addr().map_err(failed)?;
        self.listen(Listening { fd: OwnedFd::from(listener), file: None })?;
        Ok(bound)
    }

    /// Listens on the sockets that the service manager handed to this process (`LISTEN_FDS`),
    /// and gives their number: 0 when there are none.
    ///
    /// Errors: `Invalid` for descriptors that are no listening stream sockets.
    pub fn serve_listen_fds(&self) -> Result<usize> {
        let sockets = listen::inherited()?;
        let count = sockets.len();
        sockets.into_iter().try_for_each(|socket| self.listen(socket))?;
        Ok(count)
    }

    /// Serves a client whose connection somebody else accepted, on threads of its own. Returns at
    /// once; one client too many is turned away as others are.
    pub fn serve_client(&self, client: impl Into<OwnedFd>) {
        self.hub.welcome(client.into());
    }

    /// Takes an export away: clients that use it are cut off, new ones do not find it. False if
    /// there is none of that name.
    pub fn close_export(&self, name: &str) -> bool {
        let Some(export) = self.exports().find(|export| export.name == name) else { return false };
        let was_open = !export.is_closed();
        export.close();
        was_open
    }

    /// The exports, in the order they were given.
    pub fn exports(&self) -> impl Iterator<Item = &Export> {
        self.hub.exports.iter().map(Arc::as_ref)
    }

    /// Connections that are open now.
    pub fn clients(&self) -> usize {
        self.hub.clients().len()
    }

    /// Connections that were turned away because there were too many.
    pub fn refused(&self) -> u64 {
        self.hub.refused.load(Ordering::Relaxed)
    }

    /// Stops: no new connection, no new request; what is being answered is answered, within
    /// `drain_max`. May be called from any thread, and again.
    pub fn stop(&self) {
        self.hub.stopping.store(true, Ordering::SeqCst);
        self.wake.raise();
        let listening = std::mem::take(&mut *lock(&self.listening));
        for (socket, thread) in listening {
            let _ = thread.join();
            socket.remove_file();
        }
        self.hub.clients().values().for_each(|socket| socket.stop_receiving());
        if !self.hub.wait_until_empty(self.hub.options.drain_max) {
            self.hub.clients().values().for_each(|socket| socket.hang_up());
            // A thread that waits for a disk cannot be stopped; it ends with its read.
            self.hub.wait_until_empty(Duration::from_secs(1));
        }
    }

    fn listen(&self, listening: Listening) -> Result<()> {
        let failed = |why| listen::failed("listening", &why);
        rustix::io::ioctl_fionbio(&listening.fd, true).map_err(|why| failed(why.into()))?;
        let fd = listening.fd.try_clone().map_err(failed)?;
        let (hub, wake) = (Arc::clone(&self.hub), Arc::clone(&self.wake));
        let thread = std::thread::Builder::new()
            .name("nbd-accept".into())
            .spawn(move || listen::accept_until(fd.as_fd(), &wake, |client| hub.welcome(client)))
            .map_err(failed)?;
        lock(&self.listening).push((listening, thread));
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

/// What all connections share.
#[derive(Debug)]
pub(crate) struct Hub {
    exports: Vec<Arc<Export>>,
    options: ServerOptions,
    stopping: AtomicBool,
    /// Threads that serve connections now.
    threads: AtomicUsize,
    next_client: AtomicU64,
    refused: AtomicU64,
    clients: Mutex<HashMap<u64, Arc<Socket>>>,
    left: Condvar,
}

impl Hub {
    fn clients(&self) -> MutexGuard<'_, HashMap<u64, Arc<Socket>>> {
        lock(&self.clients)
    }

    fn welcome(self: &Arc<Self>, client: OwnedFd) {
        let socket = Arc::new(Socket::new(client));
        let number = self.next_client.fetch_add(1, Ordering::Relaxed);
        {
            let mut clients = self.clients();
            if clients.len() >= self.options.clients_max || !self.take_thread() {
                self.refused.fetch_add(1, Ordering::Relaxed);
                return;
            }
            clients.insert(number, Arc::clone(&socket));
        }
        // Dropped with the last thread of the connection.
        let seat = Seat { hub: Arc::clone(self), number };
        let hub = Arc::clone(self);
        let spawned = std::thread::Builder::new().name("nbd-client".into()).spawn(move || {
            let _thread = TakenThread(&hub);
            let house = handshake::House {
                exports: &hub.exports,
                stopping: &hub.stopping,
                tls: hub.options.tls.as_ref(),
            };
            if let Ok(Some(mut agreed)) = handshake::negotiate(&socket, &house) {
                let socket = agreed.inside.take().unwrap_or(socket);
                let session = Session::new(Arc::clone(&hub), socket, agreed, seat);
                session::serve(&Arc::new(session));
            }
        });
        if spawned.is_err() {
            self.threads.fetch_sub(1, Ordering::Relaxed);
        }
    }

    fn take_thread(&self) -> bool {
        let most = self.options.threads_max;
        let more = |now| (now < most).then_some(now + 1);
        self.threads.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }

    fn wait_until_empty(&self, most: Duration) -> bool {
        let until = Instant::now() + most;
        let mut clients = self.clients();
        while !clients.is_empty() {
            let Some(rest) = until.checked_duration_since(Instant::now()) else { return false };
            let waited = self.left.wait_timeout(clients, rest);
            clients = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }
}

/// A connection's place among the clients.
#[derive(Debug)]
struct Seat {
    hub: Arc<Hub>,
    number: u64,
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.hub.clients().remove(&self.number);
        self.hub.left.notify_all();
    }
}

/// One of the threads that `take_thread` counted.
struct TakenThread<'a>(&'a Hub);

impl Drop for TakenThread<'_> {
    fn drop(&mut self) {
        self.0.threads.fetch_sub(1, Ordering::Relaxed);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
