//! Addresses, blocks of pointers, journals.

use super::metadata::slot_index;
use super::{Request, field, none, shown};
use crate::address::Address;
use crate::journal::{FoundRecord, Transaction};
use crate::owner::target_text;
use crate::resource::ResourceKind;
use crate::superblock::Version;
use crate::vmfs::Vmfs;
use adit_core::bytes::narrow;
use adit_core::on_disk::{FieldValue, Value};
use adit_core::{DiskExt, Error, Inspected, Problem, Result};

/// Pointers of a block that are shown one by one.
const POINTERS_SHOWN: usize = 8192;

fn text(value: impl Into<String>) -> Value {
    Value::Text(value.into())
}

impl Vmfs {
    fn wanted_address(&self, request: &Request<'_>) -> Result<Address> {
        let [word] = request.words()?;
        let raw = request.number(word)?;
        self.parse_address(raw)?.ok_or_else(|| {
            Error::invalid(Problem::BadValue, "0 is a hole: no block, reads as zeros")
        })
    }

    /// Where a block is in the volume, by its address alone. Unit: bytes.
    fn target_offset(&self, address: Address) -> Result<u64> {
        use crate::address::Target::*;
        let superblock = self.superblock();
        let block = |number: u64, size: u64| {
            number.checked_mul(size).ok_or_else(|| {
                Error::corrupt(Problem::OutOfRange, "the block lies beyond 2^64 bytes")
            })
        };
        let (kind, cluster, item) = match address.target {
            FileBlock(number) => return block(number, superblock.block_size.get()),
            LargeBlock(number) => return block(number, superblock.large_block_size.get()),
            SmallBlock { cluster, item } => {
                let number = self
                    .small_block_number(cluster, item)
                    .ok_or_else(|| Error::not_found(format!("a cluster has no item {item}")))?;
                return block(number, superblock.block_size.get());
            }
            Descriptor(fd) => return self.descriptor_offset(fd),
            SubBlock { cluster, item } => (ResourceKind::SubBlocks, cluster, item),
            PointerBlock { cluster, item } => (ResourceKind::PointerBlocks, cluster, item),
            PointerBlock2 { cluster, item } => (ResourceKind::PointerBlocks2, cluster, item),
            JournalBlock { cluster, item } => (ResourceKind::JournalBlocks, cluster, item),
        };
        let at = self.resource(kind)?.item_offset(cluster, item)?;
        Ok(self.resource_run(kind, at, 1)?.0)
    }

    pub(super) fn show_address(&self, request: &Request<'_>) -> Result<Vec<Inspected>> {
        let address = self.wanted_address(request)?;
        let size = self.superblock().width.address_bytes();
        let mut fields = vec![
            field("raw", 0, size, Value::Uint(address.raw), "The word as it stands on disk."),
            field("names", 0, 0, text(target_text(address.target)), "What the word names."),
            field(
                "tbz",
                0,
                0,
                Value::Uint(address.tbz.into()),
                "To-be-zeroed bits, one for each eighth.",
            ),
            field("cow", 0, 0, Value::Uint(address.cow.into()), "1: shared with another file."),
        ];
        let offset = match self.target_offset(address) {
            Ok(offset) => {
                let meaning = "Where the block is. Unit: bytes of the volume.";
                fields.push(field("volume_offset", 0, 0, Value::Uint(offset), meaning));
                offset
            }
            Err(error) => {
                fields.push(field(
                    "volume_offset",
                    0,
                    0,
                    text(error.detail()),
                    "Not on this volume.",
                ));
                0
            }
        };
        Ok(vec![shown(format!("address {:#x}", address.raw), offset, fields)])
    }

    pub(super) fn show_pointer_block(&self, request: &Request<'_>) -> Result<Vec<Inspected>> {
        let address = self.wanted_address(request)?;
        let offset = self.pointer_block_offset(address)?;
        let length = narrow(self.superblock().pointer_block_size).unwrap_or(0);
        let bytes = self.pointer_block(address, u8::MAX)?;
        let bytes = bytes.get(..length).unwrap_or(&bytes);
        let fields = self.pointer_fields(bytes, POINTERS_SHOWN);
        Ok(vec![shown(format!("pointer block {:#x}", address.raw), offset, fields)])
    }

    pub(super) fn show_journal(&self, request: &Request<'_>) -> Result<Vec<Inspected>> {
        let [number] = request.words()?;
        let number = request.number(number)?;
        let slots = self.heartbeats()?;
        let slot = slots.get(slot_index(number)).ok_or_else(|| {
            none("journal", number, format!("there are {} heartbeat slots", slots.len()))
        })?;
        let Some(journal) = self.journal(slot)? else {
            return Err(none("journal", number, "the slot is not in use or names no journal"));
        };
        let mut fields = Vec::new();
        if self.superblock().version == Version::Vmfs6 {
            let size = crate::journal::JournalHeader::SIZE;
            let raw = self.volume().read_vec(journal.offset, size)?;
            fields = crate::journal::JournalHeader::read(&raw)?.fields();
        }
        let meaning = "What the newest transaction is, compared with the disk.";
        fields.push(field("state", 0, 0, text(journal.state.word()), meaning));
        let mut all = vec![shown(format!("journal {number}"), journal.offset, fields)];
        if let Some(transaction) = &journal.transaction {
            let fields = transaction_fields(transaction);
            all.push(shown(
                format!("journal {number}, transaction"),
                journal.offset.saturating_add(4096),
                fields,
            ));
        }
        all.extend(journal.records.iter().map(record));
        Ok(all)
    }
}

fn transaction_fields(transaction: &Transaction) -> Vec<FieldValue> {
    let mut fields = vec![
        field("number", 0x48, 8, Value::Uint(transaction.number), "Number of the transaction."),
        field(
            "heartbeat_generation",
            0x38,
            8,
            Value::Uint(transaction.heartbeat_generation),
            "Generation of the host's heartbeat.",
        ),
    ];
    for (number, lock) in transaction.locks.iter().enumerate() {
        let held = if lock.still_held { "still held" } else { "released" };
        let value = text(format!("lock {:#x}, token {}, {held}", lock.offset, lock.token));
        fields.push(field(format!("lock_{number}"), 0, 32, value, "A lock the transaction held."));
    }
    for (number, write) in transaction.writes.iter().enumerate() {
        let state = if write.on_disk { "on the disk" } else { "not on the disk" };
        let form = if write.whole { "whole block" } else { "changed runs" };
        let value = text(format!(
            "block {:#x}, {form}, {} bytes, {state}",
            write.offset, write.changed_bytes
        ));
        fields.push(field(
            format!("write_{number}"),
            0,
            40,
            value,
            "A block the transaction changes.",
        ));
    }
    fields
}

fn record(record: &FoundRecord) -> Inspected {
    let state = if record.on_disk { "on the disk" } else { "not on the disk" };
    let fields = vec![
        field(
            "target",
            0x10,
            8,
            Value::Uint(record.target),
            "Where the data belongs. Unit: bytes of the volume.",
        ),
        field("length_bytes", 0x18, 8, Value::Uint(record.length_bytes), "Length of the data."),
        field("state", 0, 0, text(state), "Compared with the disk."),
    ];
    shown("journal record", record.offset, fields)
}
