//! Laying out a new disk, front to back: one sparse extent, one stream, or the descriptor of a
//! flat one.
//!
//! The builders do no I/O. They are told which grains are stored, in rising order, say where each
//! of them goes, and hand out the tables that belong between and behind them. The header comes
//! last: a file without it is no extent.

use crate::SECTOR_BYTES;
use crate::layout::{
    DIRECTORY_AT_END, FLAG_COMPRESSED, FLAG_MARKERS, FLAG_NEWLINE_TEST, FLAG_REDUNDANT,
    HostedHeader, MARKER_DATA, MARKER_DIRECTORY, MARKER_FOOTER, MARKER_TABLE, Marker,
};
use adit_core::bytes::{narrow, wide};
use adit_core::{Error, Place, Problem, Result};

/// Bytes and where they go in the file, in the order in which they are to be written.
pub type Pieces = Vec<(u64, Vec<u8>)>;

/// Grain that everybody reads. Unit: bytes.
pub const GRAIN_BYTES: u64 = 64 << 10;
/// Entries of a grain table.
const ENTRIES: u64 = 512;
/// Room for the descriptor, behind the header. Unit: sectors.
const DESCRIPTOR_SECTORS: u64 = 20;
/// Sectors before the first grain of a stream.
const STREAM_OVERHEAD: u64 = 128;

/// A disk whose tables are complete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finished {
    /// What remains to be written; the header is the last.
    pub pieces: Pieces,
    /// Length of the file. Unit: bytes.
    pub file_bytes: u64,
}

/// What the descriptor says beside the extent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Naming {
    /// Name of the file that holds the extent.
    pub file_name: String,
    /// Content identity; `0xffffffff` and `0xfffffffe` mean something else and are not taken.
    pub cid: u32,
}

/// The descriptor of a disk in one flat file, and the length that file has to have.
///
/// Units: bytes.
/// Source: Virtual Disk Format 5.0 (VMware).
pub fn flat(size_bytes: u64, naming: &Naming) -> Result<(Vec<u8>, u64)> {
    let sectors = sectors_of(size_bytes)?;
    let text = descriptor(sectors, "monolithicFlat", "FLAT", " 0", naming)?;
    Ok((text.into_bytes(), sectors.saturating_mul(SECTOR_BYTES)))
}

/// The marker before a grain of a stream; its data follow at once, then zeros to a sector.
///
/// Units: `offset` in bytes of the disk.
pub fn grain_marker(offset: u64, length_bytes: u32) -> [u8; 12] {
    let mut marker = [0; 12];
    let (value, size) = marker.split_at_mut(8);
    value.copy_from_slice(&(offset / SECTOR_BYTES).to_le_bytes());
    size.copy_from_slice(&length_bytes.to_le_bytes());
    marker
}

/// Lays out a sparse extent, with two sets of tables before its grains.
///
/// Source: Virtual Disk Format 5.0 (VMware), "Hosted Sparse Extents".
#[derive(Debug)]
pub struct Sparse {
    sectors: u64,
    grain_sectors: u64,
    tables: u64,
    text: String,
    open: OpenTable,
    /// Where the next grain goes. Unit: sectors.
    end: u64,
    overhead: u64,
    done: Pieces,
}

impl Sparse {
    /// Starts an extent of `size_bytes`, rounded up to sectors, with its descriptor inside.
    ///
    /// Units: bytes.
    /// Errors: `Invalid` for grains that are no power of two from 4 KiB to 1 MiB, for a disk
    /// larger than sector numbers of 32 bits reach, and for names that fit no descriptor.
    pub fn new(size_bytes: u64, grain_bytes: u64, naming: &Naming) -> Result<Sparse> {
        if !grain_bytes.is_power_of_two() || !(4 << 10..=1 << 20).contains(&grain_bytes) {
            let detail = format!("grains of {grain_bytes} bytes");
            return Err(Error::invalid(Problem::BadValue, detail)
                .advise("grains are powers of two from 4 KiB to 1 MiB"));
        }
        let sectors = sectors_of(size_bytes)?;
        let grain_sectors = grain_bytes / SECTOR_BYTES;
        let grains = grains_of(sectors, grain_sectors);
        let tables = grains.div_ceil(ENTRIES);
        let text = embedded(sectors, "monolithicSparse", naming)?;
        let mut builder = Sparse {
            sectors,
            grain_sectors,
            tables,
            text,
            open: OpenTable::default(),
            end: 0,
            overhead: 0,
            done: Vec::new(),
        };
        let tables_end = builder.directory(1).saturating_add(builder.set_sectors());
        builder.overhead = tables_end.next_multiple_of(grain_sectors);
        builder.end = builder.overhead;
        // Entries are sectors of the file in 32 bits.
        if builder.end.saturating_add(grains.saturating_mul(grain_sectors)) > u64::from(u32::MAX) {
            return Err(too_large(size_bytes));
        }
        Ok(builder)
    }

