//! Mounts through the real kernel, and sources to put behind them.
#![allow(dead_code)]

use adit_core::{
    Cursor, Detail, DirEntry, DirPage, Disk, DiskExt, Error, Extent, ExtentKind, FileSystem,
    Finding, Fork, Geometry, Hop, Identity, Limits, Metadata, Name, Next, NodeId, NodeKind,
    Problem, ReadRequest, Result, Space, Xattr, read_each,
};
use adit_fuse::{MountOptions, Mounted, Source, mount};
use adit_testkit::Vmfs as Maker;
use adit_vmfs::Vmfs;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use tempfile::TempDir;

pub const MIB: u64 = 1 << 20;

/// A mount and the directory made for it.
pub struct Here {
    pub mounted: Mounted,
    dir: TempDir,
}

impl Here {
    pub fn path(&self) -> &Path {
        self.dir.path()
    }
}

/// Mounts, or says loudly why these tests cannot run.
pub fn here(source: Source, options: &MountOptions) -> Here {
    assert!(
        Path::new("/dev/fuse").exists(),
        "there is no /dev/fuse: these tests need the kernel's FUSE (modprobe fuse)"
    );
    let dir = tempfile::tempdir().unwrap();
    let mounted = mount(source, dir.path(), options)
        .unwrap_or_else(|error| panic!("{}", error.report("mount for a test")));
    Here { mounted, dir }
}

/// Mounts, or says why not.
pub fn tried(source: Source, options: &MountOptions) -> Result<Here> {
    let dir = tempfile::tempdir().unwrap();
    let mounted = mount(source, dir.path(), options)?;
    Ok(Here { mounted, dir })
}

pub fn options() -> MountOptions {
    MountOptions { source: "lun.img//p1".into(), ..MountOptions::default() }
}

/// Options that read every file past the page cache, or none.
pub fn direct(yes: bool) -> MountOptions {
    let direct_io_from_bytes = if yes { 0 } else { u64::MAX };
    MountOptions { direct_io_from_bytes, passthrough: false, ..options() }
}

/// Runs a shell script in a directory.
pub fn run(dir: &Path, script: &str) -> Output {
    Command::new("bash").arg("-c").arg(script).current_dir(dir).output().unwrap()
}

/// What a script that must succeed prints.
pub fn shell(dir: &Path, script: &str) -> String {
    let output = run(dir, script);
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{script}\n{}\n{text}", output.status);
    String::from_utf8(output.stdout).unwrap()
}

/// What a Python program that must succeed prints.
pub fn python(dir: &Path, program: &str) -> String {
    let output = Command::new("python3").args(["-c", program]).current_dir(dir).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program}\n{}\n{text}", output.status);
    String::from_utf8(output.stdout).unwrap()
}

/// A VMFS volume in a file of its own.
pub struct Volume {
    pub dir: TempDir,
    pub image: PathBuf,
}

impl Volume {
    pub fn of(maker: &Maker) -> Volume {
        let dir = tempfile::tempdir().unwrap();
        let image = dir.path().join("volume.img");
        maker.clone().without_lvm().write(&image);
        Volume { dir, image }
    }

    pub fn open(&self) -> Arc<Vmfs> {
        let disk = adit_io::open(&self.image, &adit_io::ReadPolicy::default()).unwrap();
        Vmfs::open(disk, &Limits::default()).unwrap()
    }

    pub fn mount(&self, options: &MountOptions) -> Here {
        here(Source::Files(self.open()), options)
    }
}

/// Bytes that differ from place to place.
pub fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    (0..length.div_ceil(8)).flat_map(|_| next()).take(length).collect()
}

/// A disk that counts reads, and may hang in them.
#[derive(Debug)]
pub struct Watched {
    below: Arc<dyn Disk>,
    pub reads: AtomicU64,
    hangs: Mutex<bool>,
    changed: Condvar,
}

impl Watched {
    pub fn open(below: Arc<dyn Disk>) -> Arc<Watched> {
        let (reads, hangs, changed) = Default::default();
        Arc::new(Watched { below, reads, hangs, changed })
    }

    pub fn hang(&self, yes: bool) {
        *self.hangs.lock().unwrap() = yes;
        self.changed.notify_all();
    }
}

