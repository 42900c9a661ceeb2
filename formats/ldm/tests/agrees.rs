//! LDM agrees… with ldmtool on what a disk group holds.
//!
//! Needs `ldmtool` (package ldmtool); fails without it. Nothing is activated.

mod common;

use adit_core::Limits;
use adit_ldm::Group;
use common::{group, members};
use std::path::Path;
use std::process::Command;

/// What `ldmtool show` prints of a part of the group on these disks.
fn show(dir: &Path, what: &str, name: &str) -> String {
    let mut command = Command::new("ldmtool");
    for number in 0..3 {
        command.arg("-d").arg(dir.join(format!("disk{number}.img")));
    }
    let ran = command.args(["show", what, common::GROUP, name]).output();
    let ran = ran.expect("ldmtool is missing: install ldmtool");
    assert!(ran.status.success(), "{ran:?}");
    String::from_utf8(ran.stdout).unwrap()
}

fn write_disks(dir: &Path) -> Vec<Vec<u8>> {
    let disks = group();
    for (number, bytes) in disks.iter().enumerate() {
        std::fs::write(dir.join(format!("disk{number}.img")), bytes).unwrap();
    }
    disks
}

#[test]
fn volumes_are_those_that_ldmtool_prints() {
    let dir = tempfile::tempdir().unwrap();
    let disks = write_disks(dir.path());
    let table = Group::assemble(members(&disks, &[]), &Limits::default()).unwrap();
    assert_eq!(table.volumes.len(), 5);
    for volume in &table.volumes {
        let said = show(dir.path(), "volume", &volume.name);
        let kind = match volume.kind.split(' ').next().unwrap() {
            "RAID-5" => "RAID5",
            kind => kind,
        };
        let line = |name: &str, value: &str| said.contains(&format!("\"{name}\" : {value}"));
        assert!(line("type", &format!("\"{kind}\"")), "{said}");
        assert!(line("size", &format!("{},", volume.size_bytes() / 512)), "{said}");
        assert!(line("guid", &format!("\"{}\"", volume.uuid)), "{said}");
        assert!(
            volume.label.is_empty() || line("hint", &format!("\"{}\"", volume.label)),
            "{said}"
        );
    }
}

#[test]
fn partitions_begin_where_ldmtool_says() {
    let dir = tempfile::tempdir().unwrap();
    write_disks(dir.path());
    // Name, disk, sector of its logical part: as the test's reads expect them.
    for (name, disk, start) in [("Disk1-32", 1, 300), ("Disk2-34", 2, 512), ("Disk3-40", 3, 1024)] {
        let said = show(dir.path(), "partition", name);
        assert!(said.contains(&format!("\"start\" : {start},")), "{said}");
        assert!(said.contains(&format!("\"disk\" : \"Disk{disk}\"")), "{said}");
    }
}