    /// Size of the disk. Unit: bytes.
    pub fn size_bytes(&self) -> u64 {
        self.sectors.saturating_mul(SECTOR_BYTES)
    }

    /// Says where a grain goes. Grains come in rising order, each once.
    ///
    /// Units: `index` in grains of the disk; the result in bytes of the file.
    /// Errors: `Invalid` when the grain is not in the disk or not one of the next.
    pub fn place(&mut self, index: u64) -> Result<u64> {
        if index >= grains_of(self.sectors, self.grain_sectors) {
            return Err(out_of_order(index));
        }
        if let Some((table, bytes)) = self.open.change(index / ENTRIES) {
            self.tables_done(table, &bytes);
        }
        let sector = self.end;
        self.open.set(index, sector)?;
        self.end = sector.saturating_add(self.grain_sectors);
        Ok(sector.saturating_mul(SECTOR_BYTES))
    }

    /// The tables that were completed since the last call.
    pub fn drain(&mut self) -> Pieces {
        std::mem::take(&mut self.done)
    }

    /// Completes the extent.
    pub fn finish(mut self) -> Result<Finished> {
        if let Some((table, bytes)) = self.open.change(u64::MAX) {
            self.tables_done(table, &bytes);
        }
        let mut pieces = self.drain();
        for copy in [0, 1] {
            let directory: Vec<u8> = (0..self.tables)
                .map(|table| u32::try_from(self.table(copy, table)).unwrap_or(0))
                .flat_map(u32::to_le_bytes)
                .collect();
            pieces.push((self.directory(copy).saturating_mul(SECTOR_BYTES), directory));
        }
        let header = HostedHeader {
            version: 1,
            flags: FLAG_NEWLINE_TEST | FLAG_REDUNDANT,
            redundant_directory: self.directory(0),
            directory: self.directory(1),
            overhead: self.overhead,
            ..header(self.sectors, self.grain_sectors)
        };
        pieces.push((SECTOR_BYTES, self.text.clone().into_bytes()));
        pieces.push((0, bytes_of(&header)?));
        Ok(Finished { pieces, file_bytes: self.end.saturating_mul(SECTOR_BYTES) })
    }

    fn tables_done(&mut self, table: u64, bytes: &[u8]) {
        for copy in [0, 1] {
            let offset = self.table(copy, table).saturating_mul(SECTOR_BYTES);
            self.done.push((offset, bytes.to_vec()));
        }
    }

    /// Where a directory is: the redundant one is 0. Unit: sectors.
    fn directory(&self, copy: u64) -> u64 {
        (DESCRIPTOR_SECTORS + 1).saturating_add(self.set_sectors().saturating_mul(copy))
    }

    fn table(&self, copy: u64, table: u64) -> u64 {
        let first = self.directory(copy).saturating_add(self.directory_sectors());
        first.saturating_add(table.saturating_mul(ENTRIES * 4 / SECTOR_BYTES))
    }

    fn directory_sectors(&self) -> u64 {
        self.tables.saturating_mul(4).div_ceil(SECTOR_BYTES)
    }

    /// A directory and its tables.
    fn set_sectors(&self) -> u64 {
        let tables = self.tables.saturating_mul(ENTRIES * 4 / SECTOR_BYTES);
        self.directory_sectors().saturating_add(tables)
    }
}

