//! The tree of names: who is in which folder, and writing it into the volume.

use std::collections::HashMap;

use crate::store::Store;

use super::content::{Content, Stored};
use super::descriptor::{DIRECTORY, Fd, RDM, REGULAR, SYMLINK, SYSTEM, free_lock};
use super::directory::{FLAT_ENTRY, Hashed, Named, flat};
use super::entry::{Entry, Held, What};
use super::heartbeat::{Heartbeat, Heartbeats};
use super::layout::{Kind, SYSTEM_NAMES, Version, scsi_id, system_fd};
use super::lock::{Lock, Mode};
use super::make::{Laid, Maker, SDD};

/// A name, and once grown, where everything of it is.
#[derive(Debug)]
pub(crate) struct Node {
    pub name: Vec<u8>,
    pub parent: usize,
    children: Vec<usize>,
    entry: Entry,
    pub item: u64,
    pub fd: Fd,
    /// Volume offset of its FD.
    pub fd_at: u64,
    /// Token of its lock on disk.
    pub token: u64,
    pub stored: Stored,
    /// Byte offset of its entry in the parent folder's file.
    pub entry_at: u64,
}

#[derive(Debug)]
pub(crate) struct Tree {
    nodes: Vec<Node>,
}

pub(crate) type Paths = HashMap<(usize, Vec<u8>), usize>;

impl Node {
    fn new(name: &[u8], parent: usize, entry: Entry) -> Self {
        Self {
            name: name.to_vec(),
            parent,
            children: Vec::new(),
            entry,
            item: 0,
            fd: Fd::default(),
            fd_at: 0,
            token: 1,
            stored: Stored::default(),
            entry_at: 0,
        }
    }

    fn named<'a>(&self, name: &'a [u8]) -> Named<'a> {
        Named { name, kind: self.fd.kind, address: self.fd.address, generation: self.fd.generation }
    }

    fn is_folder(&self) -> bool {
        matches!(self.entry.what, What::Folder)
    }
}

/// Finds a path among nodes.
pub(crate) fn find(paths: &Paths, path: &[u8]) -> Option<usize> {
    let mut parts = path.split(|&b| b == b'/').filter(|part| !part.is_empty());
    parts.try_fold(0, |at, part| paths.get(&(at, part.to_vec())).copied())
}

pub(crate) fn paths(nodes: &[Node]) -> Paths {
    let named = nodes.iter().enumerate().skip(1);
    named.map(|(i, node)| ((node.parent, node.name.clone()), i)).collect()
}

impl Tree {
    pub(crate) fn plant(entries: &[Entry]) -> Self {
        let root = Node::new(b"", 0, Entry::dir("").mode(0o1755));
        let mut nodes = vec![root];
        let mut paths = Paths::new();
        for entry in entries {
            let mut parts = entry.path.split(|&b| b == b'/').filter(|p| !p.is_empty());
            let last = parts.next_back();
            let mut at = 0;
            for part in parts {
                at = Self::child(&mut nodes, &mut paths, at, part, None);
            }
            match last {
                Some(name) => {
                    Self::child(&mut nodes, &mut paths, at, name, Some(entry));
                }
                None => nodes[0].entry = entry.clone(),
            }
        }
        Self { nodes }
    }

    fn child(
        nodes: &mut Vec<Node>,
        paths: &mut Paths,
        parent: usize,
        name: &[u8],
        entry: Option<&Entry>,
    ) -> usize {
        if let Some(&found) = paths.get(&(parent, name.to_vec())) {
            if let Some(entry) = entry {
                assert!(
                    nodes[found].is_folder() && matches!(entry.what, What::Folder),
                    "{} is there twice",
                    String::from_utf8_lossy(&entry.path)
                );
                nodes[found].entry = entry.clone();
            }
            return found;
        }
        assert!(nodes[parent].is_folder(), "only folders hold names");
        let entry = entry.cloned().unwrap_or_else(|| Entry::dir(""));
        let index = nodes.len();
        nodes.push(Node::new(name, parent, entry));
        nodes[parent].children.push(index);
        paths.insert((parent, name.to_vec()), index);
        index
    }

