//! QED reads…

use adit_core::{Check, Disk, DiskExt, Finding, Interrupt, Kind, Limits, MemoryDisk, Problem};
use adit_qed::Image;
use std::process::Command;
use std::sync::Arc;

const CLUSTER: usize = 4096;

/// Clusters of 4 KiB, tables of one cluster; a disk of two and a half tables.
fn image(l2: &[(usize, u64)], clusters: usize) -> Vec<u8> {
    let mut bytes = vec![0; clusters * CLUSTER];
    let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
    put(0, b"QED\0");
    put(4, &4096u32.to_le_bytes());
    put(8, &1u32.to_le_bytes());
    put(12, &1u32.to_le_bytes());
    put(40, &4096u64.to_le_bytes());
    put(48, &((1280 * CLUSTER) as u64).to_le_bytes());
    put(CLUSTER, &(2 * CLUSTER as u64).to_le_bytes());
    for &(slot, value) in l2 {
        put(2 * CLUSTER + slot * 8, &value.to_le_bytes());
    }
    for cluster in 3..clusters {
        put(cluster * CLUSTER, &[cluster as u8; CLUSTER]);
    }
    bytes
}

fn open(bytes: Vec<u8>) -> adit_core::Result<Image> {
    Image::open(MemoryDisk::open("x.qed", bytes), &Limits::default())
}

fn findings(image: &Image) -> Vec<&'static str> {
    let mut codes = Vec::new();
    image.check(&mut |finding: Finding| codes.push(finding.code), &Interrupt::default()).unwrap();
    codes
}

#[test]
fn clusters_zeros_and_what_lies_below() {
    let mut bytes = image(&[(0, 3 << 12), (1, 4 << 12), (2, 1), (511, 5 << 12)], 6);
    let disk = open(bytes.clone()).unwrap().disk("x", None).unwrap();
    assert_eq!(disk.size_bytes(), 1280 * 4096);
    let mut expected = vec![0; 1280 * CLUSTER];
    expected[..CLUSTER].fill(3);
    expected[CLUSTER..2 * CLUSTER].fill(4);
    expected[511 * CLUSTER..512 * CLUSTER].fill(5);
    assert!(disk.read_vec(0, expected.len()).unwrap() == expected);
    let first = disk.extent_at(0).unwrap();
    assert_eq!(first.length, 2 * 4096, "neighbours are joined");
    assert!(disk.extent_at(600 * 4096).unwrap().kind.is_zero());
    assert_eq!(findings(&open(bytes.clone()).unwrap()), Vec::<&str>::new());

    bytes[16] = 1 | 4;
    bytes[56..60].copy_from_slice(&100u32.to_le_bytes());
    bytes[60..64].copy_from_slice(&8u32.to_le_bytes());
    bytes[100..108].copy_from_slice(b"base.raw");
    let over = open(bytes).unwrap();
    let backing = over.backing().unwrap();
    assert_eq!((backing.name.as_slice(), backing.raw), (b"base.raw".as_slice(), true));
    assert_eq!(over.disk("x", None).unwrap_err().kind(), Kind::NotFound);
    let base = MemoryDisk::open("base", vec![9; 700 * CLUSTER]);
    let disk = over.disk("x", Some(base)).unwrap();
    expected[3 * CLUSTER..511 * CLUSTER].fill(9);
    expected[512 * CLUSTER..700 * CLUSTER].fill(9);
    assert!(disk.read_vec(0, expected.len()).unwrap() == expected);
}

