//! On-disk structures and constants, nothing else. All numbers are little-endian.
//!
//! Source: observed on real volumes made by ESX 3.5 to ESXi 8; fields that only other
//! open-source readers name are marked *(one source)*.

use adit_core::on_disk;

/// Where the superblock stands in the volume. Unit: bytes.
pub const SUPERBLOCK_OFFSET: u64 = 0x20_0000;
/// Where the heartbeat region starts in the volume. Unit: bytes.
pub const HEARTBEAT_OFFSET: u64 = 0x30_0000;
/// Signature of a shared volume.
pub const MAGIC_SHARED: u32 = 0x2fab_f15e;
/// Signature of a local volume (VMFS-L).
pub const MAGIC_LOCAL: u32 = 0x2fab_f15f;
/// Signature of a VMFS6 resource file, bytes `dmfr`.
pub const RESOURCE_SIGNATURE: u32 = 0x7266_6d64;
/// Signature of a VMFS6 cluster, bytes `dmcr`.
pub const CLUSTER_SIGNATURE: u32 = 0x7263_6d64;
/// Signature of a VMFS6 file descriptor, bytes `dmdf`.
pub const DESCRIPTOR_SIGNATURE: u32 = 0x6664_6d64;
/// Type word of a lock block, without the kind in its low byte.
pub const LOCK_TYPE: u32 = 0x10c0_0000;
/// Version word of a VMFS6 directory.
pub const DIRECTORY_VERSION: u32 = 0x00f5_0001;
/// Version word of a VMFS6 directory written by a debug build *(one source)*.
pub const DIRECTORY_VERSION_DEBUG: u32 = 0x00fd_c001;
/// Where the blocks of a VMFS6 directory start in its file. Unit: bytes.
pub const DIRECTORY_BLOCKS_OFFSET: u64 = 0x1_0000;
/// Where the hash table of a VMFS6 directory starts in its file. Unit: bytes.
pub const HASH_TABLE_OFFSET: u64 = 0x5f8;

on_disk! {
    /// The superblock, at [`SUPERBLOCK_OFFSET`] of the volume.
    pub struct SuperblockRaw (512 bytes, little_endian) {
        /// 0x2FABF15E, or 0x2FABF15F on local volumes.
        0x000 magic: u32,
        /// 4 VMFS3, 14 VMFS5, 24 VMFS6.
        0x004 major: u32,
        /// Minor version.
        0x008 minor: u8,
        /// UUID of the file system; its time part is the creation time.
        0x009 uuid: [u8; 16],
        /// Config flags.
        0x019 config: u32,
        /// Label, NUL-padded UTF-8.
        0x01d label: [u8; 128],
        /// Unit: bytes.
        0x09d disk_block_size: u32,
        /// File block size. Unit: bytes.
        0x0a1 block_size: u64,
        /// Creation time. Unit: seconds since 1970.
        0x0a9 created: u32,
        /// Snapshot id of the file system.
        0x0ad snapshot_id: u32,
        /// UUID of the LVM volume, zero without LVM.
        0x0b1 lvm_uuid: [u8; 16],
        /// Snapshot id of the LVM volume.
        0x0c1 lvm_snapshot_id: u32,
        /// Offset of the first cluster group in `.fdc.sf`. Unit: bytes.
        0x0d1 fdc_group_offset: u32,
        /// Clusters in a group of `.fdc.sf`.
        0x0d5 fdc_clusters_per_group: u32,
        /// Unit: bytes.
        0x0d9 sub_block_size: u32,
        /// Most journal slots of one transaction.
        0x0dd journal_slots_max: u32,
        /// Volume offset of the FD of `.pb2.sf`. Unit: bytes.
        0x0e1 pb2_fd_offset: u64,
        /// FD address of `.pb2.sf`.
        0x0e9 pb2_fd_address: u32,
        /// UUID of the host that made the file system.
        0x0ed host_uuid: [u8; 16],
        /// Global generation.
        0x0fd global_generation: u64,
        /// Volume offset of the FD of `.sdd.sf`. Unit: bytes.
        0x105 sdd_fd_offset: u64,
        /// FD address of `.sdd.sf`.
        0x10d sdd_fd_address: u32,
        /// Kind of metadata checksums, 0 none.
        0x111 checksum_type: u8,
        /// 0 none, 1 low, 2 medium, 3 high.
        0x112 unmap_priority: u16,
        /// Checksum generation.
        0x118 checksum_generation: u64,
        /// Value and generation.
        0x120 checksum: [u64; 2],
        /// Unit: bytes.
        0x130 physical_block_size: u32,
        /// Metadata alignment. Unit: bytes.
        0x134 metadata_alignment: u32,
        /// A large file block is a file block shifted left by this.
        0x138 large_block_shift: u16,
        /// log2 of the pointer block size.
        0x13e pointer_block_shift: u16,
        /// Bits of a small file block address.
        0x140 small_block_address_bits: u16,
        /// Granularity of to-be-zeroed and unmap. Unit: bytes.
        0x144 unmap_granularity: u32,
        /// Unit: bytes.
        0x148 journal_block_size: u32,
        /// Lease interval. Unit: ms.
        0x14c lease_ms: u32,
        /// Reclaim window. Unit: ms.
        0x150 reclaim_ms: u32,
        /// Unit: µs.
        0x154 local_stamp: u64,
        /// MAC of the local owner.
        0x15c local_owner: [u8; 6],
        /// 0 by priority, 1 fixed bandwidth.
        0x162 unmap_method: u8,
        /// Bandwidth, least, most.
        0x163 unmap_bandwidth: [u32; 3],
        /// Volume offset of the FD of `.unmap.sf`. Unit: bytes.
        0x17f unmap_fd_offset: u64,
        /// FD address of `.unmap.sf`.
        0x187 unmap_fd_address: u32,
        /// 0x80 on shared VMFS6 volumes; meaning unknown.
        0x18b unknown_18b: u16,
    }
}

