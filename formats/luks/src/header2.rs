//! The header of LUKS2: two copies of a binary part and a JSON text.
//!
//! Source: LUKS2 On-Disk Format Specification 1.1.

use crate::header::{
    Derivation, Header, KeyDigest, Keyslot, SLOTS_MAX, Segment, bad, check_lengths,
};
use crate::kdf::{Argon, Hash, same};
use adit_core::bytes::{index, narrow, until_nul, wide};
use adit_core::{Disk, DiskExt, Error, Finding, Limits, Place, Problem, Result, on_disk};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256, Sha512};
use std::sync::Arc;

on_disk! {
    /// Binary part of a header; the text follows up to `size`.
    pub struct Header2 (4096 bytes, big_endian) {
        0x000 magic: [u8; 6],
        0x006 version: u16,
        /// Unit: bytes.
        0x008 size: u64,
        /// Rises with every change.
        0x010 sequence: u64,
        0x018 label: [u8; 48],
        0x048 checksum_kind: [u8; 32],
        0x068 salt: [u8; 64],
        0x0a8 uuid: [u8; 40],
        0x0d0 subsystem: [u8; 48],
        /// Its own place. Unit: bytes.
        0x100 offset: u64,
        0x1c0 checksum: [u8; 64],
    }
}

/// Magic of the first copy.
pub const MAGIC: [u8; 6] = *b"LUKS\xba\xbe";
/// Magic of the second copy.
const MAGIC_SECOND: [u8; 6] = *b"SKUL\xba\xbe";
/// Where the second copy may stand: right behind the first, whose length is one of these.
const SECOND_AT: [u64; 9] =
    [0x4000, 0x8000, 0x1_0000, 0x2_0000, 0x4_0000, 0x8_0000, 0x10_0000, 0x20_0000, 0x40_0000];

/// Reads the newer of both copies that is whole.
pub(crate) fn read(disk: &Arc<dyn Disk>, limits: &Limits) -> Result<(Header, Vec<Finding>)> {
    let mut notes = Vec::new();
    let first = copy(disk, 0, MAGIC, limits);
    let second = match &first {
        Ok((raw, _)) => copy(disk, raw.size, MAGIC_SECOND, limits),
        Err(_) => find_second(disk, limits),
    };
    let (raw, text) = match (first, second) {
        (Ok(first), Ok(second)) => {
            if second.0.sequence > first.0.sequence {
                second
            } else {
                first
            }
        }
        (Ok(good), Err(error)) | (Err(error), Ok(good)) => {
            let mut note = Finding::from_error("luks-header-damaged", &error);
            note.severity = adit_core::Severity::Warning;
            note.text = format!("{}; the other copy is used", note.text);
            notes.push(note);
            good
        }
        (Err(error), Err(_)) => return Err(error),
    };
    parse(&raw, &text).map(|header| (header, notes))
}

fn find_second(disk: &Arc<dyn Disk>, limits: &Limits) -> Result<(Header2, Vec<u8>)> {
    for at in SECOND_AT {
        if disk.read_prefix(at, 6)? == MAGIC_SECOND {
            return copy(disk, at, MAGIC_SECOND, limits);
        }
    }
    Err(bad(Problem::Missing, "second header", "there is no second copy of the header"))
}

fn copy(
    disk: &Arc<dyn Disk>,
    at: u64,
    magic: [u8; 6],
    limits: &Limits,
) -> Result<(Header2, Vec<u8>)> {
    let place = || Place::new("LUKS2 header").byte(at);
    let raw = Header2::read(&disk.read_prefix(at, Header2::SIZE)?).map_err(|e| e.at(place()))?;
    let bad = |problem, detail: String| Err(Error::corrupt(problem, detail).at(place()));
    if raw.magic != magic || raw.version != 2 {
        return bad(Problem::BadMagic, "it does not begin as one".into());
    }
    if !SECOND_AT.contains(&raw.size) || raw.offset != at {
        let detail = format!("{} bytes, said to stand at byte {:#x}", raw.size, raw.offset);
        return bad(Problem::BadValue, detail);
    }
    if raw.size > limits.text_bytes_max.saturating_add(4096) {
        return Err(Error::limit("text_bytes_max", format!("{} bytes of header", raw.size)));
    }
    let mut whole = disk.read_prefix(at, narrow(raw.size).unwrap_or(0))?;
    if wide(whole.len()) < raw.size {
        return bad(Problem::Truncated, "the disk ends within the header".into());
    }
    if let Some(own) = whole.get_mut(0x1c0..0x200) {
        own.fill(0);
    }
    let matches = match until_nul(&raw.checksum_kind) {
        b"sha256" => {
            same(Sha256::digest(&whole).as_slice(), raw.checksum.get(..32).unwrap_or_default())
        }
        b"sha512" => same(Sha512::digest(&whole).as_slice(), &raw.checksum),
        other => {
            let name = String::from_utf8_lossy(other).into_owned();
            return Err(Error::unsupported(format!("header checksum {name:?}")).at(place()));
        }
    };
    if !matches {
        return bad(Problem::BadChecksum, "the header's checksum does not match".into());
    }
    Ok((raw, whole.split_off(Header2::SIZE)))
}

