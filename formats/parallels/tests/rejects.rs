//! Parallels images and bundles are rejected…

mod common;

use adit_core::{DiskExt, Error, Kind, Limits, Problem, Result};
use adit_parallels::{Descriptor, Guid, open as open_bundle, probe};
use common::*;

fn good() -> Vec<u8> {
    image(CLUSTERS, 2, 6, &[1, 2, 0], 6)
}

#[test]
fn headers_that_contradict_themselves() {
    use Problem::*;
    let cases: &[(usize, u64, usize, Problem)] = &[
        (0x00, 0, 8, BadMagic),
        (0x1c, 0, 4, BadValue),
        (0x1c, 1, 4, OutOfRange),
        (0x20, 2, 4, OutOfRange),
        (0x20, 0xffff_ffff, 4, Truncated),
        (0x24, 0, 8, BadValue),
        (0x24, 7, 8, OutOfRange),
        (0x24, u64::MAX, 8, BadValue),
        (0x24, 1 << 54, 8, OutOfRange),
    ];
    for &(at, value, width, problem) in cases {
        let mut bytes = good();
        put(&mut bytes, at, &value.to_le_bytes()[..width]);
        let error = open(bytes).unwrap_err();
        assert_eq!(
            (error.kind(), error.problem()),
            (Kind::Corrupt, problem),
            "{value:#x} at {at:#x}"
        );
        assert!(error.place().is_some());
    }
    for version in [0u32, 1, 3] {
        let mut bytes = good();
        put(&mut bytes, 0x10, &version.to_le_bytes());
        assert_eq!(open(bytes).unwrap_err().kind(), Kind::Unsupported);
    }
}

#[test]
fn files_that_end_anywhere_before_their_table_does() {
    for length in 0..76 {
        assert_eq!(open(good()[..length].to_vec()).unwrap_err().kind(), Kind::Corrupt, "{length}");
    }
    open(good()[..76].to_vec()).unwrap();
}

#[test]
fn reads_of_clusters_that_lie_nowhere_and_only_those() {
    // The table ends in sector 2, so the cluster in sector 1 lies over it.
    let mut bytes = image(SECTORS, 2, 8, &[3, 1, 0xffff_ffff, 0], 5);
    put(&mut bytes, 0x20, &300u32.to_le_bytes());
    let disk = open(bytes).unwrap().disk("x", None);
    assert_eq!(disk.read_vec(0, 1024).unwrap()[1023], 4);
    assert_eq!(disk.read_vec(3072, 1024).unwrap(), [0; 1024]);
    let over = disk.read_vec(1024, 1).unwrap_err();
    assert_eq!((over.kind(), over.problem()), (Kind::Corrupt, Problem::Overlaps));
    assert_eq!(over.place().unwrap().byte, Some(68));
    let past = disk.read_vec(2048, 1).unwrap_err();
    assert_eq!((past.kind(), past.problem()), (Kind::Lost, Problem::Truncated));
}

#[test]
fn reads_past_the_end_of_a_file_that_was_cut_short() {
    let mut bytes = good();
    bytes.truncate(5 * 512 + 100);
    let disk = open(bytes).unwrap().disk("x", None);
    assert_eq!(disk.read_vec(1024, 612).unwrap()[611], 5);
    assert_eq!(disk.read_vec(1024, 613).unwrap_err().problem(), Problem::Truncated);
    assert_eq!(disk.read_vec(2048, 1024).unwrap(), [0; 1024]);
}

fn refused(text: &str) -> (Kind, Problem) {
    let error = parse(text).unwrap_err();
    (error.kind(), error.problem())
}

