//! Stacks that change under readers and writers.

mod doubles;

use adit_core::{DiskExt, Error, Kind, Problem, WritableDisk};
use adit_overlay::{JobState, Layer, Live, Temporary};
use adit_testkit::Model;
use adit_testkit::random::Random;
use doubles::Ram;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(30);
const SIZE: usize = 3 << 20;

fn over(below: &Layer, folder: &std::path::Path) -> Layer {
    let overlay = Temporary::new(Arc::clone(below.disk()), folder).unwrap();
    Layer::writable("overlay", Arc::new(overlay))
}

/// A stack over memory, and that memory.
fn stack() -> (Arc<Live>, Arc<Ram>, tempfile::TempDir) {
    let ram = Ram::new(SIZE);
    let base = Layer::writable("base", ram.clone() as Arc<dyn WritableDisk>);
    (Live::new(vec![base]).unwrap(), ram, tempfile::tempdir().unwrap())
}

#[test]
fn snapshots_commits_and_flattens_keep_every_byte_of_a_model() {
    for seed in 0..6 {
        let (live, ram, folder) = stack();
        let mut model = Model::of(ram.bytes(), seed);
        let mut random = Random::new(seed + 1000);
        for _ in 0..40 {
            model.run(&*live, 12, None);
            match random.below(4) {
                0 | 1 if live.layers().len() < 6 => {
                    live.push(PATIENCE, |top| Ok(over(top, folder.path()))).unwrap();
                }
                2 if live.layers().len() > 1 => {
                    let job = live.commit(PATIENCE, |_| Ok(())).unwrap();
                    model.run(&*live, 10, None);
                    job.wait();
                    assert!(matches!(job.state(), JobState::Done), "{:?}", job.state());
                }
                3 if live.layers().len() > 1 => {
                    let job = live.flatten(PATIENCE, |_| Ok(())).unwrap();
                    model.run(&*live, 10, None);
                    job.wait();
                    assert!(matches!(job.state(), JobState::Done), "{:?}", job.state());
                    assert_eq!(live.layers().len(), 1);
                }
                _ => {}
            }
            model.verify(&*live);
        }
    }
}

