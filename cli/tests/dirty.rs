//! A guest that lost power, behind a datastore: its file system is mounted by the kernel, which
//! finishes the journal in an overlay, and the LUN never changes.
//!
//! Making such a guest needs loop devices, and those need root:
//! `cargo test -p adit --test dirty -- --ignored`.

mod common;

use adit_testkit::Vmfs;
use common::{complained, said, sha256sum};
use std::path::Path;
use std::process::Command;

/// The first 500 files are in their places; the last 100 only in the journal. What is copied
/// from the mounted disk is what a power cut would leave.
const MAKE: &str = r#"
truncate -s 96M disk.raw
# One partition of type 83 from sector 2048 to the end: 194,560 sectors.
printf '\0\0\0\0\203\0\0\0\0\010\0\0\0\370\002\0' |
    dd of=disk.raw bs=1 seek=446 conv=notrunc status=none
printf '\125\252' | dd of=disk.raw bs=1 seek=510 conv=notrunc status=none
LOOP=$(losetup -f --show -o 1M disk.raw)
trap 'umount guest 2> /dev/null || true; losetup -d $LOOP' EXIT
mkfs.ext4 -q $LOOP
mount -o nodelalloc,commit=600 $LOOP guest
for n in $(seq 500); do echo "file $n" > guest/$n; done
sync -f guest
for n in $(seq 501 600); do echo "file $n" > guest/$n; done
sync guest/600
cp --sparse=always disk.raw dirty.raw
umount guest
"#;

/// Without its journal it has 500 files, by the kernel's word.
const WITHOUT_JOURNAL: &str = r#"
mount -o ro,noload,loop,offset=1048576 dirty.raw guest
ls guest | grep -c '^[0-9]'
umount guest
"#;

const COUNT: &str = r#"
for n in $(seq 600); do [ "$(cat guest/$n)" = "file $n" ]; done
ls guest | grep -c '^[0-9]'
"#;

#[track_caller]
fn shell(dir: &Path, script: &str) -> String {
    let script = format!("set -e; export PATH=$PATH:/usr/sbin:/sbin\n{script}");
    let output = Command::new("bash").arg("-c").arg(script).current_dir(dir).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}\n{errors}", output.status);
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// Takes down what a failed assertion leaves.
struct Mounts<'a>(&'a Path);

impl Drop for Mounts<'_> {
    fn drop(&mut self) {
        let script = "umount guest; umount mnt";
        let _ = Command::new("bash").args(["-c", script]).current_dir(self.0).output();
    }
}

#[test]
#[ignore = "needs root and loop devices"]
fn all_files_of_a_guest_that_lost_power_are_there_in_two_commands() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    std::fs::create_dir(dir.join("guest")).unwrap();
    std::fs::create_dir(dir.join("mnt")).unwrap();
    let _mounts = Mounts(dir);
    shell(dir, MAKE);
    assert_eq!(shell(dir, WITHOUT_JOURNAL), "500");
    shell(dir, "qemu-img convert -f raw -O vmdk -o subformat=monolithicFlat dirty.raw web01.vmdk");
    let bytes = |name: &str| std::fs::read(dir.join(name)).unwrap();
    Vmfs::six()
        .file("web01/web01.vmdk", bytes("web01.vmdk"))
        .file("web01/web01-flat.vmdk", bytes("web01-flat.vmdk"))
        .write(dir.join("lun.img"));
    let before = sha256sum(&dir.join("lun.img"));
    let place = "lun.img//web01/web01.vmdk";

    // The two commands.
    said(dir, 0, &["mount", "--overlay", "changes.qcow2", place, "mnt"]);
    shell(dir, "mount -o loop mnt/part1.ext4 guest");
    assert_eq!(shell(dir, COUNT), "600");

    shell(dir, "echo kept > guest/new; umount guest");
    said(dir, 0, &["umount", "mnt"]);
    assert_eq!(sha256sum(&dir.join("lun.img")), before);

    // The overlay keeps it over a remount, replayed and sound.
    said(dir, 0, &["mount", "--overlay", "changes.qcow2", place, "mnt"]);
    shell(dir, "e2fsck -fn mnt/part1.ext4");
    shell(dir, "mount -o loop mnt/part1.ext4 guest");
    assert_eq!(shell(dir, "cat guest/new; umount guest"), "kept");
    said(dir, 0, &["umount", "mnt"]);

    // Inside a datastore nothing is written, so it becomes permanent in an image of its own.
    let refused = complained(dir, 1, &["overlay", "commit", "--into-original", "changes.qcow2"]);
    assert!(refused.contains("adit convert"), "{refused}");
    // The two slashes: what the image holds, not the bytes of its descriptor.
    let parent = format!("changes.qcow2={place}//");
    let convert = ["convert", "-q", "--to", "raw", "--parent", &parent, "changes.qcow2"];
    said(dir, 0, &[&convert[..], &["merged.raw"]].concat());
    shell(dir, "dd if=merged.raw of=merged.ext4 bs=1M skip=1 status=none; e2fsck -fn merged.ext4");
    assert_eq!(sha256sum(&dir.join("lun.img")), before);
}

