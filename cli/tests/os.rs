//! Which operating system is on a guest's disks.

mod common;
#[path = "../../exports/os/tests/common/mod.rs"]
mod registry;

use common::{complained, json, said};
use std::fs;
use std::path::Path;
use std::process::Command;

const ROOT: &str = "11111111-2222-3333-4444-555555555555";
const HOME: &str = "66666666-7777-8888-9999-aaaaaaaaaaaa";

/// An ext4 of these files, with this UUID.
fn ext4(dir: &Path, uuid: &str, files: &[(&str, &[u8])]) -> Vec<u8> {
    let tree = dir.join(uuid);
    for (path, content) in files {
        let path = tree.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    let image = dir.join(format!("{uuid}.img"));
    let made = Command::new("/sbin/mke2fs")
        .args(["-q", "-t", "ext4", "-U", uuid, "-d", tree.to_str().unwrap()])
        .args([image.to_str().unwrap(), "8M"])
        .output()
        .expect("mke2fs is part of every Debian");
    assert!(made.status.success(), "{made:?}");
    fs::read(image).unwrap()
}

/// A disk with these partitions.
fn disk(path: &Path, parts: &[Vec<u8>]) {
    let mut disk = vec![0u8; 1 << 20];
    for (slot, part) in parts.iter().enumerate() {
        let at = 0x1be + 16 * slot;
        let (start, length) = (disk.len() as u32 / 512, part.len() as u32 / 512);
        disk[at + 4] = 0x83;
        disk[at + 8..at + 12].copy_from_slice(&start.to_le_bytes());
        disk[at + 12..at + 16].copy_from_slice(&length.to_le_bytes());
        disk.extend_from_slice(part);
    }
    disk[510..512].copy_from_slice(&[0x55, 0xaa]);
    fs::write(path, disk).unwrap();
}

fn guest(dir: &Path) {
    let fstab = format!(
        "UUID={ROOT} / ext4 defaults 0 1\nUUID={HOME} /home ext4 defaults 0 2\n\
         LABEL=archive /archive xfs defaults 0 2\n"
    );
    let root = ext4(
        dir,
        ROOT,
        &[
            (
                "etc/os-release",
                b"PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nID=debian\nVERSION_ID=\"12\"\n",
            ),
            ("etc/hostname", b"web01\n"),
            ("etc/fstab", fstab.as_bytes()),
            ("lib/modules/6.1.0-18-amd64/modules.dep", b""),
            ("home/x", b""),
        ],
    );
    let home = ext4(dir, HOME, &[("ann/notes", b"text")]);
    disk(&dir.join("system.img"), &[root, vec![0x77; 1 << 20]]);
    disk(&dir.join("data.img"), &[home]);
}

#[test]
fn a_guest_of_two_disks_is_told_with_its_mounts() {
    let dir = tempfile::tempdir().unwrap();
    guest(dir.path());
    let document = json(dir.path(), 0, &["inspect", "--os", "system.img", "data.img"]);
    let system = &document["systems"][0];
    assert_eq!(system["name"], "Debian GNU/Linux 12 (bookworm)");
    assert_eq!(
        (&system["hostname"], &system["kernels"][0]),
        (&"web01".into(), &"6.1.0-18-amd64".into())
    );
    let mount = |n: usize| {
        let mount = &system["mounts"][n];
        let text = |key: &str| mount[key].as_str().unwrap_or_default().to_owned();
        (text("at"), text("state"), text("path"))
    };
    let owned = |a: &str, b: &str, c: &str| (a.to_owned(), b.to_owned(), c.to_owned());
    assert_eq!(mount(0), owned("/", "found", "system.img//p1//"));
    assert_eq!(mount(1), owned("/home", "found", "data.img//p1//"));
    assert_eq!(mount(2), owned("/archive", "missing", ""));
    assert_eq!(system["missing"], serde_json::json!(["LABEL=archive"]));
    assert_eq!(document["notes"][0]["code"], "os-volume-unread");
}

#[test]
fn with_one_disk_the_other_is_missing() {
    let dir = tempfile::tempdir().unwrap();
    guest(dir.path());
    let text = said(dir.path(), 0, &["inspect", "--os", "system.img"]);
    assert!(text.starts_with("Debian GNU/Linux 12 (bookworm)\n"), "{text}");
    assert!(text.contains(&format!("/home          missing: UUID={HOME}")), "{text}");
    let error = complained(dir.path(), 1, &["inspect", "--os", "data.img"]);
    assert!(error.contains("none of 1 file systems"), "{error}");
    // Without --os everything is as it was.
    let text = said(dir.path(), 0, &["inspect", "system.img", "mbr"]);
    assert!(text.contains("0x1be") || text.contains("signature"), "{text}");
}

/// A VMDK descriptor over a raw disk beside it.
fn descriptor(dir: &Path, raw: &str, kind: &str) -> String {
    let sectors = fs::metadata(dir.join(raw)).unwrap().len() / 512;
    let (create, extent) = match kind {
        "VMFS" => ("vmfs", format!("RW {sectors} VMFS \"{raw}\"")),
        _ => ("monolithicFlat", format!("RW {sectors} FLAT \"{raw}\" 0")),
    };
    format!(
        "# Disk DescriptorFile\nversion=1\nCID=12345678\nparentCID=ffffffff\n\
         createType=\"{create}\"\n{extent}\n"
    )
}

/// The settings of a machine with these disks.
fn vmx(disks: &[&str]) -> String {
    let mut text = "config.version = \"8\"\nvirtualHW.version = \"19\"\ndisplayName = \"web01\"\n\
                    guestOS = \"debian12-64\"\nscsi0.present = \"TRUE\"\n"
        .to_owned();
    for (unit, disk) in disks.iter().enumerate() {
        text += &format!("scsi0:{unit}.present = \"TRUE\"\nscsi0:{unit}.fileName = \"{disk}\"\n");
    }
    text
}

/// The guest of two disks as a virtual machine in a folder.
fn machine(dir: &Path) {
    guest(dir);
    fs::write(dir.join("a.vmdk"), descriptor(dir, "system.img", "FLAT")).unwrap();
    fs::write(dir.join("b.vmdk"), descriptor(dir, "data.img", "FLAT")).unwrap();
    fs::write(dir.join("vm.vmx"), vmx(&["a.vmdk", "b.vmdk"])).unwrap();
}

#[test]
fn a_place_goes_through_the_mounts_of_a_machine_with_several_disks() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    machine(dir);
    assert_eq!(said(dir, 0, &["cat", "vm.vmx//:os/etc/hostname"]), "web01\n");
    assert_eq!(said(dir, 0, &["cat", "vm.vmx//:os/home/ann/notes"]), "text");
    assert_eq!(said(dir, 0, &["cat", "vm.vmx//:os//home//ann/../ann/notes"]), "text");
    // What the mount hides is hidden.
    assert!(!said(dir, 0, &["ls", "-a", "vm.vmx//:os/home"]).contains('x'));
    assert_eq!(said(dir, 0, &["cat", "system.img//p1//home/x"]), "");
    let listing = json(dir, 0, &["ls", "vm.vmx//:os/etc/"]);
    assert_eq!(listing["listings"][0]["path"], "vm.vmx//:os/etc");
    let info = json(dir, 0, &["info", "vm.vmx//:os"]);
    let layers = info["layers"].as_array().unwrap();
    assert!(layers.iter().any(|layer| layer["format"] == "Debian GNU/Linux 12 (bookworm)"));
    let text = said(dir, 0, &["inspect", "--os", "vm.vmx"]);
    assert!(text.contains("/home          ./b.vmdk//p1//"), "{text}");
    // A missing mount is said, and is no failure.
    let notes = complained(dir, 0, &["ls", "vm.vmx//:os/"]);
    assert!(notes.contains("LABEL=archive"), "{notes}");
}

