//! The shard's tick: a timerfd, so that the runtime needs no timers (with one alive it reads the clock twice a loop turn).

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

use super::socket::Socket;

/// A timer that goes off again and again.
#[derive(Debug)]
pub struct Interval {
    timer: Socket,
}

impl Interval {
    /// Goes off every `period` from now on.
    pub fn new(period: Duration) -> io::Result<Self> {
        // SAFETY: no pointers are passed; the result is checked.
        let fd = unsafe {
            libc::timerfd_create(
                libc::CLOCK_MONOTONIC,
                libc::TFD_NONBLOCK | libc::TFD_CLOEXEC,
            )
        };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor was just made and nobody else has it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        let period = libc::timespec {
            tv_sec: period.as_secs() as libc::time_t,
            tv_nsec: libc::c_long::from(period.subsec_nanos() as i32),
        };
        let setting = libc::itimerspec {
            it_interval: period,
            it_value: period,
        };
        // SAFETY: `setting` lives through the call; a null old value is allowed.
        if unsafe {
            libc::timerfd_settime(fd.as_raw_fd(), 0, &raw const setting, std::ptr::null_mut())
        } < 0
        {
            return Err(io::Error::last_os_error());
        }
        Ok(Self {
            timer: Socket::new(fd)?,
        })
    }

    /// Waits until it has gone off, and gives how often since the last call (at least once).
    pub async fn tick(&self) -> io::Result<u32> {
        loop {
            self.timer.readable().await?;
            let mut times = 0u64;
            // SAFETY: the kernel writes eight bytes into `times`, which lives through the call (timerfd_create(2)).
            let read = unsafe { libc::read(self.timer.as_raw_fd(), (&raw mut times).cast(), 8) };
            if read == 8 {
                return Ok(u32::try_from(times).unwrap_or(u32::MAX));
            }
            let error = io::Error::last_os_error();
            if !matches!(
                error.kind(),
                io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
            ) {
                return Err(error);
            }
        }
    }
}
