//! Sectors to plain text and back: a block cipher, a mode, and a number for each sector.

use adit_core::{Error, Place, Problem, Result};
use aes::{Aes128, Aes192, Aes256};
use cipher::array::Array;
use cipher::array::typenum::U16;
use cipher::{BlockCipherDecrypt, BlockCipherEncrypt, KeyInit};
use serpent::Serpent;
use sha2::{Digest, Sha256};
use std::fmt;
use twofish::Twofish;

/// Blocks that are worked on at once; the hardware takes eight at a time.
const BATCH: usize = 32;

type Block = Array<u8, U16>;

/// Encrypts and decrypts whole sectors in place. One may serve many threads at once.
///
/// The key is wiped from memory when it is dropped.
pub struct Cipher {
    spec: String,
    data: Keyed,
    mode: Mode,
    iv: Iv,
    sector_bytes: usize,
}

impl fmt::Debug for Cipher {
    /// Its name alone: keys have no place in a message.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cipher({}, sectors of {} bytes)", self.spec, self.sector_bytes)
    }
}

enum Mode {
    /// With the key for tweaks.
    Xts(Keyed),
    Cbc,
}

/// How a sector's number becomes an initial vector.
enum Iv {
    /// 32 bits, little-endian.
    Plain,
    /// 64 bits, little-endian.
    Plain64,
    /// 64 bits, big-endian, at the end of the block.
    Plain64Be,
    /// The number encrypted with a hash of the key.
    Essiv(Keyed),
}

enum Keyed {
    Aes128(Box<Aes128>),
    Aes192(Box<Aes192>),
    Aes256(Box<Aes256>),
    Serpent(Box<Serpent>),
    Twofish(Box<Twofish>),
}

impl Cipher {
    /// A cipher by its name as `cryptsetup` spells it, `aes-xts-plain64` or
    /// `aes-cbc-essiv:sha256`, for sectors of 512 to 4096 bytes.
    ///
    /// Units: `sector_bytes` in bytes.
    /// Errors: `Unsupported` for other ciphers; `Corrupt` for a key of the wrong length.
    pub fn open(spec: &str, key: &[u8], sector_bytes: usize) -> Result<Cipher> {
        let bad = |detail: String| Err(Error::unsupported(detail).at(Place::new("cipher")));
        let mut words = spec.splitn(3, '-');
        let parts = (words.next(), words.next(), words.next());
        let (Some(name), Some(mode), Some(iv)) = parts else {
            return bad(format!("cipher {spec:?}"));
        };
        if !matches!(sector_bytes, 512 | 1024 | 2048 | 4096) {
            return bad(format!("sectors of {sector_bytes} bytes"));
        }
        let (key, mode) = match mode {
            "xts" => {
                let (data, tweak) = key.split_at(key.len() / 2);
                if data.len() != tweak.len() {
                    return Err(wrong_key(spec, key.len()));
                }
                (data, Mode::Xts(Keyed::new(name, tweak, spec)?))
            }
            "cbc" => (key, Mode::Cbc),
            mode => return bad(format!("mode {mode:?} of cipher {spec:?}")),
        };
        let iv = match iv {
            "plain" => Iv::Plain,
            "plain64" => Iv::Plain64,
            "plain64be" => Iv::Plain64Be,
            "essiv:sha256" => {
                let mut salt = Sha256::digest(key);
                let keyed = Keyed::new(name, &salt, spec);
                zeroize::Zeroize::zeroize(salt.as_mut_slice());
                Iv::Essiv(keyed?)
            }
            iv => return bad(format!("initial vectors {iv:?} of cipher {spec:?}")),
        };
        let data = Keyed::new(name, key, spec)?;
        let spec = spec.to_owned();
        Ok(Cipher { spec, data, mode, iv, sector_bytes })
    }

    /// The cipher of QCOW2's `crypt_method` 1: AES-128 in CBC mode, sectors of 512 bytes, and a
    /// key that is the passphrase itself, filled up with zeros or cut to 16 bytes.
    pub fn qcow_legacy(passphrase: &[u8]) -> Result<Cipher> {
        let mut key = zeroize::Zeroizing::new([0u8; 16]);
        key.iter_mut().zip(passphrase).for_each(|(room, byte)| *room = *byte);
        Self::open("aes-cbc-plain64", key.as_slice(), 512)
    }

    /// Its name as `cryptsetup` spells it.
    pub fn spec(&self) -> &str {
        &self.spec
    }

    /// Length of the sectors it works on. Unit: bytes.
    pub fn sector_bytes(&self) -> usize {
        self.sector_bytes
    }

    /// Decrypts whole sectors in place.
    ///
    /// Units: `first_sector` counts sectors of 512 bytes, whatever the cipher's own length of a
    /// sector; `buf` is a multiple of the latter.
    /// Errors: `Invalid` when `buf` is no whole number of sectors.
    pub fn decrypt(&self, first_sector: u64, buf: &mut [u8]) -> Result<()> {
        self.each_sector(first_sector, buf, |iv, sector| match &self.mode {
            Mode::Xts(_) => self.xts(iv, sector, Keyed::decrypt),
            Mode::Cbc => self.cbc_decrypt(iv, sector),
        })
    }

