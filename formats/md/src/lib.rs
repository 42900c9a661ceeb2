//! Linux software RAID (md), and the RAID arithmetic that other volume managers share.
//!
//! Each device of an array carries a superblock that says which array it is of, what it is in
//! it, and when its state last changed.
//!
//! 1. [`probe`] tells whether a disk is such a device.
//! 2. [`Member::open`] reads its superblock; [`Member::array_uuid`] and
//!    [`Member::member_count`] tell which others to look for.
//! 3. [`Group::assemble`] makes the array: a [`VolumeTable`](adit_core::VolumeTable) of one
//!    volume.
//! 4. [`raid`] is the arithmetic: any RAID level over any disks.
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

mod assemble;
mod inspect;
pub mod layout;
mod member;
pub mod raid;
mod superblock;

pub use assemble::Group;
pub use member::{Member, probe};
pub use superblock::{Role, Version};