on_disk! {
    /// Header of a resource file, at its first byte (the SFB child: at `child_offset`).
    pub struct ResourceHeaderRaw (128 bytes, little_endian) {
        /// Items in a cluster.
        0x00 items_per_cluster: u32,
        /// Clusters in a cluster group.
        0x04 clusters_per_group: u32,
        /// File offset of cluster group 0. Unit: bytes.
        0x08 group_offset: u32,
        /// Size of an item, 0 where the items are file blocks. Unit: bytes.
        0x0c item_size: u32,
        /// Size of a cluster group. Unit: bytes.
        0x10 group_size: u32,
        /// Number of items, low half.
        0x14 items_low: u32,
        /// Number of cluster groups.
        0x18 groups: u32,
        /// Number of items, high half (VMFS6).
        0x1c items_high: u32,
        /// VMFS6: 0x72666D64.
        0x20 signature: u32,
        /// VMFS6: 1.
        0x24 version: u32,
        /// VMFS6: 0x1 has a child, 0x2 is a child, others guessed.
        0x28 flags: u32,
        /// Affinity slots of a cluster.
        0x2c affinity_per_cluster: u16,
        /// Affinity slots of an item.
        0x2e affinity_per_item: u16,
        /// Bits of an item in the bitmap.
        0x30 bits_per_item: u32,
        /// File offset of the child's header. Unit: bytes.
        0x34 child_offset: u32,
        /// Child: items in a cluster of the parent.
        0x38 parent_items_per_cluster: u32,
        /// Child: clusters in a group of the parent.
        0x3c parent_clusters_per_group: u32,
        /// Child: size of a group of the parent. Unit: bytes.
        0x40 parent_group_size: u32,
        /// Child: large blocks that were turned into small-block clusters.
        0x54 converted: u32,
    }
}

on_disk! {
    /// A lock block: the start of every cluster entry and of every FD.
    pub struct LockRaw (512 bytes, little_endian) {
        /// 0x10C00000 + kind: 1 FD, 2 FB or SFB, 3 SB, 4 PB, 5 FD cluster, 6 PB2, 7 JB, 8 LFB,
        /// 9 unmap.
        0x000 lock_type: u32,
        /// Own volume offset. Unit: bytes.
        0x004 offset: u64,
        /// Heartbeat slot of the present or last holder. Unit: bytes of the volume.
        0x00c heartbeat_offset: u64,
        /// Generation of that heartbeat.
        0x014 heartbeat_generation: u64,
        /// Version counter.
        0x01c token: u64,
        /// 0 free, 1 exclusive, 2 shared read-only, 3 multi-writer.
        0x024 mode: u32,
        /// Host that holds it, zero when free.
        0x028 owner: [u8; 16],
        /// Host clock, not wall time.
        0x038 mtime: u64,
        /// Number of holders *(one source)*.
        0x040 holders: u32,
        /// Heartbeat offset u64, generation u64, UUID of each holder *(one source)*.
        0x044 holder_list: [u8; 256],
        /// *(one source)*
        0x164 global_holders: u32,
        /// *(one source)*
        0x168 global_generation: u64,
        /// *(one source)*
        0x170 global_break: u32,
        /// SFB clusters: heartbeat slot of the last holder.
        0x198 last_heartbeat_offset: u64,
        /// SFB clusters: its generation, low half.
        0x1a0 last_generation: u32,
        /// SFB clusters: 0xCAFEBAFE.
        0x1a4 last_marker: u32,
        /// SFB clusters: host UUID of the last holder.
        0x1a8 last_owner: [u8; 16],
    }
}

