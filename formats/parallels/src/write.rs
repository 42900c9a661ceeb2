//! Laying out a new image front to back, and describing a bundle of one plain image.
//!
//! The [`Builder`] does no I/O. It is told which clusters are stored, in rising order, and says
//! where each of them goes. The header comes last: a file without it is no image.

use crate::Guid;
use crate::layout::{MAGIC_CLUSTERS, RawHeader, SECTOR_BYTES, TABLE_OFFSET, VERSION};
use adit_core::bytes::{narrow, wide};
use adit_core::{Error, Place, Problem, Result};

/// Cluster of nearly every image. Unit: bytes.
pub const CLUSTER_BYTES: u64 = 1 << 20;
/// Most clusters of an image: a table of 256 MiB.
const CLUSTERS_MAX: u64 = 1 << 26;
/// Geometry that products write. Units: heads; sectors of a track.
const HEADS: u64 = 16;
const TRACK_SECTORS: u64 = 32;

/// An image whose table is complete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finished {
    /// Offsets and bytes that remain to be written, in order; the header is the last.
    pub pieces: Vec<(u64, Vec<u8>)>,
    /// Length of the file. Unit: bytes.
    pub file_bytes: u64,
}

/// Lays out an expanding image, `WithouFreSpacExt`.
///
/// Source: images of Parallels Desktop and QEMU (observed).
#[derive(Debug)]
pub struct Builder {
    sectors: u64,
    table: Vec<u32>,
    /// Where the next cluster goes, which is what its entry says. Unit: clusters.
    end: u32,
    data_offset: u32,
    /// The first cluster that may still be stored.
    next: u64,
}

impl Builder {
    /// Starts an image of `size_bytes`, rounded up to sectors of 512 bytes.
    ///
    /// Errors: `Invalid` for more than 64 TiB.
    pub fn new(size_bytes: u64) -> Result<Builder> {
        let clusters = size_bytes.div_ceil(CLUSTER_BYTES);
        if clusters > CLUSTERS_MAX {
            let detail = format!("{size_bytes} bytes; an image holds at most 64 TiB");
            return Err(Error::invalid(Problem::OutOfRange, detail));
        }
        let table_end = TABLE_OFFSET.saturating_add(clusters.saturating_mul(4));
        // Few enough for 32 bits, and for the sectors before them.
        let end = small(table_end.div_ceil(CLUSTER_BYTES));
        let data_offset = small(u64::from(end).saturating_mul(CLUSTER_BYTES / SECTOR_BYTES));
        let table = vec![0; narrow(clusters).unwrap_or(0)];
        Ok(Builder { sectors: size_bytes.div_ceil(SECTOR_BYTES), table, end, data_offset, next: 0 })
    }

    /// Size of the disk. Unit: bytes.
    pub fn size_bytes(&self) -> u64 {
        self.sectors.saturating_mul(SECTOR_BYTES)
    }

    /// Says where a cluster goes. Clusters come in rising order, each once; what is not written
    /// of a cluster reads as zeros.
    ///
    /// Units: `index` in clusters of the disk; the result in bytes of the file.
    /// Errors: `Invalid` when the cluster is not in the disk or not one of the next.
    pub fn place(&mut self, index: u64) -> Result<u64> {
        let entry = narrow(index).and_then(|at| self.table.get_mut(at));
        let Some(entry) = entry.filter(|_| index >= self.next) else {
            let detail = "clusters are stored in rising order, each once";
            return Err(
                Error::invalid(Problem::OutOfRange, detail).at(Place::new("cluster").index(index))
            );
        };
        *entry = self.end;
        self.next = index.saturating_add(1);
        self.end = self.end.saturating_add(1);
        Ok(u64::from(*entry).saturating_mul(CLUSTER_BYTES))
    }

    /// Completes the image.
    pub fn finish(self) -> Result<Finished> {
        let header = RawHeader {
            magic: *MAGIC_CLUSTERS,
            version: VERSION,
            heads: small(HEADS),
            cylinders: small(cylinders(self.sectors)),
            cluster_size: small(CLUSTER_BYTES / SECTOR_BYTES),
            table_entries: small(wide(self.table.len())),
            disk_size: self.sectors,
            // Closed, and nobody's stamp.
            in_use: 0,
            data_offset: self.data_offset,
            flags: 0,
            extension_offset: 0,
        };
        let mut bytes = vec![0; RawHeader::SIZE];
        header.write(&mut bytes)?;
        let table = self.table.iter().flat_map(|entry| entry.to_le_bytes()).collect();
        let file_bytes = u64::from(self.end).saturating_mul(CLUSTER_BYTES);
        Ok(Finished { pieces: vec![(TABLE_OFFSET, table), (0, bytes)], file_bytes })
    }
}

/// The name that the image of a bundle has in it: that of the bundle, its storage and its state.
pub fn plain_name(bundle: &str) -> String {
    format!("{bundle}.0.{}.hds", Guid::TOP)
}

