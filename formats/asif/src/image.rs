//! An opened image: its header, the directory that counts, and its disk.

use crate::layout::{GROUP_ENTRIES, MAGIC, RawHeader, VERSION};
use crate::map::{ChunkMap, Entries};
use adit_core::bytes::u64_be;
use adit_core::on_disk::{FieldValue, Value};
use adit_core::{Disk, DiskExt, Error, Inspect, Inspected, Limits, Mapped, Place, Problem, Result};
use std::sync::Arc;

/// An ASIF image whose header was read and checked.
#[derive(Clone, Debug)]
pub struct Image {
    pub(crate) file: Arc<dyn Disk>,
    pub(crate) raw: RawHeader,
    pub(crate) limits: Limits,
    size_bytes: u64,
    /// The only table that is read. Unit: bytes of the file.
    pub(crate) table: Option<u64>,
}

impl Image {
    /// Reads the header and the directory that counts.
    ///
    /// Errors: `Corrupt`; `Unsupported` for other versions, and for disks of more than one table.
    pub fn open(file: Arc<dyn Disk>, limits: &Limits) -> Result<Image> {
        let raw = RawHeader::read(&file.read_prefix(0, RawHeader::SIZE)?)?;
        if raw.magic != MAGIC {
            return Err(wrong("magic", Problem::BadMagic, "is not \"shdw\""));
        }
        if raw.version != VERSION {
            let detail = format!("version {} of ASIF is not known", raw.version);
            return Err(Error::unsupported(detail).at(place("version")));
        }
        let size_bytes = raw.sector_count.checked_mul(u64::from(raw.block_size));
        let size_bytes = size_bytes.filter(|&bytes| bytes > 0).ok_or_else(|| {
            wrong("sector_count", Problem::OutOfRange, format!("is {}", raw.sector_count))
        })?;
        let mut image = Image { file, raw, limits: limits.clone(), size_bytes, table: None };
        image.check_shape()?;
        image.table = image.find_table()?;
        Ok(image)
    }

    /// Refuses what was never seen, because how it is counted is not known.
    fn check_shape(&self) -> Result<()> {
        let unseen = |field, detail: String| {
            Err(Error::unsupported(detail)
                .at(place(field))
                .advise("`diskutil image create from` on a Mac turns it into a raw disk"))
        };
        let (chunk, block) = (self.raw.chunk_size, self.raw.block_size);
        if (chunk, block) != (1 << 20, 512) {
            let detail = format!(
                "chunks of {chunk} bytes and blocks of {block}: only 1 MiB and 512 are known"
            );
            return unseen("chunk_size", detail);
        }
        let groups = (self.chunk_bytes() / 8).checked_div(GROUP_ENTRIES.saturating_add(1));
        let chunks = groups.unwrap_or(0).saturating_mul(GROUP_ENTRIES);
        let most = chunks.saturating_mul(self.chunk_bytes());
        if self.size_bytes > most {
            let detail = format!("the disk has {} bytes; up to {most} are known", self.size_bytes);
            return unseen("sector_count", detail);
        }
        Ok(())
    }

    /// Where the first table stands, by the directory of the higher version.
    fn find_table(&self) -> Result<Option<u64>> {
        let mut best: Option<(u64, u64, u64)> = None;
        for at in self.raw.directories {
            let size = self.file.size_bytes();
            if at < 512 || at.checked_add(16).is_none_or(|end| end > size) {
                continue;
            }
            let bytes = self.file.read_vec(at, 16)?;
            let (version, chunk) = (u64_be(&bytes, 0).unwrap_or(0), u64_be(&bytes, 8).unwrap_or(0));
            if best.is_none_or(|(known, ..)| version > known) {
                best = Some((version, at, chunk));
            }
        }
        let Some((_, at, chunk)) = best else {
            return Err(wrong("directories", Problem::OutOfRange, "neither lies in the file"));
        };
        if chunk == 0 {
            return Ok(None);
        }
        let start = chunk.checked_mul(self.chunk_bytes());
        let end = start.and_then(|start| start.checked_add(self.chunk_bytes()));
        match end {
            Some(end) if end <= self.file.size_bytes() => Ok(start),
            _ => {
                let detail = format!("names chunk {chunk}, which does not lie in the file");
                let place = Place::new("directory").field("entry 0").byte(at.saturating_add(8));
                Err(Error::corrupt(Problem::OutOfRange, detail).at(place))
            }
        }
    }

    /// Size of the disk. Unit: bytes.
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// Unit of allocation. Unit: bytes.
    pub fn chunk_bytes(&self) -> u64 {
        u64::from(self.raw.chunk_size)
    }

    /// The disk; `name` is what to call the image.
    pub fn disk(&self, name: &str) -> Arc<dyn Disk> {
        let name = format!("ASIF {name}");
        Arc::new(Mapped::new(ChunkMap { name, image: self.clone(), entries: Entries::new(self) }))
    }

    fn directory_shown(&self, at: u64) -> Result<Inspected> {
        let bytes = self.file.read_prefix(at, 16)?;
        let field = |name: &str, offset: usize, meaning: &str| FieldValue {
            name: name.to_owned(),
            offset,
            length: 8,
            value: Value::Uint(u64_be(&bytes, offset).unwrap_or(0)),
            meaning: meaning.to_owned(),
        };
        let version = field("version", 0, "The higher one counts.");
        let table = field("table", 8, "Chunk of the first table; 0 none.");
        let structure = "directory".to_owned();
        Ok(Inspected { structure, offset: at, fields: vec![version, table] })
    }
}

impl Inspect for Image {
    fn structures(&self) -> Vec<(String, String)> {
        let own = |name: &str, meaning: &str| (name.to_owned(), meaning.to_owned());
        vec![
            own("header", "size, chunks, directories"),
            own("directories", "version and first table of both"),
        ]
    }

    fn inspect(&self, name: &str) -> Result<Vec<Inspected>> {
        match name {
            "header" => {
                let (structure, fields) = ("header".to_owned(), self.raw.fields());
                Ok(vec![Inspected { structure, offset: 0, fields }])
            }
            "directories" => {
                self.raw.directories.iter().map(|&at| self.directory_shown(at)).collect()
            }
            _ => Err(Error::not_found(format!("there is no structure {name:?}"))
                .advise("there are: header, directories")),
        }
    }
}

fn place(field: &'static str) -> Place {
    Place::new("ASIF header").field(field)
}

fn wrong(field: &'static str, problem: Problem, detail: impl Into<String>) -> Error {
    Error::corrupt(problem, detail).at(place(field))
}
