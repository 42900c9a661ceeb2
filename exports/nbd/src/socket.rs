//! A connected stream socket of either family. Writing to one whose peer is gone is an error,
//! never a signal.

use rustix::net::{RecvFlags, SendFlags, Shutdown, sockopt};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

#[derive(Debug)]
pub(crate) struct Socket(OwnedFd);

impl Socket {
    pub(crate) fn new(fd: impl Into<OwnedFd>) -> Socket {
        let socket = Socket(fd.into());
        // Replies are written whole; a Unix socket has no such option and needs none.
        let _ = sockopt::set_tcp_nodelay(&socket.0, true);
        socket
    }

    /// Reads some bytes, none only at the end.
    pub(crate) fn receive(&self, buf: &mut [u8]) -> io::Result<usize> {
        loop {
            match rustix::net::recv(&self.0, &mut *buf, RecvFlags::empty()) {
                Err(rustix::io::Errno::INTR) => {}
                Err(why) => return Err(why.into()),
                Ok((_, length)) => return Ok(length.min(buf.len())),
            }
        }
    }

    pub(crate) fn receive_all(&self, mut buf: &mut [u8]) -> io::Result<()> {
        while !buf.is_empty() {
            match self.receive(buf)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                length => buf = &mut buf[length..],
            }
        }
        Ok(())
    }

    pub(crate) fn send_all(&self, bytes: &[u8]) -> io::Result<()> {
        self.send_flagged(bytes, SendFlags::NOSIGNAL)
    }

    /// As `send_all`, for bytes that more will follow at once.
    pub(crate) fn send_more(&self, bytes: &[u8]) -> io::Result<()> {
        self.send_flagged(bytes, SendFlags::NOSIGNAL | SendFlags::MORE)
    }

    fn send_flagged(&self, mut bytes: &[u8], flags: SendFlags) -> io::Result<()> {
        while !bytes.is_empty() {
            match rustix::net::send(&self.0, bytes, flags) {
                Err(rustix::io::Errno::INTR) => {}
                Err(why) => return Err(why.into()),
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(length) => bytes = &bytes[length.min(bytes.len())..],
            }
        }
        Ok(())
    }

    pub(crate) fn receive_timeout(&self, limit: Option<Duration>) {
        let _ = sockopt::set_socket_timeout(&self.0, sockopt::Timeout::Recv, limit);
    }

    pub(crate) fn send_timeout(&self, limit: Option<Duration>) {
        let _ = sockopt::set_socket_timeout(&self.0, sockopt::Timeout::Send, limit);
    }

    /// What has arrived can still be read; after it comes the end.
    pub(crate) fn stop_receiving(&self) {
        let _ = rustix::net::shutdown(&self.0, Shutdown::Read);
    }

    pub(crate) fn hang_up(&self) {
        let _ = rustix::net::shutdown(&self.0, Shutdown::Both);
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
