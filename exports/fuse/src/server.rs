//! Answers the kernel.

use crate::errno::errno;
use crate::files::{OpenFile, OpenFiles};
use crate::folders::{AFTER_PARENT, AFTER_SELF, OpenFolder};
use crate::incidents::Incidents;
use crate::options::MountOptions;
use crate::passthrough::host_file;
use crate::seek::{Wanted, seek};
use crate::table::Table;
use crate::tree::{Tree, file_type};
use crate::writers::{Writer, Writers};
use crate::xattrs;
use adit_core::{Error, Interrupt, NodeId, Result};
use fuser::{
    AccessFlags, BsdFileFlags, Errno, FileAttr, FileHandle, Filesystem, FopenFlags, Generation,
    INodeNo, InitFlags, KernelConfig, LockOwner, OpenAccMode, OpenFlags, ReplyAttr, ReplyData,
    ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyLseek, ReplyOpen, ReplyStatfs,
    ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};
use std::cell::RefCell;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

/// Largest read the kernel sends. Unit: bytes.
const REQUEST_BYTES_MAX: u32 = 1 << 20;
/// Reads the kernel may have under way on its own account.
const BACKGROUND_MAX: u16 = 64;
/// What the kernel can be asked for besides what it does anyway.
const WANTED: [InitFlags; 7] = [
    InitFlags::FUSE_ASYNC_DIO,
    InitFlags::FUSE_PARALLEL_DIROPS,
    InitFlags::FUSE_DO_READDIRPLUS,
    InitFlags::FUSE_READDIRPLUS_AUTO,
    InitFlags::FUSE_CACHE_SYMLINKS,
    InitFlags::FUSE_EXPORT_SUPPORT,
    InitFlags::FUSE_DIRECT_IO_ALLOW_MMAP,
];
/// `whence` of `lseek`.
const SEEK_DATA: i32 = 3;
const SEEK_HOLE: i32 = 4;
/// The process that answers, as an attribute of every file that is in no list.
pub const SERVER_ATTRIBUTE: &str = "user.adit.server";
/// Longest target of a link the kernel takes. Unit: bytes.
const LINK_BYTES_MAX: usize = 4095;

