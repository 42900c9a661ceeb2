//! Raw bytes to a validated header and volume descriptor.

use crate::layout::{
    HEADER_AT, LvmHeader, MAGIC, MAPS_MAX, PE_BYTES, RegionLayout, ScsiDiskId, VolumeDescriptor,
};
use adit_core::bytes::{index, until_nul};
use adit_core::{Disk, DiskExt, Error, Limits, Place, Problem, Result, Timestamp, vmware_uuid};
use std::fmt;
use std::sync::Arc;

/// What tells one volume from another: devices belong together when theirs are equal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct VolumeIdentity {
    /// UUID of the volume.
    pub uuid: [u8; 16],
    /// Tells copies of one volume apart.
    pub snapshot_id: u32,
}

impl fmt::Display for VolumeIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (snapshot id {})", vmware_uuid(&self.uuid), self.snapshot_id)
    }
}

/// How a device called itself when the volume was made on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskId {
    /// SCSI vendor.
    pub vendor: String,
    /// SCSI model.
    pub model: String,
    /// SCSI revision.
    pub revision: String,
    /// Logical unit number.
    pub lun: u16,
    /// Unique id, text as it is and other bytes in hexadecimal.
    pub id: String,
}

impl DiskId {
    pub(crate) fn parse(raw: &[u8; 78]) -> Result<Self> {
        let raw = ScsiDiskId::read(raw)?;
        let length = usize::from(raw.id_length).min(raw.id.len());
        let id = raw.id.get(..length).unwrap_or(&raw.id);
        Ok(DiskId {
            vendor: printable(&raw.vendor),
            model: printable(&raw.model),
            revision: printable(&raw.revision),
            lun: raw.lun,
            id: if until_nul(id).iter().all(|b| (0x20..0x7f).contains(b)) {
                printable(id)
            } else {
                id.iter().map(|b| format!("{b:02x}")).collect()
            },
        })
    }
}

/// What a volume descriptor says of the volume's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VolumeState {
    /// Not in use.
    Invalid,
    /// As it should be.
    Normal,
    /// A new identity was begun to be written.
    ResignaturePending,
    /// A new identity was written.
    ResignatureDone,
    /// A value nobody has described.
    Unknown(u32),
}

impl From<u32> for VolumeState {
    fn from(raw: u32) -> Self {
        match raw {
            0 => VolumeState::Invalid,
            1 => VolumeState::Normal,
            2 => VolumeState::ResignaturePending,
            3 => VolumeState::ResignatureDone,
            other => VolumeState::Unknown(other),
        }
    }
}

impl fmt::Display for VolumeState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            VolumeState::Invalid => f.write_str("invalid"),
            VolumeState::Normal => f.write_str("normal"),
            VolumeState::ResignaturePending => f.write_str("resignature pending"),
            VolumeState::ResignatureDone => f.write_str("resignature done"),
            VolumeState::Unknown(raw) => write!(f, "unknown ({raw})"),
        }
    }
}

/// A device header that was checked against the device it stands on.
#[derive(Clone, Debug)]
pub(crate) struct Header {
    pub raw: LvmHeader,
    pub layout: RegionLayout,
    pub disk_id: DiskId,
}

impl Header {
    /// Reads and checks the header.
    ///
    /// Errors: `Corrupt`; `Unsupported` for another version; `Limit` for too many extents.
    pub fn read(disk: &Arc<dyn Disk>, limits: &Limits) -> Result<Self> {
        let place = Place::new("LVM header").byte(HEADER_AT);
        let bytes = prefix(disk, HEADER_AT, LvmHeader::SIZE)?;
        let raw = LvmHeader::read(&bytes).map_err(|e| e.at(place.clone()))?;
        Self::parse(raw, disk.size_bytes(), limits).map_err(|e| e.at(place))
    }

    fn parse(raw: LvmHeader, real_bytes: u64, limits: &Limits) -> Result<Self> {
        if raw.magic != MAGIC {
            return Err(Error::corrupt(
                Problem::BadMagic,
                format!("magic is {:#010x}, not {MAGIC:#010x}", raw.magic),
            ));
        }
        let layout = match raw.version_major {
            3..=5 => RegionLayout::CLASSIC,
            6 => RegionLayout::aligned(check_alignment(raw.metadata_alignment)?),
            other => {
                return Err(Error::unsupported(format!(
                    "LVM version {other}.{}; versions 3 to 6 are read",
                    raw.version_minor
                )));
            }
        };
        check_counts(&raw, real_bytes, limits)?;
        let disk_id = DiskId::parse(&raw.disk_id)?;
        Ok(Header { raw, layout, disk_id })
    }
}

fn check_alignment(alignment: u32) -> Result<u32> {
    if alignment.is_power_of_two() && (512..=65536).contains(&alignment) {
        return Ok(alignment);
    }
    let detail = format!("metadata alignment is {alignment} bytes");
    Err(Error::corrupt(Problem::BadValue, detail)
        .at(Place::new("LVM header").field("metadata_alignment").byte(HEADER_AT)))
}

