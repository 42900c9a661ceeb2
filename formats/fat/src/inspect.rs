//! On-disk structures by name, field by field.

use crate::layout::{
    ExBoot, FatBoot, FileEntry, FsInfo, LargeTail, LongEntry, ShortEntry, SmallTail, StreamEntry,
    slot,
};
use crate::scan::{Scan, Step};
use crate::shape::Variant;
use crate::table::{Held, Link};
use crate::volume::Fat;
use adit_core::on_disk::{FieldValue, Value};
use adit_core::{
    DiskExt, Error, FileSystemExt, FindOptions, Inspect, Inspected, NodeId, Problem, Result,
};
use std::sync::Arc;

/// Every structure: name with parameters, meaning.
const STRUCTURES: [(&str, &str); 6] = [
    ("boot", "The boot sector."),
    ("fsinfo", "FSInfo of FAT32."),
    ("cluster N", "What the FAT says of a cluster."),
    ("directory N", "Every slot of a directory, by byte or by /path."),
    ("entry N", "The slots of a file, by byte or by /path."),
    ("extents N", "Where the bytes of a file are, by byte or by /path."),
];
/// Slots and pieces that are listed.
const LIST_MAX: usize = 10_000;

impl Inspect for Fat {
    fn structures(&self) -> Vec<(String, String)> {
        STRUCTURES.iter().map(|(name, text)| ((*name).into(), (*text).into())).collect()
    }

    fn inspect(&self, name: &str) -> Result<Vec<Inspected>> {
        let (what, rest) = name.trim().split_once(' ').unwrap_or((name.trim(), ""));
        match what {
            "boot" => self.show_boot(),
            "fsinfo" => self.show_info(),
            "cluster" => self.show_cluster(number(rest)?),
            "directory" => self.show_directory(self.named(rest)?),
            "entry" => self.show_entry(self.named(rest)?),
            "extents" => self.show_extents(self.named(rest)?),
            _ => {
                let names: Vec<&str> = STRUCTURES.iter().map(|(name, _)| *name).collect();
                Err(Error::not_found(format!("there is no structure {name:?}"))
                    .advise(format!("there are: {}", names.join(", "))))
            }
        }
    }
}

impl Fat {
    fn named(&self, text: &str) -> Result<NodeId> {
        if text.starts_with('/') {
            let options = FindOptions { follow: false, ..FindOptions::default() };
            return FileSystemExt::find(self, text.as_bytes(), &options);
        }
        number(text).map(NodeId)
    }

    fn show_boot(&self) -> Result<Vec<Inspected>> {
        let shape = self.shape();
        let offset = shape.boot_offset;
        let bytes = self.disk().read_vec(offset, 512)?;
        let mut fields = match shape.variant {
            Variant::ExFat => ExBoot::read(&bytes)?.fields(),
            variant => {
                let raw = FatBoot::read(&bytes)?;
                let mut fields = raw.fields();
                fields.retain(|field| field.name != "rest");
                let mut tail = match variant {
                    Variant::Fat32 => LargeTail::read(&raw.rest)?.fields(),
                    _ => SmallTail::read(&raw.rest)?.fields(),
                };
                for field in &mut tail {
                    field.offset = field.offset.saturating_add(0x24);
                }
                fields.extend(tail);
                fields
            }
        };
        fields.push(made("variant", Value::Text(shape.variant.title().into())));
        fields.push(made("clusters", Value::Uint(shape.clusters.into())));
        fields.push(made("cluster_bytes", Value::Uint(shape.cluster_bytes.get())));
        fields.push(made("heap_offset", Value::Uint(shape.heap_offset)));
        fields.push(made(
            "fat_trusted_first",
            match self.table().copies().first() {
                Some(copy) => Value::Uint((*copy).into()),
                None => Value::Text("none".into()),
            },
        ));
        Ok(vec![Inspected { structure: "boot".into(), offset, fields }])
    }

    fn show_info(&self) -> Result<Vec<Inspected>> {
        let offset = self.shape().info_offset;
        let offset = offset.ok_or_else(|| Error::not_found("only FAT32 has an FSInfo"))?;
        let fields = FsInfo::read(&self.disk().read_vec(offset, FsInfo::SIZE)?)?.fields();
        Ok(vec![Inspected { structure: "fsinfo".into(), offset, fields }])
    }

