//! What the counters say of healthy files. Bad ones are in `src/retry/tests.rs`, where a faulty
//! source can stand in for the disk.

use adit_core::{DiskExt, Limits};
use adit_io::{ReadPolicy, open};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

#[test]
fn healthy_reads_and_requests_past_the_end_count_nothing() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), [1; 1000]).unwrap();
    let policy = ReadPolicy::default();
    let disk = open(file.path(), &policy).unwrap();
    disk.read_vec(0, 1000).unwrap();
    assert!(disk.read_vec(999, 2).is_err());
    for counter in [&policy.counters.retried, &policy.counters.recovered, &policy.counters.failed] {
        assert_eq!(counter.load(Ordering::Relaxed), 0);
    }
}

#[test]
fn the_default_is_three_retries_from_50_ms_on_and_copies_share_counters() {
    let policy = ReadPolicy::default();
    assert_eq!((policy.retries, policy.first_delay), (3, Duration::from_millis(50)));
    assert!(Arc::ptr_eq(&policy.counters, &policy.clone().counters));
    let limits = Limits { read_retries_max: 7, ..Limits::default() };
    assert_eq!(ReadPolicy::within(&limits).retries, 7);
}
