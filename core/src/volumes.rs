//! A list of named slices, and what layers offer beside their bytes.

use crate::{Disk, DiskExt, Finding, Interrupt, Result};
use std::sync::Arc;

/// One volume of a table: a partition, a logical volume.
#[derive(Clone, Debug)]
pub struct Volume {
    /// Selector within the table: `p1`, `p5`, `web-lv`.
    pub name: String,
    /// Label or partition name, empty if none.
    pub label: String,
    /// Identity as the format prints it, empty if none.
    pub uuid: String,
    /// Type in the table's own words: `"VMFS (0xfb)"`.
    pub kind: String,
    /// First byte in the disk below, where the volume is one piece of one disk.
    pub offset: Option<u64>,
    /// Its bytes.
    pub disk: Arc<dyn Disk>,
}

impl Volume {
    /// Length in bytes.
    pub fn size_bytes(&self) -> u64 {
        self.disk.size_bytes()
    }
}

/// A partition table or volume group that was read.
#[derive(Clone, Debug)]
pub struct VolumeTable {
    /// `"GPT"`, `"MBR"`, `"VMFS LVM"`.
    pub format: &'static str,
    /// Identity of the table as the format prints it, empty if none.
    pub uuid: String,
    /// Unit of its numbers. Unit: bytes.
    pub sector_size_bytes: u32,
    /// The volumes, in the table's order.
    pub volumes: Vec<Volume>,
    /// What is worth saying about the table.
    pub notes: Vec<Finding>,
}

/// A layer that can verify itself.
pub trait Check: Send + Sync {
    /// Checks every invariant the format has; each violation goes to `report`.
    ///
    /// Errors: only when checking itself cannot go on.
    fn check(&self, report: &mut dyn FnMut(Finding), interrupt: &Interrupt) -> Result<()>;
}

/// A layer whose on-disk structures can be shown.
pub trait Inspect: Send + Sync {
    /// What can be shown: name (with its parameters) and meaning.
    fn structures(&self) -> Vec<(String, String)>;
    /// Decodes one structure, for example `superblock`, `fd 0x00400104`.
    ///
    /// Errors: `NotFound` when there is none of that name, listing those there are.
    fn inspect(&self, name: &str) -> Result<Vec<Inspected>>;
}

/// A decoded structure.
#[derive(Clone, Debug)]
pub struct Inspected {
    /// The structure's name.
    pub structure: String,
    /// Where it stands, in the disk its format reads. Unit: bytes.
    pub offset: u64,
    /// Its fields.
    pub fields: Vec<crate::on_disk::FieldValue>,
}
