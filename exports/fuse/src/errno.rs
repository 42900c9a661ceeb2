//! From errors to the numbers programs understand, in one table.

use adit_core::{Error, Kind};
use fuser::Errno;
use rustix::io::Errno as Os;

/// The error number for an error. `NotFound` has a number, but is no incident.
pub(crate) fn errno(error: &Error) -> Errno {
    match error.kind() {
        Kind::Io => error.os_code().and_then(passed_on).unwrap_or(Errno::EIO),
        Kind::Corrupt | Kind::Lost => Errno::EIO,
        Kind::Unsupported => Errno::EOPNOTSUPP,
        Kind::NotFound => Errno::ENOENT,
        Kind::Denied => Errno::EACCES,
        Kind::ReadOnly => Errno::EROFS,
        Kind::Limit => Errno::EOVERFLOW,
        Kind::Busy => Errno::EBUSY,
        Kind::Invalid => Errno::EINVAL,
        Kind::Interrupted => Errno::EINTR,
        _ => Errno::EIO,
    }
}

/// Numbers of the system that mean the same when the kernel hears them from a server. Others do
/// not: after `ENOSYS` it never asks again, and `EAGAIN` makes readers spin.
fn passed_on(code: i32) -> Option<Errno> {
    const KNOWN: [Os; 8] = [
        Os::NOMEM,
        Os::NXIO,
        Os::NODEV,
        Os::STALE,
        Os::TIMEDOUT,
        Os::NOMEDIUM,
        Os::REMOTEIO,
        Os::HOSTUNREACH,
    ];
    KNOWN.iter().any(|known| known.raw_os_error() == code).then(|| Errno::from_i32(code))
}

#[cfg(test)]
mod tests {
    use super::*;
    use adit_core::Problem;

    #[test]
    fn lost_and_corrupt_bytes_are_an_input_output_error() {
        assert_eq!(errno(&Error::lost("x")), Errno::EIO);
        assert_eq!(errno(&Error::corrupt(Problem::BadValue, "x")), Errno::EIO);
    }

    #[test]
    fn no_number_of_the_system_reaches_the_kernel_that_would_mislead_it() {
        let of = |code| {
            let os = std::io::Error::from_raw_os_error(code);
            errno(&Error::io(Problem::Unreadable, "reading", &os))
        };
        assert_eq!(of(Os::NOSYS.raw_os_error()), Errno::EIO);
        assert_eq!(of(Os::AGAIN.raw_os_error()), Errno::EIO);
        assert_eq!(of(512), Errno::EIO);
        assert_eq!(of(Os::STALE.raw_os_error()).code(), Os::STALE.raw_os_error());
    }
}
