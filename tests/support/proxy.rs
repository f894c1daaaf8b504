//! The proxy under test: a real process with a configuration file of its own.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{Mode, Origin, PATIENCE, Wire, eventually};

/// A configuration file in the making. What a test does not set is chosen for tests: one unpinned shard, a listener on a free port,
/// no status page, a short farewell.
pub(crate) struct Config {
    mode: Mode,
    directory: PathBuf,
    keys: String,
    tables: String,
    /// Faults can be asked for, so panics are no failure of the test.
    faults: bool,
    /// The user and group that start the proxy.
    starter: Option<(u32, u32)>,
    /// A program and its arguments that run the proxy.
    runner: Vec<String>,
}

impl Config {
    pub(crate) fn new(mode: Mode) -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let directory =
            std::env::temp_dir().join(format!("ringlane-test-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&directory).expect("a directory for the test's files");
        Self {
            mode,
            directory,
            keys: String::new(),
            tables: String::new(),
            faults: false,
            starter: None,
            runner: Vec::new(),
        }
    }

    /// A key at the top of the file, such as `shards = 2`.
    pub(crate) fn key(mut self, line: &str) -> Self {
        writeln!(self.keys, "{line}").expect("writing to a string");
        self
    }

    /// Tables, as text.
    pub(crate) fn tables(mut self, text: &str) -> Self {
        writeln!(self.tables, "{text}").expect("writing to a string");
        self
    }

    /// The upstream `app` with these servers, named `a`, `b`, ...; `settings` are further lines of its table.
    pub(crate) fn upstream(self, addresses: &[&str], settings: &str) -> Self {
        self.named_upstream("app", addresses, settings)
    }

    pub(crate) fn named_upstream(mut self, name: &str, addresses: &[&str], settings: &str) -> Self {
        let servers: Vec<String> = addresses
            .iter()
            .zip('a'..)
            .map(|(address, letter)| format!("{{ address = \"{address}\", name = \"{letter}\" }}"))
            .collect();
        writeln!(
            self.tables,
            "[[upstream]]\nname = \"{name}\"\nserver = [{}]\n{settings}",
            servers.join(", ")
        )
        .expect("writing to a string");
        self
    }

    /// Sets both limits of `RLIMIT_NOFILE`.
    pub(crate) fn descriptors(self, limit: u32) -> Self {
        let script = format!("ulimit -n {limit} && exec \"$0\" \"$@\"");
        self.under(&["sh", "-c", &script])
    }

    /// Lets requests for `/fault/...` provoke faults.
    pub(crate) fn faults(mut self) -> Self {
        self.faults = true;
        self
    }

    /// Has another user start the proxy. Only root may ask for that.
    pub(crate) fn started_by(mut self, uid: u32, gid: u32) -> Self {
        self.starter = Some((uid, gid));
        self
    }

    /// Has a program run the proxy, in the process that it was started as.
    pub(crate) fn under(mut self, runner: &[&str]) -> Self {
        self.runner = runner.iter().map(ToString::to_string).collect();
        self
    }

    /// Where this test may put files.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    fn text(&self) -> String {
        let io = match self.mode {
            Mode::Uring => "uring",
            Mode::Epoll => "epoll",
        };
        let io = format!("io = \"{io}\"");
        let mut text = String::new();
        for (key, line) in [
            ("io", io.as_str()),
            ("shards", "shards = 1"),
            ("pin", "pin = false"),
            ("shutdown_timeout", "shutdown_timeout = \"300ms\""),
        ] {
            if !self.keys.lines().any(|set| set.starts_with(key)) {
                writeln!(text, "{line}").expect("writing to a string");
            }
        }
        text += &self.keys;
        for (table, lines) in [
            ("[[listen]]", "[[listen]]\naddress = \"127.0.0.1:0\""),
            ("[admin]", "[admin]\nenabled = false"),
        ] {
            if !self.tables.contains(table) {
                writeln!(text, "{lines}").expect("writing to a string");
            }
        }
        text + &self.tables
    }

