//! VMDK shows… each field where it stands in the file.

mod images;

use adit_core::on_disk::Value;
use adit_core::{Disk, DiskExt, Inspect, Inspected, Kind, Limits, MemoryDisk, WritableDisk};
use adit_vmdk::{CreateOptions, Structures, Subformat};
use images::*;
use std::sync::Arc;

fn written(subformat: Subformat) -> Image {
    let options = options(4 * MIB, subformat);
    let parent = matches!(subformat, Subformat::VmfsSparse | Subformat::SeSparse)
        .then(|| parent_record("00c0ffee", 4 * MIB));
    let base = parent.as_ref().map(|_| MemoryDisk::open("base", vec![0; 4 * MIB]));
    let image = Image::create(&CreateOptions { parent, ..options }, base);
    let writer = image.writer();
    writer.write_at(&[7; 512], 0x21_0000).unwrap();
    adit_core::WritableImage::close(&writer).unwrap();
    image
}

fn file(image: &Image, name: &str) -> (Vec<u8>, Structures) {
    let file: Arc<dyn Disk> = image.file(name).unwrap();
    let bytes = file.read_vec(0, file.size_bytes() as usize).unwrap();
    (bytes, Structures::of(file, &Limits::default()).unwrap())
}

fn one(structures: &Structures, name: &str) -> Inspected {
    let mut all = structures.inspect(name).unwrap_or_else(|error| panic!("{name}: {error:?}"));
    assert_eq!(all.len(), 1, "{name}");
    all.remove(0)
}

fn number(inspected: &Inspected, field: &str) -> u64 {
    let found = inspected.fields.iter().find(|f| f.name == field);
    match found.unwrap_or_else(|| panic!("{field} of {inspected:?}")).value {
        Value::Uint(number) => number,
        ref other => panic!("{field}: {other:?}"),
    }
}

fn le(bytes: &[u8], at: usize, length: usize) -> u64 {
    bytes[at..at + length].iter().rev().fold(0, |sum, &byte| sum << 8 | u64::from(byte))
}

/// Every number of a header is what stands at its offset, and the named fields are all there.
fn header_is(bytes: &[u8], header: &Inspected, names: &[&str]) {
    let known: Vec<&str> = header.fields.iter().map(|field| field.name.as_str()).collect();
    assert_eq!(known, names);
    for field in &header.fields {
        if let Value::Uint(value) = field.value {
            let at = header.offset as usize + field.offset;
            assert_eq!(value, le(bytes, at, field.length), "{}", field.name);
        }
    }
}

#[test]
fn the_keys_of_a_descriptor_and_where_they_stand() {
    let image = written(Subformat::Vmfs);
    let (bytes, structures) = file(&image, "disk.vmdk");
    let keys = one(&structures, "descriptor");
    let text = |key: &str| {
        let field = keys.fields.iter().find(|field| field.name == key).unwrap();
        assert!(bytes[field.offset..].starts_with(key.as_bytes()), "{key}");
        field.value.to_string()
    };
    assert_ne!(text("CID"), "1234abcd", "a write gives another");
    assert_eq!(text("CID").len(), 8);
    assert_eq!(text("parentCID"), "ffffffff");
    assert_eq!(text("createType"), "vmfs");
    assert_eq!(text("ddb.adapterType"), "lsilogic");
    assert!(keys.fields.iter().any(|field| field.name == "ddb.virtualHWVersion"));
    let extents = one(&structures, "extents");
    assert_eq!(extents.fields.len(), 1);
    assert_eq!(extents.fields[0].value.to_string(), "RW 8192 VMFS \"disk-flat.vmdk\"");
    assert!(bytes[extents.fields[0].offset..].starts_with(b"RW 8192"));
}

