//! From what the user knows to the volume's key.
//!
//! Source: libbde's public format documentation.

use crate::entries::{self, Entry, kind, purpose};
use crate::metadata::{ListHeader, Metadata};
use adit_core::bytes::array;
use adit_core::{Result, bytes::u16_le};
use aes::Aes256;
use ccm::aead::inout::InOutBuf;
use ccm::aead::{AeadInOut, KeyInit};
use ccm::consts::{U12, U16};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

/// Rounds that a password is stretched by.
const ROUNDS: u64 = 0x10_0000;

type Key = Zeroizing<[u8; 32]>;

/// Who may open the volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Protector {
    /// A key that stands in the clear: protection is suspended.
    Clear,
    /// The machine's security chip, alone or with more.
    Chip,
    /// A `.BEK` file, on its own.
    KeyFile,
    /// A password of 48 digits.
    RecoveryPassword,
    /// A password.
    Password,
    /// Another kind, by its number.
    Other(u16),
}

impl Protector {
    /// For people.
    pub fn name(self) -> String {
        match self {
            Protector::Clear => "key in the clear".to_owned(),
            Protector::Chip => "security chip (TPM)".to_owned(),
            Protector::KeyFile => "key file (.BEK)".to_owned(),
            Protector::RecoveryPassword => "recovery password".to_owned(),
            Protector::Password => "password".to_owned(),
            Protector::Other(number) => format!("protector {number:#06x}"),
        }
    }

    fn of(number: u16) -> Protector {
        match number {
            0x0000 => Protector::Clear,
            0x0100..=0x07ff if number & 0x0100 != 0 => Protector::Chip,
            0x0200 => Protector::KeyFile,
            0x0800 => Protector::RecoveryPassword,
            0x2000 => Protector::Password,
            other => Protector::Other(other),
        }
    }
}

/// A copy of the volume's master key, locked.
pub(crate) struct Lock<'a> {
    pub id: [u8; 16],
    pub protector: Protector,
    inner: Vec<Entry<'a>>,
}

/// Bytes before the entries of a lock.
const LOCK_HEAD: usize = 28;

/// All locks of the volume.
pub(crate) fn locks(metadata: &Metadata) -> Result<Vec<Lock<'_>>> {
    let mut locks = Vec::new();
    for entry in metadata.entries()? {
        if entry.purpose != purpose::MASTER_KEY || entry.kind != kind::MASTER_KEY {
            continue;
        }
        let (Some(id), Some(number)) = (array(entry.data, 0), u16_le(entry.data, 26)) else {
            continue;
        };
        let inner = entry.within(LOCK_HEAD)?;
        locks.push(Lock { id, protector: Protector::of(number), inner });
    }
    Ok(locks)
}

impl Lock<'_> {
    fn first(&self, kind: u16) -> Option<&Entry<'_>> {
        self.inner.iter().find(|entry| entry.kind == kind)
    }

    /// The master key, where a key opens this lock.
    fn open(&self, key: &Key) -> Option<Key> {
        let plain = open_box(self.first(kind::ENCRYPTED_KEY)?.data, key)?;
        key_in(&plain).and_then(|key| array(key, 0)).map(Zeroizing::new)
    }

    /// The key that stands beside this lock.
    fn clear_key(&self) -> Option<Key> {
        array(self.first(kind::KEY)?.key()?, 0).map(Zeroizing::new)
    }

    fn salt(&self) -> Option<[u8; 16]> {
        array(self.first(kind::STRETCH_KEY)?.data, 4)
    }
}

/// The volume's key, from a lock that needs nothing.
pub(crate) fn clear(metadata: &Metadata) -> Result<Option<Zeroizing<Vec<u8>>>> {
    for lock in locks(metadata)? {
        if lock.protector == Protector::Clear
            && let Some(key) = lock.clear_key()
            && let Some(master) = lock.open(&key)
        {
            return Ok(volume_key(metadata, &master));
        }
    }
    Ok(None)
}

/// The volume's key, if `secret` opens a lock: as a key file, as a recovery password, as a
/// password.
pub(crate) fn unlock(metadata: &Metadata, secret: &[u8]) -> Result<Option<Zeroizing<Vec<u8>>>> {
    let external = key_file(secret);
    let recovery = recovery_hash(secret);
    let password = password_hash(secret);
    for lock in locks(metadata)? {
        let key = match lock.protector {
            Protector::KeyFile => {
                external.as_ref().filter(|(id, _)| *id == lock.id).map(|(_, key)| key.clone())
            }
            Protector::RecoveryPassword => {
                recovery.as_ref().zip(lock.salt()).map(|(hash, salt)| stretch(hash, &salt))
            }
            Protector::Password => {
                password.as_ref().zip(lock.salt()).map(|(hash, salt)| stretch(hash, &salt))
            }
            _ => None,
        };
        if let Some(master) = key.and_then(|key| lock.open(&key)) {
            return Ok(volume_key(metadata, &master));
        }
    }
    Ok(None)
}