    /// Starts the proxy and waits until all its listeners are open.
    #[track_caller]
    pub(crate) fn start(self) -> Proxy {
        let text = self.text();
        let mut proxy = self.start_unawaited();
        proxy.await_listeners(
            text.matches("[[listen]]").count(),
            !text.contains("enabled = false"),
        );
        proxy
    }

    /// Starts the proxy and waits for nothing: where it listens is not known.
    pub(crate) fn start_unawaited(self) -> Proxy {
        let text = self.text();
        let path = self.directory.join("ringlane.toml");
        std::fs::write(&path, &text).expect("a file for the configuration");
        let mut child = self.command(&path).spawn().expect("the proxy starts");
        let log = Log::follow(child.stderr.take().expect("a pipe"));
        let output = Log::follow(child.stdout.take().expect("a pipe"));
        Proxy {
            child,
            log,
            output,
            addresses: Vec::new(),
            admin: None,
            directory: self.directory,
            faults: self.faults,
            ended: false,
        }
    }

    /// Runs a proxy that cannot start: its exit and its log.
    #[track_caller]
    pub(crate) fn start_to_fail(self) -> (ExitStatus, String) {
        let path = self.directory.join("ringlane.toml");
        std::fs::write(&path, self.text()).expect("a file for the configuration");
        let output = self.command(&path).output().expect("the proxy starts");
        std::fs::remove_dir_all(&self.directory).ok();
        (
            output.status,
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    }

    /// A copy of the program: the build's own directory may be closed to other users.
    fn copy(&self) -> PathBuf {
        let copy = self.directory.join("ringlane");
        // Copied by another process: a file that is open for writing here is so in what other tests start meanwhile, and cannot be
        // executed.
        let copied = Command::new("cp")
            .arg(env!("CARGO_BIN_EXE_ringlane"))
            .arg(&copy)
            .status();
        assert!(
            copied.is_ok_and(|status| status.success()),
            "no copy of the proxy"
        );
        copy
    }

    fn command(&self, path: &Path) -> Command {
        let program = match self.starter {
            None => PathBuf::from(env!("CARGO_BIN_EXE_ringlane")),
            Some(_) => self.copy(),
        };
        let mut command = match &self.runner[..] {
            [] => Command::new(program),
            [runner, arguments @ ..] => {
                let mut command = Command::new(runner);
                command.args(arguments).arg(program);
                command
            }
        };
        if let Some((uid, gid)) = self.starter {
            command.uid(uid).gid(gid);
        }
        command
            .args(["run", "--config"])
            .arg(path)
            .env_remove("RUST_LOG");
        if self.faults {
            command.env("RINGLANE_FAULTS", "1");
        }
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }
}

/// What a process wrote, collected by a thread.
struct Log {
    lines: Arc<Mutex<Vec<String>>>,
    reader: JoinHandle<()>,
}

impl Log {
    fn follow(pipe: impl Read + Send + 'static) -> Self {
        let lines = Arc::<Mutex<Vec<String>>>::default();
        let read = Arc::clone(&lines);
        let reader = std::thread::spawn(move || {
            for line in BufReader::new(pipe).lines().map_while(Result::ok) {
                read.lock().expect("a whole log").push(line);
            }
        });
        Self { lines, reader }
    }

    fn lines(&self) -> Vec<String> {
        self.lines.lock().expect("a whole log").clone()
    }

