//! Named damage, each as small as it can be, for tests of checkers.

use crate::bytes::{get16, get32, put16, put32};
use crate::store::Store;

use super::descriptor::{DIRECT, DOUBLE, PB2S, POINTER_BLOCKS, RESIDENT, SUB_BLOCKS};
use super::directory::{hash_word_at, link_group_at};
use super::image::Image;
use super::layout::{Kind, SUPERBLOCK_AT};
use super::resource::Resource;
use super::tree::Node;

/// One thing wrong with a volume. A `&str` is the path of what it befalls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Damage<'a> {
    /// The first device has no LVM magic.
    LvmMagic,
    /// The file-system header has no magic.
    SuperblockMagic,
    /// An FD in use is free in its bitmap; the free count agrees with the bitmap.
    FdMarkedFree(&'a str),
    /// A file's first block is free in its bitmap; the free count agrees with the bitmap.
    BlockMarkedFree(&'a str),
    /// The last file block of the volume is allocated, but nobody owns it.
    BlockLost,
    /// An FD cluster counts one free item too many.
    FreeCount,
    /// The file's first pointer leads behind the last item of its kind.
    PointerOutOfRange(&'a str),
    /// The first pointer of the second file is that of the first.
    SharedBlock(&'a str, &'a str),
    /// The file's topmost pointer block names itself.
    PointerLoop(&'a str),
    /// The FD names another address as its own.
    FdAddress(&'a str),
    /// The FD has a type that does not exist.
    FdType(&'a str),
    /// The FD counts one block too many.
    BlockCount(&'a str),
    /// The FD counts one "to be zeroed" block too many.
    TbzCount(&'a str),
    /// The FD's lock names another place as its own.
    LockOffset(&'a str),
    /// The FD counts one link too many.
    LinkCount(&'a str),
    /// The file is longer than its addressing reaches.
    LengthBeyondAddressing(&'a str),
    /// The folder names another generation than the FD has.
    DirentGeneration(&'a str),
    /// The folder names an FD that is free, and the true one is nowhere.
    DirentToFreeFd(&'a str),
    /// VMFS6: the name is linked from a table index that its hash does not give.
    HashBucket(&'a str),
    /// VMFS6: the name's entry stores another hash.
    StoredHash(&'a str),
    /// VMFS6: this folder counts one entry too many.
    EntryCount(&'a str),
    /// VMFS6: the link group of this name leads to itself.
    LinkGroupLoop(&'a str),
}

impl<S: Store> Image<S> {
    /// Damages the volume.
    pub fn damage(&mut self, damage: Damage) {
        let mda = self.maker.layout.mda();
        match damage {
            Damage::LvmMagic => self.write_device(0, 0x100000, &[0; 4]),
            Damage::SuperblockMagic => self.write(SUPERBLOCK_AT, &[0; 4]),
            Damage::FdMarkedFree(path) => {
                let item = self.node(path).item;
                self.set_free(Kind::FdCluster, item, true);
            }
            Damage::BlockMarkedFree(path) => {
                let places = &self.node(path).stored.places;
                let (kind, item) = *places.values().next().expect("the file has a block");
                self.set_free(kind, item, true);
            }
            Damage::BlockLost => self.set_free(Kind::Block, self.maker.fb.items - 1, false),
            Damage::FreeCount => {
                let at = self.maker.fdc.entry_in_volume(0) + mda;
                self.count_free(at, 1);
            }
            Damage::PointerOutOfRange(path) => self.point_outside(path),
            Damage::SharedBlock(first, second) => {
                let (from, to) = (self.first_pointer(first), self.first_pointer(second));
                let word = self.read(from, self.maker.layout.pointer_bytes() as usize);
                self.write(to, &word);
            }
            Damage::PointerLoop(path) => self.loop_pointers(path),
            Damage::FdAddress(path) => self.bump32(self.fd_at(path) + mda, 64),
            Damage::FdType(path) => {
                let at = self.fd_at(path) + mda + 0x0c;
                self.write(at, &9u32.to_le_bytes());
            }
            Damage::BlockCount(path) => self.bump32(self.fd_at(path) + mda + 0x24, 1),
            Damage::TbzCount(path) => self.bump32(self.fd_at(path) + mda + 0x48, 1),
            Damage::LockOffset(path) => self.bump32(self.fd_at(path) + 0x04, mda),
            Damage::LinkCount(path) => self.bump32(self.fd_at(path) + mda + 0x08, 1),
            Damage::LengthBeyondAddressing(path) => self.lengthen(path),
            Damage::DirentGeneration(path) => self.change_entry(path, 8, |word| word + 1),
            Damage::DirentToFreeFd(path) => {
                let fdc = &self.maker.fdc;
                assert!(!fdc.is_used(fdc.items - 1));
                let free = self.maker.layout.address(Kind::Fd, fdc.items - 1);
                self.change_entry(path, 4, |_| free);
            }
            Damage::StoredHash(path) => self.change_entry(path, 0x0c, |word| word ^ 1),
            Damage::HashBucket(path) => self.move_bucket(path),
            Damage::EntryCount(path) => self.change_file(path, 4, |word| word + 1),
            Damage::LinkGroupLoop(path) => self.loop_link_group(path),
        }
    }

    fn bump32(&mut self, at: u64, by: u64) {
        let mut word = self.read(at, 4);
        let value = get32(&word, 0) + by;
        put32(&mut word, 0, value);
        self.write(at, &word);
    }

    fn resource(&self, kind: Kind) -> &Resource {
        match kind {
            Kind::FdCluster | Kind::Fd => &self.maker.fdc,
            Kind::Block => &self.maker.fb,
            Kind::SubBlock => &self.maker.sbc,
            Kind::PointerBlock => &self.maker.pbc,
            Kind::Pb2 => &self.maker.pb2,
            Kind::Large => &self.maker.large,
            _ => panic!("no items of {kind:?} are damaged"),
        }
    }

    /// Changes a cluster's free count, given its meta block.
    fn count_free(&mut self, meta_at: u64, by: i64) {
        let mut meta = self.read(meta_at, 0x28);
        if self.maker.layout.six() {
            let free = get16(&meta, 0x22).wrapping_add_signed(by);
            put16(&mut meta, 0x22, free);
        } else {
            let free = get32(&meta, 0x08).wrapping_add_signed(by);
            put32(&mut meta, 0x08, free);
        }
        self.write(meta_at, &meta);
    }

    /// Changes an item's bit, and all that depends on it in the cluster.
    fn set_free(&mut self, kind: Kind, item: u64, free: bool) {
        let (mda, six) = (self.maker.layout.mda(), self.maker.layout.six());
        let resource = self.resource(kind);
        assert_eq!(resource.is_used(item), free, "the bit is as wished");
        assert!(kind != Kind::Large, "large blocks have three bits");
        let (cluster, r) = (item / resource.shape.rpc, item % resource.shape.rpc);
        let converted = &self.maker.large.converted;
        assert!(
            !six || kind != Kind::Block || converted.contains(&cluster),
            "SFB cluster {cluster} exists"
        );
        let meta_at = resource.entry_in_volume(cluster) + mda;
        let (chunk_at, bit) = match six {
            true => (0x80 + r / 256 * 0x100, r % 256 * resource.shape.bits),
            false => (0x10, r),
        };
        let at = meta_at + chunk_at + bit / 8;
        let byte = self.read(at, 1)[0] ^ 1 << (bit % 8);
        self.write(at, &[byte]);
        self.count_free(meta_at, if free { 1 } else { -1 });
        // The hint: the first free item.
        if six && free {
            let hint_at = meta_at + if r < 256 { 0x7c } else { 0x100 };
            let hint = get32(&self.read(hint_at, 4), 0).min(r % 256);
            self.write(hint_at, &(hint as u32).to_le_bytes());
        }
    }

    /// Volume offset of the first used slot of a file's pointer array.
    fn first_pointer(&self, path: &str) -> u64 {
        let (node, layout) = (self.node(path), &self.maker.layout);
        let first = node.fd.pointers.first();
        let (slot, _) = first.unwrap_or_else(|| panic!("{path} has no pointers"));
        node.fd_at + layout.pointers_at() + slot * layout.pointer_bytes()
    }

    fn write_pointer(&mut self, at: u64, word: u64) {
        let size = self.maker.layout.pointer_bytes() as usize;
        self.write(at, &word.to_le_bytes()[..size]);
    }

    fn point_outside(&mut self, path: &str) {
        let at = self.first_pointer(path);
        let node = self.node(path);
        let pointed = node.stored.pointer_blocks.last();
        let place = pointed.or(node.stored.places.values().next());
        let kind = place.expect("the file has a block").0;
        let beyond = self.resource(kind).items + 7;
        let word = self.maker.layout.address(kind, beyond);
        self.write_pointer(at, word);
    }

    fn loop_pointers(&mut self, path: &str) {
        let blocks = &self.node(path).stored.pointer_blocks;
        let (kind, item) = *blocks.last().expect("the file has pointer blocks");
        let word = self.maker.layout.address(kind, item);
        let at = self.resource(kind).item_in_volume(item, 0);
        self.write_pointer(at, word);
    }

    fn lengthen(&mut self, path: &str) {
        let layout = &self.maker.layout;
        let node = self.node(path);
        let n = layout.pointers_per_block();
        let direct = layout.pointers() * node.fd.block_bytes;
        let reach = match node.fd.zla {
            RESIDENT => layout.resident_bytes(),
            DIRECT | SUB_BLOCKS => direct,
            POINTER_BLOCKS | PB2S => direct * n,
            DOUBLE => direct * n * n,
            other => panic!("{path} has zla {other}"),
        };
        let at = node.fd_at + layout.mda() + 0x14;
        self.write(at, &(reach + 1).to_le_bytes());
    }

    /// Changes a 32-bit word of a file's contents.
    fn change_file(&mut self, path: &str, offset: u64, change: impl Fn(u64) -> u64) {
        let at = self.in_file(self.node(path), offset);
        let mut word = self.read(at, 4);
        let value = change(get32(&word, 0));
        put32(&mut word, 0, value);
        self.write(at, &word);
    }

    fn in_file(&self, node: &Node, offset: u64) -> u64 {
        self.locate(node, offset).expect("no hole here")
    }

    /// Changes a 32-bit word of a name's entry in its folder.
    fn change_entry(&mut self, path: &str, within: u64, change: impl Fn(u64) -> u64) {
        let node = self.node(path);
        let at = self.in_file(&self.nodes[node.parent], node.entry_at + within);
        let mut word = self.read(at, 4);
        let value = change(get32(&word, 0));
        put32(&mut word, 0, value);
        self.write(at, &word);
    }

    /// Volume offset of the hash table word of a name.
    fn bucket_at(&self, path: &str) -> u64 {
        assert!(self.maker.layout.six(), "only VMFS6 folders have hashes");
        let node = self.node(path);
        let word = hash_word_at(&node.name, node.parent == 0);
        self.in_file(&self.nodes[node.parent], word)
    }

    fn move_bucket(&mut self, path: &str) {
        let at = self.bucket_at(path);
        let word = self.read(at, 4);
        let next = (1..8).map(|i| at + i * 4);
        let mut empty = next.filter(|&at| get32(&self.read(at, 4), 0) == 0);
        let empty = empty.next().expect("an empty index is near");
        self.write(empty, &word);
        self.write(at, &[0; 4]);
    }

    fn loop_link_group(&mut self, path: &str) {
        let location = get32(&self.read(self.bucket_at(path), 4), 0);
        assert_eq!(location & 3, 2, "{path} shares its index with no other name");
        let parent = &self.nodes[self.node(path).parent];
        let at = self.in_file(parent, link_group_at(location) + 0x4e);
        self.write(at, &(location as u32).to_le_bytes());
    }
}
