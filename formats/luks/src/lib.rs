//! Disks encrypted with LUKS1 and LUKS2, read.
//!
//! 1. [`probe`] tells whether a disk begins with a LUKS header.
//! 2. [`Luks::open`] reads it; [`Luks::open_detached`] takes the header from another disk.
//! 3. [`Luks::unlock`] turns a passphrase into the plain disk, which decrypts as it is read.
//! 4. [`Cipher`] is what does so; [`Luks::unlock_cipher`] gives it to formats that keep their
//!    encrypted sectors in places of their own, and [`Cipher::qcow_legacy`] is QCOW2's older one.
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

mod cipher;
mod disk;
mod header;
mod header1;
mod header2;
mod inspect;
mod kdf;
mod luks;

pub use cipher::Cipher;
pub use kdf::Bounds;
pub use luks::{Luks, probe};
