//! What is read equals what dissect.fve reads, byte for byte.

mod common;

use adit_bitlocker::{BitLocker, Protector};
use adit_core::{Disk, DiskExt, Limits, MemoryDisk};
use common::{PASSWORD, bytes, volume};
use sha2::{Digest, Sha256};
use std::sync::Arc;

fn open(name: &str) -> BitLocker {
    BitLocker::open(MemoryDisk::open(name, volume(name)), &Limits::default()).unwrap()
}

fn hash(disk: &Arc<dyn Disk>) -> String {
    let mut sha = Sha256::new();
    let size = disk.size_bytes();
    let mut at = 0;
    // Pieces that begin and end within sectors.
    while at < size {
        let length = (size - at).min(1_000_003);
        sha.update(disk.read_vec(at, length as usize).unwrap());
        at += length;
    }
    sha.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn every_cipher_gives_what_dissect_gives() {
    for (name, cipher, want) in [
        (
            "aes_128",
            "AES-CBC-128",
            "d90b6e46f837d9b2f25c7ebca4cf42d6c17dbd08fc7f2ef1a8aed7d149becf75",
        ),
        (
            "aes_256",
            "AES-CBC-256",
            "c0b7b3e40e55b02e84432a93c95256a2a19438848fe65c66627b0c32056aff5a",
        ),
        (
            "aes_128_diffuser",
            "AES-CBC-128 with diffuser",
            "c6da77807a5bf228cff85665d70dbc94c2d69e45f001bc8144b201808cd0c8d5",
        ),
        (
            "aes_256_diffuser",
            "AES-CBC-256 with diffuser",
            "bb5817a7f1a81b6840bbb8906d6ff833d0137f38cd95f99ea76ce7e49b5a5642",
        ),
        (
            "aes-xts_128",
            "AES-XTS-128",
            "2765001e256eb8ca9a38db007225706d9ec3228ba56bdace3642fd5280f2543d",
        ),
        (
            "aes-xts_256",
            "AES-XTS-256",
            "b8c012482b9e8219db651d2414a7685fca9a7fff94e45575145883f19be6e4ff",
        ),
    ] {
        let opened = open(name);
        assert_eq!(opened.cipher(), cipher, "{name}");
        assert_eq!(opened.protectors().unwrap(), [Protector::Password], "{name}");
        assert_eq!(hash(&opened.unlock(PASSWORD).unwrap()), want, "{name}");
    }
}

#[test]
fn recovery_passwords_and_key_files_give_what_dissect_gives() {
    let recovery = b"284867-596541-514998-422114-660297-261613-215424-199408".to_vec();
    let vista = b"517506-503998-044583-576191-587004-635965-501270-087802".to_vec();
    for (name, secret, want) in [
        (
            "recovery_password",
            recovery,
            "f97cc63acafc01b818a72240219fe8212ed249995c017c3d97334dde0fc59c65",
        ),
        (
            "recovery_key",
            bytes("recovery_key.bek"),
            "0db7f24a13553f4c6dc8afcdd98d7c0fa39b97f624aa3c4fbbbce6b84f4fac60",
        ),
        (
            "startup_key",
            bytes("startup_key.bek"),
            "2b03452675750d10795cdb2048ee9a501f6475347e4bceb0cb2960b88453af48",
        ),
        ("vista", vista, "dbe79012159ecff65fb5fc3e2f0855ed56a0762c1b1dade6ab8cee31687852a7"),
    ] {
        let opened = open(name);
        assert!(opened.unlock_suspended().unwrap().is_none(), "{name}");
        assert_eq!(hash(&opened.unlock(&secret).unwrap()), want, "{name}");
    }
}

#[test]
fn suspended_protection_needs_no_secret() {
    let plain = open("suspended").unlock_suspended().unwrap().unwrap();
    let want = "d421f4a2ec130af8b7b8abcdeade66dac0d4d552dead0994aafd8c6e3e74fe79";
    assert_eq!(hash(&plain), want);
}

#[test]
fn a_decrypted_volume_is_as_it_stands_but_for_its_first_sectors_and_the_metadata() {
    let stored = volume("decrypted");
    let plain = open("decrypted").unlock_suspended().unwrap().unwrap();
    let mut want = stored.clone();
    want[..8192].copy_from_slice(&stored[0x220_0000..0x220_2000]);
    for (start, length) in [
        (0x21f_0000, 0x1_0000),
        (0x294_6000, 0x1_0000),
        (0x309_b000, 0x1_0000),
        (0x220_0000, 0x2000),
    ] {
        want[start..start + length].fill(0);
    }
    let read = plain.read_vec(0, stored.len()).unwrap();
    assert!(read == want, "another byte differs");
    assert_eq!(&read[3..11], b"NTFS    ");
}
