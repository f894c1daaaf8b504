//! How a shard waits for the kernel: the best `io_uring` set-up that this kernel takes, or epoll.
//!
//! Flags are tried in the order of what they are worth (`io_uring_setup(2)`); a kernel says no by EINVAL. The trial ring has the real size,
//! and there are as many as there will be shards, so that a refusal for memory shows here and not in a shard.

pub mod header;

use std::io;
use std::time::{Duration, Instant};

use io_uring::{Builder, IoUring, Probe, opcode};

use crate::config::keys::RING_ENTRIES_DEFAULT;
use crate::config::{Io, IoMode};

/// Submission entries of a ring where nothing else is asked for: the default of `ring_entries`.
pub const ENTRIES: u32 = RING_ENTRIES_DEFAULT;
const COMPLETIONS_PER_SUBMISSION: u32 = 4;
/// Completion entries at least on kernels before 5.19, unless memory is short.
const COMPLETIONS_PLAIN: u32 = 16 * 1024;
/// The smallest ring that the runtime makes.
const ENTRIES_MIN: u32 = 256;
/// How long the kernel may take to free closed rings. It does so in the background.
const PATIENCE: Duration = Duration::from_millis(500);
const PAUSE: Duration = Duration::from_millis(5);

/// A set of ring flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flags {
    /// Completions are worked off when the shard asks for them, and only then (Linux 6.1).
    DeferTaskrun,
    /// Completions wait for the next kernel entry; one thread submits (Linux 6.0).
    SingleIssuerCoopTaskrun,
    /// Completions wait for the next kernel entry (Linux 5.19).
    CoopTaskrun,
    /// No flags.
    Plain,
}

impl Flags {
    /// Best first.
    pub const ALL: [Self; 4] = [
        Self::DeferTaskrun,
        Self::SingleIssuerCoopTaskrun,
        Self::CoopTaskrun,
        Self::Plain,
    ];

    /// The flags' names as the manual has them.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::DeferTaskrun => "SINGLE_ISSUER|DEFER_TASKRUN|SUBMIT_ALL",
            Self::SingleIssuerCoopTaskrun => "SINGLE_ISSUER|COOP_TASKRUN|SUBMIT_ALL",
            Self::CoopTaskrun => "COOP_TASKRUN|SUBMIT_ALL",
            Self::Plain => "none",
        }
    }

    /// Completion entries beside this many submission entries: a burst must not overflow the queue before the shard looks at it.
    fn completions(self, entries: u32) -> u32 {
        let completions = entries * COMPLETIONS_PER_SUBMISSION;
        match self {
            // Kernels before 5.19 refuse to go on while completions wait for room (EBUSY). A ring that is small for want of memory stays so.
            Self::Plain if entries >= ENTRIES => completions.max(COMPLETIONS_PLAIN),
            _ => completions,
        }
    }

    /// The ring builder for these flags and this size.
    pub fn builder(self, entries: u32) -> Builder {
        let mut builder = IoUring::builder();
        builder
            .setup_cqsize(self.completions(entries))
            .setup_clamp();
        match self {
            Self::DeferTaskrun => {
                builder
                    .setup_single_issuer()
                    .setup_defer_taskrun()
                    .setup_submit_all();
            }
            Self::SingleIssuerCoopTaskrun => {
                builder
                    .setup_single_issuer()
                    .setup_coop_taskrun()
                    .setup_submit_all();
            }
            Self::CoopTaskrun => {
                builder.setup_coop_taskrun().setup_submit_all();
            }
            Self::Plain => {}
        }
        builder
    }
}

/// How all shards wait for the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Driver {
    /// `io_uring` with these flags and submission entries.
    Uring {
        /// The best set that the kernel took.
        flags: Flags,
        /// Submission entries of each ring.
        entries: u32,
        /// Why the ring is smaller than configured.
        note: Option<String>,
    },
    /// epoll.
    Epoll {
        /// Why not `io_uring`; `None` when the configuration asks for epoll.
        reason: Option<String>,
    },
}

/// Decides how the shards wait for the kernel. An error is the sentence that says why `io = "uring"` cannot be had.
/// To be asked with the privileges that the shards will have.
pub fn choose(io: &Io, shards: usize) -> Result<Driver, String> {
    if io.mode == IoMode::Epoll {
        return Ok(Driver::Epoll { reason: None });
    }
    // A ring with SINGLE_ISSUER belongs to the thread that makes it, so the trial has a thread of its own.
    let entries = io.ring_entries;
    let trial = std::thread::spawn(move || try_rings(entries, shards)).join();
    match trial.unwrap_or_else(|_| Err("the trial of io_uring panicked".to_owned())) {
        Ok(driver) => Ok(driver),
        Err(reason) if io.mode == IoMode::Auto => Ok(Driver::Epoll {
            reason: Some(reason),
        }),
        Err(reason) => Err(reason),
    }
}

