//! Systems in subvolumes of btrfs.

use adit_core::{
    Cursor, Detail, DirPage, Disk, FileSystem, FileSystemExt, FindOptions, Finding, Fork, Identity,
    Limits, Metadata, Name, NodeId, Result, Space, Xattr,
};
use adit_io::ReadPolicy;
use adit_os::{Found, OsTree, Volume, recognise};
use adit_trees::HostTree;
use std::fs;
use std::path::Path;
use std::sync::Arc;

/// A folder that says it is btrfs.
#[derive(Debug)]
struct Btrfs(Arc<dyn FileSystem>);

impl FileSystem for Btrfs {
    fn identity(&self) -> Identity {
        Identity { format: "btrfs".into(), uuid: "aaaa-bbbb".into(), ..Identity::default() }
    }
    fn notes(&self) -> Vec<Finding> {
        self.0.notes()
    }
    fn root(&self) -> NodeId {
        self.0.root()
    }
    fn lookup(&self, dir: NodeId, name: &Name) -> Result<NodeId> {
        self.0.lookup(dir, name)
    }
    fn read_dir(&self, dir: NodeId, from: Cursor) -> Result<DirPage> {
        self.0.read_dir(dir, from)
    }
    fn metadata(&self, node: NodeId) -> Result<Metadata> {
        self.0.metadata(node)
    }
    fn read_link(&self, link: NodeId) -> Result<Vec<u8>> {
        self.0.read_link(link)
    }
    fn open(&self, file: NodeId, fork: &Fork) -> Result<Arc<dyn Disk>> {
        self.0.open(file, fork)
    }
    fn xattrs(&self, node: NodeId) -> Result<Vec<Xattr>> {
        self.0.xattrs(node)
    }
    fn details(&self, node: NodeId) -> Result<Vec<Detail>> {
        self.0.details(node)
    }
    fn space(&self) -> Result<Space> {
        self.0.space()
    }
}

fn volume(dir: &Path) -> Volume {
    Volume {
        locator: "disk//p1//".into(),
        fs: Arc::new(Btrfs(HostTree::open(dir, &ReadPolicy::default()).unwrap())),
        name: "p1".into(),
        group: String::new(),
        part_uuid: String::new(),
        part_label: String::new(),
        crypt_uuid: "cccc-dddd".into(),
        offset: None,
        disk_uuid: String::new(),
        disk: 0,
    }
}

fn write(dir: &Path, path: &str, content: &str) {
    let path = dir.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

#[test]
fn subvolumes_are_mounted_where_the_table_says() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    write(dir, "@/etc/os-release", "ID=ubuntu\nNAME=Ubuntu\n");
    let table = "UUID=aaaa-bbbb / btrfs defaults,subvol=@ 0 0\n\
                 /dev/mapper/crypt /home btrfs subvol=/@home,compress=zstd 0 0\n\
                 UUID=aaaa-bbbb /gone btrfs subvol=@gone 0 0\n";
    write(dir, "@/etc/fstab", table);
    write(dir, "@/etc/crypttab", "crypt UUID=cccc-dddd none luks\n");
    write(dir, "@/home/hidden", "");
    write(dir, "@/gone/x", "");
    write(dir, "@home/ann/notes", "text");
    let volumes = [volume(dir)];
    let systems = recognise(&volumes, &Limits::default()).unwrap();
    assert_eq!(systems.len(), 1);
    let system = &systems[0];
    assert_eq!((system.id.as_str(), system.root_path.as_slice()), ("ubuntu", &b"@"[..]));
    assert!(system.notes.is_empty(), "{:?}", system.notes);
    assert!(system.mounts.iter().all(|mount| mount.found == Found::Volume(0)));
    let tree = OsTree::open(system, &volumes).unwrap();
    let read = |path: &str| {
        let node = tree.find(path.as_bytes(), &FindOptions::default())?;
        tree.read_file(node, 100)
    };
    assert_eq!(read("home/ann/notes").unwrap(), b"text");
    assert!(read("home/hidden").is_err());
    assert!(read("etc/os-release").unwrap().starts_with(b"ID=ubuntu"));
    let up = tree.lookup(tree.root(), &Name::new(&b".."[..]).unwrap());
    assert!(up.is_err() || up.unwrap() == tree.root(), "above the root is nothing");
    let codes: Vec<&str> = tree.notes().iter().map(|note| note.code).collect();
    assert_eq!(codes, ["os-mount-missing"]);
}
