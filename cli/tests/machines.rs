//! Virtual machines, links across datastores, hosts that hold them.

mod common;

use adit_testkit::Vmfs;
use adit_testkit::vmfs::{Entry, Heartbeat, Mode};
use common::{complained, json, said};
use std::path::Path;

const VMX: &str = "displayName = \"Web 1\"\nguestOS = \"debian12-64\"\nmemSize = \"2048\"\n\
    scsi0.present = \"TRUE\"\nscsi0:0.present = \"TRUE\"\nscsi0:0.fileName = \"web.vmdk\"\n";
const VMDK: &str = "# Disk DescriptorFile\nversion=1\nCID=12345678\nparentCID=ffffffff\n\
    createType=\"vmfs\"\nRW 20480 VMFS \"web-flat.vmdk\"\nddb.thinProvisioned = \"1\"\n";

fn datastore(dir: &Path) {
    Vmfs::six()
        .label("store")
        .with(Entry::file("web/web.vmx", VMX).held(70, Mode::Exclusive))
        .file("web/web.vmdk", VMDK)
        .with(
            Entry::sparse("web/web-flat.vmdk", 10 << 20, &[(5 << 20, b"inside")])
                .held(70, Mode::Exclusive),
        )
        .file("off/off.vmx", VMX.replace("Web 1", "Off").replace("web.vmdk", "gone.vmdk"))
        .symlink("elsewhere", "/vmfs/volumes/other/readme")
        .symlink("here", "/vmfs/volumes/store/web/web.vmdk")
        .heartbeat(Heartbeat::live(70, "192.0.2.70"))
        .write(dir.join("lun.img"));
}

#[test]
fn machines_are_found_with_power_state_disks_and_what_is_missing() {
    let dir = tempfile::tempdir().unwrap();
    datastore(dir.path());
    let found = json(dir.path(), 3, &["vms", "lun.img"]);
    let machines = found["machines"].as_array().unwrap();
    let of = |name: &str| machines.iter().find(|m| m["display_name"] == name).unwrap();
    assert_eq!(machines.len(), 2);
    assert_eq!(of("Web 1")["power"]["state"], "on");
    assert_eq!(of("Web 1")["disks"][0]["complete"], true);
    assert_eq!(of("Web 1")["disks"][0]["size_bytes"], 10 << 20);
    assert_eq!(of("Off")["power"]["state"], "off");
    assert_eq!(of("Off")["disks"][0]["location"]["state"], "missing");
    let text = said(dir.path(), 3, &["vms", "lun.img"]);
    assert!(text.contains("Web 1  [on]") && text.contains("MISSING"), "{text}");
}

#[test]
fn the_disk_of_a_machine_opens_inside_the_datastore() {
    let dir = tempfile::tempdir().unwrap();
    datastore(dir.path());
    let part = ["cat", "--offset", "5M", "--length", "6", "lun.img//web/web.vmdk//"];
    assert_eq!(said(dir.path(), 0, &part), "inside");
}

#[test]
fn a_host_that_holds_files_is_named() {
    let dir = tempfile::tempdir().unwrap();
    datastore(dir.path());
    let beats = json(dir.path(), 0, &["heartbeats", "lun.img"]);
    let used: Vec<_> = beats["heartbeats"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|heartbeat| heartbeat["state"] == "in use")
        .collect();
    assert_eq!(used.len(), 1);
    assert_eq!((&used[0]["slot"], &used[0]["address"]), (&70.into(), &"192.0.2.70".into()));
    let info = said(dir.path(), 0, &["info", "lun.img"]);
    assert!(info.contains("192.0.2.70"), "{info}");
    let stat = json(dir.path(), 0, &["stat", "lun.img//web/web.vmx"]);
    assert_eq!(stat["files"][0]["details"]["lock_mode"], "exclusive");
}

#[test]
fn links_lead_through_this_datastore_and_into_one_that_is_named() {
    let dir = tempfile::tempdir().unwrap();
    datastore(dir.path());
    Vmfs::five().label("other").file("readme", "from afar").write(dir.path().join("other.img"));
    assert_eq!(said(dir.path(), 0, &["cat", "lun.img//here"]), VMDK);
    let error = complained(dir.path(), 1, &["cat", "lun.img//elsewhere"]);
    assert!(error.contains("--datastore"), "{error}");
    let named = ["cat", "--datastore", "other.img", "lun.img//elsewhere"];
    assert_eq!(said(dir.path(), 0, &named), "from afar");
}
