//! Arrays place… every block where the published tables of their layout say.
//!
//! A table has a row per stripe and a column per member: `3` is block 3 of the array, `P` and
//! `Q` its syndromes. The members are filled from the table alone.

use adit_core::{Disk, DiskExt, Error, ExtentKind, Extents, Kind, MemoryDisk};
use adit_md::raid::{Array, Leg, Level, Rotation, Turns};
use std::sync::Arc;

const CHUNK: usize = 1024;

/// Block `number` of the array: bytes that differ from block to block and within.
fn block(number: usize) -> Vec<u8> {
    (0..CHUNK).map(|at| (number * 31 + at * 7 + at / 256) as u8 ^ (number / 8) as u8).collect()
}

/// Multiplies by 2 in the field of RAID 6.
fn double(byte: u8) -> u8 {
    let wide = u16::from(byte) << 1;
    (if wide > 255 { wide ^ 0x11d } else { wide }) as u8
}

/// Fills members from a table. `order` gives, for a row, the columns in the order in which
/// they count in Q, from 2^0 on; a column of P or Q counts as zeros.
fn fill(table: &str, order: impl Fn(&[&str]) -> Vec<usize>) -> Vec<Vec<u8>> {
    let rows: Vec<Vec<&str>> =
        table.trim().lines().map(|line| line.split_whitespace().collect()).collect();
    let mut members = vec![Vec::new(); rows[0].len()];
    for row in &rows {
        let data = |column: usize| row[column].parse().map_or(vec![0; CHUNK], block);
        let (mut p, mut q) = (vec![0; CHUNK], vec![0; CHUNK]);
        // Horner: from the highest power down.
        for &column in order(row).iter().rev() {
            for (at, byte) in data(column).into_iter().enumerate() {
                p[at] ^= byte;
                q[at] = double(q[at]) ^ byte;
            }
        }
        for (column, cell) in row.iter().enumerate() {
            members[column].extend(match *cell {
                "P" => p.clone(),
                "Q" => q.clone(),
                "-" => vec![0xee; CHUNK],
                _ => data(column),
            });
        }
    }
    members
}

fn legs(members: &[Vec<u8>], missing: &[usize]) -> Vec<Leg> {
    let leg = |(number, bytes): (usize, &Vec<u8>)| {
        if missing.contains(&number) {
            let gone = Error::lost(format!("member {number} is not given"));
            return Leg::missing(bytes.len() as u64, gone);
        }
        // Data begin behind something else.
        let bytes = [&[0xdd; 512][..], bytes].concat();
        let length = bytes.len() as u64 - 512;
        Leg::present(MemoryDisk::open("member", bytes), 512, length)
    };
    members.iter().enumerate().map(leg).collect()
}

fn array(level: Level, members: &[Vec<u8>], missing: &[usize]) -> Arc<dyn Disk> {
    Array::open("array", level, legs(members, missing), None).unwrap()
}

fn expect(blocks: usize) -> Vec<u8> {
    (0..blocks).flat_map(block).collect()
}

fn parity(rotation: Rotation, q: bool) -> Level {
    Level::Parity { chunk_bytes: CHUNK as u64, rotation, q, trusted: true }
}

/// Reads whole, in odd pieces, and one byte at a time across a seam.
fn same(disk: &Arc<dyn Disk>, expected: &[u8], what: &str) {
    assert_eq!(disk.size_bytes(), expected.len() as u64, "{what}");
    assert!(disk.read_vec(0, expected.len()).unwrap() == expected, "{what}");
    for (at, length) in [(1, 3), (1000, 100), (1023, 2), (700, 2 * CHUNK), (3000, 1)] {
        let read = disk.read_vec(at as u64, length).unwrap();
        assert!(read == expected[at..at + length], "{what}: {length} bytes at {at}");
    }
}

const LEVEL5: [(Rotation, &str); 6] = [
    (Rotation::LeftAsymmetric, "0 1 2 P\n3 4 P 5\n6 P 7 8\nP 9 10 11\n12 13 14 P"),
    (Rotation::RightAsymmetric, "P 0 1 2\n3 P 4 5\n6 7 P 8\n9 10 11 P\nP 12 13 14"),
    (Rotation::LeftSymmetric, "0 1 2 P\n4 5 P 3\n8 P 6 7\nP 9 10 11\n12 13 14 P"),
    (Rotation::RightSymmetric, "P 0 1 2\n5 P 3 4\n7 8 P 6\n9 10 11 P\nP 12 13 14"),
    (Rotation::First, "P 0 1 2\nP 3 4 5\nP 6 7 8\nP 9 10 11\nP 12 13 14"),
    (Rotation::Last, "0 1 2 P\n3 4 5 P\n6 7 8 P\n9 10 11 P\n12 13 14 P"),
];

