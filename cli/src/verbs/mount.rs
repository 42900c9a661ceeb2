//! `adit mount`, `umount`, `mounts`: a place as a directory, through FUSE.

mod deep;
mod helper;

pub use helper::{Call, arguments};

use super::{kept, map::disk_of, shown};
use crate::exit;
use crate::output::{self, Out};
use crate::session::{Session, code_of};
use adit_core::{Disk, Error, Kind, NodeKind, Problem, Result, Volume, WritableDisk};
use adit_fuse::{MountOptions, NamedDisk, NamedRange, Owner, SERVER_ATTRIBUTE, Source, mount};
use adit_open::{At, Opened};
use adit_overlay::{Layer, Temporary};
use serde_json::{Value, json};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{Read, Seek};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a mount in the background may take to appear.
const READY_WITHIN: Duration = Duration::from_secs(60);

/// How long unmounting waits for the server to close what it had open.
const CLOSED_WITHIN: Duration = Duration::from_secs(20);

/// How something is mounted.
pub struct How {
    /// Stay until it is unmounted.
    pub foreground: bool,
    /// Let other users look.
    pub allow_other: bool,
    /// Where changes go, if any may be made.
    pub overlay: Option<PathBuf>,
    /// Go on inside disk files.
    pub deep: bool,
    /// Let nothing be run from there.
    pub no_exec: bool,
    /// Whom everything belongs to, if not to whom it does.
    pub uid: Option<u32>,
    /// The group.
    pub gid: Option<u32>,
}

impl How {
    /// Whom the files belong to, if somebody was named.
    fn owner(&self) -> Option<Owner> {
        let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
        let owner = Owner::Fixed {
            uid: self.uid.unwrap_or(uid.as_raw()),
            gid: self.gid.unwrap_or(gid.as_raw()),
        };
        (self.uid.is_some() || self.gid.is_some()).then_some(owner)
    }
}

/// Mounts, in the background unless told otherwise.
pub fn run(session: &Session, path: &OsStr, directory: &Path, how: &How) -> u8 {
    let done =
        if how.foreground { serve(session, path, directory, how) } else { background(directory) };
    done.unwrap_or_else(|error| {
        session.fail(&format!("mount {} on {}", shown(path), directory.display()), &error)
    })
}

fn serve(session: &Session, path: &OsStr, directory: &Path, how: &How) -> Result<u8> {
    let (source, opened, changes) = match &how.overlay {
        None => {
            let (source, opened) = source(session, path)?;
            let source = match how.deep {
                true => Source::Deep(Box::new(deep::level(&session.opener, source, &opened))),
                false => source,
            };
            (source, opened, None)
        }
        Some(overlay) => {
            let changes = Changes::open(session, path, overlay)?;
            let opened = changes.opened.clone();
            (changes.source(session)?, opened, Some(changes))
        }
    };
    let options = MountOptions {
        source: opened.locator.to_string(),
        allow_other: how.allow_other,
        no_exec: how.no_exec,
        owner: how.owner(),
        ..MountOptions::default()
    };
    let mounted = mount(source, directory, &options)?;
    if !session.common.quiet {
        eprintln!("{} is mounted on {}", opened.locator, mounted.dir().display());
    }
    match mounted.wait_unless(&session.interrupt) {
        Err(error) if error.kind() != Kind::Interrupted => return Err(error),
        _ => {}
    }
    let incidents = mounted.incidents();
    for incident in &incidents {
        eprint!(
            "{}",
            incident.error.report(&format!("{} node {}", incident.action, incident.node.0))
        );
    }
    mounted.unmount()?;
    if let Some(changes) = changes {
        changes.close()?;
    }
    let partial = if incidents.is_empty() { exit::GOOD } else { exit::PARTIAL };
    Ok(exit::worse(partial, code_of(&opened.notes)))
}

/// A disk under an overlay.
struct Changes {
    opened: Opened,
    top: Arc<dyn WritableDisk>,
    /// The layers of a kept overlay, which are closed at the end.
    kept: Vec<Layer>,
}

impl Changes {
    fn open(session: &Session, path: &OsStr, overlay: &Path) -> Result<Changes> {
        let limits = &session.opener.options().limits;
        let (base, opened) = kept::base_of(session, path)?;
        if overlay.as_os_str() == ":temp:" {
            let top = Arc::new(Temporary::new(base.disk, &std::env::temp_dir())?);
            return Ok(Changes { opened, top, kept: Vec::new() });
        }
        let kept = kept::open_or_create(overlay, &base, limits)?.layers;
        let top = kept.last().and_then(Layer::writer).ok_or_else(|| {
            Error::new(Kind::ReadOnly, Problem::Refused, "the overlay cannot be written")
        })?;
        Ok(Changes { opened, top, kept })
    }

