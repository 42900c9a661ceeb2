//! The hash of names in VMFS6 folders: Bob Jenkins' "lookup8" (1997, public domain).

const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c13;
const SALT: [u8; 8] = [0x17, 0xb0, 0x61, 0x8e, 0xc2, 0x75, 0x9a, 0x73];

/// Hash indexes of an ordinary folder.
pub const BUCKETS: u64 = 16001;
/// Hash indexes for user names in the root; the ones above belong to the system files.
pub const ROOT_BUCKETS: u64 = 15973;
/// Table index, and link hash too, of the first system file in the root; the next ones count up.
pub const SYSTEM_INDEX: u16 = 0x3e66;

/// The 64-bit hash of a name.
pub fn name_hash(name: &[u8]) -> u64 {
    let mut key = [0; 256];
    key[..name.len()].copy_from_slice(name);
    let salted = (name.len() + 8) / 8 * 8;
    for at in (salted..127).step_by(8) {
        key[at..at + 8].copy_from_slice(&SALT);
    }
    lookup8(&key)
}

/// The table index a name has in a folder.
pub fn bucket(hash: u64, root: bool) -> u64 {
    hash % if root { ROOT_BUCKETS } else { BUCKETS }
}

/// The 16 bits a link group stores.
pub fn link_hash(hash: u64) -> u16 {
    (hash >> 16) as u16
}

/// `count` short names that share one table index in a folder that is not the root.
pub fn colliding_names(count: usize) -> Vec<String> {
    let target = bucket(name_hash(b"n0"), false);
    (0u32..)
        .map(|n| format!("n{n}"))
        .filter(|name| bucket(name_hash(name.as_bytes()), false) == target)
        .take(count)
        .collect()
}

/// Two names that share table index *and* link hash (outside the root), so
/// that only comparing the names tells them apart.
pub const TWINS: [&str; 2] = ["twin5740", "twin9719"];

fn lookup8(key: &[u8; 256]) -> u64 {
    let word = |i: usize| u64::from_le_bytes(key[i * 8..i * 8 + 8].try_into().unwrap());
    let mut s = [42, 42, GOLDEN];
    for i in (0..30).step_by(3) {
        for (lane, value) in s.iter_mut().enumerate() {
            *value = value.wrapping_add(word(i + lane));
        }
        mix(&mut s);
    }
    s[2] = s[2].wrapping_add(32);
    s[1] = s[1].wrapping_add(word(31));
    s[0] = s[0].wrapping_add(word(30));
    mix(&mut s);
    s[2]
}

fn mix(s: &mut [u64; 3]) {
    // Positive shifts go left, negative ones right.
    const SHIFTS: [i32; 12] = [-43, 9, -8, -38, 23, -5, -35, 49, -11, -12, 18, -22];
    for (step, shift) in SHIFTS.into_iter().enumerate() {
        let (x, y, z) = (step % 3, (step + 1) % 3, (step + 2) % 3);
        let moved = if shift > 0 { s[z] << shift } else { s[z] >> -shift };
        s[x] = s[x].wrapping_sub(s[y]).wrapping_sub(s[z]) ^ moved;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_hash_as_esxi_hashes_them() {
        let (x119, x120) = ("x".repeat(119), "x".repeat(120));
        let (x127, x200) = ("x".repeat(127), "x".repeat(200));
        let vectors: [(&str, u64, u64, u64); 12] = [
            ("a", 0xb9450c76925060b2, 7129, 5514),
            ("small", 0xb778b175a46b776d, 15328, 4535),
            ("file1", 0x7b2720d6d2b970eb, 4348, 11457),
            ("1234567", 0x79df68f748dbfcb2, 4942, 3522),
            ("12345678", 0x8a33a817625c597a, 2253, 4596),
            ("123456789", 0xecb17f7285295647, 4730, 10709),
            ("collision", 0xbb57c341c3b8104b, 11153, 10576),
            ("normal-flat.vmdk", 0x562ab4bf1f6494d2, 7046, 13557),
            (&x119, 0x050dd2dc1675265e, 4946, 1977),
            (&x120, 0x3c76eccf7b13237d, 6071, 5253),
            (&x127, 0x3dfe8951afdb5e22, 191, 3707),
            (&x200, 0x0e9a951f63d5bb42, 4218, 225),
        ];
        for (name, hash, index, root) in vectors {
            assert_eq!(name_hash(name.as_bytes()), hash, "{name}");
            assert_eq!(bucket(hash, false), index, "{name}");
            assert_eq!(bucket(hash, true), root, "{name}");
        }
    }

    #[test]
    fn the_plain_hash_has_its_published_values() {
        assert_eq!(lookup8(&[0; 256]), 0x88b565f89decfa46);
        let counting: [u8; 256] = std::array::from_fn(|i| i as u8);
        assert_eq!(lookup8(&counting), 0x644076bc93eef9a4);
    }

    #[test]
    fn twins_differ_only_in_their_names() {
        let [a, b] = TWINS.map(|name| name_hash(name.as_bytes()));
        assert_ne!(TWINS[0], TWINS[1]);
        assert_eq!(bucket(a, false), bucket(b, false));
        assert_eq!(link_hash(a), link_hash(b));
    }
}
