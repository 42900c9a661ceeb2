//! Encrypted disks, opened with what the user knows.

use crate::describe::trailed;
use crate::{At, Fact, LayerInfo, Opened, Opener, Origin};
use adit_bitlocker::BitLocker;
use adit_core::{Disk, Error, Finding, Kind, Limits, Problem, Result, Slice};
use adit_luks::Luks;
use std::fmt::{self, Debug};
use std::sync::Arc;

/// A passphrase, or the bytes of a key file. It is never shown.
#[derive(Clone)]
pub struct Secret(Arc<[u8]>);

impl Secret {
    /// From its bytes.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Secret {
        Secret(bytes.into().into())
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

impl Opener {
    /// The plain disk behind the first secret that opens it.
    pub(crate) fn in_luks(&self, mut here: Opened, disk: Arc<dyn Disk>) -> Result<Opened> {
        let luks = Luks::open(disk, &self.options().limits)?;
        here.notes.extend(luks.notes().iter().map(|note| trailed(note.clone(), &here.locator)));
        let disk = try_secrets(&self.options().secrets, |secret| luks.unlock(secret))?;
        let locator = here.locator.step(b"");
        here.layers.push(LayerInfo {
            format: format!("LUKS{}", luks.version()),
            locator: locator.clone(),
            facts: vec![
                ("uuid", Fact::Text(luks.uuid().to_owned())),
                ("label", Fact::Text(luks.label().to_owned())),
                ("cipher", Fact::Text(luks.cipher().to_owned())),
            ],
        });
        here.locator = locator;
        here.at = At::Disk { disk, origin: Origin::Inner };
        Ok(here)
    }
}

impl Opener {
    /// The plain disk behind the first secret that opens it; behind none, where protection is
    /// suspended.
    pub(crate) fn in_bitlocker(&self, mut here: Opened, disk: Arc<dyn Disk>) -> Result<Opened> {
        let volume = BitLocker::open(disk, &self.options().limits)?;
        here.notes.extend(volume.notes().iter().map(|note| trailed(note.clone(), &here.locator)));
        let disk = match volume.unlock_suspended()? {
            Some(disk) => {
                let text = "its protection is suspended: its key stands on it in the clear";
                here.notes.push(trailed(Finding::info("bitlocker-clear", text), &here.locator));
                disk
            }
            None => try_secrets(&self.options().secrets, |secret| volume.unlock(secret))?,
        };
        let protectors = volume.protectors()?;
        let protectors: Vec<String> = protectors.iter().map(|known| known.name()).collect();
        let locator = here.locator.step(b"");
        here.layers.push(LayerInfo {
            format: "BitLocker".to_owned(),
            locator: locator.clone(),
            facts: vec![
                ("volume", Fact::Text(volume.volume_id())),
                ("label", Fact::Text(volume.description())),
                ("layout", Fact::Text(volume.layout().to_owned())),
                ("cipher", Fact::Text(volume.cipher())),
                ("protectors", Fact::Text(protectors.join(", "))),
            ],
        });
        here.locator = locator;
        here.at = At::Disk { disk, origin: Origin::Inner };
        Ok(here)
    }
}

/// What the first secret opens that is not wrong.
///
/// Errors: `Denied` with none, and where all are wrong.
fn try_secrets<T>(secrets: &[Secret], open: impl Fn(&[u8]) -> Result<T>) -> Result<T> {
    let mut denied = None;
    for secret in secrets {
        match open(secret.bytes()) {
            Err(error) if error.kind() == Kind::Denied => denied = Some(error),
            opened => return opened,
        }
    }
    Err(denied.unwrap_or_else(|| {
        Error::new(Kind::Denied, Problem::Missing, "it is encrypted, and no secret was given")
            .advise("`--passphrase-file FILE` or `--key-file FILE` opens it")
    }))
}

/// A cipher for the clusters of a QCOW2 image.
#[derive(Debug)]
struct Clusters(adit_luks::Cipher);

impl adit_qcow::Decrypt for Clusters {
    fn decrypt(&self, first_sector: u64, buf: &mut [u8]) -> Result<()> {
        self.0.decrypt(first_sector, buf)
    }
}

impl adit_qcow::Encrypt for Clusters {
    fn encrypt(&self, first_sector: u64, buf: &mut [u8]) -> Result<()> {
        self.0.encrypt(first_sector, buf)
    }
}

/// What decrypts an encrypted image, from the first secret that is right; nothing for others.
///
/// Errors: `Denied` where no LUKS keyslot opens. The older AES cannot tell a wrong passphrase.
pub(crate) fn cipher_of(
    image: &adit_qcow::Image,
    file: &Arc<dyn Disk>,
    secrets: &[Secret],
    limits: &Limits,
) -> Result<Option<Arc<dyn adit_qcow::Encrypt>>> {
    use adit_qcow::Encryption;
    let cipher = match image.encryption() {
        None => return Ok(None),
        Some(Encryption::Aes) => try_secrets(secrets, adit_luks::Cipher::qcow_legacy)?,
        Some(Encryption::Luks) => {
            let header = image.luks_header().ok_or_else(|| {
                Error::corrupt(Problem::Missing, "it is encrypted, and names no LUKS header")
            })?;
            let length = header.end.saturating_sub(header.start);
            let header = Slice::open("LUKS header", Arc::clone(file), header.start, length);
            let luks = Luks::open_detached(header, Arc::clone(file), limits)?;
            try_secrets(secrets, |secret| luks.unlock_cipher(secret))?
        }
    };
    Ok(Some(Arc::new(Clusters(cipher))))
}
