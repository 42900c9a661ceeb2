//! Passphrases to keys, within bounds, and split keys to whole ones.

use adit_core::{Error, Place, Problem, Result};
use argon2::{Algorithm, Argon2, Params, Version};
use ripemd::Ripemd160;
use sha1::Sha1;
use sha2::{Digest, Sha256, Sha512};
use zeroize::{Zeroize, Zeroizing};

/// How much work and memory a header may ask for before it is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Memory of one Argon2 run. Unit: bytes.
    pub argon2_bytes_max: u64,
    /// Passes of Argon2 over its memory, times that memory. Unit: bytes.
    pub argon2_work_bytes_max: u64,
    /// Rounds of PBKDF2.
    pub pbkdf2_rounds_max: u64,
}

impl Default for Bounds {
    /// 2 GiB of memory; about ten minutes of one processor.
    fn default() -> Self {
        Bounds {
            argon2_bytes_max: 2 << 30,
            argon2_work_bytes_max: 512 << 30,
            pbkdf2_rounds_max: 1_000_000_000,
        }
    }
}

/// A hash by the name a header gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hash {
    Sha1,
    Sha256,
    Sha512,
    Ripemd160,
}

impl Hash {
    pub fn parse(name: &str) -> Result<Hash> {
        match name {
            "sha1" => Ok(Hash::Sha1),
            "sha256" => Ok(Hash::Sha256),
            "sha512" => Ok(Hash::Sha512),
            "ripemd160" => Ok(Hash::Ripemd160),
            name => Err(Error::unsupported(format!("hash {name:?}")).at(Place::new("LUKS hash"))),
        }
    }

    pub fn pbkdf2(
        self,
        secret: &[u8],
        salt: &[u8],
        rounds: u32,
        out: &mut [u8],
        bounds: &Bounds,
    ) -> Result<()> {
        if rounds == 0 {
            return Err(Error::corrupt(Problem::BadValue, "PBKDF2 of no rounds")
                .at(Place::new("LUKS key derivation")));
        }
        if u64::from(rounds) > bounds.pbkdf2_rounds_max {
            return Err(too_much("pbkdf2_rounds_max", format!("{rounds} rounds of PBKDF2")));
        }
        match self {
            Hash::Sha1 => pbkdf2::pbkdf2_hmac::<Sha1>(secret, salt, rounds, out),
            Hash::Sha256 => pbkdf2::pbkdf2_hmac::<Sha256>(secret, salt, rounds, out),
            Hash::Sha512 => pbkdf2::pbkdf2_hmac::<Sha512>(secret, salt, rounds, out),
            Hash::Ripemd160 => pbkdf2::pbkdf2_hmac::<Ripemd160>(secret, salt, rounds, out),
        }
        Ok(())
    }

    /// The hash of a number and some bytes, cut to the length of `into` at most.
    fn number_and(self, number: u32, bytes: &[u8], into: &mut [u8]) {
        fn run<D: Digest>(number: u32, bytes: &[u8], into: &mut [u8]) {
            let mut digest = D::new();
            digest.update(number.to_be_bytes());
            digest.update(bytes);
            let mut out = digest.finalize();
            into.iter_mut().zip(out.iter()).for_each(|(room, byte)| *room = *byte);
            out.as_mut_slice().zeroize();
        }
        match self {
            Hash::Sha1 => run::<Sha1>(number, bytes, into),
            Hash::Sha256 => run::<Sha256>(number, bytes, into),
            Hash::Sha512 => run::<Sha512>(number, bytes, into),
            Hash::Ripemd160 => run::<Ripemd160>(number, bytes, into),
        }
    }

    fn length(self) -> usize {
        match self {
            Hash::Sha1 | Hash::Ripemd160 => 20,
            Hash::Sha256 => 32,
            Hash::Sha512 => 64,
        }
    }

    /// Joins a key that was split into stripes so that none of them may be missing.
    ///
    /// Source: LUKS On-Disk Format 1.2.3, "AF splitter".
    pub fn merge(self, split: &[u8], key_length: usize) -> Zeroizing<Vec<u8>> {
        let mut key = Zeroizing::new(vec![0; key_length]);
        let mut stripes = split.chunks_exact(key_length.max(1)).peekable();
        while let Some(stripe) = stripes.next() {
            key.iter_mut().zip(stripe).for_each(|(room, byte)| *room ^= *byte);
            if stripes.peek().is_some() {
                self.diffuse(&mut key);
            }
        }
        key
    }

    fn diffuse(self, key: &mut [u8]) {
        for (number, part) in (0u32..).zip(key.chunks_mut(self.length())) {
            let before = Zeroizing::new(part.to_vec());
            self.number_and(number, &before, part);
        }
    }
}

/// The memory-hard derivation of LUKS2; `id` chooses Argon2id over Argon2i.
pub(crate) struct Argon {
    pub id: bool,
    pub passes: u32,
    pub memory_kib: u32,
    pub lanes: u32,
}

impl Argon {
    /// Errors: `Limit` before any memory is taken.
    pub fn derive(
        &self,
        secret: &[u8],
        salt: &[u8],
        out: &mut [u8],
        bounds: &Bounds,
    ) -> Result<()> {
        let bytes = u64::from(self.memory_kib).saturating_mul(1024);
        if bytes > bounds.argon2_bytes_max {
            return Err(too_much(
                "argon2_bytes_max",
                format!("Argon2 over {bytes} bytes of memory"),
            ));
        }
        let work = bytes.saturating_mul(u64::from(self.passes));
        if work > bounds.argon2_work_bytes_max {
            let detail = format!("{} passes of Argon2 over {bytes} bytes", self.passes);
            return Err(too_much("argon2_work_bytes_max", detail));
        }
        let failed = |error: argon2::Error| {
            Error::corrupt(Problem::BadValue, format!("Argon2 cannot run: {error}"))
                .at(Place::new("LUKS key derivation"))
        };
        let params = Params::new(self.memory_kib, self.passes, self.lanes, Some(out.len()));
        let algorithm = if self.id { Algorithm::Argon2id } else { Algorithm::Argon2i };
        let argon = Argon2::new(algorithm, Version::V0x13, params.map_err(failed)?);
        argon.hash_password_into(secret, salt, out).map_err(failed)
    }
}

fn too_much(bound: &'static str, detail: String) -> Error {
    Error::new(adit_core::Kind::Limit, Problem::TooMany, detail)
        .at(Place::new("LUKS key derivation").field(bound))
        .advise("the header asks for more than is allowed; raise the bound if you trust it")
}

/// Compares without telling by its time where a difference is.
pub(crate) fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0u8, |sum, (a, b)| sum | (a ^ b)) == 0
}