#[test]
fn around_entries_that_cannot_be() {
    let cases = [
        (0x3001, Kind::Corrupt, "qed-cluster-damaged"),
        (0x2000, Kind::Corrupt, ""),
        (0x40_0000, Kind::Lost, "qed-cluster-lost"),
        (0xffff_ffff_ffff_f000, Kind::Lost, "qed-cluster-lost"),
    ];
    for (value, kind, code) in cases {
        let image = open(image(&[(0, 3 << 12), (1, value)], 4)).unwrap();
        let disk = image.disk("x", None).unwrap();
        assert_eq!(disk.read_vec(0, CLUSTER).unwrap(), [3; CLUSTER], "{value:#x}");
        assert_eq!(disk.read_vec(2 * 4096, CLUSTER).unwrap(), [0; CLUSTER], "{value:#x}");
        let found = disk.read_vec(4096, 1);
        if code.is_empty() {
            // A table as a cluster: only a check can tell.
            assert_eq!(findings(&image), ["qed-cluster-shared"], "{value:#x}");
            continue;
        }
        assert_eq!(found.unwrap_err().kind(), kind, "{value:#x}");
        assert_eq!(findings(&image), [code], "{value:#x}");
    }
    let mut bytes = image(&[], 4);
    bytes[CLUSTER..CLUSTER + 8].copy_from_slice(&u64::MAX.to_le_bytes());
    let image = open(bytes).unwrap();
    assert_eq!(findings(&image)[0], "qed-table-damaged");
    let disk = image.disk("x", None).unwrap();
    assert_eq!(disk.read_vec(0, 1).unwrap_err().kind(), Kind::Corrupt);
    let next = disk.extent_at(512 * 4096).unwrap();
    assert!(next.kind.is_zero());
}

#[test]
fn no_header_that_contradicts_itself() {
    let refused = |at: usize, value: &[u8]| {
        let mut bytes = image(&[], 4);
        bytes[at..at + value.len()].copy_from_slice(value);
        let error = open(bytes).unwrap_err();
        (error.kind(), error.problem())
    };
    let corrupt = |problem| (Kind::Corrupt, problem);
    assert_eq!(refused(0, b"x"), corrupt(Problem::BadMagic));
    for size in [0u32, 512, 4097, 1 << 27, u32::MAX] {
        assert_eq!(refused(4, &size.to_le_bytes()), corrupt(Problem::BadValue), "{size}");
    }
    for size in [0u32, 3, 32, u32::MAX] {
        assert_eq!(refused(8, &size.to_le_bytes()), corrupt(Problem::BadValue), "{size}");
    }
    assert_eq!(refused(12, &[0; 4]), corrupt(Problem::BadValue));
    assert_eq!(refused(16, &[8]).0, Kind::Unsupported);
    assert_eq!(refused(40, &4097u64.to_le_bytes()), corrupt(Problem::Misaligned));
    assert_eq!(refused(40, &[0; 8]), corrupt(Problem::Misaligned));
    assert_eq!(refused(40, &0x4000u64.to_le_bytes()), corrupt(Problem::Truncated));
    assert_eq!(refused(48, &[0; 8]), corrupt(Problem::OutOfRange));
    assert_eq!(refused(48, &[0xff; 8]), corrupt(Problem::OutOfRange));
    assert_eq!(refused(16, &[1]), corrupt(Problem::OutOfRange));
    assert!(open(b"QED\0".to_vec()).is_err());
}

#[test]
fn what_qemu_wrote() {
    let dir = tempfile::tempdir().unwrap();
    let run = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).current_dir(dir.path()).output();
        let output = output.expect("this test needs qemu-img and qemu-io of qemu-utils");
        assert!(output.status.success(), "{program} {arguments:?}: {output:?}");
    };
    run("qemu-img", &["create", "-q", "-f", "raw", "base.raw", "20M"]);
    run("qemu-io", &["-f", "raw", "-c", "write -P 5 1M 9M", "base.raw"]);
    let options = "cluster_size=8192,table_size=2";
    run(
        "qemu-img",
        &[
            "create", "-q", "-f", "qed", "-o", options, "-F", "raw", "-b", "base.raw", "x.qed",
            "21M",
        ],
    );
    for command in ["write -P 7 100k 300k", "write -P 8 12M 3M", "write -z 2M 1M"] {
        run("qemu-io", &["-f", "qed", "-c", command, "x.qed"]);
    }
    run("qemu-img", &["convert", "-f", "qed", "-O", "raw", "x.qed", "want.raw"]);
    let read = |name: &str| std::fs::read(dir.path().join(name)).unwrap();
    let image = open(read("x.qed")).unwrap();
    assert_eq!(image.backing().unwrap().name, b"base.raw");
    let base: Arc<dyn Disk> = MemoryDisk::open("base", read("base.raw"));
    let disk = image.disk("x", Some(base)).unwrap();
    let want = read("want.raw");
    assert_eq!(disk.size_bytes(), want.len() as u64);
    assert!(disk.read_vec(0, want.len()).unwrap() == want);
    let errors = findings(&image).into_iter().filter(|code| !code.ends_with("-leak")).count();
    assert_eq!(errors, 0);
}