fn parse(raw: &Header2, text: &[u8]) -> Result<Header> {
    let json: Value = serde_json::from_slice(until_nul(text))
        .map_err(|error| bad(Problem::BadValue, "JSON", format!("no JSON: {error}")))?;
    check_requirements(&json)?;
    let digests = object(&json, "digests")?;
    if digests.len() > SLOTS_MAX || object(&json, "keyslots")?.len() > SLOTS_MAX {
        let detail = format!("more than {SLOTS_MAX} keyslots or digests");
        return Err(bad(Problem::TooMany, "keyslots", detail));
    }
    let digests = digests.values().map(digest).collect::<Result<Vec<_>>>()?;
    let mut slots = Vec::new();
    for (number, body) in object(&json, "keyslots")? {
        let number = number.parse().map_err(|_| missing("keyslots"))?;
        // Other types hold no key: they belong to re-encryption.
        if text_of(body, "type")? == "luks2" {
            let priority = body.get("priority").and_then(Value::as_u64).unwrap_or(1);
            slots.push((std::cmp::Reverse(priority), keyslot(number, body)?));
        }
    }
    slots.sort_by_key(|(priority, slot)| (*priority, slot.number));
    let keyslots: Vec<Keyslot> = slots.into_iter().map(|(_, slot)| slot).collect();
    let text = |field: &[u8]| String::from_utf8_lossy(until_nul(field)).into_owned();
    Ok(Header {
        version: 2,
        uuid: text(&raw.uuid),
        label: text(&raw.label),
        segment: segment(&json)?,
        keyslots,
        digests,
    })
}

/// What a reader must know before it may touch the disk.
fn check_requirements(json: &Value) -> Result<()> {
    let mandatory = json.pointer("/config/requirements/mandatory").and_then(Value::as_array);
    let names: Vec<&str> = mandatory.into_iter().flatten().filter_map(Value::as_str).collect();
    if let Some(first) = names.first() {
        let what = match first.starts_with("online-reencrypt") || first.starts_with("offline") {
            true => "a re-encryption has not ended".to_owned(),
            false => format!("the header requires {first:?}"),
        };
        return Err(Error::unsupported(what)
            .at(Place::new("LUKS2 header").field("requirements"))
            .advise("let cryptsetup end what it began"));
    }
    Ok(())
}

fn segment(json: &Value) -> Result<Segment> {
    let segments = object(json, "segments")?;
    let mut used = segments.values().filter(|segment| {
        let flags = segment.get("flags").and_then(Value::as_array);
        !flags
            .into_iter()
            .flatten()
            .any(|flag| flag.as_str().is_some_and(|f| f.starts_with("backup")))
    });
    let first = used.next().ok_or_else(|| missing("segments"))?;
    let kind = text_of(first, "type")?;
    if kind != "crypt" || used.next().is_some() || first.get("integrity").is_some() {
        let what = match first.get("integrity") {
            Some(_) => "segments with integrity tags".to_owned(),
            None => format!("several segments, or one of type {kind:?}"),
        };
        return Err(Error::unsupported(what).at(Place::new("LUKS2 header").field("segments")));
    }
    let length = match text_of(first, "size")? {
        "dynamic" => None,
        size => Some(size.parse().map_err(|_| missing("size"))?),
    };
    let sector = number(first, "sector_size")?;
    Ok(Segment {
        offset: big(first, "offset")?,
        length,
        cipher: text_of(first, "encryption")?.to_owned(),
        sector_bytes: narrow(sector).unwrap_or(0),
        tweak: big(first, "iv_tweak")?,
    })
}

