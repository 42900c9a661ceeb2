//! VMDK descriptors and flat disks are read…

use adit_core::{Disk, DiskExt, Error, Kind as ErrorKind, Limits, MemoryDisk, Result};
use adit_vmdk::{Access, Descriptor, ExtentType, Kind, Purpose, Reference, embedded, open, probe};
use std::sync::Arc;

const ESX: &str = r#"# Disk DescriptorFile
version=1
encoding="UTF-8"
CID=0172e8a4
parentCID=ffffffff
createType="vmfs"
changeTrackPath="thick-ctk.vmdk"

# Extent description
RW 4 VMFS "thick disk-flat.vmdk"

# The Disk Data Base
#DDB

ddb.adapterType = "lsilogic"
ddb.thinProvisioned = "1"
ddb.longContentID = "c493b057f416b9534001df440172e8a4"
"#;

fn parse(text: impl AsRef<[u8]>) -> Descriptor {
    Descriptor::parse(text.as_ref(), &Limits::default()).unwrap()
}

/// `sectors` sectors; each is filled with its own number.
fn counted(sectors: u8) -> Vec<u8> {
    (1..=sectors).flat_map(|number| [number; 512]).collect()
}

fn file(bytes: Vec<u8>) -> Arc<dyn Disk> {
    MemoryDisk::open("file", bytes)
}

/// The number in the first byte of every sector.
fn numbers(disk: &Arc<dyn Disk>) -> Vec<u8> {
    disk.read_vec(0, disk.size_bytes() as usize).unwrap().chunks(512).map(|s| s[0]).collect()
}

#[test]
fn a_descriptor_of_esxi() {
    let thick = parse(ESX);
    assert_eq!((thick.version, thick.cid, thick.parent_cid), (Some(1), Some(0x0172e8a4), None));
    assert_eq!((thick.create_type.as_str(), thick.size_sectors()), ("vmfs", 4));
    assert_eq!(thick.encoding.as_deref(), Some("UTF-8"));
    assert!(thick.thin() && thick.notes.is_empty());
    assert_eq!(thick.text("DDB.adaptertype").unwrap(), "lsilogic");
    let extent = &thick.extents[0];
    assert_eq!((extent.access, &extent.kind), (Access::ReadWrite, &ExtentType::Vmfs));
    assert_eq!((extent.size_bytes(), extent.offset_sectors, extent.line), (2048, 0, 10));
    assert_eq!(
        thick.references(),
        [
            Reference { name: b"thick disk-flat.vmdk".to_vec(), purpose: Purpose::Extent(0) },
            Reference { name: b"thick-ctk.vmdk".to_vec(), purpose: Purpose::ChangeTrack },
        ]
    );
}

#[test]
fn a_descriptor_with_odd_case_blanks_and_line_ends() {
    let odd = parse(
        "\u{feff}  # disk descriptorfile\r\nVersion = 1 \r\ncid = 0badcafe \r\n\
         PARENTCID=FFFFFFFF\r\ncreatetype = custom\r\n\r\n\
         \trw\t 1024   flat  \"gram-flat.vmdk\"   7  part-uuid dev\r\nRDONLY 256 ZERO \r\n\
         NoAccess 256 ZERO\r\n",
    );
    assert_eq!(
        (odd.cid, odd.parent_cid, odd.create_type.as_str()),
        (Some(0xbadcafe), None, "custom")
    );
    assert_eq!(odd.extents[0].offset_sectors, 7);
    assert_eq!(odd.extents[0].extra, "part-uuid dev");
    assert_eq!(odd.extents[1].access, Access::ReadOnly);
    assert_eq!((odd.extents[2].access, &odd.extents[2].kind), (Access::None, &ExtentType::Zero));
    assert_eq!(odd.size_sectors(), 1536);
    assert!(odd.notes.is_empty(), "{:?}", odd.notes);
}

#[test]
fn a_descriptor_up_to_its_first_nul() {
    let mut padded = ESX.as_bytes().to_vec();
    padded.extend([0; 700]);
    padded.extend(b"\nRW 9 ZERO\n");
    assert_eq!(parse(&padded).size_sectors(), 4);
    assert_eq!(probe(&padded), Some(Kind::Descriptor));
}

#[test]
fn the_whole_key_not_a_part_of_it() {
    // A search for "CID" alone would find the comment, or the parent's.
    let text = "# CID=11111111\nversion=1\nparentCID=22222222\nCID=33333333\n\
                parentFileNameHint=\"/vmfs/volumes/u/base.vmdk\"\nRW 1 SESPARSE \"a\"\n";
    let child = parse(text);
    assert_eq!((child.cid, child.parent_cid), (Some(0x33333333), Some(0x22222222)));
    let parent =
        Reference { name: b"/vmfs/volumes/u/base.vmdk".to_vec(), purpose: Purpose::Parent };
    assert_eq!(child.references()[1], parent);
}

#[test]
fn file_names_byte_by_byte() {
    let name = b"caf\xe9 = #1.vmdk";
    let text = [&b"version=1\nRW 1 FLAT \""[..], name, b"\" 0\n"].concat();
    assert_eq!(parse(text).extents[0].file.as_deref(), Some(&name[..]));
}

