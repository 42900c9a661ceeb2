//! Reads that may fail: tried again with growing delays, then narrowed down to the bad sectors.

use adit_core::{Error, Kind, Limits, Place, Problem, Result, bytes};
use rustix::io::Errno;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

/// However patient the policy is, one delay is never longer.
const DELAY_MAX: Duration = Duration::from_secs(5);
/// However patient the policy is, one place is never read more often again.
const RETRIES_MAX: u32 = 100;
/// A dying drive takes seconds for each bad sector, so the end of a bad range is not sought further.
const BAD_SECTORS_MAX: u32 = 256;

/// How patient reads are.
#[derive(Clone, Debug)]
pub struct ReadPolicy {
    /// How often a read that failed for a passing reason is tried again; 100 at most.
    pub retries: u32,
    /// Wait before the first new try; doubles with each further one, up to 5 s.
    pub first_delay: Duration,
    /// Counts what happened, shared by every disk opened with this policy.
    pub counters: Arc<RetryCounters>,
}

impl Default for ReadPolicy {
    fn default() -> Self {
        ReadPolicy {
            retries: 3,
            first_delay: Duration::from_millis(50),
            counters: Arc::new(RetryCounters::default()),
        }
    }
}

impl ReadPolicy {
    /// The default policy with the number of retries that `limits` allow.
    pub fn within(limits: &Limits) -> Self {
        let retries = u32::try_from(limits.read_retries_max).unwrap_or(u32::MAX);
        ReadPolicy { retries, ..ReadPolicy::default() }
    }
}

/// What came of failed reads so far.
#[derive(Debug, Default)]
pub struct RetryCounters {
    /// Reads that were tried again.
    pub retried: AtomicU64,
    /// Places that could be read in the end.
    pub recovered: AtomicU64,
    /// Ranges that were given up.
    pub failed: AtomicU64,
}

/// Something that answers positioned reads; tests put a bad disk behind it.
pub(crate) trait Source {
    /// Reads some bytes, none only at the end.
    fn read_some(&self, buf: &mut [u8], offset: u64) -> io::Result<usize>;
}

impl Source for File {
    fn read_some(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.read_at(buf, offset)
    }
}

/// One source read under one policy.
pub(crate) struct Reader<'a, S> {
    pub(crate) source: &'a S,
    pub(crate) policy: &'a ReadPolicy,
    pub(crate) sector_size_bytes: u32,
}

/// Why a range could not be filled.
enum Stop {
    /// The source ended here.
    End(u64),
    Failed(io::Error),
}

