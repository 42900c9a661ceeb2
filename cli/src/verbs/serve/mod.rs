//! `adit serve nbd`: disks for other programs.

mod isolate;
mod sandbox;

use super::kept::{self, Base, FileKeeper, Kept, TemporaryKeeper};
use super::shown;
use crate::args::Nbd;
use crate::exit;
use crate::session::{Session, code_of};
use adit_core::{Error, Problem, Result, WritableDisk};
use adit_filters::{Entry, Filter, Filters, Sink};
use adit_nbd::{Control, Export, Keeper, Managed, Server, ServerOptions, Tls};
use adit_open::{Opened, Risks};
use adit_overlay::{Layer, Live, Temporary};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

/// How long the end waits for requests that are under way.
const PATIENCE: Duration = Duration::from_secs(30);

/// Serves until Ctrl-C, or until the command of `--run` has ended.
pub fn nbd(session: &Session, nbd: &Nbd) -> u8 {
    let names: Vec<String> = nbd.paths.iter().map(|path| shown(path)).collect();
    let done = if nbd.isolate { isolated(session, nbd) } else { serve(session, nbd) };
    done.unwrap_or_else(|error| session.fail(&format!("serve {}", names.join(", ")), &error))
}

/// As one of several processes, or as the one that watches them.
fn isolated(session: &Session, nbd: &Nbd) -> Result<u8> {
    let Some(own) = isolate::own(nbd)? else { return isolate::supervise(session, nbd) };
    let (socket, control) = (Some(own.socket), own.control);
    let paths = vec![own.path];
    serve(session, &Nbd { paths, socket, control, exit_with_parent: true, ..nbd.clone() })
}

fn serve(session: &Session, nbd: &Nbd) -> Result<u8> {
    if nbd.exit_with_parent {
        exit_with_parent(session)?;
    }
    if nbd.overlay.is_some() && nbd.paths.len() > 1 && !is_temporary(nbd) {
        return Err(Error::invalid(Problem::Ambiguous, "one overlay file for several disks")
            .advise("serve each disk by a server of its own, or use --overlay :temp:"));
    }
    let mut all = Vec::new();
    let mut code = exit::GOOD;
    for path in &nbd.paths {
        // One disk is the default export; several go by the last part of their path.
        let name = if nbd.paths.len() == 1 { String::new() } else { last_part(path) };
        let (managed, worst) = managed(session, nbd, path, name)?;
        code = exit::worse(code, worst);
        all.push(managed);
    }
    let exports = all.iter().map(|managed| managed.export.clone()).collect();
    let tls = match (&nbd.tls_cert, &nbd.tls_key) {
        (Some(cert), Some(key)) => {
            // Who must show a certificate must encrypt.
            let required = nbd.tls_required || nbd.tls_clients.is_some();
            Some(Tls::open(cert, key, nbd.tls_clients.as_deref(), required)?)
        }
        _ => None,
    };
    let server = Server::new(exports, ServerOptions { tls, ..ServerOptions::default() })?;
    if nbd.sandbox {
        // Before any thread that serves is started: they inherit it.
        sandbox::enter(session, nbd)?;
    }
    let lives: Vec<Arc<Live>> = all.iter().filter_map(|managed| managed.live.clone()).collect();
    let filters: Vec<Filters> = all.iter().map(|managed| managed.filters.clone()).collect();
    let control = match &nbd.control {
        Some(path) => Some(Control::serve(path, all)?),
        None => None,
    };
    let served = listen_and_wait(session, nbd, &server, code);
    drop(control);
    // Nobody may wait for a source that does not come back.
    filters.iter().flat_map(Filters::retries).for_each(|retry| retry.stop());
    for live in &lives {
        live.unpause();
    }
    server.stop();
    let closed = lives.iter().try_for_each(|live| live.close(PATIENCE));
    served.and_then(|code| closed.map(|()| code))
}

