//! On-disk structures of QED, nothing else. All numbers are little-endian.
//!
//! Source: QEMU's "QED Image File Format Specification".

use adit_core::on_disk;

/// What the file starts with.
pub(crate) const MAGIC: &[u8] = b"QED\0";
/// Feature: there is a backing file.
pub(crate) const FEATURE_BACKING: u64 = 1 << 0;
/// Feature: the tables must be checked before anybody writes.
pub(crate) const FEATURE_NEED_CHECK: u64 = 1 << 1;
/// Feature: the backing file is raw, whatever it looks like.
pub(crate) const FEATURE_BACKING_RAW: u64 = 1 << 2;
/// All features a reader can know.
pub(crate) const FEATURES: u64 = FEATURE_BACKING | FEATURE_NEED_CHECK | FEATURE_BACKING_RAW;
/// An entry that says "zeros, whatever lies below".
pub(crate) const ZERO: u64 = 1;

on_disk! {
    /// The header, at the start of the first cluster.
    pub struct RawHeader (64 bytes, little_endian) {
        0 magic: [u8; 4],
        /// A power of two from 4 KiB to 64 MiB. Unit: bytes.
        4 cluster_size: u32,
        /// Length of every table, a power of two up to 16. Unit: clusters.
        8 table_size: u32,
        /// Unit: clusters.
        12 header_size: u32,
        /// 1 backing file, 2 to be checked, 4 the backing file is raw.
        16 features: u64,
        24 compat_features: u64,
        32 autoclear_features: u64,
        /// Unit: bytes of the file.
        40 l1_table_offset: u64,
        /// Size of the disk. Unit: bytes.
        48 image_size: u64,
        /// Unit: bytes of the file; only with feature 1.
        56 backing_name_offset: u32,
        /// Unit: bytes.
        60 backing_name_size: u32,
    }
}
