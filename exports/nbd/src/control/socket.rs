//! Lines in and out.

use super::commands::{Managed, answer};
use crate::server::listen::{self, Listening, Wake};
use adit_core::{Error, Kind, Problem, Result};
use serde_json::{Value, json};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// Longest request. Unit: bytes.
pub const LINE_BYTES_MAX: u64 = 64 << 10;
/// Longest answer that our side of it reads. Unit: bytes.
const ANSWER_BYTES_MAX: u64 = 16 << 20;
/// Most connections at once.
const CLIENTS_MAX: usize = 16;
/// A client that says nothing for so long, or takes so long to listen, is sent away.
const SILENCE_MAX: Duration = Duration::from_secs(300);

/// A control socket that is listened on. Dropping it ends that.
#[derive(Debug)]
pub struct Control {
    wake: Arc<Wake>,
    listening: Listening,
    thread: Option<JoinHandle<()>>,
}

impl Control {
    /// Listens at `path` for commands about these exports. A stale socket file is replaced.
    ///
    /// Errors: `Busy` if something listens there; `Denied` if the path is taken by another kind
    /// of file; `Io`.
    pub fn serve(path: &Path, exports: Vec<Managed>) -> Result<Control> {
        let listening = listen::unix(path)?;
        let failed = |why: io::Error| listen::failed("the control socket", &why);
        rustix::io::ioctl_fionbio(&listening.fd, true).map_err(|why| failed(why.into()))?;
        let wake = Arc::new(Wake::new().map_err(failed)?);
        let fd = listening.fd.try_clone().map_err(failed)?;
        let (exports, clients) = (Arc::new(exports), Arc::new(AtomicUsize::new(0)));
        let theirs = Arc::clone(&wake);
        let welcome = move |client| {
            if clients.fetch_add(1, Ordering::SeqCst) >= CLIENTS_MAX {
                clients.fetch_sub(1, Ordering::SeqCst);
                return;
            }
            let seat = Seat(Arc::clone(&clients));
            let exports = Arc::clone(&exports);
            // If no thread can be had, the closure is dropped, and the connection with it.
            let _ =
                std::thread::Builder::new().name("nbd-control-client".into()).spawn(move || {
                    let _seat = seat;
                    let _ = converse(UnixStream::from(client), &exports);
                });
        };
        let thread = std::thread::Builder::new()
            .name("nbd-control".into())
            .spawn(move || listen::accept_until(fd.as_fd(), &theirs, welcome))
            .map_err(failed)?;
        Ok(Control { wake, listening, thread: Some(thread) })
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        self.wake.raise();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        self.listening.remove_file();
    }
}

struct Seat(Arc<AtomicUsize>);

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Answers everything that comes over one connection, until it ends.
///
/// Errors: those of the connection.
pub fn converse(stream: UnixStream, exports: &[Managed]) -> io::Result<()> {
    stream.set_read_timeout(Some(SILENCE_MAX))?;
    stream.set_write_timeout(Some(SILENCE_MAX))?;
    let mut writer = stream.try_clone()?;
    let mut reader = BufReader::new(stream);
    let mut line = Vec::new();
    while let Some(whole) = read_line(&mut reader, &mut line, LINE_BYTES_MAX)? {
        let answered = if whole {
            respond(&line, exports)
        } else {
            Err(Error::limit(
                "line_bytes_max",
                format!("a line longer than {LINE_BYTES_MAX} bytes"),
            ))
        };
        let document = match answered {
            Ok(mut answer) => {
                if let Value::Object(map) = &mut answer {
                    map.insert("ok".into(), true.into());
                }
                answer
            }
            Err(error) => json!({ "ok": false, "error": error_json(&error) }),
        };
        let mut text = document.to_string().into_bytes();
        text.push(b'\n');
        writer.write_all(&text)?;
        if !whole {
            break;
        }
    }
    Ok(())
}

fn respond(line: &[u8], exports: &[Managed]) -> Result<Value> {
    let request: Value = serde_json::from_slice(line)
        .map_err(|why| Error::invalid(Problem::BadValue, format!("no JSON object: {why}")))?;
    answer(&request, exports)
}

fn error_json(error: &Error) -> Value {
    json!({
        "kind": error.kind().word(),
        "problem": error.problem().word(),
        "what": error.detail(),
        "try": error.advice(),
    })
}

/// Reads a line; nothing at the end, false for one that is too long.
fn read_line(
    reader: &mut impl BufRead,
    line: &mut Vec<u8>,
    bytes_max: u64,
) -> io::Result<Option<bool>> {
    line.clear();
    let length = reader.take(bytes_max + 1).read_until(b'\n', line)?;
    Ok((length > 0).then_some(length as u64 <= bytes_max))
}

/// Asks a control socket one thing.
///
/// Errors: `NotFound` if nothing listens there; what the server answered; `Io`.
pub fn ask(path: &Path, request: &Value) -> Result<Value> {
    let failed = |why: io::Error| {
        Error::io(Problem::Refused, format!("the control socket {}", path.display()), &why)
            .advise("is the server running, with --control at this path?")
    };
    let stream = UnixStream::connect(path).map_err(failed)?;
    let mut text = request.to_string().into_bytes();
    text.push(b'\n');
    (&stream).write_all(&text).map_err(failed)?;
    let mut line = Vec::new();
    let whole = read_line(&mut BufReader::new(&stream), &mut line, ANSWER_BYTES_MAX);
    let answer: Value = match whole.map_err(failed)? {
        Some(true) => serde_json::from_slice(&line).map_err(|why| {
            Error::corrupt(Problem::BadValue, format!("the answer is no JSON: {why}"))
        })?,
        _ => return Err(Error::new(Kind::Io, Problem::Truncated, "the server hung up")),
    };
    if answer["ok"] == true { Ok(answer) } else { Err(error_of(&answer["error"])) }
}

fn error_of(error: &Value) -> Error {
    const KINDS: [Kind; 11] = [
        Kind::Io,
        Kind::Corrupt,
        Kind::Unsupported,
        Kind::NotFound,
        Kind::Denied,
        Kind::ReadOnly,
        Kind::Limit,
        Kind::Busy,
        Kind::Invalid,
        Kind::Lost,
        Kind::Interrupted,
    ];
    let text = |name: &str| error[name].as_str().unwrap_or_default().to_owned();
    let kind = KINDS.into_iter().find(|kind| kind.word() == text("kind")).unwrap_or(Kind::Io);
    let what = crate::errors::tame(text("what").as_bytes());
    let plain = Error::new(kind, Problem::Refused, what);
    match text("try") {
        none if none.is_empty() => plain,
        advice => plain.advise(crate::errors::tame(advice.as_bytes())),
    }
}

/// The exports of a control socket, behind one lock where they are changed.
#[derive(Debug, Default)]
pub(super) struct Turn(Mutex<()>);

impl Turn {
    /// One change at a time: two snapshots at once would fight over names.
    pub(super) fn take(&self) -> std::sync::MutexGuard<'_, ()> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
