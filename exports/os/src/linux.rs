//! Linux, by the files every distribution has.

use crate::OsTree;
use crate::files::Files;
use crate::fstab;
use crate::model::{Family, Found, Mount, System, Volume};
use adit_core::bytes::u16_le;
use adit_core::{Finding, Fork, Result};
use std::collections::BTreeMap;

/// The Linux whose root this is, if it is one.
pub(crate) fn look(files: &Files<'_>, root: usize, volumes: &[Volume]) -> Option<System> {
    let mut notes = Vec::new();
    let release = release(files, &mut notes);
    let is_root = release.as_ref().is_some_and(|release| {
        // FreeBSD writes this file too.
        release.get("ID").is_none_or(|id| id != "freebsd") && files.exists("etc")
    });
    if !(is_root || (files.exists("etc/fstab") && files.exists("etc/passwd"))) {
        return None;
    }
    let mounts = mounts(files, root, volumes, &mut notes);
    let has_modules =
        |files: &Files<'_>| files.exists("lib/modules") || files.exists("usr/lib/modules");
    let mut system = System {
        family: Family::Linux,
        name: String::new(),
        id: String::new(),
        version: String::new(),
        hostname: String::new(),
        architecture: String::new(),
        machine_id: String::new(),
        kernels: Vec::new(),
        root,
        root_path: files.path.to_vec(),
        mounts,
        notes: Vec::new(),
    };
    // Its files may lie anywhere in its tree: /usr is often a file system of its own.
    match OsTree::open(&system, volumes) {
        Ok(tree) => {
            let whole = Files { fs: &*tree, path: files.path, limits: files.limits };
            if !is_root && !has_modules(&whole) && !whole.exists("usr/lib/os-release") {
                return None;
            }
            describe(&whole, &mut system, &mut notes);
        }
        Err(error) => {
            notes.push(Finding::from_error("os-mounts", &error));
            describe(files, &mut system, &mut notes);
        }
    }
    system.notes = notes;
    Some(system)
}

fn describe(files: &Files<'_>, system: &mut System, notes: &mut Vec<Finding>) {
    let release = release(files, notes).unwrap_or_default();
    let value = |key: &str| release.get(key).cloned().unwrap_or_default();
    let first =
        |all: &[String]| all.iter().find(|text| !text.is_empty()).cloned().unwrap_or_default();
    system.name = first(&[value("PRETTY_NAME"), value("NAME"), "Linux".into()]);
    system.id = first(&[value("ID"), "linux".into()]);
    system.version = first(&[value("VERSION_ID"), value("BUILD_ID")]);
    system.hostname = kept(files.line("etc/hostname"), "the host name", notes);
    system.architecture = architecture(files);
    system.machine_id = kept(files.line("etc/machine-id"), "the machine id", notes);
    system.kernels = kernels(files);
    if system.version.is_empty() && system.id == "debian" {
        system.version = kept(files.line("etc/debian_version"), "the version", notes);
    }
}

/// What was read, or nothing and a note.
pub(crate) fn kept(read: Result<Option<String>>, what: &str, notes: &mut Vec<Finding>) -> String {
    read.unwrap_or_else(|error| {
        let mut note = Finding::from_error("os-unreadable", &error);
        note.text = format!("{what} cannot be read: {}", note.text);
        notes.push(note);
        None
    })
    .unwrap_or_default()
}

fn release(files: &Files<'_>, notes: &mut Vec<Finding>) -> Option<BTreeMap<String, String>> {
    for path in ["etc/os-release", "usr/lib/os-release"] {
        match files.text(path) {
            Ok(Some(text)) => return Some(assignments(&text)),
            Ok(None) => {}
            Err(error) => notes.push(Finding::from_error("os-unreadable", &error)),
        }
    }
    None
}

/// Lines of `KEY=value` as a shell would read them.
///
/// Source: os-release(5).
pub(crate) fn assignments(text: &[u8]) -> BTreeMap<String, String> {
    let text = String::from_utf8_lossy(text);
    let lines = text.lines().map(str::trim).filter(|line| !line.starts_with('#'));
    let pairs = lines.filter_map(|line| line.split_once('='));
    pairs.map(|(key, value)| (key.trim().to_owned(), unquoted(value.trim()))).collect()
}

