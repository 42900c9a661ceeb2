//! Superblock, heartbeats, resource files, clusters, FDs, locks.

use super::{Request, field, none, shown};
use crate::address::FdAddress;
use crate::cluster::{Cluster, ClusterMeta};
use crate::layout::{LockRaw, ResourceHeaderRaw, SUPERBLOCK_OFFSET};
use crate::lock::{LockKind, LockState};
use crate::owner::target_text;
use crate::resource::ResourceKind;
use crate::vmfs::Vmfs;
use adit_core::bytes::{index, narrow, wide};
use adit_core::on_disk::{FieldValue, Value};
use adit_core::{DiskExt, Inspected, Result};

/// Pointers of an FD that are shown one by one.
const POINTERS_SHOWN: usize = 320;

impl Vmfs {
    pub(super) fn show_superblock(&self) -> Result<Vec<Inspected>> {
        let fields = self.superblock().raw.fields();
        Ok(vec![shown("superblock", SUPERBLOCK_OFFSET, fields)])
    }

    pub(super) fn show_heartbeat(&self, request: &Request<'_>) -> Result<Vec<Inspected>> {
        let [number] = request.words()?;
        let number = request.number(number)?;
        let slots = self.heartbeats()?;
        let found = narrow(number)
            .and_then(|number| slots.get(number))
            .ok_or_else(|| none("heartbeat", number, format!("there are {} slots", slots.len())))?;
        Ok(vec![shown(format!("heartbeat {number}"), found.offset, found.slot.fields())])
    }

    pub(super) fn show_resource(&self, request: &Request<'_>) -> Result<Vec<Inspected>> {
        let [name] = request.words()?;
        if name == "unmap" {
            let disk = self.data(self.descriptor(FdAddress::system(9))?)?;
            let header = ResourceHeaderRaw::read(&disk.read_vec(0, ResourceHeaderRaw::SIZE)?)?;
            return Ok(vec![shown("resource header of .unmap.sf", 0, header.fields())]);
        }
        let kind = self.named_resource(request, name)?;
        let file = self.resource(kind)?;
        let (offset, _) = self.resource_run(kind, file.header_offset, 1)?;
        let title = format!("resource header {name} ({})", kind.file_name());
        Ok(vec![shown(title, offset, file.header.raw.fields())])
    }

    pub(super) fn show_cluster(&self, request: &Request<'_>) -> Result<Vec<Inspected>> {
        let [name, number] = request.words()?;
        let (kind, number) = (self.named_resource(request, name)?, request.number(number)?);
        let cluster = self.cluster(kind, number)?;
        let offset = self.cluster_volume_offset(kind, number)?;
        let title = format!("cluster {number} of {name}");
        let meta_at = offset.saturating_add(self.superblock().metadata_size);
        let mut fields = match &cluster.meta {
            ClusterMeta::Narrow(meta) => meta.fields(),
            ClusterMeta::Wide(meta) => meta.fields(),
        };
        fields.extend(self.cluster_items(kind, &cluster)?);
        Ok(vec![
            shown(format!("{title}, lock"), offset, self.lock_fields(&cluster.lock()?)?),
            shown(format!("{title}, meta"), meta_at, fields),
        ])
    }

    /// States of items, owners, affinity: what a bitmap says, in words.
    fn cluster_items(&self, kind: ResourceKind, cluster: &Cluster) -> Result<Vec<FieldValue>> {
        let items = self.resource(kind)?.header.items_in(cluster.number);
        let states: Vec<u8> = (0..items).map_while(|item| cluster.state(item)).collect();
        let mut fields = vec![field(
            "items",
            0,
            0,
            Value::Text(runs(&states)),
            "State of each item: 0 in use, 1 free, 4 converted (large blocks).",
        )];
        let owned: Vec<String> = (0..items)
            .filter(|&item| cluster.is_free(item) == Some(false))
            .filter_map(|item| Some((item, cluster.owner(item).filter(|&fd| fd != 0)?)))
            .map(|(item, fd)| format!("{item}: {fd:#010x}"))
            .collect();
        if !owned.is_empty() {
            let meaning = "Owner of each item in use; in FD clusters its directory.";
            fields.push(field("owners", 0, 0, Value::Text(owned.join(", ")), meaning));
        }
        if let ClusterMeta::Wide(meta) = &cluster.meta {
            let slots = (1..u64::from(meta.affinity_used))
                .filter_map(|slot| cluster.affinity(slot))
                .map(|(fd, blocks, flag)| format!("FD {fd:#010x}: {blocks} blocks, flag {flag}"));
            let slots: Vec<String> = slots.collect();
            if !slots.is_empty() {
                let at = 0x948;
                let length = slots.len().saturating_mul(8);
                let meaning = "Files that own blocks of this cluster.";
                fields.push(field("affinity", at, length, Value::Text(slots.join("; ")), meaning));
            }
        }
        Ok(fields)
    }

