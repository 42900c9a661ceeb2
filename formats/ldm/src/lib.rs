//! Dynamic disks of Windows: the Logical Disk Manager (LDM), read.
//!
//! Each disk of a group carries a private header and a copy of one database, which describes all
//! disks and volumes of the group: a volume has components (its copies), a component has
//! partitions, a partition lies on a disk.
//!
//! 1. [`probe`] tells whether a whole disk is dynamic.
//! 2. [`Member::open`] reads its header and database; [`Member::disk_ids`] names the others.
//! 3. [`Group::assemble`] makes a [`VolumeTable`](adit_core::VolumeTable) of all members.
//!
//! What is read and refused: `README.md` beside this crate.
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

mod group;
mod inspect;
pub mod layout;
mod member;
mod objects;

pub use group::Group;
pub use member::{Member, probe};
