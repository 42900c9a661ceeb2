//! A tree as a POSIX archive, streamed.
//!
//! Names that ustar cannot hold, times with fractions, large numbers, attributes, ACLs and
//! sparse files stand in pax records; names of one node are hard links. Small files are read
//! ahead by several threads. A file whose bytes cannot be had is never filled with zeros: it is
//! left out and reported, or ends the archive without its end marker.

mod attributes;
mod header;
mod sparse;

use crate::pool::in_order;
use crate::walk::{Found, Go, Step, Tree, walk};
use adit_core::{
    Disk, DiskExt, Error, Fork, Interrupt, Kind, Limits, NodeId, NodeKind, Problem, Progress,
    Result, Xattr,
};
use header::{BLOCK_BYTES, Member, Records, Type};
use sparse::Segment;
use std::collections::{HashMap, HashSet};
use std::io::Write;
use std::sync::Arc;

/// Files with no more data than this are read ahead. Unit: bytes.
const SMALL_BYTES_MAX: u64 = 256 << 10;
/// How many nodes are read ahead.
const WINDOW: usize = 64;
/// How much of a large file is read at once. Unit: bytes.
const PART_BYTES: u64 = 1 << 20;
/// Archives end at a multiple of this, as every tar writes them. Unit: bytes.
const RECORD_BYTES: u64 = 20 * BLOCK_BYTES as u64;

/// How an archive is made.
#[derive(Clone, Debug, Default)]
pub struct TarOptions {
    /// Read every file to its end before it is begun, so that none fails midway.
    pub keep_going: bool,
    /// Name of the member, where the tree is a single file.
    pub name: Vec<u8>,
    /// Bounds.
    pub limits: Limits,
}

/// Something that is not in the archive, or not whole.
#[derive(Clone, Debug)]
pub struct LeftOut {
    /// Its path.
    pub path: Vec<u8>,
    /// Why.
    pub reason: Error,
    /// Whether it should be there. What has no bytes (sockets, raw device mappings, files of the
    /// file system's own) is left out on purpose.
    pub failed: bool,
}

/// What became of an archive.
#[derive(Clone, Debug, Default)]
pub struct TarReport {
    /// Members written.
    pub members: u64,
    /// Bytes of files written. Unit: bytes.
    pub data_bytes: u64,
    /// Length of the archive. Unit: bytes.
    pub archive_bytes: u64,
    /// What is not in it.
    pub left_out: Vec<LeftOut>,
}

impl TarReport {
    /// Whether something that should be in the archive is not.
    pub fn partial(&self) -> bool {
        self.left_out.iter().any(|left| left.failed)
    }
}

/// Writes a tree as one archive. Members are called `./PATH`, the start is `./`.
///
/// Errors: those of `out` (`Unwritable`); of a file that fails after it was begun, with the
/// archive cut off there; `Interrupted`. What fails earlier is left out and in the report.
pub fn tar(
    tree: &Tree,
    out: &mut dyn Write,
    options: &TarOptions,
    progress: &dyn Progress,
    interrupt: &Interrupt,
) -> Result<TarReport> {
    let reader = Reader { tree, options, interrupt };
    let mut links = HashMap::new();
    let mut writer = Writer {
        out,
        at: 0,
        progress,
        interrupt,
        report: TarReport::default(),
        missing: HashSet::new(),
        total: 0,
    };
    in_order(
        WINDOW,
        |job| reader.prepare(job),
        &mut |prepared| writer.take(prepared),
        |push| {
            walk(tree, &options.limits, interrupt, &mut |step| {
                let (path, job) = match step {
                    Step::Problem(path, error) => (path, Job::Problem(error)),
                    Step::Node(found) => {
                        let m = &found.metadata;
                        let path = found.path.clone();
                        let linked = m.links > 1 && m.kind != NodeKind::Directory;
                        let first = linked.then(|| links.get(&found.node).cloned()).flatten();
                        if linked && first.is_none() {
                            links.insert(found.node, path.clone());
                        }
                        (path, Job::Node(Box::new(found), first))
                    }
                };
                push((path, job)).map(|()| Go::In)
            })
        },
    )?;
    writer.end()?;
    Ok(writer.report)
}

enum Job {
    Problem(Error),
    Node(Box<Found>, Option<Vec<u8>>),
}

/// What is ready to be written.
enum Prepared {
    LeftOut(Option<NodeId>, LeftOut),
    Member { found: Box<Found>, member: Box<Member>, xattrs: Result<Vec<Xattr>>, body: Body },
}

enum Body {
    Nothing,
    /// A name of a node that has another name in the archive.
    Link,
    Bytes {
        size_bytes: u64,
        segments: Vec<Segment>,
        bytes: Vec<u8>,
    },
    Disk {
        segments: Vec<Segment>,
        disk: Arc<dyn Disk>,
    },
}

impl Body {
    fn segments(&self) -> &[Segment] {
        match self {
            Body::Nothing | Body::Link => &[],
            Body::Bytes { segments, .. } | Body::Disk { segments, .. } => segments,
        }
    }
}

