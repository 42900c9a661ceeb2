//! The volume manager under VMFS: LVM 3, 4, 5 and 6, read.
//!
//! A VMFS volume lies on 1 to 32 devices. Each device carries a header, a descriptor of the
//! volume and tables of extents at 1 MiB; together the tables say where every byte of the
//! volume is.
//!
//! 1. [`probe`] tells whether a partition is such a device.
//! 2. [`Member::read`] reads one device's tables, checked and joined to few runs.
//! 3. [`assemble`] makes the [`Volume`] of all of them: a disk. A missing device leaves a
//!    hole that fails with its name, and the rest of the volume is read all the same.
//! 4. [`check`] verifies what opening takes on trust; [`Member::inspect`] shows the structures.
//!
//! What is read, written and refused: `README.md` beside this crate.
#![forbid(unsafe_code)]
#![deny(
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]
#![cfg_attr(
    test,
    allow(
        clippy::arithmetic_side_effects,
        clippy::as_conversions,
        clippy::indexing_slicing,
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic
    )
)]

mod assemble;
mod check;
mod cover;
mod header;
mod inspect;
pub mod layout;
mod member;
mod pe;
mod region;

pub use assemble::{MemberInfo, Volume, assemble};
pub use check::check;
pub use header::{DiskId, VolumeIdentity, VolumeState};
pub use member::{Member, probe};
pub use pe::PeRun;
