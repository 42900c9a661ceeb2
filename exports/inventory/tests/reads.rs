//! An inventory tells…

mod common;

use adit_core::{Finding, Interrupt, Limits, NodeId};
use adit_inventory::{
    ImageKind, Inventory, Location, LockHint, Machine, PowerState, Role, machines,
};
use common::{BLOCK, Tree};

const MIB: u64 = 1 << 20;

fn vmx(name: &str, lines: &str) -> String {
    format!(
        ".encoding = \"UTF-8\"\ndisplayName = \"{name}\"\nguestOS = \"ubuntu-64\"\n\
         memSize = \"1024\"\nscsi0.virtualDev = \"pvscsi\"\n{lines}"
    )
}

fn disk(slot: &str, file: &str) -> String {
    format!("{slot}.present = \"TRUE\"\n{slot}.fileName = \"{file}\"\n")
}

/// A descriptor of one extent.
fn vmdk(cid: u32, extent: &str, more: &str) -> String {
    format!(
        "# Disk DescriptorFile\nversion=1\nCID={cid:08x}\ncreateType=\"vmfs\"\n{more}\n{extent}\n"
    )
}

fn sectors(bytes: u64) -> u64 {
    bytes / 512
}

fn flat(cid: u32, bytes: u64, file: &str) -> String {
    vmdk(cid, &format!("RW {} VMFS \"{file}\"", sectors(bytes)), "parentCID=ffffffff")
}

fn delta(cid: u32, parent: (u32, &str), bytes: u64, file: &str) -> String {
    let (parent_cid, hint) = parent;
    let more = format!("parentCID={parent_cid:08x}\nparentFileNameHint=\"{hint}\"");
    vmdk(cid, &format!("RW {} SESPARSE \"{file}\"", sectors(bytes)), &more)
}

/// One machine with two snapshots on its first disk and a thin second disk in another folder.
fn web() -> Tree {
    let settings = [
        disk("scsi0:0", "web-000002.vmdk"),
        disk("scsi0:1", "/vmfs/volumes/5F5E1000-AA/data/data.vmdk"),
        "sata0:0.present = \"TRUE\"\nsata0:0.deviceType = \"cdrom-image\"\n\
         sata0:0.fileName = \"/vmfs/volumes/iso/x.iso\"\nnvram = \"web.nvram\"\n"
            .to_owned(),
    ];
    let snapshots = "snapshot.numSnapshots = \"2\"\nsnapshot.current = \"2\"\n\
         snapshot0.uid = \"1\"\nsnapshot0.displayName = \"before\"\n\
         snapshot0.filename = \"web-Snapshot1.vmsn\"\n\
         snapshot0.createTimeHigh = \"388745\"\nsnapshot0.createTimeLow = \"1991180826\"\n\
         snapshot0.disk0.fileName = \"web.vmdk\"\nsnapshot0.disk0.node = \"scsi0:0\"\n\
         snapshot1.uid = \"2\"\nsnapshot1.parent = \"1\"\n\
         snapshot1.disk0.fileName = \"web-000001.vmdk\"\nsnapshot1.disk0.node = \"scsi0:0\"\n";
    Tree::new()
        .text("web/web.vmx", vmx("web", &settings.concat()))
        .text("web/web.vmsd", snapshots)
        .text("web/web.nvram", "n")
        .text("web/vmware.log", "l")
        .text("web/web-Snapshot1.vmsn", "s")
        .text("web/notes.txt", "not a file of the machine")
        .text("web/web.vmdk", flat(1, 16 * MIB, "web-flat.vmdk"))
        .zeros("web/web-flat.vmdk", 16 * MIB, 16 * MIB)
        .text(
            "web/web-000001.vmdk",
            delta(2, (1, "web.vmdk"), 16 * MIB, "web-000001-sesparse.vmdk"),
        )
        .zeros("web/web-000001-sesparse.vmdk", 3 * MIB, 2 * MIB)
        .text(
            "web/web-000002.vmdk",
            delta(3, (2, "web-000001.vmdk"), 16 * MIB, "web-000002-sesparse.vmdk"),
        )
        .zeros("web/web-000002-sesparse.vmdk", 3 * MIB, MIB)
        .text(
            "data/data.vmdk",
            flat(7, 64 * MIB, "data-flat.vmdk")
                + "ddb.thinProvisioned = \"1\"\nchangeTrackPath=\"data-ctk.vmdk\"\n",
        )
        .zeros("data/data-flat.vmdk", 64 * MIB, 5 * MIB)
        .text("data/data-ctk.vmdk", [0xa2, 0x72, 0x19, 0xf6, 1, 0, 0, 0])
}

