//! A disk in memory that fails and stalls when told.
#![allow(dead_code)]

use adit_core::{
    Disk, DiskExt, Error, Extent, ExtentKind, Geometry, Hop, Next, Problem, ReadRequest, Result,
    WritableDisk, read_each,
};
use std::ops::Range;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

#[derive(Debug)]
pub struct Ram {
    bytes: Mutex<Vec<u8>>,
    flushes: AtomicU64,
    bad_reads: AtomicBool,
    bad_writes: AtomicBool,
    bad_flush: AtomicBool,
    stalled: AtomicBool,
}

impl Ram {
    pub fn new(length: usize) -> Arc<Ram> {
        let bytes = (0..length).map(|at| ((at / 5) ^ (at >> 11)) as u8).collect::<Vec<u8>>();
        Arc::new(Ram {
            bytes: Mutex::new(bytes),
            flushes: AtomicU64::new(0),
            bad_reads: AtomicBool::new(false),
            bad_writes: AtomicBool::new(false),
            bad_flush: AtomicBool::new(false),
            stalled: AtomicBool::new(false),
        })
    }

    pub fn bytes(&self) -> Vec<u8> {
        self.bytes.lock().unwrap().clone()
    }

    pub fn flushes(&self) -> u64 {
        self.flushes.load(Ordering::SeqCst)
    }

    pub fn fail_reads(&self, bad: bool) {
        self.bad_reads.store(bad, Ordering::SeqCst);
    }

    pub fn fail_writes(&self, bad: bool) {
        self.bad_writes.store(bad, Ordering::SeqCst);
    }

    pub fn fail_flush(&self, bad: bool) {
        self.bad_flush.store(bad, Ordering::SeqCst);
    }

    pub fn stall(&self, stalled: bool) {
        self.stalled.store(stalled, Ordering::SeqCst);
    }

    fn check(&self, bad: &AtomicBool) -> Result<()> {
        while self.stalled.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(1));
        }
        if bad.load(Ordering::SeqCst) {
            let why = std::io::Error::from_raw_os_error(5);
            return Err(Error::io(Problem::Unwritable, "told to fail", &why));
        }
        Ok(())
    }
}

impl Disk for Ram {
    fn geometry(&self) -> Geometry {
        Geometry::of_size(self.bytes.lock().unwrap().len() as u64)
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.check_range(offset, buf.len() as u64)?;
        self.check(&self.bad_reads)?;
        buf.copy_from_slice(&self.bytes.lock().unwrap()[offset as usize..][..buf.len()]);
        Ok(())
    }

    fn read_batch(&self, batch: &mut [ReadRequest<'_>]) -> Result<()> {
        read_each(self, batch)
    }

    fn extent_at(&self, offset: u64) -> Result<Extent> {
        self.check_range(offset, 1)?;
        Ok(Extent { offset, length: self.size_bytes() - offset, kind: ExtentKind::Data })
    }

    fn as_file(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn explain(&self, offset: u64) -> Result<Hop> {
        Ok(Hop { layer: "ram".into(), offset, steps: Vec::new(), next: Next::Here })
    }
}

impl WritableDisk for Ram {
    fn write_at(&self, buf: &[u8], offset: u64) -> Result<()> {
        self.check_range(offset, buf.len() as u64)?;
        self.check(&self.bad_writes)?;
        self.bytes.lock().unwrap()[offset as usize..][..buf.len()].copy_from_slice(buf);
        Ok(())
    }

    fn write_zeroes(&self, range: Range<u64>) -> Result<()> {
        self.write_at(&vec![0; (range.end - range.start) as usize], range.start)
    }

    fn discard(&self, range: Range<u64>) -> Result<()> {
        self.write_zeroes(range)
    }

    fn flush(&self) -> Result<()> {
        self.check(&self.bad_flush)?;
        self.flushes.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
}
