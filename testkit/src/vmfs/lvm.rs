//! The volume manager: headers, volume table and extent tables of 1 to 32 devices.

use crate::bytes::{put, put32, put64};
use crate::store::Store;

use super::layout::{Ids, printed_uuid};

const PE_BYTES: u64 = 256 << 20;
/// Metadata before the data of each region, and the gap it leaves every 16 TiB.
const REGION_METADATA_BYTES: u64 = 16 << 20;
const REGION_PES: u64 = 65536;
const REGION_AT: u64 = 0x100000;
const FIRST_DATA_AT: u64 = 0x1100000;
const MAP_ENTRIES: u64 = 8192;
const LVM6_MDA: u64 = 4096;

/// A stretch of the volume that is contiguous on one device. Units: bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Run {
    pub volume: u64,
    pub length: u64,
    pub device: usize,
    pub physical: u64,
}

/// Where the physical extents of each device go.
#[derive(Debug)]
pub(crate) struct Plan {
    /// 3, 4, 5, 6, or 0 for a volume without a volume manager.
    version: u32,
    devices: Vec<Device>,
}

#[derive(Debug)]
struct Device {
    bytes: u64,
    pes: u64,
    first_pe: u64,
}

/// Physical offset of extent `pe` of a device.
fn pe_at(pe: u64) -> u64 {
    FIRST_DATA_AT + pe * PE_BYTES + pe / REGION_PES * REGION_METADATA_BYTES
}

fn pes_that_fit(bytes: u64) -> u64 {
    let mut pes = bytes.saturating_sub(FIRST_DATA_AT) / PE_BYTES;
    while pes > 0 && pe_at(pes - 1) + PE_BYTES > bytes {
        pes -= 1;
    }
    pes
}

impl Device {
    /// Table entries: physical offset, extent number in the volume, length in extents.
    fn entries(&self, version: u32) -> impl Iterator<Item = (u64, u64, u64)> {
        let step = if version == 6 { REGION_PES } else { 1 };
        let (pes, first) = (self.pes, self.first_pe);
        (0..pes).step_by(step as usize).map(move |pe| (pe_at(pe), first + pe, step.min(pes - pe)))
    }

    fn entry_count(&self, version: u32) -> u64 {
        match version {
            6 => self.pes.div_ceil(REGION_PES),
            _ => self.pes,
        }
    }
}

impl Plan {
    pub(crate) fn new(version: u32, device_bytes: &[u64]) -> Self {
        let mut first_pe = 0;
        let mut devices = Vec::new();
        for &bytes in device_bytes {
            let pes = pes_that_fit(bytes);
            assert!(version == 0 || pes > 0, "a device needs 273 MiB, it has {bytes} bytes");
            devices.push(Device { bytes, pes, first_pe });
            first_pe += pes;
        }
        Self { version, devices }
    }

    pub(crate) fn runs(&self) -> Vec<Run> {
        if self.version == 0 {
            let length = self.devices[0].bytes;
            let (volume, device, physical) = (0, 0, 0);
            return vec![Run { volume, length, device, physical }];
        }
        let mut runs = Vec::new();
        for (device, plan) in self.devices.iter().enumerate() {
            runs.extend(plan.entries(6).map(|(physical, pe, length)| Run {
                volume: pe * PE_BYTES,
                length: length * PE_BYTES,
                device,
                physical,
            }));
        }
        runs
    }

    pub(crate) fn volume_bytes(&self) -> u64 {
        self.runs().iter().map(|run| run.length).sum()
    }

    /// Writes the metadata regions; nothing when there is no volume manager.
    pub(crate) fn write<S: Store>(&self, stores: &mut [S], ids: &Ids) {
        for (index, store) in stores.iter_mut().enumerate() {
            store.set_length(self.devices[index].bytes);
            if self.version != 0 {
                self.write_header(index, store, ids);
                self.write_volume_entry(index, store, ids);
                self.write_names(index, store);
                self.write_maps(index, store);
            }
        }
    }

    fn write_header<S: Store>(&self, index: usize, store: &mut S, ids: &Ids) {
        let device = &self.devices[index];
        let entries = device.entry_count(self.version);
        let region_pes = device.pes.min(REGION_PES);
        let maps = match self.version {
            4 | 5 => region_pes.div_ceil(MAP_ENTRIES),
            _ => 0,
        };
        let mut h = [0; 512];
        put32(&mut h, 0x00, 0xc001d00d);
        put32(&mut h, 0x04, u64::from(self.version));
        put32(&mut h, 0x08, 21);
        put(&mut h, 0x0c, &ids.scsi_disk(index));
        put32(&mut h, 0x5a, 512);
        put64(&mut h, 0x5e, device.bytes);
        put32(&mut h, 0x66, 1);
        put32(&mut h, 0x6a, entries);
        put32(&mut h, 0x6e, entries - 1);
        let joined = (self.devices.len() - 1 - index) as u64;
        put64(&mut h, 0x72, 3 + 2 * joined);
        put64(&mut h, 0x7a, FIRST_DATA_AT);
        put(&mut h, 0x82, &ids.device(index));
        put64(&mut h, 0x92, ids.seconds * 1_000_000);
        put64(&mut h, 0x9a, ids.seconds * 1_000_000);
        put32(&mut h, 0xbe, maps);
        if self.version < 6 && device.pes > REGION_PES {
            put64(&mut h, 0xc2, region_at(1));
        }
        if self.version == 6 {
            put32(&mut h, 0xca, LVM6_MDA);
            put32(&mut h, 0xce, device.pes);
            put32(&mut h, 0xd2, u64::from(ids.local));
        }
        store.write_at(REGION_AT, &h);
    }

