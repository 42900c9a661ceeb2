//! Images and descriptors made by hand.
#![allow(dead_code)]

use adit_core::{Disk, DiskExt, Error, Limits, MemoryDisk, Result};
use adit_parallels::{Descriptor, Image, Reference};
use std::collections::HashMap;
use std::sync::Arc;

pub const SECTORS: &[u8; 16] = b"WithoutFreeSpace";
pub const CLUSTERS: &[u8; 16] = b"WithouFreSpacExt";

/// An image with clusters of `cluster` sectors; sector `i` of the file is filled with `i`, but
/// for the first, which holds header and table.
pub fn image(magic: &[u8; 16], cluster: u32, size: u64, table: &[u32], file: u8) -> Vec<u8> {
    let mut bytes = vec![0; 512];
    put(&mut bytes, 0x00, magic);
    put(&mut bytes, 0x10, &2u32.to_le_bytes());
    put(&mut bytes, 0x1c, &cluster.to_le_bytes());
    put(&mut bytes, 0x20, &(table.len() as u32).to_le_bytes());
    put(&mut bytes, 0x24, &size.to_le_bytes());
    for (index, entry) in table.iter().enumerate() {
        put(&mut bytes, 64 + index * 4, &entry.to_le_bytes());
    }
    for sector in 1..file {
        bytes.extend([sector; 512]);
    }
    bytes
}

pub fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    bytes[at..at + value.len()].copy_from_slice(value);
}

pub fn file(bytes: Vec<u8>) -> Arc<dyn Disk> {
    MemoryDisk::open("file", bytes)
}

pub fn open(bytes: Vec<u8>) -> Result<Image> {
    Image::open(file(bytes), &Limits::default())
}

/// The first byte of every sector.
pub fn numbers(disk: &Arc<dyn Disk>) -> Vec<u8> {
    disk.read_vec(0, disk.size_bytes() as usize).unwrap().chunks(512).map(|s| s[0]).collect()
}

pub fn parse(text: &str) -> Result<Descriptor> {
    Descriptor::parse(text.as_bytes(), &Limits::default())
}

/// A GUID that is all `digit`.
pub fn guid(digit: char) -> String {
    "{00000000-0000-0000-0000-000000000000}".replace('0', &digit.to_string())
}

pub fn storage(start: u64, end: u64, images: &[(char, &str, &str)]) -> String {
    let images: String = images
        .iter()
        .map(|(digit, kind, file)| {
            let guid = guid(*digit);
            format!("<Image><GUID>{guid}</GUID><Type>{kind}</Type><File>{file}</File></Image>")
        })
        .collect();
    format!("<Storage><Start>{start}</Start><End>{end}</End>{images}</Storage>\n")
}

pub fn shot(own: char, parent: char) -> String {
    let (own, parent) = (guid(own), guid(parent));
    format!("<Shot><GUID>{own}</GUID><ParentGUID>{parent}</ParentGUID></Shot>\n")
}

pub fn descriptor(storages: &str, snapshots: &str) -> String {
    format!(
        "<?xml version='1.0' encoding='UTF-8'?>\n<Parallels_disk_image Version=\"1.0\">\n\
         <StorageData>{storages}</StorageData><Snapshots>{snapshots}</Snapshots>\
         </Parallels_disk_image>\n"
    )
}

/// Finds files by name in a map.
pub fn among(files: &[(&str, Vec<u8>)]) -> impl FnMut(&Reference) -> Result<Arc<dyn Disk>> + use<> {
    let mut files: HashMap<String, Arc<dyn Disk>> =
        files.iter().map(|(name, bytes)| (name.to_string(), file(bytes.clone()))).collect();
    // Taken out: nothing may be asked for twice.
    move |reference| {
        let found = files.remove(&reference.text());
        found.ok_or_else(|| Error::not_found(format!("no {}", reference.text())))
    }
}
