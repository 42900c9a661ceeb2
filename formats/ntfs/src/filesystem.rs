//! The file system as everything else sees it.

use crate::layout::{dos, kind, record, tag};
use crate::names::{from_bytes, to_bytes, to_text};
use crate::node::Node;
use crate::ntfs::Ntfs;
use crate::record::{FileName, place};
use crate::stream::Stream;
use crate::wof::{self, Provider, WofMap};
use adit_core::bytes::wide;
use adit_core::{
    Cursor, Detail, DirPage, Disk, Error, FileSystem, Finding, Fork, Identity, Mapped, Metadata,
    Name, NodeId, NodeKind, Problem, Result, Space, Xattr,
};
use std::cmp::Ordering;
use std::sync::Arc;

impl FileSystem for Ntfs {
    fn identity(&self) -> Identity {
        self.identity_of()
    }

    fn notes(&self) -> Vec<Finding> {
        // Reading the state may leave notes of its own.
        let state = self.state_notes();
        let mut notes = self.reading_notes();
        notes.extend_from_slice(state);
        notes
    }

    fn root(&self) -> NodeId {
        NodeId(self.root_reference())
    }

    fn lookup(&self, dir: NodeId, name: &Name) -> Result<NodeId> {
        let directory = self.directory(dir)?;
        if name.as_bytes() == b"." {
            return Ok(NodeId(directory.node.reference()));
        }
        if name.is_dots() {
            return self.parent(&directory.node);
        }
        let found = directory.find(self, name)?;
        // A free record, or one given to another file since, would show foreign data.
        let node = self.node(found).map_err(|error| {
            let number = directory.node.record.number;
            error.at(place(number).field(format!("entry {name:?}")))
        })?;
        Ok(NodeId(node.reference()))
    }

    fn read_dir(&self, dir: NodeId, from: Cursor) -> Result<DirPage> {
        Ok(self.directory(dir)?.page(self, from))
    }

    fn metadata(&self, node: NodeId) -> Result<Metadata> {
        let node = self.node(node.0)?;
        let kind = self.kind(&node)?;
        let standard = self.standard(&node)?.unwrap_or_default();
        let data = self.parts_where(&node, kind::DATA, true);
        let main = data.attributes.iter().find(|own| own.name.is_empty());
        if let (None, Some(error)) = (main, data.errors.into_iter().next()) {
            return Err(error);
        }
        let (mut size_bytes, mut allocated_bytes) = main.map_or((0, 0), |own| own.sizes());
        match kind {
            NodeKind::Symlink => size_bytes = wide(self.link_target(&node)?.len()),
            NodeKind::Directory => (size_bytes, allocated_bytes) = self.index_sizes(&node),
            _ => {}
        }
        let read_only = standard.attributes & dos::READ_ONLY != 0;
        let mode = match kind {
            // On a directory Windows uses the attribute for something else.
            NodeKind::Directory => 0o755,
            NodeKind::Symlink => 0o777,
            _ if read_only => 0o444,
            _ => 0o644,
        };
        let names = self.file_names(&node).into_iter().flatten().filter(|name| !name.is_dos());
        Ok(Metadata {
            node: NodeId(node.reference()),
            kind,
            size_bytes,
            allocated_bytes,
            block_size_bytes: self.boot().cluster_bytes,
            links: u32::try_from(names.count()).unwrap_or(u32::MAX),
            mode,
            uid: 0,
            gid: 0,
            modified: standard.modified,
            changed: standard.changed,
            accessed: standard.accessed,
            created: standard.created,
            generation: node.record.raw.sequence.into(),
        })
    }

    fn read_link(&self, link: NodeId) -> Result<Vec<u8>> {
        self.link_target(&self.node(link.0)?)
    }

    fn open(&self, file: NodeId, fork: &Fork) -> Result<Arc<dyn Disk>> {
        let node = self.node(file.0)?;
        match fork {
            Fork::Data => self.open_main(&node),
            Fork::Named(name) => self.open_named(&node, name),
        }
    }

    fn xattrs(&self, node: NodeId) -> Result<Vec<Xattr>> {
        self.xattrs_of(&self.node(node.0)?)
    }

    fn details(&self, node: NodeId) -> Result<Vec<Detail>> {
        self.details_of(&self.node(node.0)?)
    }

    fn space(&self) -> Result<Space> {
        self.space_of()
    }
}

impl Ntfs {
    /// The names of a file, and what of them cannot be read.
    pub fn file_names(&self, node: &Node) -> Vec<Result<FileName>> {
        let parts = self.parts(node, kind::FILE_NAME);
        let names = parts.attributes.iter().map(|own| own.value().and_then(FileName::parse));
        names.chain(parts.errors.into_iter().map(Err)).collect()
    }

    fn parent(&self, node: &Node) -> Result<NodeId> {
        if node.record.number == record::ROOT {
            return Ok(NodeId(node.reference()));
        }
        let name = self.file_names(node).into_iter().flatten().next();
        let name = name.ok_or_else(|| {
            let detail = "the directory has no name, so its parent is not known";
            Error::corrupt(Problem::Missing, detail).at(place(node.record.number))
        })?;
        Ok(NodeId(self.node(name.raw.parent)?.reference()))
    }

