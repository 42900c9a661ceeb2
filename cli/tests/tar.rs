//! Archives of guests: GNU tar and Python read them, and find what the folder had.

mod common;

use common::{adit, complained, json, said};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Output};

#[track_caller]
fn tool(dir: &Path, program: &str, arguments: &[&str]) -> Output {
    let output = Command::new(program).args(arguments).current_dir(dir).output().expect(program);
    assert!(output.status.success(), "{program} {arguments:?}\n{output:?}");
    output
}

fn ext4(dir: &Path) {
    let arguments = ["-q", "-t", "ext4", "-d", "tree", "a.img", "64M"];
    tool(dir, "/sbin/mke2fs", &arguments);
}

/// A folder with some of everything an archive must carry.
fn folder(dir: &Path) {
    let tree = dir.join("tree");
    fs::create_dir_all(tree.join("etc")).unwrap();
    fs::create_dir(tree.join("lost+found")).unwrap();
    fs::write(tree.join("etc/hostname"), "web01\n").unwrap();
    fs::write(tree.join("etc/empty"), "").unwrap();
    fs::set_permissions(tree.join("etc/empty"), fs::Permissions::from_mode(0o4751)).unwrap();
    fs::hard_link(tree.join("etc/hostname"), tree.join("etc/second-name")).unwrap();
    symlink("/etc/hostname", tree.join("name")).unwrap();
    symlink("x/".repeat(100), tree.join("long-link")).unwrap();
    // 130 bytes, which ustar splits, and 220, which it cannot hold.
    let deep = format!("{}/{}", "d".repeat(60), "e".repeat(60));
    fs::create_dir_all(tree.join(&deep)).unwrap();
    fs::write(tree.join(&deep).join("file.txt"), "deep").unwrap();
    fs::write(tree.join("é".repeat(110)), "long").unwrap();
    fs::write(tree.join("umlaut-ü"), "short").unwrap();
    fs::write(tree.join(OsStr::from_bytes(b"odd\xff\nname")), "odd").unwrap();
    fs::write(tree.join("large"), (0..3_000_000u32).map(|n| (n / 7) as u8).collect::<Vec<_>>())
        .unwrap();
    let sparse = fs::File::create(tree.join("sparse")).unwrap();
    sparse.write_all_at(b"first", 0).unwrap();
    sparse.write_all_at(&[b'm'; 500_000], 10_000_000).unwrap();
    sparse.set_len(20_000_000).unwrap();
    fs::File::create(tree.join("only-a-hole")).unwrap().set_len(1_000_000).unwrap();
}

/// Every file below a folder: path, kind and mode, size, link target, content.
fn everything(top: &Path) -> Vec<(Vec<u8>, u32, u64, Vec<u8>)> {
    let (mut found, mut todo) = (Vec::new(), vec![top.to_owned()]);
    while let Some(dir) = todo.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let metadata = path.symlink_metadata().unwrap();
            let content = match () {
                _ if metadata.is_symlink() => {
                    fs::read_link(&path).unwrap().into_os_string().into_encoded_bytes()
                }
                _ if metadata.is_dir() => Vec::new(),
                _ => fs::read(&path).unwrap(),
            };
            let size = if metadata.is_dir() { 0 } else { metadata.len() };
            let inside = path.strip_prefix(top).unwrap().as_os_str().as_bytes().to_vec();
            found.push((inside, metadata.mode(), size, content));
            if metadata.is_dir() {
                todo.push(path);
            }
        }
    }
    found.sort();
    found
}