impl Disk for Watched {
    fn geometry(&self) -> Geometry {
        self.below.geometry()
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        let hangs = self.hangs.lock().unwrap();
        drop(self.changed.wait_while(hangs, |hangs| *hangs).unwrap());
        self.below.read_at(buf, offset)
    }

    fn read_batch(&self, batch: &mut [ReadRequest<'_>]) -> Result<()> {
        read_each(self, batch)
    }

    fn extent_at(&self, offset: u64) -> Result<Extent> {
        self.check_range(offset, 1)?;
        let length = self.size_bytes() - offset;
        Ok(Extent { offset, length, kind: ExtentKind::Data })
    }

    fn as_file(&self) -> Option<BorrowedFd<'_>> {
        self.below.as_file()
    }

    fn explain(&self, offset: u64) -> Result<Hop> {
        Ok(Hop { layer: "watched".into(), offset, steps: Vec::new(), next: Next::Here })
    }
}

/// One directory of empty files, listed in pages, some of whose entries may be damaged.
#[derive(Debug)]
pub struct Many {
    pub files: u64,
    pub page: u64,
    pub damaged: Option<u64>,
    pub pages_read: AtomicU64,
    pub lookups: AtomicU64,
}

const MANY_ROOT: NodeId = NodeId(u64::MAX - 5);
const MANY_FIRST: u64 = 1;

impl Many {
    pub fn new(files: u64, page: u64, damaged: Option<u64>) -> Arc<Many> {
        Arc::new(Many {
            files,
            page,
            damaged,
            pages_read: AtomicU64::new(0),
            lookups: AtomicU64::new(0),
        })
    }
}

impl FileSystem for Many {
    fn identity(&self) -> Identity {
        Identity { format: "many".into(), ..Identity::default() }
    }

    fn notes(&self) -> Vec<Finding> {
        Vec::new()
    }

    fn root(&self) -> NodeId {
        MANY_ROOT
    }

    fn lookup(&self, _dir: NodeId, name: &Name) -> Result<NodeId> {
        self.lookups.fetch_add(1, Ordering::SeqCst);
        let number = std::str::from_utf8(name.as_bytes()).ok().and_then(|n| n[1..].parse().ok());
        let number = number.filter(|&n: &u64| n < self.files && Some(n) != self.damaged);
        number.map(|n| NodeId(MANY_FIRST + n)).ok_or_else(|| Error::not_found("no such file"))
    }

    fn read_dir(&self, _dir: NodeId, from: Cursor) -> Result<DirPage> {
        self.pages_read.fetch_add(1, Ordering::SeqCst);
        let end = from.0.saturating_add(self.page).min(self.files);
        let mut page =
            DirPage { next: (end < self.files).then_some(Cursor(end)), ..DirPage::default() };
        for n in from.0..end {
            if Some(n) == self.damaged {
                let error = Error::corrupt(Problem::BadValue, format!("entry {n} is damaged"));
                page.problems.push(error);
                continue;
            }
            page.entries.push(DirEntry {
                name: Name::new(format!("f{n:06}")).unwrap(),
                node: NodeId(MANY_FIRST + n),
                kind: NodeKind::File,
                after: Cursor(n + 1),
            });
        }
        Ok(page)
    }

    fn metadata(&self, node: NodeId) -> Result<Metadata> {
        let directory = node == MANY_ROOT;
        Ok(Metadata {
            node,
            kind: if directory { NodeKind::Directory } else { NodeKind::File },
            size_bytes: 0,
            allocated_bytes: 0,
            block_size_bytes: 512,
            links: 1,
            mode: if directory { 0o755 } else { 0o644 },
            uid: 0,
            gid: 0,
            modified: None,
            changed: None,
            accessed: None,
            created: None,
            generation: 0,
        })
    }

    fn read_link(&self, _link: NodeId) -> Result<Vec<u8>> {
        Err(Error::unsupported("no links"))
    }

    fn open(&self, _file: NodeId, _fork: &Fork) -> Result<Arc<dyn Disk>> {
        Err(Error::unsupported("no bytes"))
    }

    fn xattrs(&self, _node: NodeId) -> Result<Vec<Xattr>> {
        Ok(Vec::new())
    }

    fn details(&self, _node: NodeId) -> Result<Vec<Detail>> {
        Ok(Vec::new())
    }

    fn space(&self) -> Result<Space> {
        Err(Error::unsupported("no space"))
    }
}
