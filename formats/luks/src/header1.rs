//! The header of LUKS1.
//!
//! Source: LUKS On-Disk Format Specification 1.2.3.

use crate::header::{Derivation, Header, KeyDigest, Keyslot, Segment, bad, check_lengths};
use crate::kdf::Hash;
use adit_core::bytes::{index, until_nul};
use adit_core::{Problem, Result, on_disk};

on_disk! {
    /// Header of LUKS1; eight keyslots follow.
    pub struct Header1 (592 bytes, big_endian) {
        0x000 magic: [u8; 6],
        0x006 version: u16,
        0x008 cipher: [u8; 32],
        0x028 mode: [u8; 32],
        0x048 hash: [u8; 32],
        /// Unit: sectors of 512 bytes.
        0x068 payload: u32,
        0x06c key_bytes: u32,
        0x070 digest: [u8; 20],
        0x084 digest_salt: [u8; 32],
        0x0a4 digest_rounds: u32,
        0x0a8 uuid: [u8; 40],
        0x0d0 keyslots: [[u8; 48]; 8],
    }
}

on_disk! {
    /// A keyslot of LUKS1.
    pub struct Keyslot1 (48 bytes, big_endian) {
        0x00 active: u32,
        0x04 rounds: u32,
        0x08 salt: [u8; 32],
        /// Unit: sectors of 512 bytes.
        0x28 offset: u32,
        0x2c stripes: u32,
    }
}

/// Marks a keyslot in use.
const ACTIVE: u32 = 0x00ac_71f3;

pub(crate) fn parse(bytes: &[u8]) -> Result<Header> {
    let raw = Header1::read(bytes)?;
    let text = |field: &[u8]| String::from_utf8_lossy(until_nul(field)).into_owned();
    let hash = Hash::parse(&text(&raw.hash));
    let cipher = format!("{}-{}", text(&raw.cipher), text(&raw.mode));
    let key_bytes = index(raw.key_bytes);
    let mut keyslots = Vec::new();
    for (number, slot) in (0u64..).zip(&raw.keyslots) {
        let slot = Keyslot1::read(slot)?;
        if slot.active != ACTIVE {
            continue;
        }
        let rounds = slot.rounds;
        let keyslot = Keyslot {
            number,
            key_bytes,
            stripes: index(slot.stripes),
            hash: hash.clone(),
            derivation: hash.clone().map(|hash| Derivation::Pbkdf2 { hash, rounds }),
            salt: slot.salt.to_vec(),
            offset: u64::from(slot.offset).saturating_mul(512),
            cipher: cipher.clone(),
            area_key_bytes: key_bytes,
        };
        check_lengths(&keyslot)?;
        keyslots.push(keyslot);
    }
    let digest = KeyDigest {
        hash: hash?,
        rounds: raw.digest_rounds,
        salt: raw.digest_salt.to_vec(),
        digest: raw.digest.to_vec(),
        keyslots: None,
    };
    if key_bytes == 0 || key_bytes > crate::header::KEY_BYTES_MAX {
        let detail = format!("a volume key of {key_bytes} bytes");
        return Err(bad(Problem::BadValue, "key_bytes", detail));
    }
    Ok(Header {
        version: 1,
        uuid: text(&raw.uuid),
        label: String::new(),
        segment: Segment {
            offset: u64::from(raw.payload).saturating_mul(512),
            length: None,
            cipher,
            sector_bytes: 512,
            tweak: 0,
        },
        keyslots,
        digests: vec![digest],
    })
}
