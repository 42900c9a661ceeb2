//! One device of a volume.

use crate::header::{
    DiskId, Header, VolumeIdentity, VolumeState, parse_names, prefix, printable, read_descriptor,
    timestamp,
};
use crate::layout::{HEADER_AT, LvmHeader, MAGIC, NAME_BYTES, NAMES, PE_BYTES, VolumeDescriptor};
use crate::pe::{Bounds, PeRun, Tables};
use crate::region::{self, Region};
use adit_core::bytes::{all_zero, u32_le};
use adit_core::{Disk, DiskExt, Error, Finding, Limits, Place, Result, Timestamp, vmware_uuid};
use std::ops::Range;
use std::sync::Arc;

/// Whether `partition` is a device of a VMFS volume. Reads four bytes.
///
/// Errors: those of reading; a partition too short to be one is no error.
pub fn probe(partition: &Arc<dyn Disk>) -> Result<bool> {
    let magic = prefix(partition, HEADER_AT, 4)?;
    Ok(u32_le(&magic, 0) == Some(MAGIC))
}

/// One device of a volume: its header, what it knows of the volume, and its extents.
#[derive(Clone, Debug)]
pub struct Member {
    pub(crate) label: String,
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) header: Header,
    pub(crate) volume: VolumeDescriptor,
    pub(crate) regions: Vec<Region>,
    pub(crate) runs: Vec<PeRun>,
    pub(crate) names: Vec<String>,
    pub(crate) damage: Option<Error>,
    pub(crate) notes: Vec<Finding>,
}

impl Member {
    /// Reads the tables of one device. `label` is how a person knows it, for example its path.
    ///
    /// Damaged extents are left out and noted; what they held is `Lost` in the volume.
    ///
    /// Errors: `Corrupt` when the header or the descriptor cannot be right, or two extents
    /// claim one place; `Unsupported` for LVM versions other than 3 to 6; `Limit`.
    pub fn read(
        partition: Arc<dyn Disk>,
        label: impl Into<String>,
        limits: &Limits,
    ) -> Result<Member> {
        let label = label.into();
        Self::read_tables(partition, &label, limits)
            .map_err(|error| error.in_layer(format!("VMFS volume member {label}")))
    }

    fn read_tables(disk: Arc<dyn Disk>, label: &str, limits: &Limits) -> Result<Member> {
        let header = Header::read(&disk, limits)?;
        let volume = read_descriptor(&disk, &header, limits)?;
        let (regions, region_error) = region::chain(&disk, &header);
        let bounds = Bounds::new(&header, &volume);
        let tables = Tables::read(&disk, &header, &regions, &bounds, limits)?;
        let names_at = HEADER_AT.saturating_add(header.layout.names_at);
        let names = prefix(&disk, names_at, NAMES.saturating_mul(NAME_BYTES));
        let mut member = Member {
            label: label.to_owned(),
            disk,
            header,
            volume,
            regions,
            runs: tables.runs,
            names: Vec::new(),
            damage: None,
            notes: Vec::new(),
        };
        match names {
            Ok(table) => member.names = parse_names(&table, member.volume.device_count),
            // Names only help to say which device is missing.
            Err(error) => member.note(Finding::from_error("lvm-names-unreadable", &error)),
        }
        member.note_damage(tables.damage, region_error);
        member.note_lengths();
        member.note_state();
        Ok(member)
    }

    /// How a person knows the device, as given to [`Member::read`].
    pub fn label(&self) -> &str {
        &self.label
    }

    /// The partition itself.
    pub fn disk(&self) -> &Arc<dyn Disk> {
        &self.disk
    }

    /// Which volume it belongs to.
    pub fn identity(&self) -> VolumeIdentity {
        VolumeIdentity { uuid: self.volume.uuid, snapshot_id: self.volume.snapshot_id }
    }

    /// UUID of the device.
    pub fn device_uuid(&self) -> [u8; 16] {
        self.header.raw.device_uuid
    }

    /// LVM version, major and minor.
    pub fn version(&self) -> (u32, u32) {
        (self.header.raw.version_major, self.header.raw.version_minor)
    }

    /// Length of the device by its header. Unit: bytes.
    pub fn total_bytes(&self) -> u64 {
        self.header.raw.total_bytes
    }

    /// Length by the header and real length, where they differ. Unit: bytes.
    pub fn size_mismatch(&self) -> Option<(u64, u64)> {
        let (said, real) = (self.total_bytes(), self.disk.size_bytes());
        (said != real).then_some((said, real))
    }

    /// How the device called itself when the volume was made.
    pub fn disk_id(&self) -> &DiskId {
        &self.header.disk_id
    }

    /// First of its extents, counted over the volume. Unit: 256 MiB.
    pub fn first_pe(&self) -> u64 {
        self.volume.pe_first
    }

