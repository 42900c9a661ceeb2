//! On-disk structures by name, field by field.

mod directories;
mod metadata;
mod pointers;

use crate::address::FdAddress;
use crate::resource::ResourceKind;
use crate::superblock::Version;
use crate::vmfs::Vmfs;
use adit_core::on_disk::{FieldValue, Value};
use adit_core::{Error, FileSystem, Inspect, Inspected, Name, Place, Problem, Result};

/// Every structure: name with parameters, first version that has it, meaning.
const STRUCTURES: [(&str, Version, &str); 14] = [
    ("superblock", Version::Vmfs3, "The file-system header."),
    ("heartbeat N", Version::Vmfs3, "Heartbeat slot N."),
    (
        "resource FILE",
        Version::Vmfs3,
        "Header of a resource file: fbb, fdc, pbc, sbc, pb2 (VMFS5), sfb, jbc, unmap (VMFS6).",
    ),
    ("cluster FILE N", Version::Vmfs3, "Lock and meta block of cluster N of a resource file."),
    (
        "fd FD",
        Version::Vmfs3,
        "A file descriptor: lock, meta block, pointers. FD is an address or a /path.",
    ),
    (
        "lock OFFSET",
        Version::Vmfs3,
        "The lock block at a byte of the volume, judged by the heartbeats.",
    ),
    ("address VALUE", Version::Vmfs3, "What a block address means."),
    ("pointer-block ADDRESS", Version::Vmfs3, "The pointers in a block of pointers."),
    ("journal N", Version::Vmfs3, "The journal of heartbeat slot N, compared with the disk."),
    ("directory FD", Version::Vmfs3, "Header of a directory (VMFS6), or its length."),
    (
        "dirent FD N",
        Version::Vmfs3,
        "Entry N of a directory; on VMFS6: slot N, counted over all entry blocks.",
    ),
    (
        "hash FD INDEX",
        Version::Vmfs6,
        "A place of a directory's hash table; also for a name: hash FD =NAME.",
    ),
    ("linkgroup FD BLOCK SLOT", Version::Vmfs6, "Names that share a place in the hash table."),
    ("dirblock FD BLOCK", Version::Vmfs6, "Header of a block of a directory."),
];

impl Inspect for Vmfs {
    fn structures(&self) -> Vec<(String, String)> {
        let here = STRUCTURES.iter().filter(|(_, from, _)| *from <= self.superblock().version);
        here.map(|(name, _, meaning)| ((*name).to_owned(), (*meaning).to_owned())).collect()
    }

    fn inspect(&self, name: &str) -> Result<Vec<Inspected>> {
        let (what, rest) = name.trim().split_once(' ').unwrap_or((name.trim(), ""));
        let known = self.structures();
        let Some((usage, _)) =
            known.iter().find(|(usage, _)| usage.split(' ').next() == Some(what))
        else {
            let names: Vec<&str> = known.iter().map(|(usage, _)| usage.as_str()).collect();
            return Err(Error::not_found(format!("there is no structure {name:?}"))
                .advise(format!("there are: {}", names.join(", "))));
        };
        let request = Request { usage, rest: rest.trim() };
        match what {
            "superblock" => self.show_superblock(),
            "heartbeat" => self.show_heartbeat(&request),
            "resource" => self.show_resource(&request),
            "cluster" => self.show_cluster(&request),
            "fd" => self.show_descriptor(&request),
            "lock" => self.show_lock(&request),
            "address" => self.show_address(&request),
            "pointer-block" => self.show_pointer_block(&request),
            "journal" => self.show_journal(&request),
            "directory" => self.show_directory(&request),
            "dirent" => self.show_entry(&request),
            "hash" => self.show_hash(&request),
            "linkgroup" => self.show_group(&request),
            _ => self.show_block(&request),
        }
    }
}

/// The parameters of a request.
struct Request<'a> {
    usage: &'a str,
    rest: &'a str,
}

impl<'a> Request<'a> {
    fn wrong(&self) -> Error {
        let text = format!("{:?} does not fit", self.rest);
        Error::invalid(Problem::BadValue, text).advise(format!("ask for: {}", self.usage))
    }

    /// Exactly `N` words.
    fn words<const N: usize>(&self) -> Result<[&'a str; N]> {
        let words: Vec<&str> = self.rest.split_whitespace().collect();
        words.try_into().map_err(|_| self.wrong())
    }

    /// A number in decimal, or in hexadecimal after `0x`.
    fn number(&self, text: &str) -> Result<u64> {
        let parsed = match text.strip_prefix("0x") {
            Some(digits) => u64::from_str_radix(digits, 16),
            None => text.parse(),
        };
        parsed.map_err(|_| self.wrong())
    }

    /// The text before the last `count` words, and those words.
    fn before_words(&self, count: usize) -> Result<(&'a str, Vec<&'a str>)> {
        let mut words: Vec<&str> = self.rest.rsplitn(count.saturating_add(1), ' ').collect();
        let head = words.pop().filter(|_| words.len() == count).ok_or_else(|| self.wrong())?;
        words.reverse();
        Ok((head.trim(), words))
    }
}

impl Vmfs {
    /// An FD from its address or from a path that starts with `/`.
    fn named_descriptor(&self, request: &Request<'_>, text: &str) -> Result<FdAddress> {
        let Some(path) = text.strip_prefix('/') else {
            let number = request.number(text)?;
            let raw = u32::try_from(number).map_err(|_| request.wrong())?;
            return FdAddress::parse(raw);
        };
        let mut node = self.root();
        for part in path.split('/').filter(|part| !part.is_empty()) {
            node = self.lookup(node, &Name::new(part.as_bytes())?)?;
        }
        FdAddress::of_node(node)
    }

    fn named_resource(&self, request: &Request<'_>, text: &str) -> Result<ResourceKind> {
        let six = self.superblock().version == Version::Vmfs6;
        let kind = match text {
            "fbb" | "lfb" if six => ResourceKind::LargeBlocks,
            "fbb" => ResourceKind::FileBlocks,
            "sfb" if six => ResourceKind::FileBlocks,
            "fdc" => ResourceKind::Descriptors,
            "pbc" => ResourceKind::PointerBlocks,
            "sbc" => ResourceKind::SubBlocks,
            "pb2" => ResourceKind::PointerBlocks2,
            "jbc" => ResourceKind::JournalBlocks,
            _ => return Err(request.wrong()),
        };
        self.resource(kind).map(|file| file.kind)
    }
}

/// A structure with its fields.
fn shown(structure: impl Into<String>, offset: u64, fields: Vec<FieldValue>) -> Inspected {
    Inspected { structure: structure.into(), offset, fields }
}

/// A field that is worked out, or that no declared structure covers.
fn field(
    name: impl Into<String>,
    offset: usize,
    length: usize,
    value: Value,
    meaning: impl Into<String>,
) -> FieldValue {
    FieldValue { name: name.into(), offset, length, value, meaning: meaning.into() }
}

/// Nothing of that number, with the place so that the answer is ours.
fn none(structure: &'static str, number: u64, detail: impl Into<String>) -> Error {
    Error::not_found(detail).at(Place::new(structure).index(number))
}