/// Lays out a stream of compressed grains, every table behind the grains it names.
///
/// Source: Virtual Disk Format 5.0 (VMware), "Stream-Optimized Compressed Sparse Extents".
#[derive(Debug)]
pub struct Stream {
    sectors: u64,
    text: String,
    directory: Vec<u32>,
    open: OpenTable,
    /// Where the next grain goes. Unit: sectors.
    end: u64,
    done: Pieces,
}

impl Stream {
    /// Starts a stream of `size_bytes`, rounded up to sectors, with its descriptor inside.
    ///
    /// Errors: `Invalid` for a disk of more than 2^32 grains, and for names that fit no
    /// descriptor.
    pub fn new(size_bytes: u64, naming: &Naming) -> Result<Stream> {
        let sectors = sectors_of(size_bytes)?;
        let grains = grains_of(sectors, GRAIN_BYTES / SECTOR_BYTES);
        if grains > u64::from(u32::MAX) {
            return Err(too_large(size_bytes));
        }
        let text = embedded(sectors, "streamOptimized", naming)?;
        let directory = vec![0; narrow(grains.div_ceil(ENTRIES)).unwrap_or(0)];
        let end = STREAM_OVERHEAD;
        Ok(Stream { sectors, text, directory, open: OpenTable::default(), end, done: Vec::new() })
    }

    /// Size of the disk. Unit: bytes.
    pub fn size_bytes(&self) -> u64 {
        self.sectors.saturating_mul(SECTOR_BYTES)
    }

    /// Says where the marker of a grain goes, with `length_bytes` of zlib data right behind it.
    /// Grains come in rising order, each once.
    ///
    /// Units: `index` in grains of the disk; the result in bytes of the file.
    /// Errors: `Invalid` when the grain is not in the disk or not one of the next, and when the
    /// file becomes larger than sector numbers of 32 bits reach.
    pub fn place(&mut self, index: u64, length_bytes: u32) -> Result<u64> {
        if index >= grains_of(self.sectors, GRAIN_BYTES / SECTOR_BYTES) {
            return Err(out_of_order(index));
        }
        if let Some((table, bytes)) = self.open.change(index / ENTRIES) {
            self.table_done(table, bytes)?;
        }
        let sector = self.end;
        if sector > u64::from(u32::MAX) {
            return Err(too_large(self.size_bytes()));
        }
        self.open.set(index, sector)?;
        let record = MARKER_DATA.saturating_add(u64::from(length_bytes));
        self.end = sector.saturating_add(record.div_ceil(SECTOR_BYTES));
        Ok(sector.saturating_mul(SECTOR_BYTES))
    }

    /// The tables that were completed since the last call.
    pub fn drain(&mut self) -> Pieces {
        std::mem::take(&mut self.done)
    }

    /// Completes the stream.
    ///
    /// Errors: as [`Stream::place`].
    pub fn finish(mut self) -> Result<Finished> {
        if let Some((table, bytes)) = self.open.change(u64::MAX) {
            self.table_done(table, bytes)?;
        }
        let directory: Vec<u8> = self.directory.iter().flat_map(|at| at.to_le_bytes()).collect();
        let at = self.metadata(MARKER_DIRECTORY, directory)?;
        let front = HostedHeader {
            version: 3,
            flags: FLAG_NEWLINE_TEST | FLAG_COMPRESSED | FLAG_MARKERS,
            directory: DIRECTORY_AT_END,
            overhead: STREAM_OVERHEAD,
            compression: 1,
            ..header(self.sectors, GRAIN_BYTES / SECTOR_BYTES)
        };
        let footer = HostedHeader { directory: at, ..front.clone() };
        self.metadata(MARKER_FOOTER, bytes_of(&footer)?)?;
        // The end marker: all zeros.
        let end = self.end.saturating_mul(SECTOR_BYTES);
        let mut pieces = self.drain();
        pieces.push((end, vec![0; narrow(SECTOR_BYTES).unwrap_or(512)]));
        pieces.push((SECTOR_BYTES, self.text.into_bytes()));
        pieces.push((0, bytes_of(&front)?));
        Ok(Finished { pieces, file_bytes: end.saturating_add(SECTOR_BYTES) })
    }

