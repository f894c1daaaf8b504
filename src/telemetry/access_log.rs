//! The access log: one line a request, written by a thread of its own.
//!
//! Each shard formats into buffers of its own and hands full ones to the writer through a bounded channel; they come back
//! when written. A shard never waits: while all its buffers are with the writer, lines are dropped and counted. So a slow
//! disk costs lines, never requests, and each shard holds `buffer_bytes` and a little.

use std::cell::RefCell;
use std::io;
use std::mem;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use super::access_format::{self, Stamp};
use super::access_sink::{Sink, line_count};
use super::counters::ShardCounters;
use crate::config::{self, AccessFormat};

/// Buffers of each shard: one filling, one being written, two waiting.
const BUFFERS: usize = 4;
/// Buffers of all shards that may wait for the writer.
const QUEUE: usize = 1024;
/// A failing disk is reported once in this time.
const REPORT_EVERY: Duration = Duration::from_secs(60);
/// How often a wait for the writer looks whether it is to go on.
const FINISH_STEP: Duration = Duration::from_millis(5);

/// The capacity of a buffer: it is handed over once it holds a chunk, so most lines that end beyond it must fit.
fn buffer_bytes(chunk_bytes: usize) -> usize {
    chunk_bytes + 2048
}

/// What the access log says about one request. Bytes from peers may be anything; empty is absent.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// The client.
    pub client: IpAddr,
    /// The method; empty when the request could not be read.
    pub method: &'a [u8],
    /// The request target as received.
    pub target: &'a [u8],
    /// 0 or 1, of HTTP/1; of no meaning when the request could not be read.
    pub minor_version: u8,
    /// The status that the client got; 0 when it got none.
    pub status: u16,
    /// Bytes of body sent to the client, without framing.
    pub body_bytes_sent: u64,
    /// The Referer field.
    pub referer: &'a [u8],
    /// The User-Agent field.
    pub user_agent: &'a [u8],
    /// The Host field or the target's authority.
    pub host: &'a [u8],
    /// The upstream's name; empty when none was chosen.
    pub upstream: &'a str,
    /// The name of the server that answered; empty when none did.
    pub server: &'a str,
    /// Microseconds from the request's first byte to the response's last.
    pub duration_us: u64,
    /// Microseconds until the server's response head, of the last attempt.
    pub upstream_us: u64,
    /// Attempts after the first.
    pub retries: u32,
    /// Whether the last attempt went over a pooled connection.
    pub reused: bool,
}

/// A buffer on its way to the writer.
struct Batch {
    bytes: Vec<u8>,
    back: SyncSender<Written>,
}

/// A buffer on its way back, with the number of its lines that could not be written.
struct Written {
    buffer: Vec<u8>,
    lost: u64,
}

/// An access log that is open, without its writer: opening it may take privileges that a thread must not have.
pub struct Opened {
    sink: Sink,
    format: AccessFormat,
    buffer_bytes: usize,
}

impl Opened {
    /// Opens the log for appending. The error names the file.
    pub fn new(config: &config::AccessLog) -> io::Result<Self> {
        Ok(Self {
            sink: Sink::open(config.path.clone())?,
            format: config.format,
            buffer_bytes: config.buffer_bytes,
        })
    }
}

/// The running access log. Its thread ends once it is dropped and every shard's part is gone.
pub struct AccessLog {
    batches: SyncSender<Batch>,
    format: AccessFormat,
    chunk_bytes: usize,
    /// The writer is to open its file again.
    reopen: Arc<AtomicBool>,
}

impl AccessLog {
    /// Starts the writer.
    pub fn start(opened: Opened) -> io::Result<Self> {
        let Opened {
            sink,
            format,
            buffer_bytes: total_bytes,
        } = opened;
        let (batches, received) = sync_channel(QUEUE);
        let chunk_bytes = (total_bytes / BUFFERS).max(1);
        let reopen = Arc::new(AtomicBool::new(false));
        let mut writer = Writer {
            reopen: Arc::clone(&reopen),
            sink,
            buffer_bytes: buffer_bytes(chunk_bytes),
            reported: None,
            lost: 0,
        };
        thread::Builder::new()
            .name("access-log".into())
            .spawn(move || writer.run(&received))?;
        Ok(Self {
            batches,
            format,
            chunk_bytes,
            reopen,
        })
    }

