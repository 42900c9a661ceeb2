//! Volumes encrypted with BitLocker, read.
//!
//! 1. [`probe`] tells whether a volume's first sector says so: Vista, Windows 7 and later, To Go.
//! 2. [`BitLocker::open`] reads the first whole one of three copies of the metadata.
//! 3. [`BitLocker::unlock`] turns what the user knows into the plain disk: a password, a recovery
//!    password of 48 digits, or the bytes of a `.BEK` file. [`BitLocker::unlock_suspended`] needs
//!    nothing, as protection was suspended and the key stands in the clear.
//!
//! Keys are wiped from memory when they are no longer needed, and no message holds one.
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

mod diffuser;
mod disk;
mod entries;
mod header;
mod inspect;
mod keys;
mod metadata;
mod sectors;
mod volume;

pub use volume::{BitLocker, Protector, probe};