on_disk! {
    /// Meta block of a cluster, VMFS3/5; the bitmap (1 = free) follows at 0x10.
    pub struct ClusterMeta5Raw (512 bytes, little_endian) {
        /// Own number.
        0x00 number: u32,
        /// Items in this cluster.
        0x04 total: u32,
        /// Free items.
        0x08 free: u32,
        /// Where to look for a free item; may be stale.
        0x0c next_free: u32,
        /// 1 = free.
        0x10 bitmap: [u8; 64],
        /// FD clusters: last FD generation handed out.
        0x50 last_generation: u32,
        /// 80000 in one cluster of `.fbb.sf` and `.pbc.sf`.
        0x60 priority: u32,
    }
}

on_disk! {
    /// Meta block of a cluster, VMFS6; bitmap chunks of 256 items at 0x80, 0x180, ….
    pub struct ClusterMeta6Raw (128 bytes, little_endian) {
        /// Value and generation, zero without checksums.
        0x00 checksum: [u64; 2],
        /// 0x72636D64.
        0x10 signature: u32,
        /// 0.
        0x14 priority: u32,
        /// Own number.
        0x18 number: u64,
        /// Items in this cluster.
        0x20 total: u16,
        /// Free items.
        0x22 free: u16,
        /// SFB: used affinity slots + 1, 0 when none.
        0x26 affinity_used: u16,
        /// LFB 7, SFB 0x100, else 0; meaning unknown.
        0x2a unknown_2a: u16,
        /// 1.
        0x30 version: u32,
        /// Allocations since the file system was made.
        0x58 operations: u32,
        /// MAC of the last allocating host.
        0x5c allocator: [u8; 6],
        /// Time of the last allocation. Unit: seconds since 1970.
        0x62 allocated: u32,
        /// FD clusters: last FD generation handed out.
        0x68 last_generation: u32,
        /// First free item of chunk 0.
        0x7c next_free: u32,
    }
}

on_disk! {
    /// Meta block of a file descriptor.
    pub struct DescriptorRaw (512 bytes, little_endian) {
        /// Own FD address.
        0x00 address: u32,
        /// Generation, equal to that in every directory entry.
        0x04 generation: u32,
        /// Number of names; directories: 2 + subdirectories.
        0x08 links: u32,
        /// 2 directory, 3 file, 4 symbolic link, 5 system, 6 raw device mapping.
        0x0c file_type: u32,
        /// VMFS6; meaning guessed.
        0x10 flags: u32,
        /// Length. Unit: bytes.
        0x14 length: u64,
        /// Block size of this file. Unit: bytes.
        0x1c block_size: u64,
        /// Data blocks allocated.
        0x24 blocks: u64,
        /// Unit: seconds since 1970.
        0x2c modified: u32,
        /// Unit: seconds since 1970.
        0x30 changed: u32,
        /// Unit: seconds since 1970.
        0x34 accessed: u32,
        /// Owner.
        0x38 uid: u32,
        /// Group.
        0x3c gid: u32,
        /// Permission bits, sometimes with the POSIX type.
        0x40 mode: u32,
        /// Addressing: 1 file blocks, 2 sub-blocks, 3 pointer blocks, 5 secondary pointer
        /// blocks, 4304 double indirect, 4305 resident, 0 none.
        0x44 addressing: u32,
        /// Allocated blocks that read as zeros, low half.
        0x48 tbz_blocks_low: u32,
        /// Copy-on-write blocks, low half *(one source)*.
        0x4c cow_blocks_low: u32,
        /// Blocks new since the epoch, low half.
        0x50 new_blocks_low: u32,
        /// *(one source)*
        0x54 tbz_blocks_high: u32,
        /// *(one source)*
        0x58 cow_blocks_high: u32,
        /// VMFS6: pointer blocks.
        0x5c pointer_blocks: u32,
        /// *(one source)*
        0x60 new_blocks_high: u32,
        /// VMFS6: 0x66646D64.
        0x64 signature: u32,
        /// FD next to which blocks are placed.
        0x68 affinity_fd: u32,
        /// log2 of the to-be-zeroed granularity.
        0x6c tbz_shift: u32,
        /// VMFS6: FD of the parent directory, 0 for the root and system files.
        0x70 parent_fd: u32,
        /// VMFS6: last small-block cluster used.
        0x74 last_cluster: u32,
        /// VMFS6: 1 when `tracked_clusters` is in use.
        0x7c tracks_clusters: u32,
        /// VMFS6: clusters in the bitmap at 0x200.
        0x80 tracked_clusters: u32,
        /// log2 of the block size; 0 on VMFS3.
        0x89 block_shift: u8,
        /// VMFS6: large file blocks *(one source)*.
        0x8c large_blocks: u32,
        /// VMFS6: last free small-block cluster *(one source)*.
        0x168 last_free_cluster: u32,
    }
}

