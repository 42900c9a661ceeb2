//! Exit codes: one table, documented in `docs/exit-codes.md`.

/// Everything asked for was done.
pub const GOOD: u8 = 0;
/// Nothing, or nothing useful, was done; the error says why.
pub const ERROR: u8 = 1;
/// The command line makes no sense (clap exits with the same code).
pub const USAGE: u8 = 2;
/// A result was given, and part of it is missing or damaged; the text says which part.
pub const PARTIAL: u8 = 3;

/// An image contradicts itself; `qemu-img check` has the same code.
pub const CORRUPT: u8 = 2;

/// The worse of two codes: an error beats a partial result, which beats a good one.
pub fn worse(a: u8, b: u8) -> u8 {
    let rank = |code| match code {
        GOOD => 0,
        PARTIAL => 1,
        ERROR => 2,
        _ => 3,
    };
    if rank(a) >= rank(b) { a } else { b }
}
