//! md agrees… with mdadm on what a superblock says.
//!
//! Needs `mdadm` (package mdadm); fails without it. No array is started.

mod common;

use adit_md::{Role, Version};
use common::{CHUNK, Maker, expect, member};
use std::process::Command;

/// The lines `mdadm --examine` prints of a device, by their names.
fn examine(device: &[u8]) -> Vec<(String, String)> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("device.img");
    std::fs::write(&path, device).unwrap();
    let program =
        ["/usr/sbin/mdadm", "/sbin/mdadm"].into_iter().find(|p| std::path::Path::new(p).exists());
    let ran = Command::new(program.unwrap_or("mdadm")).arg("--examine").arg(&path).output();
    let ran = ran.expect("mdadm is missing: install mdadm");
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    let text = String::from_utf8_lossy(&ran.stdout).into_owned();
    let lines = text.lines().filter_map(|line| line.split_once(" : "));
    lines.map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned())).collect()
}

#[test]
fn superblocks_of_every_version_say_the_same_to_mdadm() {
    for version in [Version::V0_90, Version::V1_0, Version::V1_1, Version::V1_2] {
        let maker = Maker { roles: vec![0, 1, 2, 0xffff], ..Maker::new(version, 5, 2, 3) };
        for number in 0..4 {
            let device = maker.device(number, &expect(4), 4 * CHUNK);
            let said = examine(&device);
            let line = |name: &str| {
                let found = said.iter().find(|(line, _)| line == name);
                found.map(|(_, value)| value.clone()).unwrap_or_else(|| panic!("{name}: {said:?}"))
            };
            let member = member(&device, 0);
            assert!(line("Checksum").ends_with("correct"), "{}", line("Checksum"));
            assert_eq!(line("Raid Level"), "raid5");
            assert_eq!(line("Layout"), "left-symmetric");
            assert_eq!(line("Chunk Size"), "4K");
            assert_eq!(line("Raid Devices"), member.member_count().to_string());
            // Version 0.90 prints events as two halves.
            assert!(line("Events").ends_with(&member.events().to_string()));
            match version {
                Version::V0_90 => assert!(line("UUID").starts_with(member.array_uuid())),
                _ => {
                    assert_eq!(line("Array UUID"), member.array_uuid());
                    assert_eq!(line("Device UUID"), member.device_uuid());
                    let role = match member.role() {
                        Role::Active(role) => format!("Active device {role}"),
                        role => format!("{role:?}").to_lowercase(),
                    };
                    assert_eq!(line("Device Role"), role);
                }
            }
        }
    }
}
