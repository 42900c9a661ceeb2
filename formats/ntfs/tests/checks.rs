//! What `check` finds in a volume.

mod common;

use adit_core::{Check, Finding, Interrupt};
use common::*;

fn check(image: &Image) -> Vec<Finding> {
    let fs = image.open().unwrap();
    let mut findings = Vec::new();
    fs.check(&mut |finding| findings.push(finding), &Interrupt::default()).unwrap();
    findings
}

fn of<'a>(findings: &'a [Finding], code: &str) -> Vec<&'a Finding> {
    findings.iter().filter(|finding| finding.code == code).collect()
}

/// A record's place in findings.
fn at(findings: &[&Finding]) -> Vec<Option<u64>> {
    findings.iter().map(|finding| finding.place.as_ref().and_then(|place| place.index)).collect()
}

/// The sample with its mirror in step.
fn mirrored() -> Image {
    let mut image = sample();
    let records = image.bytes[Image::record_at(0)..][..4 * RECORD].to_vec();
    image.clusters(MIRROR, &records);
    image
}

#[test]
fn a_torn_record_is_found_by_its_number() {
    let findings = check(&mirrored());
    let damaged = of(&findings, "ntfs-record");
    assert!(damaged[0].text.contains("is torn") && damaged.len() == 2, "{damaged:?}");
    // The other one has a run that leaves the volume.
    assert!(damaged[1].text.contains("a run names clusters"), "{damaged:?}");
    assert_eq!(at(&damaged)[0], Some(34));
    assert!(at(&damaged)[1].is_some(), "{damaged:?}");
    assert_eq!(of(&findings, "ntfs-mirror-differs"), Vec::<&Finding>::new());
}

#[test]
fn a_mirror_that_differs_is_found() {
    let mut image = mirrored();
    image.bytes[MIRROR * CLUSTER + 3 * RECORD + 0x60] ^= 1;
    assert_eq!(at(&of(&check(&image), "ntfs-mirror-differs")), [Some(3)]);
}

#[test]
fn clusters_of_two_streams_are_found() {
    let before = of(&check(&mirrored()), "ntfs-clusters-shared").len();
    let mut image = mirrored();
    let runs = Runs { kind: 0x80, clusters: 2, size: 8192, pairs: run(2, LOG), ..Runs::default() };
    image.record(45, record(1, 0, &[standard(0), runs.bytes()]));
    let findings = check(&image);
    let shared = of(&findings, "ntfs-clusters-shared");
    assert_eq!(shared.len(), before + 1);
    assert!(
        shared.iter().any(|own| own.text.contains("2 of the 2 clusters from 200 on")),
        "{shared:?}"
    );
}

#[test]
fn names_that_lead_elsewhere_and_names_that_no_directory_lists_are_found() {
    let before = check(&mirrored());
    let mut image = mirrored();
    let own = file_name(5, "hidden", 1, 0x20);
    image.record(46, record(1, 0, &[standard(0), resident(0x30, "", 0, &own)]));
    let key = file_name(5, "renamed", 1, 0x20);
    image.clusters(ROOT_BLOCKS, &block(0, &[entry(46, &key, None)]));
    let findings = check(&image);
    let wrong = of(&findings, "ntfs-name");
    assert!(wrong.len() > of(&before, "ntfs-name").len());
    let told = |text: &str| wrong.iter().any(|own| own.text.contains(text));
    assert!(told("name \"renamed\" for MFT record 46 is no name of that record"), "{wrong:?}");
}

#[test]
fn records_and_clusters_that_the_bitmaps_have_otherwise_are_found() {
    let findings = check(&mirrored());
    // The bitmap marks 0 to 7, 24 to 31 and 63; 10 is in use, 24 is not.
    let unmarked = of(&findings, "ntfs-record-unmarked");
    assert_eq!(at(&unmarked), [Some(10)], "{unmarked:?}");
    assert_eq!(at(&of(&findings, "ntfs-record-leak")), [Some(24)]);
    // Every second half of a byte is free; the log's 200 to 207 lie across.
    assert_eq!(of(&findings, "ntfs-bitmap-free").len(), 1);
    assert_eq!(of(&findings, "ntfs-cluster-leak").len(), 1);
}
