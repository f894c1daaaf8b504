//! What the kernel knows about this process, from proc(5).

use std::fs;
use std::time::Duration;

/// Clock ticks a second in `/proc/*/stat`. Linux gives user space 100 on all machines that have `io_uring`.
const TICKS_PER_SECOND: u64 = 100;

/// Use of CPU, memory and descriptors. What could not be read is `None`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Process {
    /// User and system time of all threads, past ones included.
    pub cpu: Option<Duration>,
    /// Resident memory, bytes.
    pub resident_bytes: Option<u64>,
    /// Address space, bytes.
    pub virtual_bytes: Option<u64>,
    /// Open descriptors, the one that counts them not included.
    pub open_fds: Option<u64>,
    /// The soft limit of descriptors.
    pub max_fds: Option<u64>,
    /// Threads.
    pub threads: Option<u64>,
}

impl Process {
    /// Reads the present values.
    pub fn read() -> Self {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
        Self {
            cpu: fs::read_to_string("/proc/self/stat")
                .ok()
                .and_then(|stat| cpu_time(&stat)),
            resident_bytes: status_number(&status, "VmRSS:").map(|kib| kib * 1024),
            virtual_bytes: status_number(&status, "VmSize:").map(|kib| kib * 1024),
            open_fds: fs::read_dir("/proc/self/fd")
                .ok()
                .map(|fds| fds.count().saturating_sub(1) as u64),
            max_fds: status_number(&limits, "Max open files"),
            threads: status_number(&status, "Threads:"),
        }
    }
}

/// The CPU time of one thread of this process; `None` once it has ended.
///
/// `schedstat` has nanoseconds; kernels without it have ticks of 10 ms in `stat`.
pub fn thread_cpu_time(thread_id: u32) -> Option<Duration> {
    let directory = format!("/proc/self/task/{thread_id}");
    let schedstat = fs::read_to_string(format!("{directory}/schedstat")).ok();
    schedstat
        .and_then(|text| run_time(&text))
        .or_else(|| cpu_time(&fs::read_to_string(format!("{directory}/stat")).ok()?))
}

/// The first number of `schedstat`: nanoseconds on a CPU.
fn run_time(schedstat: &str) -> Option<Duration> {
    schedstat
        .split_ascii_whitespace()
        .next()?
        .parse()
        .ok()
        .map(Duration::from_nanos)
}

/// Fields 14 and 15 of `stat`, utime and stime. The second field is a name in parentheses that may hold anything.
fn cpu_time(stat: &str) -> Option<Duration> {
    let mut after_name = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    let mut ticks = || after_name.next()?.parse::<u64>().ok();
    let ticks = ticks()? + ticks()?;
    Some(Duration::from_millis(ticks * (1000 / TICKS_PER_SECOND)))
}

/// The first number of the line that starts so. `None` for "unlimited".
fn status_number(text: &str, start: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(start))?;
    rest.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::thread;
    use std::time::Instant;

    use super::*;

    #[test]
    fn parses_what_proc_says() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194304 10 0 0 0 123 45 0 0 20 0 9 0 100 1000 10";
        assert_eq!(cpu_time(stat), Some(Duration::from_millis(1680)));
        assert_eq!(
            run_time("2500000 17 3\n"),
            Some(Duration::from_micros(2500))
        );
        assert_eq!(
            status_number("VmPeak:\t  9 kB\nVmRSS:\t    1234 kB\n", "VmRSS:"),
            Some(1234)
        );
        assert_eq!(
            status_number(
                "Max open files            1024                 4096    files\n",
                "Max open files"
            ),
            Some(1024)
        );
        assert_eq!(
            status_number(
                "Max open files            unlimited    unlimited    files\n",
                "Max open files"
            ),
            None
        );
        for broken in ["", "7", "7 (a", "7 (a) S 1 2"] {
            assert_eq!(cpu_time(broken), None, "{broken:?}");
        }
    }

    #[test]
    fn reads_itself() {
        let process = Process::read();
        assert!(
            process.resident_bytes.is_some_and(|bytes| bytes > 100_000),
            "{process:?}"
        );
        assert!(process.open_fds.is_some_and(|fds| fds >= 3), "{process:?}");
        assert!(
            process.virtual_bytes > process.resident_bytes,
            "{process:?}"
        );
        assert!(
            process.cpu.is_some() && process.threads.is_some(),
            "{process:?}"
        );
    }

    #[test]
    fn a_busy_thread_gains_cpu_time_and_an_ended_one_has_none() {
        let (id, gained) = thread::spawn(|| {
            // The link reads "PID/task/TID".
            let link = fs::read_link("/proc/thread-self").expect("proc is mounted");
            let id = link
                .file_name()
                .and_then(|id| id.to_str()?.parse().ok())
                .expect("a thread id");
            let before = thread_cpu_time(id).expect("it runs");
            let start = Instant::now();
            let mut now = before;
            while now <= before && start.elapsed() < Duration::from_secs(10) {
                now = thread_cpu_time(id).expect("it runs");
            }
            (id, now > before)
        })
        .join()
        .expect("no panic");
        assert!(gained);
        // The kernel may still be at ending the thread when join returns.
        let deadline = Instant::now() + Duration::from_secs(10);
        while thread_cpu_time(id).is_some() && Instant::now() < deadline {
            thread::yield_now();
        }
        assert_eq!(thread_cpu_time(id), None);
    }
}
