//! System files: finding them from the superblock alone, and reading what they hold.
//!
//! A resource file is reached through its own FD, whose pointers may stand in another resource
//! file. Ranks keep that order free of circles: `.pb2.sf`, `.pbc.sf`, `.sbc.sf`, the rest.

use crate::address::FdAddress;
use crate::descriptor::{FileDescriptor, FileType};
use crate::layout::ResourceHeaderRaw;
use crate::resource::{ResourceFile, ResourceHeader, ResourceKind};
use crate::superblock::Version;
use crate::vmfs::Vmfs;
use adit_core::bytes::{narrow, wide};
use adit_core::{Error, Place, Problem, Result, RunKind};
use std::sync::Arc;

impl Vmfs {
    /// A resource file, opened now if it was not yet.
    ///
    /// Errors: `Corrupt` where its FD or header is damaged; `Unsupported` where this version
    /// has none.
    pub fn resource(&self, kind: ResourceKind) -> Result<&ResourceFile> {
        let slot = ResourceKind::ALL
            .iter()
            .zip(self.resources())
            .find_map(|(known, slot)| (*known == kind).then_some(slot));
        let Some(slot) = slot else {
            return Err(Error::invalid(Problem::Missing, "no such resource file"));
        };
        if let Some(file) = slot.get() {
            return Ok(file);
        }
        let file = self.open_resource(kind)?;
        // Two threads may open it at once; both get the same.
        Ok(slot.get_or_init(|| file))
    }

    fn open_resource(&self, kind: ResourceKind) -> Result<ResourceFile> {
        if !kind.exists_in(self.superblock().version) {
            let version = self.superblock().version.number();
            return Err(Error::unsupported(format!("VMFS{version} has no {}", kind.file_name())));
        }
        let entry_size = self.superblock().entry_size();
        if kind == ResourceKind::FileBlocks && self.superblock().version == Version::Vmfs6 {
            let parent = self.resource(ResourceKind::LargeBlocks)?;
            let header_offset = u64::from(parent.header.raw.child_offset);
            let header = self.resource_header(&parent.descriptor, kind, header_offset)?;
            return Ok(ResourceFile {
                kind,
                descriptor: Arc::clone(&parent.descriptor),
                header,
                header_offset,
                parent: Some(parent.header.clone()),
                entry_size,
            });
        }
        let descriptor = Arc::new(self.system_descriptor(kind)?);
        let header = self.resource_header(&descriptor, kind, 0)?;
        Ok(ResourceFile { kind, descriptor, header, header_offset: 0, parent: None, entry_size })
    }

    fn resource_header(
        &self,
        descriptor: &FileDescriptor,
        kind: ResourceKind,
        offset: u64,
    ) -> Result<ResourceHeader> {
        let mut bytes = [0; ResourceHeaderRaw::SIZE];
        self.read_data(descriptor, offset, &mut bytes)?;
        let raw = ResourceHeaderRaw::read(&bytes)?;
        ResourceHeader::parse(raw, kind, self.superblock(), self.limits())
    }

    /// The FD of a resource file, found from the superblock alone.
    fn system_descriptor(&self, kind: ResourceKind) -> Result<FileDescriptor> {
        let superblock = self.superblock();
        let address = kind.descriptor();
        let computed = u64::from(kind.item())
            .saturating_mul(superblock.fd_size())
            .saturating_add(superblock.first_fd_offset);
        let hint = match kind {
            ResourceKind::PointerBlocks2 => superblock.raw.pb2_fd_offset,
            _ => 0,
        };
        let at = |offset| self.system_descriptor_at(address, kind, offset);
        at(computed).or_else(|error| if hint == 0 { Err(error) } else { at(hint).or(Err(error)) })
    }

    fn system_descriptor_at(
        &self,
        address: FdAddress,
        kind: ResourceKind,
        offset: u64,
    ) -> Result<FileDescriptor> {
        let mut fd = self.descriptor_at(address, offset)?;
        if fd.file_type != FileType::System {
            let detail = format!("{} has file type {}", kind.file_name(), fd.raw.file_type);
            return Err(Error::corrupt(Problem::BadValue, detail)
                .at(Place::new(format!("FD {address}")).byte(offset)));
        }
        fd.rank = kind.rank();
        Ok(fd)
    }

    /// Volume offset of byte `offset` of a resource file, and how many bytes from there on
    /// stand side by side (at least one; looked for up to `at_most`).
    ///
    /// Errors: `Corrupt` where the file has a hole there.
    pub fn resource_run(
        &self,
        kind: ResourceKind,
        offset: u64,
        at_most: u64,
    ) -> Result<(u64, u64)> {
        let file = self.resource(kind)?;
        self.stored_run(&file.descriptor, offset, at_most)
    }

    fn stored_run(&self, fd: &FileDescriptor, offset: u64, at_most: u64) -> Result<(u64, u64)> {
        let run = self.run_of(fd, offset, at_most)?;
        match run.kind {
            RunKind::Stored { offset, .. } => Ok((offset, run.length)),
            RunKind::Lost(error) => Err(error),
            _ => {
                let detail = format!("metadata at byte {offset:#x} of the file is a hole");
                Err(Error::corrupt(Problem::Missing, detail).at(Place::new(format!(
                    "FD {}",
                    fd.address
                ))
                .byte(fd.offset)))
            }
        }
    }

    /// Fills `buf` from byte `offset` of a resource file.
    ///
    /// Errors: `Corrupt` where the file has a hole there.
    pub fn read_resource(&self, kind: ResourceKind, offset: u64, buf: &mut [u8]) -> Result<()> {
        let file = self.resource(kind)?;
        self.read_data(&file.descriptor, offset, buf)
    }

    fn read_data(&self, fd: &FileDescriptor, offset: u64, buf: &mut [u8]) -> Result<()> {
        let (mut rest, mut at) = (buf, offset);
        while !rest.is_empty() {
            let wanted = wide(rest.len());
            let (start, length) = self.stored_run(fd, at, wanted)?;
            let length = length.min(wanted);
            let (now, later) = rest.split_at_mut(narrow(length).unwrap_or(0).min(rest.len()));
            self.volume().read_at(now, start)?;
            at = at.saturating_add(length);
            rest = later;
        }
        Ok(())
    }
}
