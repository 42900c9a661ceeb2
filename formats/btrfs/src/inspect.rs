//! On-disk structures by name, field by field.

use crate::inode::Inode;
use crate::key::Key;
use crate::layout::{RawRoot, item};
use crate::map::describe;
use crate::superblock::uuid;
use crate::volume::Btrfs;
use adit_core::on_disk::{FieldValue, Value};
use adit_core::{Error, FileSystemExt, FindOptions, Inspect, Inspected, NodeId, Problem, Result};

/// Every structure: name with parameters, meaning.
const STRUCTURES: [(&str, &str); 7] = [
    ("superblock", "The newest superblock of all devices."),
    ("devices", "The devices, and which of them are here."),
    ("chunks", "Every chunk: what it holds and where it is."),
    ("subvolumes", "Every subvolume: where it hangs, and its tree."),
    ("inode N", "An inode, by number (SUBVOLUME:INODE) or by /path."),
    ("extents N", "Where the data of inode N is, stretch by stretch."),
    ("log", "Every item the tree log changes."),
];
/// Stretches, chunks and items that are listed.
const LIST_MAX: usize = 10_000;

impl Inspect for Btrfs {
    fn structures(&self) -> Vec<(String, String)> {
        STRUCTURES.iter().map(|(name, text)| ((*name).into(), (*text).into())).collect()
    }

    fn inspect(&self, name: &str) -> Result<Vec<Inspected>> {
        let (what, rest) = name.trim().split_once(' ').unwrap_or((name.trim(), ""));
        match what {
            "superblock" => Ok(vec![self.show_superblock()]),
            "devices" => Ok(self.show_devices()),
            "chunks" => Ok(vec![self.show_chunks()]),
            "subvolumes" => self.show_subvolumes(),
            "inode" => {
                let inode = self.named(rest)?;
                let structure = format!("inode {}:{}", inode.tree.id, inode.ino);
                Ok(vec![Inspected { structure, offset: 0, fields: inode.raw.fields() }])
            }
            "extents" => Ok(vec![self.show_extents(&self.named(rest)?)]),
            "log" => Ok(vec![self.show_log()]),
            _ => {
                let names: Vec<&str> = STRUCTURES.iter().map(|(name, _)| *name).collect();
                Err(Error::not_found(format!("there is no structure {name:?}"))
                    .advise(format!("there are: {}", names.join(", "))))
            }
        }
    }
}

impl Btrfs {
    fn named(&self, text: &str) -> Result<Inode> {
        if text.starts_with('/') {
            let options = FindOptions { follow: false, ..FindOptions::default() };
            let node: NodeId = FileSystemExt::find(self, text.as_bytes(), &options)?;
            return self.inode_of(node);
        }
        match text.split_once(':') {
            Some((subvolume, ino)) => self.inode(number(subvolume)?, number(ino)?),
            None => self.inode(self.roots.default, number(text)?),
        }
    }

    fn show_superblock(&self) -> Inspected {
        let superblock = self.superblock();
        let mut fields = superblock.raw.fields();
        fields.retain(|field| field.name != "sys_chunk_array");
        fields.push(made("features", superblock.features().join(" ")));
        fields.push(made("checksum", superblock.checksum.word().to_owned()));
        Inspected { structure: "superblock".into(), offset: superblock.offset, fields }
    }

    fn show_devices(&self) -> Vec<Inspected> {
        let pool = &self.forest.pool;
        let show = |device: &crate::layout::RawDevItem| {
            let member = pool
                .members
                .iter()
                .find(|member| member.superblock.raw.dev_uuid == device.uuid)
                .map_or("missing".to_owned(), |member| member.label.clone());
            let mut fields = device.fields();
            fields.push(made("here", member));
            fields.push(made("identity", uuid(&device.uuid)));
            Inspected { structure: format!("device {}", device.devid), offset: 0, fields }
        };
        pool.devices.iter().take(LIST_MAX).map(show).collect()
    }

    fn show_chunks(&self) -> Inspected {
        let show = |chunk: &crate::chunk::Chunk| {
            let stripes = chunk.stripes.iter();
            let places: Vec<String> =
                stripes.map(|stripe| format!("{}@{:#x}", stripe.devid, stripe.offset)).collect();
            let text = format!(
                "{} bytes of {}, {}, device@byte: {}",
                chunk.length,
                chunk.contents(),
                chunk.profile(),
                places.join(" ")
            );
            made(&format!("{:#x}", chunk.logical), text)
        };
        let fields = self.forest.pool.chunks.iter().take(LIST_MAX).map(show).collect();
        Inspected { structure: "chunks".into(), offset: 0, fields }
    }

    fn show_subvolumes(&self) -> Result<Vec<Inspected>> {
        let mut found = Vec::new();
        for id in self.forest.subvolumes(&self.roots.tree)?.into_iter().take(LIST_MAX) {
            let key = |offset| Key::new(id, item::ROOT_ITEM, offset);
            let item = self.forest.floor(&self.roots.tree, key(0), key(u64::MAX))?;
            let Some((_, item)) = item else { continue };
            let mut fields = RawRoot::read(&item)?.fields();
            if let Some((above, directory, name)) = self.hangs(id)? {
                let name = String::from_utf8_lossy(&name).into_owned();
                fields.push(made("name", name));
                fields.push(made("hangs_in", format!("subvolume {above}, inode {directory}")));
            }
            fields.push(made("default", (id == self.roots.default).to_string()));
            found.push(Inspected { structure: format!("subvolume {id}"), offset: 0, fields });
        }
        Ok(found)
    }

    fn show_extents(&self, inode: &Inode) -> Inspected {
        let (mut fields, mut at) = (Vec::new(), 0u64);
        while at < inode.raw.size && fields.len() < LIST_MAX {
            let stretch = self.stretch(inode, at);
            let end = stretch.end().min(inode.raw.size).max(at.saturating_add(1));
            fields
                .push(made(&format!("{at:#x}+{:#x}", end.saturating_sub(at)), describe(&stretch)));
            at = end;
        }
        let structure = format!("extents {}:{}", inode.tree.id, inode.ino);
        Inspected { structure, offset: 0, fields }
    }

    fn show_log(&self) -> Inspected {
        let mut fields = Vec::new();
        for (id, changes) in &self.log.changes {
            for (key, value) in changes.iter() {
                let text = match value {
                    Some(value) => format!("{} bytes", value.len()),
                    None => "gone".to_owned(),
                };
                fields.push(made(&format!("subvolume {id}, item {key}"), text));
            }
        }
        fields.truncate(LIST_MAX);
        let offset = self.superblock().raw.log_root;
        Inspected { structure: "log".into(), offset, fields }
    }
}

/// A value that is computed, not stored.
fn made(name: &str, text: String) -> FieldValue {
    let value = Value::Text(text);
    FieldValue { name: name.into(), offset: 0, length: 0, value, meaning: "computed".into() }
}

fn number(text: &str) -> Result<u64> {
    let parsed = match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => text.parse(),
    };
    parsed.map_err(|_| Error::invalid(Problem::BadValue, format!("{text:?} is no number")))
}