fn listen_and_wait(session: &Session, nbd: &Nbd, server: &Server, code: u8) -> Result<u8> {
    let own_socket = nbd.run.is_some() && nbd.socket.is_none() && nbd.port.is_none();
    let socket = match &nbd.socket {
        None if own_socket => {
            Some(std::env::temp_dir().join(format!("adit-{}.sock", std::process::id())))
        }
        given => given.clone(),
    };
    let mut uris = Vec::new();
    if let Some(path) = &socket {
        server.serve_unix(path)?;
        uris.push(unix_uri(path)?);
    }
    if let Some(port) = nbd.port {
        uris.push(format!("nbd://{}", server.serve_tcp((nbd.bind, port))?));
    }
    if server.serve_listen_fds()? == 0 && uris.is_empty() {
        return Err(Error::invalid(Problem::Missing, "there is no socket to listen on")
            .advise("give --socket PATH, --port PORT or --run COMMAND"));
    }
    if !session.common.quiet {
        for uri in &uris {
            server.exports().for_each(|export| eprintln!("{uri}{}", suffix(uri, export.name())));
        }
    }
    if let (Some(command), Some(uri)) = (&nbd.run, uris.first()) {
        return run(session, command, uri);
    }
    while !session.interrupt.raised() {
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(code)
}

fn is_temporary(nbd: &Nbd) -> bool {
    nbd.overlay.as_deref() == Some(Path::new(":temp:"))
}

/// One disk with its filters and layers.
fn managed(session: &Session, nbd: &Nbd, path: &OsStr, name: String) -> Result<(Managed, u8)> {
    let sink: Arc<dyn Sink> = Arc::new(ToStandardError);
    let filters = Filters::parse(nbd.filter.iter().map(String::as_str), &sink)?;
    let limits = &session.opener.options().limits;
    if nbd.writable {
        let edit = session.opener.edit(Path::new(path), Risks::default())?;
        session.tell(&edit.notes);
        let keeper = FileKeeper::of_original(&edit.path, edit.format, limits)?;
        let layers = vec![Layer::image(shown(path), edit.image)];
        let managed = live(name, shown(path), layers, filters.clone(), &filters, Arc::new(keeper))?;
        return Ok((managed, code_of(&edit.notes)));
    }
    let (base, opened) = kept::base_of(session, path)?;
    let (title, code) = (opened.locator.to_string(), code_of(&opened.notes));
    let Some(overlay) = &nbd.overlay else {
        let disk = filters.over(base.disk)?;
        let export = Export::read_only(name, disk).described(title);
        return Ok((Managed::fixed(export, filters), code));
    };
    let (below, above): (Vec<Filter>, Vec<Filter>) =
        filters.0.iter().cloned().partition(stands_below);
    let disk = Filters(below).over(Arc::clone(&base.disk))?;
    let base = base.with_disk(disk);
    let (layers, keeper) = layers(nbd, overlay, base, &opened, limits)?;
    Ok((live(name, title, layers, filters, &Filters(above), keeper)?, code))
}

/// The disk and what clients change of it, and who keeps that.
fn layers(
    nbd: &Nbd,
    overlay: &Path,
    base: Base,
    opened: &Opened,
    limits: &adit_core::Limits,
) -> Result<(Vec<Layer>, Arc<dyn Keeper>)> {
    let bottom = Layer::read_only(opened.locator.to_string(), Arc::clone(&base.disk));
    if is_temporary(nbd) {
        let changes = Temporary::new(Arc::clone(&base.disk), &std::env::temp_dir())?;
        let top = Layer::writable("temporary overlay", Arc::new(changes));
        return Ok((vec![bottom, top], Arc::new(TemporaryKeeper)));
    }
    let kept: Kept = kept::open_or_create(overlay, &base, limits)?;
    let keeper = FileKeeper::over(base, &kept, limits);
    let layers = std::iter::once(bottom).chain(kept.layers).collect();
    Ok((layers, Arc::new(keeper)))
}

fn live(
    name: String,
    title: String,
    layers: Vec<Layer>,
    all: Filters,
    above: &Filters,
    keeper: Arc<dyn Keeper>,
) -> Result<Managed> {
    let live = Live::new(layers)?;
    let disk = above.over_writable(Arc::clone(&live) as Arc<dyn WritableDisk>)?;
    let export = Export::writable(name, disk).described(title);
    Ok(Managed::live(export, all, live, keeper))
}

/// Whether a filter is about the source rather than about clients.
fn stands_below(filter: &Filter) -> bool {
    matches!(filter, Filter::Retry(_) | Filter::Cache(..) | Filter::Readahead(_) | Filter::Error(_))
}

/// The log filter's lines.
#[derive(Debug)]
struct ToStandardError;

impl Sink for ToStandardError {
    fn note(&self, entry: &Entry<'_>) {
        let (op, range, took) = (entry.op.word(), entry.range, entry.took.as_micros());
        let length = range.end.saturating_sub(range.start);
        match entry.error {
            None => eprintln!("{op} {:#x}+{length} {took} us", range.start),
            Some(error) => eprintln!("{op} {:#x}+{length} {took} us: {error}", range.start),
        }
    }
}

/// Has the kernel end this process, as Ctrl-C would, when the one that started it ends.
fn exit_with_parent(session: &Session) -> Result<()> {
    let parent = rustix::process::getppid();
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::TERM))
        .map_err(|why| Error::io(Problem::Refused, "watching the parent", &why.into()))?;
    // It may have ended before anybody watched.
    if rustix::process::getppid() != parent {
        session.interrupt.raise();
    }
    Ok(())
}

fn run(session: &Session, command: &str, uri: &str) -> Result<u8> {
    let failed = |why| Error::io(Problem::Refused, format!("running {command:?}"), &why);
    let mut child =
        Command::new("sh").args(["-c", command]).env("uri", uri).spawn().map_err(failed)?;
    loop {
        if let Some(status) = child.try_wait().map_err(failed)? {
            return Ok(status
                .code()
                .and_then(|code| u8::try_from(code).ok())
                .unwrap_or(exit::ERROR));
        }
        if session.interrupt.raised() {
            let _ = child.kill();
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn unix_uri(path: &Path) -> Result<String> {
    let whole = std::path::absolute(path)
        .map_err(|why| Error::io(Problem::BadValue, path.display().to_string(), &why))?;
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"/-_.~".contains(byte);
    let escaped: String = whole
        .as_os_str()
        .as_bytes()
        .iter()
        .map(
            |byte| if plain(byte) { char::from(*byte).to_string() } else { format!("%{byte:02X}") },
        )
        .collect();
    Ok(format!("nbd+unix:///?socket={escaped}"))
}

/// How an export's name is shown beside the address.
fn suffix(uri: &str, name: &str) -> String {
    match (name.is_empty(), uri.contains('?')) {
        (true, _) => String::new(),
        (false, true) => format!("  export {name:?}"),
        (false, false) => format!("/{name}"),
    }
}

fn last_part(path: &OsStr) -> String {
    let part = path.as_bytes().split(|&byte| byte == b'/').rfind(|part| !part.is_empty());
    String::from_utf8_lossy(part.unwrap_or_default()).into_owned()
}