    /// Encrypts whole sectors in place.
    ///
    /// Units, errors: as `decrypt`.
    pub fn encrypt(&self, first_sector: u64, buf: &mut [u8]) -> Result<()> {
        self.each_sector(first_sector, buf, |iv, sector| match &self.mode {
            Mode::Xts(_) => self.xts(iv, sector, Keyed::encrypt),
            Mode::Cbc => self.cbc_encrypt(iv, sector),
        })
    }

    fn each_sector(
        &self,
        first: u64,
        buf: &mut [u8],
        each: impl Fn(Block, &mut [Block]),
    ) -> Result<()> {
        let step = u64::try_from(self.sector_bytes / 512).unwrap_or(1);
        if !buf.len().is_multiple_of(self.sector_bytes) {
            let detail =
                format!("{} bytes are no whole sectors of {}", buf.len(), self.sector_bytes);
            return Err(Error::invalid(Problem::Misaligned, detail));
        }
        let mut number = first;
        // Vectors of many sectors are encrypted at once, as their blocks are.
        for sectors in buf.chunks_mut(self.sector_bytes.saturating_mul(BATCH)) {
            let mut vectors = [Block::default(); BATCH];
            let mut count = 0usize;
            for (_, room) in sectors.chunks(self.sector_bytes).zip(&mut vectors) {
                *room = self.plain_vector(number);
                number = number.wrapping_add(step);
                count = count.saturating_add(1);
            }
            let vectors = vectors.get_mut(..count).unwrap_or_default();
            if let Iv::Essiv(key) = &self.iv {
                key.encrypt(vectors);
            }
            if let Mode::Xts(tweak) = &self.mode {
                tweak.encrypt(vectors);
            }
            for (sector, vector) in sectors.chunks_exact_mut(self.sector_bytes).zip(vectors) {
                each(*vector, Block::slice_as_chunks_mut(sector).0);
            }
        }
        Ok(())
    }

    fn plain_vector(&self, number: u64) -> Block {
        Block::from(match &self.iv {
            Iv::Plain => u128::from(number & 0xffff_ffff).to_le_bytes(),
            Iv::Plain64 | Iv::Essiv(_) => u128::from(number).to_le_bytes(),
            Iv::Plain64Be => u128::from(number).to_be_bytes(),
        })
    }

    /// XEX with a tweak that doubles from block to block.
    ///
    /// Source: IEEE 1619-2007.
    fn xts(&self, tweak: Block, sector: &mut [Block], work: impl Fn(&Keyed, &mut [Block])) {
        let mut next = number(&tweak);
        for batch in sector.chunks_mut(BATCH) {
            let mut tweaks = [0u128; BATCH];
            for (block, room) in batch.iter_mut().zip(&mut tweaks) {
                *room = next;
                xor(block, next);
                let carry = if next >> 127 == 0 { 0 } else { 0x87 };
                next = (next << 1) ^ carry;
            }
            work(&self.data, batch);
            for (block, tweak) in batch.iter_mut().zip(tweaks) {
                xor(block, tweak);
            }
        }
    }

    fn cbc_decrypt(&self, iv: Block, sector: &mut [Block]) {
        let mut before = number(&iv);
        for batch in sector.chunks_mut(BATCH) {
            let mut stored = [0u128; BATCH];
            batch.iter().zip(&mut stored).for_each(|(block, room)| *room = number(block));
            self.data.decrypt(batch);
            for (block, stored) in batch.iter_mut().zip(stored) {
                xor(block, before);
                before = stored;
            }
        }
    }