#[test]
fn a_hosted_extent() {
    let image = written(Subformat::MonolithicSparse);
    let (bytes, structures) = file(&image, "disk.vmdk");
    let names = [
        "magic",
        "version",
        "flags",
        "capacity",
        "grain_size",
        "descriptor_offset",
        "descriptor_size",
        "table_entries",
        "redundant_directory",
        "directory",
        "overhead",
        "unclean",
        "newline_test",
        "compression",
    ];
    header_is(&bytes, &one(&structures, "header"), &names);
    assert_eq!(number(&one(&structures, "header"), "capacity"), 8192);
    let keys = one(&structures, "descriptor");
    assert_eq!(keys.offset, 512);
    let field = keys.fields.iter().find(|field| field.name == "createType").unwrap();
    assert!(bytes[512 + field.offset..].starts_with(b"createType=\"monolithicSparse\""));
    // Byte 0x210000 is in grain 33; the grain entry names the sector its bytes are at.
    let grain = one(&structures, "grain 33");
    let sector = number(&grain, "grain entry");
    assert_eq!(sector, le(&bytes, grain.offset as usize, 4));
    assert_eq!(bytes[sector as usize * 512], 7);
    assert_eq!(number(&one(&structures, "grain 32"), "grain entry"), 0);
    let directory = one(&structures, "directory 0");
    assert_eq!(number(&directory, "entry"), le(&bytes, directory.offset as usize, 4));
    assert!(number(&directory, "copy") != number(&directory, "entry"));
    let error = structures.inspect("footer").unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound);
}

#[test]
fn an_esx_extent() {
    let image = written(Subformat::VmfsSparse);
    let (bytes, structures) = file(&image, "disk-delta.vmdk");
    let names = [
        "magic",
        "version",
        "flags",
        "capacity",
        "grain_size",
        "directory",
        "directory_entries",
        "next_free",
        "parent_name",
        "parent_generation",
        "generation",
        "name",
        "description",
        "saved_generation",
        "reserved",
        "unclean",
    ];
    header_is(&bytes, &one(&structures, "header"), &names);
    let grain = one(&structures, "grain 4224");
    assert_eq!(bytes[number(&grain, "grain entry") as usize * 512], 7);
    assert!(structures.inspect("descriptor").is_err());
}

#[test]
fn an_sesparse_extent() {
    let image = written(Subformat::SeSparse);
    let (bytes, structures) = file(&image, "disk-sesparse.vmdk");
    let header = one(&structures, "header");
    assert_eq!(header.fields.len(), 24);
    for field in &header.fields {
        if let Value::Uint(value) = field.value {
            assert_eq!(value, le(&bytes, field.offset, 8), "{}", field.name);
        }
    }
    let volatile = one(&structures, "volatile");
    assert_eq!((volatile.offset, number(&volatile, "free_table")), (512, 1));
    assert_eq!(number(&one(&structures, "journal"), "magic"), 0xdeaf_c0de);
    // Grain 528 of the disk is the first that was stored: grain 0 of the file.
    assert_eq!(number(&one(&structures, "grain 528"), "grain entry"), 3 << 60);
    let back = one(&structures, "back 0");
    assert_eq!((number(&back, "back"), number(&back, "in_use")), (1 << 60 | 528 << 48, 1));
    assert_eq!(number(&one(&structures, "back 9"), "in_use"), 0);
}

#[test]
fn structures_that_are_not_there_by_the_names_of_those_that_are() {
    let image = written(Subformat::Vmfs);
    let (_, structures) = file(&image, "disk.vmdk");
    for name in ["", "header", "grain", "grain 3", "descriptor 1", "grain x"] {
        let error = structures.inspect(name).unwrap_err();
        assert_eq!(error.kind(), Kind::NotFound, "{name}");
        assert_eq!(error.advice(), Some("there are: descriptor, extents"), "{name}");
    }
    let image = written(Subformat::SeSparse);
    let (_, structures) = file(&image, "disk-sesparse.vmdk");
    for name in ["grain 1024", "back 99999999", "directory 1", "grain 18446744073709551615"] {
        assert_eq!(structures.inspect(name).unwrap_err().kind(), Kind::NotFound, "{name}");
    }
}
