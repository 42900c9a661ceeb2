//! A finished volume, and where things are in it.

use crate::store::Store;

use super::make::Maker;
use super::tree::{Node, Paths, find, paths};

/// A volume that was written, with a map of what is where.
#[derive(Debug)]
pub struct Image<S> {
    pub(crate) maker: Maker<S>,
    pub(crate) nodes: Vec<Node>,
    paths: Paths,
}

impl<S: Store> Image<S> {
    pub(crate) fn new(maker: Maker<S>, nodes: Vec<Node>) -> Self {
        let paths = paths(&nodes);
        Self { maker, nodes, paths }
    }

    /// The devices, in order.
    pub fn stores(&self) -> &[S] {
        &self.maker.volume.stores
    }

    /// The devices, in order.
    pub fn into_stores(self) -> Vec<S> {
        self.maker.volume.stores
    }

    /// The only device.
    pub fn into_store(self) -> S {
        let mut stores = self.into_stores();
        assert_eq!(stores.len(), 1, "the volume has several devices");
        stores.remove(0)
    }

    /// Size of the volume on its devices. Units: bytes.
    pub fn volume_bytes(&self) -> u64 {
        self.maker.volume.runs.iter().map(|run| run.length).sum()
    }

    pub(crate) fn node(&self, path: &str) -> &Node {
        let found = find(&self.paths, path.as_bytes());
        &self.nodes[found.unwrap_or_else(|| panic!("there is no {path}"))]
    }

    /// FD address and generation of a path.
    pub fn fd_address(&self, path: &str) -> (u32, u32) {
        let fd = &self.node(path).fd;
        (fd.address as u32, fd.generation as u32)
    }

    /// Volume offset of a path's FD. Units: bytes.
    pub fn fd_at(&self, path: &str) -> u64 {
        self.node(path).fd_at
    }

    /// Volume offset of a byte of a file, or `None` in a hole. Units: bytes.
    pub fn data_at(&self, path: &str, offset: u64) -> Option<u64> {
        self.locate(self.node(path), offset)
    }

    pub(crate) fn locate(&self, node: &Node, offset: u64) -> Option<u64> {
        if let Some(resident) = node.stored.resident {
            return Some(node.fd_at + resident + offset);
        }
        let unit = node.stored.unit.max(1);
        let place = node.stored.places.get(&(offset / unit))?;
        Some(self.maker.in_volume(*place, offset, unit))
    }

    /// Device and offset on it of a volume offset. Units: bytes.
    pub fn on_device(&self, volume_offset: u64) -> (usize, u64) {
        let (device, at, _) = self.maker.volume.place(volume_offset);
        (device, at)
    }

    /// Reads from the volume. Units: bytes.
    pub fn read(&self, volume_offset: u64, length: usize) -> Vec<u8> {
        self.maker.volume.read(volume_offset, length)
    }

    /// Writes into the volume, for damage of a test's own. Units: bytes.
    pub fn write(&mut self, volume_offset: u64, bytes: &[u8]) {
        self.maker.volume.write(volume_offset, bytes);
    }

    /// Writes onto a device, for damage to the volume manager. Units: bytes.
    pub fn write_device(&mut self, device: usize, offset: u64, bytes: &[u8]) {
        self.maker.volume.stores[device].write_at(offset, bytes);
    }
}