    fn show_cluster(&self, cluster: u64) -> Result<Vec<Inspected>> {
        let there = u32::try_from(cluster).ok().filter(|c| self.shape().has_cluster(*c));
        let cluster = there.ok_or_else(|| {
            let last = self.shape().cluster_end().saturating_sub(1);
            Error::not_found(format!("clusters go from 2 to {last}"))
        })?;
        let mut held = Held::default();
        let raw = self.table().raw(cluster, &mut held)?;
        let link = match self.table().link(cluster, &mut held)? {
            Link::Free => "free".to_owned(),
            Link::Next(next) => format!("goes on in cluster {next:#x}"),
            Link::End => "the last one of its chain".to_owned(),
            Link::Bad => "bad".to_owned(),
            Link::Nonsense(_) => "no such cluster".to_owned(),
        };
        let fields = vec![
            made("entry", Value::Uint(raw.into())),
            made("meaning", Value::Text(link)),
            made("data_offset", Value::Uint(self.shape().cluster_offset(cluster))),
        ];
        let offset = self.table().entry_offset(cluster);
        Ok(vec![Inspected { structure: format!("cluster {cluster}"), offset, fields }])
    }

    fn show_directory(&self, id: NodeId) -> Result<Vec<Inspected>> {
        let dir = self.directory(id)?;
        let mut scan = Scan::new(self, Arc::new(self.runs(&dir)), 0);
        let mut shown = Vec::new();
        while let Some(step) = scan.step() {
            let slot = match step {
                Step::Gap(error) => return Err(error),
                Step::Slot(slot) => slot,
            };
            if slot.bytes.first() == Some(&0) || shown.len() >= LIST_MAX {
                break;
            }
            shown.push(self.show_slot(&slot.bytes, slot.position)?);
        }
        Ok(shown)
    }

    fn show_entry(&self, id: NodeId) -> Result<Vec<Inspected>> {
        self.node(id)?;
        let count = match self.shape().variant {
            Variant::ExFat => 2,
            _ => 1,
        };
        let positions = (0u64..count).map(|index| id.0.saturating_add(index.saturating_mul(32)));
        let mut shown = Vec::new();
        for position in positions {
            shown.push(self.show_slot(&self.disk().read_vec(position, 32)?, position)?);
        }
        Ok(shown)
    }

    fn show_slot(&self, bytes: &[u8], position: u64) -> Result<Inspected> {
        let kind = bytes.first().copied().unwrap_or(0);
        let long = bytes.get(11).is_some_and(|attributes| attributes & 0x3f == 0x0f);
        let (structure, fields) = match self.shape().variant {
            Variant::ExFat => match kind {
                slot::FILE => ("file", FileEntry::read(bytes)?.fields()),
                slot::STREAM => ("stream", StreamEntry::read(bytes)?.fields()),
                _ => ("slot", vec![made("bytes", Value::Bytes(bytes.to_vec()))]),
            },
            _ if long => ("long name", LongEntry::read(bytes)?.fields()),
            _ => ("short name", ShortEntry::read(bytes)?.fields()),
        };
        Ok(Inspected { structure: structure.into(), offset: position, fields })
    }

    fn show_extents(&self, id: NodeId) -> Result<Vec<Inspected>> {
        let node = self.node(id)?;
        let runs = self.runs(&node);
        let pieces = runs.pieces().iter().take(LIST_MAX).map(|piece| {
            let text = format!("byte {:#x} of the volume", piece.offset);
            made(&format!("{:#x}+{:#x}", piece.start, piece.length), Value::Text(text))
        });
        let mut fields: Vec<FieldValue> = pieces.collect();
        if let Some(error) = runs.broken() {
            fields.push(made("broken", Value::Text(error.to_string())));
        }
        Ok(vec![Inspected { structure: "extents".into(), offset: id.0, fields }])
    }
}

/// A value that is computed, not stored.
fn made(name: &str, value: Value) -> FieldValue {
    FieldValue { name: name.into(), offset: 0, length: 0, value, meaning: "computed".into() }
}

fn number(text: &str) -> Result<u64> {
    let parsed = match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => text.parse(),
    };
    parsed.map_err(|_| Error::invalid(Problem::BadValue, format!("{text:?} is no number")))
}