/// `DiskDescriptor.xml` of a bundle of one plain image, and the length the image has to have.
///
/// Units: bytes.
/// Errors: `Invalid` for names that no XML holds.
/// Source: bundles of Parallels Desktop (observed).
pub fn plain(size_bytes: u64, bundle: &str, uid: [u8; 16]) -> Result<(Vec<u8>, u64)> {
    let sectors = size_bytes.div_ceil(SECTOR_BYTES);
    let file_bytes = sectors.checked_mul(SECTOR_BYTES).filter(|_| size_bytes > 0);
    let file_bytes = file_bytes
        .ok_or_else(|| Error::invalid(Problem::OutOfRange, format!("{size_bytes} bytes")))?;
    if bundle.is_empty() || bundle.chars().any(char::is_control) {
        let detail = format!("{bundle:?} cannot stand in a disk descriptor");
        return Err(Error::invalid(Problem::BadValue, detail).advise("choose another name"));
    }
    let (uid, top, none) = (Guid::of(uid), Guid::TOP, Guid::NULL);
    let (name, file) = (escaped(bundle), escaped(&plain_name(bundle)));
    let cylinders = cylinders(sectors);
    let text = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
         <Parallels_disk_image Version=\"1.0\">\n\
         \x20   <Disk_Parameters>\n\
         \x20       <Disk_size>{sectors}</Disk_size>\n\
         \x20       <Cylinders>{cylinders}</Cylinders>\n\
         \x20       <PhysicalSectorSize>512</PhysicalSectorSize>\n\
         \x20       <Heads>{HEADS}</Heads>\n\
         \x20       <Sectors>{TRACK_SECTORS}</Sectors>\n\
         \x20       <Padding>0</Padding>\n\
         \x20       <Encryption>\n\
         \x20           <Engine>{none}</Engine>\n\
         \x20           <Data></Data>\n\
         \x20       </Encryption>\n\
         \x20       <UID>{uid}</UID>\n\
         \x20       <Name>{name}</Name>\n\
         \x20   </Disk_Parameters>\n\
         \x20   <StorageData>\n\
         \x20       <Storage>\n\
         \x20           <Start>0</Start>\n\
         \x20           <End>{sectors}</End>\n\
         \x20           <Blocksize>2048</Blocksize>\n\
         \x20           <Image>\n\
         \x20               <GUID>{top}</GUID>\n\
         \x20               <Type>Plain</Type>\n\
         \x20               <File>{file}</File>\n\
         \x20           </Image>\n\
         \x20       </Storage>\n\
         \x20   </StorageData>\n\
         \x20   <Snapshots>\n\
         \x20       <Shot>\n\
         \x20           <GUID>{top}</GUID>\n\
         \x20           <ParentGUID>{none}</ParentGUID>\n\
         \x20       </Shot>\n\
         \x20   </Snapshots>\n\
         </Parallels_disk_image>\n"
    );
    Ok((text.into_bytes(), file_bytes))
}

fn cylinders(sectors: u64) -> u64 {
    sectors.div_ceil(HEADS * TRACK_SECTORS)
}

fn small(value: u64) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Descriptor, ImageType};
    use adit_core::Limits;

    #[test]
    fn clusters_follow_the_table_and_the_entries_count_from_the_front() {
        let mut builder = Builder::new((10 << 20) + 1).unwrap();
        assert_eq!(builder.size_bytes(), (10 << 20) + 512);
        assert_eq!(builder.place(3).unwrap(), 1 << 20);
        assert_eq!(builder.place(10).unwrap(), 2 << 20);
        assert!(builder.place(10).is_err());
        assert!(builder.place(11).is_err());
        let finished = builder.finish().unwrap();
        assert_eq!(finished.file_bytes, 3 << 20);
        let (table, header) = (&finished.pieces[0], &finished.pieces[1]);
        assert_eq!((table.0, table.1.len(), &table.1[12..16]), (64, 44, &[1, 0, 0, 0][..]));
        assert_eq!(header.1[..16], *b"WithouFreSpacExt");
        assert_eq!(header.1[0x1c..0x28], [0, 8, 0, 0, 11, 0, 0, 0, 1, 80, 0, 0]);
        assert_eq!(header.1[0x30..0x34], [0, 8, 0, 0]);
    }

    #[test]
    fn a_large_table_moves_the_clusters_back() {
        // 262144 entries and the header are a little more than 1 MiB.
        let mut builder = Builder::new(262_144 << 20).unwrap();
        assert_eq!(builder.place(0).unwrap(), 2 << 20);
        assert!(Builder::new((64 << 40) + 1).is_err());
    }

    #[test]
    fn a_descriptor_says_what_the_bundle_holds() {
        let (text, file_bytes) = plain(1000, "a & b <c>.hdd", [7; 16]).unwrap();
        let read = Descriptor::parse(&text, &Limits::default()).unwrap();
        assert_eq!((file_bytes, read.size_bytes()), (1024, 1024));
        assert_eq!((read.name.as_str(), read.encryption), ("a & b <c>.hdd", None));
        assert!(read.notes.is_empty(), "{:?}", read.notes);
        let files = read.references();
        assert_eq!(files.len(), 1);
        let file = &files[0];
        let name = "a & b <c>.hdd.0.{5fbaabe3-6958-40ff-92a7-860e329aab41}.hds";
        assert_eq!((file.text().as_str(), &file.kind), (name, &ImageType::Plain));
        assert_eq!(read.chain(read.top().unwrap()).unwrap().len(), 1);
        assert!(plain(1000, "a\nb", [7; 16]).is_err());
        assert!(plain(0, "a", [7; 16]).is_err());
    }
}
