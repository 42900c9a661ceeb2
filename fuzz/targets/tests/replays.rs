//! Inputs a fuzzer left, crashes and some that reached new code, and a short seeded run of
//! every target.

use adit_fuzz_targets::TARGETS;
use std::path::Path;
use std::time::{Duration, Instant};

#[test]
fn every_reproducer_passes() {
    let home = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("reproducers");
    let mut replayed = std::collections::BTreeSet::new();
    for folder in std::fs::read_dir(&home).unwrap() {
        let folder = folder.unwrap().path();
        if !folder.is_dir() {
            continue;
        }
        let name = folder.file_name().unwrap().to_str().unwrap();
        let (_, target) = TARGETS
            .iter()
            .find(|(target, _)| *target == name)
            .unwrap_or_else(|| panic!("reproducers/{name} belongs to no target"));
        for file in std::fs::read_dir(&folder).unwrap() {
            let file = file.unwrap().path();
            println!("{}", file.display());
            let begun = Instant::now();
            target(&std::fs::read(&file).unwrap());
            assert!(begun.elapsed() < Duration::from_secs(30), "{} hangs", file.display());
            replayed.insert(name.to_owned());
        }
    }
    for (target, _) in TARGETS {
        assert!(replayed.contains(*target), "reproducers/{target} holds no input");
    }
}

#[test]
fn a_short_seeded_run_of_every_target_passes() {
    let mut seed: u64 = 0x5eed_ad17;
    println!("seed {seed:#x}");
    let mut next = move || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    };
    for (name, target) in TARGETS {
        let begun = Instant::now();
        for round in 0..200 {
            let length = next() % 96;
            let data: Vec<u8> = (0..length).map(|_| (next() >> 24) as u8).collect();
            if round == 0 {
                println!("{name}");
            }
            target(&data);
            if begun.elapsed() > Duration::from_secs(5) {
                break;
            }
        }
    }
}