#[test]
fn gnu_tar_extracts_what_the_folder_had() {
    let dir = tempfile::tempdir().unwrap();
    folder(dir.path());
    ext4(dir.path());
    said(dir.path(), 0, &["tar", "a.img//", "-o", "a.tar"]);
    fs::create_dir(dir.path().join("out")).unwrap();
    let output = tool(dir.path(), "tar", &["-x", "-p", "-f", "a.tar", "-C", "out"]);
    assert_eq!(String::from_utf8_lossy(&output.stderr), "", "nothing to complain about");
    let out = dir.path().join("out");
    let (wanted, got) = (everything(&dir.path().join("tree")), everything(&out));
    let names = |all: &[(Vec<u8>, u32, u64, Vec<u8>)]| -> Vec<String> {
        all.iter().map(|one| format!("{:?} {:o}", OsStr::from_bytes(&one.0), one.1)).collect()
    };
    assert_eq!(names(&got), names(&wanted));
    assert!(got == wanted, "contents differ");
    let node = |name: &str| fs::metadata(out.join(name)).unwrap();
    assert_eq!(node("etc/hostname").ino(), node("etc/second-name").ino());
    assert!(node("sparse").blocks() * 512 < 1_000_000, "holes stay holes");
    // The archive has the data of the sparse file, not its length.
    assert!(fs::metadata(dir.path().join("a.tar")).unwrap().len() < 5_000_000);
    // GNU tar compares owners and times too.
    tool(dir.path(), "tar", &["--compare", "-f", "a.tar", "-C", "out"]);
}

#[test]
fn a_stream_is_the_same_archive_and_the_report_goes_elsewhere() {
    let dir = tempfile::tempdir().unwrap();
    folder(dir.path());
    ext4(dir.path());
    let report = json(dir.path(), 0, &["tar", "a.img//", "-o", "a.tar"]);
    let file = fs::read(dir.path().join("a.tar")).unwrap();
    let stream = adit(dir.path(), &["tar", "a.img//"]);
    assert!(stream.status.success() && stream.stdout == file);
    assert_eq!(report["archive_bytes"], file.len());
    assert_eq!(file.len() % 10240, 0);
    let error = complained(dir.path(), 1, &["tar", "a.img//", "-o", "a.tar"]);
    assert!(error.contains("exists already"), "{error}");
    said(dir.path(), 0, &["tar", "-f", "a.img//etc/hostname", "-o", "a.tar"]);
    assert_eq!(tool(dir.path(), "tar", &["-tf", "a.tar"]).stdout, b"hostname\n");
}

#[test]
fn attributes_acls_devices_and_fractions_of_seconds_are_in_pax_records() {
    let dir = tempfile::tempdir().unwrap();
    folder(dir.path());
    ext4(dir.path());
    let commands = "ea_set etc/hostname user.colour blue\n\
                    ea_set etc/hostname user.a=b%c odd\n\
                    ea_set -f acl etc/hostname system.posix_acl_access\n\
                    set_inode_field etc/hostname mtime_extra 0x1DCD6500\n\
                    set_inode_field etc/hostname mtime @1000000000\n\
                    mknod disk b 8 17\nmknod null c 1 3\nmknod pipe p\n";
    fs::write(dir.path().join("commands"), commands).unwrap();
    // As the kernel gives it, and debugfs takes it.
    let mut acl = 2u32.to_le_bytes().to_vec();
    for (tag, bits, id) in [
        (1u16, 6u16, u32::MAX),
        (2, 4, 1000),
        (4, 4, u32::MAX),
        (16, 4, u32::MAX),
        (32, 0, u32::MAX),
    ] {
        acl.extend(tag.to_le_bytes());
        acl.extend(bits.to_le_bytes());
        acl.extend(id.to_le_bytes());
    }
    fs::write(dir.path().join("acl"), acl).unwrap();
    tool(dir.path(), "/sbin/debugfs", &["-w", "-f", "commands", "a.img"]);
    said(dir.path(), 0, &["tar", "a.img//", "-o", "a.tar"]);
    let script = "import tarfile\n\
        t = tarfile.open('a.tar')\n\
        m = t.getmember('./etc/hostname')\n\
        for k in sorted(m.pax_headers): print(k, m.pax_headers[k])\n\
        for n in ('./disk', './null', './pipe'):\n\
        \x20m = t.getmember(n); print(n, m.type, m.devmajor, m.devminor)\n\
        print(sorted(t.getnames())[-1] == './' + '\u{e9}' * 110)\n";
    let output = tool(dir.path(), "python3", &["-c", script]);
    assert_eq!(
        String::from_utf8(output.stdout).unwrap(),
        "SCHILY.acl.access user::rw-,user:1000:r--,group::r--,mask::r--,other::---\n\
         SCHILY.xattr.user.a%3Db%25c odd\n\
         SCHILY.xattr.user.colour blue\n\
         mtime 1000000000.125\n\
         ./disk b'4' 8 17\n./null b'3' 1 3\n./pipe b'6' 0 0\nTrue\n"
    );
}