    /// Has the file opened again by its name, which a rotation has given to a new one. Lines handed over before may go there, too.
    pub fn reopen(&self) {
        self.reopen.store(true, Relaxed);
        let (back, _) = sync_channel(1);
        // Wakes the writer. When there is no room it is awake.
        let _ = self.batches.try_send(Batch {
            bytes: Vec::new(),
            back,
        });
    }

    /// One shard's part; lost lines count in its `access_log_dropped`.
    pub fn shard(&self, counters: Arc<ShardCounters>) -> ShardAccessLog {
        let (back, free) = sync_channel(BUFFERS);
        let lines = Lines {
            buffer: Vec::with_capacity(buffer_bytes(self.chunk_bytes)),
            spare: (1..BUFFERS)
                .map(|_| Vec::with_capacity(buffer_bytes(self.chunk_bytes)))
                .collect(),
            stamp: Stamp::new(SystemTime::now()),
        };
        ShardAccessLog {
            lines: RefCell::new(lines),
            format: self.format,
            chunk_bytes: self.chunk_bytes,
            batches: self.batches.clone(),
            back,
            free,
            counters,
        }
    }

    /// Waits up to `patience` until all that the shards have handed over is written; a part that is dropped hands over its last lines.
    /// False when the writer is still busy, say with a pipe that nobody reads, and when `is_hurried` says so meanwhile.
    pub fn finish(&self, patience: Duration, is_hurried: impl Fn() -> bool) -> bool {
        let deadline = Instant::now() + patience;
        // An empty batch comes back when all before it are written.
        let (back, written) = sync_channel(1);
        let mut last = Batch {
            bytes: Vec::new(),
            back,
        };
        let is_over = || Instant::now() >= deadline || is_hurried();
        while let Err(TrySendError::Full(batch)) = self.batches.try_send(last) {
            if is_over() {
                return false;
            }
            thread::sleep(FINISH_STEP);
            last = batch;
        }
        loop {
            match written.recv_timeout(FINISH_STEP) {
                Ok(_) => return true,
                Err(RecvTimeoutError::Timeout) if !is_over() => {}
                Err(_) => return false,
            }
        }
    }
}

/// One shard's part of the access log. It stays on the shard's thread.
pub struct ShardAccessLog {
    lines: RefCell<Lines>,
    format: AccessFormat,
    chunk_bytes: usize,
    batches: SyncSender<Batch>,
    back: SyncSender<Written>,
    free: Receiver<Written>,
    counters: Arc<ShardCounters>,
}

struct Lines {
    buffer: Vec<u8>,
    /// Empty buffers. These, `buffer` and those with the writer are always [`BUFFERS`].
    spare: Vec<Vec<u8>>,
    stamp: Stamp,
}

impl ShardAccessLog {
    /// Adds a line, dated at the last [`Self::flush`].
    pub fn record(&self, record: &Record<'_>) {
        let lines = &mut *self.lines.borrow_mut();
        if lines.buffer.len() >= self.chunk_bytes && !self.hand_over(lines) {
            self.counters.access_log_dropped.inc();
            return;
        }
        access_format::line(&mut lines.buffer, self.format, &lines.stamp, record);
        if lines.buffer.len() >= self.chunk_bytes {
            self.hand_over(lines);
        }
    }

    /// Hands over the lines that wait, and takes the time for those to come. The sweeper calls it a few times a second.
    pub fn flush(&self) {
        let lines = &mut *self.lines.borrow_mut();
        lines.stamp.update(SystemTime::now());
        self.hand_over(lines);
    }

    /// Hands over the last lines, and counts those that nobody takes. Dropping it does that too; a shard that dies drops nothing.
    pub fn end(&self) {
        let Ok(mut lines) = self.lines.try_borrow_mut() else {
            return;
        };
        if !self.hand_over(&mut lines) {
            self.counters
                .access_log_dropped
                .add(line_count(&lines.buffer));
            lines.buffer.clear();
        }
    }

    /// Lines dropped or lost so far.
    pub fn dropped(&self) -> u64 {
        self.counters.access_log_dropped.get()
    }

