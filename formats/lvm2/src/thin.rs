//! Thin pools: the tree that says where each block of each thin volume lies in the pool's data.

use crate::btree::{Blocks, Found};
use crate::build::Built;
use crate::checksum::block_crc;
use crate::layout::{THIN_BLOCK, THIN_MAGIC, ThinSuperblock};
use adit_core::bytes::index;
use adit_core::{
    Disk, DiskExt, Error, ExtentMap, Finding, Geometry, Limits, Mapped, Place, Problem, Result,
    Run, RunKind,
};
use std::sync::Arc;

/// Salt of the checksum of a pool's superblock.
const SALT: u32 = 160_774;
/// Length of a device's details. Unit: bytes.
const DETAILS: usize = 24;
/// How many mappings one lookup looks at to join neighbours.
const JOIN_MAX: usize = 256;

/// A thin pool: metadata and data.
#[derive(Debug)]
pub(crate) struct Pool {
    name: String,
    blocks: Blocks,
    data: Arc<dyn Disk>,
    /// Unit: bytes.
    block: u64,
    mapping_root: u64,
    details_root: u64,
}

impl Pool {
    /// Reads the superblock of a pool's metadata.
    ///
    /// Errors: `Corrupt`, `Unsupported` for features a reader must know.
    pub fn open(
        name: &str,
        metadata: Arc<dyn Disk>,
        data: Built,
        chunk: u64,
        transaction: Option<u64>,
        limits: &Limits,
    ) -> Result<(Pool, Vec<Finding>)> {
        let raw = metadata.read_prefix(0, THIN_BLOCK)?;
        let superblock = superblock(&raw, chunk).map_err(|error| {
            let place = Place::new("thin pool superblock");
            error.at(place).in_layer(format!("thin pool {name}"))
        })?;
        let mut notes = Vec::new();
        if let Some(said) = transaction.filter(|&said| said != superblock.transaction) {
            let text = format!(
                "{name}: the pool is at transaction {}, the group's metadata at {said}; the \
                 pool decides where data lie",
                superblock.transaction
            );
            notes.push(Finding::warning("lvm2-thin-transaction", text));
        }
        if superblock.flags & 1 != 0 {
            let text = format!("{name}: the pool asks for its metadata to be checked");
            notes.push(
                Finding::warning("lvm2-thin-needs-check", text)
                    .advise("thin_check and thin_repair work on a copy of the metadata volume"),
            );
        }
        if !data.lost.is_empty() {
            let text = format!("{name}: {} bytes of the pool's data are lost", data.lost_bytes);
            notes.push(Finding::error("lvm2-thin-data-lost", text));
        }
        let pool = Pool {
            name: name.to_owned(),
            blocks: Blocks::new(metadata, limits),
            data: data.disk,
            block: chunk,
            mapping_root: superblock.mapping_root,
            details_root: superblock.details_root,
        };
        Ok((pool, notes))
    }

    /// The volume of device `device`. What was never written reads from `external`, or as zeros.
    /// A device the pool does not know is empty if its creation is still `pending`.
    ///
    /// Errors: `NotFound` for a device the pool does not know; `Corrupt`.
    pub fn volume(
        self: &Arc<Self>,
        name: String,
        device: u64,
        size_bytes: u64,
        external: Option<Arc<dyn Disk>>,
        pending: bool,
    ) -> Result<Arc<dyn Disk>> {
        let known = self.value(self.details_root, device, DETAILS)?.is_some();
        let root = self.value(self.mapping_root, device, 8)?;
        if root.is_none() && (known || !pending) {
            let detail = format!("pool {} does not know thin device {device}", self.name);
            return Err(Error::not_found(detail).at(Place::new("thin device").index(device)));
        }
        let geometry = Geometry { size_bytes, ..self.data.geometry() };
        let pool = Arc::clone(self);
        Ok(Arc::new(Mapped::new(Thin { name, geometry, pool, root, external })))
    }

    fn value(&self, root: u64, key: u64, size: usize) -> Result<Option<u64>> {
        match self.blocks.find(root, key, size, 1) {
            Found::Values(values) => Ok(values.into_iter().next().map(|(_, value)| value)),
            Found::Nothing { .. } => Ok(None),
            Found::Damaged { error, .. } => Err(error),
        }
    }
}

