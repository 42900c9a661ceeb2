//! btrfs survives… a device copied between a sync and the next commit. What it holds is what
//! the kernel showed once it had replayed its log.

mod common;

use adit_core::{FileSystem, Severity};
use common::{assemble, assert_lines, find, findings, kept, listing};

#[test]
fn a_crash_with_the_tree_the_kernel_recovers() {
    let (image, expected) = kept("crash");
    let fs = assemble(vec![image]).unwrap();
    assert!(fs.notes().iter().any(|note| note.code == "btrfs-log-applied"), "{:?}", fs.notes());
    assert_lines("crash", &listing(&fs), &expected);
    assert!(findings(&fs).is_empty());
}

#[test]
fn a_log_that_is_damaged_by_showing_the_last_commit_and_saying_so() {
    let (mut image, _) = kept("crash");
    let fs = assemble(vec![image.clone()]).unwrap();
    let log = fs.superblock().raw.log_root;
    let at = image
        .chunks_exact(4096)
        .position(|block| {
            block[0x30..0x38] == log.to_le_bytes() && block[0x58..0x60] == (!5u64).to_le_bytes()
        })
        .expect("the log root stands on the device")
        * 4096;
    image[at + 200] ^= 1;
    let fs = assemble(vec![image]).unwrap();
    let note = fs.notes().into_iter().find(|note| note.code == "btrfs-log").unwrap();
    assert_eq!(note.severity, Severity::Error);
    // Before the sync the file had its old name.
    find(&fs, "d/old20");
}