    /// Swaps the buffer for an empty one. False when there is none or the writer's queue is full.
    fn hand_over(&self, lines: &mut Lines) -> bool {
        while let Ok(written) = self.free.try_recv() {
            self.counters.access_log_dropped.add(written.lost);
            lines.spare.push(written.buffer);
        }
        if lines.buffer.is_empty() {
            return true;
        }
        let Some(empty) = lines.spare.pop() else {
            return false;
        };
        let batch = Batch {
            bytes: mem::replace(&mut lines.buffer, empty),
            back: self.back.clone(),
        };
        match self.batches.try_send(batch) {
            Ok(()) => true,
            Err(TrySendError::Full(batch) | TrySendError::Disconnected(batch)) => {
                lines
                    .spare
                    .push(mem::replace(&mut lines.buffer, batch.bytes));
                false
            }
        }
    }
}

impl Drop for ShardAccessLog {
    fn drop(&mut self) {
        self.end();
    }
}

/// The writer's thread.
struct Writer {
    reopen: Arc<AtomicBool>,
    sink: Sink,
    /// What a buffer is cut down to after a line that made it grow.
    buffer_bytes: usize,
    reported: Option<Instant>,
    /// Lines lost since the last report.
    lost: u64,
}

impl Writer {
    fn run(&mut self, batches: &Receiver<Batch>) {
        for Batch {
            bytes: mut buffer,
            back,
        } in batches
        {
            if self.reopen.swap(false, Relaxed) {
                self.open_again();
            }
            let lost = match self.sink.write(&buffer) {
                Ok(()) => 0,
                Err((lost, error)) => {
                    self.report(lost, &error);
                    lost
                }
            };
            buffer.clear();
            buffer.shrink_to(self.buffer_bytes);
            // There is room for all buffers of the shard; an error means that it has ended.
            let _ = back.try_send(Written { buffer, lost });
        }
    }

    /// Goes on with the old file when there is no new one.
    fn open_again(&mut self) {
        match self.sink.reopen() {
            Ok(()) => tracing::info!(file = self.sink.name(), "access log opened again"),
            Err(error) => {
                tracing::warn!("access log not opened again, the old file is kept: {error}");
            }
        }
    }

    fn report(&mut self, lines: u64, error: &io::Error) {
        self.lost += lines;
        if self.reported.is_some_and(|at| at.elapsed() < REPORT_EVERY) {
            return;
        }
        tracing::warn!(
            file = self.sink.name(),
            lost_lines = self.lost,
            "access log: cannot write: {error}"
        );
        self.reported = Some(Instant::now());
        self.lost = 0;
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write;
    use std::net::Ipv4Addr;
    use std::path::{Path, PathBuf};
    use std::sync::Mutex;

    use super::*;

    fn temporary(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("ringlane-access-log-{}-{name}", std::process::id()))
    }

    fn config(path: &Path, buffer_bytes: usize) -> config::AccessLog {
        config::AccessLog {
            path: Some(path.to_owned()),
            format: AccessFormat::Combined,
            buffer_bytes,
        }
    }