fn check_counts(raw: &LvmHeader, real_bytes: u64, limits: &Limits) -> Result<()> {
    let at = |field: &'static str| Place::new("LVM header").field(field).byte(HEADER_AT);
    let (count, room) = (u64::from(raw.pe_count), raw.total_bytes.max(real_bytes));
    if count == 0 || count.checked_mul(PE_BYTES).is_none_or(|bytes| bytes > room) {
        let detail = format!("{count} extents of 256 MiB on a device of {room} bytes");
        return Err(Error::corrupt(Problem::OutOfRange, detail).at(at("pe_count")));
    }
    if count > limits.list_steps_max {
        let detail = format!("{count} extents on one device");
        return Err(Error::limit("list_steps_max", detail).at(at("pe_count")));
    }
    if raw.map_count > MAPS_MAX {
        let detail = format!("{} extent maps; a region holds at most {MAPS_MAX}", raw.map_count);
        return Err(Error::corrupt(Problem::BadValue, detail).at(at("map_count")));
    }
    Ok(())
}

/// Reads the volume descriptor and checks what everything else rests on.
///
/// Errors: `Corrupt`; `Limit` for more devices than `members_max`.
pub(crate) fn read_descriptor(
    disk: &Arc<dyn Disk>,
    header: &Header,
    limits: &Limits,
) -> Result<VolumeDescriptor> {
    let byte = HEADER_AT.saturating_add(header.layout.volume_at);
    let at = |field: &'static str| Place::new("LVM volume descriptor").field(field).byte(byte);
    let bytes = prefix(disk, byte, VolumeDescriptor::SIZE)?;
    let volume = VolumeDescriptor::read(&bytes)
        .map_err(|e| e.at(Place::new("LVM volume descriptor").byte(byte)))?;
    let size = volume.size_bytes;
    if size == 0 || size > u64::from(u32::MAX).saturating_mul(PE_BYTES) {
        let detail = format!("the volume has {size} bytes");
        return Err(Error::corrupt(Problem::BadValue, detail).at(at("size_bytes")));
    }
    if volume.pe_last < volume.pe_first || volume.pe_last >= u64::from(u32::MAX) {
        let detail = format!("extents {} to {}", volume.pe_first, volume.pe_last);
        return Err(Error::corrupt(Problem::BadValue, detail).at(at("pe_last")));
    }
    if u64::from(volume.device_count) > limits.members_max {
        let detail = format!("a volume over {} devices", volume.device_count);
        return Err(Error::limit("members_max", detail).at(at("device_count")));
    }
    Ok(volume)
}

/// Up to `length` bytes from `at` on: fewer, or none, where the disk ends.
pub(crate) fn prefix(disk: &Arc<dyn Disk>, at: u64, length: usize) -> Result<Vec<u8>> {
    if at >= disk.size_bytes() {
        return Ok(Vec::new());
    }
    disk.read_prefix(at, length)
}

/// The device names in volume order; empty where none are stored.
pub(crate) fn parse_names(table: &[u8], count: u32) -> Vec<String> {
    let names = table.chunks_exact(crate::layout::NAME_BYTES).take(index(count));
    let names: Vec<String> = names.map(printable).collect();
    if names.iter().all(String::is_empty) { Vec::new() } else { names }
}

/// Text up to the first NUL, outer spaces gone, control bytes as `\xNN`.
pub(crate) fn printable(bytes: &[u8]) -> String {
    // `Name` shows what could confuse a terminal; a slash is fine in a device name.
    let parts = until_nul(bytes).trim_ascii().split(|&b| b == b'/');
    let parts =
        parts.map(|part| adit_core::Name::new(part).map_or(String::new(), |n| n.to_string()));
    parts.collect::<Vec<_>>().join("/")
}

/// A time stamp of the volume manager.
pub(crate) fn timestamp(us: u64) -> Option<Timestamp> {
    const MILLION: u64 = 1_000_000;
    let seconds = i64::try_from(us.checked_div(MILLION)?).ok()?;
    let micros = u32::try_from(us.checked_rem(MILLION)?).ok()?;
    (us != 0).then_some(Timestamp { seconds, nanos: micros.saturating_mul(1000) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_keeps_its_slashes_and_shows_control_bytes() {
        assert_eq!(printable(b"/dev/sda:1\0junk"), "/dev/sda:1");
        assert_eq!(printable(b"VOL1            "), "VOL1");
        assert_eq!(printable(b"a\x1b/b"), "a\\x1b/b");
        assert_eq!(printable(b"\0"), "");
    }

    #[test]
    fn a_time_stamp_is_microseconds_and_zero_is_none() {
        let time = timestamp(1_751_281_404_123_456).unwrap();
        assert_eq!((time.seconds, time.nanos), (1_751_281_404, 123_456_000));
        assert_eq!(timestamp(0), None);
        assert!(timestamp(u64::MAX).is_some());
    }

    #[test]
    fn a_state_prints_in_words() {
        let words: Vec<_> = (0..5).map(|raw| VolumeState::from(raw).to_string()).collect();
        assert_eq!(
            words,
            ["invalid", "normal", "resignature pending", "resignature done", "unknown (4)"]
        );
    }
}