/// The volume's key behind its master key.
fn volume_key(metadata: &Metadata, master: &Key) -> Option<Zeroizing<Vec<u8>>> {
    let entries = metadata.entries().ok()?;
    entries
        .iter()
        .filter(|entry| entry.purpose == purpose::VOLUME_KEY && entry.kind == kind::ENCRYPTED_KEY)
        .find_map(|entry| {
            let plain = open_box(entry.data, master)?;
            key_in(&plain).map(|key| Zeroizing::new(key.to_vec()))
        })
}

/// What AES-CCM sealed: twelve bytes of nonce, sixteen of tag, the sealed bytes.
fn open_box(data: &[u8], key: &Key) -> Option<Zeroizing<Vec<u8>>> {
    let nonce: [u8; 12] = array(data, 0)?;
    let tag: [u8; 16] = array(data, 12)?;
    let mut plain = Zeroizing::new(data.get(28..)?.to_vec());
    let ccm = ccm::Ccm::<Aes256, U16, U12>::new_from_slice(key.as_slice()).ok()?;
    let whole = InOutBuf::from(plain.as_mut_slice());
    ccm.decrypt_inout_detached(&nonce.into(), &[], whole, &tag.into()).ok()?;
    Some(plain)
}

/// The key in an entry that was sealed.
fn key_in(plain: &[u8]) -> Option<&[u8]> {
    entries::read(plain).ok()?.first()?.key()
}

/// The key that a `.BEK` file holds, and for which lock.
fn key_file(bytes: &[u8]) -> Option<([u8; 16], Key)> {
    let head = ListHeader::read(bytes).ok()?;
    let length = usize::try_from(head.size).ok()?;
    if head.size != head.size_again || length > bytes.len() {
        return None;
    }
    let listed = entries::read(bytes.get(ListHeader::SIZE..length)?).ok()?;
    let external = listed
        .iter()
        .find(|entry| entry.purpose == purpose::EXTERNAL_KEY && entry.kind == kind::EXTERNAL_KEY)?;
    // A GUID and a time, then entries.
    let inner = external.within(24).ok()?;
    let key = inner.iter().find_map(Entry::key)?;
    Some((array(external.data, 0)?, Zeroizing::new(array(key, 0)?)))
}

/// Hash of a password: of its UTF-16 units, twice.
fn password_hash(secret: &[u8]) -> Option<Key> {
    let text = std::str::from_utf8(secret).ok()?;
    let units: Zeroizing<Vec<u8>> =
        Zeroizing::new(text.encode_utf16().flat_map(u16::to_le_bytes).collect());
    let once = Zeroizing::new(<[u8; 32]>::from(Sha256::digest(units.as_slice())));
    Some(Zeroizing::new(Sha256::digest(once.as_slice()).into()))
}

/// Hash of a recovery password: eight groups of six digits, each a multiple of eleven.
fn recovery_hash(secret: &[u8]) -> Option<Key> {
    let text = std::str::from_utf8(secret).ok()?.trim();
    let mut packed = Zeroizing::new(Vec::with_capacity(16));
    for group in text.split(['-', ' ']) {
        let number: u32 = group.parse().ok().filter(|_| group.len() == 6)?;
        let part = number.is_multiple_of(11).then(|| u16::try_from(number / 11).ok()).flatten()?;
        packed.extend_from_slice(&part.to_le_bytes());
    }
    (packed.len() == 16).then(|| Zeroizing::new(Sha256::digest(packed.as_slice()).into()))
}

/// Makes guessing slow: a million rounds of SHA-256.
fn stretch(hash: &Key, salt: &[u8; 16]) -> Key {
    let mut last: Key = Zeroizing::new([0; 32]);
    for round in 0..ROUNDS {
        let mut sha = Sha256::new();
        sha.update(last.as_slice());
        sha.update(hash.as_slice());
        sha.update(salt);
        sha.update(round.to_le_bytes());
        *last = sha.finalize().into();
    }
    last
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recovery_password_has_eight_groups_divisible_by_eleven() {
        let right = b"284867-596541-514998-422114-660297-261613-215424-199408";
        assert!(recovery_hash(right).is_some());
        assert!(
            recovery_hash(b"284868-596541-514998-422114-660297-261613-215424-199408").is_none()
        );
        assert!(recovery_hash(b"284867-596541-514998-422114-660297-261613-215424").is_none());
        assert!(
            recovery_hash(b"999999-596541-514998-422114-660297-261613-215424-199408").is_none()
        );
        assert!(recovery_hash(b"password").is_none());
    }
}
