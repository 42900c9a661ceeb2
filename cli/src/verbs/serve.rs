//! `adit serve nbd`: disks for other programs.

use super::{map::disk_of, shown};
use crate::args::Nbd;
use crate::exit;
use crate::session::{Session, code_of};
use adit_core::{Error, Problem, Result};
use adit_nbd::{Export, Server, ServerOptions};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

/// Serves until Ctrl-C, or until the command of `--run` has ended.
pub fn nbd(session: &Session, nbd: &Nbd) -> u8 {
    let names: Vec<String> = nbd.paths.iter().map(|path| shown(path)).collect();
    serve(session, nbd)
        .unwrap_or_else(|error| session.fail(&format!("serve {}", names.join(", ")), &error))
}

fn serve(session: &Session, nbd: &Nbd) -> Result<u8> {
    let mut exports = Vec::new();
    let mut code = exit::GOOD;
    for path in &nbd.paths {
        let opened = session.open_disk(path)?;
        code = exit::worse(code, code_of(&opened.notes));
        let (disk, opened) = disk_of(session, opened)?;
        // One disk is the default export; several go by the last part of their path.
        let name = if nbd.paths.len() == 1 { String::new() } else { last_part(path) };
        exports.push(Export::read_only(name, disk).described(opened.locator.to_string()));
    }
    let server = Server::new(exports, ServerOptions::default())?;
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
        let ran = run(session, command, uri);
        server.stop();
        return ran;
    }
    while !session.interrupt.raised() {
        std::thread::sleep(Duration::from_millis(100));
    }
    server.stop();
    Ok(code)
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

fn unix_uri(path: &PathBuf) -> Result<String> {
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
