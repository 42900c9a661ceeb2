//! The transmission phase of one connection.
//!
//! Threads take turns at receiving. Whoever has the turn answers what it receives by itself, as
//! long as the answer is at hand; before anything that may wait it passes the turn on. So cheap
//! requests cost no handing over, and slow ones run side by side.

use super::context::Context;
use super::handshake::Agreed;
use super::leaf::{Calm, StoredLeaf};
use super::out::{Out, REPLY_BYTES_MAX, message_of};
use super::read::Read;
use super::receive::Receiver;
use super::{Hub, Seat, TakenThread, lock};
use crate::counters::{Counters, add};
use crate::errors::number_of;
use crate::export::Export;
use crate::protocol::*;
use crate::socket::Socket;
use adit_core::{DiskExt, Error};
use std::io::{self, ErrorKind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

/// A connection in its transmission phase.
#[derive(Debug)]
pub(super) struct Session {
    hub: Arc<Hub>,
    pub(super) socket: Arc<Socket>,
    pub(super) export: Arc<Export>,
    pub(super) mode: Mode,
    contexts: Vec<Context>,
    receiver: Mutex<Receiver>,
    /// Held while whole chunks are sent.
    pub(super) send: Mutex<()>,
    /// Threads that wait for their turn.
    waiting: AtomicUsize,
    threads: AtomicUsize,
    _seat: Seat,
}

impl Session {
    pub(super) fn new(hub: Arc<Hub>, socket: Arc<Socket>, agreed: Agreed, seat: Seat) -> Session {
        add(&agreed.export.counters.connections, 1);
        Session {
            hub,
            socket,
            export: agreed.export,
            mode: agreed.mode,
            contexts: agreed.contexts,
            receiver: Mutex::new(Receiver::new()),
            send: Mutex::new(()),
            waiting: AtomicUsize::new(0),
            threads: AtomicUsize::new(1),
            _seat: seat,
        }
    }

    pub(super) fn counters(&self) -> &Counters {
        &self.export.counters
    }

    fn take_turn(&self) -> MutexGuard<'_, Receiver> {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let turn = lock(&self.receiver);
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        turn
    }

    /// Sees to it that somebody takes the turn that was just passed on.
    fn call_follower(self: &Arc<Self>) {
        add(&self.counters().handed_off, 1);
        let enough = self.waiting.load(Ordering::Relaxed) > 0
            || self.threads.load(Ordering::Relaxed) >= self.hub.options.threads_per_client_max;
        if enough || !self.hub.take_thread() {
            return;
        }
        self.threads.fetch_add(1, Ordering::Relaxed);
        let (hub, session) = (Arc::clone(&self.hub), Arc::clone(self));
        let spawned = std::thread::Builder::new().name("nbd-follower".into()).spawn(move || {
            let _thread = TakenThread(&hub);
            serve(&session);
        });
        if spawned.is_err() {
            self.hub.threads.fetch_sub(1, Ordering::Relaxed);
            self.threads.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// Serves a connection on this thread until it ends.
pub(super) fn serve(session: &Arc<Session>) {
    let leaving = Leaving(session);
    let worker = Worker::new(Arc::clone(session));
    if worker.and_then(|mut worker| worker.run()).is_err() {
        session.socket.hang_up();
    }
    drop(leaving);
}

/// A thread on its way out; one that panics takes the connection with it rather than leave a
/// client waiting for ever.
struct Leaving<'a>(&'a Session);

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.socket.hang_up();
        }
        self.0.threads.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What one thread has for its work. Nothing is allocated per request.
pub(super) struct Worker {
    pub(super) session: Arc<Session>,
    pub(super) out: Out,
    /// The stored extent that the last read ended in.
    pub(super) leaf: Option<StoredLeaf>,
    pub(super) calm: Calm,
    extents: Vec<(u64, u32)>,
    /// Writes that are carried out together with the one in hand.
    pub(super) gathered: Vec<Request>,
}

/// What became of a request on the first try.
pub(super) enum Answer {
    Done,
    /// It may wait, so the turn goes to somebody else first.
    Later(Later),
    Leave,
}

/// A request whose answer takes time.
pub(super) enum Later {
    Read(Read),
    /// Its payload stands in the buffer.
    Write(Request),
    Plain(Request),
}

impl Worker {
    fn new(session: Arc<Session>) -> io::Result<Worker> {
        let out = Out::new(session.mode);
        Ok(Worker {
            session,
            out,
            leaf: None,
            calm: Calm::default(),
            extents: Vec::new(),
            gathered: Vec::new(),
        })
    }

    fn run(&mut self) -> io::Result<()> {
        let session = Arc::clone(&self.session);
        let mut turn = session.take_turn();
        while !turn.ended {
            if !turn.has_request(session.mode) {
                self.flush()?;
            }
            let request = match turn.next(&session.socket, session.mode) {
                Ok(Some(request)) => request,
                Ok(None) => {
                    turn.ended = true;
                    break;
                }
                Err(why) => {
                    turn.ended = true;
                    return Err(why);
                }
            };
            match self.answer(request, &mut turn) {
                Ok(Answer::Done) => {}
                Ok(Answer::Leave) => turn.ended = true,
                Ok(Answer::Later(later)) => {
                    if let Later::Write(first) = &later
                        && let Err(why) = self.gather(first, &mut turn)
                    {
                        turn.ended = true;
                        return Err(why);
                    }
                    if matches!(later, Later::Write(_)) && !turn.has_more(&session.socket) {
                        // Nobody would be served sooner by passing the turn on.
                        self.finish(later)?;
                        continue;
                    }
                    drop(turn);
                    session.call_follower();
                    self.finish(later)?;
                    self.flush()?;
                    turn = session.take_turn();
                }
                Err(why) => {
                    turn.ended = true;
                    return Err(why);
                }
            }
        }
        drop(turn);
        self.flush()
    }

    pub(super) fn flush(&mut self) -> io::Result<()> {
        self.out.flush(&self.session.socket, &self.session.send)
    }

    /// Makes room for `length` more bytes, which the buffer can hold.
    pub(super) fn reserve(&mut self, length: usize) -> io::Result<()> {
        if self.out.room() < length { self.flush() } else { Ok(()) }
    }

    fn answer(&mut self, request: Request, turn: &mut Receiver) -> io::Result<Answer> {
        add(&self.session.counters().requests, 1);
        if request.command == command::DISC {
            return Ok(Answer::Leave);
        }
        let extended = self.session.mode == Mode::Extended;
        let carries = extended && request.flags & command_flag::PAYLOAD_LEN != 0;
        let payload = if carries || request.command == command::WRITE { request.length } else { 0 };
        if payload > REQUEST_BYTES_MAX {
            // Reading on to the end of it would serve an attacker only.
            return Err(ErrorKind::InvalidData.into());
        }
        if let Err((number, why)) = self.check(&request) {
            turn.skip(&self.session.socket, payload)?;
            self.refuse(&request, number, why)?;
            return Ok(Answer::Done);
        }
        match request.command {
            command::READ => self.start_read(request),
            command::WRITE => self.start_write(request, turn),
            command::BLOCK_STATUS => {
                self.block_status(&request)?;
                Ok(Answer::Done)
            }
            command::CACHE => {
                self.cache(&request)?;
                Ok(Answer::Done)
            }
            _ => Ok(Answer::Later(Later::Plain(request))),
        }
    }

    fn finish(&mut self, later: Later) -> io::Result<()> {
        match later {
            Later::Read(read) => self.finish_read(read),
            Later::Write(request) => self.finish_write(&request),
            Later::Plain(request) => self.write_command(&request),
        }
    }

    /// Everything that can be said of a request by its header alone.
    pub(super) fn check(&self, request: &Request) -> Result<(), (u32, &'static str)> {
        use command_flag::*;
        let export = &self.session.export;
        if self.session.hub.stopping.load(Ordering::Relaxed) {
            return Err((errno::ESHUTDOWN, "the server is stopping"));
        }
        if export.is_closed() {
            return Err((errno::ESHUTDOWN, "the export was taken away"));
        }
        let chunked = self.session.mode != Mode::Simple;
        let writes = export.writable.is_some();
        let fua = if writes { FUA } else { 0 };
        let (allowed, changes) = match request.command {
            command::READ => (fua | if chunked { DF } else { 0 }, false),
            command::WRITE if self.session.mode == Mode::Extended => (fua | PAYLOAD_LEN, true),
            command::WRITE | command::TRIM => (fua, true),
            command::FLUSH => (fua, false),
            command::CACHE => (fua, false),
            command::WRITE_ZEROES => (fua | NO_HOLE | FAST_ZERO, true),
            command::BLOCK_STATUS if self.contexts().is_empty() => {
                return Err((errno::EINVAL, "no metadata context was agreed on"));
            }
            command::BLOCK_STATUS => (fua | REQ_ONE, false),
            _ => return Err((errno::EINVAL, "unknown command")),
        };
        if changes && !writes {
            return Err((errno::EPERM, "the export is read-only"));
        }
        if request.flags & !allowed != 0 {
            return Err((errno::EINVAL, "a flag that this command does not take"));
        }
        if request.command == command::FLUSH {
            return Ok(());
        }
        if export.disk.check_range(request.offset, request.length).is_err() {
            let number = if changes { errno::ENOSPC } else { errno::EINVAL };
            return Err((number, "the range leaves the export"));
        }
        let moves = [command::READ, command::WRITE].contains(&request.command);
        if moves && request.length > REQUEST_BYTES_MAX {
            return Err((errno::EINVAL, "more than the largest request"));
        }
        Ok(())
    }

    fn contexts(&self) -> &[Context] {
        &self.session.contexts
    }

    fn block_status(&mut self, request: &Request) -> io::Result<()> {
        let session = Arc::clone(&self.session);
        add(&session.counters().statuses, 1);
        let extended = session.mode == Mode::Extended;
        let (head, each) = if extended { (8, 16) } else { (4, 8) };
        // In compact replies one length has 32 bits.
        let length = if extended { request.length } else { request.length.min(u32::MAX.into()) };
        let range = request.offset
            ..request.offset + length.max(1).min(session.export.size_bytes() - request.offset);
        let one = request.flags & command_flag::REQ_ONE != 0;
        for (index, context) in session.contexts.iter().enumerate() {
            self.extents.clear();
            let most = if one { 1 } else { usize::MAX };
            let described =
                context.describe(&session.export, range.clone(), most, &mut self.extents);
            if let (Err(error), true) = (&described, self.extents.is_empty()) {
                return self.fail(request, error, Some(request.offset));
            }
            if self.extents.is_empty() {
                return self.refuse(request, errno::EINVAL, "a range of no length");
            }
            let payload = head + each * self.extents.len();
            self.reserve(session.mode.chunk_bytes() + payload)?;
            let done = if index + 1 == session.contexts.len() { chunk::DONE } else { 0 };
            let kind = if extended { chunk::BLOCK_STATUS_EXT } else { chunk::BLOCK_STATUS };
            let (header, size) = chunk_header(session.mode, done, kind, request, payload as u64);
            self.out.put(&header[..size]);
            self.out.put(&(index as u32 + 1).to_be_bytes());
            if extended {
                self.out.put(&(self.extents.len() as u32).to_be_bytes());
            }
            for (length, flags) in &self.extents {
                if extended {
                    self.out.put(&length.to_be_bytes());
                    self.out.put(&u64::from(*flags).to_be_bytes());
                } else {
                    self.out.put(&u32::try_from(*length).unwrap_or(u32::MAX).to_be_bytes());
                    self.out.put(&flags.to_be_bytes());
                }
            }
        }
        Ok(())
    }

    pub(super) fn done(&mut self, request: &Request) -> io::Result<()> {
        self.reserve(REPLY_BYTES_MAX)?;
        self.out.put_done(request);
        Ok(())
    }

    pub(super) fn fail(
        &mut self,
        request: &Request,
        error: &Error,
        offset: Option<u64>,
    ) -> io::Result<()> {
        add(&self.session.counters().errors, 1);
        self.reserve(REPLY_BYTES_MAX)?;
        self.out.put_error(request, number_of(error), &message_of(error), offset);
        Ok(())
    }

    fn refuse(&mut self, request: &Request, number: u32, why: &str) -> io::Result<()> {
        add(&self.session.counters().errors, 1);
        self.reserve(REPLY_BYTES_MAX)?;
        self.out.put_error(request, number, why, None);
        Ok(())
    }
}
