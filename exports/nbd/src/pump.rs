//! Encrypted connections, of either side.
//!
//! The library that encrypts wants to be alone with its connection, while ours are read and
//! written by several threads. So a thread of its own stands between the encrypted socket and one
//! end of a pair; the other end is used like any socket.

use crate::socket::Socket;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustls::Connection;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;

/// Bytes that wait for one side before the other is read on.
const WAITING_BYTES_MAX: usize = 256 << 10;

/// Encrypts what goes over `outside` from here on, and gives the inside.
pub(crate) fn enter(connection: Connection, outside: &Socket) -> io::Result<Socket> {
    let (ours, theirs) = UnixStream::pair()?;
    let outside = UnixStream::from(outside.as_fd().try_clone_to_owned()?);
    outside.set_nonblocking(true)?;
    theirs.set_nonblocking(true)?;
    let mut pump = Pump { connection, outside, inside: theirs, plain: Vec::new(), taken: 0 };
    std::thread::Builder::new().name("nbd-tls".into()).spawn(move || {
        let _ = pump.run();
        // Both sides learn of the end.
        let _ = pump.outside.shutdown(std::net::Shutdown::Both);
    })?;
    Ok(Socket::new(ours))
}

/// The certificates of a PEM file, at least one.
pub(crate) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let all = CertificateDer::pem_file_iter(path).map_err(|why| why.to_string())?;
    let all: Vec<_> = all.collect::<Result<_, _>>().map_err(|why| why.to_string())?;
    if all.is_empty() { Err("there is no certificate in it".to_owned()) } else { Ok(all) }
}

/// How long the other side may take to greet, and to hear the last words.
const PATIENCE: Timespec = Timespec { tv_sec: 10, tv_nsec: 0 };

struct Pump {
    connection: Connection,
    outside: UnixStream,
    inside: UnixStream,
    /// Decrypted, and from `taken` on not yet passed on.
    plain: Vec<u8>,
    taken: usize,
}

impl Pump {
    /// Carries bytes both ways until both sides have ended.
    fn run(&mut self) -> io::Result<()> {
        let mut buffer = vec![0; 64 << 10];
        // Only filled when it is empty, so what it holds is bounded all the same.
        self.connection.set_buffer_limit(None);
        let (mut outside_ended, mut inside_ended) = (false, false);
        loop {
            let waiting = self.plain.len() - self.taken;
            let writes = self.connection.wants_write();
            let hears = !outside_ended && waiting < WAITING_BYTES_MAX;
            let takes = !inside_ended && !writes && !self.connection.is_handshaking();
            if inside_ended && !writes || outside_ended && waiting == 0 && inside_ended {
                return Ok(());
            }
            let (outer, inner) =
                self.wait([(hears, writes), (takes, waiting > 0)], inside_ended)?;
            if writes && outer {
                again(self.connection.write_tls(&mut self.outside))?;
            }
            if hears && outer {
                match again(self.connection.read_tls(&mut self.outside))? {
                    Some(0) => outside_ended = true,
                    Some(_) => self.decrypt()?,
                    None => {}
                }
            }
            if inner && waiting > 0 {
                self.pass_on()?;
            }
            if inner && takes {
                match again(self.inside.read(&mut buffer))? {
                    Some(0) => {
                        inside_ended = true;
                        self.connection.send_close_notify();
                    }
                    Some(length) => self.connection.writer().write_all(&buffer[..length])?,
                    None => {}
                }
            }
            if outside_ended && self.taken == self.plain.len() {
                // Whoever serves sees the end, and may still answer what came before it.
                let _ = self.inside.shutdown(std::net::Shutdown::Write);
            }
        }
    }

    /// Waits until a side can do what is wanted of it: reading, writing. A side of which nothing
    /// is wanted is not looked at.
    fn wait(&self, wanted: [(bool, bool); 2], is_ending: bool) -> io::Result<(bool, bool)> {
        let events = |(reads, writes): (bool, bool)| {
            let mut events = PollFlags::empty();
            events.set(PollFlags::IN, reads);
            events.set(PollFlags::OUT, writes);
            events
        };
        let mut polled = Vec::with_capacity(2);
        let mut places = [None; 2];
        for (side, stream) in [&self.outside, &self.inside].into_iter().enumerate() {
            if wanted[side] != (false, false) {
                places[side] = Some(polled.len());
                polled.push(PollFd::new(stream, events(wanted[side])));
            }
        }
        // The last words, and a handshake, do not wait for ever.
        let is_bounded = is_ending || self.connection.is_handshaking() || polled.is_empty();
        let limit = is_bounded.then_some(PATIENCE);
        loop {
            match poll(&mut polled, limit.as_ref()) {
                Err(rustix::io::Errno::INTR) => {}
                Ok(0) => return Err(ErrorKind::TimedOut.into()),
                Ok(_) => break,
                Err(why) => return Err(why.into()),
            }
        }
        let ready = |side: usize| places[side].is_some_and(|at| !polled[at].revents().is_empty());
        Ok((ready(0), ready(1)))
    }

    fn pass_on(&mut self) -> io::Result<()> {
        if let Some(passed) = again(self.inside.write(&self.plain[self.taken..]))? {
            self.taken += passed;
        }
        if self.taken == self.plain.len() || self.taken >= WAITING_BYTES_MAX {
            self.plain.drain(..self.taken);
            self.taken = 0;
        }
        Ok(())
    }

    fn decrypt(&mut self) -> io::Result<()> {
        let done = self.connection.process_new_packets();
        if done.is_err() {
            // The client is told why.
            let _ = self.connection.write_tls(&mut self.outside);
        }
        let state = done.map_err(io::Error::other)?;
        let start = self.plain.len();
        self.plain.resize(start + state.plaintext_bytes_to_read(), 0);
        self.connection.reader().read_exact(&mut self.plain[start..])?;
        Ok(())
    }
}

/// Nothing where the other side is not ready yet.
fn again(done: io::Result<usize>) -> io::Result<Option<usize>> {
    match done {
        Ok(length) => Ok(Some(length)),
        Err(why) if matches!(why.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
            Ok(None)
        }
        Err(why) => Err(why),
    }
}
