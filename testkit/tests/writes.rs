//! The engine of writes, under a format small enough to be wrong on purpose.

mod toy;

use adit_core::{Disk, MemoryDisk, Writable, WritableDisk};
use adit_testkit::{Model, World};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use toy::{Fault, SIZE, Toy, UNIT};

fn parent() -> (Vec<u8>, Arc<dyn Disk>) {
    let bytes: Vec<u8> = (0..SIZE as usize - 3000).map(|at| (at / 7) as u8).collect();
    let mut whole = bytes.clone();
    whole.resize(SIZE as usize, 0);
    (whole, MemoryDisk::open("parent", bytes))
}

/// A medium that holds an empty image, durably.
fn empty() -> World {
    World::of(vec![vec![0; UNIT as usize]])
}

/// Runs a workload and opens what every power cut leaves.
fn survive(fault: Fault, parent: Option<Arc<dyn Disk>>, mut model: Model, steps: usize) {
    let world = empty();
    let disk = Writable::new(Toy::open(world.file(0), parent.clone(), fault));
    model.run(&disk, steps, Some(&world));
    model.verify(&disk);
    let mut count = 0;
    for cut in world.cuts(7, 24) {
        let after = World::of(cut.images);
        let disk = Writable::new(Toy::open(after.file(0), parent.clone(), Fault::None));
        model.verify_cut(&disk, cut.acknowledged);
        count += 1;
    }
    assert!(count > 100, "only {count} states");
}

#[test]
fn random_writes_read_back_and_survive_every_power_cut() {
    for seed in 1..4 {
        survive(Fault::None, None, Model::new(SIZE as usize, seed), 60);
    }
}

#[test]
fn writes_over_a_parent_keep_what_they_do_not_touch() {
    let (bytes, parent) = parent();
    survive(Fault::None, Some(parent), Model::of(bytes, 5), 60);
}

/// The first write to some unit, then a cut.
fn bites(fault: Fault) -> bool {
    catch_unwind(AssertUnwindSafe(|| {
        for seed in 1..6 {
            survive(fault, None, Model::new(SIZE as usize, seed), 60);
        }
    }))
    .is_err()
}

#[test]
fn a_place_recorded_before_it_is_filled_is_found_out() {
    assert!(bites(Fault::RecordsEarly));
}

#[test]
fn space_given_out_before_its_release_is_durable_is_found_out() {
    assert!(bites(Fault::ReusesEarly));
}

#[test]
fn threads_that_write_one_new_unit_at_once_lose_nothing() {
    let (mut bytes, parent) = parent();
    let world = empty();
    let disk = Writable::new(Toy::open(world.file(0), Some(parent), Fault::None));
    std::thread::scope(|scope| {
        for thread in 0..4u64 {
            let disk = &disk;
            scope.spawn(move || {
                for unit in 0..SIZE / UNIT {
                    let buf = [thread as u8 + 1; 1024];
                    disk.write_at(&buf, unit * UNIT + thread * 1024).unwrap();
                    if unit % 16 == thread {
                        disk.flush().unwrap();
                    }
                }
            });
        }
    });
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = (at as u64 % UNIT / 1024) as u8 + 1;
    }
    Model::of(bytes, 0).verify(&disk);
}

#[test]
fn a_failed_flush_stays_failed() {
    let world = empty();
    let disk = Writable::new(Toy::open(world.file(0), None, Fault::None));
    disk.write_at(&[1; 4096], 0).unwrap();
    world.fail_after(Some(0));
    assert!(disk.flush().is_err());
    world.fail_after(None);
    assert!(disk.flush().is_err(), "the second flush hid the first one's failure");
}