#[test]
fn writers_and_readers_lose_nothing_while_hundreds_of_changes_pass_under_them() {
    let (live, _ram, folder) = stack();
    let stop = AtomicBool::new(false);
    let writes = AtomicU64::new(0);
    let block = 3000usize;
    let blocks = SIZE / block;
    std::thread::scope(|scope| {
        for thread in 0..3u64 {
            let (live, stop, writes) = (&live, &stop, &writes);
            scope.spawn(move || {
                let mut random = Random::new(thread);
                let mut last = vec![0u64; blocks];
                let mut stamp = 0u64;
                while !stop.load(Ordering::Relaxed) {
                    let mine = random.below(blocks as u64 / 3) * 3 + thread;
                    stamp += 1;
                    let bytes = stamped(mine, stamp, block);
                    let at = mine * block as u64;
                    match random.below(8) {
                        0 => {
                            live.write_zeroes(at..at + block as u64).unwrap();
                            last[mine as usize] = u64::MAX;
                        }
                        _ => {
                            live.write_at(&bytes, at).unwrap();
                            last[mine as usize] = stamp;
                        }
                    }
                    if random.below(10) == 0 {
                        live.flush().unwrap();
                    }
                    writes.fetch_add(1, Ordering::Relaxed);
                    let look = random.below(blocks as u64 / 3) * 3 + thread;
                    let now = live.read_vec(look * block as u64, block).unwrap();
                    match last[look as usize] {
                        0 => {}
                        u64::MAX => assert!(now.iter().all(|&byte| byte == 0), "block {look}"),
                        stamp => assert!(now == stamped(look, stamp, block), "block {look}"),
                    }
                }
            });
        }
        let mut random = Random::new(77);
        let mut changes = 0;
        while changes < 300 {
            let depth = live.layers().len();
            if depth < 2 || depth < 5 && random.below(2) == 0 {
                live.push(PATIENCE, |top| Ok(over(top, folder.path()))).unwrap();
            } else {
                let job = live.commit(PATIENCE, |_| Ok(())).unwrap();
                let cancelled = random.below(3) == 0;
                if cancelled {
                    job.cancel();
                }
                job.wait();
                match job.state() {
                    JobState::Done => assert_eq!(live.layers().len(), depth - 1),
                    JobState::Cancelled => assert!(cancelled && live.layers().len() == depth),
                    state => panic!("{state:?}"),
                }
            }
            changes += 1;
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert!(writes.load(Ordering::Relaxed) > 300);
}

fn stamped(block: u64, stamp: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    Random::new(block << 32 ^ stamp).fill(&mut bytes);
    bytes
}

#[test]
fn a_snapshot_that_fails_leaves_the_old_stack_as_it_was() {
    let (live, ram, folder) = stack();
    live.write_at(&[7; 100], 50).unwrap();
    let error = live
        .push(PATIENCE, |_| Err(Error::new(Kind::Io, Problem::Unwritable, "no room")))
        .unwrap_err();
    assert_eq!(error.detail(), "no room");
    let error = live.push(PATIENCE, |_| Ok(Layer::read_only("x", ram.clone()))).unwrap_err();
    assert_eq!(error.kind(), Kind::ReadOnly);
    let short = Ram::new(1000);
    let error = live.push(PATIENCE, |_| Ok(Layer::writable("x", short))).unwrap_err();
    assert_eq!(error.problem(), Problem::Mismatch);
    assert_eq!((live.layers().len(), live.is_paused()), (1, false));
    live.write_at(&[8; 100], 50).unwrap();
    ram.fail_flush(true);
    assert!(live.push(PATIENCE, |top| Ok(over(top, folder.path()))).is_err());
    ram.fail_flush(false);
    live.push(PATIENCE, |top| Ok(over(top, folder.path()))).unwrap();
    live.write_at(&[9; 100], 50).unwrap();
    assert_eq!(ram.bytes()[50..150], [8; 100]);
    assert_eq!(live.read_vec(50, 100).unwrap(), [9; 100]);
}

#[test]
fn what_was_acknowledged_is_durable_before_a_new_layer_hides_the_old_one() {
    let (live, ram, folder) = stack();
    live.write_at(&[1], 0).unwrap();
    let before = ram.flushes();
    live.push(PATIENCE, |top| Ok(over(top, folder.path()))).unwrap();
    assert_eq!(ram.flushes(), before + 1);
}

#[test]
fn a_pause_holds_requests_up_and_lets_them_go_on() {
    let (live, _ram, _folder) = stack();
    live.pause(PATIENCE).unwrap();
    live.pause(PATIENCE).unwrap();
    let writer = {
        let live = Arc::clone(&live);
        std::thread::spawn(move || live.write_at(&[5], 0))
    };
    std::thread::sleep(Duration::from_millis(50));
    assert!(!writer.is_finished() && live.is_paused());
    assert!(live.unpause());
    writer.join().unwrap().unwrap();
    assert!(!live.unpause());
    assert_eq!(live.read_vec(0, 1).unwrap(), [5]);
}

#[test]
fn a_commit_that_cannot_write_below_ends_and_nobody_else_notices() {
    let (live, ram, folder) = stack();
    live.push(PATIENCE, |top| Ok(over(top, folder.path()))).unwrap();
    for at in 0..30u64 {
        live.write_at(&[at as u8; 5000], at * 100_000).unwrap();
    }
    ram.fail_writes(true);
    let job = live.commit(PATIENCE, |_| Ok(())).unwrap();
    job.wait();
    assert!(matches!(job.state(), JobState::Failed(_)));
    live.write_at(&[99; 10], 0).unwrap();
    ram.fail_writes(false);
    let job = live.commit(PATIENCE, |_| Ok(())).unwrap();
    job.wait();
    assert!(matches!(job.state(), JobState::Done), "{:?}", job.state());
    assert_eq!(ram.bytes()[..10], [99; 10]);
    for at in 1..30usize {
        assert_eq!(ram.bytes()[at * 100_000..][..5000], [at as u8; 5000]);
    }
    assert_eq!(live.jobs().len(), 2);
}

#[test]
fn a_finish_that_fails_keeps_both_layers() {
    let (live, ram, folder) = stack();
    live.push(PATIENCE, |top| Ok(over(top, folder.path()))).unwrap();
    live.write_at(&[3; 10], 20).unwrap();
    let job = live.commit(PATIENCE, |_| Err(Error::lost("the file is gone"))).unwrap();
    job.wait();
    assert!(matches!(job.state(), JobState::Failed(_)));
    assert_eq!(live.layers().len(), 2);
    live.write_at(&[4; 10], 20).unwrap();
    assert_eq!((live.read_vec(20, 10).unwrap(), &ram.bytes()[20..30]), (vec![4; 10], &[3; 10][..]));
}

#[test]
fn what_cannot_be_done_is_refused_with_the_reason() {
    let (live, ram, folder) = stack();
    assert_eq!(live.commit(PATIENCE, |_| Ok(())).unwrap_err().kind(), Kind::Invalid);
    assert_eq!(live.resize(PATIENCE, 10).unwrap_err().problem(), Problem::Refused);
    assert_eq!(live.resize(PATIENCE, 1 << 30).unwrap_err().kind(), Kind::Unsupported);
    assert_eq!(
        Live::new(vec![Layer::read_only("x", ram.clone())]).unwrap_err().kind(),
        Kind::ReadOnly
    );
    let base = Layer::read_only("original", ram.clone());
    let top = over(&base, folder.path());
    let live = Live::new(vec![base, top]).unwrap();
    live.write_at(&[1], 0).unwrap();
    assert_eq!(live.commit(PATIENCE, |_| Ok(())).unwrap_err().kind(), Kind::ReadOnly);
    let job = live.flatten(PATIENCE, |_| Ok(())).unwrap();
    job.wait();
    assert!(matches!(job.state(), JobState::Done));
    ram.fail_reads(true);
    assert_eq!(live.read_vec(0, SIZE).unwrap()[0], 1, "nothing is read from below any more");
}

#[test]
fn a_drain_that_takes_too_long_gives_up_and_all_goes_on() {
    let (live, ram, folder) = stack();
    ram.stall(true);
    let reader = {
        let live = Arc::clone(&live);
        std::thread::spawn(move || live.read_vec(0, 10))
    };
    std::thread::sleep(Duration::from_millis(50));
    let short = Duration::from_millis(50);
    let error = live.push(short, |top| Ok(over(top, folder.path()))).unwrap_err();
    assert_eq!(error.kind(), Kind::Busy);
    ram.stall(false);
    reader.join().unwrap().unwrap();
    live.push(PATIENCE, |top| Ok(over(top, folder.path()))).unwrap();
    live.close(PATIENCE).unwrap();
}
