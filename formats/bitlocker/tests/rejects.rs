//! Damaged and hostile volumes are refused, each with a reason, and never panic.

mod common;

use adit_bitlocker::{BitLocker, probe};
use adit_core::{Disk, DiskExt, Kind, Limits, MemoryDisk};
use common::{PASSWORD, volume};
use std::sync::Arc;

/// The first metadata copy of the volume that these tests change.
const COPIES: [usize; 3] = [0x21f_0000, 0x294_6000, 0x309_b000];

fn open(bytes: &[u8]) -> adit_core::Result<BitLocker> {
    BitLocker::open(MemoryDisk::open("volume", bytes.to_vec()), &Limits::default())
}

#[test]
fn a_wrong_password_is_denied_and_the_locks_are_named() {
    let bytes = volume("recovery_password");
    for wrong in [
        &b"wrong"[..],
        b"",
        &[0xff; 40],
        b"000000-000000-000000-000000-000000-000000-000000-000000",
    ] {
        let error = open(&bytes).unwrap().unlock(wrong).unwrap_err();
        assert_eq!(error.kind(), Kind::Denied);
        assert!(error.detail().contains("recovery password, password"), "{}", error.detail());
    }
}

#[test]
fn a_damaged_copy_of_the_metadata_is_said_and_the_next_one_used() {
    let mut bytes = volume("aes_128");
    let unharmed = open(&bytes).unwrap().unlock(PASSWORD).unwrap().read_vec(0, 512).unwrap();
    bytes[COPIES[0] + 200] ^= 1;
    let opened = open(&bytes).unwrap();
    assert_eq!(opened.notes().len(), 1);
    assert!(opened.notes()[0].text.contains("checksum"), "{:?}", opened.notes());
    let plain = opened.unlock(PASSWORD).unwrap();
    assert_eq!(plain.read_vec(0, 512).unwrap(), unharmed);
    for copy in COPIES {
        bytes[copy + 200] ^= 2;
    }
    let error = open(&bytes).unwrap_err();
    assert_eq!(error.kind(), Kind::Corrupt);
}

#[test]
fn encryption_of_used_space_that_goes_on_is_refused_by_name() {
    let opened = open(&volume("eow_partial")).unwrap();
    let error = opened.unlock(PASSWORD).unwrap_err();
    assert_eq!(error.kind(), Kind::Unsupported);
    assert!(error.detail().contains("used space"), "{}", error.detail());
}

#[test]
fn other_disks_are_no_volumes() {
    for bytes in [Vec::new(), vec![0; 100], vec![0; 4096], b"-FVE-FS-".repeat(64)] {
        let disk: Arc<dyn Disk> = MemoryDisk::open("disk", bytes.clone());
        assert!(!probe(&disk).unwrap());
        assert_eq!(open(&bytes).unwrap_err().kind(), Kind::Corrupt);
    }
}

/// A thousand volumes with a few bytes changed, checksums made right again: opened or refused.
#[test]
fn changed_metadata_never_panic() {
    let whole = volume("suspended");
    let head = whole[..512].to_vec();
    let mut block = whole[COPIES[0]..COPIES[0] + 0x1000].to_vec();
    // Everything it names moves into a small volume.
    let moves = [
        (0x220_0000u64, 0x4_0000u64),
        (0x21f_0000, 0x1_0000),
        (0x294_6000, 0x2_0000),
        (0x309_b000, 0x3_0000),
    ];
    for (from, to) in moves {
        for at in 0..block.len() - 8 {
            if block[at..at + 8] == from.to_le_bytes() {
                block[at..at + 8].copy_from_slice(&to.to_le_bytes());
            }
        }
    }
    let mut seed = 0x9e37_79b9_7f4a_7c15u64;
    let mut opened = 0;
    for _ in 0..1000 {
        // A small volume: its head names a copy at 4096.
        let mut bytes = vec![0; 512 * 1024];
        bytes[..512].copy_from_slice(&head);
        for (number, at) in [4096u64, 8192, 12288].into_iter().enumerate() {
            bytes[0xb0 + number * 8..0xb8 + number * 8].copy_from_slice(&at.to_le_bytes());
        }
        bytes[4096..8192].copy_from_slice(&block);
        for _ in 0..3 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let at = 4096 + 8 + (seed >> 33) as usize % 500;
            bytes[at] = (seed >> 20) as u8;
        }
        let size = usize::from(u16::from_le_bytes([bytes[4104], bytes[4105]])) * 16;
        if let Some(covered) = bytes.get(4096..4096 + size) {
            let sum = crc32fast::hash(covered).to_le_bytes();
            if let Some(room) = bytes.get_mut(4096 + size + 4..4096 + size + 8) {
                room.copy_from_slice(&sum);
            }
        }
        if let Ok(volume) = open(&bytes)
            && let Ok(Some(plain)) = volume.unlock_suspended()
        {
            opened += 1;
            let mut at = 0;
            while at < plain.size_bytes() {
                at += plain.extent_at(at).unwrap().length;
            }
            plain.read_vec(0, 300_001).unwrap();
        }
    }
    assert!(opened > 0, "no changed volume opened, so nothing was read");
}