fn in_place(row: &[&str]) -> Vec<usize> {
    (0..row.len()).collect()
}

/// Data columns from the one behind Q on, round the row.
fn behind_q(row: &[&str]) -> Vec<usize> {
    let q = row.iter().position(|cell| *cell == "Q").unwrap();
    let round = (1..=row.len()).map(|step| (q + step) % row.len());
    round.filter(|&column| row[column] != "P" && row[column] != "Q").collect()
}

#[test]
fn level_5_reads_whole_and_with_any_one_member_missing() {
    for (rotation, table) in LEVEL5 {
        let members = fill(table, in_place);
        same(&array(parity(rotation, false), &members, &[]), &expect(15), "whole");
        for gone in 0..4 {
            let what = format!("{rotation:?} without {gone}");
            same(&array(parity(rotation, false), &members, &[gone]), &expect(15), &what);
        }
    }
}

#[test]
fn level_6_reads_whole_and_with_any_two_members_missing() {
    let tables = [
        (Rotation::LeftAsymmetric, "Q 0 1 2 P\n3 4 5 P Q\n6 7 P Q 8\n9 P Q 10 11\nP Q 12 13 14"),
        (Rotation::RightAsymmetric, "P Q 0 1 2\n3 P Q 4 5\n6 7 P Q 8\n9 10 11 P Q\nQ 12 13 14 P"),
        (Rotation::LeftSymmetric, "Q 0 1 2 P\n3 4 5 P Q\n7 8 P Q 6\n11 P Q 9 10\nP Q 12 13 14"),
        (Rotation::RightSymmetric, "P Q 0 1 2\n5 P Q 3 4\n7 8 P Q 6\n9 10 11 P Q\nQ 12 13 14 P"),
        (Rotation::First, "P Q 0 1 2\nP Q 3 4 5\nP Q 6 7 8"),
        (Rotation::Last, "0 1 2 P Q\n3 4 5 P Q\n6 7 8 P Q"),
        (Rotation::LeftAsymmetric6, "0 1 2 P Q\n3 4 P 5 Q\n6 P 7 8 Q\nP 9 10 11 Q"),
        (Rotation::RightAsymmetric6, "P 0 1 2 Q\n3 P 4 5 Q\n6 7 P 8 Q\n9 10 11 P Q"),
        (Rotation::LeftSymmetric6, "0 1 2 P Q\n4 5 P 3 Q\n8 P 6 7 Q\nP 9 10 11 Q"),
        (Rotation::RightSymmetric6, "P 0 1 2 Q\n5 P 3 4 Q\n7 8 P 6 Q\n9 10 11 P Q"),
        (Rotation::First6, "P 0 1 2 Q\nP 3 4 5 Q\nP 6 7 8 Q"),
    ];
    let ddf = [
        (Rotation::ZeroRestart, "P Q 0 1 2\n3 P Q 4 5\n6 7 P Q 8\n9 10 11 P Q\nQ 12 13 14 P"),
        (Rotation::NRestart, "0 1 2 P Q\n3 4 P Q 5\n6 P Q 7 8\nP Q 9 10 11\nQ 12 13 14 P"),
        (Rotation::NContinue, "0 1 2 Q P\n4 5 Q P 3\n8 Q P 6 7\nQ P 9 10 11\nP 12 13 14 Q"),
    ];
    let standard = tables.map(|(rotation, table)| (rotation, fill(table, behind_q)));
    let ddf = ddf.map(|(rotation, table)| (rotation, fill(table, in_place)));
    for (rotation, members) in standard.into_iter().chain(ddf) {
        let blocks = members[0].len() / CHUNK * 3;
        let expected = expect(blocks);
        same(&array(parity(rotation, true), &members, &[]), &expected, "whole");
        for (a, b) in (0..5).flat_map(|a| (0..=a).map(move |b| (a, b))) {
            let what = format!("{rotation:?} without {a} and {b}");
            same(&array(parity(rotation, true), &members, &[a, b]), &expected, &what);
        }
    }
}

#[test]
fn a_member_too_many_loses_its_own_blocks_and_no_others() {
    let members = fill(LEVEL5[2].1, in_place);
    let disk = array(parity(Rotation::LeftSymmetric, false), &members, &[1, 2]);
    // Members of blocks 0 to 8: the first three rows.
    let table = [[0, 1, 2], [3, 0, 1], [2, 3, 0]];
    for number in 0..9u64 {
        let member = table[number as usize / 3][number as usize % 3];
        let read = disk.read_vec(number * CHUNK as u64, CHUNK);
        if member == 1 || member == 2 {
            let error = read.unwrap_err();
            assert_eq!(error.kind(), Kind::Lost, "block {number}");
            assert!(error.detail().contains(&format!("member {member} is not given")), "{error}");
        } else {
            assert_eq!(read.unwrap(), block(number as usize));
        }
    }
    let lost: u64 = Extents::of(&disk, 0..disk.size_bytes())
        .map(|extent| extent.unwrap())
        .filter(|extent| matches!(extent.kind, ExtentKind::Lost(_)))
        .map(|extent| extent.length)
        .sum();
    assert_eq!(lost, 8 * CHUNK as u64);
}