/// The image with its end cut off, in the middle of the data of `/large`.
fn cut(dir: &Path) {
    let image = fs::read(dir.join("a.img")).unwrap();
    let wanted: Vec<u8> = (2_000_000..2_004_096u32).map(|n| (n / 7) as u8).collect();
    let at = image.windows(4096).position(|window| window == wanted).unwrap();
    fs::write(dir.join("cut.img"), &image[..at]).unwrap();
}

#[test]
fn what_is_known_to_be_lost_is_left_out_and_named_and_the_rest_is_there() {
    let dir = tempfile::tempdir().unwrap();
    folder(dir.path());
    fs::remove_file(dir.path().join("tree/sparse")).unwrap();
    fs::hard_link(dir.path().join("tree/large"), dir.path().join("tree/large-too")).unwrap();
    ext4(dir.path());
    cut(dir.path());
    let output = adit(dir.path(), &["tar", "cut.img//", "-o", "a.tar"]);
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(
        errors.contains("failed: large: ") && errors.contains("failed: large-too: "),
        "{errors}"
    );
    let names = tool(dir.path(), "tar", &["-tf", "a.tar"]).stdout;
    let names = String::from_utf8(names).unwrap();
    assert!(names.contains("./etc/hostname\n") && !names.contains("large"), "{names}");
}

#[test]
fn a_file_that_fails_midway_ends_the_archive_or_is_left_out_but_is_never_zeros() {
    let dir = tempfile::tempdir().unwrap();
    folder(dir.path());
    ext4(dir.path());
    // Compressed clusters of which one is damaged: only reading it tells.
    said(dir.path(), 0, &["convert", "--compress", "zstd", "a.img", "a.qcow2"]);
    let mut image = fs::read(dir.path().join("a.qcow2")).unwrap();
    let middle = image.len() / 2;
    let noise: Vec<u8> =
        (0..20_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    image[middle..middle + noise.len()].copy_from_slice(&noise);
    fs::write(dir.path().join("a.qcow2"), image).unwrap();

    let error = complained(dir.path(), 1, &["tar", "a.qcow2//large", "-o", "a.tar"]);
    assert!(error.contains("large") && error.contains("--keep-going"), "{error}");
    assert!(!dir.path().join("a.tar").exists() && !dir.path().join("a.tar.adit-partial").exists());
    let stream = adit(dir.path(), &["tar", "a.qcow2//"]);
    assert_eq!(stream.status.code(), Some(1));
    fs::write(dir.path().join("stream.tar"), stream.stdout).unwrap();
    let listed = Command::new("tar").args(["-tf", "stream.tar"]).current_dir(dir.path()).output();
    assert!(!listed.unwrap().status.success(), "GNU tar sees that it was cut off");

    let output = adit(dir.path(), &["tar", "--keep-going", "a.qcow2//", "-o", "a.tar"]);
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(errors.contains("failed: large: "), "{errors}");
    let names = tool(dir.path(), "tar", &["-tf", "a.tar"]).stdout;
    let names = String::from_utf8(names).unwrap();
    assert!(names.contains("./etc/hostname\n") && !names.contains("large"), "{names}");
}
