//! Checking a sparse VMDK extent finds…

mod common;

use adit_core::{Finding, Interrupt, Kind, Limits};
use adit_vmdk::check_sparse;
use common::*;

fn findings(bytes: Vec<u8>) -> Vec<Finding> {
    let mut found = Vec::new();
    let limits = Limits::default();
    let mut report = |finding| found.push(finding);
    check_sparse("x", &disk(bytes), &limits, &mut report, &Interrupt::default()).unwrap();
    found
}

fn found(bytes: Vec<u8>) -> Vec<&'static str> {
    findings(bytes).iter().map(|finding| finding.code).collect()
}

/// An seSparse extent whose grain 4097 of the disk is grain 1 of the file.
fn mapped_sesparse() -> Vec<u8> {
    let mut bytes = sesparse();
    bytes.resize(280 * SECTOR + 2 * GRAIN, 7);
    put64(&mut bytes, 8 * SECTOR + 8, 1 << 60);
    put64(&mut bytes, 16 * SECTOR + 8, 3 << 60 | 1 << 48);
    bytes[272 * SECTOR] = 2;
    put64(&mut bytes, 273 * SECTOR + 8, 1 << 60 | 1 << 48 | 1);
    bytes
}

#[test]
fn nothing_in_extents_that_are_whole() {
    assert_eq!(found(Hosted::new(96).flags(7).grain(0, 1).grain(9, 9).set(3, 1).bytes), [""; 0]);
    assert_eq!(found(stream(256, &[(0, 1), (5, 5)])), [""; 0]);
    assert_eq!(found(cowd(&[(0, 1), (5, 5)])), [""; 0]);
    assert_eq!(found(mapped_sesparse()), [""; 0]);
}

#[test]
fn each_grain_that_cannot_be_or_is_used_twice() {
    let mut hosted = Hosted::new(96).grain(0, 1).set(1, 0x7fff_ffff).set(2, 1);
    let first = hosted.entry(0, false);
    let sector = u32::from_le_bytes(hosted.bytes[first..first + 4].try_into().unwrap());
    hosted = hosted.set(7, sector);
    let all = findings(hosted.bytes);
    let codes: Vec<_> = all.iter().map(|finding| finding.code).collect();
    assert_eq!(codes, ["vmdk-grain-damaged", "vmdk-grain-damaged", "vmdk-grain-shared"]);
    let place = all[2].place.as_ref().unwrap().to_string();
    assert_eq!(place, "grain table 1, entry 3 (byte 0xc0c)");
    assert_eq!(all[2].trail, ["VMDK x"]);
}

#[test]
fn grains_past_the_end_of_the_extent() {
    assert_eq!(found(Hosted::new(40).grain(5, 1).bytes), ["vmdk-grain-surplus"]);
}

#[test]
fn tables_that_differ_from_their_copies() {
    let mut hosted = Hosted::new(96).grain(0, 1);
    let at = hosted.entry(0, true);
    put32(&mut hosted.bytes, at, 0);
    assert_eq!(found(hosted.bytes), ["vmdk-tables-differ"]);
    let mut hosted = Hosted::new(96).grain(4, 1);
    put32(&mut hosted.bytes, DIRECTORY + 4, 0);
    assert_eq!(found(hosted.bytes), ["vmdk-directory-damaged", "vmdk-tables-differ"]);
}

#[test]
fn tables_that_leave_the_file() {
    let mut hosted = Hosted::new(96).flags(1).grain(0, 1);
    put32(&mut hosted.bytes, DIRECTORY + 4, 0x7fff_ffff);
    assert_eq!(found(hosted.bytes), ["vmdk-table-damaged"]);
}

#[test]
fn compressed_grains_that_do_not_inflate() {
    let mut bytes = stream(256, &[(0, 1), (1, 2)]);
    bytes[SECTOR + 500] ^= 1;
    assert_eq!(found(bytes), ["vmdk-grain-damaged"]);
}

#[test]
fn grains_of_vmfs_6_that_the_other_maps_do_not_know() {
    let mut bytes = mapped_sesparse();
    put64(&mut bytes, 273 * SECTOR + 8, 1 << 60 | 2 << 48 | 1);
    assert_eq!(found(bytes), ["vmdk-sesparse-back-map"]);
    let mut bytes = mapped_sesparse();
    bytes[272 * SECTOR] = 0x40;
    assert_eq!(found(bytes), ["vmdk-sesparse-bitmap"]);
    let mut bytes = mapped_sesparse();
    put64(&mut bytes, SECTOR + 16, 8);
    assert_eq!(found(bytes), ["vmdk-sesparse-journal"]);
}

#[test]
fn a_header_that_cannot_be_read() {
    assert_eq!(found(vec![0; 4096]), ["vmdk-extent-damaged"]);
}

#[test]
fn the_first_twenty_of_a_kind_and_counts_the_rest() {
    let mut bytes = cowd(&[]);
    bytes[5 * SECTOR..6 * SECTOR].fill(0xff);
    let all = findings(bytes);
    assert_eq!(all.len(), 21);
    assert_eq!(all[20].text, "and 108 more of this kind");
}

#[test]
fn that_it_was_told_to_stop() {
    let interrupt = Interrupt::default();
    interrupt.raise();
    let file = disk(Hosted::new(96).grain(0, 1).bytes);
    let stopped = check_sparse("x", &file, &Limits::default(), &mut |_| (), &interrupt);
    assert_eq!(stopped.unwrap_err().kind(), Kind::Interrupted);
}
