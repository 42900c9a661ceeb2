//! Windows registry files.
//!
//! Source: "Windows registry file format specification" by Maxim Suhanov. Changes that stand in
//! the log files beside a hive are not applied; [`Hive::is_settled`] says whether there may be any.

use adit_core::bytes::{array, u16_le, u32_le};
use adit_core::{Disk, DiskExt, Error, Place, Problem, Result};
use std::sync::Arc;

/// Length of the base block, before the first bin. Unit: bytes.
const BASE_BYTES: u64 = 4096;
/// Most data of one value that is read. Unit: bytes.
const VALUE_BYTES_MAX: u32 = 1 << 20;
/// Most keys below one key, and most values of one, that are looked at.
const ENTRIES_MAX: u32 = 1 << 20;
/// Lists of lists go no deeper than one level.
const LISTS_MAX: u32 = 2;

/// A registry file.
#[derive(Clone, Debug)]
pub struct Hive {
    disk: Arc<dyn Disk>,
    root: u32,
    settled: bool,
}

/// A key of a hive.
#[derive(Clone, Debug)]
pub struct Key<'a> {
    hive: &'a Hive,
    at: u32,
    node: Vec<u8>,
}

/// Is given a value's name and how to read it, and says whether it has seen enough.
type SeeValue<'a> = &'a mut dyn FnMut(String, &dyn Fn() -> Result<Value>) -> Result<bool>;

/// The data of a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// Text, expandable or not.
    Text(String),
    /// A number of 32 or 64 bits.
    Number(u64),
    /// Several texts.
    List(Vec<String>),
    /// Anything else.
    Bytes(Vec<u8>),
}

impl Value {
    /// The text, if it is one.
    pub fn text(&self) -> Option<&str> {
        match self {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The number, if it is one.
    pub fn number(&self) -> Option<u64> {
        match self {
            Value::Number(number) => Some(*number),
            _ => None,
        }
    }
}

impl Hive {
    /// Opens a hive.
    ///
    /// Errors: `Corrupt` where it does not start as one.
    pub fn open(disk: Arc<dyn Disk>) -> Result<Hive> {
        let head = disk.read_prefix(0, 512)?;
        if !head.starts_with(b"regf") {
            return Err(corrupt(Problem::BadMagic, "it is no registry file".into(), 0));
        }
        let field = |at| u32_le(&head, at).unwrap_or(0);
        if field(0x14) != 1 {
            let detail = format!("registry files of version {} are not read", field(0x14));
            return Err(Error::unsupported(detail));
        }
        let settled = field(4) == field(8);
        Ok(Hive { disk, root: field(0x24), settled })
    }

    /// Whether no write to it was under way: otherwise its log files may know more.
    pub fn is_settled(&self) -> bool {
        self.settled
    }

    /// The key at the top.
    ///
    /// Errors: `Corrupt`.
    pub fn root(&self) -> Result<Key<'_>> {
        self.key_at(self.root)
    }

    /// The key at a path of names with `\` between them, whatever the case of its letters;
    /// nothing if there is none.
    ///
    /// Errors: `Corrupt`.
    pub fn key(&self, path: &str) -> Result<Option<Key<'_>>> {
        let mut key = self.root()?;
        for name in path.split('\\').filter(|name| !name.is_empty()) {
            match key.child(name)? {
                Some(child) => key = child,
                None => return Ok(None),
            }
        }
        Ok(Some(key))
    }

    /// A value by the path of its key and its name; nothing if there is none.
    ///
    /// Errors: `Corrupt`.
    pub fn value(&self, path: &str, name: &str) -> Result<Option<Value>> {
        match self.key(path)? {
            Some(key) => key.value(name),
            None => Ok(None),
        }
    }