    /// Last of its extents, counted over the volume. Unit: 256 MiB.
    pub fn last_pe(&self) -> u64 {
        self.volume.pe_last
    }

    /// The part of the volume that is on it, by its descriptor. Unit: bytes of the volume.
    pub fn volume_range(&self) -> Range<u64> {
        let end = self.volume.pe_last.saturating_add(1).saturating_mul(PE_BYTES);
        self.volume.pe_first.saturating_mul(PE_BYTES)..end
    }

    /// How many devices the volume has.
    pub fn device_count(&self) -> u32 {
        self.volume.device_count
    }

    /// Length of the whole volume by its descriptor. Unit: bytes.
    pub fn volume_size_bytes(&self) -> u64 {
        self.volume.size_bytes
    }

    /// The volume's name, normally its printed UUID.
    pub fn volume_name(&self) -> String {
        printable(&self.volume.name)
    }

    /// When the volume was made.
    pub fn created(&self) -> Option<Timestamp> {
        timestamp(self.volume.created_us)
    }

    /// Device names of all members in volume order; only the first member of LVM 5 and 6
    /// stores them.
    pub fn device_names(&self) -> &[String] {
        &self.names
    }

    /// Whether the volume is marked as VMFS-L; LVM 3 to 5 do not mark it.
    pub fn is_local(&self) -> bool {
        self.header.raw.flags & 1 != 0
    }

    /// What the volume descriptor says of its state.
    pub fn state(&self) -> VolumeState {
        VolumeState::from(self.volume.state)
    }

    /// The raw device header.
    pub fn header(&self) -> &LvmHeader {
        &self.header.raw
    }

    /// The raw volume descriptor.
    pub fn descriptor(&self) -> &VolumeDescriptor {
        &self.volume
    }

    /// Where the volume's bytes are on this device, in volume order, neighbours joined.
    pub fn runs(&self) -> &[PeRun] {
        &self.runs
    }

    /// What was noticed on reading.
    pub fn notes(&self) -> &[Finding] {
        &self.notes
    }

    pub(crate) fn note(&mut self, finding: Finding) {
        let mut finding = finding;
        finding.trail.push(format!("VMFS volume member {}", self.label));
        self.notes.push(finding);
    }

    fn note_damage(&mut self, entries: Option<(Error, u32)>, region: Option<Error>) {
        if let Some((error, count)) = &entries {
            let mut finding = Finding::from_error("lvm-extent-damaged", error);
            if *count > 1 {
                finding.text = format!("{} ({count} extents are lost)", finding.text);
            }
            self.note(finding);
        }
        if let Some(error) = &region {
            self.note(Finding::from_error("lvm-region-damaged", error));
        }
        self.damage = region.or(entries.map(|(error, _)| error));
    }

    fn note_lengths(&mut self) {
        let Some((said, real)) = self.size_mismatch() else { return };
        if real > said {
            let text = format!(
                "the device has {real} bytes, {} more than it had when its header was written",
                real.saturating_sub(said)
            );
            return self.note(Finding::info("lvm-device-longer", text));
        }
        let place = Place::new("LVM header").field("total_bytes").byte(HEADER_AT);
        let text = format!("the device has {real} bytes of the {said} its header says");
        let lost: u64 = self
            .runs
            .iter()
            .map(|run| run.physical_end().saturating_sub(real).min(run.length))
            .fold(0, u64::saturating_add);
        let finding = if lost > 0 {
            let text = format!("{text}; {lost} bytes of the volume are lost");
            Finding::error("lvm-device-truncated", text)
                .advise("the image is incomplete, get a complete copy")
        } else {
            let text = format!("{text}; no byte of the volume is lost");
            Finding::warning("lvm-device-truncated", text)
        };
        self.note(finding.at(place));
    }

    fn note_state(&mut self) {
        let header = &self.header.raw;
        if !all_zero(&header.locked_by) {
            let owner = vmware_uuid(&header.locked_by);
            let text =
                format!("the device is locked by host {owner}; its tables may be half changed");
            let place = Place::new("LVM header").field("locked_by").byte(HEADER_AT);
            self.note(Finding::warning("lvm-device-locked", text).at(place));
        }
        let state = self.state();
        if state != VolumeState::Normal {
            let text = format!("the volume's state is {state}");
            let place = Place::new("LVM volume descriptor").field("state");
            self.note(Finding::warning("lvm-volume-state", text).at(place));
        }
        if self.header.raw.volume_count != 1 {
            let text = format!(
                "the header counts {} volumes; only the first is read",
                self.header.raw.volume_count
            );
            let place = Place::new("LVM header").field("volume_count").byte(HEADER_AT);
            self.note(Finding::warning("lvm-volume-count", text).at(place));
        }
    }
}