    fn table_done(&mut self, table: u64, bytes: Vec<u8>) -> Result<()> {
        let at = self.metadata(MARKER_TABLE, bytes)?;
        if let Some(entry) = narrow(table).and_then(|table| self.directory.get_mut(table)) {
            *entry = u32::try_from(at).unwrap_or(0);
        }
        Ok(())
    }

    /// A marker and what it announces; gives the sector of the latter.
    fn metadata(&mut self, kind: u32, bytes: Vec<u8>) -> Result<u64> {
        let sectors = wide(bytes.len()).div_ceil(SECTOR_BYTES);
        let sector = self.end.saturating_add(1);
        if sector > u64::from(u32::MAX) {
            return Err(too_large(self.size_bytes()));
        }
        let mut piece = vec![0; narrow(SECTOR_BYTES).unwrap_or(512)];
        Marker { value: sectors, size: 0, kind }.write(&mut piece)?;
        piece.extend(bytes);
        piece.resize(piece.len().next_multiple_of(512), 0);
        self.done.push((self.end.saturating_mul(SECTOR_BYTES), piece));
        self.end = sector.saturating_add(sectors);
        Ok(sector)
    }
}

/// The grain table being filled.
#[derive(Debug, Default)]
struct OpenTable {
    table: Option<u64>,
    entries: Vec<u32>,
    /// The first grain that may still be stored.
    next: u64,
}

impl OpenTable {
    /// Turns to another table; gives the one before, complete.
    fn change(&mut self, table: u64) -> Option<(u64, Vec<u8>)> {
        if self.table == Some(table) {
            return None;
        }
        let before = self.table.replace(table);
        let entries = std::mem::replace(&mut self.entries, vec![0; 512]);
        let bytes = entries.into_iter().flat_map(u32::to_le_bytes).collect();
        before.map(|before| (before, bytes))
    }

    fn set(&mut self, index: u64, sector: u64) -> Result<()> {
        let slot = narrow(index % ENTRIES).and_then(|slot| self.entries.get_mut(slot));
        match (slot, u32::try_from(sector)) {
            (Some(slot), Ok(sector)) if index >= self.next => *slot = sector,
            _ => return Err(out_of_order(index)),
        }
        self.next = index.saturating_add(1);
        Ok(())
    }
}

fn header(sectors: u64, grain_sectors: u64) -> HostedHeader {
    HostedHeader {
        magic: *b"KDMV",
        version: 1,
        flags: FLAG_NEWLINE_TEST,
        capacity: sectors,
        grain_size: grain_sectors,
        descriptor_offset: 1,
        descriptor_size: DESCRIPTOR_SECTORS,
        table_entries: u32::try_from(ENTRIES).unwrap_or(512),
        redundant_directory: 0,
        directory: 0,
        overhead: 0,
        unclean: 0,
        newline_test: *b"\n \r\n",
        compression: 0,
    }
}

fn bytes_of(header: &HostedHeader) -> Result<Vec<u8>> {
    let mut bytes = vec![0; HostedHeader::SIZE];
    header.write(&mut bytes)?;
    Ok(bytes)
}

fn embedded(sectors: u64, create_type: &str, naming: &Naming) -> Result<String> {
    let text = descriptor(sectors, create_type, "SPARSE", "", naming)?;
    if wide(text.len()) > DESCRIPTOR_SECTORS * SECTOR_BYTES {
        return Err(Error::invalid(Problem::OutOfRange, "the name is too long for a descriptor"));
    }
    Ok(text)
}