#[test]
fn descriptors_that_leave_something_open() {
    use Problem::*;
    let one = [('1', "Plain", "a")];
    let part = |start, end| storage(start, end, &one);
    let whole = descriptor(&part(0, 4), &shot('1', '0'));
    parse(&whole).unwrap();
    let cases = [
        (descriptor("", ""), Missing),
        (descriptor(&(part(0, 2) + &part(3, 4)), ""), Missing),
        (descriptor(&part(1, 2), ""), Missing),
        (descriptor(&(part(0, 3) + &part(2, 4)), ""), Overlaps),
        (descriptor(&(part(0, 3) + &part(0, 3)), ""), Overlaps),
        (descriptor(&part(4, 4), ""), BadValue),
        (descriptor(&part(0, u64::MAX), ""), BadValue),
        (descriptor(&storage(0, 1, &[one[0], one[0]]), ""), Ambiguous),
        (descriptor(&part(0, 1), &(shot('1', '0') + &shot('1', '2'))), Ambiguous),
        (whole.replace("<End>4", "<End>-4"), BadValue),
        (whole.replace("<End>4", "<End>99999999999999999999"), BadValue),
        (whole.replace("<End>4", "<End>3</End><End>4"), Ambiguous),
        (whole.replace("<File>a</File>", ""), Missing),
        (whole.replace("<File>a", &format!("<File>{}", "a".repeat(4097))), BadValue),
        (whole.replace("<File>a", "<File>a\0b"), BadValue),
        (whole.replace("<GUID>{1", "<GUID>{x"), BadValue),
        (whole.replace("Parallels_disk_image", "html"), BadMagic),
        (whole.clone() + "<Parallels_disk_image/>", Ambiguous),
        (whole[..whole.len() - 10].to_owned(), Truncated),
    ];
    for (text, problem) in cases {
        assert_eq!(refused(&text), (Kind::Corrupt, problem), "{text}");
    }
    let sectors = "<Disk_Parameters><LogicSectorSize>4096</LogicSectorSize></Disk_Parameters>";
    let text = whole.replace("<StorageData>", &format!("{sectors}<StorageData>"));
    assert_eq!(refused(&text).0, Kind::Unsupported);
    assert_eq!(refused(&format!("<!DOCTYPE x>{whole}")).0, Kind::Unsupported);
}

#[test]
fn text_that_is_all_elements_in_linear_time() {
    let name = "n".repeat(128);
    let deep = format!("<{name}>").repeat(31);
    let many = "<a/>".repeat(900_000);
    let started = std::time::Instant::now();
    for text in [
        format!("<Parallels_disk_image>{deep}{many}"),
        format!("<Parallels_disk_image><StorageData>{many}"),
        format!("<Parallels_disk_image>{}", "<!--".repeat(1_000_000)),
        "<!---->".repeat(500_000),
        format!("<Parallels_disk_image>{}", "&amp;".repeat(800_000)),
        format!("<Parallels_disk_image a='{}", "<".repeat(4_000_000)),
    ] {
        assert_eq!(parse(&text).unwrap_err().kind(), Kind::Corrupt);
    }
    assert!(started.elapsed().as_secs() < 20, "{:?}", started.elapsed());
}

#[test]
fn circles_and_gaps_in_a_chain() {
    let part = storage(0, 1, &[('1', "Plain", "a")]);
    let top = Guid::parse(guid('1').as_bytes()).unwrap();
    let chain = |shots: String| parse(&descriptor(&part, &shots)).unwrap().chain(top);
    let problem = |result: Result<Vec<Guid>>| result.unwrap_err().problem();
    assert_eq!(problem(chain(shot('1', '1'))), Problem::Cycle);
    assert_eq!(problem(chain(shot('1', '2') + &shot('2', '3') + &shot('3', '2'))), Problem::Cycle);
    assert_eq!(problem(chain(shot('1', '2'))), Problem::Missing);
    assert_eq!(chain(shot('2', '0')).unwrap_err().kind(), Kind::NotFound);
    let limits = Limits { chain_length_max: 2, ..Limits::default() };
    let text = descriptor(&part, &(shot('1', '2') + &shot('2', '3') + &shot('3', '0')));
    let bundle = Descriptor::parse(text.as_bytes(), &limits).unwrap();
    assert_eq!(bundle.chain(top).unwrap_err().kind(), Kind::Limit);
}

