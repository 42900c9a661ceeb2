//! What `stat` shows beyond what every file system has.

use crate::descriptor::FileDescriptor;
use adit_core::on_disk::Value;
use adit_core::{Detail, Result, vmware_uuid};

/// Everything particular to VMFS about a node. The names are stable.
pub(crate) fn of(fd: &FileDescriptor) -> Result<Vec<Detail>> {
    let raw = &fd.raw;
    let lock = fd.lock()?;
    let number = |value: u64| Value::Uint(value);
    let hex = |value: u32| Value::Text(format!("{value:#010x}"));
    let mut details = vec![
        ("fd_address", hex(fd.address.raw())),
        ("fd_offset", number(fd.offset)),
        ("generation", number(raw.generation.into())),
        ("zla", number(raw.addressing.into())),
        ("addressing", Value::Text(fd.addressing.word())),
        ("blocks", number(raw.blocks)),
        ("block_size", number(raw.block_size)),
        ("tbz_blocks", number(fd.tbz_blocks())),
        ("pointer_blocks", number(raw.pointer_blocks.into())),
        ("flags", hex(raw.flags)),
        ("affinity_fd", hex(raw.affinity_fd)),
        ("parent_fd", hex(raw.parent_fd)),
        ("lock_mode", Value::Text(lock_mode(lock.mode))),
    ];
    if lock.mode != 0 || lock.owner != [0; 16] {
        details.push(("lock_owner", Value::Text(vmware_uuid(&lock.owner))));
    }
    if let Some(id) = fd.scsi_id() {
        details.push(("rdm_bytes", number(fd.length())));
        details.push(("rdm_lun", number(id.0.lun.into())));
        details.push(("rdm_vendor", Value::Text(id.vendor())));
        details.push(("rdm_model", Value::Text(id.model())));
        details.push(("rdm_revision", Value::Text(id.revision())));
        details.push(("rdm_id", Value::Text(id.id_text())));
        details.push(("rdm_id_hex", Value::Text(id.id_hex())));
    }
    Ok(details.into_iter().map(|(name, value)| Detail { name, value }).collect())
}

/// The word for a lock's mode.
pub(crate) fn lock_mode(mode: u32) -> String {
    match mode {
        0 => "free".into(),
        1 => "exclusive".into(),
        2 => "read-only".into(),
        3 => "multi-writer".into(),
        other => format!("unknown-{other}"),
    }
}
