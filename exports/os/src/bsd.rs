//! The BSDs, by what each puts at its root.

use crate::files::Files;
use crate::linux::{architecture, assignments, kept, mounts};
use crate::model::{Family, System, Volume};

/// The BSD whose root this is, if it is one.
pub(crate) fn look(files: &Files<'_>, root: usize, volumes: &[Volume]) -> Option<System> {
    let (id, name) = [
        ("freebsd", "FreeBSD", "bin/freebsd-version"),
        ("openbsd", "OpenBSD", "bsd"),
        ("netbsd", "NetBSD", "netbsd"),
    ]
    .into_iter()
    .find(|(_, _, path)| files.exists(path) && files.exists("etc"))
    .map(|(id, name, _)| (id, name))?;
    let mut notes = Vec::new();
    let read = |path: &str| files.text(path).ok().flatten().unwrap_or_default();
    let version = match id {
        "freebsd" => assignments(&read("bin/freebsd-version")).remove("USERLAND_VERSION"),
        _ => {
            // "NetBSD 9.3 (GENERIC) #0: …" and the like
            let text = String::from_utf8_lossy(&read("etc/motd")).into_owned();
            let words = text.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned);
            words.and_then(|rest| rest.split_whitespace().next().map(str::to_owned))
        }
    }
    .unwrap_or_default();
    let hostname = match id {
        "openbsd" => kept(files.line("etc/myname"), "the host name", &mut notes),
        _ => assignments(&read("etc/rc.conf")).remove("hostname").unwrap_or_default(),
    };
    let title = if version.is_empty() { name.to_owned() } else { format!("{name} {version}") };
    Some(System {
        family: Family::Bsd,
        name: title,
        id: id.to_owned(),
        version,
        hostname,
        architecture: architecture(files),
        machine_id: kept(files.line("etc/hostid"), "the host id", &mut notes),
        kernels: Vec::new(),
        root,
        root_path: Vec::new(),
        mounts: mounts(files, root, volumes, &mut notes),
        notes,
    })
}