#[test]
#[ignore = "needs root and loop devices"]
fn what_was_written_into_an_image_of_the_host_is_committed_for_good() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    std::fs::create_dir(dir.join("guest")).unwrap();
    std::fs::create_dir(dir.join("mnt")).unwrap();
    let _mounts = Mounts(dir);
    shell(dir, MAKE);
    shell(dir, "qemu-img convert -f raw -O vmdk -o subformat=monolithicFlat dirty.raw web01.vmdk");
    let before = sha256sum(&dir.join("web01-flat.vmdk"));

    said(dir, 0, &["mount", "--overlay", "changes.qcow2", "web01.vmdk", "mnt"]);
    shell(dir, "mount -o loop mnt/part1.ext4 guest");
    assert_eq!(shell(dir, COUNT), "600");
    shell(dir, "echo kept > guest/new; umount guest");
    said(dir, 0, &["umount", "mnt"]);
    assert_eq!(sha256sum(&dir.join("web01-flat.vmdk")), before);

    said(dir, 0, &["overlay", "commit", "--into-original", "changes.qcow2"]);
    said(dir, 0, &["mount", "web01.vmdk", "mnt"]);
    shell(dir, "e2fsck -fn mnt/part1.ext4");
    shell(dir, "mount -o ro,loop mnt/part1.ext4 guest");
    assert_eq!(shell(dir, &format!("{COUNT}\numount guest")), "600");
    said(dir, 0, &["umount", "mnt"]);
}

/// What `mount` calls: a link to this program.
fn install(dir: &Path) -> String {
    let link = dir.join("mount.fuse.adit");
    let _ = std::fs::remove_file(&link);
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_adit"), &link).unwrap();
    link.display().to_string()
}

#[test]
#[ignore = "needs root: it puts a link into /sbin of a name space of its own"]
fn mount_and_fstab_know_the_type_fuse_adit() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    std::fs::create_dir(dir.join("mnt")).unwrap();
    Vmfs::six().file("a,b/note", "hello").write(dir.join("lun.img"));
    let link = install(dir);
    // A world whose /sbin also has the helper, and whose fstab names the mount.
    let script = format!(
        r#"
mount --make-rprivate /
here=$PWD
mkdir upper work
mount -t tmpfs tmpfs upper; mkdir upper/u upper/w
mount -t overlay overlay -o lowerdir=/usr/sbin,upperdir=upper/u,workdir=upper/w /usr/sbin
cp -P {link} /usr/sbin/mount.fuse.adit
mount -t fuse.adit $here/lun.img $here/mnt -o ro,noexec,uid=77
cat mnt/a,b/note; stat -c ' %u' mnt/a,b/note
grep -c ' - fuse.adit .*lun.img' /proc/self/mountinfo
grep ' - fuse.adit' /proc/self/mountinfo | grep -c noexec
umount mnt
echo "$here/lun.img $here/mnt fuse.adit ro,noauto,_netdev,x-note=1,deep,allow_other 0 0" > fstab
mount --bind fstab /etc/fstab
mount $here/mnt
cat mnt/a,b/note; echo
umount $here/mnt
# The other way: mount.fuse finds the program by the type's name.
rm /usr/sbin/mount.fuse.adit
ln -s {program} /usr/sbin/adit
mount -t fuse.adit $here/lun.img $here/mnt -o ro
cat mnt/a,b/note; echo
umount mnt
"#,
        program = env!("CARGO_BIN_EXE_adit")
    );
    std::fs::write(dir.join("script"), format!("set -e\n{script}")).unwrap();
    let said = shell(dir, "PATH=$PATH:/usr/sbin unshare -m bash script");
    assert_eq!(said, "hello 77\n1\n1\nhello\nhello");
}
