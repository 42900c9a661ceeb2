//! Disks over the Network Block Device protocol, both ways.
//!
//! - [`Server`]: offers [`Export`]s on Unix sockets, TCP and sockets of the service manager.
//!   `server/handshake.rs` haggles, `server/session.rs` takes requests, `server/read.rs` moves
//!   the bytes, `server/context.rs` tells what is a hole.
//! - [`Counters`]: what an export was asked for.
//! - [`Control`]: a socket on which exports are listed, paused, snapshot, merged and changed while
//!   they are served; [`control`] tells what can be asked.
//! - [`NbdDisk`]: another server's export as a [`adit_core::Disk`]; [`Address`] is its URI.
//!
//! Threads, no futures; nothing is allocated per request; neither side trusts the other.
#![forbid(unsafe_code)]

mod client;
pub mod control;
mod counters;
mod errors;
mod export;
mod protocol;
mod pump;
mod server;
mod socket;

pub use client::{Address, ClientCounters, ClientOptions, NbdDisk, SCHEMES, open_uri};
pub use control::{Control, Keeper, Managed};
pub use counters::Counters;
pub use export::Export;
pub use server::{Server, ServerOptions, Tls};
