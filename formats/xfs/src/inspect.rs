//! On-disk structures by name, field by field.

use crate::bmap::What;
use crate::inode::ForkKind;
use crate::layout::{BASIC_BLOCK, format};
use crate::volume::Xfs;
use adit_core::on_disk::{FieldValue, Value};
use adit_core::{Error, FileSystemExt, FindOptions, Inspect, Inspected, Problem, Result};

/// Every structure: name with parameters, meaning.
const STRUCTURES: [(&str, &str); 7] = [
    ("superblock", "The file-system header, as the log leaves it."),
    ("agf N", "The header of the free space of group N."),
    ("agi N", "The header of the inodes of group N."),
    ("inode N", "An inode, by number or by /path."),
    ("extents N", "Where the blocks of inode N are, stretch by stretch."),
    ("log", "What was found in the log."),
    ("log-sectors", "Every sector the log changes."),
];
/// Stretches and sectors that are listed.
const LIST_MAX: usize = 10_000;

impl Inspect for Xfs {
    fn structures(&self) -> Vec<(String, String)> {
        STRUCTURES.iter().map(|(name, text)| ((*name).into(), (*text).into())).collect()
    }

    fn inspect(&self, name: &str) -> Result<Vec<Inspected>> {
        let (what, rest) = name.trim().split_once(' ').unwrap_or((name.trim(), ""));
        match what {
            "superblock" => Ok(vec![self.show_superblock()]),
            "agf" => {
                let (offset, agf) = self.agf(number(rest)?)?;
                Ok(vec![Inspected { structure: name.into(), offset, fields: agf.fields() }])
            }
            "agi" => {
                let (offset, agi) = self.agi(number(rest)?)?;
                Ok(vec![Inspected { structure: name.into(), offset, fields: agi.fields() }])
            }
            "inode" => Ok(vec![self.show_inode(self.named(rest)?)?]),
            "extents" => Ok(vec![self.show_extents(self.named(rest)?)?]),
            "log" => Ok(vec![self.show_log()]),
            "log-sectors" => Ok(vec![self.show_sectors()]),
            _ => {
                let names: Vec<&str> = STRUCTURES.iter().map(|(name, _)| *name).collect();
                Err(Error::not_found(format!("there is no structure {name:?}"))
                    .advise(format!("there are: {}", names.join(", "))))
            }
        }
    }
}

impl Xfs {
    fn named(&self, text: &str) -> Result<u64> {
        if text.starts_with('/') {
            let options = FindOptions { follow: false, ..FindOptions::default() };
            return Ok(FileSystemExt::find(self, text.as_bytes(), &options)?.0);
        }
        number(text)
    }

    fn show_superblock(&self) -> Inspected {
        let superblock = self.superblock();
        let mut fields = superblock.raw.fields();
        fields.push(made("features", Value::Text(superblock.features().join(" "))));
        Inspected { structure: "superblock".into(), offset: superblock.offset, fields }
    }

    fn show_inode(&self, ino: u64) -> Result<Inspected> {
        let inode = self.inode_unchecked(ino)?;
        let mut fields = inode.raw.fields();
        fields.extend(inode.v3.iter().flat_map(|v3| v3.fields()));
        let sum = match self.verify_inode(&inode) {
            Ok(()) => "right, or none".to_owned(),
            Err(error) => error.detail().to_owned(),
        };
        fields.push(made("checksum_is", Value::Text(sum)));
        Ok(Inspected { structure: format!("inode {ino}"), offset: inode.offset, fields })
    }

    fn show_extents(&self, ino: u64) -> Result<Inspected> {
        let inode = self.inode(ino)?;
        let end = inode.raw.size.div_ceil(self.superblock().block_size.get());
        let mapped = matches!(inode.raw.format, format::EXTENTS | format::BTREE);
        let mut fields = Vec::new();
        let mut at = 0u64;
        while at < end && mapped && fields.len() < LIST_MAX {
            let stretch = self.stretch(&inode, ForkKind::Data, at);
            let length = stretch.length.min(end.saturating_sub(at));
            let text = match stretch.what {
                What::Hole => "hole".to_owned(),
                What::Unwritten(byte) => format!("unwritten, byte {byte:#x}"),
                What::Stored(byte) => format!("byte {byte:#x}"),
                What::Lost(error) => format!("lost: {error}"),
            };
            fields.push(made(&format!("{at}+{length}"), Value::Text(text)));
            at = at.saturating_add(length);
        }
        Ok(Inspected { structure: format!("extents {ino}"), offset: inode.offset, fields })
    }

    fn show_log(&self) -> Inspected {
        let log = self.log();
        let state = if log.clean { "clean" } else { "applied in memory" };
        let fields = vec![
            made("state", Value::Text(state.into())),
            made("records", Value::Uint(log.records)),
            made("transactions", Value::Uint(log.transactions)),
            made("items", Value::Uint(log.items)),
            made("items_skipped", Value::Uint(log.items_skipped)),
            made("sectors_changed", Value::Uint(log.overlay.sectors())),
        ];
        let superblock = self.superblock();
        let offset = superblock.offset_of(superblock.raw.logstart, 1).unwrap_or(0);
        Inspected { structure: "log".into(), offset, fields }
    }

    fn show_sectors(&self) -> Inspected {
        let list = self.log().overlay.iter().take(LIST_MAX);
        let fields = list.map(|sector| {
            let text = format!("byte {:#x}", sector.saturating_mul(BASIC_BLOCK));
            made(&format!("sector {sector}"), Value::Text(text))
        });
        Inspected { structure: "log-sectors".into(), offset: 0, fields: fields.collect() }
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