struct Reader<'a> {
    tree: &'a Tree,
    options: &'a TarOptions,
    interrupt: &'a Interrupt,
}

impl Reader<'_> {
    fn prepare(&self, (path, job): (Vec<u8>, Job)) -> Prepared {
        match job {
            Job::Problem(reason) => Prepared::LeftOut(None, LeftOut { path, reason, failed: true }),
            Job::Node(found, first) => {
                let node = found.node;
                self.member(*found, first).unwrap_or_else(|(reason, failed)| {
                    Prepared::LeftOut(Some(node), LeftOut { path, reason, failed })
                })
            }
        }
    }

    fn member(&self, found: Found, first: Option<Vec<u8>>) -> Result<Prepared, (Error, bool)> {
        let failed = |error| (error, true);
        let on_purpose = |what: &str| Err((Error::unsupported(what), false));
        let (fs, m) = (&self.tree.fs, &found.metadata);
        let kind = match m.kind {
            NodeKind::File => Type::File,
            NodeKind::Directory => Type::Directory,
            NodeKind::Symlink => Type::Symlink,
            NodeKind::CharDevice => Type::CharDevice,
            NodeKind::BlockDevice => Type::BlockDevice,
            NodeKind::Fifo => Type::Fifo,
            NodeKind::Socket => return on_purpose("a socket has no place in an archive"),
            NodeKind::System => return on_purpose("a file of the file system's own"),
            NodeKind::RawDevice => {
                return on_purpose("a raw device mapping stands for another device");
            }
        };
        let mut member = Member {
            name: self.name(&found.path, m.kind),
            kind,
            mode: m.mode,
            uid: m.uid,
            gid: m.gid,
            size_bytes: 0,
            modified: m.modified,
            link: Vec::new(),
            device: (0, 0),
        };
        let mut body = Body::Nothing;
        if let Some(first) = first {
            (member.kind, member.link) = (Type::HardLink, self.name(&first, NodeKind::File));
            let xattrs = Ok(Vec::new());
            return Ok(Prepared::Member {
                found: Box::new(found),
                member: Box::new(member),
                xattrs,
                body: Body::Link,
            });
        }
        match m.kind {
            NodeKind::File => body = self.body(found.node).map_err(failed)?,
            NodeKind::Symlink => member.link = fs.read_link(found.node).map_err(failed)?,
            NodeKind::CharDevice | NodeKind::BlockDevice => {
                let numbers = crate::device(&**fs, found.node).map_err(failed)?;
                let numbers = numbers.filter(|(major, minor)| {
                    *major <= header::octal_max(8) && *minor <= header::octal_max(8)
                });
                member.device = numbers.ok_or_else(|| {
                    failed(Error::unsupported(
                        "the numbers of the device are not known, or too large",
                    ))
                })?;
            }
            _ => {}
        }
        if member.link.contains(&0) || (m.kind == NodeKind::Symlink && member.link.is_empty()) {
            let detail = "the link leads nowhere";
            return Err(failed(Error::corrupt(Problem::BadValue, detail)));
        }
        let xattrs = fs.xattrs(found.node);
        Ok(Prepared::Member { found: Box::new(found), member: Box::new(member), xattrs, body })
    }

    fn name(&self, path: &[u8], kind: NodeKind) -> Vec<u8> {
        if path.is_empty() && kind != NodeKind::Directory {
            return self.options.name.clone();
        }
        let mut name = [b"./", path].concat();
        if kind == NodeKind::Directory && !path.is_empty() {
            name.push(b'/');
        }
        name
    }

    fn body(&self, file: NodeId) -> Result<Body> {
        let disk = self.tree.fs.open(file, &Fork::Data)?;
        let segments = sparse::segments(&disk, self.interrupt)?;
        if sparse::data_bytes(&segments) <= SMALL_BYTES_MAX {
            let mut bytes = Vec::new();
            for segment in &segments {
                bytes.extend_from_slice(&disk.read_vec(segment.offset, narrow(segment.length))?);
            }
            return Ok(Body::Bytes { size_bytes: disk.size_bytes(), segments, bytes });
        }
        if self.options.keep_going {
            let mut buffer = vec![0; narrow(PART_BYTES)];
            each_part(&disk, &segments, &mut buffer, self.interrupt, &mut |_| Ok(()))?;
        }
        Ok(Body::Disk { segments, disk })
    }
}

/// Reads the data of a file, part by part.
fn each_part(
    disk: &Arc<dyn Disk>,
    segments: &[Segment],
    buffer: &mut [u8],
    interrupt: &Interrupt,
    take: &mut dyn FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    for segment in segments {
        let end = segment.offset + segment.length;
        let mut at = segment.offset;
        while at < end {
            interrupt.check()?;
            let part = &mut buffer[..narrow((end - at).min(PART_BYTES))];
            disk.read_at(part, at)?;
            take(part)?;
            at += part.len() as u64;
        }
    }
    Ok(())
}

