//! A disk whose layers change while it is used.

use crate::copy::Work;
use crate::gate::{Closed, Gate, Inside};
use crate::job::{Job, JobKind, Jobs};
use crate::layer::Layer;
use adit_core::{
    Disk, DiskExt, Error, Extent, Geometry, Hop, Kind, Problem, ReadRequest, Result, WritableDisk,
};
use std::ops::Range;
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

/// Every layer makes a read slower; walks down a stack end soon after this many.
const LAYERS_MAX: usize = 48;

/// A stack of layers, used as one disk through its top.
///
/// Every change of the stack is all or nothing: requests are held up, those under way end, what
/// was acknowledged is made durable, and only then the new stack takes over. If anything fails
/// before, the old one goes on as if nothing had been.
#[derive(Debug)]
pub struct Live {
    gate: Arc<Gate>,
    stack: RwLock<Arc<Stack>>,
    /// Held by whoever changes the stack, or keeps it still.
    changing: Mutex<()>,
    paused: Mutex<Option<Closed>>,
    pub(crate) jobs: Jobs,
}

/// Bottom first. Another one takes its place only while nobody is inside the gate.
#[derive(Clone, Debug)]
pub(crate) struct Stack {
    pub(crate) layers: Vec<Layer>,
    top: Arc<dyn WritableDisk>,
    pub(crate) work: Option<Arc<Work>>,
}

impl Live {
    /// A stack of these layers, bottom first.
    ///
    /// Errors: `Invalid` if there are none; `ReadOnly` if the top cannot be written.
    pub fn new(layers: Vec<Layer>) -> Result<Arc<Live>> {
        let top = layers
            .last()
            .ok_or_else(|| Error::invalid(Problem::Missing, "a stack of no layers"))?
            .to_write()?;
        Ok(Arc::new(Live {
            gate: Arc::default(),
            stack: RwLock::new(Arc::new(Stack { layers, top, work: None })),
            changing: Mutex::default(),
            paused: Mutex::default(),
            jobs: Jobs::default(),
        }))
    }

    /// The layers, bottom first.
    pub fn layers(&self) -> Vec<Layer> {
        self.stack().layers.clone()
    }

    /// Holds up all requests; returns when none is under way any more. Pausing twice is pausing.
    ///
    /// Errors: `Busy` if requests do not end within `patience`; then all goes on.
    pub fn pause(&self, patience: Duration) -> Result<()> {
        let mut paused = lock(&self.paused);
        if paused.is_none() {
            *paused = Some(self.gate.close(patience)?);
        }
        Ok(())
    }

    /// Lets requests go on; false if they did.
    pub fn unpause(&self) -> bool {
        lock(&self.paused).take().is_some()
    }

    /// Whether requests are held up.
    pub fn is_paused(&self) -> bool {
        lock(&self.paused).is_some()
    }

    /// Puts a layer on top: a snapshot of what is there. `build` is given the present top, which
    /// it may rename.
    ///
    /// Errors: `Busy` while a job runs or if requests do not end within `patience`; those of the
    /// flush and of `build`. The old stack goes on then.
    pub fn push(
        &self,
        patience: Duration,
        build: impl FnOnce(&mut Layer) -> Result<Layer>,
    ) -> Result<()> {
        self.change(patience, |layers| {
            if layers.len() >= LAYERS_MAX {
                let detail = format!("{LAYERS_MAX} layers stand on each other already");
                return Err(Error::new(Kind::Limit, Problem::TooMany, detail)
                    .advise("commit or flatten first"));
            }
            let top = layers.last_mut().ok_or_else(no_layers)?;
            let new = build(top)?;
            layers.push(new);
            Ok(())
        })
    }

    /// Puts other layers in the place of those there are, which `build` is given, bottom first.
    ///
    /// Errors: as [`Live::push`]; `Invalid` if the new top has another size.
    pub fn swap(
        &self,
        patience: Duration,
        build: impl FnOnce(&[Layer]) -> Result<Vec<Layer>>,
    ) -> Result<()> {
        self.change(patience, |layers| {
            *layers = build(layers)?;
            Ok(())
        })
    }

    /// Changes the size of the disk; what is new reads as zeros.
    ///
    /// Errors: as [`Live::push`]; `Unsupported` if the top cannot; `Invalid` if it would shrink.
    pub fn resize(&self, patience: Duration, size_bytes: u64) -> Result<()> {
        let _changing = self.begin_change()?;
        let _closed = self.gate.close(patience)?;
        let stack = self.stack();
        let top = stack.layers.last().ok_or_else(no_layers)?;
        if size_bytes < top.disk().size_bytes() {
            return Err(Error::invalid(Problem::Refused, "a disk in use cannot become smaller")
                .advise("stop its users, then resize the image itself"));
        }
        let image = top.as_image()?;
        image.flush()?;
        image.resize(size_bytes)
    }

    /// Merges the top into the layer below it, in the background, while writes go on. `finish` is
    /// called at the end with the layers as they will be, when all is durable below and nobody
    /// reads or writes: what it does to files and names takes effect together with the change of
    /// the stack; if it fails, all stays as it is.
    ///
    /// Errors: `ReadOnly` if the layer below cannot be written; `Busy` while another job runs.
    pub fn commit(
        self: &Arc<Self>,
        patience: Duration,
        finish: impl FnOnce(&mut [Layer]) -> Result<()> + Send + 'static,
    ) -> Result<Arc<Job>> {
        Job::start(self, JobKind::Commit, patience, Box::new(finish))
    }

