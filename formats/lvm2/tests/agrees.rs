//! LVM2 agrees… with thin-provisioning-tools on where thin and cached volumes lie.
//!
//! Needs `thin_restore` and `cache_restore` (package thin-provisioning-tools); fails without it.

mod common;

use adit_core::{Disk, DiskExt, ExtentKind, Extents, Kind, Limits};
use adit_lvm2::Group;
use common::{EXTENT, complex, members, noise};
use std::process::Command;
use std::sync::Arc;

const BLOCK: usize = 64 << 10;

const POOL: &str = r#"<superblock uuid="" time="2" transaction="3" data_block_size="128" nr_data_blocks="16">
  <device dev_id="1" mapped_blocks="6" transaction="0" creation_time="0" snap_time="1">
    <range_mapping origin_begin="0" data_begin="4" length="3" time="0"/>
    <single_mapping origin_block="5" data_block="2" time="0"/>
    <range_mapping origin_begin="1000" data_begin="10" length="2" time="1"/>
  </device>
  <device dev_id="2" mapped_blocks="3" transaction="1" creation_time="1" snap_time="1">
    <range_mapping origin_begin="0" data_begin="4" length="2" time="0"/>
    <single_mapping origin_block="2" data_block="9" time="2"/>
  </device>
  <device dev_id="3" mapped_blocks="1" transaction="2" creation_time="2" snap_time="2">
    <single_mapping origin_block="1" data_block="15" time="2"/>
  </device>
</superblock>"#;

/// Metadata of a thin pool, written by `thin_restore`.
fn restore(xml: &str) -> Vec<u8> {
    restore_by("thin_restore", &[], xml)
}

fn restore_by(program: &str, args: &[&str], xml: &str) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let (from, to) = (dir.path().join("pool.xml"), dir.path().join("pool.bin"));
    std::fs::write(&from, xml).unwrap();
    std::fs::write(&to, vec![0; 32 * EXTENT]).unwrap();
    let place = format!("/usr/sbin/{program}");
    let found = std::path::Path::new(&place).exists();
    let mut command = Command::new(if found { &place } else { program });
    let ran = command.args(args).arg("-i").arg(&from).arg("-o").arg(&to).output();
    let ran = ran.expect("thin_restore or cache_restore: install thin-provisioning-tools");
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    std::fs::read(&to).unwrap()
}

fn devices(metadata: &[u8]) -> Vec<Vec<u8>> {
    let mut devices = complex(common::COMPLEX);
    common::write(&mut devices, "pool_tmeta", metadata);
    common::write(&mut devices, "pool_tdata", &noise(7, 16 * BLOCK));
    common::write(&mut devices, "base", &noise(8, 4 * EXTENT));
    devices
}

fn thin(devices: &[Vec<u8>], name: &str) -> Arc<dyn Disk> {
    let table = Group::assemble(members(devices, &[]), &Limits::default()).unwrap();
    let found = table.volumes.iter().find(|volume| volume.name == name).unwrap();
    Arc::clone(&found.disk)
}

/// The volume's bytes by its list of (virtual, data) blocks.
fn expect(blocks: usize, mapped: &[(usize, usize)], below: &[u8]) -> Vec<u8> {
    let data = noise(7, 16 * BLOCK);
    let mut bytes = vec![0; blocks * BLOCK];
    bytes[..below.len()].copy_from_slice(below);
    for (virtual_block, data_block) in mapped {
        bytes[virtual_block * BLOCK..][..BLOCK]
            .copy_from_slice(&data[data_block * BLOCK..][..BLOCK]);
    }
    bytes
}

#[test]
fn thin_volumes_snapshots_and_external_origins_read_their_blocks() {
    let devices = devices(&restore(POOL));
    let one = [(0, 4), (1, 5), (2, 6), (5, 2), (1000, 10), (1001, 11)];
    let two = [(0, 4), (1, 5), (2, 9)];
    for (name, mapped) in [("thin1", &one[..]), ("thin2", &two)] {
        let disk = thin(&devices, name);
        assert_eq!(disk.size_bytes(), 64 << 20);
        assert!(disk.read_vec(0, 64 << 20).unwrap() == expect(1024, mapped, &[]), "{name}");
    }
    let base = noise(8, 4 * EXTENT);
    let disk = thin(&devices, "thinext");
    assert!(disk.read_vec(0, 4 << 20).unwrap() == expect(64, &[(1, 15)], &base));
}

