//! VHDX replays its log in memory…

mod common;

use adit_core::{DiskExt, Kind, MemoryDisk, Problem};
use common::*;
use std::sync::Arc;

const M: u64 = MIB as u64;
const TABLE: u64 = BAT as u64;

/// An image of three blocks, of which only the log knows.
fn dirty(log: Vec<(usize, Vec<u8>)>) -> Recipe {
    let mut recipe = dynamic(3 * M).block(0, FULL, 5).block(1, FULL, 6).block(2, FULL, 7);
    recipe.bat.clear();
    Recipe { log_guid: LOG_GUID, log, ..recipe }
}

fn table(entries: &[(u64, u64)]) -> Write {
    Write::Page(TABLE, bat_page(entries))
}

/// What the three blocks hold.
fn read(recipe: &Recipe) -> Vec<u8> {
    at(&disk(recipe.bytes()), &[0, M, 2 * M])
}

fn refusal(recipe: &Recipe) -> (Kind, Problem) {
    let error = open(recipe.bytes()).map(drop).unwrap_err();
    assert!(error.place().is_some(), "{error} has no place");
    (error.kind(), error.problem())
}

#[test]
fn and_leaves_the_file_as_it_is() {
    let recipe = dirty(vec![(0, entry(7, 0, 7 * M, &[table(&[(6, 4), (0, 0), (6, 6)])]))]);
    let bytes = recipe.bytes();
    let file = MemoryDisk::open("image", bytes.clone());
    let image = adit_vhdx::Image::open(Arc::clone(&file), &Default::default()).unwrap();
    assert!(image.is_dirty());
    assert_eq!(codes(&image), ["vhdx-log-replayed"]);
    assert_eq!(image.notes()[0].text, "log: 1 entries, 1 sectors of 4 KiB, source unchanged");
    assert_eq!(at(&image.disk("x", None).unwrap(), &[0, M, 2 * M]), [5, 0, 7]);
    assert!(file.read_vec(0, bytes.len()).unwrap() == bytes);
}

#[test]
fn with_every_byte_of_a_page_in_its_place() {
    let page: Vec<u8> = (0..PAGE).map(|at| (at * 7 + 3) as u8).collect();
    let target = 4 * M + 4096;
    let writes = [table(&[(6, 4)]), Write::Page(target, page.clone())];
    let recipe = dirty(vec![(8192, entry(9, 8192, 7 * M, &writes))]);
    let disk = disk(recipe.bytes());
    assert_eq!(disk.read_vec(4096, PAGE).unwrap(), page);
    assert_eq!(at(&disk, &[4095, 8192]), [5, 5]);
}

#[test]
fn from_the_tail_not_from_the_first_entry_of_the_chain() {
    let first = entry(7, 0, 7 * M, &[Write::Zero(4 * M, 4096)]);
    let second = entry(8, 8192, 7 * M, &[table(&[(6, 4), (6, 5)])]);
    // The newest one needs nothing before the second.
    let third = entry(9, 4096, 7 * M, &[Write::Zero(5 * M, 4096)]);
    let recipe = dirty(vec![(0, first), (4096, second), (12_288, third)]);
    assert_eq!(read(&recipe), [5, 0, 0]);
    let image = open(recipe.bytes()).unwrap();
    assert_eq!(image.notes()[0].text, "log: 2 entries, 2 sectors of 4 KiB, source unchanged");
}

#[test]
fn with_later_entries_over_earlier_ones() {
    let first = entry(1, 0, 7 * M, &[table(&[(6, 4), (6, 5), (6, 6)])]);
    let second = entry(2, 0, 7 * M, &[table(&[(6, 4), (6, 4), (0, 0)])]);
    assert_eq!(read(&dirty(vec![(0, first), (8192, second)])), [5, 5, 0]);
}

#[test]
fn around_the_end_of_the_buffer() {
    let position = MIB - 4096;
    let first = entry(1, position, 7 * M, &[table(&[(6, 4)])]);
    let second = entry(2, position, 7 * M, &[Write::Zero(4 * M + 4096, 4096)]);
    let recipe = dirty(vec![(position, first), (4096, second)]);
    assert_eq!(at(&disk(recipe.bytes()), &[0, 4096, 8192]), [5, 0, 5]);
}