#[test]
fn what_each_kind_of_file_is_from_its_first_bytes() {
    assert_eq!(probe(b"KDMV\x01\0\0\0"), Some(Kind::Sparse));
    assert_eq!(probe(b"COWD\x01\0\0\0"), Some(Kind::Cowd));
    let se = [0xbe, 0xba, 0xfe, 0xca, 0, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0];
    assert_eq!(probe(&se), Some(Kind::SeSparse));
    // A Java class starts with the same word.
    assert_eq!(probe(&se[..12]), None);
    assert_eq!(probe(&[0xa2, 0x72, 0x19, 0xf6, 1, 0, 0, 0, 0]), Some(Kind::ChangeTracking));
    assert_eq!(probe(ESX.as_bytes()), Some(Kind::Descriptor));
    assert_eq!(
        probe(b"# Description file created by VMDK stream converter\nversion=1\nCID=1\ncreateType=\"x\"\n"),
        Some(Kind::Descriptor)
    );
}

#[test]
fn other_texts_and_bytes_as_nothing() {
    for other in [
        &b""[..],
        b"version=1\n",
        b"# Disk DescriptorFile\n",
        b"createType=\"x\"\n",
        b"# CID=1 createType=x version=1\n",
        b"version=1\x01\ncreateType=\"x\"\n",
        b"version\0=1\ncreateType=\"x\"\n",
        &[0; 512],
        b"\xebR\x90NTFS    ",
    ] {
        assert_eq!(probe(other), None, "{:?}", String::from_utf8_lossy(other));
    }
}

#[test]
fn where_a_sparse_extent_keeps_its_descriptor() {
    let mut header = vec![0; 512];
    header[..8].copy_from_slice(b"KDMV\x01\0\0\0");
    header[12..20].copy_from_slice(&2048u64.to_le_bytes());
    header[28..36].copy_from_slice(&1u64.to_le_bytes());
    header[36..44].copy_from_slice(&20u64.to_le_bytes());
    let found = embedded(&header).unwrap();
    assert_eq!((found.range, found.capacity_bytes), (512..21 * 512, 1 << 20));
    header[36..44].copy_from_slice(&u64::MAX.to_le_bytes());
    assert_eq!(embedded(&header), None);
    assert_eq!(embedded(b"KDMV"), None);
}

#[test]
fn flat_pieces_of_one_file_around_zeros() {
    let descriptor = parse(
        "version=1\nRW 2 FLAT \"a\" 3\nRDONLY 1 ZERO\nNOACCESS 1 FLAT \"secret\" 0\n\
         RW 0 FLAT \"a\" 0\nRW 1 VMFS \"b\"\nRW 1 FLAT \"a\" 0\n",
    );
    let mut asked = Vec::new();
    let opened = open("mixed.vmdk", &descriptor, &mut |reference| {
        asked.push((reference.text(), reference.purpose));
        Ok(file(counted(if reference.name == b"a" { 9 } else { 1 })))
    })
    .unwrap();
    assert_eq!(numbers(&opened.disk), [4, 5, 0, 0, 1, 1]);
    assert_eq!(
        asked,
        [("a".to_owned(), Purpose::Extent(0)), ("b".to_owned(), Purpose::Extent(4)),]
    );
    assert_eq!(
        opened.notes.iter().map(|note| note.code).collect::<Vec<_>>(),
        ["vmdk-extent-hidden"]
    );
    assert_eq!(opened.disk.explain(0).unwrap().layer, "VMDK mixed.vmdk");
}

#[test]
fn a_disk_as_long_as_its_line_says_though_the_file_is_longer() {
    let opened = open("x", &parse(ESX), &mut |_| Ok(file(counted(9)))).unwrap();
    assert_eq!(numbers(&opened.disk), [1, 2, 3, 4]);
    assert!(opened.notes.is_empty());
}

#[test]
fn the_rest_of_a_disk_whose_extent_is_missing() {
    let descriptor = parse("version=1\nRW 1 FLAT \"a\" 0\nRW 2 FLAT \"b\" 0\nRW 1 FLAT \"a\" 1\n");
    let opened = open("x", &descriptor, &mut |reference: &Reference| -> Result<_> {
        match reference.name.as_slice() {
            b"a" => Ok(file(counted(2))),
            _ => Err(Error::not_found("there is no b")),
        }
    })
    .unwrap();
    assert_eq!(opened.notes[0].code, "vmdk-extent-missing");
    assert!(opened.notes[0].text.contains("\"b\""), "{}", opened.notes[0]);
    assert_eq!(opened.disk.read_vec(0, 512).unwrap()[0], 1);
    assert_eq!(opened.disk.read_vec(3 * 512, 512).unwrap()[0], 2);
    let error = opened.disk.read_vec(511, 2).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Lost);
    assert!(error.detail().contains("\"b\" is missing: there is no b"), "{error}");
}

#[test]
fn the_front_of_an_extent_that_was_cut_short() {
    let opened = open("x", &parse(ESX), &mut |_| Ok(file(vec![7; 700]))).unwrap();
    assert_eq!(opened.disk.size_bytes(), 2048);
    assert_eq!(opened.disk.read_vec(0, 700).unwrap(), [7; 700]);
    let error = opened.disk.read_vec(699, 2).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Lost);
    assert!(error.detail().contains("1348 bytes shorter than the 2048"), "{error}");
    assert_eq!(opened.notes[0].code, "vmdk-extent-short");
}