#[test]
fn every_verb_of_files_works_on_a_system() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    machine(dir);
    said(dir, 0, &["cp", "-q", "-r", "vm.vmx//:os/", "out"]);
    assert_eq!(fs::read(dir.join("out/home/ann/notes")).unwrap(), b"text");
    said(dir, 0, &["cp", "-q", "vm.vmx//:os/etc/fstab", "fstab"]);
    assert!(fs::read_to_string(dir.join("fstab")).unwrap().contains(HOME));
    let found = said(dir, 0, &["find", "vm.vmx//:os/", "--name", "notes"]);
    assert_eq!(found.trim(), "vm.vmx//:os/home/ann/notes");
    let tar = adit_tar(dir, "vm.vmx//:os/home");
    assert!(tar.windows(9).any(|bytes| bytes == b"ann/notes"));
    let hash = said(dir, 0, &["hash", "vm.vmx//:os/home/ann/notes"]);
    fs::write(dir.join("notes"), "text").unwrap();
    assert!(hash.contains(&common::sha256sum(&dir.join("notes"))), "{hash}");
    said(dir, 0, &["diff", "vm.vmx//:os/home", "data.img//p1//"]);
    let stat = json(dir, 0, &["stat", "vm.vmx//:os/home/ann/notes"]);
    assert!(stat.to_string().contains("vm.vmx//:os/home/ann/notes"), "{stat}");
    assert!(said(dir, 0, &["tree", "vm.vmx//:os/home"]).contains("notes"));
    assert!(said(dir, 0, &["explain", "vm.vmx//:os/home/ann/notes@0"]).contains("data.img"));
    fs::create_dir(dir.join("mnt")).unwrap();
    said(dir, 0, &["mount", "vm.vmx//:os/", "mnt"]);
    let read = fs::read_to_string(dir.join("mnt/home/ann/notes"));
    said(dir, 0, &["umount", "mnt"]);
    assert_eq!(read.unwrap(), "text");
}

