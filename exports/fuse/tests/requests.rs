//! Requests that no kernel would send, through the protocol itself: what fuzzing found, and a
//! short seeded run.

#[path = "../../../fuzz/targets/src/fuse.rs"]
mod fuse;

use std::path::Path;

#[test]
fn every_reproducer_passes() {
    let home = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/reproducers/fuse");
    let mut replayed = 0;
    for file in std::fs::read_dir(home).unwrap() {
        let file = file.unwrap().path();
        println!("{}", file.display());
        fuse::fuse(&std::fs::read(file).unwrap());
        replayed += 1;
    }
    assert!(replayed > 0);
}

#[test]
fn requests_of_all_kinds_are_answered_truly_or_refused() {
    let mut seed: u64 = 0x5eed_f05e;
    println!("seed {seed:#x}");
    let mut next = move || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed >> 24
    };
    for round in 0..400u64 {
        let mut data = vec![round.to_le_bytes()[0]];
        for _ in 0..next() % 24 {
            // Opening, reading and listing more often than the rest.
            let common = [1u8, 3, 14, 15, 15, 16, 18, 22, 23, 27, 28, 43, 44, 44, 46];
            let opcode = match next() % 3 {
                0 => next().to_le_bytes()[0],
                _ => common[usize::try_from(next()).unwrap() % common.len()],
            };
            let length = next() % 48;
            data.extend([opcode, next().to_le_bytes()[0], next().to_le_bytes()[0]]);
            data.push(length.to_le_bytes()[0]);
            data.extend((0..length).map(|_| next().to_le_bytes()[0]));
        }
        fuse::fuse(&data);
    }
}