fn take(tree: &Tree) -> Inventory {
    machines(tree, &Limits::default(), &Interrupt::default(), &|_| None).unwrap()
}

fn only(inventory: &Inventory) -> &Machine {
    assert!(inventory.problems.is_empty(), "{:?}", inventory.problems);
    assert_eq!(inventory.machines.len(), 1);
    &inventory.machines[0]
}

fn codes(notes: &[Finding]) -> Vec<&str> {
    notes.iter().map(|note| note.code).collect()
}

/// The power of `tree`'s only machine, given who holds which file.
fn power(tree: &Tree, held: &[&str], free: &[&str]) -> adit_inventory::Power {
    let nodes = |paths: &[&str]| paths.iter().map(|path| tree.node(path)).collect::<Vec<_>>();
    let (held, free) = (nodes(held), nodes(free));
    let lock = |node: NodeId| {
        let known = held.contains(&node) || free.contains(&node);
        known.then(|| LockHint { held: held.contains(&node), owner: "host 7".to_owned() })
    };
    let found = machines(tree, &Limits::default(), &Interrupt::default(), &lock).unwrap();
    only(&found).power.clone()
}

#[test]
fn what_a_machine_is_and_what_it_takes() {
    let inventory = take(&web());
    let web = only(&inventory);
    assert_eq!(web.path.to_string(), "web/web.vmx");
    assert_eq!((web.display_name.as_str(), web.guest_os.as_str()), ("web", "ubuntu-64"));
    assert_eq!((web.memory_mib, web.vcpus, web.template), (Some(1024), 1, false));
    assert_eq!(web.notes, []);
    assert_eq!(web.provisioned_bytes, 80 * MIB);
    // Three extents and the thin one; 10 small files of a block each.
    assert_eq!(web.allocated_bytes, (16 + 2 + 1 + 5) * MIB + 10 * BLOCK);
    assert_eq!(web.files.len(), 14);
    assert!(web.files.iter().all(|file| file.path.to_string() != "web/notes.txt"));
    assert_eq!(web.drives[0].kind, "cd-rom");
    assert!(inventory.orphan_disks.is_empty() && inventory.orphan_extents.is_empty());
}

#[test]
fn every_image_of_a_disk_down_to_its_base() {
    let inventory = take(&web());
    let disk = &only(&inventory).disks[0];
    let paths: Vec<_> = disk.chain.iter().map(|image| image.path.to_string()).collect();
    assert_eq!(paths, ["web/web-000002.vmdk", "web/web-000001.vmdk", "web/web.vmdk"]);
    assert_eq!(disk.chain[2].kind, ImageKind::Flat);
    assert_eq!((disk.kind, disk.complete), (Some(ImageKind::SeSparse), true));
    assert_eq!((disk.size_bytes, disk.allocated_bytes), (Some(16 * MIB), 19 * MIB));
    assert_eq!(disk.controller_model.as_deref(), Some("pvscsi"));
}

#[test]
fn a_thin_disk_in_another_folder_named_by_the_volume() {
    let inventory = take(&web());
    let disk = &only(&inventory).disks[1];
    assert_eq!(disk.location.path().unwrap().to_string(), "data/data.vmdk");
    assert_eq!((disk.kind, disk.allocated_bytes), (Some(ImageKind::Thin), 5 * MIB));
    let tracking = disk.chain[0].change_tracking.as_ref().unwrap();
    assert_eq!(tracking.path().unwrap().to_string(), "data/data-ctk.vmdk");
}

#[test]
fn the_snapshots_and_the_disks_they_froze() {
    let inventory = take(&web());
    let tree = only(&inventory).snapshots.as_ref().unwrap();
    assert_eq!((tree.current, tree.roots.len()), (Some(2), 1));
    let first = &tree.roots[0];
    assert_eq!((first.name.as_str(), first.created), ("before", Some(1_669_649_052)));
    assert_eq!(first.disks[0].location.path().unwrap().to_string(), "web/web.vmdk");
    let second = &first.children[0].disks[0];
    assert_eq!(second.location.path().unwrap().to_string(), "web/web-000001.vmdk");
}