    /// Waits until all that a process wrote before it ended has been read.
    #[track_caller]
    fn await_end(&self) {
        eventually("the end of the process's output is read", || {
            self.reader.is_finished()
        });
    }
}

/// A running proxy. When dropped it is asked to stop, and a test fails if it does not exit with 0 or if anything in it panicked.
pub(crate) struct Proxy {
    child: Child,
    log: Log,
    output: Log,
    /// Its listeners, in the order of the configuration.
    pub(crate) addresses: Vec<SocketAddr>,
    /// Its status page.
    pub(crate) admin: Option<SocketAddr>,
    pub(crate) directory: PathBuf,
    faults: bool,
    ended: bool,
}

impl Proxy {
    fn await_listeners(&mut self, listeners: usize, admin: bool) {
        let start = Instant::now();
        while self.addresses.len() < listeners || (admin && self.admin.is_none()) {
            let exited = self.child.try_wait().expect("a child of ours");
            assert!(
                exited.is_none(),
                "the proxy ended at start: {exited:?}\n{}",
                self.log().join("\n")
            );
            assert!(
                start.elapsed() < PATIENCE,
                "not ready after {PATIENCE:?}:\n{}",
                self.log().join("\n")
            );
            std::thread::sleep(Duration::from_millis(2));
            let lines = self.log();
            self.addresses = lines
                .iter()
                .filter_map(|line| address_after(line, "listening address="))
                .collect();
            self.admin = lines
                .iter()
                .find_map(|line| address_after(line, "admin address="));
        }
    }

    /// The event log so far.
    pub(crate) fn log(&self) -> Vec<String> {
        self.log.lines()
    }

    /// Standard output so far.
    pub(crate) fn output(&self) -> Vec<String> {
        self.output.lines()
    }

    #[track_caller]
    pub(crate) fn connect(&self) -> Wire {
        Wire::connect(self.addresses[0])
    }

    /// One GET on a connection of its own.
    #[track_caller]
    pub(crate) fn get(&self, target: &str) -> super::Response {
        self.connect().get(target)
    }

    /// A client whose GET has come to this origin, and the origin's end.
    #[track_caller]
    pub(crate) fn reach(&self, origin: &Origin) -> (Wire, Wire) {
        let mut client = self.connect();
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        let mut upstream = origin.accept();
        upstream.request();
        (client, upstream)
    }

    /// A tunnel between a client and this origin.
    #[track_caller]
    pub(crate) fn tunnel(&self, origin: &Origin) -> (Wire, Wire) {
        let mut client = self.connect();
        let upstream = origin.tunnel(&mut client);
        (client, upstream)
    }

