//! LVM2: physical volumes to logical volumes, read.
//!
//! A physical volume begins with a label; its metadata areas hold a text that describes the
//! whole volume group. The newest text among all members decides.
//!
//! 1. [`probe`] tells whether a disk is a physical volume.
//! 2. [`Member::open`] reads its label and text; [`Member::pv_uuids`] names the others.
//! 3. [`Group::assemble`] makes a [`VolumeTable`](adit_core::VolumeTable) of all members. What
//!    lies on a member that is missing is `Lost`, unless redundancy gives it back.
//! 4. [`Group::open`] keeps the group, to list hidden volumes too.
//!
//! Within: `text` reads the language of the metadata, `metadata` checks what it says,
//! `build` turns segments into disks, `raid`, `thin` and `cache` (over `btree`) and `snapshot` read what
//! device mapper keeps beside the data.
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

mod btree;
mod build;
mod cache;
mod checksum;
mod group;
mod inspect;
pub mod layout;
mod member;
mod metadata;
mod raid;
mod snapshot;
mod text;
mod thin;

pub use group::Group;
pub use member::{Member, probe};
