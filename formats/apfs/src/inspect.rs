//! On-disk structures by name, field by field.

use crate::container::Apfs;
use crate::layout::{ContainerSuperblock, ObjectHeader, VolumeSuperblock};
use adit_core::bytes::narrow;
use adit_core::{
    DiskExt, Error, FileSystemExt, FindOptions, Inspect, Inspected, NodeId, Problem, Result,
};

const STRUCTURES: [(&str, &str); 4] = [
    ("superblock", "The container's superblock that is used."),
    ("volume N", "A volume's superblock, by its place among those that are open."),
    ("inode N", "A node, by number or by /path."),
    ("object N", "The head of the object in a block."),
];

impl Inspect for Apfs {
    fn structures(&self) -> Vec<(String, String)> {
        STRUCTURES.iter().map(|(name, text)| ((*name).into(), (*text).into())).collect()
    }

    fn inspect(&self, name: &str) -> Result<Vec<Inspected>> {
        let (what, rest) = name.trim().split_once(' ').unwrap_or((name.trim(), ""));
        let block = |address: u64| address.saturating_mul(self.blocks.wide());
        let (structure, offset, fields) = match what {
            "superblock" => {
                let at = self.superblock_at;
                let raw = self.blocks.disk.read_prefix(at, ContainerSuperblock::SIZE)?;
                (
                    "APFS container superblock".to_owned(),
                    at,
                    ContainerSuperblock::read(&raw)?.fields(),
                )
            }
            "volume" => {
                let number = if rest.is_empty() { 0 } else { number(rest)? };
                let volume = narrow(number).and_then(|number| self.volumes.get(number));
                let volume = volume.ok_or_else(|| {
                    Error::not_found(format!("there are {} volumes", self.volumes.len()))
                })?;
                let at = block(volume.address);
                let raw = self.blocks.disk.read_prefix(at, VolumeSuperblock::SIZE)?;
                (format!("APFS volume {number}"), at, VolumeSuperblock::read(&raw)?.fields())
            }
            "inode" => {
                let node = if rest.starts_with('/') {
                    let options = FindOptions { follow: false, ..FindOptions::default() };
                    FileSystemExt::find(self, rest.as_bytes(), &options)?
                } else {
                    NodeId(number(rest)?)
                };
                let inode = self.inode(node)?;
                (format!("APFS inode {}", inode.number), 0, inode.raw.fields())
            }
            "object" => {
                let at = block(number(rest)?);
                let raw = self.blocks.disk.read_prefix(at, ObjectHeader::SIZE)?;
                ("APFS object".to_owned(), at, ObjectHeader::read(&raw)?.fields())
            }
            _ => {
                let names: Vec<&str> = STRUCTURES.iter().map(|(name, _)| *name).collect();
                return Err(Error::not_found(format!("there is no structure {name:?}"))
                    .advise(format!("there are: {}", names.join(", "))));
            }
        };
        Ok(vec![Inspected { structure, offset, fields }])
    }
}

fn number(text: &str) -> Result<u64> {
    text.trim()
        .parse()
        .map_err(|_| Error::invalid(Problem::BadValue, format!("{text:?} is no number")))
}