    /// The disk and its partitions, as they are under the overlay.
    fn source(&self, session: &Session) -> Result<Source> {
        let disk: Arc<dyn Disk> = self.top.clone();
        let table = adit_partitions::open(&disk, &session.opener.options().limits)?;
        let volumes = table.map(|table| table.volumes).unwrap_or_default();
        let part = |volume: &Volume| {
            let start = volume.offset?;
            let range = start..start.checked_add(volume.size_bytes())?;
            Some(NamedRange { name: named(volume).name, range })
        };
        let partitions = volumes.iter().filter_map(part).collect();
        Ok(Source::Writable { disk: self.top.clone(), partitions })
    }

    fn close(self) -> Result<()> {
        self.top.flush()?;
        self.kept.iter().rev().try_for_each(|layer| layer.as_image()?.close())
    }
}

/// What a place looks like when mounted: a tree, or a disk with its partitions.
fn source(session: &Session, path: &OsStr) -> Result<(Source, Opened)> {
    let here = session.open_disk(path)?;
    let inside = match &here.at {
        At::Node { files, node, .. } => {
            if files.fs.metadata(*node)?.kind == NodeKind::Directory {
                let source = Source::Folder { fs: files.fs.clone(), folder: *node };
                return Ok((source, here));
            }
            session.opener.enter(here.clone())
        }
        _ => session.opener.enter(here.clone()),
    };
    match inside {
        Ok(inside) => match &inside.at {
            At::Node { files, .. } => Ok((Source::Files(files.fs.clone()), inside)),
            At::Volumes { table, disk, .. } => {
                let partitions = table.volumes.iter().map(named).collect();
                Ok((Source::Disk { disk: disk.clone(), partitions }, inside))
            }
            At::Disk { disk, .. } => {
                Ok((Source::Disk { disk: disk.clone(), partitions: Vec::new() }, inside))
            }
        },
        // Nothing is recognised in it: it is still a disk that somebody else may read.
        Err(error) if error.kind() == Kind::Unsupported => {
            let (disk, here) = disk_of(session, here)?;
            Ok((Source::Disk { disk, partitions: Vec::new() }, here))
        }
        Err(error) => Err(error),
    }
}

/// `p1` that looks like ext4 becomes `part1.ext4`.
fn named(volume: &Volume) -> NamedDisk {
    let number = volume.name.trim_start_matches('p');
    let word = match adit_vmfs_lvm::probe(&volume.disk) {
        Ok(true) => "vmfs",
        _ => adit_partitions::sniff(&volume.disk)
            .and_then(|text| text.split(' ').next())
            .unwrap_or("raw"),
    };
    let word: String = word.to_lowercase().chars().filter(|c| c.is_ascii_alphanumeric()).collect();
    NamedDisk { name: format!("part{number}.{word}"), disk: volume.disk.clone() }
}

/// Starts this program again with `--foreground`, and waits until the mount is there.
fn background(directory: &Path) -> Result<u8> {
    let failed = |what: &str, why| Error::io(Problem::Refused, what.to_owned(), &why);
    let target =
        directory.canonicalize().map_err(|why| failed(&directory.display().to_string(), why))?;
    let before = device_of(&target);
    // What it says must not hold the terminal, and must not be lost if it fails.
    let mut log = unnamed().map_err(|why| failed("a file for messages", why))?;
    let errors = log.try_clone().map_err(|why| failed("a file for messages", why))?;
    let program = std::env::current_exe().map_err(|why| failed("finding this program", why))?;
    let mut child = Command::new(program)
        .arg0("adit")
        .args(again()?)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(errors)
        .process_group(0)
        .spawn()
        .map_err(|why| failed("starting the server", why))?;
    let begun = Instant::now();
    while begun.elapsed() < READY_WITHIN {
        if let Ok(Some(status)) = child.try_wait() {
            let mut text = String::new();
            let _ = log.rewind().and_then(|()| log.read_to_string(&mut text));
            eprint!("{text}");
            return Ok(status
                .code()
                .and_then(|code| u8::try_from(code).ok())
                .unwrap_or(exit::ERROR));
        }
        if device_of(&target) != before {
            return Ok(exit::GOOD);
        }
        // Most sources open within some milliseconds.
        let short = begun.elapsed() < Duration::from_millis(100);
        std::thread::sleep(Duration::from_micros(if short { 300 } else { 5000 }));
    }
    let _ = child.kill();
    Err(Error::new(Kind::Busy, Problem::Unreadable, "the source did not open within a minute"))
}

/// The arguments of this run, or what stands for them, with `--foreground`.
fn again() -> Result<Vec<OsString>> {
    let Call::Mount(mut given) = arguments(crate::args::is_verb) else {
        return Err(Error::invalid(Problem::BadValue, "this is no call to mount"));
    };
    given.remove(0);
    let places = given.iter().position(|word| word == "--").unwrap_or(given.len());
    given.insert(places, "--foreground".into());
    Ok(given)
}

/// The device a directory is on, which a mount changes.
fn device_of(directory: &Path) -> Option<u64> {
    directory.metadata().ok().map(|found| found.dev())
}

/// A file that is gone when it is closed.
fn unnamed() -> std::io::Result<File> {
    let path = std::env::temp_dir().join(format!("adit-mount-{}.log", std::process::id()));
    let file = File::options().read(true).write(true).create_new(true).open(&path)?;
    std::fs::remove_file(&path)?;
    Ok(file)
}

