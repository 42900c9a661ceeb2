//! An inventory reports, and goes on beyond…

mod common;

use adit_core::{Finding, Interrupt, Kind, Limits};
use adit_inventory::{Inventory, Location, Machine, machines};
use common::Tree;

const SETTINGS: &str = "displayName = \"a\"\nscsi0:0.present = \"TRUE\"\nscsi0:0.fileName = ";

fn vmx(file: &str) -> String {
    format!("{SETTINGS}\"{file}\"\n")
}

fn flat(cid: &str, file: &str) -> String {
    format!(
        "# Disk DescriptorFile\nversion=1\nCID={cid}\nparentCID=ffffffff\nRW 8 VMFS \"{file}\"\n"
    )
}

fn delta(cid: &str, parent_cid: &str, hint: &str) -> String {
    format!(
        "# Disk DescriptorFile\nversion=1\nCID={cid}\nparentCID={parent_cid}\n\
         parentFileNameHint=\"{hint}\"\nRW 8 ZERO\n"
    )
}

fn take(tree: &Tree) -> Inventory {
    machines(tree, &Limits::default(), &Interrupt::default(), &|_| None).unwrap()
}

fn only(tree: &Tree) -> Machine {
    let mut inventory = take(tree);
    assert!(inventory.problems.is_empty(), "{:?}", inventory.problems);
    inventory.machines.remove(0)
}

fn codes(notes: &[Finding]) -> Vec<&str> {
    notes.iter().map(|note| note.code).collect()
}

#[test]
fn settings_that_cannot_be_read() {
    let tree = Tree::new()
        .text("bad/bad.vmx", [0; 512])
        .broken("broken/broken.vmx")
        .zeros("huge/huge.vmx", 1 << 40, 0)
        .text("good/good.vmx", "displayName = \"good\"\n");
    let inventory = take(&tree);
    assert_eq!(inventory.machines.len(), 1);
    let problems: Vec<_> = inventory
        .problems
        .iter()
        .map(|error| (error.trail().last().unwrap().as_str(), error.kind()))
        .collect();
    assert_eq!(
        problems,
        [
            ("bad/bad.vmx", Kind::Corrupt),
            ("broken/broken.vmx", Kind::Corrupt),
            ("huge/huge.vmx", Kind::Limit),
        ]
    );
}

#[test]
fn disks_that_are_missing_or_elsewhere() {
    let missing = only(&Tree::new().text("a/a.vmx", vmx("a.vmdk")));
    assert_eq!(codes(&missing.notes), ["inventory-disk-missing"]);
    assert!(!missing.disks[0].complete);
    for (name, place) in [
        ("/vmfs/volumes/other/a/a.vmdk", "other"),
        ("[other] a/a.vmdk", "other"),
        ("../../x/a.vmdk", "../../x/a.vmdk"),
        ("/data/a.vmdk", "/data/a.vmdk"),
        ("\\\\server\\share\\a.vmdk", "\\\\server\\share\\a.vmdk"),
        ("C:\\vm\\a.vmdk", "C:\\vm\\a.vmdk"),
    ] {
        // A disk of that name lies beside, but it is not the one that is meant.
        let tree = Tree::new().text("a/a.vmx", vmx(name)).text("a/a.vmdk", flat("1", "f"));
        let machine = only(&tree);
        let datastore = place.to_owned();
        assert_eq!(machine.disks[0].location, Location::Elsewhere { datastore }, "{name}");
        assert_eq!(codes(&machine.notes), ["inventory-disk-elsewhere"], "{name}");
        assert!(machine.disks[0].chain.is_empty());
    }
}

#[test]
fn a_missing_disk_never_replaced_by_another_disk_of_the_machine() {
    let second =
        "scsi0:1.present = \"TRUE\"\nscsi0:1.fileName = \"/vmfs/volumes/store1/b/a.vmdk\"\n";
    let tree = Tree::new()
        .text("a/a.vmx", vmx("a.vmdk") + second)
        .text("a/a.vmdk", flat("1", "a-flat.vmdk"))
        .zeros("a/a-flat.vmdk", 4096, 4096);
    let machine = only(&tree);
    assert!(matches!(machine.disks[1].location, Location::Missing { .. }));
    assert_eq!(codes(&machine.notes), ["inventory-disk-missing"]);
    assert!(machine.disks[0].complete && !machine.disks[1].complete);
}

