//! `.vmx` and `.vmsd` files are read…

use adit_core::{Limits, Severity};
use adit_vmx::{DeviceKind, Dictionary, Snapshots, Vmx};

const WEB: &str = r#".encoding = "UTF-8"
config.version = "8"
virtualHW.version = "19"
displayName = "web|2201|22"
annotation = "first line|0Asecond line"
guestOS = "ubuntu-64"
memSize = "4096"
numvcpus = "2"
firmware = "efi"
nvram = "web01.nvram"
uuid.bios = "42 00 93 72 17 da be 73-77 9d 00 7c cf 1b d2 28"
uuid.location = "56 4d 01 02 03 04 05 06-07 08 09 0a 0b 0c 0d 0e"
ctkEnabled = "TRUE"
scsi0.present = "TRUE"
scsi0.virtualDev = "pvscsi"
scsi0:10.present = "TRUE"
scsi0:10.fileName = "data.vmdk"
scsi0:10.mode = "independent-persistent"
scsi0:0.present = "TRUE"
scsi0:0.deviceType = "scsi-hardDisk"
scsi0:0.filename = "web01-000002.vmdk"
scsi0:0.ctkEnabled = "TRUE"
scsi0:0.redo = ""
scsi0:1.redo = ""
sata0:0.present = "TRUE"
sata0:0.deviceType = "cdrom-image"
sata0:0.fileName = "/vmfs/volumes/iso/install.iso"
nvme0:1.present = "FALSE"
nvme0:1.fileName = "detached.vmdk"
floppy0.fileName = "floppy.flp"
"#;

fn vmx(text: &str) -> Vmx {
    Vmx::parse(text.as_bytes(), &Limits::default()).unwrap()
}

fn dictionary(bytes: &[u8]) -> Dictionary {
    Dictionary::parse(bytes, &Limits::default()).unwrap()
}

fn codes(dictionary: &Dictionary) -> Vec<&str> {
    dictionary.notes.iter().map(|note| note.code).collect()
}

#[test]
fn the_hardware_and_the_names() {
    let web = vmx(WEB);
    assert_eq!(web.display_name, "web\"01\"");
    assert_eq!(web.annotations, "first line\nsecond line");
    assert_eq!((web.guest_os.as_str(), web.firmware.as_str()), ("ubuntu-64", "efi"));
    assert_eq!((web.hw_version, web.memory_mib, web.vcpus), (Some(19), Some(4096), 2));
    assert_eq!(web.uuid_bios, "42 00 93 72 17 da be 73-77 9d 00 7c cf 1b d2 28");
    assert_eq!(web.uuid_location, "56 4d 01 02 03 04 05 06-07 08 09 0a 0b 0c 0d 0e");
    assert_eq!(web.nvram.as_deref(), Some(&b"web01.nvram"[..]));
    assert!(web.ctk && !web.encrypted && web.suspend_file.is_none());
    assert!(web.notes.is_empty(), "{:?}", web.notes);
    assert_eq!(web.raw.entries.len(), WEB.lines().count());
    assert_eq!(web.raw.entries[3].key, "displayName");
}

#[test]
fn drives_in_the_order_of_their_slots() {
    let web = vmx(WEB);
    let slots: Vec<_> = web.disks.iter().map(|disk| disk.controller.as_str()).collect();
    assert_eq!(slots, ["sata0:0", "scsi0:0", "scsi0:10", "nvme0:1", "floppy0"]);
    let disk = &web.disks[1];
    assert_eq!(disk.file_name, b"web01-000002.vmdk");
    assert_eq!((&disk.kind, disk.present, disk.ctk), (&DeviceKind::Disk, true, true));
    assert_eq!(disk.controller_model.as_deref(), Some("pvscsi"));
    assert_eq!(web.disks[2].mode, "independent-persistent");
    assert_eq!(web.disks[0].kind, DeviceKind::CdRom);
    assert!(!web.disks[3].present);
    assert_eq!(web.disks[4].kind, DeviceKind::Floppy);
}

