//! Sockets that wait for clients.

use adit_core::{Error, Kind, Problem, Result};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::Mode;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, sockopt};
use std::fs::Metadata;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Connections that may wait for an answer.
const BACKLOG: i32 = 128;
/// Most sockets a service manager hands over.
const INHERITED_MAX: i32 = 64;

/// A listening socket, and the file to remove after it.
#[derive(Debug)]
pub(crate) struct Listening {
    pub(crate) fd: OwnedFd,
    pub(crate) file: Option<(PathBuf, Metadata)>,
}

impl Listening {
    /// Removes the socket file if it is still ours.
    pub(crate) fn remove_file(&self) {
        let Some((path, ours)) = &self.file else { return };
        let now = std::fs::symlink_metadata(path);
        if now.is_ok_and(|now| (now.dev(), now.ino()) == (ours.dev(), ours.ino())) {
            let _ = std::fs::remove_file(path);
        }
    }
}

pub(crate) fn failed(what: &str, why: &io::Error) -> Error {
    if why.kind() == io::ErrorKind::AddrInUse {
        return Error::new(Kind::Busy, Problem::Refused, format!("{what}: {why}"))
            .advise("another server listens there; stop it, or choose another address");
    }
    Error::io(Problem::Refused, what, why)
}

/// Listens at `path`, readable and writable by its owner alone.
pub(crate) fn unix(path: &Path) -> Result<Listening> {
    let at =
        |why: rustix::io::Errno| failed(&format!("listening on {}", path.display()), &why.into());
    remove_stale(path)?;
    let address = SocketAddrUnix::new(path).map_err(|why| {
        at(why).advise("the path of a Unix socket has at most 107 bytes; choose a shorter one")
    })?;
    let flags = SocketFlags::CLOEXEC;
    let fd = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
        .map_err(at)?;
    // On Linux the file takes its permissions from the socket, so there is no moment
    // in which others could connect.
    rustix::fs::fchmod(&fd, Mode::RUSR | Mode::WUSR).map_err(at)?;
    rustix::net::bind(&fd, &address).map_err(at)?;
    rustix::net::listen(&fd, BACKLOG).map_err(at)?;
    let file = std::fs::symlink_metadata(path).ok().map(|metadata| (path.to_owned(), metadata));
    Ok(Listening { fd, file })
}

/// Removes a socket file that a server left behind when it died.
fn remove_stale(path: &Path) -> Result<()> {
    let Ok(there) = std::fs::symlink_metadata(path) else { return Ok(()) };
    if !there.file_type().is_socket() {
        let detail = format!("{} exists and is no socket", path.display());
        return Err(
            Error::new(Kind::Denied, Problem::Refused, detail).advise("choose another path")
        );
    }
    match UnixStream::connect(path) {
        Err(why) if why.kind() == io::ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path).map_err(|why| failed("removing a stale socket", &why))
        }
        _ => {
            let detail = format!("another server listens on {}", path.display());
            Err(Error::new(Kind::Busy, Problem::Refused, detail)
                .advise("stop it, or choose another path"))
        }
    }
}

/// The sockets of `LISTEN_FDS`, from descriptor 3 on, if they are meant for this process.
///
/// Source: `sd_listen_fds(3)`.
pub(crate) fn inherited() -> Result<Vec<Listening>> {
    let number = |name| std::env::var(name).ok()?.parse::<i32>().ok();
    let ours = number("LISTEN_PID").is_some_and(|pid| u32::try_from(pid) == Ok(std::process::id()));
    let count = number("LISTEN_FDS").filter(|_| ours).unwrap_or(0).clamp(0, INHERITED_MAX);
    let mut sockets = Vec::new();
    if count == 0 {
        return Ok(sockets);
    }
    let unusable = |fd: i32, why: &str| {
        let detail = format!("descriptor {fd} of LISTEN_FDS {why}");
        Error::invalid(Problem::BadValue, detail)
            .advise("the socket unit must say ListenStream=, and Accept=no")
    };
    // A bare number is no descriptor until the kernel duplicates it: `unsafe` stays out.
    let process = rustix::process::pidfd_open(
        rustix::process::getpid(),
        rustix::process::PidfdFlags::empty(),
    )
    .map_err(|why| failed("taking over sockets", &why.into()))?;
    for number in 3..3 + count {
        let flags = rustix::process::PidfdGetfdFlags::empty();
        let fd = rustix::process::pidfd_getfd(&process, number, flags)
            .map_err(|why| unusable(number, &format!("cannot be taken over: {why}")))?;
        let is_stream = sockopt::socket_type(&fd) == Ok(SocketType::STREAM);
        if !is_stream || sockopt::socket_acceptconn(&fd) != Ok(true) {
            return Err(unusable(number, "is no listening stream socket"));
        }
        sockets.push(Listening { fd, file: None });
    }
    Ok(sockets)
}

/// Wakes every accepting thread, once and for all.
#[derive(Debug)]
pub(crate) struct Wake {
    reader: OwnedFd,
    writer: OwnedFd,
}

impl Wake {
    pub(crate) fn new() -> io::Result<Wake> {
        let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        Ok(Wake { reader, writer })
    }

    pub(crate) fn raise(&self) {
        let _ = rustix::io::write(&self.writer, &[1]);
    }
}

/// Hands every client to `welcome` until the wake is raised.
pub(crate) fn accept_until(listener: BorrowedFd<'_>, wake: &Wake, welcome: impl Fn(OwnedFd)) {
    loop {
        let mut waiting = [
            PollFd::new(&listener, PollFlags::IN),
            PollFd::from_borrowed_fd(wake.reader.as_fd(), PollFlags::IN),
        ];
        if poll(&mut waiting, None).is_err() {
            continue;
        }
        if !waiting[1].revents().is_empty() {
            return;
        }
        match rustix::net::accept_with(listener, SocketFlags::CLOEXEC) {
            Ok(client) => welcome(client),
            // Out of descriptors: the waiting client would wake us again at once.
            Err(rustix::io::Errno::MFILE | rustix::io::Errno::NFILE) => {
                std::thread::sleep(Duration::from_millis(50));
            }
            Err(_) => {}
        }
    }
}
