//! On-disk structures of the volume manager and where they stand; nothing is checked here.

use adit_core::on_disk;

/// Where the device header stands. Unit: bytes of the partition.
pub const HEADER_AT: u64 = 0x10_0000;
/// First word of the device header and of every extended region.
pub const MAGIC: u32 = 0xc001_d00d;
/// Unit of extents that volumes are measured in. Unit: bytes.
pub const PE_BYTES: u64 = 256 << 20;
/// Entries of one extent map.
pub const MAP_ENTRIES: u32 = 8192;
/// Most extent maps of one region.
pub const MAPS_MAX: u32 = 8;
/// Length of an extent map's table. Unit: bytes.
pub const MAP_TABLE_BYTES: u64 = 0x10_0000;
/// Devices that the name table has room for.
pub const NAMES: usize = 32;
/// Room for one device name. Unit: bytes.
pub const NAME_BYTES: usize = 256;

on_disk! {
    /// Device header, at 1 MiB of the partition.
    pub struct LvmHeader (512 bytes, little_endian) {
        /// 0xC001D00D.
        0x00 magic: u32,
        /// 3 for VMFS3, 5 for VMFS5, 6 for VMFS6.
        0x04 version_major: u32,
        /// 16 or 21 seen.
        0x08 version_minor: u32,
        /// How the device called itself when the volume was made.
        0x0c disk_id: [u8; 78],
        /// Unit: bytes.
        0x5a disk_block_size: u32,
        /// Length of the device. Unit: bytes.
        0x5e total_bytes: u64,
        /// Volumes on the device, 1.
        0x66 volume_count: u32,
        /// Entries of the extent tables on this device.
        0x6a pe_count: u32,
        /// Index of the last entry.
        0x6e pe_last: u32,
        /// Rises with every change of the device.
        0x72 generation: u64,
        /// Where the first region's data starts. Unit: bytes of the partition.
        0x7a data_offset: u64,
        /// UUID of the device.
        0x82 device_uuid: [u8; 16],
        /// Unit: microseconds since 1970.
        0x92 created_us: u64,
        /// Unit: microseconds since 1970.
        0x9a modified_us: u64,
        /// Who holds the device, zero when nobody.
        0xa2 locked_by: [u8; 16],
        /// Unit: microseconds since 1970.
        0xb2 locked_us: u64,
        /// Extent maps of the first region; 0 means 1.
        0xbe map_count: u32,
        /// First extended region header, 0 if none. Unit: bytes of the partition.
        0xc2 next_region: u64,
        /// LVM 6: alignment of the metadata. Unit: bytes.
        0xca metadata_alignment: u32,
        /// LVM 6: 256 MiB units of the device in use.
        0xce unit_count: u32,
        /// Bit 0: VMFS-L.
        0xd2 flags: u32,
    }
}

on_disk! {
    /// How a SCSI device identifies itself.
    pub struct ScsiDiskId (78 bytes, little_endian) {
        /// Kind of the id.
        0x00 id_type: u8,
        /// Length of the id. Unit: bytes.
        0x01 id_length: u8,
        /// Logical unit number.
        0x02 lun: u16,
        /// SCSI device type.
        0x04 device_type: u8,
        /// SCSI level.
        0x05 scsi_level: u8,
        /// SCSI vendor.
        0x06 vendor: [u8; 8],
        /// SCSI model.
        0x0e model: [u8; 16],
        /// SCSI revision.
        0x1e revision: [u8; 4],
        /// Unique id or adapter path.
        0x22 id: [u8; 44],
    }
}

on_disk! {
    /// Volume descriptor: what each member knows of the volume.
    pub struct VolumeDescriptor (512 bytes, little_endian) {
        /// Length of the whole volume. Unit: bytes.
        0x00 size_bytes: u64,
        /// Rises with every change of the members.
        0x08 generation: u64,
        /// 0 invalid, 1 normal, 2 resignature pending, 3 resignature done.
        0x10 state: u32,
        /// Normally the printed UUID.
        0x14 name: [u8; 64],
        /// UUID of the volume.
        0x54 uuid: [u8; 16],
        /// Tells copies of one volume apart.
        0x64 snapshot_id: u32,
        /// Unit: microseconds since 1970.
        0x68 created_us: u64,
        /// Index of the volume, named by its extents.
        0x70 volume_id: u32,
        /// 256 MiB units of the volume on this device.
        0x74 unit_count: u32,
        /// First of them, counted over the volume.
        0x78 pe_first: u64,
        /// Last of them.
        0x80 pe_last: u64,
        /// Unit: microseconds since 1970.
        0x88 modified_us: u64,
        /// Devices of the volume.
        0x90 device_count: u32,
        /// LVM 6: extent entries in use on this device.
        0x110 entries_used: u32,
    }
}

on_disk! {
    /// Entry of an extent table: where a run of the volume is on this device.
    pub struct PeEntry (128 bytes, little_endian) {
        /// 1 when in use.
        0x00 used: u8,
        /// Its own index.
        0x01 id: u32,
        /// Index of the volume it belongs to.
        0x05 volume_id: u32,
        /// Unit: bytes of the partition.
        0x09 physical: u64,
        /// Unit: bytes of the volume.
        0x11 logical: u64,
        /// Unit: bytes.
        0x19 length: u64,
        /// 1.
        0x21 version: u32,
    }
}

on_disk! {
    /// Header of an extended region, which manages the next 16 TiB.
    pub struct RegionHeader (512 bytes, little_endian) {
        /// 0xC001D00D.
        0x00 magic: u32,
        /// Extent maps of this region; 0 means 1.
        0x04 map_count: u32,
        /// Where its data starts. Unit: bytes of the partition.
        0x08 data_offset: u64,
        /// The next extended region header, 0 if none. Unit: bytes of the partition.
        0x10 next_region: u64,
    }
}

/// Where the parts of a region stand, counted from its header. Units: bytes.
///
/// Source: observed on devices of LVM 3, 4, 5 and 6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RegionLayout {
    /// The volume descriptor.
    pub volume_at: u64,
    /// The table of device names.
    pub names_at: u64,
    /// The first extent map, which starts with its bitmap.
    pub maps_at: u64,
    /// Length of a map's bitmap; its table follows.
    pub bitmap_bytes: u64,
}

impl RegionLayout {
    /// LVM 3 to 5: everything in units of 512 bytes.
    pub const CLASSIC: RegionLayout = RegionLayout {
        volume_at: 0x200,
        names_at: 0x7_e200,
        maps_at: 0x8_0200,
        bitmap_bytes: 1024,
    };

    /// LVM 6: behind a header of one alignment unit, which the caller has bounded.
    pub fn aligned(alignment: u32) -> RegionLayout {
        let unit = u64::from(alignment);
        RegionLayout {
            volume_at: unit,
            names_at: unit.saturating_add(0x7_e000),
            maps_at: unit.saturating_add(0x8_0000),
            bitmap_bytes: unit.max(1024),
        }
    }

    /// Where map `map`'s bitmap stands.
    pub fn bitmap_at(&self, map: u32) -> u64 {
        let stride = self.bitmap_bytes.saturating_add(MAP_TABLE_BYTES);
        self.maps_at.saturating_add(stride.saturating_mul(u64::from(map)))
    }

    /// Where map `map`'s entries stand.
    pub fn table_at(&self, map: u32) -> u64 {
        self.bitmap_at(map).saturating_add(self.bitmap_bytes)
    }
}