#[test]
fn extents_that_are_missing_or_short() {
    let tree = |extra: fn(Tree) -> Tree| {
        extra(Tree::new().text("a/a.vmx", vmx("a.vmdk")).text("a/a.vmdk", flat("1", "a-flat.vmdk")))
    };
    let missing = only(&tree(|tree| tree));
    assert_eq!(codes(&missing.notes), ["inventory-extent-missing"]);
    let short = only(&tree(|tree| tree.zeros("a/a-flat.vmdk", 4000, 4096)));
    assert_eq!(codes(&short.notes), ["inventory-extent-short"]);
    assert!(short.notes[0].text.contains("96 bytes too short"), "{}", short.notes[0]);
    assert!(!short.disks[0].complete && !short.disks[0].chain[0].extents[0].complete);
}

#[test]
fn a_parent_that_was_written_to() {
    let tree = Tree::new()
        .text("a/a.vmx", vmx("a-1.vmdk"))
        .text("a/a-1.vmdk", delta("2", "0000000a", "a.vmdk"))
        .text("a/a.vmdk", flat("b", "a-flat.vmdk"))
        .zeros("a/a-flat.vmdk", 4096, 4096);
    let machine = only(&tree);
    assert_eq!(codes(&machine.notes), ["inventory-cid-mismatch", "inventory-consolidate"]);
    assert!(
        machine.notes[0].text.contains("0000000a") && machine.notes[0].text.contains("0000000b")
    );
    assert_eq!(machine.notes[0].place.as_ref().unwrap().structure, "scsi0:0");
    assert_eq!(machine.disks[0].chain.len(), 2);
}

#[test]
fn a_moved_parent_that_only_has_the_right_name() {
    let tree = |cid_wanted: &str, cid: &str| {
        Tree::new()
            .text("a/a.vmx", vmx("a-1.vmdk"))
            .text("a/a-1.vmdk", delta("2", cid_wanted, "/vmfs/volumes/gone/x/a.vmdk"))
            .text("a/a.vmdk", flat(cid, "a-flat.vmdk"))
            .zeros("a/a-flat.vmdk", 4096, 4096)
    };
    let right = only(&tree("0000000a", "a"));
    assert_eq!((right.disks[0].chain.len(), right.disks[0].complete), (2, true));
    let wrong = only(&tree("0000000a", "b"));
    assert_eq!(codes(&wrong.notes), ["inventory-parent-moved", "inventory-cid-mismatch"]);
    assert_eq!((wrong.disks[0].chain.len(), wrong.disks[0].complete), (1, false));
    // Every disk that was never written to has this identity.
    let any = only(&tree("fffffffe", "fffffffe"));
    assert_eq!(codes(&any.notes), ["inventory-parent-missing"]);
    assert_eq!((any.disks[0].chain.len(), any.disks[0].complete), (1, false));
}

#[test]
fn parents_that_are_missing_elsewhere_or_not_named() {
    let notes = |text: String| {
        codes(&only(&Tree::new().text("a/a.vmx", vmx("a-1.vmdk")).text("a/a-1.vmdk", text)).notes)
            .join(" ")
    };
    assert_eq!(notes(delta("2", "1", "a.vmdk")), "inventory-parent-missing");
    assert_eq!(notes(delta("2", "1", "/vmfs/volumes/o/a.vmdk")), "inventory-parent-elsewhere");
    // A parent elsewhere that has the child's own name is not the child.
    assert_eq!(notes(delta("2", "1", "/vmfs/volumes/o/a-1.vmdk")), "inventory-parent-elsewhere");
    assert_eq!(notes(delta("2", "1", "")), "inventory-parent-unnamed");
    let uuid = "version=1\nCID=1\ncreateType=\"x\"\nRW 8 ZERO\nddb.uuid.parent=\"3f-01\"\n";
    assert_eq!(notes(uuid.to_owned()), "inventory-parent-unnamed");
}

#[test]
fn a_chain_that_bites_its_tail() {
    let tree = Tree::new()
        .text("a/a.vmx", vmx("a-1.vmdk"))
        .text("a/a-1.vmdk", delta("1", "1", "a-2.vmdk"))
        .text("a/a-2.vmdk", delta("1", "1", "a-1.vmdk"));
    let machine = only(&tree);
    assert_eq!(machine.disks[0].chain.len(), 2);
    assert!(codes(&machine.notes).contains(&"inventory-chain-loop"));
    assert!(!machine.disks[0].complete);
}

