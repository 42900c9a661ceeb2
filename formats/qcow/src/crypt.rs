//! Encrypted images: where ciphertext is, and who makes plain bytes of it.
//!
//! The crate knows no cipher. Whoever has the passphrase gives a [`Decrypt`]; with LUKS the
//! sectors are numbered by their place in the file, with the older AES by their place on the disk.

use crate::header::Encryption;
use crate::map::QcowMap;
use adit_core::bytes::{narrow, wide};
use adit_core::{Disk, DiskExt, Error, ExtentMap, Geometry, Place, Problem, Result, Run, RunKind};
use std::fmt::Debug;
use std::sync::Arc;

/// Makes plain bytes of encrypted sectors.
pub trait Decrypt: Debug + Send + Sync {
    /// Decrypts whole sectors of 512 bytes in place; the first has this number.
    fn decrypt(&self, first_sector: u64, buf: &mut [u8]) -> Result<()>;
}

/// Makes encrypted sectors of plain bytes as well.
pub trait Encrypt: Decrypt {
    /// Encrypts whole sectors of 512 bytes in place; the first has this number.
    fn encrypt(&self, first_sector: u64, buf: &mut [u8]) -> Result<()>;
}

const SECTOR_BYTES: u64 = 512;
/// What is decrypted at a time. Unit: bytes.
const PIECE_BYTES: u64 = 64 << 10;

/// A disk whose stored clusters are encrypted.
#[derive(Debug)]
pub(crate) struct EncryptedMap {
    pub(crate) plain: QcowMap,
    pub(crate) cipher: Arc<dyn Decrypt>,
    pub(crate) encryption: Encryption,
}

impl ExtentMap for EncryptedMap {
    fn geometry(&self) -> Geometry {
        self.plain.geometry()
    }

    fn lookup(&self, offset: u64, at_most: u64) -> Result<Run> {
        let into = offset.checked_rem(SECTOR_BYTES).unwrap_or(0);
        let start = offset.saturating_sub(into);
        let run = self.plain.lookup(start, at_most.saturating_add(into))?;
        Ok(match run.kind {
            RunKind::Stored { offset: host, .. } => {
                let skip = start.saturating_sub(run.start);
                let length = run.length.saturating_sub(skip).min(PIECE_BYTES);
                let token = host.saturating_add(skip);
                Run { start, length, kind: RunKind::Encoded { token } }
            }
            RunKind::Encoded { .. } => {
                let error = Error::unsupported("a cluster is compressed in an encrypted image")
                    .at(Place::new("disk").byte(run.start));
                Run { kind: RunKind::Lost(error), ..run }
            }
            _ => run,
        })
    }

    fn source(&self, _index: usize) -> Option<&Arc<dyn Disk>> {
        None
    }

    fn parent(&self) -> Option<&Arc<dyn Disk>> {
        self.plain.parent()
    }

    fn decode(&self, run: &Run, buf: &mut [u8]) -> Result<()> {
        let RunKind::Encoded { token: host } = run.kind else {
            return Err(Error::invalid(Problem::BadValue, "the run is not encrypted"));
        };
        let number = match self.encryption {
            Encryption::Luks => host,
            Encryption::Aes => run.start,
        };
        let number = number.checked_div(SECTOR_BYTES).unwrap_or(0);
        let whole = wide(buf.len()).next_multiple_of(SECTOR_BYTES);
        if whole == wide(buf.len()) {
            self.plain.data.read_at(buf, host)?;
            return self.cipher.decrypt(number, buf);
        }
        // The disk ends inside a sector.
        let mut sectors = self.plain.data.read_vec(host, narrow(whole).unwrap_or(0))?;
        self.cipher.decrypt(number, &mut sectors)?;
        let front = sectors.get(..buf.len()).unwrap_or_default();
        buf.copy_from_slice(front);
        Ok(())
    }

    fn name(&self) -> String {
        self.plain.name()
    }

    fn steps(&self, offset: u64) -> Result<Vec<String>> {
        let mut steps = self.plain.steps(offset)?;
        steps.push(format!("decrypted ({})", self.encryption.word()));
        Ok(steps)
    }
}
