//! What an export was asked for and what came of it.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($($(#[doc = $doc:expr])* $name:ident,)*) => {
        /// Counts of one export since it was made, over all connections.
        #[derive(Debug, Default)]
        pub struct Counters { $($(#[doc = $doc])* pub $name: AtomicU64,)* }

        impl Counters {
            /// Every counter: name, value, meaning.
            pub fn all(&self) -> Vec<(&'static str, u64, &'static str)> {
                vec![$((stringify!($name), self.$name.load(Ordering::Relaxed),
                        concat!($($doc,)*).trim()),)*]
            }
        }
    };
}

counters! {
    /// Connections that chose this export.
    connections,
    /// Requests of all kinds.
    requests,
    /// Read requests.
    reads,
    /// Bytes of read requests that were answered.
    read_bytes,
    /// Of these, bytes that went from file to socket inside the kernel.
    kernel_bytes,
    /// Of these, bytes that were answered as holes.
    hole_bytes,
    /// Write, zero and trim requests.
    writes,
    /// Write requests that were carried out together with the one before them.
    merged,
    /// Bytes that were written, zeroed or trimmed.
    write_bytes,
    /// Flushes, asked for by themselves or with a write.
    flushes,
    /// Block status requests.
    statuses,
    /// Requests handed to another thread because they would have waited.
    handed_off,
    /// Transfers inside the kernel that failed and were read again by hand.
    retries,
    /// Requests that were answered with an error.
    errors,
}

pub(crate) fn add(counter: &AtomicU64, amount: u64) {
    counter.fetch_add(amount, Ordering::Relaxed);
}