    pub(crate) fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Writes the whole tree, and the heartbeats that hold locks in it.
    pub(crate) fn grow<S: Store>(
        mut self,
        maker: &mut Maker<S>,
        heartbeats: &[Heartbeat],
    ) -> Vec<Node> {
        let laid = maker.mkfs();
        let heartbeats = Heartbeats::prepare(maker, heartbeats);
        let paths = paths(&self.nodes);
        for (path, slot) in heartbeats.pending_paths() {
            let node = find(&paths, path).expect("a transaction's path exists");
            let (mode, stale) = (Mode::Exclusive, false);
            self.nodes[node].entry.held = Some(Held { slot, mode, stale });
        }
        self.number(maker);
        self.write_sdd(maker, &laid);
        for index in 0..self.nodes.len() {
            self.store(maker, &laid, index);
            self.write_fd(maker, &heartbeats, index);
        }
        self.delete(maker);
        heartbeats.write(maker, |path| {
            let node = &self.nodes[find(&paths, path).expect("a transaction's path exists")];
            (node.fd_at, node.token)
        });
        self.nodes
    }

    /// Gives every node its FD, in the order of creation.
    fn number<S: Store>(&mut self, maker: &mut Maker<S>) {
        let three = maker.layout.version == Version::Three;
        for index in 0..self.nodes.len() {
            let parent = self.nodes[self.nodes[index].parent].fd.address;
            let folders = self.nodes[index].children.iter();
            let folders = folders.filter(|&&child| self.nodes[child].is_folder()).count() as u64;
            let node = &mut self.nodes[index];
            let mut fd = maker.system_fd(0);
            if index > 0 {
                node.item = maker.fdc.allocate(parent);
                fd.generation = maker.fdc.next_generation(node.item);
                fd.address = maker.layout.address(Kind::FdCluster, node.item);
                fd.parent = parent;
            }
            node.fd_at = maker.fd_at(node.item);
            let (kind, mode, file_type) = match node.entry.what {
                What::Folder => (DIRECTORY, 0o755, 0o040000),
                What::File(_) => (REGULAR, 0o644, 0o100000),
                What::Symlink(_) => (SYMLINK, 0o777, 0o120000),
                What::Rdm(_) => (RDM, 0o600, 0o100000),
            };
            fd.kind = kind;
            fd.mode = node.entry.mode.unwrap_or(mode);
            if three && index > 0 {
                fd.mode |= file_type;
            }
            (fd.uid, fd.gid) = node.entry.owner;
            fd.times = node.entry.times.unwrap_or(fd.times);
            fd.links = if kind == DIRECTORY { 2 + folders } else { 1 };
            if index == 0 && !three {
                fd.links += 1;
            }
            node.fd = fd;
        }
    }

    fn write_sdd<S: Store>(&self, maker: &mut Maker<S>, laid: &Laid) {
        let Some(block) = laid.sdd else { return };
        let mut fd = Fd { kind: SYSTEM, mode: 0o40700, links: 2, ..maker.system_fd(SDD) };
        let own = Named { name: b".", kind: SYSTEM, address: fd.address, generation: 1 };
        let parent = self.nodes[0].named(b"..");
        let bytes = match maker.layout.six() {
            true => Hashed::new(own, parent, false).bytes,
            false => flat(&[own, parent]),
        };
        maker.store_from(block, &Content::bytes(bytes), &mut fd);
        let at = maker.fd_at(SDD);
        let bytes = fd.encode(&maker.layout, &free_lock(at, 1));
        maker.volume.write(at, &bytes);
    }