#[test]
fn sizes_and_times_as_numbers_in_json() {
    let json: serde_json::Value = serde_json::to_value(take(&web())).unwrap();
    let web = &json["machines"][0];
    assert_eq!(web["provisioned_bytes"], 80 * MIB);
    assert_eq!(web["power"]["state"], "unknown");
    assert_eq!(web["disks"][0]["kind"], "se-sparse");
    assert_eq!(web["disks"][0]["location"]["state"], "here");
    assert_eq!(web["disks"][0]["chain"][2]["extents"][0]["allocated_bytes"], 16 * MIB);
    assert_eq!(web["snapshots"]["roots"][0]["created"], 1_669_649_052);
    assert_eq!(web["path"], "web/web.vmx");
}

#[test]
fn a_machine_on_whose_files_somebody_holds() {
    let power = power(&web(), &["web/web-000002-sesparse.vmdk"], &["web/web.vmx"]);
    assert_eq!(power.state, PowerState::On);
    assert_eq!(
        power.evidence,
        ["web-000002-sesparse.vmdk, extent of web/web-000002.vmdk is locked by host 7"]
    );
}

#[test]
fn a_machine_off_although_its_base_is_held_for_another() {
    let free = ["web/web-000002-sesparse.vmdk"];
    assert_eq!(power(&web(), &["web/web-flat.vmdk"], &free).state, PowerState::Off);
}

#[test]
fn a_machine_off_whose_swap_was_left_over() {
    let tree = web().zeros("web/web-5.vswp", 4 * MIB, 4 * MIB);
    let off = power(&tree, &[], &["web/web-5.vswp"]);
    assert_eq!(off.state, PowerState::Off);
    assert_eq!(off.evidence, ["none of 1 locks is held", "the swap file web/web-5.vswp is there"]);
    // Without locks the swap file alone decides nothing.
    assert_eq!(power(&tree, &[], &[]).state, PowerState::Unknown);
    assert_eq!(power(&tree, &["web/web-5.vswp"], &[]).state, PowerState::On);
}

#[test]
fn a_machine_suspended_by_its_settings_or_its_file() {
    let settings = vmx("a", "checkpoint.vmState = \"a-1.vmss\"\n");
    let asleep = Tree::new().text("a/a.vmx", &settings).text("a/a-1.vmss", "m");
    let power = power(&asleep, &[], &["a/a.vmx"]);
    assert_eq!(power.state, PowerState::Suspended);
    assert_eq!(power.evidence, ["the settings resume from a-1.vmss", "a/a-1.vmss is there"]);
    let inventory = take(&Tree::new().text("a/a.vmx", &settings));
    let lost = only(&inventory);
    assert_eq!(lost.power.state, PowerState::Unknown);
    assert_eq!(codes(&lost.notes), ["inventory-suspend-missing"]);
}

#[test]
fn raw_device_mappings_of_both_modes() {
    let rdm = |word: &str| {
        vmdk(1, "RW 8 VMFSRDM \"a-rdm.vmdk\"", "parentCID=ffffffff").replace("\"vmfs\"", word)
    };
    let kind = |word: &str| {
        let tree = Tree::new()
            .text("a/a.vmx", vmx("a", &disk("scsi0:0", "a.vmdk")))
            .text("a/a.vmdk", rdm(word))
            .raw_device("a/a-rdm.vmdk");
        let inventory = take(&tree);
        let disk = &only(&inventory).disks[0];
        assert!(disk.complete && inventory.orphan_extents.is_empty());
        disk.kind.unwrap()
    };
    assert_eq!(kind("\"vmfsRawDeviceMap\""), ImageKind::RdmVirtual);
    assert_eq!(kind("\"vmfsPassthroughRawDeviceMap\""), ImageKind::RdmPhysical);
}

