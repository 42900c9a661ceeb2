//! A verified copy carries hashes that other tools agree with, and a false one is an error.

mod doubles;

use adit_copy::{CopyOptions, Hashes, Manifest, Source, copy_disk, copy_file};
use adit_core::{Disk, DiskExt, Interrupt, Kind, Problem, Quiet};
use doubles::{Fake, Memory, What, names, sha256sum};
use std::sync::Arc;

const MIB: u64 = 1 << 20;

fn fake() -> Arc<dyn Disk> {
    Arc::new(Fake::of(vec![
        (MIB + 700, What::Data),
        (9 * MIB, What::Hole),
        (3 * MIB, What::Data),
        (MIB, What::Hole),
    ]))
}

fn verify() -> CopyOptions {
    CopyOptions { verify: true, ..CopyOptions::default() }
}

#[test]
fn the_sha256_of_the_manifest_is_what_sha256sum_says() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("web01.vmdk");
    let source = Source::whole(fake(), "lun.img//web01.vmdk");
    let (entry, _) = copy_file(&source, &path, &verify(), &Quiet, &Interrupt::default()).unwrap();
    assert_eq!(entry.sha256.as_deref(), Some(sha256sum(&path).as_str()));
    let content = std::fs::read(&path).unwrap();
    assert_eq!(entry.blake3.unwrap(), blake3::hash(&content).to_hex().to_string());
}

#[test]
fn the_block_hash_follows_its_written_definition() {
    let memory = Memory::filled(fake().size_bytes() as usize, 0);
    let range = 0..memory.size_bytes();
    let copied =
        copy_disk(&fake(), range, &memory, &verify(), &Quiet, &Interrupt::default()).unwrap();
    // docs/manifest.md, word for word.
    let content = memory.bytes.lock().unwrap().clone();
    let mut all = Vec::new();
    for (index, block) in content.chunks(65536).enumerate() {
        let mut block = block.to_vec();
        block.resize(65536, 0);
        if block.iter().any(|&byte| byte != 0) {
            all.extend((index as u64 * 65536).to_le_bytes());
            all.extend(blake3::hash(&block).as_bytes());
        }
    }
    all.extend((content.len() as u64).to_le_bytes());
    let expected = blake3::hash(&all).to_hex().to_string();
    assert_eq!(copied.hashes.unwrap().data_blake3, expected);
}

#[test]
fn a_target_that_changes_a_bit_is_found_out() {
    for flip in [0, MIB + 699, 12 * MIB] {
        let memory =
            Memory { flips: Some(flip), ..Memory::filled(fake().size_bytes() as usize, 0) };
        let range = 0..memory.size_bytes();
        let error = copy_disk(&fake(), range, &memory, &verify(), &Quiet, &Interrupt::default())
            .unwrap_err();
        assert_eq!((error.kind(), error.problem()), (Kind::Corrupt, Problem::Mismatch));
    }
}

#[test]
fn a_target_that_holds_something_in_a_hole_is_found_out() {
    let memory = Memory::filled(fake().size_bytes() as usize, 0);
    memory.bytes.lock().unwrap()[5 * MIB as usize] = 1;
    // Wrongly said to be blank.
    let options = CopyOptions { blank_target: true, ..verify() };
    let range = 0..memory.size_bytes();
    let error =
        copy_disk(&fake(), range, &memory, &options, &Quiet, &Interrupt::default()).unwrap_err();
    assert_eq!(error.problem(), Problem::Mismatch);
}

#[test]
fn with_too_many_holes_only_the_block_hash_is_made_and_it_still_finds_errors() {
    let few = CopyOptions { hashed_holes_bytes_max: MIB, ..verify() };
    let memory = Memory::filled(fake().size_bytes() as usize, 0);
    let range = 0..memory.size_bytes();
    let none = Interrupt::default();
    let copied = copy_disk(&fake(), range.clone(), &memory, &few, &Quiet, &none).unwrap();
    let Some(Hashes { sha256: None, blake3: None, data_blake3 }) = copied.hashes else {
        panic!("whole-content hashes of too many zeros");
    };
    let full = copy_disk(&fake(), range.clone(), &memory, &verify(), &Quiet, &none).unwrap();
    assert_eq!(full.hashes.unwrap().data_blake3, data_blake3);

    let memory = Memory { flips: Some(7), ..Memory::filled(range.end as usize, 0) };
    assert!(copy_disk(&fake(), range, &memory, &few, &Quiet, &none).is_err());
}

#[test]
fn a_manifest_is_written_whole_beside_the_copy() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("web01.vmdk");
    let source = Source::whole(fake(), "lun.img//web01.vmdk");
    let (entry, _) = copy_file(&source, &path, &verify(), &Quiet, &Interrupt::default()).unwrap();
    let manifest =
        Manifest::new("lun.img//web01.vmdk", path.to_string_lossy(), vec![entry], Vec::new());
    let written = manifest.write_beside(&path).unwrap();
    assert_eq!(names(folder.path()), ["web01.vmdk", "web01.vmdk.manifest.json"]);
    let text = std::fs::read(written).unwrap();
    let json: serde_json::Value = serde_json::from_slice(&text).unwrap();
    assert_eq!(json["schema"], "adit-manifest");
    assert_eq!(json["complete"], true);
    assert_eq!(json["files"][0]["sha256"], sha256sum(&path));
    assert_eq!(json["files"][0]["size_bytes"], 14 * MIB + 700);
    assert_eq!(serde_json::from_slice::<Manifest>(&text).unwrap(), manifest);
}