    fn write_volume_entry<S: Store>(&self, index: usize, store: &mut S, ids: &Ids) {
        let device = &self.devices[index];
        let entries: u64 = self.devices.iter().map(|d| d.entry_count(self.version)).sum();
        let members = self.devices.len() as u64;
        let mut v = [0; 512];
        put64(&mut v, 0x00, self.volume_bytes());
        put64(&mut v, 0x08, entries + members);
        put32(&mut v, 0x10, 1);
        put(&mut v, 0x14, printed_uuid(&ids.volume).as_bytes());
        put(&mut v, 0x54, &ids.volume);
        put32(&mut v, 0x64, 1);
        put64(&mut v, 0x68, ids.seconds * 1_000_000);
        put32(&mut v, 0x74, device.pes);
        put64(&mut v, 0x78, device.first_pe);
        put64(&mut v, 0x80, device.first_pe + device.pes - 1);
        put64(&mut v, 0x88, ids.seconds * 1_000_000);
        put32(&mut v, 0x90, members);
        if self.version == 6 {
            put32(&mut v, 0x110, device.entry_count(6));
        }
        let at = if self.version == 6 { LVM6_MDA } else { 512 };
        store.write_at(REGION_AT + at, &v);
    }

    /// The first member of LVM 5 and 6 lists the names of all.
    fn write_names<S: Store>(&self, index: usize, store: &mut S) {
        if index > 0 || self.version < 5 {
            return;
        }
        for member in 0..self.devices.len() as u64 {
            let name = format!("t10.ADIT____TEST_DISK___________{member:04}");
            let at = REGION_AT + self.tables_at() - 32 * 256 + member * 256;
            store.write_at(at, name.as_bytes());
        }
    }

    /// Offset of the first extent map in a region.
    fn tables_at(&self) -> u64 {
        if self.version == 6 { 0x81000 } else { 0x80200 }
    }

    fn write_maps<S: Store>(&self, index: usize, store: &mut S) {
        let device = &self.devices[index];
        let bitmap_bytes = if self.version == 6 { LVM6_MDA } else { 1024 };
        let entries: Vec<_> = device.entries(self.version).collect();
        for (map, part) in entries.chunks(MAP_ENTRIES as usize).enumerate() {
            let map = map as u64;
            let region = map / 8;
            if map.is_multiple_of(8) && region > 0 {
                self.write_extended_header(device, region, store);
            }
            let mut bytes = vec![0; bitmap_bytes as usize + part.len() * 128];
            for (i, &(physical, pe, length)) in part.iter().enumerate() {
                bytes[i / 8] |= 1 << (i % 8);
                let at = bitmap_bytes as usize + i * 128;
                let entry = &mut bytes[at..at + 128];
                entry[0] = 1;
                put32(entry, 0x01, map * MAP_ENTRIES + i as u64);
                put64(entry, 0x09, physical);
                put64(entry, 0x11, pe * PE_BYTES);
                put64(entry, 0x19, length * PE_BYTES);
                put32(entry, 0x21, 1);
            }
            let stride = 0x100000 + bitmap_bytes;
            let at = region_at(region) + self.tables_at() + map % 8 * stride;
            store.write_at(at, &bytes);
        }
    }

    fn write_extended_header<S: Store>(&self, device: &Device, region: u64, store: &mut S) {
        let left = device.pes - region * REGION_PES;
        let mut h = [0; 512];
        put32(&mut h, 0x00, 0xc001d00d);
        put32(&mut h, 0x04, left.min(REGION_PES).div_ceil(MAP_ENTRIES));
        put64(&mut h, 0x08, region_at(region) + REGION_METADATA_BYTES);
        if left > REGION_PES {
            put64(&mut h, 0x10, region_at(region + 1));
        }
        store.write_at(region_at(region), &h);
    }
}

fn region_at(region: u64) -> u64 {
    REGION_AT + region * (REGION_PES * PE_BYTES + REGION_METADATA_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIB: u64 = 1 << 40;

    #[test]
    fn a_2_gib_device_holds_7_extents() {
        assert_eq!(pes_that_fit(2145387008), 7);
        assert_eq!(Plan::new(6, &[2181038592]).volume_bytes(), 2048 << 20);
    }

    #[test]
    fn a_64_tib_device_has_four_runs_with_gaps() {
        let plan = Plan::new(5, &[64 * TIB]);
        let runs = plan.runs();
        assert_eq!(plan.devices[0].entry_count(5), 262143);
        assert_eq!(plan.devices[0].entry_count(6), 4);
        assert_eq!(runs.len(), 4);
        assert_eq!(runs[1].volume, 16 * TIB);
        assert_eq!(runs[1].physical, 0x1100000 + 16 * TIB + (16 << 20));
        assert_eq!(runs[3].physical, 0x1100000 + 48 * TIB + (48 << 20));
    }
}