fn adit_tar(dir: &Path, place: &str) -> Vec<u8> {
    let output = common::adit(dir, &["tar", place]);
    assert!(output.status.success(), "{output:?}");
    output.stdout
}

#[test]
fn a_system_on_one_disk_needs_no_machine_and_others_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    guest(dir);
    assert_eq!(said(dir, 0, &["cat", "system.img//:os/etc/hostname"]), "web01\n");
    assert_eq!(said(dir, 0, &["cat", "system.img//p1//:os/etc/hostname"]), "web01\n");
    // Without its disk, /home is what lies below the mount.
    assert_eq!(said(dir, 0, &["cat", "-q", "system.img//:os/home/x"]), "");
    let place = ["cat", "--member", "data.img", "system.img//:os/home/ann/notes"];
    assert_eq!(said(dir, 0, &place), "text");
    let error = complained(dir, 1, &["ls", "data.img//:os/"]);
    assert!(error.contains("none of 1 file systems"), "{error}");
    let error = complained(dir, 1, &["ls", "system.img//p1//etc//:os/"]);
    assert!(error.contains("./:os"), "{error}");
}

#[test]
fn a_machine_in_a_datastore_is_a_system_too() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    guest(dir);
    let read = |name: &str| fs::read(dir.join(name)).unwrap();
    adit_testkit::Vmfs::six()
        .label("store")
        .file("web01/web01.vmx", vmx(&["system.vmdk", "data.vmdk"]))
        .file("web01/system.vmdk", descriptor(dir, "system.img", "VMFS"))
        .file("web01/data.vmdk", descriptor(dir, "data.img", "VMFS"))
        .file("web01/system.img", read("system.img"))
        .file("web01/data.img", read("data.img"))
        .write(dir.join("lun.img"));
    let place = "lun.img//web01/web01.vmx//:os/home/ann/notes";
    assert_eq!(said(dir, 0, &["cat", place]), "text");
    let text = said(dir, 0, &["inspect", "--os", "lun.img//web01/web01.vmx"]);
    assert!(text.contains("lun.img//web01/data.vmdk//p1//"), "{text}");
}

#[test]
fn disks_elsewhere_are_not_followed_and_are_said() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    machine(dir);
    fs::create_dir(dir.join("sub")).unwrap();
    fs::write(dir.join("sub/vm.vmx"), vmx(&["a.vmdk", "../b.vmdk", "/etc/passwd"])).unwrap();
    for name in ["a.vmdk", "system.img"] {
        fs::rename(dir.join(name), dir.join("sub").join(name)).unwrap();
    }
    let notes = complained(dir, 0, &["ls", "sub/vm.vmx//:os/"]);
    assert!(notes.contains("../b.vmdk") && notes.contains("/etc/passwd"), "{notes}");
    assert!(notes.contains("--member"), "{notes}");
    let place = ["cat", "-q", "--member", "b.vmdk", "sub/vm.vmx//:os/home/ann/notes"];
    assert_eq!(said(dir, 0, &place), "text");
}

