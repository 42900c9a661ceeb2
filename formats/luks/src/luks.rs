//! A header, and the way from a passphrase to the disk behind it.

use crate::cipher::Cipher;
use crate::disk::Decrypted;
use crate::header::{Header, Keyslot};
use crate::header2::MAGIC;
use crate::kdf::Bounds;
use crate::{header1, header2};
use adit_core::bytes::{u16_be, wide};
use adit_core::{Disk, DiskExt, Error, Finding, Kind, Limits, Place, Problem, Result};
use std::sync::Arc;
use zeroize::Zeroizing;

/// Whether `disk` begins with a LUKS header. Reads eight bytes.
///
/// Errors: those of reading; a disk too short to be one is no error.
pub fn probe(disk: &Arc<dyn Disk>) -> Result<bool> {
    let head = disk.read_prefix(0, 8)?;
    Ok(head.starts_with(&MAGIC) && matches!(u16_be(&head, 6), Some(1 | 2)))
}

/// An encrypted disk, still locked.
#[derive(Debug)]
pub struct Luks {
    header: Header,
    header_disk: Arc<dyn Disk>,
    data: Arc<dyn Disk>,
    bounds: Bounds,
    notes: Vec<Finding>,
}

impl Luks {
    /// Reads the header at the start of `disk`.
    ///
    /// Errors: `Corrupt` when no copy of the header is whole; `Unsupported` for what is not read,
    /// and while a re-encryption goes on; `Limit`.
    pub fn open(disk: Arc<dyn Disk>, limits: &Limits) -> Result<Luks> {
        Self::open_detached(Arc::clone(&disk), disk, limits)
    }

    /// Reads a header that stands on a disk of its own; `data` holds the encrypted sectors.
    ///
    /// Errors: as [`Luks::open`].
    pub fn open_detached(
        header: Arc<dyn Disk>,
        data: Arc<dyn Disk>,
        limits: &Limits,
    ) -> Result<Luks> {
        let head = header.read_prefix(0, 592)?;
        let place = || Place::new("LUKS header").byte(0);
        let version = u16_be(&head, 6).filter(|_| head.starts_with(&MAGIC));
        let (parsed, notes) = match version {
            Some(1) => (header1::parse(&head).map_err(|error| error.at(place()))?, Vec::new()),
            Some(version) if version != 2 => {
                return Err(Error::unsupported(format!("LUKS{version}")).at(place()));
            }
            // Also where the first copy is damaged: the second may be whole.
            _ => header2::read(&header, limits)?,
        };
        let bounds = Bounds::default();
        Ok(Luks { header: parsed, header_disk: header, data, bounds, notes })
    }

    /// Changes how much work and memory the header may ask for.
    pub fn with_bounds(mut self, bounds: Bounds) -> Luks {
        self.bounds = bounds;
        self
    }

    /// 1 or 2.
    pub fn version(&self) -> u16 {
        self.header.version
    }

    /// UUID of the encrypted volume.
    pub fn uuid(&self) -> &str {
        &self.header.uuid
    }

    /// Label, empty if none.
    pub fn label(&self) -> &str {
        &self.header.label
    }

    /// Cipher as cryptsetup spells it.
    pub fn cipher(&self) -> &str {
        &self.header.segment.cipher
    }

    /// Length of encrypted sectors. Unit: bytes.
    pub fn sector_bytes(&self) -> usize {
        self.header.segment.sector_bytes
    }

    /// Where the encrypted sectors begin. Unit: bytes.
    pub fn payload_offset(&self) -> u64 {
        self.header.segment.offset
    }

    /// What was noticed on reading: a damaged copy of the header.
    pub fn notes(&self) -> &[Finding] {
        &self.notes
    }

    /// The disk behind a passphrase, or behind the bytes of a key file.
    ///
    /// Errors: `Denied` when no keyslot opens with it; `Limit` when a keyslot asks for more work
    /// or memory than [`Bounds`] allow; `Unsupported`, `Corrupt`.
    pub fn unlock(&self, secret: &[u8]) -> Result<Arc<dyn Disk>> {
        let cipher = self.unlock_cipher(secret)?;
        Decrypted::open(self.title(), Arc::clone(&self.data), cipher, &self.header.segment)
    }

    /// The cipher behind a passphrase, for formats that keep encrypted sectors in places of
    /// their own, as QCOW2 does.
    ///
    /// Errors: as [`Luks::unlock`].
    pub fn unlock_cipher(&self, secret: &[u8]) -> Result<Cipher> {
        let key = self.volume_key(secret).map_err(|error| error.in_layer(self.title()))?;
        let segment = &self.header.segment;
        Cipher::open(&segment.cipher, &key, segment.sector_bytes)
            .map_err(|error| error.in_layer(self.title()))
    }

    pub(crate) fn header_disk(&self) -> &Arc<dyn Disk> {
        &self.header_disk
    }

    fn title(&self) -> String {
        format!("LUKS{} volume {}", self.header.version, self.header.uuid)
    }

    fn volume_key(&self, secret: &[u8]) -> Result<Zeroizing<Vec<u8>>> {
        let mut problem = None;
        for keyslot in &self.header.keyslots {
            match self.try_keyslot(keyslot, secret) {
                Ok(Some(key)) => return Ok(key),
                Ok(None) => {}
                // A keyslot that cannot be tried keeps no other from being tried.
                Err(error) => {
                    problem = problem.or(Some(error.at(place_of(keyslot))));
                }
            }
        }
        if let Some(problem) = problem {
            return Err(problem);
        }
        let detail = match self.header.keyslots.len() {
            0 => "no keyslot is in use, so that nothing opens it".to_owned(),
            count => format!("none of {count} keyslots opens with this passphrase"),
        };
        Err(Error::new(Kind::Denied, Problem::Refused, detail)
            .advise("check the passphrase and the keyboard layout; a key file counts byte by byte"))
    }

    /// The volume key, if the passphrase is that of the keyslot.
    fn try_keyslot(&self, keyslot: &Keyslot, secret: &[u8]) -> Result<Option<Zeroizing<Vec<u8>>>> {
        let derivation = keyslot.derivation.as_ref().map_err(Clone::clone)?;
        let hash = keyslot.hash.clone()?;
        let length = keyslot.area_key_bytes;
        let key = derivation.derive(secret, &keyslot.salt, length, &self.bounds)?;
        let cipher = Cipher::open(&keyslot.cipher, &key, 512)?;
        // Bounded by `check_lengths`.
        let split_length = keyslot.key_bytes.saturating_mul(keyslot.stripes);
        let whole = split_length.next_multiple_of(512);
        let mut split = Zeroizing::new(self.header_disk.read_prefix(keyslot.offset, whole)?);
        if split.len() < whole {
            let detail = "the disk ends within the keyslot";
            return Err(Error::corrupt(Problem::Truncated, detail));
        }
        cipher.decrypt(0, &mut split)?;
        let split = split.get(..split_length).unwrap_or_default();
        let key = hash.merge(split, keyslot.key_bytes);
        for digest in &self.header.digests {
            if digest.verifies(keyslot.number, &key, &self.bounds)? {
                return Ok(Some(key));
            }
        }
        Ok(None)
    }
}

fn place_of(keyslot: &Keyslot) -> Place {
    Place::new("LUKS keyslot").index(wide(usize::try_from(keyslot.number).unwrap_or(0)))
}