    fn cbc_encrypt(&self, iv: Block, sector: &mut [Block]) {
        let mut before = number(&iv);
        for block in sector {
            xor(block, before);
            self.data.encrypt(std::slice::from_mut(block));
            before = number(block);
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
    fn new(name: &str, key: &[u8], spec: &str) -> Result<Keyed> {
        let wrong = || wrong_key(spec, key.len());
        Ok(match (name, key.len().saturating_mul(8)) {
            ("aes", 128) => {
                Keyed::Aes128(Box::new(Aes128::new_from_slice(key).map_err(|_| wrong())?))
            }
            ("aes", 192) => {
                Keyed::Aes192(Box::new(Aes192::new_from_slice(key).map_err(|_| wrong())?))
            }
            ("aes", 256) => {
                Keyed::Aes256(Box::new(Aes256::new_from_slice(key).map_err(|_| wrong())?))
            }
            ("serpent", 128 | 192 | 256) => {
                Keyed::Serpent(Box::new(Serpent::new_from_slice(key).map_err(|_| wrong())?))
            }
            ("twofish", 128 | 192 | 256) => {
                Keyed::Twofish(Box::new(Twofish::new_from_slice(key).map_err(|_| wrong())?))
            }
            ("aes" | "serpent" | "twofish", _) => return Err(wrong()),
            _ => {
                return Err(Error::unsupported(format!("cipher {spec:?}")).at(Place::new("cipher")));
            }
        })
    }

    fn encrypt(&self, blocks: &mut [Block]) {
        match self {
            Keyed::Aes128(key) => key.encrypt_blocks(blocks),
            Keyed::Aes192(key) => key.encrypt_blocks(blocks),
            Keyed::Aes256(key) => key.encrypt_blocks(blocks),
            Keyed::Serpent(key) => key.encrypt_blocks(blocks),
            Keyed::Twofish(key) => key.encrypt_blocks(blocks),
        }
    }

    fn decrypt(&self, blocks: &mut [Block]) {
        match self {
            Keyed::Aes128(key) => key.decrypt_blocks(blocks),
            Keyed::Aes192(key) => key.decrypt_blocks(blocks),
            Keyed::Aes256(key) => key.decrypt_blocks(blocks),
            Keyed::Serpent(key) => key.decrypt_blocks(blocks),
            Keyed::Twofish(key) => key.decrypt_blocks(blocks),
        }
    }
}

fn wrong_key(spec: &str, length: usize) -> Error {
    let detail = format!("a key of {length} bytes is none of {spec}");
    Error::corrupt(Problem::BadValue, detail).at(Place::new("cipher").field("key"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(text: &str) -> Vec<u8> {
        (0..text.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
            .collect()
    }

    /// The published vector repeated to a sector, compared in its first blocks.
    #[test]
    fn xts_gives_the_vectors_of_ieee_1619() {
        // Vector 2: key 1 of 0x11, key 2 of 0x22, sector 0x3333333333, data of 0x44.
        let key = [vec![0x11; 16], vec![0x22; 16]].concat();
        let cipher = Cipher::open("aes-xts-plain64", &key, 512).unwrap();
        let mut sector = vec![0x44; 512];
        cipher.encrypt(0x33_3333_3333, &mut sector).unwrap();
        assert_eq!(
            sector[..32],
            hex("c454185e6a16936e39334038acef838bfb186fff7480adc4289382ecd6d394f0")
        );
        cipher.decrypt(0x33_3333_3333, &mut sector).unwrap();
        assert_eq!(sector, [0x44; 512]);
    }

    #[test]
    fn cbc_gives_the_vector_of_nist_sp_800_38a() {
        // F.2.1, with the block before taken as the initial vector of sector 0.
        let key = hex("2b7e151628aed2a6abf7158809cf4f3c");
        let cipher = Cipher::open("aes-cbc-plain64", &key, 512).unwrap();
        let iv = hex("000102030405060708090a0b0c0d0e0f");
        let plain = hex("6bc1bee22e409f96e93d7e117393172a");
        let mut sector = vec![0; 512];
        sector.iter_mut().zip(iv.iter().zip(&plain)).for_each(|(room, (a, b))| *room = a ^ b);
        cipher.encrypt(0, &mut sector).unwrap();
        assert_eq!(sector[..16], hex("7649abac8119b246cee98e9b12e9197d"));
    }

    #[test]
    fn every_cipher_undoes_itself_and_sectors_differ() {
        let specs = [
            ("aes-xts-plain64", vec![32, 48, 64]),
            ("aes-cbc-essiv:sha256", vec![16, 24, 32]),
            ("serpent-xts-plain64", vec![32, 64]),
            ("twofish-cbc-plain", vec![16, 32]),
            ("aes-cbc-plain64be", vec![32]),
        ];
        for (spec, sizes) in specs {
            for size in sizes {
                for sector_bytes in [512, 4096] {
                    let key: Vec<u8> = (0..size).collect();
                    let cipher = Cipher::open(spec, &key, sector_bytes).unwrap();
                    let mut buf = vec![7; sector_bytes * 3];
                    cipher.encrypt(40, &mut buf).unwrap();
                    assert_ne!(buf[..512], buf[sector_bytes..sector_bytes + 512], "{spec}");
                    // Any sector alone, by its number in 512 bytes.
                    let step = sector_bytes as u64 / 512;
                    cipher.decrypt(40 + step, &mut buf[sector_bytes..2 * sector_bytes]).unwrap();
                    assert_eq!(
                        buf[sector_bytes..2 * sector_bytes],
                        vec![7; sector_bytes],
                        "{spec}"
                    );
                }
            }
        }
    }

    #[test]
    fn keys_specs_and_buffers_that_do_not_fit_are_refused() {
        let kind = |spec, key: usize, sector| {
            Cipher::open(spec, &vec![1; key], sector).unwrap_err().kind()
        };
        use adit_core::Kind::{Corrupt, Unsupported};
        assert_eq!(kind("aes-xts-plain64", 33, 512), Corrupt);
        assert_eq!(kind("aes-xts-plain64", 0, 512), Corrupt);
        for spec in ["aes", "aes-ecb-null", "aes-xts-benbi", "des-cbc-plain", "aes-cbc-essiv:md5"] {
            assert_eq!(kind(spec, 32, 512), Unsupported, "{spec}");
        }
        assert_eq!(kind("aes-xts-plain64", 64, 520), Unsupported);
        let cipher = Cipher::open("aes-xts-plain64", &[1; 64], 512).unwrap();
        assert!(cipher.decrypt(0, &mut [0; 100]).is_err());
        assert!(!format!("{cipher:?}").contains("1, 1"));
    }
}
