//! What both versions say, in one form: keyslots, digests and the encrypted segment.

use crate::kdf::{Argon, Bounds, Hash, same};
use adit_core::{Error, Place, Problem, Result};
use zeroize::Zeroizing;

/// Longest volume key: two keys of 256 bits, and room.
pub(crate) const KEY_BYTES_MAX: usize = 512;
/// Longest split key. cryptsetup makes 4000 stripes of 64 bytes.
pub(crate) const SPLIT_BYTES_MAX: usize = 16 << 20;

/// Most keyslots and digests of a header; cryptsetup makes at most 32.
pub(crate) const SLOTS_MAX: usize = 32;

/// A header that was checked.
#[derive(Debug)]
pub(crate) struct Header {
    pub version: u16,
    pub uuid: String,
    pub label: String,
    pub segment: Segment,
    pub keyslots: Vec<Keyslot>,
    pub digests: Vec<KeyDigest>,
}

/// The encrypted part of the disk.
#[derive(Clone, Debug)]
pub(crate) struct Segment {
    /// Unit: bytes.
    pub offset: u64,
    /// To the end where it is none. Unit: bytes.
    pub length: Option<u64>,
    pub cipher: String,
    pub sector_bytes: usize,
    /// Added to the number of every sector.
    pub tweak: u64,
}

/// A place that holds the volume key, encrypted with a passphrase.
#[derive(Debug)]
pub(crate) struct Keyslot {
    pub number: u64,
    pub key_bytes: usize,
    pub stripes: usize,
    pub hash: Result<Hash>,
    pub derivation: Result<Derivation>,
    pub salt: Vec<u8>,
    /// Where the split key stands. Unit: bytes of the header's disk.
    pub offset: u64,
    pub cipher: String,
    /// Length of the key that encrypts the split key.
    pub area_key_bytes: usize,
}

/// How a passphrase becomes the key of a keyslot.
pub(crate) enum Derivation {
    Pbkdf2 { hash: Hash, rounds: u32 },
    Argon2(Argon),
}

impl std::fmt::Debug for Derivation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Derivation::Pbkdf2 { .. } => "PBKDF2",
            Derivation::Argon2(argon) if argon.id => "Argon2id",
            Derivation::Argon2(_) => "Argon2i",
        })
    }
}

impl Derivation {
    pub fn derive(
        &self,
        secret: &[u8],
        salt: &[u8],
        length: usize,
        bounds: &Bounds,
    ) -> Result<Zeroizing<Vec<u8>>> {
        let mut key = Zeroizing::new(vec![0; length]);
        match self {
            Derivation::Pbkdf2 { hash, rounds } => {
                hash.pbkdf2(secret, salt, *rounds, &mut key, bounds)?
            }
            Derivation::Argon2(argon) => argon.derive(secret, salt, &mut key, bounds)?,
        }
        Ok(key)
    }
}

/// What tells whether a volume key is right.
#[derive(Debug)]
pub(crate) struct KeyDigest {
    pub hash: Hash,
    pub rounds: u32,
    pub salt: Vec<u8>,
    pub digest: Vec<u8>,
    /// Keyslots whose key it verifies; all where it is none.
    pub keyslots: Option<Vec<u64>>,
}

impl KeyDigest {
    pub fn verifies(&self, keyslot: u64, key: &[u8], bounds: &Bounds) -> Result<bool> {
        if self.keyslots.as_ref().is_some_and(|slots| !slots.contains(&keyslot)) {
            return Ok(false);
        }
        let mut digest = vec![0; self.digest.len()];
        self.hash.pbkdf2(key, &self.salt, self.rounds, &mut digest, bounds)?;
        Ok(same(&digest, &self.digest))
    }
}

pub(crate) fn bad(problem: Problem, field: &'static str, detail: impl Into<String>) -> Error {
    Error::corrupt(problem, detail).at(Place::new("LUKS header").field(field))
}

/// Checks lengths before anything is allocated by them.
pub(crate) fn check_lengths(keyslot: &Keyslot) -> Result<()> {
    let split = keyslot.key_bytes.checked_mul(keyslot.stripes);
    let fits = (1..=KEY_BYTES_MAX).contains(&keyslot.key_bytes)
        && (1..=KEY_BYTES_MAX).contains(&keyslot.area_key_bytes)
        && split.is_some_and(|split| split > 0 && split <= SPLIT_BYTES_MAX);
    if !fits {
        let detail = format!(
            "keyslot {}: {} stripes of a key of {} bytes",
            keyslot.number, keyslot.stripes, keyslot.key_bytes
        );
        return Err(bad(Problem::BadValue, "keyslot", detail));
    }
    Ok(())
}