#[test]
fn usr_may_be_a_file_system_of_its_own_and_one_of_two_systems_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    const USR: &str = "77777777-7777-8888-9999-aaaaaaaaaaaa";
    let root = ext4(
        dir,
        ROOT,
        &[
            ("etc/fstab", format!("/dev/sda1 / ext4\nUUID={USR} /usr ext4\n").as_bytes()),
            ("etc/passwd", b"root:x:0:0::/root:/bin/sh\n"),
            ("etc/hostname", b"split\n"),
            ("usr/x", b""),
        ],
    );
    let usr = ext4(dir, USR, &[("lib/os-release", b"ID=fedora\nNAME=Fedora\nVERSION_ID=40\n")]);
    let other = ext4(
        dir,
        HOME,
        &[("etc/os-release", b"ID=alpine\nNAME=Alpine\n"), ("etc/hostname", b"rescue\n")],
    );
    disk(&dir.join("split.img"), &[root.clone(), usr.clone()]);
    assert!(said(dir, 0, &["cat", "split.img//:os/usr/lib/os-release"]).contains("fedora"));
    assert!(said(dir, 0, &["inspect", "--os", "split.img"]).starts_with("Fedora\n"));
    disk(&dir.join("two.img"), &[root, usr, other]);
    let error = complained(dir, 1, &["ls", "two.img//:os/"]);
    assert!(error.contains("1: Fedora") && error.contains("2: Alpine"), "{error}");
    for which in ["rescue", "2", "alpine"] {
        let place = format!("two.img//:os={which}/etc/hostname");
        assert_eq!(said(dir, 0, &["cat", &place]), "rescue\n");
    }
}

#[test]
fn a_windows_has_its_drives() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let mut system = registry::Made::new();
    system.value("Select", "Current", 4, &registry::number(1));
    let name = "ControlSet001\\Control\\ComputerName\\ComputerName";
    system.value(name, "ComputerName", 1, &registry::sz("DESK"));
    let at = |offset: u64| [&[0xdd, 0xcc, 0xbb, 0xaa][..], &offset.to_le_bytes()].concat();
    system.value("MountedDevices", "\\DosDevices\\D:", 3, &at(1 << 20));
    system.value("MountedDevices", "\\DosDevices\\C:", 3, &at(17 << 20));
    let mut software = registry::Made::new();
    let current = "Microsoft\\Windows NT\\CurrentVersion";
    software.value(current, "ProductName", 1, &registry::sz("Windows 10 Pro"));
    fs::write(dir.join("SYSTEM"), system.bytes()).unwrap();
    fs::write(dir.join("SOFTWARE"), software.bytes()).unwrap();
    fs::write(dir.join("a.txt"), "on D").unwrap();
    let run = |program: &str, arguments: &[&str]| {
        let done = Command::new(program).args(arguments).current_dir(dir).output();
        let done = done.unwrap_or_else(|why| panic!("{program}: {why}; `cargo xtask witnesses`"));
        assert!(done.status.success(), "{program} {arguments:?}: {done:?}");
    };
    for image in ["c.fat", "d.fat"] {
        run("mformat", &["-C", "-i", image, "-T", "32768", "-h", "16", "-s", "32", "::"]);
    }
    let folders = ["::Windows", "::Windows/System32", "::Windows/System32/config"];
    run("mmd", &[&["-i", "c.fat"], &folders[..]].concat());
    run("mcopy", &["-i", "c.fat", "SYSTEM", "SOFTWARE", folders[2]]);
    run("mcopy", &["-i", "d.fat", "a.txt", "::"]);
    let read = |name: &str| fs::read(dir.join(name)).unwrap();
    disk(&dir.join("win.img"), &[read("d.fat"), read("c.fat")]);
    let mut bytes = read("win.img");
    bytes[0x1b8..0x1bc].copy_from_slice(&[0xdd, 0xcc, 0xbb, 0xaa]);
    fs::write(dir.join("win.img"), bytes).unwrap();
    assert_eq!(said(dir, 0, &["cat", "win.img//:os/d:/A.TXT"]), "on D");
    let listing = said(dir, 0, &["ls", "win.img//:os/"]);
    assert!(listing.contains("C:") && listing.contains("D:"), "{listing}");
    let config = said(dir, 0, &["ls", "win.img//:os/C:/Windows/system32/config"]);
    assert!(config.contains("SYSTEM"), "{config}");
    let info = json(dir, 0, &["info", "win.img//:os"]);
    assert!(info.to_string().contains("Windows 10 Pro"), "{info}");
}
