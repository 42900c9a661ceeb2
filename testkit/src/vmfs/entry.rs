//! What a test asks to be in the volume.

use std::ops::Range;

use super::content::{Addressing, Content};
use super::lock::Mode;

/// A file, folder, link or mapping, before it is written.
#[derive(Debug, Clone)]
pub struct Entry {
    pub(crate) path: Vec<u8>,
    pub(crate) what: What,
    pub(crate) mode: Option<u64>,
    pub(crate) owner: (u64, u64),
    pub(crate) times: Option<[u64; 3]>,
    pub(crate) held: Option<Held>,
    pub(crate) deleted: bool,
}

#[derive(Debug, Clone)]
pub(crate) enum What {
    Folder,
    File(Content),
    Symlink(Vec<u8>),
    Rdm(u64),
}

/// A lock on an FD.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Held {
    pub slot: u64,
    pub mode: Mode,
    pub stale: bool,
}

impl Entry {
    fn new(path: impl AsRef<[u8]>, what: What) -> Self {
        Self {
            path: path.as_ref().to_vec(),
            what,
            mode: None,
            owner: (0, 0),
            times: None,
            held: None,
            deleted: false,
        }
    }

    /// A file with these bytes.
    pub fn file(path: impl AsRef<[u8]>, bytes: impl AsRef<[u8]>) -> Self {
        let mut content = Content::bytes(bytes.as_ref().to_vec());
        content.garbage = true;
        Self::new(path, What::File(content))
    }

    /// A file of holes with some pieces of data. Units: bytes.
    pub fn sparse<B: AsRef<[u8]>>(
        path: impl AsRef<[u8]>,
        length: u64,
        pieces: &[(u64, B)],
    ) -> Self {
        let pieces = pieces.iter().map(|(at, b)| (*at, b.as_ref().to_vec()));
        let content =
            Content { length, pieces: pieces.collect(), garbage: true, ..Content::default() };
        Self::new(path, What::File(content))
    }

    /// A symbolic link.
    pub fn symlink(path: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Self {
        Self::new(path, What::Symlink(target.as_ref().to_vec()))
    }

    /// A raw device mapping. Units: bytes.
    pub fn rdm(path: impl AsRef<[u8]>, size_bytes: u64) -> Self {
        Self::new(path, What::Rdm(size_bytes))
    }

    /// An empty folder, or the settings of one that other paths name.
    pub fn dir(path: impl AsRef<[u8]>) -> Self {
        Self::new(path, What::Folder)
    }

    /// Permission bits.
    pub fn mode(mut self, bits: u64) -> Self {
        self.mode = Some(bits);
        self
    }

    /// User and group.
    pub fn owner(mut self, uid: u64, gid: u64) -> Self {
        self.owner = (uid, gid);
        self
    }

    /// Times of modification, change and access. Units: seconds since 1970.
    pub fn times(mut self, mtime: u64, ctime: u64, atime: u64) -> Self {
        self.times = Some([mtime, ctime, atime]);
        self
    }

    /// Its lock is held by the host in this heartbeat slot.
    pub fn held(mut self, slot: u64, mode: Mode) -> Self {
        let stale = false;
        self.held = Some(Held { slot, mode, stale });
        self
    }

    /// Its lock looks held, but its holder has come and gone since.
    pub fn held_by_a_dead_host(mut self, slot: u64) -> Self {
        let (mode, stale) = (Mode::Exclusive, true);
        self.held = Some(Held { slot, mode, stale });
        self
    }

    /// Written, then deleted: its FD and blocks are free but hold what they held.
    pub fn deleted(mut self) -> Self {
        self.deleted = true;
        self
    }

    fn content(&mut self) -> &mut Content {
        match &mut self.what {
            What::File(content) => content,
            _ => panic!("only a file has contents to arrange"),
        }
    }

    /// How its blocks are found.
    pub fn addressing(mut self, addressing: Addressing) -> Self {
        self.content().addressing = Some(addressing);
        self
    }

    /// Every block exists, also where nothing was written.
    pub fn thick(mut self) -> Self {
        let whole = 0..self.content().length;
        self.content().thick.push(whole);
        self
    }

    /// These bytes have blocks, though nothing was written. Units: bytes.
    pub fn allocated(mut self, range: Range<u64>) -> Self {
        self.content().thick.push(range);
        self
    }

    /// VMFS6: these bytes lie in 512 MiB blocks. Units: bytes.
    pub fn large(mut self, range: Range<u64>) -> Self {
        self.content().large.push(range);
        self
    }

    /// These blocks are allocated but must read as zeros; the disk holds garbage there.
    pub fn to_be_zeroed(mut self, blocks: Range<u64>) -> Self {
        let marked = blocks.map(|index| (index, 0xff));
        self.content().tbz.extend(marked);
        self
    }

    /// VMFS6: eighth k of this block is to be zeroed where bit k is set.
    pub fn partly_to_be_zeroed(mut self, block: u64, eighths: u8) -> Self {
        self.content().tbz.push((block, eighths));
        self
    }

    /// The first of its blocks is the one at this volume offset, the others follow. Units: bytes.
    pub fn placed_at(mut self, volume_offset: u64) -> Self {
        self.content().placed_at = Some(volume_offset);
        self
    }
}
