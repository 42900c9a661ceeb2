//! Systems in folders: what each says of itself, and one tree over its mounts.

mod common;

use adit_core::{FileSystem, FileSystemExt, FindOptions, Limits, Name, NodeKind};
use adit_io::ReadPolicy;
use adit_os::{Family, Found, OsTree, System, Volume, recognise};
use adit_trees::HostTree;
use common::{Made, number, sz};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;

fn volume(dir: &Path, name: &str) -> Volume {
    Volume {
        locator: format!("disk//{name}"),
        fs: HostTree::open(&dir.join(name), &ReadPolicy::default()).unwrap(),
        name: name.to_owned(),
        group: String::new(),
        part_uuid: format!("4c3f-{name}"),
        part_label: format!("label-{name}"),
        crypt_uuid: String::new(),
        offset: None,
        disk_uuid: "1234abcd".into(),
        disk: 0,
    }
}

fn write(dir: &Path, path: &str, content: &[u8]) {
    let path = dir.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

/// A Linux on p1 with /boot on p2, /home on p3 and /data on a disk that is not there.
fn linux(dir: &Path) -> Vec<Volume> {
    let p1 = dir.join("p1");
    write(
        &p1,
        "usr/lib/os-release",
        b"ID=debian\nVERSION_ID=\"12\"\nPRETTY_NAME=\"Debian GNU/Linux 12\"\n",
    );
    fs::create_dir_all(p1.join("etc")).unwrap();
    symlink("/usr/lib/os-release", p1.join("etc/os-release")).unwrap();
    write(&p1, "etc/hostname", b"web01\n");
    write(&p1, "etc/machine-id", b"0123456789abcdef0123456789abcdef\n");
    write(
        &p1,
        "etc/fstab",
        b"# fstab\n/dev/sda1 / ext4 defaults 0 1\nPARTUUID=4C3F-P2 /boot ext4\n\
          PARTLABEL=label-p3 /home xfs\nUUID=feed-beef /data ext4\nproc /proc proc\n\
          UUID=swap none swap sw\n",
    );
    let mut elf = b"\x7fELF\x02\x01\x01".to_vec();
    elf.resize(18, 0);
    elf.extend([183, 0]);
    write(&p1, "bin/sh", &elf);
    write(&p1, "lib/modules/6.1.0-18-arm64/modules.dep", b"");
    write(&p1, "home/hidden-below-the-mount", b"");
    for empty in ["boot", "data", "proc"] {
        fs::create_dir_all(p1.join(empty)).unwrap();
    }
    write(&dir.join("p2"), "vmlinuz", b"kernel");
    write(&dir.join("p3"), "ann/notes", b"text");
    symlink("/boot/vmlinuz", dir.join("p3/link")).unwrap();
    ["p1", "p2", "p3"].iter().map(|name| volume(dir, name)).collect()
}

fn only(volumes: &[Volume]) -> System {
    let mut systems = recognise(volumes, &Limits::default()).unwrap();
    assert_eq!(systems.len(), 1, "{systems:#?}");
    systems.remove(0)
}

#[test]
fn a_linux_says_what_it_is_and_what_it_mounts() {
    let dir = tempfile::tempdir().unwrap();
    let system = only(&linux(dir.path()));
    assert_eq!((system.family, system.root), (Family::Linux, 0));
    assert_eq!((system.name.as_str(), system.id.as_str()), ("Debian GNU/Linux 12", "debian"));
    assert_eq!((system.version.as_str(), system.hostname.as_str()), ("12", "web01"));
    assert_eq!(
        (system.architecture.as_str(), &system.kernels[..]),
        ("aarch64", &["6.1.0-18-arm64".to_owned()][..])
    );
    let found: Vec<_> = system
        .mounts
        .iter()
        .map(|mount| (String::from_utf8_lossy(&mount.at).into_owned(), mount.found.clone()))
        .collect();
    let expected = [
        ("/", Found::Likely(0)),
        ("/boot", Found::Volume(1)),
        ("/home", Found::Volume(2)),
        ("/data", Found::Missing),
        ("/proc", Found::NotOnDisk),
        ("none", Found::NotOnDisk),
    ];
    assert_eq!(found, expected.map(|(at, found)| (at.to_owned(), found)));
}

#[test]
fn its_tree_goes_through_every_mount_and_back() {
    let dir = tempfile::tempdir().unwrap();
    let volumes = linux(dir.path());
    let tree = OsTree::open(&only(&volumes), &volumes).unwrap();
    let roots = [Vec::new()];
    let options = FindOptions { link_roots: &roots, ..FindOptions::default() };
    let read = |path: &str| {
        let node = tree.find(path.as_bytes(), &options)?;
        tree.read_file(node, 1000)
    };
    assert_eq!(read("etc/hostname").unwrap(), b"web01\n");
    assert_eq!(read("home/ann/notes").unwrap(), b"text");
    assert_eq!(read("home/link").unwrap(), b"kernel", "a link goes from mount to mount");
    assert_eq!(read("home/../boot/vmlinuz").unwrap(), b"kernel");
    assert!(read("home/hidden-below-the-mount").is_err());

    let (entries, problems) = tree.list(tree.root(), &Limits::default()).unwrap();
    assert!(problems.is_empty());
    let home = entries.iter().find(|entry| entry.name.as_bytes() == b"home").unwrap();
    assert_eq!(tree.lookup(tree.root(), &home.name).unwrap(), home.node);
    assert_eq!(tree.metadata(home.node).unwrap().node, home.node);
    let up = tree.lookup(home.node, &Name::new(&b".."[..]).unwrap()).unwrap();
    assert_eq!(up, tree.root(), "above a mount is the tree it is mounted in");
    let notes: Vec<&str> = tree.notes().iter().map(|note| note.code).collect();
    assert_eq!(notes, ["os-mount-missing"]);
}

/// The registry of a Windows 11 whose C: is on p2, and D: on a partition by GUID.
fn windows(dir: &Path) -> Vec<Volume> {
    let mut software = Made::new();
    let current = "Microsoft\\Windows NT\\CurrentVersion";
    for (name, text) in
        [("ProductName", "Windows 10 Pro"), ("CurrentBuild", "22631"), ("DisplayVersion", "23H2")]
    {
        software.value(current, name, 1, &sz(text));
    }
    software.value(current, "CurrentMajorVersionNumber", 4, &number(10));
    software.value(current, "CurrentMinorVersionNumber", 4, &number(0));
    software.value(current, "UBR", 4, &number(2861));
    software.value("Microsoft\\Cryptography", "MachineGuid", 1, &sz("aaaa-bbbb"));
    let mut system = Made::new();
    system.value("Select", "Current", 4, &number(2));
    let set = "ControlSet002\\Control";
    let name = format!("{set}\\ComputerName\\ComputerName");
    system.value(&name, "ComputerName", 1, &sz("DESKTOP-1"));
    system.value(
        "ControlSet001\\Control\\ComputerName\\ComputerName",
        "ComputerName",
        1,
        &sz("OLD"),
    );
    let environment = format!("{set}\\Session Manager\\Environment");
    system.value(&environment, "PROCESSOR_ARCHITECTURE", 1, &sz("AMD64"));
    let by_offset = [&0x1234_abcd_u32.to_le_bytes()[..], &(1u64 << 20).to_le_bytes()].concat();
    system.value("MountedDevices", "\\DosDevices\\C:", 3, &by_offset);
    let id = [
        0xa2, 0xa0, 0xd0, 0xeb, 0xe5, 0xb9, 0x33, 0x44, 0x87, 0xc0, 0x68, 0xb6, 0xb7, 0x26, 0x99,
        0xc7,
    ];
    system.value("MountedDevices", "\\DosDevices\\D:", 3, &[&b"DMIO:ID:"[..], &id].concat());
    system.value("MountedDevices", "\\DosDevices\\E:", 3, &sz("\\??\\SCSI#CdRom#x"));
    let p2 = dir.join("p2");
    write(&p2, "WINDOWS/system32/config/SOFTWARE", &software.bytes());
    write(&p2, "WINDOWS/system32/config/SYSTEM", &system.bytes());
    write(&dir.join("p3"), "data.txt", b"on D");
    let mut volumes = vec![volume(dir, "p2"), volume(dir, "p3")];
    volumes[0].offset = Some(1 << 20);
    volumes[1].part_uuid = "EBD0A0A2-B9E5-4433-87C0-68B6B72699C7".into();
    volumes
}

#[test]
fn a_windows_is_known_by_its_registry() {
    let dir = tempfile::tempdir().unwrap();
    let system = only(&windows(dir.path()));
    assert_eq!(system.family, Family::Windows);
    assert_eq!(system.name, "Windows 11 Pro 23H2");
    assert_eq!(system.version, "10.0.22631.2861");
    assert_eq!((system.hostname.as_str(), system.architecture.as_str()), ("DESKTOP-1", "x86_64"));
    assert_eq!(system.machine_id, "aaaa-bbbb");
    let found: Vec<_> = system.mounts.iter().map(|m| (m.at.as_slice(), m.found.clone())).collect();
    assert_eq!(
        found,
        [(&b"C:"[..], Found::Volume(0)), (b"D:", Found::Volume(1)), (b"E:", Found::NotOnDisk)]
    );
}

#[test]
fn its_tree_has_drives() {
    let dir = tempfile::tempdir().unwrap();
    let volumes = windows(dir.path());
    let tree: Arc<OsTree> = OsTree::open(&only(&volumes), &volumes).unwrap();
    assert_eq!(tree.metadata(tree.root()).unwrap().kind, NodeKind::Directory);
    let (entries, _) = tree.list(tree.root(), &Limits::default()).unwrap();
    let names: Vec<String> = entries.iter().map(|entry| entry.name.to_string()).collect();
    assert_eq!(names, ["C:", "D:"]);
    let node = tree.find(b"d:/data.txt", &FindOptions::default()).unwrap();
    assert_eq!(tree.read_file(node, 100).unwrap(), b"on D");
    let drive = tree.find(b"C:", &FindOptions::default()).unwrap();
    let up = tree.lookup(drive, &Name::new(&b".."[..]).unwrap()).unwrap();
    assert_eq!(up, tree.root());
    assert!(tree.find(b"X:", &FindOptions::default()).is_err());
}

#[test]
fn a_damaged_registry_and_a_missing_file_are_said() {
    let dir = tempfile::tempdir().unwrap();
    let volumes = windows(dir.path());
    let config = dir.path().join("p2/WINDOWS/system32/config");
    fs::write(config.join("SOFTWARE"), vec![7; 9000]).unwrap();
    fs::remove_file(config.join("SYSTEM")).unwrap();
    let system = only(&volumes);
    assert_eq!((system.name.as_str(), system.version.as_str()), ("Windows", ""));
    let codes: Vec<&str> = system.notes.iter().map(|note| note.code).collect();
    assert_eq!(codes, ["os-registry", "os-missing"]);
    assert_eq!(system.mounts[0].found, Found::Likely(0));
}

#[test]
fn a_bsd_is_known_and_a_folder_of_photos_is_no_system() {
    let dir = tempfile::tempdir().unwrap();
    let p1 = dir.path().join("p1");
    write(&p1, "bin/freebsd-version", b"#!/bin/sh\nUSERLAND_VERSION=\"14.1-RELEASE-p3\"\n");
    write(&p1, "etc/rc.conf", b"hostname=\"bsd.example\"\nsshd_enable=YES\n");
    write(&p1, "etc/os-release", b"NAME=FreeBSD\nID=freebsd\n");
    write(&p1, "etc/fstab", b"/dev/da0p1 / ufs rw 1 1\n");
    write(&dir.path().join("p2"), "photos/etc/a.jpg", b"");
    let system = only(&[volume(dir.path(), "p1"), volume(dir.path(), "p2")]);
    assert_eq!((system.family, system.id.as_str()), (Family::Bsd, "freebsd"));
    assert_eq!(
        (system.version.as_str(), system.hostname.as_str()),
        ("14.1-RELEASE-p3", "bsd.example")
    );
    assert_eq!(system.mounts[0].found, Found::Likely(0));
}