#[test]
fn what_a_drive_is_from_its_type_and_its_name() {
    let kind = |lines: &str| vmx(&format!("guestOS = \"x\"\n{lines}")).disks[0].kind.clone();
    assert_eq!(kind("ide0:0.fileName = a.vmdk"), DeviceKind::Disk);
    assert_eq!(kind("ide0:0.fileName = a.ISO"), DeviceKind::CdRom);
    assert_eq!(kind("ide0:0.fileName = \"emptyBackingString\""), DeviceKind::CdRom);
    let typed =
        |word: &str| kind(&format!("scsi0:0.present = TRUE\nscsi0:0.deviceType = \"{word}\""));
    assert_eq!(typed("atapi-cdrom"), DeviceKind::CdRom);
    assert_eq!(typed("rawDisk"), DeviceKind::Disk);
    assert_eq!(typed("ata-hardDisk"), DeviceKind::Disk);
    assert_eq!(typed("scsi-passthru"), DeviceKind::Passthrough);
    assert_eq!(typed("scsi-passthru-rdm"), DeviceKind::Disk);
    assert_eq!(typed("tape"), DeviceKind::Other("tape".to_owned()));
}

#[test]
fn a_disk_that_does_not_say_whether_it_is_present_counts_and_is_noted() {
    let old = vmx("guestOS = \"x\"\nide0:0.fileName = \"a.vmdk\"\n");
    assert!(old.disks[0].present);
    assert_eq!(old.notes[0].code, "vmx-present");
}

#[test]
fn a_disk_of_an_absent_controller_as_absent() {
    let off = vmx("guestOS = \"x\"\nscsi0.present = \"FALSE\"\nscsi0:0.present = \"TRUE\"\n\
                   scsi0:0.fileName = \"a.vmdk\"\n");
    assert!(!off.disks[0].present);
}

#[test]
fn a_suspended_machine_with_its_suspend_and_swap_files() {
    let asleep = vmx("guestOS = \"x\"\ncheckpoint.vmState = \"a-1.vmss\"\n\
                      sched.swap.derivedName = \"/vmfs/volumes/u/a/a.vswp\"\n");
    assert_eq!(asleep.suspend_file.as_deref(), Some(&b"a-1.vmss"[..]));
    assert_eq!(asleep.swap_file.as_deref(), Some(&b"/vmfs/volumes/u/a/a.vswp"[..]));
}

#[test]
fn keys_without_regard_to_case_blanks_quotes_and_line_ends() {
    let odd = dictionary(
        b"\xef\xbb\xbf#!/usr/bin/vmware\r\n\r\n  DISPLAYname=  plain text  \r\n\
          memSize = \"512\" # comment\r\n\tguestOS\t=\t\"x = y\"\r\nlast = \"end\"",
    );
    assert_eq!(odd.text("displayName").unwrap(), "plain text");
    assert_eq!(odd.number("MEMSIZE"), Some(512));
    assert_eq!(odd.text("guestos").unwrap(), "x = y");
    assert_eq!(odd.text("last").unwrap(), "end");
    assert!(odd.notes.is_empty(), "{:?}", odd.notes);
    assert_eq!(odd.entries[0].line, 3);
}

#[test]
fn flags_in_every_spelling() {
    let flags = dictionary(b"a = \"TRUE\"\nb = \"true\"\nc = \"0\"\nd = \"maybe\"\ne = \"\"\n");
    assert_eq!(["a", "b", "c"].map(|key| flags.flag(key)), [Some(true), Some(true), Some(false)]);
    assert_eq!((flags.flag("d"), flags.flag("e"), flags.flag("f")), (None, None, None));
}

#[test]
fn the_last_of_duplicate_keys_and_both_are_named() {
    let twice = dictionary(b"a = \"1\"\nb = \"x\"\nA = \"2\"\nb = \"x\"\n");
    assert_eq!(twice.number("a"), Some(2));
    assert_eq!(codes(&twice), ["vmx-duplicate-key", "vmx-duplicate-key"]);
    let text = twice.notes[0].text.as_str();
    assert!(text.contains("\"1\" in line 1") && text.contains("\"2\" here"), "{text}");
    assert_eq!(twice.effective().count(), 2);
}

