//! A process for each export: what breaks one does not touch another.

use super::last_part;
use crate::args::Nbd;
use crate::exit;
use crate::session::Session;
use adit_core::{Error, Problem, Result};
use rustix::process::{Pid, Signal, kill_process};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

/// Tells a process which of the paths is its own.
const VARIABLE: &str = "ADIT_ISOLATED_EXPORT";

/// What a process of ours serves, if it is one of those that [`supervise`] started.
pub struct Own {
    pub path: OsString,
    pub socket: PathBuf,
    pub control: Option<PathBuf>,
}

/// The part of this process, if it was started for one.
pub fn own(nbd: &Nbd) -> Result<Option<Own>> {
    let index = std::env::var(VARIABLE).ok().and_then(|text| text.parse::<usize>().ok());
    let Some((index, path)) = index.and_then(|index| Some((index, nbd.paths.get(index)?))) else {
        return Ok(None);
    };
    let folder = folder(nbd)?;
    let control = nbd.control.as_ref().map(|folder| named(folder, nbd, index, "ctl"));
    Ok(Some(Own { path: path.clone(), socket: named(folder, nbd, index, "sock"), control }))
}

fn folder(nbd: &Nbd) -> Result<&Path> {
    nbd.socket.as_deref().ok_or_else(|| {
        Error::invalid(Problem::Missing, "--isolate needs a folder for its sockets")
            .advise("give --socket FOLDER; each export listens there on NAME.sock")
    })
}

/// `FOLDER/NAME.sock`; a number keeps equal names apart.
fn named(folder: &Path, nbd: &Nbd, index: usize, ending: &str) -> PathBuf {
    let name = last_part(&nbd.paths[index]);
    let is_double = nbd.paths[..index].iter().any(|path| last_part(path) == name);
    let number = if is_double { format!("-{index}") } else { String::new() };
    folder.join(format!("{name}{number}.{ending}"))
}

/// Starts a process for each export, and waits until all have ended or the user stops them.
pub fn supervise(session: &Session, nbd: &Nbd) -> Result<u8> {
    let failed = |what: &str, why| Error::io(Problem::Refused, what.to_owned(), &why);
    for folder in [Some(folder(nbd)?), nbd.control.as_deref()].into_iter().flatten() {
        std::fs::create_dir_all(folder)
            .map_err(|why| failed(&folder.display().to_string(), why))?;
    }
    let program = std::env::current_exe().map_err(|why| failed("finding this program", why))?;
    let mut children: Vec<(String, Child)> = Vec::new();
    let mut started = Ok(());
    for (index, path) in nbd.paths.iter().enumerate() {
        let mut command = Command::new(&program);
        command.args(std::env::args_os().skip(1)).env(VARIABLE, index.to_string());
        match command.spawn() {
            Ok(child) => children.push((path.to_string_lossy().into_owned(), child)),
            Err(why) => {
                started = Err(failed("starting a process", why));
                break;
            }
        }
    }
    let code = watch(session, &mut children, started.is_err());
    started.map(|()| code)
}

fn watch(session: &Session, children: &mut Vec<(String, Child)>, mut stop: bool) -> u8 {
    let mut code = exit::GOOD;
    let mut told = false;
    while !children.is_empty() {
        stop |= session.interrupt.raised();
        if stop && !told {
            for (_, child) in children.iter() {
                let _ = kill_process(Pid::from_child(child), Signal::INT);
            }
            told = true;
        }
        children.retain_mut(|(name, child)| match child.try_wait() {
            Ok(None) => true,
            Ok(Some(status)) if status.success() => false,
            Ok(Some(status)) => {
                eprintln!("error: the export of {name} ended: {status}; the others go on");
                code = exit::worse(code, exit::PARTIAL);
                false
            }
            Err(_) => false,
        });
        std::thread::sleep(Duration::from_millis(50));
    }
    code
}