    /// Copies into the top what it reads from the layers below it, in the background, while
    /// writes go on. `finish` is called at the end with that one layer, when it holds everything
    /// and nobody reads or writes: it records that there is nothing below any more.
    ///
    /// Errors: `Invalid` if there is nothing below; `Busy` while another job runs.
    pub fn flatten(
        self: &Arc<Self>,
        patience: Duration,
        finish: impl FnOnce(&mut [Layer]) -> Result<()> + Send + 'static,
    ) -> Result<Arc<Job>> {
        Job::start(self, JobKind::Flatten, patience, Box::new(finish))
    }

    /// Every job there was, the oldest first.
    pub fn jobs(&self) -> Vec<Arc<Job>> {
        self.jobs.all()
    }

    /// Ends jobs, makes everything durable and marks images as cleanly closed. Writes after it
    /// begin anew.
    ///
    /// Errors: those of the images; `Busy` if requests do not end within `patience`.
    pub fn close(&self, patience: Duration) -> Result<()> {
        self.jobs.all().iter().for_each(|job| job.cancel());
        self.jobs.all().iter().for_each(|job| job.wait());
        let _closed = self.gate.close(patience)?;
        let layers = self.layers();
        for layer in layers.iter().rev() {
            match (&layer.access, layer.writer()) {
                (crate::Access::Image(image), _) => image.close()?,
                (_, Some(disk)) => disk.flush()?,
                _ => {}
            }
        }
        Ok(())
    }

    /// One change of the layers.
    fn change(
        &self,
        patience: Duration,
        build: impl FnOnce(&mut Vec<Layer>) -> Result<()>,
    ) -> Result<()> {
        let _changing = self.begin_change()?;
        let _closed = self.gate.close(patience)?;
        let old = self.stack();
        let (mut layers, top) = (old.layers.clone(), &old.top);
        // What was acknowledged and flushed by nobody must not depend on a layer that is no
        // longer flushed.
        top.flush()?;
        build(&mut layers)?;
        let new = layers.last().ok_or_else(no_layers)?;
        let writer = new.to_write()?;
        if new.disk().size_bytes() != top.size_bytes() {
            let (is, was) = (new.disk().size_bytes(), top.size_bytes());
            let detail = format!("the new top has {is} bytes, the old one {was}");
            return Err(Error::invalid(Problem::Mismatch, detail));
        }
        self.put_stack(Stack { layers, top: writer, work: None });
        Ok(())
    }

    /// Runs `install` while nobody is inside, if no job runs or it is the job that asks.
    pub(crate) fn alter<T>(
        &self,
        patience: Duration,
        install: impl FnOnce(&Self) -> Result<T>,
    ) -> Result<T> {
        let _changing = lock(&self.changing);
        let _closed = self.gate.close(patience)?;
        install(self)
    }

    /// Takes the turn to change the stack.
    fn begin_change(&self) -> Result<MutexGuard<'_, ()>> {
        let turn = lock(&self.changing);
        match &self.stack().work {
            Some(work) => Err(busy(work.kind)),
            None => Ok(turn),
        }
    }

    pub(crate) fn set_stack(&self, layers: Vec<Layer>, work: Option<Arc<Work>>) -> Result<()> {
        let top = layers.last().ok_or_else(no_layers)?.to_write()?;
        self.put_stack(Stack { layers, top, work });
        Ok(())
    }

    pub(crate) fn set_work(&self, work: Option<Arc<Work>>) {
        let stack = self.stack();
        self.put_stack(Stack { work, ..(*stack).clone() });
    }

    pub(crate) fn stack(&self) -> Arc<Stack> {
        Arc::clone(&self.stack.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn put_stack(&self, stack: Stack) {
        *self.stack.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(stack);
    }

    fn enter(&self) -> (Inside<'_>, Arc<Stack>) {
        // In this order: the stack that is found stays the one that counts.
        let inside = self.gate.enter();
        (inside, self.stack())
    }
}

pub(crate) fn busy(kind: JobKind) -> Error {
    let detail = format!("a {} is under way", kind.word());
    Error::new(Kind::Busy, Problem::Refused, detail).advise("wait for the job, or cancel it")
}

pub(crate) fn no_layers() -> Error {
    Error::invalid(Problem::Missing, "a stack of no layers")
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Disk for Live {
    fn geometry(&self) -> Geometry {
        self.stack().top.geometry()
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let (_inside, stack) = self.enter();
        stack.top.read_at(buf, offset)
    }

    fn read_batch(&self, batch: &mut [ReadRequest<'_>]) -> Result<()> {
        let (_inside, stack) = self.enter();
        stack.top.read_batch(batch)
    }

    fn extent_at(&self, offset: u64) -> Result<Extent> {
        let (_inside, stack) = self.enter();
        stack.top.extent_at(offset)
    }

    fn as_file(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn explain(&self, offset: u64) -> Result<Hop> {
        let (_inside, stack) = self.enter();
        stack.top.explain(offset)
    }
}

impl WritableDisk for Live {
    fn write_at(&self, buf: &[u8], offset: u64) -> Result<()> {
        let (_inside, stack) = self.enter();
        match &stack.work {
            None => stack.top.write_at(buf, offset),
            Some(work) => work.write(&*stack.top, buf, offset),
        }
    }

    fn write_zeroes(&self, range: Range<u64>) -> Result<()> {
        let (_inside, stack) = self.enter();
        match &stack.work {
            None => stack.top.write_zeroes(range),
            Some(work) => work.write_zeroes(&*stack.top, range),
        }
    }

    fn discard(&self, range: Range<u64>) -> Result<()> {
        let (_inside, stack) = self.enter();
        match &stack.work {
            None => stack.top.discard(range),
            Some(work) => work.discard(&*stack.top, range),
        }
    }

    fn flush(&self) -> Result<()> {
        let (_inside, stack) = self.enter();
        stack.top.flush()
    }
}