    /// A page of the status listener, which the configuration must have.
    #[track_caller]
    pub(crate) fn page(&self, path: &str) -> String {
        let mut admin = Wire::connect(self.admin.expect("the status page is on"));
        admin.send(format!(
            "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        ));
        admin.response("GET").text()
    }

    /// The status page.
    #[track_caller]
    pub(crate) fn status(&self) -> Value {
        let text = self.page("/lb/status");
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    /// The first upstream on the status page.
    #[track_caller]
    pub(crate) fn upstream(&self) -> Value {
        self.status()["upstreams"][0].take()
    }

    /// One of its servers.
    #[track_caller]
    pub(crate) fn server(&self, index: usize) -> Value {
        self.upstream()["servers"][index].take()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal by name, such as `TERM`.
    pub(crate) fn signal(&self, name: &str) {
        let status = Command::new("sh")
            .args(["-c", &format!("kill -{name} {}", self.pid())])
            .status();
        assert!(
            status.is_ok_and(|status| status.success()),
            "no signal sent"
        );
    }

    /// Stops the process (SIGSTOP), and waits until it has stopped: the signal is only the request.
    #[track_caller]
    pub(crate) fn suspend(&self) {
        self.signal("STOP");
        eventually("all its threads have stopped", || {
            self.thread_states().iter().all(|state| state == "T")
        });
    }

    /// Has a stopped process go on (SIGCONT).
    #[track_caller]
    pub(crate) fn resume(&self) {
        self.signal("CONT");
    }

    /// The states of its threads, as in proc(5).
    fn thread_states(&self) -> Vec<String> {
        let threads = std::fs::read_dir(format!("/proc/{}/task", self.pid()));
        threads
            .expect("the proxy runs")
            .filter_map(|thread| std::fs::read_to_string(thread.ok()?.path().join("stat")).ok())
            .filter_map(|stat| {
                let after_name = stat.rsplit_once(") ")?.1;
                Some(after_name.split_once(' ')?.0.to_owned())
            })
            .collect()
    }

    /// Waits for the exit and the rest of the log.
    #[track_caller]
    pub(crate) fn exit_within(&mut self, patience: Duration) -> ExitStatus {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("a child of ours") {
                self.ended = true;
                self.log.await_end();
                self.output.await_end();
                return status;
            }
            assert!(
                start.elapsed() < patience,
                "still running after {patience:?}:\n{}",
                self.log().join("\n")
            );
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Asks the proxy to stop and asserts that it does so in good order.
    #[track_caller]
    pub(crate) fn stop(&mut self) {
        self.signal("TERM");
        let status = self.exit_within(PATIENCE);
        assert_eq!(
            status.code(),
            Some(0),
            "exit after SIGTERM\n{}",
            self.log().join("\n")
        );
        self.expect_no_panic();
    }

    /// Stops the proxy and reads one of its files, which go away with it.
    #[track_caller]
    pub(crate) fn stop_and_read(&mut self, path: &Path) -> String {
        self.stop();
        String::from_utf8_lossy(&std::fs::read(path).expect("the file was written")).into_owned()
    }

    #[track_caller]
    pub(crate) fn expect_no_panic(&self) {
        let panicked: Vec<String> = self
            .log()
            .into_iter()
            .filter(|line| line.contains("panicked"))
            .collect();
        assert!(panicked.is_empty() || self.faults, "{panicked:?}");
    }

    /// Resident memory, bytes; 0 with a sanitizer in the proxy, for that holds back what the proxy gives back.
    pub(crate) fn resident(&self) -> u64 {
        if cfg!(sanitizer) {
            return 0;
        }
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid()))
            .expect("the proxy runs");
        let line = status
            .lines()
            .find(|line| line.starts_with("VmRSS:"))
            .expect("a line of proc(5)");
        let kib: u64 = line
            .split_ascii_whitespace()
            .nth(1)
            .and_then(|number| number.parse().ok())
            .expect("a number");
        kib * 1024
    }

    /// Asserts that the proxy, which has nothing to do, does next to nothing.
    #[track_caller]
    pub(crate) fn expect_rest(&self) {
        let before = self.cpu_time();
        std::thread::sleep(Duration::from_secs(1));
        let used = self.cpu_time().saturating_sub(before);
        assert!(
            used < Duration::from_millis(250),
            "spins: {used:?} of processor time in a second"
        );
    }

    /// Processor time used so far, user and system.
    pub(crate) fn cpu_time(&self) -> Duration {
        let stat =
            std::fs::read_to_string(format!("/proc/{}/stat", self.pid())).expect("the proxy runs");
        let after_name = stat.rsplit_once(')').expect("a name in parentheses").1;
        let fields: Vec<u64> = after_name
            .split_ascii_whitespace()
            .skip(1)
            .map(|field| field.parse().unwrap_or(0))
            .collect();
        Duration::from_millis((fields[10] + fields[11]) * 10) // USER_HZ is 100 on Linux
    }

    /// Open descriptors.
    pub(crate) fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.pid()))
            .expect("the proxy runs")
            .count()
    }
}

fn address_after(line: &str, mark: &str) -> Option<SocketAddr> {
    let (_, rest) = line.split_once(mark)?;
    rest.split_ascii_whitespace().next()?.parse().ok()
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.child.kill().ok();
            self.child.wait().ok();
            eprintln!("--- the proxy's log\n{}\n---", self.log().join("\n"));
        } else if !self.ended {
            self.stop();
        }
        std::fs::remove_dir_all(&self.directory).ok();
    }
}