#[test]
fn what_was_never_written_is_a_hole_and_neighbours_are_one_extent() {
    let devices = devices(&restore(POOL));
    let disk = thin(&devices, "thin1");
    let extents: Vec<_> = Extents::of(&disk, 0..disk.size_bytes()).map(|e| e.unwrap()).collect();
    let said: Vec<_> = extents
        .iter()
        .map(|e| (e.offset / BLOCK as u64, e.length / BLOCK as u64, e.kind.is_zero()))
        .collect();
    let expected = [
        (0, 3, false),
        (3, 2, true),
        (5, 1, false),
        (6, 994, true),
        (1000, 2, false),
        (1002, 22, true),
    ];
    assert_eq!(said, expected);
}

#[test]
fn a_tree_of_several_levels_is_walked() {
    // Every other block of 1024 is mapped, all to the sixteen blocks of data.
    let mapped: Vec<(usize, usize)> = (0..1024).step_by(2).map(|at| (at, at / 2 % 16)).collect();
    // One device cannot share blocks with itself in a check, but may in the tree.
    let singles: String = mapped
        .iter()
        .map(|(at, data)| {
            format!("<single_mapping origin_block=\"{at}\" data_block=\"{data}\" time=\"0\"/>\n")
        })
        .collect();
    let xml = format!(
        "<superblock uuid=\"\" time=\"0\" transaction=\"3\" data_block_size=\"128\" \
         nr_data_blocks=\"16\">\n<device dev_id=\"1\" mapped_blocks=\"512\" transaction=\"0\" \
         creation_time=\"0\" snap_time=\"0\">\n{singles}</device>\n</superblock>"
    );
    let disk = thin(&devices(&restore(&xml)), "thin1");
    assert!(disk.read_vec(0, 64 << 20).unwrap() == expect(1024, &mapped, &[]));
}

#[test]
fn damaged_nodes_lose_what_they_hold_and_nothing_reads_as_zeros() {
    let good = restore(POOL);
    let whole = thin(&devices(&good), "thin1").read_vec(0, 64 << 20).unwrap();
    let (mut refused, mut lost) = (0, 0);
    for block in 0..64usize {
        if good[block * 4096..][..4096].iter().all(|&byte| byte == 0) {
            continue;
        }
        let mut bad = good.clone();
        bad[block * 4096 + 33] ^= 4;
        let disk = thin(&devices(&bad), "thin1");
        for extent in Extents::of(&disk, 0..disk.size_bytes()) {
            let extent = extent.unwrap();
            let (at, length) = (extent.offset as usize, extent.length as usize);
            match (extent.kind, disk.read_vec(extent.offset, length)) {
                (ExtentKind::Lost(error), Err(read)) => {
                    assert!(error.place().is_some() && read.detail() == error.detail());
                    match error.kind() {
                        Kind::Lost => lost += 1,
                        _ => refused += 1,
                    }
                }
                (_, read) => assert!(read.unwrap() == whole[at..at + length], "block {block}"),
            }
        }
    }
    assert!(lost > 0 && refused > 0, "{lost} lost, {refused} refused");
}

#[test]
fn a_volume_the_pool_does_not_know_is_not_empty_but_missing() {
    let devices = devices(&restore(&POOL.replace("dev_id=\"3\"", "dev_id=\"9\"")));
    let error = thin(&devices, "thinext").read_vec(0, 1).unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound);
    // Unless the pool was not told yet.
    let text = common::COMPLEX.replacen(
        "type = \"thin-pool\"",
        "type = \"thin-pool\"\nmessage1 {\ncreate = \"thinext\"\n}",
        1,
    );
    let mut pending = devices.clone();
    pending.iter_mut().for_each(|device| common::area(device, &text, 20_000));
    let base = noise(8, 4 * EXTENT);
    assert!(thin(&pending, "thinext").read_vec(0, base.len()).unwrap() == base);
}

#[test]
fn transactions_that_differ_are_noted() {
    let devices = devices(&restore(&POOL.replace("transaction=\"3\"", "transaction=\"2\"")));
    let table = Group::assemble(members(&devices, &[]), &Limits::default()).unwrap();
    assert!(table.notes.iter().any(|note| note.code == "lvm2-thin-transaction"));
}

const CACHE: &str = r#"<superblock uuid="" block_size="128" nr_cache_blocks="8" policy="smq" hint_width="4">
  <mappings>
    <mapping cache_block="0" origin_block="2" dirty="true"/>
    <mapping cache_block="5" origin_block="0" dirty="false"/>
  </mappings>
  <hints></hints>