    fn record(target: &[u8]) -> Record<'_> {
        Record {
            client: Ipv4Addr::LOCALHOST.into(),
            method: b"GET",
            target,
            minor_version: 1,
            status: 200,
            body_bytes_sent: 5,
            referer: b"",
            user_agent: b"",
            host: b"",
            upstream: "",
            server: "",
            duration_us: 0,
            upstream_us: 0,
            retries: 0,
            reused: false,
        }
    }

    fn start(path: &Path, buffer_bytes: usize) -> io::Result<AccessLog> {
        AccessLog::start(Opened::new(&config(path, buffer_bytes))?)
    }

    fn counters() -> Arc<ShardCounters> {
        Arc::new(ShardCounters::new(0, 0))
    }

    #[test]
    fn lines_of_all_shards_arrive_whole() {
        let path = temporary("whole");
        let log = start(&path, 1 << 20).expect("temporary file");
        let counters: Vec<_> = (0..3).map(|_| counters()).collect();
        thread::scope(|scope| {
            for (shard, counters) in counters.iter().enumerate() {
                let log = &log;
                scope.spawn(move || {
                    let part = log.shard(Arc::clone(counters));
                    (0..1000)
                        .for_each(|n| part.record(&record(format!("/{shard}/{n}").as_bytes())));
                });
            }
        });
        assert!(log.finish(Duration::from_secs(10), || false));
        let text = fs::read_to_string(&path).expect("written");
        fs::remove_file(&path).expect("there");
        let dropped: u64 = counters
            .iter()
            .map(|counters| counters.access_log_dropped.get())
            .sum();
        assert_eq!((text.lines().count() as u64, dropped), (3000, 0));
        assert!(
            text.lines()
                .all(|line| line.starts_with("127.0.0.1 - - [") && line.ends_with("\"-\" \"-\""))
        );
        for shard in 0..3 {
            let prefix = format!("\"GET /{shard}/");
            let numbers: Vec<u32> = text
                .lines()
                .filter_map(|line| line.split_once(&prefix)?.1.split_once(' ')?.0.parse().ok())
                .collect();
            assert_eq!(numbers, (0..1000).collect::<Vec<_>>(), "in order");
        }
    }

    /// A part whose batches go nowhere, as with a writer that hangs.
    fn stuck(chunk_bytes: usize, queue: usize) -> (ShardAccessLog, Receiver<Batch>) {
        let (batches, received) = sync_channel(queue);
        let log = AccessLog {
            reopen: Arc::default(),
            batches,
            format: AccessFormat::Combined,
            chunk_bytes,
        };
        (log.shard(counters()), received)
    }

    /// A sink that takes its time.
    struct Slow(Arc<Mutex<Vec<u8>>>);

    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            thread::sleep(Duration::from_millis(30));
            self.0
                .lock()
                .expect("a whole text")
                .extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn what_was_handed_over_is_written_though_a_shard_still_runs() {
        let text = Arc::new(Mutex::new(Vec::new()));
        let opened = Opened {
            sink: Sink::new(None, Slow(Arc::clone(&text))),
            format: AccessFormat::Combined,
            buffer_bytes: 4000,
        };
        let log = AccessLog::start(opened).expect("a thread");
        let part = log.shard(counters());
        for _ in 0..3 {
            part.record(&record(b"/"));
            part.flush();
        }
        assert!(!log.finish(Duration::from_millis(1), || false), "too soon");
        assert!(log.finish(Duration::from_secs(10), || false));
        let text = text.lock().expect("a whole text");
        assert_eq!(text.split_inclusive(|byte| *byte == b'\n').count(), 3);
    }

    #[test]
    fn a_stuck_writer_costs_lines_and_nothing_else() {
        for (queue, kept_buffers) in [(QUEUE, BUFFERS), (2, 3), (1, 2)] {
            let (part, received) = stuck(1000, queue);
            (0..1000).for_each(|_| part.record(&record(b"/")));
            let kept = 1000 - part.dropped();
            let line_bytes = 75;
            assert_eq!(
                kept,
                kept_buffers as u64 * (1000_u64).div_ceil(line_bytes),
                "queue of {queue}"
            );

            // The writer comes back: every kept line is there once, and recording goes on.
            let dropped = part.dropped();
            let mut lines = 0;
            for _ in 0..3 {
                part.flush();
                while let Ok(Batch { bytes, back }) = received.try_recv() {
                    lines += line_count(&bytes);
                    back.try_send(Written {
                        buffer: Vec::new(),
                        lost: 0,
                    })
                    .expect("room for every buffer");
                }
            }
            part.record(&record(b"/"));
            assert_eq!((lines, part.dropped()), (kept, dropped));
        }
    }

    #[test]
    fn lines_left_at_the_end_of_a_shard_are_counted_when_nobody_takes_them() {
        let (part, received) = stuck(1000, 1);
        let counters = Arc::clone(&part.counters);
        drop(received);
        part.record(&record(b"/"));
        drop(part);
        assert_eq!(counters.access_log_dropped.get(), 1);
    }

    #[test]
    fn lines_that_a_full_disk_refuses_are_counted() {
        let log = start(Path::new("/dev/full"), 4000).expect("/dev/full opens");
        let part = log.shard(counters());
        part.record(&record(b"/"));
        let deadline = Instant::now() + Duration::from_secs(10);
        while part.dropped() == 0 && Instant::now() < deadline {
            part.flush();
            thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(part.dropped(), 1);
    }

    #[test]
    fn a_file_that_cannot_be_opened_is_named() {
        let error = start(Path::new("/nonexistent/access.log"), 4000)
            .err()
            .expect("no such directory");
        assert!(
            error.to_string().contains("/nonexistent/access.log"),
            "{error}"
        );
    }
}