impl<S: Source> Reader<'_, S> {
    /// Fills all of `buf`.
    ///
    /// Errors: `Io`/`Unreadable` naming the first bad sectors; `Lost`/`Truncated` where the
    /// source ends early.
    pub(crate) fn read(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let mut done = 0;
        while done < buf.len() {
            let (at, rest) = (offset + bytes::wide(done), &mut buf[done..]);
            done += match self.patiently(rest, at, false) {
                Ok(0) => return Err(ended(at, rest.len())),
                Ok(length) => length.min(rest.len()),
                Err(error) if Class::of(&error) != Class::Final => self.narrow(rest, at, error)?,
                Err(error) => return Err(self.refused(at, rest.len(), &error)),
            };
        }
        Ok(())
    }

    /// One read, tried again as the policy says; success after a failure counts as recovery.
    fn patiently(&self, buf: &mut [u8], offset: u64, mut failed_before: bool) -> io::Result<usize> {
        let counters = &self.policy.counters;
        let mut delay = self.policy.first_delay.min(DELAY_MAX);
        let mut left = self.policy.retries.min(RETRIES_MAX);
        loop {
            match self.once(buf, offset) {
                Err(error) if left > 0 && Class::of(&error) == Class::Passing => {
                    counters.retried.fetch_add(1, Ordering::Relaxed);
                    thread::sleep(delay);
                    delay = delay.saturating_mul(2).min(DELAY_MAX);
                    left -= 1;
                    failed_before = true;
                }
                Ok(length) if failed_before => {
                    counters.recovered.fetch_add(1, Ordering::Relaxed);
                    return Ok(length);
                }
                answer => return answer,
            }
        }
    }

    /// One read; a signal is no answer.
    fn once(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        loop {
            match self.source.read_some(buf, offset) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                answer => return answer,
            }
        }
    }

    /// Fills all of `buf`, without retries.
    fn fill(&self, buf: &mut [u8], offset: u64) -> Result<(), Stop> {
        let mut done = 0;
        while done < buf.len() {
            let at = offset + bytes::wide(done);
            match self.once(&mut buf[done..], at).map_err(Stop::Failed)? {
                0 => return Err(Stop::End(at)),
                length => done += length.min(buf.len() - done),
            }
        }
        Ok(())
    }

    /// Looks for the first bad sector of a range whose read failed.
    ///
    /// Returns how many bytes of `buf`, at least one, could be read after all.
    fn narrow(&self, buf: &mut [u8], offset: u64, mut error: io::Error) -> Result<usize> {
        // Up to `good` everything was read; somewhere before `bad` a read failed.
        let (mut good, mut bad) = (0, buf.len());
        while let Some(middle) = self.sector_seam(offset, good, bad) {
            match self.fill(&mut buf[good..middle], offset + bytes::wide(good)) {
                Ok(()) => good = middle,
                Err(Stop::End(at)) => return Err(ended(at, 1)),
                Err(Stop::Failed(why)) => (bad, error) = (middle, why),
            }
        }
        let at = offset + bytes::wide(good);
        // The failure may have been seen in a larger read only: ask the sector itself.
        if bad - good < buf.len() {
            match self.patiently(&mut buf[good..bad], at, true) {
                Ok(0) => return Err(ended(at, bad - good)),
                Ok(length) => return Ok(good + length.min(bad - good)),
                Err(why) => error = why,
            }
        }
        let (end, more) = self.bad_until(buf, offset, bad);
        Err(self.unreadable(at, offset + bytes::wide(end), more, &error))
    }

    /// A sector boundary near the middle of `good..bad`, if one lies inside.
    fn sector_seam(&self, offset: u64, good: usize, bad: usize) -> Option<usize> {
        let sector = u64::from(self.sector_size_bytes.max(1));
        let (low, high) = (offset + bytes::wide(good), offset + bytes::wide(bad));
        let below = (low + (high - low) / 2) / sector * sector;
        let seam = if below > low { below } else { (low / sector + 1) * sector };
        (seam < high).then(|| seam - offset).and_then(bytes::narrow)
    }

    /// Where the bad sectors before `buf[from]` end, and whether the search stopped before that.
    fn bad_until(&self, buf: &mut [u8], offset: u64, from: usize) -> (usize, bool) {
        let sector = u64::from(self.sector_size_bytes.max(1));
        let mut end = from;
        for _ in 0..BAD_SECTORS_MAX {
            if end >= buf.len() {
                return (buf.len(), false);
            }
            let at = offset + bytes::wide(end);
            let length = bytes::narrow(sector - at % sector).unwrap_or(usize::MAX);
            let next = end.saturating_add(length).min(buf.len());
            match self.fill(&mut buf[end..next], at) {
                Err(Stop::Failed(_)) => end = next,
                _ => return (end, false),
            }
        }
        (end, end < buf.len())
    }

    fn unreadable(&self, start: u64, end: u64, more: bool, source: &io::Error) -> Error {
        self.policy.counters.failed.fetch_add(1, Ordering::Relaxed);
        let sector = u64::from(self.sector_size_bytes.max(1));
        let (first, last) = (start / sector, end.saturating_sub(1) / sector);
        let (least, sectors) = (
            if more { "at least " } else { "" },
            if first == last {
                format!("sector {first}")
            } else {
                format!("sectors {first}-{last}")
            },
        );
        let detail = format!(
            "{least}bytes {start:#x}..{end:#x} ({sectors} of {sector} bytes) cannot be read"
        );
        Error::io(Problem::Unreadable, detail, source)
            .at(Place::new("sector").index(first).byte(start))
            .advise("the medium or the way to it fails there (the kernel log says more); raise the number of retries, or save what else is readable first")
    }

    /// A failure that neither time nor smaller reads would mend.
    fn refused(&self, offset: u64, length: usize, source: &io::Error) -> Error {
        self.policy.counters.failed.fetch_add(1, Ordering::Relaxed);
        let detail = format!("reading {length} bytes at byte {offset:#x} failed");
        let error = Error::io(Problem::Unreadable, detail, source).at(Place::new("sector")
            .index(offset / u64::from(self.sector_size_bytes.max(1)))
            .byte(offset));
        match Errno::from_io_error(source) {
            Some(Errno::NXIO | Errno::NODEV | Errno::NOMEDIUM | Errno::STALE) => {
                error.advise("the device or file is gone; attach it again and open it anew")
            }
            _ => error,
        }
    }
}

fn ended(offset: u64, missing: usize) -> Error {
    let detail = format!(
        "it ends at byte {offset} now, {missing} bytes short of this read: it was cut short after it was opened"
    );
    Error::new(Kind::Lost, Problem::Truncated, detail)
        .at(Place::new("end of file").byte(offset))
        .advise("something else changes the file; stop that, then open it again")
}

/// What helps against a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    /// Time, or smaller reads.
    Passing,
    /// Smaller reads.
    Hard,
    /// Nothing.
    Final,
}

impl Class {
    fn of(error: &io::Error) -> Class {
        match Errno::from_io_error(error) {
            // Block layer: medium and data errors, lost paths, timeouts; and shortage of memory.
            Some(
                Errno::IO
                | Errno::AGAIN
                | Errno::TIMEDOUT
                | Errno::REMOTEIO
                | Errno::NOMEM
                | Errno::NOBUFS
                | Errno::NODATA
                | Errno::NOLINK
                | Errno::BADE,
            ) => Class::Passing,
            // Protection information, and checksums of the host's file system.
            Some(Errno::ILSEQ | Errno::BADMSG | Errno::UCLEAN) => Class::Hard,
            _ => Class::Final,
        }
    }
}

#[cfg(test)]
mod tests;