fn keyslot(number: u64, body: &Value) -> Result<Keyslot> {
    let (area, af, kdf) = (part(body, "area")?, part(body, "af")?, part(body, "kdf")?);
    if text_of(af, "type")? != "luks1" || text_of(area, "type")? != "raw" {
        return Err(Error::unsupported("keyslots that are not split as LUKS1 does")
            .at(Place::new("LUKS2 keyslot").index(number)));
    }
    let keyslot = Keyslot {
        number,
        key_bytes: size(body, "key_size")?,
        stripes: size(af, "stripes")?,
        hash: Hash::parse(text_of(af, "hash")?),
        derivation: derivation(kdf)?,
        salt: base64_of(kdf, "salt")?,
        offset: big(area, "offset")?,
        cipher: text_of(area, "encryption")?.to_owned(),
        area_key_bytes: size(area, "key_size")?,
    };
    check_lengths(&keyslot)?;
    Ok(keyslot)
}

/// A derivation that is not known keeps its own keyslot shut, not the others.
fn derivation(kdf: &Value) -> Result<Result<Derivation>> {
    let small =
        |name| number(kdf, name).and_then(|value| u32::try_from(value).map_err(|_| missing(name)));
    Ok(match text_of(kdf, "type")? {
        "pbkdf2" => {
            let rounds = small("iterations")?;
            Hash::parse(text_of(kdf, "hash")?).map(|hash| Derivation::Pbkdf2 { hash, rounds })
        }
        kind @ ("argon2i" | "argon2id") => Ok(Derivation::Argon2(Argon {
            id: kind == "argon2id",
            passes: small("time")?,
            memory_kib: small("memory")?,
            lanes: small("cpus")?,
        })),
        kind => Err(Error::unsupported(format!("key derivation {kind:?}"))),
    })
}

fn digest(body: &Value) -> Result<KeyDigest> {
    if text_of(body, "type")? != "pbkdf2" {
        return Err(Error::unsupported("digests other than PBKDF2"));
    }
    let slots = body.get("keyslots").and_then(Value::as_array);
    let slots = slots.into_iter().flatten().filter_map(Value::as_str);
    let digest = base64_of(body, "digest")?;
    // A digest of no bytes would verify any key.
    if !(16..=64).contains(&digest.len()) {
        let detail = format!("a digest of {} bytes", digest.len());
        return Err(bad(Problem::BadValue, "digest", detail));
    }
    Ok(KeyDigest {
        hash: Hash::parse(text_of(body, "hash")?)?,
        rounds: u32::try_from(number(body, "iterations")?).map_err(|_| missing("iterations"))?,
        salt: base64_of(body, "salt")?,
        digest,
        keyslots: Some(slots.filter_map(|slot| slot.parse().ok()).collect()),
    })
}

fn missing(field: &'static str) -> Error {
    bad(Problem::Missing, field, format!("{field} is not there or of the wrong kind"))
}

fn object<'a>(json: &'a Value, field: &'static str) -> Result<&'a Map<String, Value>> {
    json.get(field).and_then(Value::as_object).ok_or_else(|| missing(field))
}

fn part<'a>(json: &'a Value, field: &'static str) -> Result<&'a Value> {
    json.get(field).filter(|part| part.is_object()).ok_or_else(|| missing(field))
}

fn text_of<'a>(json: &'a Value, field: &'static str) -> Result<&'a str> {
    json.get(field).and_then(Value::as_str).ok_or_else(|| missing(field))
}

fn number(json: &Value, field: &'static str) -> Result<u64> {
    json.get(field).and_then(Value::as_u64).ok_or_else(|| missing(field))
}

fn size(json: &Value, field: &'static str) -> Result<usize> {
    let value = u32::try_from(number(json, field)?).map_err(|_| missing(field))?;
    Ok(index(value))
}

/// Numbers of 64 bits are written as text.
fn big(json: &Value, field: &'static str) -> Result<u64> {
    text_of(json, field)?.parse().map_err(|_| missing(field))
}

fn base64_of(json: &Value, field: &'static str) -> Result<Vec<u8>> {
    STANDARD.decode(text_of(json, field)?).map_err(|_| missing(field))
}
