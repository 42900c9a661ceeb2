//! On-disk structures by name, field by field.

use crate::layout::{BootEntry, ValidationEntry};
use crate::volume::Iso;
use adit_core::on_disk::{FieldValue, Value};
use adit_core::{
    DiskExt, Error, FileSystemExt, FindOptions, Inspect, Inspected, NodeId, Problem, Result,
};

/// Every structure: name with parameters, meaning.
const STRUCTURES: [(&str, &str); 4] = [
    ("descriptors", "The volume descriptors, and which trees of names there are."),
    ("boot", "The boot catalog of El Torito."),
    ("record N", "The directory record of a file, by byte or by /path."),
    ("system N", "What stands behind the name in a record, entry by entry."),
];

impl Inspect for Iso {
    fn structures(&self) -> Vec<(String, String)> {
        STRUCTURES.iter().map(|(name, text)| ((*name).into(), (*text).into())).collect()
    }

    fn inspect(&self, name: &str) -> Result<Vec<Inspected>> {
        let (what, rest) = name.trim().split_once(' ').unwrap_or((name.trim(), ""));
        match what {
            "descriptors" => Ok(self.show_descriptors()),
            "boot" => self.show_boot(),
            "record" => self.show_record(self.named(rest)?),
            "system" => self.show_system(self.named(rest)?),
            _ => {
                let names: Vec<&str> = STRUCTURES.iter().map(|(name, _)| *name).collect();
                Err(Error::not_found(format!("there is no structure {name:?}"))
                    .advise(format!("there are: {}", names.join(", "))))
            }
        }
    }
}

impl Iso {
    fn named(&self, text: &str) -> Result<NodeId> {
        if text.starts_with('/') {
            let options = FindOptions { follow: false, ..FindOptions::default() };
            return FileSystemExt::find(self, text.as_bytes(), &options);
        }
        number(text).map(NodeId)
    }

    fn show_descriptors(&self) -> Vec<Inspected> {
        let all = self.descriptors();
        let volumes = [
            ("primary", Some(&all.primary)),
            ("joliet", all.joliet.as_ref()),
            ("enhanced", all.enhanced.as_ref()),
        ];
        let there = volumes.into_iter().filter_map(|(name, volume)| Some((name, volume?)));
        let mut shown: Vec<Inspected> = there
            .map(|(name, volume)| {
                let mut fields = volume.raw.fields();
                fields.push(made(
                    "root_offset",
                    Value::Uint(volume.root.data_block().saturating_mul(volume.block_bytes.get())),
                ));
                Inspected { structure: name.into(), offset: volume.offset, fields }
            })
            .collect();
        let trees = self.trees().iter().map(|tree| Value::Text(tree.title().into())).collect();
        let fields = vec![
            made("trees", Value::List(trees)),
            made("shown", Value::Text(self.tree().title().into())),
        ];
        shown.push(Inspected { structure: "trees".into(), offset: 0, fields });
        shown
    }

    fn show_boot(&self) -> Result<Vec<Inspected>> {
        let offset = self.catalog_offset();
        let offset = offset.ok_or_else(|| Error::not_found("the disc has no boot catalog"))?;
        let bytes = self.disk().read_prefix(offset, ValidationEntry::SIZE)?;
        let fields = ValidationEntry::read(&bytes)?.fields();
        let mut shown = vec![Inspected { structure: "boot catalog".into(), offset, fields }];
        for image in self.boot() {
            let bytes = self.disk().read_prefix(image.entry_offset, BootEntry::SIZE)?;
            let mut fields = BootEntry::read(&bytes)?.fields();
            fields.push(made("platform", Value::Text(image.platform_name().into())));
            fields.push(made("emulates", Value::Text(image.media_name().into())));
            fields.push(made("image_offset", Value::Uint(image.offset)));
            fields.push(made("load_bytes", Value::Uint(image.load_bytes)));
            let structure = "boot image".into();
            shown.push(Inspected { structure, offset: image.entry_offset, fields });
        }
        Ok(shown)
    }

    fn show_record(&self, id: NodeId) -> Result<Vec<Inspected>> {
        let node = self.node(id)?;
        let mut fields = node.record.raw.fields();
        fields.push(made("name", Value::Bytes(node.record.name.clone())));
        for section in &node.sections {
            let text = format!("{} bytes at {:#x}", section.length, section.offset);
            fields.push(made("section", Value::Text(text)));
        }
        let offset = node.record.offset;
        Ok(vec![Inspected { structure: "directory record".into(), offset, fields }])
    }

    fn show_system(&self, id: NodeId) -> Result<Vec<Inspected>> {
        let record = self.record_at(id.0)?;
        let entries = self.entries(&record.system, 0)?;
        let fields = entries.into_iter().map(|entry| {
            let name = String::from_utf8_lossy(&entry.signature).into_owned();
            made(&name, Value::Bytes(entry.data().to_vec()))
        });
        let fields = fields.collect();
        Ok(vec![Inspected { structure: "system use".into(), offset: record.offset, fields }])
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