</superblock>"#;

#[test]
fn a_cache_in_writeback_mode_is_read_through() {
    let text = common::COMPLEX.replace("\"writethrough\"", "\"writeback\"");
    let (origin, data) = (noise(1, 4 * BLOCK), noise(2, 8 * BLOCK));
    let mut expected = origin.clone();
    expected[2 * BLOCK..3 * BLOCK].copy_from_slice(&data[..BLOCK]);
    expected[..BLOCK].copy_from_slice(&data[5 * BLOCK..6 * BLOCK]);
    for version in ["1", "2"] {
        let metadata = restore_by("cache_restore", &["--metadata-version", version], CACHE);
        let mut devices = complex(&text);
        common::write(&mut devices, "cached_corig", &origin);
        common::write(&mut devices, "cpool_cdata", &data);
        common::write(&mut devices, "cpool_cmeta", &metadata);
        let disk = thin(&devices, "cached");
        assert!(disk.read_vec(0, 4 * BLOCK).unwrap() == expected, "version {version}");
        let said = disk.explain(2 * BLOCK as u64 + 5).unwrap().steps.join(" ");
        assert!(said.contains("from the cache"), "{said}");
        // Any damaged block of the mapping refuses the volume: its place is not known.
        let mut refused = 0;
        for block in 0..16usize {
            let mut bad = metadata.clone();
            bad[block * 4096 + 24] ^= 2;
            common::write(&mut devices, "cpool_cmeta", &bad);
            match thin(&devices, "cached").read_vec(0, 4 * BLOCK) {
                Ok(read) => assert!(read == expected, "block {block}"),
                Err(error) => {
                    assert_eq!(error.kind(), Kind::Corrupt);
                    refused += 1;
                }
            }
        }
        assert_eq!(refused, 3, "superblock, tree and array");
    }
}

#[test]
fn hostile_metadata_with_right_checksums_neither_panics_nor_hangs() {
    let text = common::COMPLEX.replace("\"writethrough\"", "\"writeback\"");
    let cache = restore_by("cache_restore", &[], CACHE);
    let pool = restore(POOL);
    let seed = 5;
    println!("seed {seed}");
    let mut start = complex(&text);
    common::write(&mut start, "pool_tdata", &noise(7, 16 * BLOCK));
    // Superblocks, tree nodes and array blocks, each with its salt.
    let blocks = |image: &[u8], salts: [u32; 3]| -> Vec<(usize, u32)> {
        let salt_of = |raw: &[u8]| {
            let own = u32::from_le_bytes(raw[..4].try_into().unwrap());
            salts.into_iter().find(|salt| !crc32c::crc32c(&raw[4..]) ^ salt == own)
        };
        let all = image.chunks(4096).enumerate();
        all.filter_map(|(number, raw)| Some((number, salt_of(raw)?))).collect()
    };
    let places = [
        ("pool_tmeta", pool.clone(), blocks(&pool, [160_774, 121_107, 0])),
        ("cpool_cmeta", cache.clone(), blocks(&cache, [9_031_977, 121_107, 595_846_735])),
    ];
    let bytes = noise(seed, 6 * 150);
    for change in bytes.chunks_exact(6) {
        let mut devices = start.clone();
        for (name, image, blocks) in &places {
            assert!(blocks.len() > 3, "{name}");
            let mut image = image.clone();
            let (number, salt) = blocks[usize::from(change[0]) % blocks.len()];
            let raw = &mut image[number * 4096..][..4096];
            // Mostly the header and the first keys; sometimes anywhere.
            let range = if change[1] & 3 == 0 { 4092 } else { 60 };
            let at = 4 + (usize::from(change[2]) << 8 | usize::from(change[3])) % range;
            raw[at] = if change[4] & 1 == 0 { change[5] } else { raw[at] ^ 1 };
            let sum = !crc32c::crc32c(&raw[4..]) ^ salt;
            raw[..4].copy_from_slice(&sum.to_le_bytes());
            common::write(&mut devices, name, &image);
        }
        let table = Group::assemble(members(&devices, &[]), &Limits::default()).unwrap();
        for volume in
            table.volumes.iter().filter(|v| v.kind.contains("thin") || v.kind.contains("cache"))
        {
            for extent in Extents::of(&volume.disk, 0..volume.size_bytes()).take(2000) {
                let Ok(extent) = extent else { break };
                let _ = volume.disk.read_vec(extent.offset, extent.length.min(100) as usize);
            }
        }
    }
}