    fn store<S: Store>(&mut self, maker: &mut Maker<S>, laid: &Laid, index: usize) {
        let node = &mut self.nodes[index];
        let mut fd = std::mem::take(&mut node.fd);
        let what = std::mem::replace(&mut node.entry.what, What::Folder);
        let stored = match &what {
            What::File(content) => maker.store(content, true, &mut fd),
            What::Symlink(target) => {
                let six = maker.layout.six();
                maker.store(&Content::bytes(target.clone()), six, &mut fd)
            }
            What::Rdm(size) => {
                fd.length = *size;
                fd.block_bytes = 512;
                fd.zla = 0;
                fd.resident = scsi_id(b"QM00009ADIT RDM LUN       ").to_vec();
                Stored::default()
            }
            What::Folder => {
                self.nodes[index].fd = fd.clone();
                let bytes = self.listing(maker, index);
                let content = Content::bytes(bytes);
                match index {
                    0 => maker.store_from(laid.root, &content, &mut fd),
                    _ => maker.store(&content, false, &mut fd),
                }
            }
        };
        if maker.layout.version == Version::Three {
            fd.new_since_epoch = 0;
        }
        if !maker.layout.six() {
            fd.pointer_blocks = 0;
        }
        self.nodes[index].stored = stored;
        self.nodes[index].entry.what = what;
        self.nodes[index].fd = fd;
    }

    /// The bytes of a folder; notes where each child's entry is.
    fn listing<S: Store>(&mut self, maker: &Maker<S>, index: usize) -> Vec<u8> {
        let children = std::mem::take(&mut self.nodes[index].children);
        let parent = self.nodes[index].parent;
        let own = self.nodes[index].named(b".");
        let up = self.nodes[parent].named(b"..");
        let system = match index {
            0 => 1..maker.layout.system_fds(),
            _ => 0..0,
        };
        let system = system.map(|item| Named {
            name: SYSTEM_NAMES[item as usize].as_bytes(),
            kind: SYSTEM,
            address: system_fd(item),
            generation: 1,
        });
        let bytes = if maker.layout.six() {
            let mut folder = Hashed::new(own, up, index == 0);
            for (number, named) in system.enumerate() {
                folder.insert_system(named, number as u64);
            }
            for &child in &children {
                let node = &self.nodes[child];
                let at = folder.insert(node.named(&node.name));
                self.nodes[child].entry_at = at;
            }
            for &child in &children {
                let node = &self.nodes[child];
                if node.entry.deleted {
                    folder.remove(&node.name, node.entry_at);
                }
            }
            folder.bytes
        } else {
            let mut entries = vec![own, up];
            entries.extend(system);
            let first = entries.len();
            let kept = children.iter().filter(|&&child| !self.nodes[child].entry.deleted);
            let kept: Vec<usize> = kept.copied().collect();
            let named = kept.iter().map(|&child| {
                let node = &self.nodes[child];
                node.named(&node.name)
            });
            entries.extend(named);
            let bytes = flat(&entries);
            for (i, &child) in kept.iter().enumerate() {
                self.nodes[child].entry_at = ((first + i) * FLAT_ENTRY) as u64;
            }
            bytes
        };
        self.nodes[index].children = children;
        bytes
    }

    fn write_fd<S: Store>(&mut self, maker: &mut Maker<S>, heartbeats: &Heartbeats, index: usize) {
        let node = &mut self.nodes[index];
        let mut lock = free_lock(node.fd_at, 1);
        if !maker.layout.local && index > 0 {
            lock.token = node.fd.generation + 2;
            lock.holder = heartbeats.holder(maker, 64, false);
        }
        if let Some(held) = node.entry.held {
            lock = Lock {
                token: lock.token + 1,
                holder: heartbeats.holder(maker, held.slot, held.stale),
                mode: Some(held.mode),
                owner: heartbeats.host(maker, held.slot),
                ..lock
            };
        }
        node.token = lock.token;
        let bytes = node.fd.encode(&maker.layout, &lock);
        maker.volume.write(node.fd_at, &bytes);
    }

    /// Frees what deleted files had. Their FDs and blocks keep their contents.
    fn delete<S: Store>(&mut self, maker: &mut Maker<S>) {
        for node in self.nodes.iter().filter(|node| node.entry.deleted) {
            assert!(node.children.is_empty(), "only an empty folder is deleted");
            maker.release(&node.stored, node.fd.address);
            let parent = self.nodes[node.parent].fd.address;
            maker.fdc.release(node.item, parent);
        }
    }
}
