//! The name hash of VMFS6 directories: Jenkins' "lookup8" over 256 salted bytes.
//!
//! Source: Bob Jenkins, lookup8.c (1997, public domain), the variant on 64-bit words;
//! salt and indexes observed on real directories.

/// Places in the hash table.
pub const HASH_SLOTS: u32 = 16001;
/// Places of the root directory that ordinary names use; the rest belongs to system files.
pub const ROOT_HASH_SLOTS: u32 = 15973;

const KEY_BYTES: usize = 256;
const KEY_WORDS: u64 = 32;
const SEED: u64 = 42;
const SALT: [u8; 8] = [0x17, 0xb0, 0x61, 0x8e, 0xc2, 0x75, 0x9a, 0x73];
const SYSTEM_INDEX: u32 = 0x3e66;
const SYSTEM_NAMES: [&[u8]; 10] = [
    b".fbb.sf",
    b".fdc.sf",
    b".pbc.sf",
    b".sbc.sf",
    b".vh.sf",
    b".pb2.sf",
    b".sdd.sf",
    b".jbc.sf",
    b".unmap.sf",
    b".dfd.sf",
];

/// What a directory keeps of a name's hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NameHash {
    /// Place in the hash table.
    pub index: u32,
    /// What tells names apart that share a place.
    pub link: u16,
    /// The word stored in the entry.
    pub stored: u32,
}

impl NameHash {
    /// The hash of `name` in the root directory or in any other; nothing for names that no
    /// entry can hold.
    pub fn of(name: &[u8], in_root: bool) -> Option<NameHash> {
        let system = SYSTEM_NAMES.iter().zip(SYSTEM_INDEX..).find(|(system, _)| **system == name);
        if let (true, Some((_, index))) = (in_root, system) {
            let link = u16::try_from(index).ok()?;
            return Some(NameHash { index, link, stored: 0 });
        }
        let hash = name_hash(name)?;
        let slots = if in_root { ROOT_HASH_SLOTS } else { HASH_SLOTS };
        let index = u32::try_from(hash.checked_rem(u64::from(slots))?).ok()?;
        let stored = u32::try_from(hash & 0xffff_ffff).ok()?;
        let link = u16::try_from(stored >> 16).ok()?;
        Some(NameHash { index, link, stored })
    }
}

/// The 64-bit hash of a name of at most 256 bytes.
pub fn name_hash(name: &[u8]) -> Option<u64> {
    let mut key = [0u8; KEY_BYTES];
    key.get_mut(..name.len())?.copy_from_slice(name);
    let first = name.len().checked_add(8)? & !7;
    for at in (first..127).step_by(8) {
        key.get_mut(at..at.checked_add(8)?)?.copy_from_slice(&SALT);
    }
    Some(lookup8(&key, SEED))
}

/// Jenkins' lookup8 over 256 bytes as 32 little-endian words.
pub fn lookup8(key: &[u8; KEY_BYTES], seed: u64) -> u64 {
    let (words, _) = key.as_chunks::<8>();
    let mut words = words.iter().map(|word| u64::from_le_bytes(*word));
    let (mut a, mut b, mut c) = (seed, seed, 0x9e37_79b9_7f4a_7c13u64);
    // Ten full triples; two words are left for the end.
    for _ in 0..10 {
        a = a.wrapping_add(words.next().unwrap_or(0));
        b = b.wrapping_add(words.next().unwrap_or(0));
        c = c.wrapping_add(words.next().unwrap_or(0));
        mix(&mut a, &mut b, &mut c);
    }
    c = c.wrapping_add(KEY_WORDS);
    a = a.wrapping_add(words.next().unwrap_or(0));
    b = b.wrapping_add(words.next().unwrap_or(0));
    mix(&mut a, &mut b, &mut c);
    c
}

fn mix(a: &mut u64, b: &mut u64, c: &mut u64) {
    fn step(x: &mut u64, y: u64, z: u64, shifted: u64) {
        *x = x.wrapping_sub(y).wrapping_sub(z) ^ shifted;
    }
    step(a, *b, *c, *c >> 43);
    step(b, *c, *a, *a << 9);
    step(c, *a, *b, *b >> 8);
    step(a, *b, *c, *c >> 38);
    step(b, *c, *a, *a << 23);
    step(c, *a, *b, *b >> 5);
    step(a, *b, *c, *c >> 35);
    step(b, *c, *a, *a << 49);
    step(c, *a, *b, *b >> 11);
    step(a, *b, *c, *c >> 12);
    step(b, *c, *a, *a << 18);
    step(c, *a, *b, *b >> 22);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_equal_those_of_real_directories() {
        let x = |n| "x".repeat(n);
        let vectors = [
            ("a".into(), 0xb945_0c76_9250_60b2, 7129, 5514),
            ("small".into(), 0xb778_b175_a46b_776d, 15328, 4535),
            ("file1".into(), 0x7b27_20d6_d2b9_70eb, 4348, 11457),
            ("1234567".into(), 0x79df_68f7_48db_fcb2, 4942, 3522),
            ("12345678".into(), 0x8a33_a817_625c_597a, 2253, 4596),
            ("123456789".into(), 0xecb1_7f72_8529_5647, 4730, 10709),
            ("collision".into(), 0xbb57_c341_c3b8_104b, 11153, 10576),
            ("normal-flat.vmdk".into(), 0x562a_b4bf_1f64_94d2, 7046, 13557),
            (x(119), 0x050d_d2dc_1675_265e, 4946, 1977),
            (x(120), 0x3c76_eccf_7b13_237d, 6071, 5253),
            (x(127), 0x3dfe_8951_afdb_5e22, 191, 3707),
            (x(200), 0x0e9a_951f_63d5_bb42, 4218, 225),
        ];
        for (name, hash, index, root_index) in vectors {
            let name: String = name;
            assert_eq!(name_hash(name.as_bytes()), Some(hash), "{name}");
            assert_eq!(NameHash::of(name.as_bytes(), false).unwrap().index, index, "{name}");
            assert_eq!(NameHash::of(name.as_bytes(), true).unwrap().index, root_index, "{name}");
        }
    }

    #[test]
    fn lookup8_of_plain_bytes_is_the_published_function() {
        assert_eq!(lookup8(&[0; 256], 42), 0x88b5_65f8_9dec_fa46);
        assert_eq!(lookup8(&std::array::from_fn(|i| i as u8), 42), 0x6440_76bc_93ee_f9a4);
    }

    #[test]
    fn system_names_have_places_of_their_own_in_the_root_only() {
        let hash = NameHash::of(b".fdc.sf", true).unwrap();
        assert_eq!((hash.index, hash.link, hash.stored), (0x3e67, 0x3e67, 0));
        assert_ne!(NameHash::of(b".fdc.sf", false).unwrap().index, 0x3e67);
    }

    #[test]
    fn a_name_longer_than_an_entry_has_no_hash() {
        assert!(NameHash::of(&[b'x'; 257], false).is_none());
    }
}