    pub(super) fn show_descriptor(&self, request: &Request<'_>) -> Result<Vec<Inspected>> {
        let address = self.named_descriptor(request, request.rest)?;
        let offset = self.descriptor_offset(address)?;
        let fd = self.descriptor_unchecked(address)?;
        let superblock = self.superblock();
        let meta_at = offset.saturating_add(superblock.fd_meta_offset());
        let mut meta = fd.raw.fields();
        let cluster = self.cluster(ResourceKind::Descriptors, address.cluster().into())?;
        let in_use = cluster.is_free(address.item().into()) == Some(false);
        let state = if in_use { "in use" } else { "free: what stands here may be anything" };
        meta.push(field(
            "bitmap",
            0,
            0,
            Value::Text(state.into()),
            "What the FD's cluster says of it.",
        ));
        let mut all = vec![
            shown(format!("FD {address}, lock"), offset, self.lock_fields(&fd.lock()?)?),
            shown(format!("FD {address}, meta"), meta_at, meta),
        ];
        if fd.addressing.levels().is_some() {
            let pointers_at = fd.pointer_offset(0);
            let fields = self.pointer_fields(fd.pointer_bytes(), POINTERS_SHOWN);
            all.push(shown(format!("FD {address}, pointers"), pointers_at, fields));
        }
        if let Some(id) = fd.scsi_id() {
            let at = offset.saturating_add(superblock.fd_resident_offset());
            all.push(shown(format!("FD {address}, mapped device"), at, id.0.fields()));
        }
        Ok(all)
    }

    /// Pointers that are not zero, decoded.
    pub(super) fn pointer_fields(&self, bytes: &[u8], at_most: usize) -> Vec<FieldValue> {
        let size = self.superblock().width.address_bytes();
        let mut fields = Vec::new();
        let mut holes = 0u64;
        for (number, word) in bytes.chunks_exact(size).enumerate() {
            let raw = word.iter().rev().fold(0u64, |raw, &byte| raw << 8 | u64::from(byte));
            if raw == 0 {
                holes = holes.saturating_add(1);
                continue;
            }
            if fields.len() >= at_most {
                continue;
            }
            let meaning = match self.parse_address(raw) {
                Ok(Some(address)) => {
                    let zero = if address.tbz != 0 { ", to be zeroed" } else { "" };
                    let cow = if address.cow { ", shared" } else { "" };
                    format!("{}{zero}{cow}", target_text(address.target))
                }
                _ => "no block address".to_owned(),
            };
            let at = number.saturating_mul(size);
            fields.push(field(format!("pointer_{number}"), at, size, Value::Uint(raw), meaning));
        }
        fields.push(field("holes", 0, 0, Value::Uint(holes), "Pointers that are zero."));
        fields
    }

    pub(super) fn show_lock(&self, request: &Request<'_>) -> Result<Vec<Inspected>> {
        let [offset] = request.words()?;
        let offset = request.number(offset)?;
        let lock = LockRaw::read(&self.volume().read_vec(offset, LockRaw::SIZE)?)?;
        Ok(vec![shown(format!("lock {offset:#x}"), offset, self.lock_fields(&lock)?)])
    }

    /// A lock's fields, with what the heartbeats say of its holder.
    fn lock_fields(&self, lock: &LockRaw) -> Result<Vec<FieldValue>> {
        let mut fields = lock.fields();
        let guarded = match LockKind::of(lock.lock_type) {
            Some(kind) => format!("{kind:?}"),
            None => "no kind of lock that is known".to_owned(),
        };
        fields.push(field("guards", 0, 0, Value::Text(guarded), "What the lock type stands for."));
        let state = lock.judge(self.heartbeat_region(), &self.heartbeats()?);
        fields.push(field(
            "state",
            0,
            0,
            Value::Text(state_text(&state)),
            "Judged by the heartbeats.",
        ));
        Ok(fields)
    }
}

fn state_text(state: &LockState) -> String {
    let holders: Vec<String> = state
        .holders
        .iter()
        .map(|holder| {
            let live = if holder.live { "live" } else { "gone" };
            format!("{} {} ({live})", holder.host_uuid, holder.ip).trim().to_owned()
        })
        .collect();
    let text = format!("{}, {}", state.state.word(), state.mode.word());
    if holders.is_empty() { text } else { format!("{text}: {}", holders.join(", ")) }
}

/// Equal states in a row, shortened: `0-7: 0, 8-255: 1`.
fn runs(states: &[u8]) -> String {
    let mut text: Vec<String> = Vec::new();
    let mut first = 0usize;
    for run in states.chunk_by(|a, b| a == b) {
        let last = first.saturating_add(run.len()).saturating_sub(1);
        let state = run.first().copied().unwrap_or(0);
        text.push(if first == last {
            format!("{first}: {state}")
        } else {
            format!("{first}-{last}: {state}")
        });
        first = last.saturating_add(1);
    }
    text.join(", ")
}

/// A number of things in a field.
pub(super) fn count(name: &str, value: usize, meaning: &str) -> FieldValue {
    field(name, 0, 0, Value::Uint(wide(value)), meaning)
}

/// A slot number as an index.
pub(super) fn slot_index(number: u64) -> usize {
    index(u32::try_from(number).unwrap_or(u32::MAX))
}
