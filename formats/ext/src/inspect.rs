//! On-disk structures by name, field by field.

use crate::inode::Ino;
use crate::volume::Ext;
use adit_core::on_disk::{FieldValue, Value};
use adit_core::{Error, FileSystemExt, FindOptions, Inspect, Inspected, Problem, Result};

/// Every structure: name with parameters, meaning.
const STRUCTURES: [(&str, &str); 6] = [
    ("superblock", "The file-system header, as the journal leaves it."),
    ("group N", "The descriptor of group N."),
    ("inode N", "An inode, by number or by /path."),
    ("extents N", "Where the blocks of inode N are, stretch by stretch."),
    ("journal", "The journal's superblock, and what was applied."),
    ("journal-blocks", "Every block that is read from the journal."),
];
/// Stretches and blocks that are listed.
const LIST_MAX: usize = 10_000;

impl Inspect for Ext {
    fn structures(&self) -> Vec<(String, String)> {
        STRUCTURES.iter().map(|(name, text)| ((*name).into(), (*text).into())).collect()
    }

    fn inspect(&self, name: &str) -> Result<Vec<Inspected>> {
        let (what, rest) = name.trim().split_once(' ').unwrap_or((name.trim(), ""));
        match what {
            "superblock" => Ok(vec![self.show_superblock()]),
            "group" => Ok(vec![self.show_group(number(rest)?)?]),
            "inode" => self.show_inode(self.named(rest)?),
            "extents" => Ok(vec![self.show_extents(self.named(rest)?)?]),
            "journal" => Ok(vec![self.show_journal()?]),
            "journal-blocks" => Ok(vec![self.show_journal_blocks()]),
            _ => {
                let names: Vec<&str> = STRUCTURES.iter().map(|(name, _)| *name).collect();
                Err(Error::not_found(format!("there is no structure {name:?}"))
                    .advise(format!("there are: {}", names.join(", "))))
            }
        }
    }
}

impl Ext {
    fn named(&self, text: &str) -> Result<Ino> {
        if text.starts_with('/') {
            let options = FindOptions { follow: false, ..FindOptions::default() };
            return Ino::of(FileSystemExt::find(self, text.as_bytes(), &options)?);
        }
        Ino::of(adit_core::NodeId(number(text)?))
    }

    fn show_superblock(&self) -> Inspected {
        let superblock = self.superblock();
        let mut fields = superblock.raw.fields();
        fields.push(made("version", Value::Text(superblock.generation().into())));
        fields.push(made("blocks", Value::Uint(superblock.blocks)));
        fields.push(made("groups", Value::Uint(superblock.groups)));
        Inspected { structure: "superblock".into(), offset: superblock.offset, fields }
    }

    fn show_group(&self, number: u64) -> Result<Inspected> {
        let group = self.group(number)?;
        let mut fields = group.raw.fields();
        fields.retain(|field| {
            adit_core::bytes::wide(field.offset) < self.superblock().descriptor_size
        });
        fields.push(made("inode_table", Value::Uint(group.inode_table)));
        fields.push(made("block_bitmap", Value::Uint(group.block_bitmap)));
        fields.push(made("inode_bitmap", Value::Uint(group.inode_bitmap)));
        Ok(Inspected { structure: format!("group {number}"), offset: group.offset, fields })
    }

    fn show_inode(&self, ino: Ino) -> Result<Vec<Inspected>> {
        let inode = self.inode_unchecked(ino)?;
        let mut fields = inode.raw.fields();
        let sum = match self.verify_inode(&inode) {
            Ok(()) => "right, or none".to_owned(),
            Err(error) => error.detail().to_owned(),
        };
        fields.push(made("checksum_is", Value::Text(sum)));
        let structure = format!("inode {}", ino.0);
        let mut shown = vec![Inspected { structure, offset: inode.offset, fields }];
        if self.superblock().inode_size > 128 {
            let structure = format!("inode {} extra", ino.0);
            let offset = inode.offset.saturating_add(128);
            shown.push(Inspected { structure, offset, fields: inode.extra.fields() });
        }
        Ok(shown)
    }

    fn show_extents(&self, ino: Ino) -> Result<Inspected> {
        use crate::mapping::What;
        let inode = self.inode(ino)?;
        let end = self.length(&inode).div_ceil(self.superblock().block_size.get());
        let inline = inode.has(crate::layout::inode_flags::INLINE_DATA)
            || inode.fast_link().is_some() && inode.kind() == Some(adit_core::NodeKind::Symlink);
        let mut fields = Vec::new();
        let mut at = 0u64;
        while at < end && !inline && fields.len() < LIST_MAX {
            let stretch = self.stretch(&inode, at);
            let length = stretch.length.min(end.saturating_sub(at));
            let text = match stretch.what {
                What::Hole => "hole".to_owned(),
                What::Unwritten => "unwritten".to_owned(),
                What::Block(block) => format!("block {block}"),
                What::Logged(block) => format!("block {block}, newer in the journal"),
                What::Lost(error) => format!("lost: {error}"),
            };
            fields.push(made(&format!("{at}+{length}"), Value::Text(text)));
            at = at.saturating_add(length);
        }
        Ok(Inspected { structure: format!("extents {}", ino.0), offset: inode.offset, fields })
    }

    fn show_journal(&self) -> Result<Inspected> {
        let journal = self.journal();
        let Some(raw) = &journal.raw else {
            return Err(Error::not_found("there is no journal that could be read"));
        };
        let mut fields = raw.fields();
        fields.push(made("applied_transactions", Value::Uint(journal.transactions)));
        fields.push(made("applied_blocks", Value::Uint(journal.blocks())));
        Ok(Inspected { structure: "journal".into(), offset: 0, fields })
    }

    fn show_journal_blocks(&self) -> Inspected {
        let list = self.overlay().iter().take(LIST_MAX);
        let fields = list.map(|(block, copy)| {
            let state = match (copy.damage().is_some(), copy.is_escaped()) {
                (true, _) => ", damaged",
                (_, true) => ", escaped",
                _ => "",
            };
            let text =
                format!("journal block {}, transaction {}{state}", copy.block(), copy.sequence());
            made(&format!("block {block}"), Value::Text(text))
        });
        let fields = fields.collect();
        Inspected { structure: "journal-blocks".into(), offset: 0, fields }
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
