//! Encrypted volumes open with what the user knows, and say what would open them.

mod common;

use common::{complained, json, said};
use std::fs;
use std::path::{Path, PathBuf};

/// Volumes that Windows encrypted; `cargo xtask witnesses` fetches them.
fn volumes() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let folder = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| root.join("target"), PathBuf::from)
        .join("witness/bitlocker");
    assert!(folder.is_dir(), "{}: run `cargo xtask witnesses` first", folder.display());
    folder
}

#[test]
fn a_volume_of_windows_opens_with_its_password_its_recovery_password_or_its_key_file() {
    let (dir, here) = (volumes(), tempfile::tempdir().unwrap());
    let password = here.path().join("password");
    fs::write(&password, "password12!@\n").unwrap();
    let recovery = here.path().join("recovery");
    fs::write(&recovery, "284867-596541-514998-422114-660297-261613-215424-199408\n").unwrap();
    let key = dir.join("recovery_key.bek");
    for (name, option, secret) in [
        ("aes-xts_256", "--passphrase-file", &password),
        ("aes_128_diffuser", "--passphrase-file", &password),
        ("recovery_password", "--passphrase-file", &recovery),
        ("recovery_key", "--key-file", &key),
    ] {
        let volume = format!("{name}.bin");
        let bytes = said(
            &dir,
            0,
            &[
                "hexdump",
                option,
                secret.to_str().unwrap(),
                "--length",
                "16",
                &format!("{volume}//"),
            ],
        );
        assert!(bytes.contains("NTFS"), "{name}: {bytes}");
    }
}

#[test]
fn without_a_secret_the_message_names_the_options_and_the_code_is_1() {
    let message = complained(&volumes(), 1, &["ls", "aes_128.bin//"]);
    assert!(message.contains("--passphrase-file"), "{message}");
}

/// The image holds little more than what BitLocker wrote: the file system in it is damaged.
#[test]
fn suspended_protection_needs_none_and_is_said() {
    let info = json(&volumes(), 3, &["info", "suspended.bin//"]);
    let text = info.to_string();
    assert!(text.contains("BitLocker") && text.contains("in the clear"), "{text}");
}

/// Decryption that stopped on its way: both sides of its boundary are read as one file system.
#[test]
fn a_conversion_that_stopped_is_read_on_both_sides_of_its_boundary() {
    let dir = volumes();
    let boundary = 0x442d_5000u64;
    let map = json(&dir, 0, &["map", "win7_partial.bin//"]).to_string();
    assert!(map.contains(&boundary.to_string()), "{}", &map[..map.len().min(2000)]);
    let bytes = said(&dir, 0, &["hexdump", "--length", "16", "win7_partial.bin//"]);
    assert!(bytes.contains("NTFS"), "{bytes}");
}