#[test]
fn parity_that_cannot_be_trusted_computes_nothing() {
    let members = fill(LEVEL5[2].1, in_place);
    let level = Level::Parity {
        chunk_bytes: CHUNK as u64,
        rotation: Rotation::LeftSymmetric,
        q: false,
        trusted: false,
    };
    same(&array(level, &members, &[]), &expect(15), "whole");
    let degraded = array(level, &members, &[0]);
    assert_eq!(degraded.read_vec(0, 1).unwrap_err().kind(), Kind::Lost);
    assert_eq!(degraded.read_vec(CHUNK as u64, CHUNK).unwrap(), block(1));
}

#[test]
fn a_member_that_is_good_up_to_a_point_is_used_up_to_there() {
    let members = fill(LEVEL5[2].1, in_place);
    let mut half = legs(&members, &[]);
    half[0] = half[0].clone().without(1500..5 * CHUNK as u64, Error::lost("not rebuilt yet"));
    let disk = Array::open("array", parity(Rotation::LeftSymmetric, false), half, None).unwrap();
    same(&disk, &expect(15), "rebuilding");
    // The end of member 0 is computed, the beginning read.
    let extent = disk.extent_at(0).unwrap();
    assert!(matches!(extent.kind, ExtentKind::Verbatim { .. }) && extent.length == 1024);
    let kinds = |at| matches!(disk.extent_at(at).unwrap().kind, ExtentKind::Data);
    assert!(!kinds(4 * 1024 + 475) && kinds(4 * 1024 + 476));
}

#[test]
fn stripes_take_turns_and_longer_members_go_on_alone() {
    let even = fill("0 1 2\n3 4 5", in_place);
    let level = |turns| Level::Stripes { chunk_bytes: CHUNK as u64, turns };
    same(&array(level(Turns::Unknown), &even, &[]), &expect(6), "even");
    // Members of 1, 3 and 3 chunks: zone 0 is row 0, zone 1 is the rest.
    let part = |member: &Vec<u8>, rows: usize| member[..rows * CHUNK].to_vec();
    let alternate = fill("0 1 2\n- 3 4\n- 5 6", in_place);
    let members = [part(&alternate[0], 1), alternate[1].clone(), alternate[2].clone()];
    same(&array(level(Turns::Alternate), &members, &[]), &expect(7), "alternate");
    // The original layout counts turns over the whole array: chunk 3 is odd.
    let original = fill("0 1 2\n- 4 3\n- 6 5", in_place);
    let members = [part(&original[0], 1), original[1].clone(), original[2].clone()];
    same(&array(level(Turns::Original), &members, &[]), &expect(7), "original");
    let legs = legs(&members, &[]);
    let error = Array::open("array", level(Turns::Unknown), legs, None).unwrap_err();
    assert_eq!(error.kind(), Kind::Unsupported);
}

#[test]
fn linear_members_follow_each_other() {
    let members = [block(0), [block(1), block(2)].concat(), block(3)];
    same(&array(Level::Linear, &members, &[]), &expect(4), "linear");
    let disk = array(Level::Linear, &members, &[1]);
    assert_eq!(disk.read_vec(0, CHUNK).unwrap(), block(0));
    assert_eq!(disk.read_vec(3 * CHUNK as u64, CHUNK).unwrap(), block(3));
    assert_eq!(disk.read_vec(1000, 100).unwrap_err().kind(), Kind::Lost);
}

#[test]
fn a_mirror_reads_its_first_good_copy() {
    let copies = [expect(4), expect(4), expect(4)];
    for gone in [&[][..], &[0], &[0, 1]] {
        same(&array(Level::Mirror, &copies, gone), &expect(4), "mirror");
    }
    let error = array(Level::Mirror, &copies, &[0, 1, 2]).read_vec(0, 1).unwrap_err();
    assert_eq!(error.kind(), Kind::Lost);
    let mut parts = legs(&copies, &[]);
    parts[0] = parts[0].clone().without(100..200, Error::lost("a hole"));
    parts[1] = parts[1].clone().without(150..300, Error::lost("a hole"));
    parts[2] = parts[2].clone().without(160..170, Error::lost("a hole"));
    let disk = Array::open("array", Level::Mirror, parts, None).unwrap();
    assert_eq!(disk.read_vec(0, 160).unwrap(), expect(4)[..160]);
    assert_eq!(disk.read_vec(170, 3000).unwrap(), expect(4)[170..3170]);
    assert!(disk.read_vec(159, 2).is_err() && disk.read_vec(169, 1).is_err());
}

