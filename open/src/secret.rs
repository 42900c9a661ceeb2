//! Encrypted disks, opened with what the user knows.

use crate::describe::trailed;
use crate::{At, Fact, LayerInfo, Opened, Opener, Origin};
use adit_core::{Disk, Error, Kind, Problem, Result};
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
        let disk = self.try_secrets(|secret| luks.unlock(secret))?;
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

    /// What the first secret opens that is not wrong.
    ///
    /// Errors: `Denied` with none, and where all are wrong.
    pub(crate) fn try_secrets<T>(&self, open: impl Fn(&[u8]) -> Result<T>) -> Result<T> {
        let mut denied = None;
        for secret in &self.options().secrets {
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
}
