//! On-disk structures and constants of the sparse extents, nothing else.

use adit_core::on_disk;

/// Flag: the newline test in the header is meaningful.
pub(crate) const FLAG_NEWLINE_TEST: u32 = 1 << 0;
/// Flag: a second directory and its tables are kept.
pub(crate) const FLAG_REDUNDANT: u32 = 1 << 1;
/// Flag: entry 1 of a grain table means zeros.
pub(crate) const FLAG_ZERO_GRAINS: u32 = 1 << 2;
/// Flag: grains are compressed.
pub(crate) const FLAG_COMPRESSED: u32 = 1 << 16;
/// Flag: markers stand before grains and tables.
pub(crate) const FLAG_MARKERS: u32 = 1 << 17;
/// Flags a reader must know; the lower half may be ignored.
pub(crate) const FLAGS_INCOMPATIBLE: u32 = 0xffff_0000;

/// Directory offset of a header whose directory is named by the footer.
pub(crate) const DIRECTORY_AT_END: u64 = u64::MAX;

on_disk! {
    /// Header of a hosted sparse extent; the footer of a stream has the same layout.
    pub struct HostedHeader (512 bytes, little_endian) {
        0 magic: [u8; 4],
        /// 1 to 3.
        4 version: u32,
        /// Bits 16 to 31 must be known to a reader.
        8 flags: u32,
        /// Capacity, which may be rounded up to whole grains. Unit: sectors.
        12 capacity: u64,
        /// A power of two. Unit: sectors.
        20 grain_size: u64,
        /// Embedded descriptor, 0 if there is none. Unit: sectors.
        28 descriptor_offset: u64,
        /// Unit: sectors.
        36 descriptor_size: u64,
        /// Entries of a grain table.
        44 table_entries: u32,
        /// Redundant grain directory. Unit: sectors.
        48 redundant_directory: u64,
        /// Grain directory; all ones: the footer names it. Unit: sectors.
        56 directory: u64,
        /// Sectors before the first grain.
        64 overhead: u64,
        /// Not 0 while somebody writes.
        72 unclean: u8,
        /// `\n`, blank, `\r`, `\n`: whether a transfer changed line ends.
        73 newline_test: [u8; 4],
        /// 0 none, 1 deflate.
        77 compression: u16,
    }
}

on_disk! {
    /// Start of a marker sector of a stream; a grain's data follows at once.
    pub struct Marker (16 bytes, little_endian) {
        /// Of a grain: its first sector. Of metadata: how many sectors follow.
        0 value: u64,
        /// Length of a grain's data; 0 for metadata.
        8 size: u32,
        /// What metadata follows. Part of the data if this is a grain.
        12 kind: u32,
    }
}

/// Where a grain's data begins after its marker. Unit: bytes.
pub(crate) const MARKER_DATA: u64 = 12;
/// Where a grain's data begins after a bare length. Unit: bytes.
pub(crate) const LENGTH_DATA: u64 = 4;

/// End of the stream.
pub(crate) const MARKER_END: u32 = 0;
/// A grain table follows.
pub(crate) const MARKER_TABLE: u32 = 1;
/// The grain directory follows.
pub(crate) const MARKER_DIRECTORY: u32 = 2;
/// The footer follows.
pub(crate) const MARKER_FOOTER: u32 = 3;
/// Progress of the writer.
pub(crate) const MARKER_PROGRESS: u32 = 4;

on_disk! {
    /// Header of an ESX sparse extent.
    pub struct CowdHeader (2048 bytes, little_endian) {
        0 magic: [u8; 4],
        /// 1.
        4 version: u32,
        8 flags: u32,
        /// Capacity. Unit: sectors.
        12 capacity: u32,
        /// Unit: sectors.
        16 grain_size: u32,
        /// Grain directory. Unit: sectors.
        20 directory: u32,
        /// Entries of the grain directory.
        24 directory_entries: u32,
        /// Where the next grain or table goes. Unit: sectors.
        28 next_free: u32,
        /// Of a child: the parent's name, which newer hosts leave empty. Of a disk without
        /// parent: cylinders, heads and sectors, 4 bytes each.
        32 parent_name: [u8; 1024],
        /// Generation of the parent when the child was made.
        1056 parent_generation: u32,
        1060 generation: u32,
        1064 name: [u8; 60],
        1124 description: [u8; 512],
        1636 saved_generation: u32,
        1640 reserved: [u8; 8],
        /// Not 0 while somebody writes.
        1648 unclean: u32,
    }
}

/// Entries of every grain table of an ESX sparse extent.
pub(crate) const COWD_TABLE_ENTRIES: u32 = 4096;

on_disk! {
    /// First sector of an seSparse extent. Offsets and sizes in sectors.
    pub struct SeSparseHeader (512 bytes, little_endian) {
        0 magic: u64,
        8 version: u64,
        /// Capacity. Unit: sectors.
        16 capacity: u64,
        /// Always 8. Unit: sectors.
        24 grain_size: u64,
        /// Always 64. Unit: sectors.
        32 table_size: u64,
        40 flags: u64,
        48 reserved: [u64; 4],
        80 volatile_offset: u64,
        88 volatile_size: u64,
        96 journal_header_offset: u64,
        104 journal_header_size: u64,
        112 journal_offset: u64,
        120 journal_size: u64,
        128 directory_offset: u64,
        136 directory_size: u64,
        144 tables_offset: u64,
        152 tables_size: u64,
        160 free_bitmap_offset: u64,
        168 free_bitmap_size: u64,
        176 back_map_offset: u64,
        184 back_map_size: u64,
        192 grains_offset: u64,
        200 grains_size: u64,
        208 padding: [u64; 38],
    }
}

/// `magic` of [`SeSparseHeader`].
pub(crate) const SESPARSE_MAGIC: u64 = 0xcafe_babe;
/// `version` of [`SeSparseHeader`]: 2.1.
pub(crate) const SESPARSE_VERSION: u64 = 0x0000_0002_0000_0001;
/// Grain of every seSparse extent. Unit: sectors.
pub(crate) const SESPARSE_GRAIN_SECTORS: u64 = 8;
/// Grain table of every seSparse extent. Unit: sectors.
pub(crate) const SESPARSE_TABLE_SECTORS: u64 = 64;
/// Entries of a grain table: a table is filled with 8-byte entries.
pub(crate) const SESPARSE_TABLE_ENTRIES: u32 = 4096;

on_disk! {
    /// What changes in an seSparse extent beside its tables.
    pub struct SeSparseVolatile (512 bytes, little_endian) {
        0 magic: u64,
        /// Grain table that is used next.
        8 free_table: u64,
        /// Number of the next transaction.
        16 next_sequence: u64,
        /// Not 0: the journal must be replayed before anything is read.
        24 replay_journal: u64,
    }
}

/// `magic` of [`SeSparseVolatile`].
pub(crate) const SESPARSE_VOLATILE_MAGIC: u64 = 0xcafe_cafe;

on_disk! {
    /// Start of the journal header of an seSparse extent; what follows is memory as it was.
    pub struct SeSparseJournal (24 bytes, little_endian) {
        0 magic: u64,
        /// Number of the next transaction.
        8 next_sequence: u64,
        16 generation: u64,
    }
}

/// `magic` of [`SeSparseJournal`].
pub(crate) const SESPARSE_JOURNAL_MAGIC: u64 = 0xdeaf_c0de;
