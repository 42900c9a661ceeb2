//! The one table between [`Kind`] and the error numbers of the protocol.

use crate::protocol::errno;
use adit_core::{Error, Kind, Problem};

/// What a client is told. The text goes along where the reply has room for it.
pub(crate) fn number_of(error: &Error) -> u32 {
    // ENOSPC, EDQUOT and EFBIG all mean to a client that there is no more room.
    const NO_ROOM: [i32; 3] = [28, 122, 27];
    if error.os_code().is_some_and(|code| NO_ROOM.contains(&code)) {
        return errno::ENOSPC;
    }
    match error.kind() {
        Kind::Denied | Kind::ReadOnly => errno::EPERM,
        Kind::Invalid => errno::EINVAL,
        Kind::Limit => errno::ENOMEM,
        Kind::Interrupted => errno::ESHUTDOWN,
        _ => errno::EIO,
    }
}

/// The way back, for our client.
pub(crate) fn error_of(number: u32, message: &str) -> Error {
    let (kind, problem, word) = match number {
        errno::EPERM => (Kind::Denied, Problem::Refused, "EPERM"),
        errno::EINVAL => (Kind::Invalid, Problem::Refused, "EINVAL"),
        errno::ENOMEM => (Kind::Limit, Problem::TooMany, "ENOMEM"),
        errno::ENOSPC => (Kind::Io, Problem::Unwritable, "ENOSPC"),
        errno::ENOTSUP => (Kind::Unsupported, Problem::NotSupported, "ENOTSUP"),
        errno::ESHUTDOWN => (Kind::Busy, Problem::Stopped, "ESHUTDOWN"),
        _ => (Kind::Io, Problem::Unreadable, "EIO"),
    };
    let said = if message.is_empty() { String::new() } else { format!(": {message}") };
    Error::new(kind, problem, format!("the NBD server answered {word} ({number}){said}"))
}

/// Text that a stranger sent: bounded, and nothing in it that moves a terminal's cursor.
pub(crate) fn tame(text: &[u8]) -> String {
    const CHARS_MAX: usize = 400;
    String::from_utf8_lossy(text)
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(CHARS_MAX)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_told_apart_from_a_bad_one() {
        let full = std::io::Error::from_raw_os_error(28);
        assert_eq!(number_of(&Error::io(Problem::Unwritable, "x", &full)), errno::ENOSPC);
        assert_eq!(number_of(&Error::lost("x")), errno::EIO);
        assert_eq!(number_of(&Error::new(Kind::ReadOnly, Problem::Refused, "x")), errno::EPERM);
    }

    #[test]
    fn a_message_cannot_carry_control_characters() {
        assert_eq!(tame(b"a\x1b[2Jb\nc"), "a [2Jb c");
        assert_eq!(tame(&[b'x'; 10_000]).len(), 400);
    }
}