#[test]
fn a_sparse_disk_with_its_descriptor_inside() {
    let text = vmdk(1, "RW 2048 SPARSE \"call-me-stream.vmdk\"", "parentCID=ffffffff");
    let mut image = vec![0; 21 * 512];
    image[..8].copy_from_slice(b"KDMV\x01\0\0\0");
    image[28..36].copy_from_slice(&1u64.to_le_bytes());
    image[36..44].copy_from_slice(&20u64.to_le_bytes());
    image[512..512 + text.len()].copy_from_slice(text.as_bytes());
    let tree = Tree::new()
        .text("a/a.vmx", vmx("a", &disk("ide0:0", "a.vmdk")))
        .text("a/a.vmdk", &image)
        .text("b/b.vmdk", &image);
    let inventory = take(&tree);
    let disk = &only(&inventory).disks[0];
    assert_eq!((disk.kind, disk.size_bytes), (Some(ImageKind::Sparse), Some(MIB)));
    assert_eq!((disk.complete, disk.allocated_bytes), (true, 3 * BLOCK));
    assert_eq!(inventory.orphan_disks[0].path.to_string(), "b/b.vmdk");
    assert!(inventory.orphan_extents.is_empty());
}

#[test]
fn disks_and_data_that_nobody_names() {
    let tree = web()
        .text("old/old.vmdk", flat(1, MIB, "old-flat.vmdk"))
        .zeros("old/old-flat.vmdk", MIB, MIB)
        .zeros("old/lost-flat.vmdk", MIB, MIB)
        .text("old/left-ctk.vmdk", [0xa2, 0x72, 0x19, 0xf6, 1, 0, 0, 0])
        // A guest wrote a descriptor at the front of its small disk.
        .text("old/small.vmdk", flat(1, 512, "small-flat.vmdk"))
        .text("old/small-flat.vmdk", flat(9, 512, "web-flat.vmdk"));
    let inventory = take(&tree);
    let disks: Vec<_> = inventory.orphan_disks.iter().map(|d| d.path.to_string()).collect();
    assert_eq!(disks, ["old/old.vmdk", "old/small.vmdk"]);
    let data: Vec<_> = inventory.orphan_extents.iter().map(|f| f.path.to_string()).collect();
    assert_eq!(data, ["old/lost-flat.vmdk"]);
    assert_eq!(inventory.orphan_extents[0].role, Role::Disk);
}

#[test]
fn two_machines_of_one_folder_apart() {
    let tree = Tree::new()
        .text("both/web.vmx", vmx("web", ""))
        .text("both/web2.vmx", vmx("web2", ""))
        .text("both/web.nvram", "n")
        .text("both/web2.nvram", "n")
        .text("both/web2.vmsd", "")
        .text("both/vmware.log", "whose?");
    let inventory = take(&tree);
    let names = |machine: &Machine| {
        machine.files.iter().map(|file| file.path.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(names(&inventory.machines[0]), ["both/web.nvram", "both/web.vmx"]);
    assert_eq!(
        names(&inventory.machines[1]),
        ["both/web2.nvram", "both/web2.vmsd", "both/web2.vmx"]
    );
}

#[test]
fn a_linked_clone_with_the_name_of_its_parent() {
    let tree = Tree::new()
        .text("clone/a.vmx", vmx("clone", &disk("scsi0:0", "a.vmdk")))
        .text(
            "clone/a.vmdk",
            delta(2, (1, "/vmfs/volumes/store1/base/a.vmdk"), MIB, "a-sesparse.vmdk"),
        )
        .zeros("clone/a-sesparse.vmdk", MIB, 0)
        .text("base/a.vmdk", flat(1, MIB, "a-flat.vmdk"))
        .zeros("base/a-flat.vmdk", MIB, MIB);
    let inventory = take(&tree);
    let clone = only(&inventory);
    assert_eq!(clone.disks[0].chain[1].path.to_string(), "base/a.vmdk");
    assert_eq!((clone.notes.len(), clone.disks[0].complete), (0, true));
}

#[test]
fn a_disk_of_a_renamed_folder_beside_its_settings() {
    let tree = Tree::new()
        .text("new/a.vmx", vmx("a", &disk("scsi0:0", "/vmfs/volumes/store1/old/a.vmdk")))
        .text("new/a.vmdk", flat(1, MIB, "a-flat.vmdk"))
        .zeros("new/a-flat.vmdk", MIB, MIB);
    let inventory = take(&tree);
    let moved = only(&inventory);
    assert!(
        matches!(&moved.disks[0].location, Location::Beside { path } if path.to_string() == "new/a.vmdk")
    );
    assert_eq!(codes(&moved.notes), ["inventory-disk-moved"]);
    assert!(moved.disks[0].complete);
}
