//! A maker of registry files: keys, values, lists of keys, lists of lists, long data.
//!
//! Written from the description of the format alone. A panic is the right answer to what it
//! cannot make.
#![allow(dead_code)]

use std::collections::BTreeMap;

/// A registry file in the making.
#[derive(Default)]
pub struct Made {
    top: Node,
}

#[derive(Default)]
struct Node {
    children: BTreeMap<String, Node>,
    values: Vec<(String, u32, Vec<u8>)>,
}

/// Text as a value holds it.
pub fn sz(text: &str) -> Vec<u8> {
    text.encode_utf16().chain([0]).flat_map(u16::to_le_bytes).collect()
}

/// Several texts as a value holds them.
pub fn expand(texts: &[&str]) -> Vec<u8> {
    let mut all: Vec<u8> = texts.iter().flat_map(|text| sz(text)).collect();
    all.extend([0, 0]);
    all
}

/// A number as a value holds it.
pub fn number(number: u32) -> Vec<u8> {
    number.to_le_bytes().to_vec()
}

impl Made {
    pub fn new() -> Made {
        Made::default()
    }

    /// Adds a value, and the keys that lead to it.
    pub fn value(&mut self, path: &str, name: &str, kind: u32, data: &[u8]) {
        let mut node = &mut self.top;
        for part in path.split('\\').filter(|part| !part.is_empty()) {
            node = node.children.entry(part.to_owned()).or_default();
        }
        node.values.push((name.to_owned(), kind, data.to_vec()));
    }

    /// The file.
    pub fn bytes(&self) -> Vec<u8> {
        let mut cells = Cells::default();
        let root = cells.key("ROOT", &self.top, u32::MAX, 0x2c);
        cells.0.resize(cells.0.len().next_multiple_of(4096), 0);
        let length = cells.0.len() as u32;
        // What is left of the last bin is one free cell.
        cells.0[8..12].copy_from_slice(&length.to_le_bytes());
        let mut base = vec![0u8; 4096];
        base[..4].copy_from_slice(b"regf");
        for (at, field) in [
            (4, 1u32),
            (8, 1),
            (0x14, 1),
            (0x18, 5),
            (0x20, 1),
            (0x24, root),
            (0x28, length),
            (0x2c, 1),
        ] {
            base[at..at + 4].copy_from_slice(&field.to_le_bytes());
        }
        let sum = base[..508]
            .chunks_exact(4)
            .fold(0u32, |sum, word| sum ^ u32::from_le_bytes(word.try_into().unwrap()));
        base[508..512].copy_from_slice(&sum.to_le_bytes());
        base.extend(cells.0);
        base
    }
}

/// One long bin.
#[derive(Default)]
struct Cells(Vec<u8>);

impl Cells {
    fn cell(&mut self, data: &[u8]) -> u32 {
        if self.0.is_empty() {
            self.0 = vec![0; 32];
            self.0[..4].copy_from_slice(b"hbin");
        }
        let at = self.0.len() as u32;
        let size = (data.len() + 4).next_multiple_of(8);
        self.0.extend((-(size as i32)).to_le_bytes());
        self.0.extend_from_slice(data);
        self.0.resize(at as usize + size, 0);
        at
    }

    fn key(&mut self, name: &str, node: &Node, parent: u32, flags: u16) -> u32 {
        let mut nk = vec![0u8; 0x4c];
        nk[..2].copy_from_slice(b"nk");
        let put = |nk: &mut Vec<u8>, at: usize, value: u32| {
            nk[at..at + 4].copy_from_slice(&value.to_le_bytes());
        };
        nk[2..4].copy_from_slice(&(flags | 0x20).to_le_bytes());
        put(&mut nk, 0x10, parent);
        for at in [0x1c, 0x20, 0x28, 0x2c, 0x30] {
            put(&mut nk, at, u32::MAX);
        }
        nk[0x48..0x4a].copy_from_slice(&(name.len() as u16).to_le_bytes());
        nk.extend(name.bytes());
        let at = self.cell(&nk);
        let children: Vec<(u32, &str)> = node
            .children
            .iter()
            .map(|(name, child)| (self.key(name, child, at, 0), name.as_str()))
            .collect();
        let list = self.keys(&children);
        let values: Vec<u32> =
            node.values.iter().map(|(name, kind, data)| self.data(name, *kind, data)).collect();
        let offsets: Vec<u8> = values.iter().flat_map(|at| at.to_le_bytes()).collect();
        let values_at = if values.is_empty() { u32::MAX } else { self.cell(&offsets) };
        let start = at as usize + 4;
        for (field, value) in [
            (0x14, children.len() as u32),
            (0x1c, list),
            (0x24, values.len() as u32),
            (0x28, values_at),
        ] {
            self.0[start + field..start + field + 4].copy_from_slice(&value.to_le_bytes());
        }
        at
    }

    /// Up to 300 keys in one list with hashes, more in several.
    fn keys(&mut self, children: &[(u32, &str)]) -> u32 {
        if children.is_empty() {
            return u32::MAX;
        }
        let lists: Vec<u32> = children
            .chunks(300)
            .map(|part| {
                let mut list = b"lh".to_vec();
                list.extend((part.len() as u16).to_le_bytes());
                for (at, name) in part {
                    list.extend(at.to_le_bytes());
                    let hash = name
                        .to_uppercase()
                        .bytes()
                        .fold(0u32, |hash, byte| hash.wrapping_mul(37).wrapping_add(byte.into()));
                    list.extend(hash.to_le_bytes());
                }
                self.cell(&list)
            })
            .collect();
        if let [only] = lists[..] {
            return only;
        }
        let mut index = b"ri".to_vec();
        index.extend((lists.len() as u16).to_le_bytes());
        index.extend(lists.iter().flat_map(|at| at.to_le_bytes()));
        self.cell(&index)
    }

    fn data(&mut self, name: &str, kind: u32, data: &[u8]) -> u32 {
        let (size, place) = match data.len() {
            0..=4 => {
                let mut inside = [0; 4];
                inside[..data.len()].copy_from_slice(data);
                (data.len() as u32 | 0x8000_0000, u32::from_le_bytes(inside))
            }
            5..=16344 => (data.len() as u32, self.cell(data)),
            _ => {
                let segments: Vec<u32> = data.chunks(16344).map(|part| self.cell(part)).collect();
                let list: Vec<u8> = segments.iter().flat_map(|at| at.to_le_bytes()).collect();
                let list = self.cell(&list);
                let mut big = b"db".to_vec();
                big.extend((segments.len() as u16).to_le_bytes());
                big.extend(list.to_le_bytes());
                (data.len() as u32, self.cell(&big))
            }
        };
        let mut vk = b"vk".to_vec();
        vk.extend((name.len() as u16).to_le_bytes());
        vk.extend(size.to_le_bytes());
        vk.extend(place.to_le_bytes());
        vk.extend(kind.to_le_bytes());
        vk.extend(1u16.to_le_bytes());
        vk.extend([0; 2]);
        vk.extend(name.bytes());
        self.cell(&vk)
    }
}