#[test]
fn a_chain_longer_than_the_limit() {
    let mut tree = Tree::new().text("a/a.vmx", vmx("a-0.vmdk"));
    for at in 0..9 {
        tree = tree.text(&format!("a/a-{at}.vmdk"), delta("1", "1", &format!("a-{}.vmdk", at + 1)));
    }
    let limits = Limits { chain_length_max: 5, ..Limits::default() };
    let inventory = machines(&tree, &limits, &Interrupt::default(), &|_| None).unwrap();
    let machine = &inventory.machines[0];
    assert_eq!(machine.disks[0].chain.len(), 5);
    assert!(codes(&machine.notes).contains(&"inventory-chain-length"));
}

#[test]
fn thousands_of_missing_extents_in_few_words() {
    let mut text = "# Disk DescriptorFile\nversion=1\nCID=1\nparentCID=ffffffff\n".to_owned();
    (0..5000).for_each(|at| text += &format!("RW 8 FLAT \"gone-{at}\" 0\n"));
    let machine = only(&Tree::new().text("a/a.vmx", vmx("a.vmdk")).text("a/a.vmdk", text));
    assert_eq!(machine.notes.len(), 201);
    assert_eq!(machine.disks[0].chain[0].extents.len(), 5000);
}

#[test]
fn thousands_of_machines_in_one_folder() {
    let mut tree = Tree::new();
    for at in 0..3000 {
        tree = tree
            .text(&format!("a/vm{at:05}.vmx"), "displayName = \"a\"\n")
            .text(&format!("a/vm{at:05}.nvram"), "n");
    }
    let inventory = take(&tree);
    assert_eq!(inventory.machines.len(), 3000);
    assert!(inventory.machines.iter().all(|machine| machine.files.len() == 2));
}

#[test]
fn a_machine_whose_disks_have_more_images_than_the_limit() {
    let mut settings = "displayName = \"a\"\n".to_owned();
    for unit in 0..6 {
        settings +=
            &format!("scsi0:{unit}.present = \"TRUE\"\nscsi0:{unit}.fileName = \"b.vmdk\"\n");
    }
    let tree = Tree::new()
        .text("a/a.vmx", settings)
        .text("a/b.vmdk", delta("2", "1", "a.vmdk"))
        .text("a/a.vmdk", delta("1", "ffffffff", ""));
    let limits = Limits { pieces_max: 4, ..Limits::default() };
    let inventory = machines(&tree, &limits, &Interrupt::default(), &|_| None).unwrap();
    let lengths: Vec<_> = inventory.machines[0].disks.iter().map(|d| d.chain.len()).collect();
    assert_eq!(lengths, [2, 2, 0, 0, 0, 0]);
    assert!(codes(&inventory.machines[0].notes).contains(&"inventory-too-many-images"));
}

#[test]
fn a_disk_that_is_no_descriptor() {
    let tree = Tree::new().text("a/a.vmx", vmx("a-flat.vmdk")).zeros("a/a-flat.vmdk", 4096, 0);
    let inventory = take(&tree);
    assert_eq!(codes(&inventory.machines[0].notes), ["inventory-unreadable"]);
    assert_eq!(inventory.orphan_extents.len(), 1);
}

#[test]
fn snapshots_whose_files_are_missing_or_whose_list_is_unreadable() {
    let snapshots = "snapshot0.uid = \"1\"\nsnapshot0.filename = \"a.vmsn\"\n\
                     snapshot0.disk0.fileName = \"gone.vmdk\"\n";
    let settings = "displayName = \"a\"\n";
    let machine = only(&Tree::new().text("a/a.vmx", settings).text("a/a.vmsd", snapshots));
    assert_eq!(
        codes(&machine.notes),
        ["inventory-snapshot-disk-missing", "inventory-snapshot-state-missing"]
    );
    let machine = only(&Tree::new().text("a/a.vmx", settings).text("a/a.vmsd", [0; 9]));
    assert_eq!(codes(&machine.notes), ["inventory-snapshots-unreadable"]);
    assert!(machine.snapshots.is_none());
}

#[test]
fn names_that_no_directory_can_hold() {
    let machine = only(&Tree::new().text("a/a.vmx", vmx("a|00b.vmdk")));
    assert!(!machine.disks[0].complete);
    assert!(codes(&machine.notes).contains(&"inventory-disk-missing"));
    assert!(machine.disks[0].location.path().is_none());
}

#[test]
fn nothing_once_it_is_interrupted() {
    let interrupt = Interrupt::default();
    interrupt.raise();
    let tree = Tree::new().text("a/a.vmx", vmx("a.vmdk"));
    let error = machines(&tree, &Limits::default(), &interrupt, &|_| None).unwrap_err();
    assert_eq!(error.kind(), Kind::Interrupted);
}
