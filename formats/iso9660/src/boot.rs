//! El Torito: what a computer can start from.

use crate::layout::{BootEntry, SECTOR_BYTES, ValidationEntry};
use crate::volume::Iso;
use adit_core::bytes::{narrow, u16_le};
use adit_core::{DiskExt, Error, Finding, Place, Problem, Result};

/// Slots of a catalog that are looked at.
const SLOTS_MAX: usize = 512;
const SLOT: usize = 32;

/// An image of the boot catalog.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BootImage {
    /// 0: x86 with a BIOS, 1: PowerPC, 2: Mac, 0xef: EFI.
    pub platform: u8,
    /// Whether it is meant to be started.
    pub bootable: bool,
    /// 0: as it is, 1 to 3: a floppy, 4: a hard disk.
    pub media: u8,
    /// Where it starts. Unit: bytes.
    pub offset: u64,
    /// How much is loaded at first. Unit: bytes.
    pub load_bytes: u64,
    /// Where its entry stands. Unit: bytes.
    pub entry_offset: u64,
}

impl BootImage {
    /// The platform's usual name.
    pub fn platform_name(&self) -> &'static str {
        match self.platform {
            0 => "x86 BIOS",
            1 => "PowerPC",
            2 => "Mac",
            0xef => "EFI",
            _ => "unknown",
        }
    }

    /// What it pretends to be.
    pub fn media_name(&self) -> &'static str {
        match self.media & 0xf {
            0 => "no emulation",
            1 => "1.2 MB floppy",
            2 => "1.44 MB floppy",
            3 => "2.88 MB floppy",
            4 => "hard disk",
            _ => "unknown",
        }
    }
}

impl Iso {
    /// Reads the boot catalog; what is wrong with it is a note.
    pub(crate) fn boot_images(&self) -> Vec<BootImage> {
        match self.read_catalog() {
            Ok(images) => images,
            Err(error) => {
                self.notes().add(Finding::from_error("iso9660-boot-catalog", &error));
                Vec::new()
            }
        }
    }

    fn read_catalog(&self) -> Result<Vec<BootImage>> {
        let Some(boot) = &self.descriptors().boot else { return Ok(Vec::new()) };
        let start = u64::from(boot.catalog).saturating_mul(SECTOR_BYTES);
        let place = || Place::new("boot catalog").byte(start);
        let length = SLOTS_MAX.saturating_mul(SLOT);
        let bytes = self.disk().read_prefix(start, length).map_err(|e| e.at(place()))?;
        let first = ValidationEntry::read(&bytes).map_err(|error| error.at(place()))?;
        let sum = (0..16usize)
            .filter_map(|word| u16_le(&bytes, word.saturating_mul(2)))
            .fold(0u16, u16::wrapping_add);
        if first.header != 1 || first.key != 0xaa55 || sum != 0 {
            let detail = format!("does not start as it must; its words add up to {sum:#06x}");
            return Err(Error::corrupt(Problem::BadChecksum, detail).at(place()));
        }
        let mut images = Vec::new();
        // The first image follows at once, others in sections with a header each.
        let (mut platform, mut left, mut last) = (first.platform, 1u16, false);
        for (index, slot) in bytes.chunks_exact(SLOT).enumerate().skip(1) {
            let [kind, second, low, high, ..] = *slot else { break };
            if left == 0 {
                if last || !matches!(kind, 0x90 | 0x91) {
                    break;
                }
                last = kind == 0x91;
                platform = second;
                left = u16::from_le_bytes([low, high]);
                continue;
            }
            // More of the entry before.
            if kind == 0x44 {
                continue;
            }
            left = left.saturating_sub(1);
            let entry = BootEntry::read(slot)?;
            if !matches!(entry.indicator, 0 | 0x88) {
                break;
            }
            let at = index.saturating_mul(SLOT);
            images.push(BootImage {
                platform,
                bootable: entry.indicator == 0x88,
                media: entry.media,
                offset: u64::from(entry.sector).saturating_mul(SECTOR_BYTES),
                load_bytes: u64::from(entry.load_sectors).saturating_mul(512),
                entry_offset: start.saturating_add(adit_core::bytes::wide(at)),
            });
        }
        Ok(images)
    }

    /// Where the boot catalog stands. Unit: bytes.
    pub(crate) fn catalog_offset(&self) -> Option<u64> {
        let sector = u64::from(self.descriptors().boot.as_ref()?.catalog);
        narrow(sector).map(|_| sector.saturating_mul(SECTOR_BYTES))
    }
}