fn descriptor(
    sectors: u64,
    create_type: &str,
    extent_type: &str,
    offset: &str,
    naming: &Naming,
) -> Result<String> {
    let Naming { file_name, cid } = naming;
    if file_name.contains(['"', '\n', '\r', '\0']) || file_name.is_empty() {
        let detail = format!("{file_name:?} cannot stand in a VMDK descriptor");
        return Err(Error::invalid(Problem::BadValue, detail).advise("choose another name"));
    }
    let cid = if *cid >= 0xffff_fffe { 1 } else { *cid };
    let cylinders = sectors.checked_div(255 * 63).unwrap_or(0).clamp(1, 65535);
    Ok(format!(
        "# Disk DescriptorFile\n\
         version=1\n\
         encoding=\"UTF-8\"\n\
         CID={cid:08x}\n\
         parentCID=ffffffff\n\
         createType=\"{create_type}\"\n\
         \n\
         # Extent description\n\
         RW {sectors} {extent_type} \"{file_name}\"{offset}\n\
         \n\
         # The Disk Data Base\n\
         #DDB\n\
         \n\
         ddb.virtualHWVersion = \"4\"\n\
         ddb.geometry.cylinders = \"{cylinders}\"\n\
         ddb.geometry.heads = \"255\"\n\
         ddb.geometry.sectors = \"63\"\n\
         ddb.adapterType = \"lsilogic\"\n"
    ))
}

fn sectors_of(size_bytes: u64) -> Result<u64> {
    if size_bytes == 0 {
        return Err(Error::invalid(Problem::OutOfRange, "a VMDK holds at least one sector"));
    }
    Ok(size_bytes.div_ceil(SECTOR_BYTES))
}

fn grains_of(sectors: u64, grain_sectors: u64) -> u64 {
    sectors.div_ceil(grain_sectors.max(1))
}

fn too_large(size_bytes: u64) -> Error {
    let detail = format!("{size_bytes} bytes; one sparse VMDK file holds less than 2 TiB");
    Error::invalid(Problem::OutOfRange, detail).advise("a flat VMDK holds more")
}

fn out_of_order(index: u64) -> Error {
    Error::invalid(Problem::OutOfRange, "grains are stored in rising order, each once")
        .at(Place::new("grain").index(index))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn naming() -> Naming {
        Naming { file_name: "disk.vmdk".to_owned(), cid: 0xffff_ffff }
    }

    #[test]
    fn a_sparse_extent_keeps_both_tables_of_a_grain() {
        let mut sparse = Sparse::new(40 << 20, GRAIN_BYTES, &naming()).unwrap();
        assert_eq!(sparse.place(0).unwrap(), 128 * 512);
        assert_eq!(sparse.place(513).unwrap(), 256 * 512);
        // Directory at sector 21, its two tables of 4 sectors behind it, then all of it again.
        let tables = sparse.drain();
        assert_eq!([tables[0].0, tables[1].0], [22 * 512, (22 + 8 + 1) * 512]);
        assert_eq!(tables[0].1[..8], [128, 0, 0, 0, 0, 0, 0, 0]);
        assert!(sparse.place(513).is_err());
        assert!(sparse.place(640).is_err());
    }

    #[test]
    fn a_stream_puts_every_table_behind_its_grains() {
        let mut stream = Stream::new(64 << 20, &naming()).unwrap();
        assert_eq!(stream.place(3, 501).unwrap(), 128 * 512);
        assert_eq!(stream.place(512, 500).unwrap(), (130 + 5) * 512);
        let (offset, table) = stream.drain().remove(0);
        assert_eq!((offset, table.len()), (130 * 512, 512 * 5));
        assert_eq!(table[..16], [4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0]);
        assert_eq!(table[512 + 12..512 + 16], [128, 0, 0, 0]);
        let finished = stream.finish().unwrap();
        assert_eq!(finished.pieces.last().unwrap().1[56..64], [0xff; 8]);
    }

    #[test]
    fn names_that_would_end_the_quotes_are_refused() {
        let naming = Naming { file_name: "a\"b".to_owned(), cid: 1 };
        assert!(flat(512, &naming).is_err());
        let text = flat(1000, &Naming { file_name: "é-flat.vmdk".to_owned(), cid: 0xabc }).unwrap();
        let line = "RW 2 FLAT \"é-flat.vmdk\" 0\n";
        assert!(std::str::from_utf8(&text.0).unwrap().contains(line));
        assert_eq!(text.1, 1024);
    }
}
