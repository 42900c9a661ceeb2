//! The control socket: one JSON object a line, each way.
//!
//! A request is `{"cmd": "snapshot", "export": "disk", …}`; the answer is `{"ok": true, …}`, or
//! `{"ok": false, "error": {"kind", "problem", "what", "try"}}`. `export` may be left out where
//! there is one. Only the user who started the server can connect: the socket has mode 0600.
//!
//! | cmd | also | what it does |
//! |---|---|---|
//! | `list` | | exports, sizes, layers |
//! | `stats` | | counters of requests, filters and jobs |
//! | `pause`, `unpause` | | holds requests up; clients wait |
//! | `snapshot` | `name` | freezes what is there under a new layer |
//! | `commit` | `into_original` | merges the top into the layer below, in the background |
//! | `flatten` | | copies the layers below into the top, in the background |
//! | `swap` | `file` | puts another overlay of the same disk in the place of all |
//! | `resize` | `size_bytes` | makes the disk larger |
//! | `ratelimit` | `bytes`, `ops` | changes the limits of the `ratelimit` filter |
//! | `jobs`, `cancel` | `job` | lists and stops background work |
//! | `close` | | takes an export away |

mod commands;
mod socket;

pub use commands::{Keeper, Managed};
pub use socket::{Control, LINE_BYTES_MAX, ask, converse};
