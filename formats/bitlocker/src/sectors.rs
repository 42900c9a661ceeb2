//! Encrypted sectors to plain ones.
//!
//! Source: libbde's public format documentation; IEEE 1619; Ferguson 2006 for the diffuser.

use crate::diffuser;
use adit_core::{Error, Place, Problem, Result};
use aes::{Aes128, Aes256};
use cipher::array::Array;
use cipher::array::typenum::U16;
use cipher::{BlockCipherDecrypt, BlockCipherEncrypt, KeyInit};

/// Blocks that are worked on at once; the hardware takes eight at a time.
const BATCH: usize = 32;

type Block = Array<u8, U16>;

/// Decrypts whole sectors in place. One may serve many threads at once.
pub(crate) struct Sectors {
    data: Keyed,
    mode: Mode,
    sector_bytes: u32,
}

enum Mode {
    Cbc,
    /// With the key for the sectors' own keys.
    Diffused(Keyed),
    /// With the key for tweaks.
    Xts(Keyed),
}

enum Keyed {
    Aes128(Box<Aes128>),
    Aes256(Box<Aes256>),
}

/// A cipher as the metadata number it, in words.
pub(crate) fn name(cipher: u16) -> String {
    match cipher {
        0x0000 => "none",
        0x8000 => "AES-CBC-128 with diffuser",
        0x8001 => "AES-CBC-256 with diffuser",
        0x8002 => "AES-CBC-128",
        0x8003 => "AES-CBC-256",
        0x8004 => "AES-XTS-128",
        0x8005 => "AES-XTS-256",
        other => return format!("cipher {other:#06x}"),
    }
    .to_owned()
}

impl Sectors {
    /// From the number of the cipher and the volume's key.
    ///
    /// Errors: `Unsupported` for other ciphers, `Corrupt` for a key that is too short.
    pub fn open(cipher: u16, key: &[u8], sector_bytes: u32) -> Result<Sectors> {
        let place = || Place::new("BitLocker volume key");
        let part = |at: usize, length: usize| {
            key.get(at..at.saturating_add(length)).ok_or_else(|| {
                let detail = format!("{} bytes are too few for {}", key.len(), name(cipher));
                Error::corrupt(Problem::BadValue, detail).at(place())
            })
        };
        let (data, mode) = match cipher {
            0x8000 => (part(0, 16)?, Mode::Diffused(Keyed::new(part(32, 16)?)?)),
            0x8001 => (part(0, 32)?, Mode::Diffused(Keyed::new(part(32, 32)?)?)),
            0x8002 => (part(0, 16)?, Mode::Cbc),
            0x8003 => (part(0, 32)?, Mode::Cbc),
            0x8004 => (part(0, 16)?, Mode::Xts(Keyed::new(part(16, 16)?)?)),
            0x8005 => (part(0, 32)?, Mode::Xts(Keyed::new(part(32, 32)?)?)),
            other => {
                return Err(Error::unsupported(format!("BitLocker {}", name(other))).at(place()));
            }
        };
        Ok(Sectors { data: Keyed::new(data)?, mode, sector_bytes })
    }

    /// Unit: bytes.
    pub fn sector_bytes(&self) -> u32 {
        self.sector_bytes
    }

    /// Decrypts whole sectors; the first stands at byte `at` of the volume.
    pub fn decrypt(&self, at: u64, buf: &mut [u8]) {
        let length = usize::try_from(self.sector_bytes).unwrap_or(512).max(512);
        let mut at = at;
        for sector in buf.chunks_exact_mut(length) {
            self.sector(at, sector);
            at = at.wrapping_add(u64::from(self.sector_bytes));
        }
    }

    fn sector(&self, at: u64, sector: &mut [u8]) {
        let (blocks, _) = Block::slice_as_chunks_mut(sector);
        match &self.mode {
            Mode::Xts(tweaks) => {
                let number = at.checked_div(u64::from(self.sector_bytes)).unwrap_or(0);
                self.xts(tweaks.one(u128::from(number)), blocks);
            }
            Mode::Cbc => self.cbc(self.data.one(u128::from(at)), blocks),
            Mode::Diffused(keys) => {
                self.cbc(self.data.one(u128::from(at)), blocks);
                diffuser::undo(sector);
                // Two blocks: the place, and the place with a mark in its last byte.
                let low = keys.one(u128::from(at));
                let high = keys.one(u128::from(at) | (0x80 << 120));
                let (blocks, _) = Block::slice_as_chunks_mut(sector);
                for (block, key) in blocks.iter_mut().zip([low, high].into_iter().cycle()) {
                    xor(block, key);
                }
            }
        }
    }

    fn cbc(&self, vector: u128, blocks: &mut [Block]) {
        let mut before = vector;
        for batch in blocks.chunks_mut(BATCH) {
            let mut stored = [0u128; BATCH];
            batch.iter().zip(&mut stored).for_each(|(block, room)| *room = number(block));
            self.data.decrypt(batch);
            for (block, stored) in batch.iter_mut().zip(stored) {
                xor(block, before);
                before = stored;
            }
        }
    }

    fn xts(&self, tweak: u128, blocks: &mut [Block]) {
        let mut next = tweak;
        for batch in blocks.chunks_mut(BATCH) {
            let mut tweaks = [0u128; BATCH];
            for (block, room) in batch.iter_mut().zip(&mut tweaks) {
                *room = next;
                xor(block, next);
                let carry = if next >> 127 == 0 { 0 } else { 0x87 };
                next = (next << 1) ^ carry;
            }
            self.data.decrypt(batch);
            for (block, tweak) in batch.iter_mut().zip(tweaks) {
                xor(block, tweak);
            }
        }
    }
}

fn number(block: &Block) -> u128 {
    u128::from_le_bytes((*block).into())
}

fn xor(block: &mut Block, with: u128) {
    *block = Block::from((number(block) ^ with).to_le_bytes());
}

impl Keyed {
    fn new(key: &[u8]) -> Result<Keyed> {
        let wrong = || {
            let detail = format!("a key of {} bytes", key.len());
            Error::corrupt(Problem::BadValue, detail).at(Place::new("BitLocker volume key"))
        };
        Ok(match key.len() {
            16 => Keyed::Aes128(Box::new(Aes128::new_from_slice(key).map_err(|_| wrong())?)),
            32 => Keyed::Aes256(Box::new(Aes256::new_from_slice(key).map_err(|_| wrong())?)),
            _ => return Err(wrong()),
        })
    }

    /// One block, encrypted.
    fn one(&self, value: u128) -> u128 {
        let mut block = Block::from(value.to_le_bytes());
        match self {
            Keyed::Aes128(key) => key.encrypt_block(&mut block),
            Keyed::Aes256(key) => key.encrypt_block(&mut block),
        }
        number(&block)
    }

    fn decrypt(&self, blocks: &mut [Block]) {
        match self {
            Keyed::Aes128(key) => key.decrypt_blocks(blocks),
            Keyed::Aes256(key) => key.decrypt_blocks(blocks),
        }
    }
}