fn narrow(length: u64) -> usize {
    // Parts and small files are bounded far below this.
    usize::try_from(length).unwrap_or(usize::MAX)
}

struct Writer<'a> {
    out: &'a mut dyn Write,
    /// Length of the archive so far. Unit: bytes.
    at: u64,
    progress: &'a dyn Progress,
    interrupt: &'a Interrupt,
    report: TarReport,
    /// Nodes that are not in the archive, so that no link leads to them.
    missing: HashSet<NodeId>,
    total: u64,
}

impl Writer<'_> {
    fn take(&mut self, prepared: Prepared) -> Result<()> {
        match prepared {
            Prepared::LeftOut(_, left) if left.reason.kind() == Kind::Interrupted => {
                Err(left.reason)
            }
            Prepared::LeftOut(node, left) => {
                self.missing.extend(node);
                self.report.left_out.push(left);
                Ok(())
            }
            Prepared::Member { found, body: Body::Link, .. }
                if self.missing.contains(&found.node) =>
            {
                let reason = Error::lost("another name of a file that could not be read");
                self.report.left_out.push(LeftOut { path: found.path, reason, failed: true });
                Ok(())
            }
            Prepared::Member { found, member, xattrs, body } => {
                self.member(&found, *member, xattrs, body)
            }
        }
    }

    fn member(
        &mut self,
        found: &Found,
        mut member: Member,
        xattrs: Result<Vec<Xattr>>,
        body: Body,
    ) -> Result<()> {
        let mut records = Records::default();
        match xattrs {
            Ok(xattrs) => attributes::put(&mut records, &xattrs),
            Err(reason) => {
                let path = found.path.clone();
                self.report.left_out.push(LeftOut { path, reason, failed: true });
            }
        }
        let size = match &body {
            Body::Disk { disk, .. } => disk.size_bytes(),
            Body::Bytes { size_bytes, .. } => *size_bytes,
            Body::Nothing | Body::Link => 0,
        };
        let data = sparse::data_bytes(body.segments());
        let mut map = Vec::new();
        if sparse::is_sparse(body.segments(), size) {
            map = sparse::map(body.segments(), size);
            records.put(b"GNU.sparse.major", b"1");
            records.put(b"GNU.sparse.minor", b"0");
            records.put(b"GNU.sparse.name", &member.name);
            records.put(b"GNU.sparse.realsize", size.to_string().as_bytes());
            // What a reader that knows nothing of this calls the map and its data.
            let cut = member.name.iter().rposition(|&byte| byte == b'/').map_or(0, |at| at + 1);
            member.name = [&member.name[..cut], b"GNUSparseFile.0/", &member.name[cut..]].concat();
        }
        member.size_bytes = data + map.len() as u64;
        self.total += data;
        self.progress.total(self.total);
        self.progress.subject(&crate::walk::shown(&found.path));
        self.put(&header::blocks(&member, records))?;
        self.put(&map)?;
        self.body(body).map_err(|error| match error.kind() {
            Kind::Interrupted => error,
            _ if error.problem() == Problem::Unwritable => error,
            _ => error
                .in_layer(crate::walk::shown(&found.path))
                .advise_also("the archive ends in the middle of this file; `--keep-going` reads every file before it is begun, and leaves out what cannot be read"),
        })?;
        self.pad(BLOCK_BYTES as u64)?;
        self.report.members += 1;
        self.report.data_bytes += data;
        Ok(())
    }

    fn body(&mut self, body: Body) -> Result<()> {
        match body {
            Body::Nothing | Body::Link => Ok(()),
            Body::Bytes { bytes, .. } => {
                self.put(&bytes)?;
                self.progress.advance(bytes.len() as u64);
                Ok(())
            }
            Body::Disk { segments, disk } => {
                let mut buffer = vec![0; narrow(PART_BYTES)];
                let (progress, interrupt) = (self.progress, self.interrupt);
                each_part(&disk, &segments, &mut buffer, interrupt, &mut |part| {
                    self.put(part)?;
                    progress.advance(part.len() as u64);
                    Ok(())
                })
            }
        }
    }

    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.at += bytes.len() as u64;
        self.out.write_all(bytes).map_err(|error| unwritable(&error))
    }

    fn pad(&mut self, grid: u64) -> Result<()> {
        let left = self.at.next_multiple_of(grid) - self.at;
        self.put(&vec![0; narrow(left)])
    }

    /// The end marker: without it a reader knows that the archive was cut off.
    fn end(&mut self) -> Result<()> {
        self.put(&[0; 2 * BLOCK_BYTES])?;
        self.pad(RECORD_BYTES)?;
        self.report.archive_bytes = self.at;
        self.out.flush().map_err(|error| unwritable(&error))
    }
}

fn unwritable(error: &std::io::Error) -> Error {
    Error::io(Problem::Unwritable, "writing the archive", error)
}