    /// Size and allocated size of a directory's blocks.
    fn index_sizes(&self, node: &Node) -> (u64, u64) {
        let parts = self.parts_where(node, kind::INDEX_ALLOCATION, true);
        parts.attributes.first().map_or((0, 0), |own| own.sizes())
    }

    fn open_main(&self, node: &Node) -> Result<Arc<dyn Disk>> {
        let number = node.record.number;
        match self.kind(node)? {
            NodeKind::File | NodeKind::System => {}
            NodeKind::Directory => {
                let detail = format!("MFT record {number} is a directory");
                return Err(Error::invalid(Problem::BadValue, detail).at(place(number)));
            }
            other => {
                let detail = format!("MFT record {number} is a {}: it has no bytes", other.word());
                return Err(Error::unsupported(detail).at(place(number)));
            }
        }
        let stream = self.stream(node, kind::DATA, &[])?.ok_or_else(|| {
            let streams = self.stream_names(node, kind::DATA);
            let names: Vec<String> = streams.iter().map(|name| to_text(name)).collect();
            let error = Error::not_found(format!("MFT record {number} has no main stream"));
            match names.as_slice() {
                [] => error,
                names => error.advise(format!("its streams are: {}", names.join(", "))),
            }
            .at(place(number))
        })?;
        if let Some(reparse) = self.reparse(node)? {
            if reparse.tag == tag::WOF {
                let provider = Provider::parse(&reparse.data);
                let provider = provider.map_err(|error| error.at(place(number)))?;
                return self.open_wof(node, stream.size_bytes, provider);
            }
            self.refuse_elsewhere(node, &stream, reparse.tag)?;
        }
        self.readable(stream, &format!("file {number}"))
    }

    /// Files that only stand for bytes another filter keeps must not read as zeros.
    fn refuse_elsewhere(&self, node: &Node, stream: &Stream, tag: u32) -> Result<()> {
        let attributes = self.standard(node)?.map_or(0, |standard| standard.attributes);
        let away = dos::OFFLINE | dos::RECALL_ON_OPEN | dos::RECALL_ON_DATA_ACCESS;
        if tag != tag::DEDUP && attributes & away == 0 && !stream.has_holes() {
            return Ok(());
        }
        let what = tag::word(tag);
        let detail = format!(
            "the bytes of MFT record {} are kept by {what} (reparse tag {tag:#010x})",
            node.record.number
        );
        Err(Error::unsupported(detail)
            .at(place(node.record.number).field("$REPARSE_POINT"))
            .advise("read the file in Windows, where that filter is installed"))
    }

    fn open_wof(&self, node: &Node, size: u64, provider: Provider) -> Result<Arc<dyn Disk>> {
        let number = node.record.number;
        let name: Vec<u16> = wof::STREAM.encode_utf16().collect();
        let stream = self.stream(node, kind::DATA, &name)?.ok_or_else(|| {
            let detail = format!("the file has no stream {}", wof::STREAM);
            Error::corrupt(Problem::Missing, detail).at(place(number))
        })?;
        // Each chunk has a table entry on disk; without this bound a hole could promise any number.
        if stream.size_bytes > self.held_bytes() {
            let detail = format!(
                "{} has {} bytes, more than the volume holds",
                wof::STREAM,
                stream.size_bytes
            );
            return Err(Error::corrupt(Problem::OutOfRange, detail).at(place(number)));
        }
        let stored = self.readable(stream, wof::STREAM)?;
        let name = format!("NTFS compact file {number}");
        let map =
            WofMap::new(name, stored, size, provider).map_err(|error| error.at(place(number)))?;
        Ok(Arc::new(Mapped::new(map)))
    }

    fn open_named(&self, node: &Node, name: &Name) -> Result<Arc<dyn Disk>> {
        let wanted = from_bytes(name.as_bytes()).unwrap_or_default();
        let names = self.stream_names(node, kind::DATA);
        let exact = names.iter().find(|own| **own == wanted);
        let alike =
            || names.iter().find(|own| self.upcase().fold_cmp(own, &wanted) == Ordering::Equal);
        let missing = || {
            let error = Error::not_found(format!("there is no stream {name}"));
            let shown: Vec<_> = names.iter().filter(|name| !name.is_empty()).collect();
            if shown.is_empty() {
                return error.advise("the file has no named streams");
            }
            let shown: Vec<_> = shown
                .into_iter()
                .map(|name| String::from_utf8_lossy(&to_bytes(name)).into_owned())
                .collect();
            error.advise(format!("its streams are: {}", shown.join(", ")))
        };
        let found = exact.or_else(alike).filter(|_| !wanted.is_empty()).ok_or_else(missing)?;
        let stream = self.stream(node, kind::DATA, found)?.ok_or_else(missing)?;
        self.readable(stream, &format!("stream {name}"))
    }

    /// A stream as a disk, unless its bytes mean nothing without a key.
    fn readable(&self, stream: Stream, what: &str) -> Result<Arc<dyn Disk>> {
        if stream.is_encrypted() {
            let detail = "the stream is encrypted (EFS)";
            return Err(Error::unsupported(detail)
                .at(stream.place())
                .advise("decrypt it in Windows as its owner (`cipher /d`), or copy it there"));
        }
        Ok(self.disk(stream, what))
    }
}