#[test]
fn text_in_other_encodings_byte_by_byte() {
    // "日本" in Shift-JIS, and a character whose second byte is the escape sign.
    let japanese = dictionary(
        b".encoding = \"Shift_JIS\"\ndisplayName = \"\x93\xfa\x96\x7b\"\nx = \"\x83\x7c22\"\n",
    );
    assert_eq!(japanese.encoding.as_deref(), Some("Shift_JIS"));
    assert_eq!(japanese.bytes("displayname").unwrap(), b"\x93\xfa\x96\x7b");
    assert_eq!(japanese.bytes("x").unwrap(), b"\x83\x7c22");
    assert_eq!(codes(&japanese), ["vmx-encoding"]);
    assert!(japanese.notes[0].text.contains("Shift_JIS"));
    // A wrong declaration over good UTF-8 harms nothing.
    let wrong = dictionary(".encoding = \"GBK\"\na = \"ü|22\"\n".as_bytes());
    assert_eq!(wrong.text("a").unwrap(), "ü\"");
    assert!(wrong.notes.is_empty());
}

#[test]
fn an_empty_file_as_an_empty_dictionary() {
    assert!(dictionary(b"").entries.is_empty());
    let none = Snapshots::parse(b"", &Limits::default()).unwrap();
    assert!(none.roots.is_empty() && none.problems.is_empty() && none.current.is_none());
}

const TREE: &str = r#".encoding = "UTF-8"
snapshot.lastUID = "9"
snapshot.current = "3"
snapshot0.uid = "1"
snapshot0.filename = "esx-Snapshot1.vmsn"
snapshot0.displayName = "before update"
snapshot0.createTimeHigh = "388745"
snapshot0.createTimeLow = "1991180826"
snapshot0.numDisks = "2"
snapshot0.disk0.fileName = "esx.vmdk"
snapshot0.disk0.node = "scsi0:0"
snapshot0.disk1.fileName = "data.vmdk"
snapshot0.disk1.node = "scsi0:1"
snapshot4.uid = "3"
snapshot4.parent = "1"
snapshot4.displayName = "nach dem |22Update|22 – ü"
snapshot4.createTimeHigh = "388801"
snapshot4.createTimeLow = "-814770620"
snapshot4.disk0.fileName = "esx-000001.vmdk"
snapshot2.uid = "5"
snapshot2.parent = "1"
snapshot.numSnapshots = "3"
"#;

#[test]
fn the_snapshot_tree() {
    let tree = Snapshots::parse(TREE.as_bytes(), &Limits::default()).unwrap();
    assert!(tree.problems.is_empty(), "{:?}", tree.problems);
    assert_eq!((tree.current, tree.roots.len()), (Some(3), 1));
    let root = &tree.roots[0];
    assert_eq!((root.uid, root.name.as_str()), (1, "before update"));
    assert_eq!(root.state_file.as_deref(), Some(&b"esx-Snapshot1.vmsn"[..]));
    assert_eq!(root.disks.len(), 2);
    assert_eq!(
        (&root.disks[1].file_name[..], &root.disks[1].node[..]),
        (&b"data.vmdk"[..], "scsi0:1")
    );
    assert_eq!(root.children.iter().map(|child| child.uid).collect::<Vec<_>>(), [5, 3]);
    assert_eq!(root.children[1].name, "nach dem \"Update\" – ü");
    assert_eq!(tree.iter().map(|snapshot| snapshot.uid).collect::<Vec<_>>(), [1, 5, 3]);
}

#[test]
fn times_whose_low_half_is_printed_with_a_sign() {
    let tree = Snapshots::parse(TREE.as_bytes(), &Limits::default()).unwrap();
    let first = tree.roots[0].created.unwrap();
    let second = tree.roots[0].children[1].created.unwrap();
    // (388745 << 32) + 1991180826 and (388801 << 32) + (2^32 - 814770620) microseconds.
    assert_eq!((first.seconds, first.nanos), (1_669_649_052, 664_346_000));
    assert_eq!((second.seconds, second.nanos), (1_669_891_059, 848_772_000));
}

#[test]
fn encrypted_settings_with_a_warning() {
    let sealed = vmx("displayName = \"x\"\nencryption.keySafe = \"vmware:key/list/…\"\n\
                      encryption.data = \"AAAA\"\n");
    assert!(sealed.encrypted);
    assert_eq!(sealed.notes[0].severity, Severity::Warning);
    assert!(sealed.notes[0].text.contains("drives may be missing"));
}