thread_local! {
    /// Every read of a thread goes through the same bytes.
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// The mounted tree, and what the kernel holds open of it.
#[derive(Debug)]
pub(crate) struct Server {
    tree: Tree,
    writers: Writers,
    files: OpenFiles,
    folders: Table<Mutex<OpenFolder>>,
    incidents: Arc<Incidents>,
    stop: Interrupt,
    /// `user.adit.source`, where attributes of ours are shown.
    source: Option<String>,
    believe_for: Duration,
    direct_io_from_bytes: u64,
    passthrough: AtomicBool,
}

impl Server {
    pub(crate) fn new(
        tree: Tree,
        writers: Writers,
        incidents: Arc<Incidents>,
        stop: Interrupt,
        options: &MountOptions,
    ) -> Server {
        Server {
            tree,
            writers,
            files: OpenFiles::default(),
            folders: Table::default(),
            incidents,
            stop,
            source: options.provenance.then(|| options.source.clone()),
            believe_for: options.believe_for,
            direct_io_from_bytes: options.direct_io_from_bytes,
            passthrough: AtomicBool::new(options.passthrough),
        }
    }

    fn failed(&self, action: &'static str, node: NodeId, error: &Error) -> Errno {
        self.incidents.note(action, node, error);
        errno(error)
    }

    fn find(&self, dir: NodeId, name: &OsStr) -> Result<(FileAttr, Generation)> {
        let node = self.tree.lookup(dir, name.as_bytes())?;
        self.tree.attributes(node)
    }

    /// How the kernel shall treat a file's pages.
    fn flags(&self, file: &OpenFile) -> FopenFlags {
        if self.writers.contains_key(&file.node.0) {
            // The whole and its parts are the same bytes: no two caches may hold them.
            return FopenFlags::FOPEN_DIRECT_IO;
        }
        let pages = if file.size_bytes >= self.direct_io_from_bytes {
            FopenFlags::FOPEN_DIRECT_IO
        } else {
            FopenFlags::FOPEN_KEEP_CACHE
        };
        pages | FopenFlags::FOPEN_NOFLUSH
    }

    /// Answers an open. Where one host file is the file, the kernel gets that.
    fn opened(&self, inode: INodeNo, file: &OpenFile, reply: ReplyOpen) {
        let backing = file.backing.get_or_init(|| {
            let writable = self.writers.contains_key(&file.node.0);
            if writable || !self.passthrough.load(Ordering::Relaxed) {
                return None;
            }
            let host = host_file(&file.disk, file.size_bytes)?;
            let backing = reply.open_backing(&host);
            if let Err(why) = &backing
                && why.kind() == std::io::ErrorKind::PermissionDenied
            {
                // It will be denied every time; the reads come to us instead.
                self.passthrough.store(false, Ordering::Relaxed);
            }
            backing.ok()
        });
        let handle = FileHandle(inode.0);
        match backing {
            Some(backing) => reply.opened_passthrough(handle, FopenFlags::FOPEN_NOFLUSH, backing),
            None => reply.opened(handle, self.flags(file)),
        }
    }

    /// Lists from `offset` on with `add`, which takes inode, offset after, entry kind and name,
    /// and says whether the answer is full.
    fn list(
        &self,
        handle: FileHandle,
        offset: u64,
        add: &mut dyn FnMut(Listed<'_>) -> Result<bool>,
    ) -> Result<(), Errno> {
        let Some(folder) = self.folders.find(handle.0) else { return Err(Errno::EBADF) };
        let mut folder = folder.lock().unwrap_or_else(PoisonError::into_inner);
        let node = folder.node;
        let mut told = 0u64;
        let filled = self.fill(&mut folder, offset, &mut told, add);
        let problems = folder.take_problems();
        problems.iter().for_each(|problem| self.incidents.note("list", node, problem));
        match filled {
            Ok(()) => Ok(()),
            Err(error) => {
                let number = self.failed("list", node, &error);
                // What was told counts; the next call comes back to the failure.
                if told > 0 { Ok(()) } else { Err(number) }
            }
        }
    }

    fn fill(
        &self,
        folder: &mut OpenFolder,
        offset: u64,
        told: &mut u64,
        add: &mut dyn FnMut(Listed<'_>) -> Result<bool>,
    ) -> Result<()> {
        let node = folder.node;
        if offset < AFTER_SELF {
            let entry = Listed { node, after: AFTER_SELF, kind: None, name: b"." };
            if add(entry)? {
                return Ok(());
            }
            *told += 1;
        }
        if offset < AFTER_PARENT {
            // A damaged `..` must not cost the listing.
            let parent = self.tree.parent(node).unwrap_or(node);
            let entry = Listed { node: parent, after: AFTER_PARENT, kind: None, name: b".." };
            if add(entry)? {
                return Ok(());
            }
            *told += 1;
        }
        folder.seek(offset);
        while let Some((entry, after)) = folder.peek(&self.tree, &self.stop)? {
            let name = entry.name.as_bytes();
            if add(Listed { node: entry.node, after, kind: Some(entry.kind), name })? {
                return Ok(());
            }
            folder.take();
            *told += 1;
        }
        folder.end(*told > 0)
    }

    /// Does something to a file that can be written, and answers.
    fn change(
        &self,
        action: &'static str,
        inode: INodeNo,
        reply: ReplyEmpty,
        change: impl FnOnce(&Writer) -> Result<()>,
    ) {
        let node = self.tree.node(inode);
        // What cannot be written has nothing to flush.
        let Some(writer) = self.writers.get(&node.0) else { return reply.ok() };
        match change(writer) {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(self.failed(action, node, &error)),
        }
    }

    fn answer_xattr(
        &self,
        value: Result<Option<Vec<u8>>>,
        node: NodeId,
        size: u32,
        reply: ReplyXattr,
    ) {
        match value {
            Err(error) => reply.error(self.failed("look at", node, &error)),
            Ok(None) => reply.error(Errno::NO_XATTR),
            Ok(Some(value)) => match u32::try_from(value.len()) {
                Ok(length) if size == 0 => reply.size(length),
                Ok(length) if length <= size => reply.data(&value),
                _ => reply.error(Errno::ERANGE),
            },
        }
    }
}

/// An entry on its way to the kernel; without a kind it is a directory.
struct Listed<'a> {
    node: NodeId,
    after: u64,
    kind: Option<adit_core::NodeKind>,
    name: &'a [u8],
}

impl Listed<'_> {
    fn kind(&self) -> adit_core::NodeKind {
        self.kind.unwrap_or(adit_core::NodeKind::Directory)
    }
}

impl Filesystem for Server {
    fn init(&mut self, _request: &Request, config: &mut KernelConfig) -> std::io::Result<()> {
        // Each setter refuses what this kernel cannot do; then it stays as it was.
        for wanted in WANTED {
            let _ = config.add_capabilities(wanted);
        }
        let _ = config.set_max_write(REQUEST_BYTES_MAX);
        if let Err(most) = config.set_max_readahead(REQUEST_BYTES_MAX) {
            let _ = config.set_max_readahead(most);
        }
        let _ = config.set_max_background(BACKGROUND_MAX);
        let passthrough = *self.passthrough.get_mut()
            && config.add_capabilities(InitFlags::FUSE_PASSTHROUGH).is_ok()
            && config.set_max_stack_depth(1).is_ok();
        *self.passthrough.get_mut() = passthrough;
        Ok(())
    }

    fn lookup(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let dir = self.tree.node(parent);
        match self.find(dir, name) {
            Ok((attributes, generation)) => reply.entry(&self.believe_for, &attributes, generation),
            Err(error) if error.kind() == adit_core::Kind::NotFound => {
                // Inode 0: there is no such name, and that may be believed as well.
                let none = self.tree.unknown(INodeNo(0), adit_core::NodeKind::File);
                reply.entry(&self.believe_for, &none, Generation(0));
            }
            Err(error) => reply.error(self.failed("look up", dir, &error)),
        }
    }

    fn getattr(
        &self,
        _request: &Request,
        inode: INodeNo,
        _handle: Option<FileHandle>,
        reply: ReplyAttr,
    ) {
        let node = self.tree.node(inode);
        match self.tree.attributes(node) {
            Ok((attributes, _)) => reply.attr(&self.believe_for, &attributes),
            Err(error) => reply.error(self.failed("look at", node, &error)),
        }
    }

    fn readlink(&self, _request: &Request, inode: INodeNo, reply: ReplyData) {
        let node = self.tree.node(inode);
        match self.tree.fs.read_link(node) {
            Ok(target) if target.len() > LINK_BYTES_MAX => reply.error(Errno::ENAMETOOLONG),
            // The kernel would cut it there in silence.
            Ok(target) if target.contains(&0) => {
                let error = Error::corrupt(adit_core::Problem::BadValue, "a link target holds NUL");
                reply.error(self.failed("read", node, &error));
            }
            Ok(target) => reply.data(&target),
            Err(error) => reply.error(self.failed("read", node, &error)),
        }
    }

    fn open(&self, _request: &Request, inode: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let node = self.tree.node(inode);
        if flags.acc_mode() != OpenAccMode::O_RDONLY && !self.writers.contains_key(&node.0) {
            return reply.error(Errno::EROFS);
        }
        let open = || OpenFile::open(self.tree.fs.as_ref(), node);
        match self.files.open(inode.0, open) {
            Ok(file) => self.opened(inode, &file, reply),
            Err(error) => reply.error(self.failed("open", node, &error)),
        }
    }

    fn read(
        &self,
        _request: &Request,
        _inode: INodeNo,
        handle: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let Some(file) = self.files.find(handle.0) else { return reply.error(Errno::EBADF) };
        // The kernel names the reader where the bytes go to it, and nobody where they go to the
        // page cache.
        let may_be_short = lock_owner.is_some();
        BUFFER.with_borrow_mut(|buffer| match file.read(buffer, offset, size, may_be_short) {
            Ok(bytes) => reply.data(bytes),
            Err(error) => reply.error(self.failed("read", file.node, &error)),
        });
    }

    fn lseek(
        &self,
        _request: &Request,
        _inode: INodeNo,
        handle: FileHandle,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        let Some(file) = self.files.find(handle.0) else { return reply.error(Errno::EBADF) };
        let wanted = match whence {
            SEEK_DATA => Wanted::Data,
            SEEK_HOLE => Wanted::Hole,
            _ => return reply.error(Errno::EINVAL),
        };
        let found = u64::try_from(offset)
            .ok()
            .and_then(|offset| seek(&file.disk, file.size_bytes, offset, wanted, &self.stop));
        match found.and_then(|found| i64::try_from(found).ok()) {
            Some(found) => reply.offset(found),
            None => reply.error(Errno::ENXIO),
        }
    }

    fn flush(
        &self,
        _request: &Request,
        inode: INodeNo,
        _handle: FileHandle,
        _owner: LockOwner,
        reply: ReplyEmpty,
    ) {
        if self.writers.is_empty() {
            // There is never anything to flush; after this the kernel does not ask again.
            return reply.error(Errno::ENOSYS);
        }
        self.change("flush", inode, reply, Writer::flush);
    }

    fn write(
        &self,
        _request: &Request,
        inode: INodeNo,
        _handle: FileHandle,
        offset: u64,
        data: &[u8],
        _write_flags: WriteFlags,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let node = self.tree.node(inode);
        let Some(writer) = self.writers.get(&node.0) else { return reply.error(Errno::EROFS) };
        match (writer.write(data, offset), u32::try_from(data.len())) {
            (Ok(()), Ok(length)) => reply.written(length),
            (Ok(()), Err(_)) => reply.error(Errno::EINVAL),
            // A disk does not grow.
            (Err(error), _) if error.kind() == adit_core::Kind::Invalid => {
                reply.error(Errno::ENOSPC);
            }
            (Err(error), _) => reply.error(self.failed("write", node, &error)),
        }
    }

    fn fsync(
        &self,
        _request: &Request,
        inode: INodeNo,
        _handle: FileHandle,
        _datasync: bool,
        reply: ReplyEmpty,
    ) {
        self.change("flush", inode, reply, Writer::flush);
    }

    fn fallocate(
        &self,
        _request: &Request,
        inode: INodeNo,
        _handle: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        // Punching holes and zeroing keep the size and give zeros; the rest means nothing here.
        const KEEP_SIZE: i32 = 1;
        const PUNCH_HOLE: i32 = 2;
        const ZERO_RANGE: i32 = 16;
        if mode & !(KEEP_SIZE | PUNCH_HOLE | ZERO_RANGE) != 0 || mode & !KEEP_SIZE == 0 {
            return reply.error(Errno::EOPNOTSUPP);
        }
        self.change("zero", inode, reply, |writer| writer.zero(offset, length));
    }

    fn setattr(
        &self,
        _request: &Request,
        inode: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        _atime: Option<TimeOrNow>,
        _mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _handle: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let node = self.tree.node(inode);
        if !self.writers.contains_key(&node.0) {
            return reply.error(Errno::EROFS);
        }
        match self.tree.attributes(node) {
            // Times are not kept. A disk keeps its size, and its owner is whoever mounted it.
            Ok((attributes, _)) => {
                let keeps_size = size.is_none_or(|size| size == attributes.size);
                if keeps_size && mode.is_none() && uid.is_none() && gid.is_none() {
                    reply.attr(&self.believe_for, &attributes);
                } else {
                    reply.error(Errno::EPERM);
                }
            }
            Err(error) => reply.error(self.failed("look at", node, &error)),
        }
    }

    fn release(
        &self,
        _request: &Request,
        _inode: INodeNo,
        handle: FileHandle,
        _flags: OpenFlags,
        _owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        self.files.release(handle.0);
        reply.ok();
    }

    fn opendir(&self, _request: &Request, inode: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        let handle = self.folders.insert(Mutex::new(OpenFolder::new(self.tree.node(inode))));
        let flags = FopenFlags::FOPEN_CACHE_DIR | FopenFlags::FOPEN_KEEP_CACHE;
        reply.opened(FileHandle(handle), flags);
    }

    fn readdir(
        &self,
        _request: &Request,
        _inode: INodeNo,
        handle: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let listed = self.list(handle, offset, &mut |entry| {
            let (inode, name) = (self.tree.inode(entry.node)?, OsStr::from_bytes(entry.name));
            Ok(reply.add(inode, entry.after, file_type(entry.kind()), name))
        });
        match listed {
            Ok(()) => reply.ok(),
            Err(number) => reply.error(number),
        }
    }

    fn readdirplus(
        &self,
        _request: &Request,
        _inode: INodeNo,
        handle: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        let listed = self.list(handle, offset, &mut |entry| {
            let (inode, name) = (self.tree.inode(entry.node)?, OsStr::from_bytes(entry.name));
            // Who cannot be looked at is listed all the same, and nothing about it believed:
            // whoever wants to know more asks again and gets the error.
            let (attributes, generation, believe_for) = match self.tree.attributes(entry.node) {
                Ok((attributes, generation)) => (attributes, generation, self.believe_for),
                Err(_) => {
                    let unknown = self.tree.unknown(inode, entry.kind());
                    (unknown, Generation(0), Duration::ZERO)
                }
            };
            Ok(reply.add(inode, entry.after, name, &believe_for, &attributes, generation))
        });
        match listed {
            Ok(()) => reply.ok(),
            Err(number) => reply.error(number),
        }
    }

    fn releasedir(
        &self,
        _request: &Request,
        _inode: INodeNo,
        handle: FileHandle,
        _flags: OpenFlags,
        reply: ReplyEmpty,
    ) {
        self.folders.remove(handle.0);
        reply.ok();
    }

    fn statfs(&self, _request: &Request, inode: INodeNo, reply: ReplyStatfs) {
        let space = match self.tree.fs.space() {
            Ok(space) => space,
            Err(error) => {
                return reply.error(self.failed("look at", self.tree.node(inode), &error));
            }
        };
        let size = u32::try_from(space.block_size_bytes).unwrap_or(512).max(1);
        let blocks = |bytes: u64| bytes / u64::from(size);
        let (total, free) = (blocks(space.total_bytes), blocks(space.free_bytes));
        reply.statfs(total, free, free, space.nodes_total, space.nodes_free, size, 255, size);
    }

    fn getxattr(
        &self,
        _request: &Request,
        inode: INodeNo,
        name: &OsStr,
        size: u32,
        reply: ReplyXattr,
    ) {
        let node = self.tree.node(inode);
        if name == SERVER_ATTRIBUTE {
            // Who unmounts waits for us; the source has no part in it.
            let number = std::process::id().to_string().into_bytes();
            return self.answer_xattr(Ok(Some(number)), node, size, reply);
        }
        let value = xattrs::one(&self.tree, node, name.as_bytes(), self.source.as_deref());
        self.answer_xattr(value, node, size, reply);
    }

    fn listxattr(&self, _request: &Request, inode: INodeNo, size: u32, reply: ReplyXattr) {
        let node = self.tree.node(inode);
        let all = xattrs::all(&self.tree, node, self.source.as_deref());
        let names = all.map(|xattrs| Some(xattrs::names(&xattrs)));
        self.answer_xattr(names, node, size, reply);
    }

    fn access(&self, _request: &Request, _inode: INodeNo, _mask: AccessFlags, reply: ReplyEmpty) {
        // Where permissions matter the kernel checks them itself; it need not ask again.
        reply.error(Errno::ENOSYS);
    }
}