/// One mount of ours.
struct Mount {
    directory: PathBuf,
    source: String,
}

/// Our mounts, as the kernel lists them.
fn mounts() -> Result<Vec<Mount>> {
    let text = std::fs::read("/proc/self/mountinfo")
        .map_err(|why| Error::io(Problem::Unreadable, "/proc/self/mountinfo", &why))?;
    let lines = text.split(|&byte| byte == b'\n');
    Ok(lines.filter_map(mount_of).collect())
}

fn mount_of(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|&byte| byte == b' ');
    let directory = unescape(fields.by_ref().nth(4)?);
    let mut after = fields.skip_while(|field| *field != b"-").skip(1);
    let (kind, source) = (after.next()?, after.next()?);
    (kind == b"fuse.adit").then(|| Mount {
        directory: PathBuf::from(OsString::from_vec(directory)),
        source: String::from_utf8_lossy(&unescape(source)).into_owned(),
    })
}

/// The kernel writes blanks and backslashes as three octal digits.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, tail)) = rest.split_first() {
        let octal = tail.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
        match octal.filter(|_| byte == b'\\').and_then(|digits| u8::from_str_radix(digits, 8).ok())
        {
            Some(escaped) => {
                plain.push(escaped);
                rest = &tail[3..];
            }
            None => {
                plain.push(byte);
                rest = tail;
            }
        }
    }
    plain
}

/// Unmounts one of our mounts.
pub fn unmount(session: &Session, directory: &Path) -> u8 {
    match take_down(directory) {
        Ok(()) => exit::GOOD,
        Err(error) => session.fail(&format!("unmount {}", directory.display()), &error),
    }
}

fn take_down(directory: &Path) -> Result<()> {
    let target = directory.canonicalize().unwrap_or_else(|_| directory.to_path_buf());
    // The kernel's table misses lines while others mount: one look is no proof.
    let ours = || Ok(mounts()?.iter().any(|mount| mount.directory == target));
    if !(ours()? || ours()? || ours()?) {
        return Err(Error::not_found("nothing of adit's is mounted there")
            .advise("`adit mounts` lists what is"));
    }
    let server = server_of(&target);
    unmounted(&target)?;
    // What was written is in the overlay, and nobody holds that, when this returns.
    let begun = Instant::now();
    while server.as_ref().is_some_and(|server| server.exists()) && begun.elapsed() < CLOSED_WITHIN {
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}

/// The process that serves a mount of ours, under the name the system has for a running one.
fn server_of(directory: &Path) -> Option<PathBuf> {
    let mut text = [0u8; 24];
    let length = rustix::fs::getxattr(directory, SERVER_ATTRIBUTE, &mut text).ok()?;
    let number: u32 = std::str::from_utf8(text.get(..length)?).ok()?.parse().ok()?;
    let running = PathBuf::from(format!("/proc/{number}/exe"));
    let same = running.read_link().ok()? == std::env::current_exe().ok()?;
    same.then_some(running)
}

fn unmounted(target: &Path) -> Result<()> {
    if rustix::process::geteuid().is_root() {
        let none = rustix::mount::UnmountFlags::empty();
        return rustix::mount::unmount(target.as_os_str().as_bytes(), none).map_err(|why| {
            let error = Error::io(Problem::Refused, "unmounting", &why.into());
            error.advise("close what is open there: `fuser -m DIR` lists the programs")
        });
    }
    let status = Command::new("fusermount3").arg("-u").arg(target).status();
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(_) => Err(Error::new(Kind::Busy, Problem::Refused, "fusermount3 refused")),
        Err(why) => Err(Error::io(Problem::Missing, "fusermount3", &why)),
    }
}

/// Lists our mounts.
pub fn list(session: &Session) -> u8 {
    let mounts = match mounts() {
        Ok(mounts) => mounts,
        Err(error) => return session.fail("list the mounts", &error),
    };
    let mut out = Out::new();
    if session.common.json {
        let list: Vec<Value> = mounts
            .iter()
            .map(|mount| json!({ "directory": mount.directory.to_string_lossy(), "source": mount.source }))
            .collect();
        out.json(&json!({ "schema": "adit.mounts/1", "mounts": list }));
    } else {
        let row = |mount: &Mount| vec![mount.directory.display().to_string(), mount.source.clone()];
        let rows: Vec<_> = mounts.iter().map(row).collect();
        output::table(&mut out, &["directory", "source"], &rows);
    }
    out.finish();
    exit::GOOD
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_mount_table_is_read_with_its_escapes() {
        let line =
            br"36 35 0:50 / /mnt/a\040b ro,nosuid shared:1 - fuse.adit lun.img//p1 ro,user_id=0";
        let mount = mount_of(line).unwrap();
        assert_eq!(mount.directory, Path::new("/mnt/a b"));
        assert_eq!(mount.source, "lun.img//p1");
        assert!(mount_of(b"36 35 0:50 / /mnt ro - ext4 /dev/sda ro").is_none());
        assert!(mount_of(b"").is_none());
    }
}