fn try_rings(wanted: u32, shards: usize) -> Result<Driver, String> {
    let mut entries = wanted.max(ENTRIES_MIN);
    let mut remaining = Flags::ALL.iter().copied().peekable();
    while let Some(flags) = remaining.peek().copied() {
        match patiently(|| build(flags, entries, shards)) {
            Ok(rings) => {
                rings.first().map_or(Ok(()), require_operations)?;
                let note = (entries < wanted)
                    .then(|| format!("the ring has {entries} entries instead of {wanted}: RLIMIT_MEMLOCK is too low (LimitMEMLOCK=infinity lifts it)"));
                return Ok(Driver::Uring {
                    flags,
                    entries,
                    note,
                });
            }
            Err(error) => match error.raw_os_error() {
                Some(libc::EINVAL) => {
                    remaining.next();
                }
                Some(libc::ENOMEM) if entries > ENTRIES_MIN => {
                    entries = (entries / 2).max(ENTRIES_MIN);
                }
                _ => return Err(explain(&error)),
            },
        }
    }
    Err("this kernel refuses io_uring with every set of flags (EINVAL)".to_owned())
}

/// All at once: locked memory is counted for the user, not for each ring.
fn build(flags: Flags, entries: u32, shards: usize) -> io::Result<Vec<IoUring>> {
    header::alone(|| {
        (0..shards)
            .map(|_| flags.builder(entries).build(entries))
            .collect()
    })
}

/// Makes rings where others may just have been closed, by this process or by one before it. They count as locked memory until the kernel has
/// freed them, so a refusal for memory is no answer yet.
pub fn patiently<R>(mut attempt: impl FnMut() -> io::Result<R>) -> io::Result<R> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match attempt() {
            Err(error)
                if error.raw_os_error() == Some(libc::ENOMEM) && Instant::now() < deadline =>
            {
                std::thread::sleep(PAUSE);
            }
            result => return result,
        }
    }
}

/// The runtime needs these operations, and a wait with timeout in the enter call (`IORING_FEAT_EXT_ARG`, Linux 5.11 and 5.10.162).
fn require_operations(ring: &IoUring) -> Result<(), String> {
    const NEEDED: [(u8, &str); 7] = [
        (opcode::Accept::CODE, "ACCEPT"),
        (opcode::PollAdd::CODE, "POLL_ADD"),
        (opcode::Send::CODE, "SEND"),
        (opcode::Recv::CODE, "RECV"),
        (opcode::Close::CODE, "CLOSE"),
        (opcode::AsyncCancel::CODE, "ASYNC_CANCEL"),
        (opcode::Timeout::CODE, "TIMEOUT"),
    ];
    if !ring.params().is_feature_ext_arg() {
        return Err("this kernel's io_uring is too old: it lacks IORING_FEAT_EXT_ARG (Linux 5.11, or 5.10.162)".to_owned());
    }
    let mut probe = Probe::new();
    ring.submitter()
        .register_probe(&mut probe)
        .map_err(|error| explain(&error))?;
    match NEEDED.iter().find(|(code, _)| !probe.is_supported(*code)) {
        Some((_, name)) => Err(format!("this kernel's io_uring lacks the operation {name}")),
        None => Ok(()),
    }
}

/// The likely cause of a refusal, and what lifts it.
fn explain(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => match disabled_setting().as_deref() {
            Some("2") => "io_uring is forbidden: kernel.io_uring_disabled=2 (sysctl -w kernel.io_uring_disabled=0 allows it)".to_owned(),
            Some("1") => "io_uring is forbidden: kernel.io_uring_disabled=1 and the process is neither in kernel.io_uring_group nor has CAP_SYS_ADMIN"
                .to_owned(),
            _ => "io_uring is forbidden: a seccomp profile (containers have one by default) or a security module refuses io_uring_setup".to_owned(),
        },
        Some(libc::ENOSYS) => "this kernel has no io_uring, or a seccomp profile or sandbox hides it".to_owned(),
        Some(libc::ENOMEM) => "the memory for a ring cannot be locked: raise RLIMIT_MEMLOCK (LimitMEMLOCK=infinity, ulimit -l)".to_owned(),
        Some(libc::EMFILE | libc::ENFILE) => "no file descriptor is left for a ring: raise RLIMIT_NOFILE or fs.file-max".to_owned(),
        _ => format!("io_uring_setup failed: {error}"),
    }
}

fn disabled_setting() -> Option<String> {
    Some(
        std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled")
            .ok()?
            .trim()
            .to_owned(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_names_a_cause() {
        let cases = [
            (libc::EPERM, "forbidden"),
            (libc::ENOSYS, "no io_uring"),
            (libc::ENOMEM, "RLIMIT_MEMLOCK"),
            (libc::EMFILE, "RLIMIT_NOFILE"),
        ];
        for (errno, part) in cases {
            let text = explain(&io::Error::from_raw_os_error(errno));
            assert!(text.contains(part), "{text}");
        }
    }

    #[test]
    fn epoll_is_chosen_without_a_trial() {
        let io = Io {
            mode: IoMode::Epoll,
            ring_entries: 4096,
            accepts: 1,
        };
        assert_eq!(choose(&io, 1), Ok(Driver::Epoll { reason: None }));
    }
}