fn unquoted(value: &str) -> String {
    let quote = value.chars().next().filter(|c| matches!(c, '"' | '\''));
    let Some(quote) = quote else { return value.to_owned() };
    let inner = value.strip_prefix(quote).unwrap_or(value);
    let (mut out, mut chars) = (String::new(), inner.chars());
    while let Some(c) = chars.next() {
        match c {
            '\\' if quote == '"' => out.extend(chars.next()),
            c if c == quote => break,
            c => out.push(c),
        }
    }
    out
}

/// Folders of modules are named after the kernels they belong to.
fn kernels(files: &Files<'_>) -> Vec<String> {
    let mut kernels: Vec<String> = ["lib/modules", "usr/lib/modules"]
        .iter()
        .flat_map(|path| files.names(path))
        .map(|name| name.to_string())
        .filter(|name| name.starts_with(|c: char| c.is_ascii_digit()))
        .collect();
    kernels.sort();
    kernels.dedup();
    kernels
}

/// The machine that a program every system has was made for.
///
/// Source: System V ABI, "ELF Header", `e_machine`.
pub(crate) fn architecture(files: &Files<'_>) -> String {
    const PROGRAMS: [&str; 5] = ["bin/sh", "usr/bin/env", "sbin/init", "bin/ls", "usr/bin/ls"];
    let machine = PROGRAMS.iter().find_map(|path| {
        let disk = files.fs.open(files.find(path).ok()?, &Fork::Data).ok()?;
        let head = adit_core::DiskExt::read_prefix(&*disk, 0, 20).ok()?;
        head.starts_with(b"\x7fELF").then_some(head)
    });
    let Some(head) = machine else { return String::new() };
    let big = head.get(5) == Some(&2);
    let code = u16_le(&head, 18).map_or(0, |code| if big { code.swap_bytes() } else { code });
    match code {
        3 => "i386",
        8 => "mips",
        20 => "ppc",
        21 if big => "ppc64",
        21 => "ppc64le",
        22 => "s390x",
        40 => "arm",
        43 => "sparc64",
        62 => "x86_64",
        183 => "aarch64",
        243 => "riscv64",
        258 => "loongarch64",
        _ => return format!("ELF machine {code}"),
    }
    .to_owned()
}

/// The table, with the root that it names or, where it names none, the one this was found on.
pub(crate) fn mounts(
    files: &Files<'_>,
    root: usize,
    volumes: &[Volume],
    notes: &mut Vec<Finding>,
) -> Vec<Mount> {
    let text = files.text("etc/fstab").unwrap_or_else(|error| {
        notes.push(Finding::from_error("os-unreadable", &error));
        None
    });
    let crypttab = files.text("etc/crypttab").ok().flatten().unwrap_or_default();
    let mut mounts = fstab::parse(&text.unwrap_or_default(), &crypttab, volumes);
    match mounts.iter_mut().find(|mount| mount.at == b"/") {
        Some(mount) if mount.found.volume() != Some(root) || mount.path != files.path => {
            let text = format!(
                "the mount table names {} as root, but its files are on {}",
                mount.source,
                volumes.get(root).map_or("", |volume| &volume.locator)
            );
            // A system whose default subvolume is its root does not name it.
            if mount.found.volume() != Some(root) || !mount.path.is_empty() {
                notes.push(Finding::info("os-root-differs", text));
                mount.found = Found::Likely(root);
            }
            mount.path = files.path.to_vec();
        }
        Some(_) => {}
        None => mounts.insert(
            0,
            Mount {
                at: b"/".to_vec(),
                source: String::new(),
                format: String::new(),
                found: Found::Likely(root),
                path: files.path.to_vec(),
            },
        ),
    }
    mounts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_quoted_as_in_a_shell() {
        let text =
            b"NAME=\"Debian \\\"x\\\" GNU/Linux\"\n# no\nID=debian\nX='a b'\nEMPTY=\nno line\n";
        let found = assignments(text);
        assert_eq!(found["NAME"], "Debian \"x\" GNU/Linux");
        assert_eq!((found["ID"].as_str(), found["X"].as_str(), found.len()), ("debian", "a b", 4));
    }
}