fn superblock(raw: &[u8], chunk: u64) -> Result<ThinSuperblock> {
    let superblock = ThinSuperblock::read(raw)?;
    let bad = |problem, detail: String| Err(Error::corrupt(problem, detail));
    if superblock.magic != THIN_MAGIC {
        return bad(Problem::BadMagic, format!("magic is {:#x}", superblock.magic));
    }
    if block_crc(raw, SALT) != superblock.crc {
        return bad(Problem::BadChecksum, "the superblock's checksum does not match".into());
    }
    if !(1..=2).contains(&superblock.version) || superblock.incompat != 0 {
        return Err(Error::unsupported(format!(
            "thin pool metadata of version {}, features {:#x}",
            superblock.version, superblock.incompat
        )));
    }
    if u64::from(superblock.metadata_block).saturating_mul(512) != 4096 {
        let detail = format!("metadata blocks of {} sectors", superblock.metadata_block);
        return bad(Problem::BadValue, detail);
    }
    let own = u64::from(superblock.data_block).saturating_mul(512);
    if own != chunk || chunk == 0 {
        let detail = format!("blocks of {own} bytes, {chunk} by the group's metadata");
        return bad(Problem::Mismatch, detail);
    }
    Ok(superblock)
}

/// The map of a thin volume.
#[derive(Debug)]
struct Thin {
    name: String,
    geometry: Geometry,
    pool: Arc<Pool>,
    root: Option<u64>,
    external: Option<Arc<dyn Disk>>,
}

impl Thin {
    /// Joins the mappings that lie side by side in the pool's data.
    fn join(&self, values: &[(u64, u64)]) -> Option<(u64, u64)> {
        // A value holds a time in its lowest 24 bits.
        let (first, start) = values.first().map(|(key, value)| (key, value >> 24))?;
        let mut count = 1u64;
        for (key, value) in values.iter().skip(1) {
            let next =
                key.checked_sub(*first)? == count && value >> 24 == start.checked_add(count)?;
            if !next {
                break;
            }
            count = count.saturating_add(1);
        }
        Some((start, count))
    }
}

impl ExtentMap for Thin {
    fn geometry(&self) -> Geometry {
        self.geometry
    }

    fn lookup(&self, offset: u64, at_most: u64) -> Result<Run> {
        let size = self.pool.block;
        let block = offset.checked_div(size).unwrap_or(0);
        let start = block.saturating_mul(size);
        let gap = || match &self.external {
            Some(_) => RunKind::Parent,
            None => RunKind::Hole,
        };
        let end = self.geometry.size_bytes;
        let Some(root) = self.root else {
            return Ok(Run { start, length: end.saturating_sub(start), kind: gap() });
        };
        let up_to =
            |until: u64| until.saturating_mul(size).min(end).saturating_sub(start).max(size);
        let wanted = at_most.checked_div(size).unwrap_or(0).saturating_add(2);
        let wanted = index(u32::try_from(wanted).unwrap_or(u32::MAX)).min(JOIN_MAX);
        Ok(match self.pool.blocks.find(root, block, 8, wanted) {
            Found::Nothing { until } => Run { start, length: up_to(until), kind: gap() },
            Found::Damaged { until, error } => {
                let why = format!("where it lies cannot be told: {}", error.detail());
                let mut lost = Error::new(adit_core::Kind::Lost, error.problem(), why);
                if let Some(place) = error.place() {
                    lost = lost.at(place.clone());
                }
                Run { start, length: up_to(until), kind: RunKind::Lost(lost) }
            }
            Found::Values(values) => {
                let (data, count) = self.join(&values).unwrap_or((0, 1));
                let length = count.saturating_mul(size);
                let at = data.checked_mul(size).filter(|at| {
                    at.checked_add(length).is_some_and(|end| end <= self.pool.data.size_bytes())
                });
                match at {
                    Some(offset) => {
                        Run { start, length, kind: RunKind::Stored { source: 0, offset } }
                    }
                    None => {
                        let detail = format!("block {data} of the pool lies past its data");
                        let lost = Error::new(adit_core::Kind::Lost, Problem::OutOfRange, detail)
                            .at(Place::new("thin mapping").index(block));
                        Run { start, length: size, kind: RunKind::Lost(lost) }
                    }
                }
            }
        })
    }

    fn source(&self, index: usize) -> Option<&Arc<dyn Disk>> {
        (index == 0).then_some(&self.pool.data)
    }

    fn parent(&self) -> Option<&Arc<dyn Disk>> {
        self.external.as_ref()
    }

    fn decode(&self, _run: &Run, _buf: &mut [u8]) -> Result<()> {
        Err(Error::unsupported("a thin volume encodes nothing"))
    }

    fn name(&self) -> String {
        self.name.clone()
    }

    fn steps(&self, offset: u64) -> Result<Vec<String>> {
        let block = offset.checked_div(self.pool.block).unwrap_or(0);
        let run = self.lookup(offset, 1)?;
        let found = match run.kind {
            RunKind::Stored { offset, .. } => {
                format!(
                    "block {} of pool {}",
                    offset.checked_div(self.pool.block).unwrap_or(0),
                    self.pool.name
                )
            }
            RunKind::Lost(_) => "damaged".to_owned(),
            _ => "never written".to_owned(),
        };
        Ok(vec![format!("virtual block {block}: {found}")])
    }
}