on_disk! {
    /// Identity of a SCSI device: LVM headers and raw device mappings.
    pub struct ScsiIdRaw (78 bytes, little_endian) {
        /// Kind of identity.
        0x00 id_type: u8,
        /// Used bytes of `id`.
        0x01 id_length: u8,
        /// Logical unit number.
        0x02 lun: u16,
        /// SCSI peripheral device type.
        0x04 device_type: u8,
        /// SCSI level.
        0x05 scsi_level: u8,
        /// Vendor.
        0x06 vendor: [u8; 8],
        /// Model.
        0x0e model: [u8; 16],
        /// Revision.
        0x1e revision: [u8; 4],
        /// The identity itself.
        0x22 id: [u8; 44],
    }
}

on_disk! {
    /// Directory entry of VMFS3 and VMFS5.
    pub struct DirEntry5Raw (140 bytes, little_endian) {
        /// As in the FD.
        0x00 file_type: u32,
        /// FD address, 0 in a deleted entry.
        0x04 address: u32,
        /// Generation of the FD.
        0x08 generation: u32,
        /// Name, NUL padded.
        0x0c name: [u8; 128],
    }
}

on_disk! {
    /// Directory entry of VMFS6.
    pub struct DirEntry6Raw (288 bytes, little_endian) {
        /// As in the FD.
        0x000 file_type: u32,
        /// FD address, 0 in a deleted entry.
        0x004 address: u32,
        /// Generation of the FD.
        0x008 generation: u32,
        /// Low half of the name hash; 0 for `.`, `..` and the root's system names.
        0x00c hash: u32,
        /// Own offset in the directory file. Unit: bytes.
        0x010 offset: u64,
        /// Name, zero padded.
        0x018 name: [u8; 256],
    }
}

on_disk! {
    /// Header of a VMFS6 directory, without the hash table that follows it.
    pub struct DirectoryRaw (1528 bytes, little_endian) {
        /// 0x00F50001.
        0x000 version: u32,
        /// Entries, `.` and `..` included.
        0x004 entries: u32,
        /// High-water mark of entries; deletions do not lower it.
        0x008 allocated: u32,
        /// Allocation-map blocks in use.
        0x00c map_blocks: u32,
        /// Their block numbers.
        0x010 map_block: [u32; 128],
        /// Value and generation, zero without checksums.
        0x3a8 checksum: [u64; 2],
        /// Entry `.`.
        0x3b8 dot: [u8; 288],
        /// Entry `..`.
        0x4d8 dot_dot: [u8; 288],
    }
}

on_disk! {
    /// Header of a block of a VMFS6 directory.
    pub struct DirBlockRaw (64 bytes, little_endian) {
        /// 1; 0 in allocation maps.
        0x00 version: u16,
        /// 1 entries, 2 links, 3 allocation map.
        0x02 block_type: u16,
        /// Slots.
        0x04 slots: u16,
        /// Free slots.
        0x06 free: u16,
        /// 1 = free, least significant bit first.
        0x08 bitmap: [u8; 56],
    }
}

on_disk! {
    /// Link group of a VMFS6 directory: names that share a place in the hash table.
    pub struct LinkGroupRaw (84 bytes, little_endian) {
        /// Index in the hash table.
        0x00 hash_index: u16,
        /// 12.
        0x02 total: u8,
        /// Free links.
        0x03 free: u8,
        /// First free link, 12 when full.
        0x04 next_free: u8,
        /// Twelve times location u32, link hash u16.
        0x06 links: [u8; 72],
        /// Location of the next group, 0 = none.
        0x4e next_group: u32,
    }
}

impl LinkGroupRaw {
    /// Links in a group.
    pub const LINKS: usize = 12;

    /// Link `index`: location and link hash; nothing past the twelfth.
    pub fn link(&self, index: usize) -> Option<(u32, u16)> {
        let at = index.checked_mul(6)?;
        let location = adit_core::bytes::u32_le(&self.links, at)?;
        let hash = adit_core::bytes::u16_le(&self.links, at.checked_add(4)?)?;
        Some((location, hash))
    }
}