#[test]
fn with_more_descriptors_than_one_page_holds() {
    let mut writes = vec![table(&[(6, 4)])];
    writes.extend((0..200).map(|page| Write::Page(4 * M + page * 4096, vec![page as u8; PAGE])));
    let recipe = dirty(vec![(0, entry(1, 0, 7 * M, &writes))]);
    let disk = disk(recipe.bytes());
    assert_eq!(at(&disk, &[0, 125 * 4096, 126 * 4096, 199 * 4096]), [0, 125, 126, 199]);
    assert_eq!(at(&disk, &[200 * 4096]), [5]);
}

#[test]
fn without_a_torn_newest_entry() {
    let first = entry(1, 0, 7 * M, &[table(&[(6, 4)])]);
    let mut second = entry(2, 0, 7 * M, &[table(&[(6, 5)])]);
    *second.last_mut().unwrap() ^= 1;
    assert_eq!(read(&dirty(vec![(0, first), (8192, second)])), [5, 0, 0]);
}

#[test]
fn without_entries_of_another_log_or_behind_a_gap() {
    let first = entry(1, 0, 7 * M, &[table(&[(6, 4)])]);
    let mut other = entry(2, 0, 7 * M, &[table(&[(6, 5)])]);
    other[32] ^= 1;
    seal(&mut other);
    assert_eq!(read(&dirty(vec![(0, first.clone()), (8192, other)])), [5, 0, 0]);
    let later = entry(3, 0, 7 * M, &[table(&[(6, 5)])]);
    let recipe = dirty(vec![(0, first), (8192, later)]);
    assert_eq!(read(&recipe), [5, 0, 0]);
    assert!(codes(&open(recipe.bytes()).unwrap()).contains(&"vhdx-log-gap"));
}

#[test]
fn by_the_newer_of_two_chains() {
    let old = entry(5, 0, 7 * M, &[table(&[(6, 4)])]);
    let new = entry(9, 40_960, 7 * M, &[table(&[(6, 6)])]);
    assert_eq!(read(&dirty(vec![(0, old), (40_960, new)])), [7, 0, 0]);
}

#[test]
fn with_zeros_where_the_log_makes_the_file_longer() {
    let recipe = dirty(vec![(0, entry(1, 0, 9 * M, &[table(&[(6, 7), (6, 4)])]))]);
    assert_eq!(read(&recipe), [0, 5, 0]);
    let beyond = dirty(vec![(0, entry(1, 0, 7 * M, &[table(&[(6, 7), (6, 4)])]))]);
    let error = disk(beyond.bytes()).read_vec(0, 1).unwrap_err();
    assert_eq!(error.kind(), Kind::Lost);
}

#[test]
fn and_finds_changed_metadata_through_it() {
    let clean = dirty(Vec::new()).bytes();
    let mut page = clean[METADATA + 65536..METADATA + 65536 + PAGE].to_vec();
    // The size is the second item.
    put(&mut page, 8, &(2 * M).to_le_bytes());
    let writes = [Write::Page(METADATA as u64 + 65536, page)];
    let recipe = dirty(vec![(0, entry(1, 0, 7 * M, &writes))]);
    assert_eq!(open(recipe.bytes()).unwrap().size_bytes(), 2 * M);
}

#[test]
fn but_refuses_one_without_any_valid_entry() {
    assert_eq!(refusal(&dirty(Vec::new())), (Kind::Corrupt, Problem::Missing));
    let mut torn = entry(1, 0, 7 * M, &[table(&[(6, 4)])]);
    torn[5000] ^= 1;
    assert_eq!(refusal(&dirty(vec![(0, torn)])), (Kind::Corrupt, Problem::Missing));
}

#[test]
fn but_refuses_one_whose_tail_is_gone() {
    let only = entry(2, 8192, 7 * M, &[table(&[(6, 4)])]);
    assert_eq!(refusal(&dirty(vec![(0, only)])), (Kind::Corrupt, Problem::Missing));
}