#[test]
fn level_10_finds_every_copy() {
    let ten = |near, far, offset| Level::Ten {
        chunk_bytes: CHUNK as u64,
        near,
        far,
        offset,
        far_set: None,
    };
    // Tables as in md(4): near, far and offset copies on three and four members.
    let cases = [
        (ten(2, 1, false), "0 0 1\n1 2 2\n3 3 4\n4 5 5", 6),
        (ten(2, 1, false), "0 0 1 1\n2 2 3 3", 4),
        (ten(1, 2, false), "0 1 2 3\n4 5 6 7\n3 0 1 2\n7 4 5 6", 8),
        (ten(1, 2, true), "0 1 2 3\n3 0 1 2\n4 5 6 7\n7 4 5 6", 8),
        (ten(1, 2, true), "0 1 2\n2 0 1\n3 4 5\n5 3 4", 6),
    ];
    for (level, table, blocks) in cases {
        let members = fill(table, in_place);
        for gone in 0..=members.len() {
            let what = format!("{level:?} without {gone}");
            same(&array(level, &members, &[gone]), &expect(blocks), &what);
        }
        let all: Vec<usize> = (0..members.len()).collect();
        assert_eq!(array(level, &members, &all).read_vec(0, 9).unwrap_err().kind(), Kind::Lost);
    }
}

#[test]
fn impossible_arrays_are_refused() {
    let members = vec![expect(4); 3];
    let refused = |level| Array::open("a", level, legs(&members, &[]), None).unwrap_err().kind();
    let chunk_bytes = 1024;
    let rotation = Rotation::ZeroRestart;
    let parity = Level::Parity { chunk_bytes, rotation, q: false, trusted: true };
    assert_eq!(refused(parity), Kind::Corrupt);
    assert_eq!(refused(Level::Stripes { chunk_bytes: 0, turns: Turns::Unknown }), Kind::Corrupt);
    let ten = Level::Ten { chunk_bytes, near: 9, far: 1, offset: false, far_set: None };
    assert_eq!(refused(ten), Kind::Corrupt);
    let none = Array::open("a", Level::Mirror, Vec::new(), None).unwrap_err();
    assert_eq!(none.kind(), Kind::Corrupt);
    let more = Array::open("a", Level::Mirror, legs(&members, &[]), Some(1 << 40)).unwrap_err();
    assert_eq!(more.kind(), Kind::Corrupt);
}

/// Any leg may lack any ranges: what can be read is right, and nothing that can be had is lost.
#[test]
fn arrays_with_holes_read_right_or_not_at_all() {
    let seed = 12345u64;
    println!("seed {seed}");
    let mut state = seed;
    let mut next = move |below: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % below
    };
    let table = "Q 0 1 2 P\n3 4 5 P Q\n7 8 P Q 6\n11 P Q 9 10\nP Q 12 13 14";
    let members = fill(table, behind_q);
    let (expected, rows) = (expect(15), members[0].len() as u64);
    for _ in 0..300 {
        let mut parts = legs(&members, &[]);
        let mut holes = vec![Vec::new(); 5];
        for (leg, holes) in parts.iter_mut().zip(&mut holes) {
            for _ in 0..next(3) {
                let start = next(rows);
                let hole = start..(start + 1 + next(1500)).min(rows);
                *leg = leg.clone().without(hole.clone(), Error::lost("a hole"));
                holes.push(hole);
            }
        }
        let level = parity(Rotation::LeftSymmetric, true);
        let disk = Array::open("array", level, parts, None).unwrap();
        let mut at = 0;
        while at < disk.size_bytes() {
            let extent = disk.extent_at(at).unwrap();
            assert_eq!(extent.offset, at);
            let range = at as usize..extent.end() as usize;
            let read = disk.read_vec(at, range.len());
            // How many members lack the first byte of the extent, and the last.
            let row = |at: u64| at / (3 * CHUNK as u64) * CHUNK as u64 + at % CHUNK as u64;
            let gone = |at: u64| {
                holes
                    .iter()
                    .filter(|holes| holes.iter().any(|hole| hole.contains(&row(at))))
                    .count()
            };
            if matches!(extent.kind, ExtentKind::Lost(_)) {
                assert_eq!(read.unwrap_err().kind(), Kind::Lost);
                assert!(gone(at) > 2 && gone(extent.end() - 1) > 2, "{at}");
            } else {
                assert!(read.unwrap() == expected[range], "{at}");
            }
            at = extent.end();
        }
    }
}
