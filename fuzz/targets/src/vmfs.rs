//! Targets that change bytes of a small valid VMFS volume, each in one kind of structure.

use crate::patched::{Patched, walk_disk};
use adit_core::{
    Check, Disk, Extents, FileSystem, FileSystemExt, Fork, Inspect, Interrupt, Leaf, LeafKind,
    Limits, NodeKind, Walk,
};
use adit_testkit::vmfs::{Entry, Heartbeat, Mode, hash::colliding_names};
use adit_testkit::{Memory, Vmfs as Maker};
use adit_vmfs::{FdAddress, Vmfs};
use std::sync::{Arc, LazyLock};

/// Ranges of the volume. Units: bytes.
type Surface = Vec<(u64, u64)>;

/// A base volume, and where its structures are.
struct Base {
    memory: Arc<Memory>,
    superblock: Surface,
    heartbeats: Surface,
    journal: Surface,
    resources: Surface,
    descriptors: Surface,
    directories: Surface,
}

static BASES: LazyLock<[Base; 3]> = LazyLock::new(|| {
    let common = |maker: Maker| {
        let maker = maker.without_lvm().label("fuzz").size_bytes(256 << 20);
        let mut maker = maker
            .file("dir/small", "tiny")
            .file("dir/sub/medium", vec![b'm'; 9000])
            .file("big", vec![b'b'; 3 << 20])
            .sparse_file("far", 300 << 30, &[(0, &b"start"[..]), (299 << 30, b"end")])
            .symlink("link", "dir/small")
            .rdm("rdm", 7 << 40)
            .with(Entry::sparse::<&[u8]>("tbz", 5 << 20, &[]).to_be_zeroed(1..4))
            .with(Entry::file("held", b"locked").held(70, Mode::Exclusive))
            .heartbeat(Heartbeat::live(70, "192.0.2.7"));
        for name in colliding_names(14) {
            maker = maker.file(format!("collide/{name}"), &name);
        }
        maker
    };
    let double = |maker: Maker| maker.sparse_file("double", 42 << 40, &[(21 << 40, b"middle")]);
    let six = double(common(Maker::six().lean()))
        .heartbeat(Heartbeat::live(71, "192.0.2.8").pending("big"));
    [base(&six), base(&double(common(Maker::five()))), base(&common(Maker::three()))]
});

fn base(maker: &Maker) -> Base {
    let image = maker.in_memory();
    let paths = ["big", "far", "link", "rdm", "dir", "dir/small", "dir/sub/medium", "collide"];
    let descriptors: Surface = paths.iter().map(|path| (image.fd_at(path), 4096)).collect();
    let memory = Arc::new(image.into_store());
    let disk = Patched::open(&memory, &[], &[]);
    let vmfs = Vmfs::open(disk, &Limits::default()).expect("the base volume is valid");
    let (mut resources, mut directories) = (Surface::new(), Surface::new());
    let limits = Limits::default();
    let mut walk = Walk::below(&*vmfs, vmfs.root(), &limits);
    let placed = |node, length: u64| -> Surface {
        let disk = FdAddress::of_node(node)
            .and_then(|fd| vmfs.data(vmfs.descriptor(fd)?))
            .expect("a file or directory of the base volume");
        let extents: Vec<_> = Extents::of(&disk, 0..length).flatten().collect();
        extents
            .iter()
            .filter(|extent| !extent.kind.is_zero())
            .filter_map(|extent| match Leaf::find(&disk, extent.offset).ok()?.kind {
                LeafKind::Stored { offset, .. } => Some((offset, extent.length.min(length))),
                _ => None,
            })
            .collect()
    };
    directories.extend(placed(vmfs.root(), 80 << 10));
    while let Some((entry, _)) = walk.step() {
        match entry.kind {
            NodeKind::System => resources.extend(placed(entry.node, 96 << 10)),
            NodeKind::Directory => directories.extend(placed(entry.node, 80 << 10)),
            _ => {}
        }
    }
    let heartbeats = vmfs.heartbeats().expect("the base volume has heartbeats");
    let journal: Surface =
        heartbeats.iter().filter_map(|h| h.journal_offset()).map(|at| (at, 64 << 10)).collect();
    let slots: Surface =
        heartbeats.iter().filter(|h| h.in_use()).map(|h| (h.offset, 512)).collect();
    Base {
        memory,
        superblock: vec![(0x20_0000, 512)],
        heartbeats: slots,
        journal,
        resources,
        descriptors,
        directories,
    }
}

fn with(data: &[u8], surface: fn(&Base) -> &Surface) {
    let Some((&which, data)) = data.split_first() else { return };
    let base = &BASES[usize::from(which) % BASES.len()];
    // Every structure hangs on the superblock; without a surface of its own a base has nothing
    // to change.
    let surface = surface(base);
    if !surface.is_empty() {
        use_all(Patched::open(&base.memory, surface, data));
    }
}

/// The volume header.
pub fn superblock(data: &[u8]) {
    with(data, |base| &base.superblock);
}

/// Headers and cluster entries of the system files.
pub fn resources(data: &[u8]) {
    with(data, |base| &base.resources);
}

/// File descriptors.
pub fn descriptors(data: &[u8]) {
    with(data, |base| &base.descriptors);
}

/// Directories.
pub fn directories(data: &[u8]) {
    with(data, |base| &base.directories);
}

/// The journals that heartbeats name.
pub fn journal(data: &[u8]) {
    with(data, |base| &base.journal);
}

/// The heartbeats that are in use.
pub fn heartbeats(data: &[u8]) {
    with(data, |base| &base.heartbeats);
}

/// Everything a user could ask of a volume.
fn use_all(disk: Arc<dyn Disk>) {
    let limits = Limits {
        directory_entries_max: 5_000,
        directory_depth_max: 16,
        cache_bytes_max: 4 << 20,
        ..Limits::default()
    };
    let _ = adit_vmfs::probe(&disk);
    let Ok(vmfs) = Vmfs::open(disk, &limits) else { return };
    let _ = (vmfs.notes(), vmfs.identity(), vmfs.space());
    let mut walk = Walk::below(&*vmfs, vmfs.root(), &limits);
    let mut names = Vec::new();
    for _ in 0..300 {
        let Some((entry, _)) = walk.step() else { break };
        let Ok(metadata) = vmfs.metadata(entry.node) else { continue };
        let _ = (vmfs.details(entry.node), vmfs.xattrs(entry.node), vmfs.lock(entry.node));
        if metadata.kind == NodeKind::Symlink {
            let _ = vmfs.read_link(entry.node);
        }
        if let Ok(disk) = vmfs.open(entry.node, &Fork::Data) {
            walk_disk(&disk, 64);
        }
        names.push(entry.path_bytes());
    }
    for name in names.iter().take(64) {
        let _ = vmfs.find(name, &adit_core::FindOptions::default());
    }
    if let Ok(heartbeats) = vmfs.heartbeats() {
        heartbeats.iter().for_each(|heartbeat| drop(heartbeat.host()));
    }
    let mut findings = 0u32;
    let _ = vmfs.check(&mut |_| findings += 1, &Interrupt::default());
    for (name, _) in vmfs.structures().iter().take(40) {
        let _ = vmfs.inspect(name);
    }
    for at in [0, 0x20_0000, 0x34_6000, 0x41_8000, 0x42_1000, 0x72_2000, 64 << 20] {
        let _ = vmfs.owner_at(at);
    }
}
