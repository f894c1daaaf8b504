//! Open descriptors, and the last few of them, which clients and connections to servers leave alone.
//!
//! The kernel gives the lowest number that is free (open(2)), so a high number tells that few are left, without any counting. What is kept
//! is for the status listener, health checks, name resolution and logs: those who have to see and end the shortage.

use std::io;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicI32, Ordering::Relaxed};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// How many are kept, where the limit is not very low.
const KEPT: u64 = 32;
/// At most this part of the limit is kept.
const KEPT_PART: u64 = 8;

/// The first number that is kept.
static KEPT_FROM: AtomicI32 = AtomicI32::new(RawFd::MAX);

/// Raises the soft limit of open descriptors to the hard one (getrlimit(2)) and gives what holds then. From now on the last few are kept.
pub fn raise_limit() -> io::Result<u64> {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(
        Resource::Nofile,
        Rlimit {
            current: limit.maximum,
            maximum: limit.maximum,
        },
    )?;
    let limit = limit.maximum.unwrap_or(u64::MAX);
    KEPT_FROM.store(kept_from(limit), Relaxed);
    Ok(limit)
}

fn kept_from(limit: u64) -> RawFd {
    let from = limit - KEPT.min(limit / KEPT_PART);
    RawFd::try_from(from).unwrap_or(RawFd::MAX)
}

/// Whether this is one of those that are kept.
#[inline]
pub fn is_kept(fd: RawFd) -> bool {
    fd >= KEPT_FROM.load(Relaxed)
}

/// Whether something failed for want of what others will give back, descriptors, memory or watches: wait and try again (accept(2), socket(2),
/// `epoll_ctl(2)`).
pub fn is_exhaustion(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM | libc::ENOSPC)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shortages() {
        let of = [libc::EMFILE, libc::ENOMEM, libc::ENOSPC, libc::ECONNREFUSED];
        let told = of.map(|errno| is_exhaustion(&io::Error::from_raw_os_error(errno)));
        assert_eq!(told, [true, true, true, false]);
    }

    #[test]
    fn a_low_limit_keeps_fewer() {
        let cases = [
            (u64::MAX, RawFd::MAX),
            (1 << 20, (1 << 20) - 32),
            (256, 224),
            (64, 56),
            (4, 4),
        ];
        for (limit, from) in cases {
            assert_eq!(kept_from(limit), from, "{limit}");
        }
    }
}