    fn key_at(&self, at: u32) -> Result<Key<'_>> {
        let node = self.cell(at, 0x4c + 512)?;
        if !node.starts_with(b"nk") || node.len() < 0x4c {
            return Err(self.bad(at, "there is no key here"));
        }
        Ok(Key { hive: self, at, node })
    }

    /// The data of a cell in use, at most so many bytes of it.
    fn cell(&self, at: u32, bytes_max: u32) -> Result<Vec<u8>> {
        let offset = BASE_BYTES.saturating_add(u64::from(at));
        let head = self.disk.read_prefix(offset, 4)?;
        let size = array(&head, 0).map(i32::from_le_bytes);
        // Sizes of cells in use are negative.
        let size =
            size.filter(|size| *size < -4).ok_or_else(|| self.bad(at, "there is no cell"))?;
        let length = size.unsigned_abs().saturating_sub(4).min(bytes_max);
        let length = usize::try_from(length).unwrap_or(0);
        let cell = self.disk.read_prefix(offset.saturating_add(4), length)?;
        if cell.len() < length {
            return Err(self.bad(at, "a cell is cut off"));
        }
        Ok(cell)
    }

    fn bad(&self, at: u32, what: &str) -> Error {
        corrupt(Problem::BadValue, what.to_owned(), BASE_BYTES.saturating_add(at.into()))
    }

    /// Calls `see` with every key of a list, until it says that it has seen enough.
    fn each_key(
        &self,
        list: u32,
        depth: u32,
        left: &mut u32,
        see: &mut dyn FnMut(u32) -> Result<bool>,
    ) -> Result<bool> {
        let head = self.cell(list, 8)?;
        let count = u32::from(u16_le(&head, 2).unwrap_or(0));
        let width = match head.get(..2) {
            Some(b"lf" | b"lh") => 8,
            Some(b"li" | b"ri") => 4,
            _ => return Err(self.bad(list, "there is no list of keys here")),
        };
        let is_index = head.starts_with(b"ri");
        if is_index && depth >= LISTS_MAX {
            return Err(self.bad(list, "lists of keys are nested too deeply"));
        }
        let bytes = self.cell(list, count.saturating_mul(width).saturating_add(4))?;
        for item in bytes.get(4..).unwrap_or(&[]).chunks_exact(width as usize) {
            *left = left.checked_sub(1).ok_or_else(|| {
                Error::limit("list_steps_max", "a key of the registry has too many keys below it")
            })?;
            let at = u32_le(item, 0).unwrap_or(0);
            let enough = match is_index {
                true => self.each_key(at, depth + 1, left, see)?,
                false => see(at)?,
            };
            if enough {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn data(&self, value: &[u8], at: u32) -> Result<Vec<u8>> {
        let field = |at| u32_le(value, at).unwrap_or(0);
        let (size, start) = (field(4), field(8));
        if size & 0x8000_0000 != 0 {
            // Up to four bytes stand where their place would.
            let length = usize::try_from(size & 0x7fff_ffff).unwrap_or(0).min(4);
            return Ok(value.get(8..8 + length).unwrap_or(&[]).to_vec());
        }
        if size > VALUE_BYTES_MAX {
            return Err(Error::limit("text_bytes_max", "a value of the registry is too large"));
        }
        let mut data = self.cell(start, size)?;
        if data.starts_with(b"db") && size > 16_344 {
            let (count, list) = (u16_le(&data, 2).unwrap_or(0), u32_le(&data, 4).unwrap_or(0));
            let list = self.cell(list, u32::from(count).saturating_mul(4))?;
            data = Vec::new();
            for segment in list.chunks_exact(4) {
                let left = size.saturating_sub(u32::try_from(data.len()).unwrap_or(u32::MAX));
                data.extend(self.cell(u32_le(segment, 0).unwrap_or(0), left.min(16_344))?);
            }
        }
        if u32::try_from(data.len()) != Ok(size) {
            return Err(self.bad(at, "the data of a value is cut off"));
        }
        Ok(data)
    }
}

impl<'a> Key<'a> {
    fn field(&self, at: usize) -> u32 {
        u32_le(&self.node, at).unwrap_or(0)
    }

    /// Its name.
    pub fn name(&self) -> String {
        let length = usize::from(u16_le(&self.node, 0x48).unwrap_or(0));
        let bytes = self.node.get(0x4c..0x4c + length).unwrap_or(&[]);
        name(bytes, u16_le(&self.node, 2).unwrap_or(0) & 0x20 != 0)
    }

    /// The keys below it, in the order of the file.
    ///
    /// Errors: `Corrupt`.
    pub fn children(&self) -> Result<Vec<Key<'a>>> {
        let mut found = Vec::new();
        self.each(&mut |key| {
            found.push(key);
            false
        })?;
        Ok(found)
    }

    /// The key below it of this name.
    ///
    /// Errors: `Corrupt`.
    pub fn child(&self, wanted: &str) -> Result<Option<Key<'a>>> {
        let wanted = wanted.to_uppercase();
        let mut found = None;
        self.each(&mut |key| {
            let is_it = key.name().to_uppercase() == wanted;
            if is_it {
                found = Some(key);
            }
            is_it
        })?;
        Ok(found)
    }

    fn each(&self, see: &mut dyn FnMut(Key<'a>) -> bool) -> Result<()> {
        if self.field(0x14) == 0 {
            return Ok(());
        }
        let mut left = ENTRIES_MAX;
        let hive = self.hive;
        hive.each_key(self.field(0x1c), 0, &mut left, &mut |at| Ok(see(hive.key_at(at)?)))?;
        Ok(())
    }

    /// Its values, in the order of the file: name and data.
    ///
    /// Errors: `Corrupt`.
    pub fn values(&self) -> Result<Vec<(String, Value)>> {
        let mut found = Vec::new();
        self.each_value(&mut |name, value| {
            found.push((name, value()?));
            Ok(false)
        })?;
        Ok(found)
    }

    /// Its value of this name; the unnamed one is called `""`.
    ///
    /// Errors: `Corrupt`.
    pub fn value(&self, wanted: &str) -> Result<Option<Value>> {
        let wanted = wanted.to_uppercase();
        let mut found = None;
        self.each_value(&mut |name, value| {
            let is_it = name.to_uppercase() == wanted;
            if is_it {
                found = Some(value()?);
            }
            Ok(is_it)
        })?;
        Ok(found)
    }

    fn each_value(&self, see: SeeValue<'_>) -> Result<()> {
        let count = self.field(0x24);
        if count == 0 {
            return Ok(());
        }
        if count > ENTRIES_MAX {
            return Err(self.hive.bad(self.at, "a key has too many values"));
        }
        let list = self.hive.cell(self.field(0x28), count.saturating_mul(4))?;
        for item in list.chunks_exact(4) {
            let at = u32_le(item, 0).unwrap_or(0);
            let cell = self.hive.cell(at, 0x14 + 1024)?;
            if !cell.starts_with(b"vk") || cell.len() < 0x14 {
                return Err(self.hive.bad(at, "there is no value here"));
            }
            let length = usize::from(u16_le(&cell, 2).unwrap_or(0));
            let narrow = u16_le(&cell, 0x10).unwrap_or(0) & 1 != 0;
            let title = name(cell.get(0x14..0x14 + length).unwrap_or(&[]), narrow);
            let kind = u32_le(&cell, 0x0c).unwrap_or(0);
            if see(title, &|| Ok(value(kind, self.hive.data(&cell, at)?)))? {
                break;
            }
        }
        Ok(())
    }
}

/// A name in one byte a letter (Latin-1) or two.
fn name(bytes: &[u8], narrow: bool) -> String {
    match narrow {
        true => bytes.iter().map(|&byte| char::from(byte)).collect(),
        false => utf16(bytes),
    }
}

fn utf16(bytes: &[u8]) -> String {
    let units = bytes.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]]));
    char::decode_utf16(units).map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER)).collect()
}

fn value(kind: u32, data: Vec<u8>) -> Value {
    let text = |data: &[u8]| {
        let text = utf16(data);
        text.split('\0').next().unwrap_or_default().to_owned()
    };
    match (kind, data.len()) {
        (1 | 2, _) => Value::Text(text(&data)),
        (4, 4) => Value::Number(u32_le(&data, 0).unwrap_or(0).into()),
        (5, 4) => Value::Number(array(&data, 0).map_or(0, u32::from_be_bytes).into()),
        (11, 8) => Value::Number(array(&data, 0).map_or(0, u64::from_le_bytes)),
        (7, _) => Value::List(
            utf16(&data).split('\0').filter(|text| !text.is_empty()).map(str::to_owned).collect(),
        ),
        _ => Value::Bytes(data),
    }
}

fn corrupt(problem: Problem, detail: String, offset: u64) -> Error {
    Error::corrupt(problem, detail).at(Place::new("registry file").byte(offset))
}
