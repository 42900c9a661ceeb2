//! What all verbs share: the opener, the interrupt, the way to report.

use crate::args::{Arguments, Common};
use crate::{exit, output};
use adit_core::{Error, Finding, Interrupt, Problem, Result, Severity};
use adit_open::{
    At, Files, NamedParent, OpenOptions, Opened, Opener, ReferencePolicy, Remote, Secret,
};
use std::ffi::OsStr;
use std::io::Read as _;

/// Options and tools of one run.
pub struct Session {
    /// Opens places.
    pub opener: Opener,
    /// Raised by Ctrl-C and SIGTERM.
    pub interrupt: Interrupt,
    /// Options common to all verbs.
    pub common: Common,
}

impl Session {
    /// Prepares a run.
    pub fn new(arguments: &Arguments) -> Result<Session> {
        let common = arguments.common.clone();
        let mut options = OpenOptions {
            members: common.member.clone(),
            datastores: common.datastore.clone(),
            parents: common
                .parent
                .iter()
                .map(|text| NamedParent::parse(text))
                .collect::<Result<_>>()?,
            secrets: secrets(&common)?,
            raw: common.raw,
            snapshots_of_size_now: common.snapshot_size == crate::args::SnapshotSize::Now,
            references: if common.references == crate::args::References::Datastore {
                ReferencePolicy::Datastore
            } else {
                ReferencePolicy::Directory
            },
            systems: Some(adit_os::open_system),
            remotes: vec![Remote { schemes: adit_nbd::SCHEMES, open: adit_nbd::open_uri }],
            ..OpenOptions::default()
        };
        for limit in &common.limit {
            let (name, value) = limit.split_once('=').ok_or_else(|| {
                Error::invalid(Problem::BadValue, format!("--limit {limit:?} is not NAME=NUMBER"))
            })?;
            let value = crate::units::parse_bytes(value).map_err(|why| {
                Error::invalid(Problem::BadValue, format!("--limit {limit}: {why}"))
            })?;
            options.limits.set(name, value)?;
        }
        options.reads.retries = u32::try_from(options.limits.read_retries_max).unwrap_or(u32::MAX);
        let interrupt = Interrupt::default();
        for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
            // The second signal ends the program at once.
            let flag = interrupt.flag();
            let both = signal_hook::flag::register_conditional_shutdown(signal, 130, flag.clone())
                .and_then(|_| signal_hook::flag::register(signal, flag));
            both.map_err(|e| Error::io(Problem::Refused, "handling signals", &e))?;
        }
        Ok(Session { opener: Opener::new(options), interrupt, common })
    }

    /// Opens a place and reports its notes.
    pub fn open(&self, text: &OsStr) -> Result<Opened> {
        self.opener.open(text).inspect(|opened| self.tell(&opened.notes))
    }

    /// Opens a place and goes in for as long as there is one choice, reporting notes.
    pub fn open_inside(&self, text: &OsStr) -> Result<Opened> {
        let opened = self.opener.descend(self.opener.open(text)?)?;
        self.tell(&opened.notes);
        Ok(opened)
    }

    /// Opens a place as the disk a guest would see: an image's contents, anything else as it is.
    pub fn open_disk(&self, text: &OsStr) -> Result<Opened> {
        let mut here = self.opener.open(text)?;
        for _ in 0..self.opener.options().limits.layers_max {
            match self.opener.enter(here.clone()) {
                Ok(inside) if matches!(inside.at, At::Disk { .. }) => here = inside,
                // The bytes of an image that cannot be opened are not the disk in it.
                Err(error) if self.opener.is_image(&here)? => {
                    return Err(error.in_layer(here.locator.to_string()));
                }
                _ => break,
            }
        }
        self.tell(&here.notes);
        Ok(here)
    }

    /// Opens the one file system that a place leads to.
    ///
    /// Errors: `Invalid` with the choices when there are several.
    pub fn open_files(&self, text: &OsStr) -> Result<(Opened, Files)> {
        let opened = self.open_inside(text)?;
        match &opened.at {
            At::Node { files, .. } => {
                let files = files.clone();
                Ok((opened, files))
            }
            At::Volumes { table, .. } => {
                let choices = self.opener.choices(table)?;
                let names = if choices.is_empty() { &table.volumes } else { &choices };
                let names: Vec<&str> = names.iter().map(|volume| volume.name.as_str()).collect();
                let problem =
                    if choices.is_empty() { Problem::Missing } else { Problem::Ambiguous };
                let detail = if choices.is_empty() {
                    format!(
                        "none of its volumes holds a file system that is read: {}",
                        names.join(", ")
                    )
                } else {
                    format!("it has several file systems: {}", names.join(", "))
                };
                Err(Error::invalid(problem, detail).advise(format!(
                    "name one, for example {}//{}",
                    opened.locator,
                    names.first().unwrap_or(&"p1")
                )))
            }
            At::Disk { .. } => Err(Error::unsupported("it holds no file system")),
        }
    }

    /// Shows warnings and errors on standard error, unless JSON carries them.
    pub fn tell(&self, notes: &[Finding]) {
        if !self.common.json && !self.common.quiet {
            for note in notes.iter().filter(|note| note.severity > Severity::Info) {
                eprintln!("{note}");
            }
        }
    }

    /// Reports a failure and gives its exit code.
    pub fn fail(&self, action: &str, error: &Error) -> u8 {
        output::fail(self.common.json, action, error)
    }

    /// Says what the source's read retries were, if there were any.
    pub fn tell_retries(&self) {
        let counters = &self.opener.options().reads.counters;
        let load = |counter: &std::sync::atomic::AtomicU64| {
            counter.load(std::sync::atomic::Ordering::Relaxed)
        };
        let (retried, failed) = (load(&counters.retried), load(&counters.failed));
        if retried > 0 && !self.common.json && !self.common.quiet {
            eprintln!("note: reads tried again {retried} times, {failed} failed for good");
        }
    }
}

/// What opens encrypted disks: passphrases are lines, keys are files as they are.
fn secrets(common: &Common) -> Result<Vec<Secret>> {
    const BYTES_MAX: u64 = 8 << 20;
    let read = |path: &std::path::Path| {
        let failed = |why| {
            Error::io(
                Problem::Unreadable,
                format!("reading the secret in {}", path.display()),
                &why,
            )
        };
        let file: Box<dyn std::io::Read> = match path.as_os_str() == "-" {
            true => Box::new(std::io::stdin()),
            false => Box::new(std::fs::File::open(path).map_err(failed)?),
        };
        let mut bytes = Vec::new();
        std::io::Read::take(file, BYTES_MAX).read_to_end(&mut bytes).map_err(failed)?;
        Ok::<_, Error>(bytes)
    };
    let mut secrets = Vec::new();
    for path in &common.passphrase_file {
        let bytes = read(path)?;
        let line = bytes.split(|&byte| byte == b'\n').next().unwrap_or_default();
        secrets.push(Secret::new(line.strip_suffix(b"\r").unwrap_or(line)));
    }
    for path in &common.key_file {
        secrets.push(Secret::new(read(path)?));
    }
    Ok(secrets)
}

/// The exit code that notes alone call for.
pub fn code_of(notes: &[Finding]) -> u8 {
    if notes.iter().any(|note| note.severity == Severity::Error) {
        exit::PARTIAL
    } else {
        exit::GOOD
    }
}
