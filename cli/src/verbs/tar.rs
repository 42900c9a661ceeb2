//! `adit tar`: a tree as an archive.

use super::{diff, shown};
use crate::args::Tar;
use crate::exit;
use crate::output::{self, Out, put_bytes};
use crate::progress::Bar;
use crate::session::{Session, code_of};
use crate::units::human_bytes;
use adit_core::{Error, Interrupt, Kind, Problem, Result};
use adit_trees::{LeftOut, TarOptions, TarReport};
use serde_json::{Map, Value, json};
use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};

/// Writes the archive.
pub fn run(session: &Session, tar: &Tar) -> u8 {
    match pack(session, tar) {
        Ok(code) => code,
        Err(error) => session.fail(&format!("pack {}", shown(&tar.path)), &error),
    }
}

fn pack(session: &Session, tar: &Tar) -> Result<u8> {
    let place = diff::place(session, &tar.path)?;
    let name = place.prefix.as_encoded_bytes();
    let options = TarOptions {
        keep_going: tar.keep_going,
        name: name.rsplit(|&byte| byte == b'/').next().unwrap_or_default().to_vec(),
        limits: session.opener.options().limits.clone(),
    };
    let bar = Bar::new(session.common.quiet || session.common.json);
    let make = |out: &mut dyn Write, interrupt: &Interrupt| {
        adit_trees::tar(&place.tree, out, &options, &bar, interrupt)
    };
    let report = if tar.output == Path::new("-") {
        if session.common.json {
            let detail = "standard output cannot take an archive and a JSON document";
            return Err(Error::invalid(Problem::BadValue, detail)
                .advise("`-o FILE` writes the archive to a file"));
        }
        if io::stdout().is_terminal() {
            let detail = "an archive does not go to a terminal";
            return Err(Error::invalid(Problem::BadValue, detail).advise("`-o FILE`, or a pipe"));
        }
        make(&mut io::BufWriter::with_capacity(1 << 20, io::stdout()), &session.interrupt)?
    } else {
        let mut file = Archive::create(&tar.output, tar.force)?;
        let report = make(&mut file.out, &session.interrupt)?;
        file.finish()?;
        report
    };
    bar.finish();
    tell(session, tar, &place.tree.locator, &report);
    let code = if report.partial() { exit::PARTIAL } else { exit::GOOD };
    Ok(exit::worse(code, code_of(&place.notes)))
}

/// A file that has its name only once the archive is whole.
pub struct Archive {
    /// What is written.
    pub out: io::BufWriter<File>,
    partial: Option<PathBuf>,
    target: PathBuf,
    force: bool,
}

impl Archive {
    /// Starts a file beside the name it will have.
    ///
    /// Errors: `Denied` when the name is taken; those of the host.
    pub fn create(target: &Path, force: bool) -> Result<Archive> {
        refuse_taken(target, force)?;
        let mut name = target.as_os_str().to_owned();
        name.push(".adit-partial");
        let partial = PathBuf::from(name);
        let file = OpenOptions::new().write(true).create_new(true).open(&partial);
        let file = file.map_err(|error| {
            let what = format!("creating {}", partial.display());
            Error::io(Problem::Unwritable, what, &error)
        })?;
        let out = io::BufWriter::with_capacity(1 << 20, file);
        Ok(Archive { out, partial: Some(partial), target: target.to_owned(), force })
    }

    /// Makes it durable and gives it its name.
    ///
    /// Errors: those of the host.
    pub fn finish(mut self) -> Result<()> {
        let failed = |error: io::Error| {
            let what = format!("finishing {}", self.target.display());
            Error::io(Problem::Unwritable, what, &error)
        };
        self.out.flush().map_err(failed)?;
        self.out.get_ref().sync_all().map_err(failed)?;
        refuse_taken(&self.target, self.force)?;
        if let Some(partial) = self.partial.take() {
            std::fs::rename(&partial, &self.target).map_err(|error| {
                let _ = std::fs::remove_file(&partial);
                failed(error)
            })?;
        }
        Ok(())
    }
}

impl Drop for Archive {
    fn drop(&mut self) {
        if let Some(partial) = &self.partial {
            let _ = std::fs::remove_file(partial);
        }
    }
}

fn refuse_taken(target: &Path, force: bool) -> Result<()> {
    if !force && target.symlink_metadata().is_ok() {
        let detail = format!("{} exists already", target.display());
        return Err(Error::new(Kind::Denied, Problem::Refused, detail)
            .advise("choose another name, or `--force`"));
    }
    Ok(())
}

fn tell(session: &Session, tar: &Tar, source: &str, report: &TarReport) {
    if session.common.json {
        let mut out = Out::new();
        out.json(&json!({
            "schema": "adit.tar/1",
            "source": source,
            "target": tar.output,
            "members": report.members,
            "data_bytes": report.data_bytes,
            "archive_bytes": report.archive_bytes,
            "left_out": report.left_out.iter().map(left_json).collect::<Vec<_>>(),
        }));
        out.finish();
        return;
    }
    for left in &report.left_out {
        if left.failed {
            eprintln!("failed: {}: {}", adit_trees::shown(&left.path), left.reason);
        } else if !session.common.quiet {
            eprintln!("skipped: {}: {}", adit_trees::shown(&left.path), left.reason.detail());
        }
    }
    if !session.common.quiet {
        let failed = report.left_out.iter().filter(|left| left.failed).count();
        eprintln!(
            "{} members, {} in an archive of {}{}",
            report.members,
            human_bytes(report.data_bytes),
            human_bytes(report.archive_bytes),
            if failed > 0 { format!("; {failed} failed") } else { String::new() }
        );
    }
}

fn left_json(left: &LeftOut) -> Value {
    let mut map = Map::new();
    put_bytes(&mut map, "path", &left.path);
    map.insert("failed".into(), left.failed.into());
    map.insert("error".into(), output::error_json("pack", &left.reason));
    Value::Object(map)
}