fn failure(storages: &str, shots: &str, files: &[(&str, Vec<u8>)]) -> Error {
    let bundle = parse(&descriptor(storages, shots)).unwrap();
    open_bundle("x", &bundle, None, &mut among(files)).unwrap_err()
}

#[test]
fn bundles_that_would_show_the_wrong_data() {
    let twice = storage(0, 1, &[('1', "Plain", "a")]) + &storage(1, 2, &[('1', "Plain", "a")]);
    assert_eq!(failure(&twice, "", &[("a", vec![0; 512])]).problem(), Problem::Cycle);
    let odd = storage(0, 1, &[('1', "Encrypted", "a")]);
    assert_eq!(failure(&odd, "", &[("a", vec![0; 512])]).kind(), Kind::Unsupported);
    // The parent's file is missing: the child must not stand alone.
    let both = storage(0, 2, &[('1', "Compressed", "a"), ('2', "Compressed", "b")]);
    let shots = shot('1', '2') + &shot('2', '0');
    let child = image(SECTORS, 1, 2, &[1, 0], 2);
    assert_eq!(failure(&both, &shots, &[("a", child.clone())]).kind(), Kind::NotFound);
    let alone = storage(0, 2, &[('1', "Compressed", "a")]);
    assert_eq!(failure(&alone, &shots, &[("a", child)]).problem(), Problem::Missing);
}

#[test]
fn encrypted_bundles_and_refusals_of_the_opener() {
    let part = storage(0, 2, &[('1', "Plain", "a")]) + &storage(2, 4, &[('1', "Plain", "../b")]);
    let text = descriptor(&part, "");
    let bundle = parse(&text).unwrap();
    let mut refuse = |_: &adit_parallels::Reference| {
        Err(Error::new(Kind::Denied, Problem::Refused, "outside of the bundle"))
    };
    let error = open_bundle("x", &bundle, None, &mut refuse).unwrap_err();
    assert_eq!(error.kind(), Kind::Denied);
    let engine = format!("<Encryption><Engine>{}</Engine></Encryption>", guid('9'));
    let engine = format!("<Disk_Parameters>{engine}</Disk_Parameters><StorageData>");
    let bundle = parse(&text.replace("<StorageData>", &engine)).unwrap();
    let error = open_bundle("x", &bundle, None, &mut refuse).unwrap_err();
    assert_eq!(error.kind(), Kind::Unsupported);
}

#[test]
fn a_disk_that_its_storages_do_not_fill() {
    let size = "<Disk_Parameters><Disk_size>4</Disk_size></Disk_Parameters><StorageData>";
    let text = descriptor(&storage(0, 2, &[('1', "Plain", "a")]), "");
    let bundle = parse(&text.replace("<StorageData>", size)).unwrap();
    assert_eq!(bundle.notes[0].code, "parallels-size-mismatch");
    let mut files = among(&[("a", vec![5; 600])]);
    let disk = open_bundle("x", &bundle, None, &mut files).unwrap().disk;
    assert_eq!(disk.size_bytes(), 2048);
    assert_eq!(disk.read_vec(0, 600).unwrap(), [5; 600]);
    for at in [600, 1024] {
        assert_eq!(disk.read_vec(at, 1).unwrap_err().kind(), Kind::Lost, "{at}");
    }
}

#[test]
fn other_files_by_the_probe() {
    for prefix in ["", "WithoutFreeSpac", "<html><Parallels_disk_image>", "text", "<!-- "] {
        assert_eq!(probe(prefix.as_bytes()), None, "{prefix}");
    }
    assert_eq!(probe(&vec![b'<'; 1 << 16]), None);
    assert_eq!(probe(&vec![0; 1 << 16]), None);
}
