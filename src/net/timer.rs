//! The shard's tick: a timerfd, so that the runtime needs no timers (with one alive it reads the clock twice a loop turn).

use std::io;
use std::time::Duration;

use rustix::io::Errno;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};

use super::socket::Socket;

/// A timer that goes off again and again.
#[derive(Debug)]
pub struct Interval {
    timer: Socket,
}

impl Interval {
    /// Goes off every `period` from now on.
    pub fn new(period: Duration) -> io::Result<Self> {
        let timer = timerfd_create(
            TimerfdClockId::Monotonic,
            TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC,
        )?;
        let period = Timespec {
            tv_sec: period.as_secs() as i64,
            tv_nsec: i64::from(period.subsec_nanos()),
        };
        let setting = Itimerspec {
            it_interval: period,
            it_value: period,
        };
        timerfd_settime(&timer, TimerfdTimerFlags::empty(), &setting)?;
        Ok(Self {
            timer: Socket::new(timer)?,
        })
    }

    /// Waits until it has gone off, and gives how often since the last call (at least once).
    pub async fn tick(&self) -> io::Result<u32> {
        loop {
            self.timer.readable().await?;
            let mut times = [0; 8];
            match rustix::io::read(&self.timer, &mut times) {
                // Eight bytes in the host's order (timerfd_create(2)).
                Ok(_) => return Ok(u32::try_from(u64::from_ne_bytes(times)).unwrap_or(u32::MAX)),
                Err(Errno::AGAIN | Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}
