//! On-disk structures by name, field by field.

use crate::inode::Body;
use crate::layout::flag;
use crate::volume::Squash;
use adit_core::on_disk::{FieldValue, Value};
use adit_core::{
    DiskExt, Error, ExtentKind, FileSystem, FileSystemExt, FindOptions, Fork, Inspect, Inspected,
    NodeId, Problem, Result,
};

/// Every structure: name with parameters, meaning.
const STRUCTURES: [(&str, &str); 4] = [
    ("superblock", "The file-system header."),
    ("inode N", "An inode, by node or by /path."),
    ("fragment N", "Where a fragment block is."),
    ("extents N", "Where the bytes of a file are, by node or by /path."),
];
/// Extents that are listed.
const LIST_MAX: usize = 10_000;

impl Inspect for Squash {
    fn structures(&self) -> Vec<(String, String)> {
        STRUCTURES.iter().map(|(name, text)| ((*name).into(), (*text).into())).collect()
    }

    fn inspect(&self, name: &str) -> Result<Vec<Inspected>> {
        let (what, rest) = name.trim().split_once(' ').unwrap_or((name.trim(), ""));
        match what {
            "superblock" => Ok(vec![self.show_superblock()]),
            "inode" => Ok(vec![self.show_inode(self.named(rest)?)?]),
            "fragment" => Ok(vec![self.show_fragment(number(rest)?)?]),
            "extents" => Ok(vec![self.show_extents(self.named(rest)?)?]),
            _ => {
                let names: Vec<&str> = STRUCTURES.iter().map(|(name, _)| *name).collect();
                Err(Error::not_found(format!("there is no structure {name:?}"))
                    .advise(format!("there are: {}", names.join(", "))))
            }
        }
    }
}

impl Squash {
    fn named(&self, text: &str) -> Result<NodeId> {
        if text.starts_with('/') {
            let options = FindOptions { follow: false, ..FindOptions::default() };
            return FileSystemExt::find(self, text.as_bytes(), &options);
        }
        number(text).map(NodeId)
    }

    fn show_superblock(&self) -> Inspected {
        let superblock = self.superblock();
        let mut fields = superblock.raw.fields();
        let flags = flag::NAMES.iter().filter(|(bit, _)| superblock.raw.flags & bit != 0);
        let flags: Vec<&str> = flags.map(|(_, name)| *name).collect();
        fields.push(made("flags_names", Value::Text(flags.join(" "))));
        fields.push(made("codec_name", Value::Text(superblock.codec.title().into())));
        Inspected { structure: "superblock".into(), offset: 0, fields }
    }

    fn show_inode(&self, id: NodeId) -> Result<Inspected> {
        let inode = self.inode(id)?;
        let mut fields = inode.header.fields();
        fields.push(made("links", Value::Uint(inode.links.into())));
        fields.push(made(
            "body",
            Value::Text(match &inode.body {
                Body::Directory { start, offset, length, .. } => {
                    format!("a listing of {length} bytes, at {start:#x} and {offset} in it")
                }
                Body::File { start, size, fragment, .. } => {
                    let end = fragment.map_or(String::new(), |(index, offset)| {
                        format!(", its end in fragment {index} at {offset}")
                    });
                    format!("{size} bytes from {start:#x} on{end}")
                }
                Body::Symlink { target } => String::from_utf8_lossy(target).into_owned(),
                Body::Device { device } => format!("device {device:#x}"),
                Body::Ipc => "nothing more".to_owned(),
            }),
        ));
        // The packed block that holds it.
        let offset = self.superblock().raw.inode_table.saturating_add(inode.reference >> 16);
        Ok(Inspected { structure: format!("inode {}", inode.header.number), offset, fields })
    }

    fn show_fragment(&self, index: u64) -> Result<Inspected> {
        let index = u32::try_from(index).unwrap_or(u32::MAX);
        let fragment = self.fragment(index)?;
        let fields = vec![
            made("start", Value::Uint(fragment.start)),
            made("size", Value::Uint(fragment.size)),
            made("stored", Value::Text(if fragment.stored { "as it is" } else { "packed" }.into())),
        ];
        Ok(Inspected { structure: format!("fragment {index}"), offset: fragment.start, fields })
    }

    fn show_extents(&self, id: NodeId) -> Result<Inspected> {
        let disk = FileSystem::open(self, id, &Fork::Data)?;
        let (mut fields, mut at) = (Vec::new(), 0u64);
        while at < disk.size_bytes() && fields.len() < LIST_MAX {
            let extent = disk.extent_at(at)?;
            let text = match &extent.kind {
                ExtentKind::Hole | ExtentKind::Zero => "hole".to_owned(),
                ExtentKind::Data => disk.explain(at)?.steps.join("; "),
                ExtentKind::Verbatim { offset, .. } => format!("as it is at {offset:#x}"),
                ExtentKind::Lost(error) => format!("lost: {error}"),
            };
            fields.push(made(&format!("{at:#x}+{:#x}", extent.length), Value::Text(text)));
            at = at.saturating_add(extent.length.max(1));
        }
        Ok(Inspected { structure: "extents".into(), offset: 0, fields })
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
