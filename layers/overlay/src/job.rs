//! Long work on a stack, in the background.

use crate::copy::Work;
use crate::layer::Layer;
use crate::live::{Live, busy};
use adit_core::{DiskExt, Error, Interrupt, Kind, Problem, Result};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// What a job does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JobKind {
    /// The top goes into the layer below it.
    Commit,
    /// The layers below go into the top.
    Flatten,
}

impl JobKind {
    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            JobKind::Commit => "commit",
            JobKind::Flatten => "flatten",
        }
    }
}

/// How far a job is.
#[derive(Clone, Debug)]
pub enum JobState {
    /// Under way.
    Running,
    /// All is done, durably.
    Done,
    /// Stopped on request, with nothing changed; it can be started again.
    Cancelled,
    /// Given up, with nothing changed, for this reason.
    Failed(Error),
}

impl JobState {
    /// The word for it.
    pub fn word(&self) -> &'static str {
        match self {
            JobState::Running => "running",
            JobState::Done => "done",
            JobState::Cancelled => "cancelled",
            JobState::Failed(_) => "failed",
        }
    }
}

/// One job of a [`Live`].
///
/// It can be stopped at any moment, and so can the whole process: the top holds everything until
/// the end, so nothing is lost, and a new job takes up what is left to do.
#[derive(Debug)]
pub struct Job {
    /// Its number among the jobs of its disk, from 1.
    pub id: u64,
    /// What it does.
    pub kind: JobKind,
    /// Length of the disk when it began. Unit: bytes.
    pub total_bytes: u64,
    /// Let go of at the end, and with it of layers that nobody else holds any more.
    work: Mutex<Progress>,
    interrupt: Interrupt,
    state: Mutex<JobState>,
    ended: Condvar,
}

#[derive(Debug)]
enum Progress {
    Now(Arc<Work>),
    Last(u64, u64),
}

/// The jobs of a disk.
#[derive(Debug, Default)]
pub(crate) struct Jobs(Mutex<(u64, Vec<Arc<Job>>)>);

/// Jobs that are remembered after they ended.
const JOBS_MAX: usize = 64;

pub(crate) type Finish = Box<dyn FnOnce(&mut [Layer]) -> Result<()> + Send>;

impl Job {
    /// Stops it as soon as it can be; what it copied stays where it is and does no harm.
    pub fn cancel(&self) {
        self.interrupt.raise();
    }

    /// How far it is.
    pub fn state(&self) -> JobState {
        self.lock().clone()
    }

    /// Bytes of the disk that were gone through, and of those how many were copied.
    pub fn progress(&self) -> (u64, u64) {
        match &*self.work.lock().unwrap_or_else(PoisonError::into_inner) {
            Progress::Now(work) => work.progress(),
            Progress::Last(reached, copied) => (*reached, *copied),
        }
    }

    /// Waits until it has ended.
    pub fn wait(&self) {
        let mut state = self.lock();
        while matches!(*state, JobState::Running) {
            state = self.ended.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn lock(&self) -> MutexGuard<'_, JobState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn start(
        live: &Arc<Live>,
        kind: JobKind,
        patience: Duration,
        finish: Finish,
    ) -> Result<Arc<Job>> {
        // From here on writers heed the work; those before it have ended.
        let job = live.alter(patience, |live| {
            let layers = live.layers();
            if let Some(work) = &live.stack().work {
                return Err(busy(work.kind));
            }
            let work = Arc::new(Work::new(kind, &layers)?);
            let total_bytes = live.size_bytes();
            let job = live.jobs.add(|id| Job {
                id,
                kind,
                total_bytes,
                work: Mutex::new(Progress::Now(Arc::clone(&work))),
                interrupt: Interrupt::default(),
                state: Mutex::new(JobState::Running),
                ended: Condvar::new(),
            });
            live.set_work(Some(Arc::clone(&work)));
            Ok((job, work))
        })?;
        let (job, work) = job;
        let (theirs, ours) = (Arc::clone(live), Arc::clone(&job));
        let spawned = std::thread::Builder::new()
            .name(format!("adit-{}", kind.word()))
            .spawn(move || ours.run(&theirs, &work, finish, patience));
        if let Err(why) = spawned {
            let error = Error::io(Problem::Refused, "starting a thread", &why);
            live.set_work(None);
            job.end(JobState::Failed(error.clone()));
            return Err(error);
        }
        Ok(job)
    }

    fn run(&self, live: &Live, work: &Arc<Work>, finish: Finish, patience: Duration) {
        // However this thread ends, writers must not go on working for it.
        let undo = Undo { job: self, live, work };
        let done = work.run(&self.interrupt).and_then(|()| {
            live.alter(patience, |live| {
                self.interrupt.check()?;
                work.seal()?;
                let layers = live.layers();
                let mut after = work.layers_after(layers)?;
                finish(&mut after)?;
                live.set_stack(after, None)
            })
        });
        let state = match done {
            Ok(()) => JobState::Done,
            Err(error) if error.kind() == Kind::Interrupted => JobState::Cancelled,
            Err(error) => JobState::Failed(error),
        };
        undo.forget_work();
        self.end(state);
    }

    fn end(&self, ended: JobState) {
        let (reached, copied) = self.progress();
        *self.work.lock().unwrap_or_else(PoisonError::into_inner) = Progress::Last(reached, copied);
        let mut state = self.lock();
        if matches!(*state, JobState::Running) {
            *state = ended;
        }
        drop(state);
        self.ended.notify_all();
    }
}

struct Undo<'a> {
    job: &'a Job,
    live: &'a Live,
    work: &'a Arc<Work>,
}

impl Undo<'_> {
    /// No writer needs to heed the work any more. Those that do are right all the same, so
    /// nobody has to be waited for.
    fn forget_work(&self) {
        let is_ours =
            self.live.stack().work.as_ref().is_some_and(|work| Arc::ptr_eq(work, self.work));
        if is_ours {
            self.live.set_work(None);
        }
    }
}

impl Drop for Undo<'_> {
    fn drop(&mut self) {
        self.forget_work();
        let error = Error::new(Kind::Io, Problem::Stopped, "the job's thread broke off");
        self.job.end(JobState::Failed(error));
    }
}

impl Jobs {
    pub(crate) fn all(&self) -> Vec<Arc<Job>> {
        self.lock().1.clone()
    }

    fn add(&self, job: impl FnOnce(u64) -> Job) -> Arc<Job> {
        let mut jobs = self.lock();
        jobs.0 += 1;
        let job = Arc::new(job(jobs.0));
        if jobs.1.len() >= JOBS_MAX {
            // No two run at once: all but the last have ended.
            jobs.1.remove(0);
        }
        jobs.1.push(Arc::clone(&job));
        job
    }

    fn lock(&self) -> MutexGuard<'_, (u64, Vec<Arc<Job>>)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