#[test]
fn but_refuses_entries_whose_parts_disagree() {
    let damage: [fn(&mut Vec<u8>); 7] = [
        |entry| entry[64 + 24] ^= 1,
        |entry| entry[64 + 16] |= 1,
        |entry| entry[4096 + 4] ^= 1,
        |entry| entry[8191] ^= 1,
        |entry| entry[4096] = b'x',
        |entry| entry[64] = b'x',
        |entry| entry[24] = 9,
    ];
    for (case, damage) in damage.into_iter().enumerate() {
        let mut entry = entry(1, 0, 7 * M, &[table(&[(6, 4)])]);
        damage(&mut entry);
        seal(&mut entry);
        let refused = refusal(&dirty(vec![(0, entry)]));
        assert_eq!(refused, (Kind::Corrupt, Problem::Missing), "case {case}");
    }
}

#[test]
fn but_refuses_a_file_that_was_cut_short() {
    let mut short = entry(1, 0, 99 * M, &[table(&[(6, 4)])]);
    put(&mut short, 48, &(8 * M).to_le_bytes());
    seal(&mut short);
    assert_eq!(refusal(&dirty(vec![(0, short)])), (Kind::Corrupt, Problem::Truncated));
}

#[test]
fn but_refuses_writes_over_headers_and_log_and_past_the_end() {
    for (write, problem) in [
        (Write::Page(64 << 10, vec![0; PAGE]), Problem::Overlaps),
        (Write::Page(0, vec![0; PAGE]), Problem::Overlaps),
        (Write::Page(LOG as u64, vec![0; PAGE]), Problem::Overlaps),
        (Write::Zero(LOG as u64 + M - 4096, 8192), Problem::Overlaps),
        (Write::Page(7 * M, vec![0; PAGE]), Problem::OutOfRange),
        (Write::Zero(4 * M, !4095), Problem::OutOfRange),
        (Write::Page(!4095, vec![0; PAGE]), Problem::OutOfRange),
    ] {
        let recipe = dirty(vec![(0, entry(1, 0, 7 * M, &[write]))]);
        assert_eq!(refusal(&recipe), (Kind::Corrupt, problem));
    }
    let huge = dirty(vec![(0, entry(1, 0, u64::MAX, &[table(&[(6, 4)])]))]);
    assert_eq!(refusal(&huge), (Kind::Corrupt, Problem::OutOfRange));
}

#[test]
fn but_refuses_a_log_outside_the_file_or_of_another_version() {
    let recipe = dirty(vec![(0, entry(1, 0, 7 * M, &[table(&[(6, 4)])]))]);
    let with = |at: usize, value: &[u8]| {
        let mut bytes = recipe.bytes();
        for header in [64 << 10, 128 << 10] {
            put(&mut bytes, header + at, value);
            seal(&mut bytes[header..header + PAGE]);
        }
        open(bytes).map(drop).unwrap_err()
    };
    assert_eq!(with(64, &[1]).kind(), Kind::Unsupported);
    assert_eq!(with(68, &[0, 0, 0, 0xff]).problem(), Problem::Truncated);
    assert_eq!(with(68, &[0; 4]).problem(), Problem::Misaligned);
    assert_eq!(with(72, &[1]).problem(), Problem::Misaligned);
    assert_eq!(with(72, &[0; 8]).problem(), Problem::Misaligned);
    assert_eq!(
        with(72, &[0, 0, 0xf0, 0xff, 0xff, 0xff, 0xff, 0xff]).problem(),
        Problem::Misaligned
    );
}

#[test]
fn a_log_full_of_overlapping_promises_in_no_time() {
    // Every page claims to start an entry of the whole log.
    let mut head = entry(1, 0, 7 * M, &[])[..64].to_vec();
    put(&mut head, 8, &(MIB as u32).to_le_bytes());
    let log = (0..256).map(|page| (page * PAGE, head.clone())).collect();
    let started = std::time::Instant::now();
    assert_eq!(refusal(&dirty(log)), (Kind::Corrupt, Problem::Missing));
    assert!(started.elapsed().as_secs() < 2);
}
