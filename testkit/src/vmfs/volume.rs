//! The volume as one run of bytes over its devices.

use crate::store::Store;

use super::lvm::Run;

/// Volume offsets turned into device offsets.
#[derive(Debug)]
pub(crate) struct Volume<S> {
    pub stores: Vec<S>,
    pub runs: Vec<Run>,
}

impl<S: Store> Volume<S> {
    pub(crate) fn write(&mut self, offset: u64, bytes: &[u8]) {
        let mut done = 0;
        while done < bytes.len() {
            let (device, at, room) = self.place(offset + done as u64);
            let part = room.min((bytes.len() - done) as u64) as usize;
            self.stores[device].write_at(at, &bytes[done..done + part]);
            done += part;
        }
    }

    pub(crate) fn read(&self, offset: u64, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        let mut done = 0;
        while done < length {
            let (device, at, room) = self.place(offset + done as u64);
            let part = room.min((length - done) as u64) as usize;
            self.stores[device].read_at(at, &mut bytes[done..done + part]);
            done += part;
        }
        bytes
    }

    /// Device, offset on it and bytes left in the run. Units: bytes.
    pub(crate) fn place(&self, offset: u64) -> (usize, u64, u64) {
        let run = self
            .runs
            .iter()
            .find(|run| offset >= run.volume && offset - run.volume < run.length)
            .unwrap_or_else(|| panic!("volume offset {offset:#x} is past the end"));
        let within = offset - run.volume;
        (run.device, run.physical + within, run.length - within)
    }
}
