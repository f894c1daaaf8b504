//! `ringlane top` before a real proxy, in a real terminal and without one.

mod support;

use std::fs::File;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex};

use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};
use support::{Config, Mode, Origin, Proxy, eventually};

fn proxy() -> (Proxy, support::Served, SocketAddr) {
    let origin = Origin::serve_text("x");
    let proxy = Config::new(Mode::Epoll)
        .tables("[admin]\naddress = \"127.0.0.1:0\"")
        .upstream(&[&origin.address, &Origin::nowhere()], "policy = \"first\"")
        .start();
    let admin = proxy.admin.expect("the status page is on");
    (proxy, origin, admin)
}

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringlane"));
    command.arg("top").args(arguments);
    command
}

fn output(arguments: &[&str]) -> Output {
    command(arguments).output().expect("the program starts")
}

/// A terminal that `ringlane top` runs in.
struct Terminal {
    child: Child,
    keys: File,
    seen: Arc<Mutex<String>>,
    /// The terminal as the program has it, and as it was before.
    tty: File,
    before: LocalModes,
}

impl Terminal {
    fn run(arguments: &[&str]) -> Self {
        let control = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
        grantpt(&control).expect("it is ours");
        unlockpt(&control).expect("it is ours");
        let size = Winsize {
            ws_row: 24,
            ws_col: 200,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        tcsetwinsize(&control, size).expect("a size");
        let name = ptsname(&control, Vec::new()).expect("it has a name");
        let name = name.to_str().expect("a path in /dev").to_owned();
        let open = || {
            File::options()
                .read(true)
                .write(true)
                .open(&name)
                .expect("it opens")
        };
        let tty = open();
        let before = tcgetattr(&tty).expect("a terminal").local_modes;
        let child = command(arguments)
            .stdin(open())
            .stdout(open())
            .stderr(open())
            .spawn()
            .expect("the program starts");
        let keys = File::from(control);
        let mut screen = keys.try_clone().expect("a descriptor");
        let seen = Arc::new(Mutex::new(String::new()));
        let sink = Arc::clone(&seen);
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(read @ 1..) = screen.read(&mut bytes) {
                let text = String::from_utf8_lossy(&bytes[..read]);
                sink.lock().expect("no panic").push_str(&text);
            }
        });
        Self {
            child,
            keys,
            seen,
            tty,
            before,
        }
    }

    #[track_caller]
    fn shows(&self, text: &str) {
        eventually(&format!("the terminal shows {text}"), || {
            self.seen.lock().expect("no panic").contains(text)
        });
    }

    fn forget(&self) {
        self.seen.lock().expect("no panic").clear();
    }

    fn press(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).expect("it reads");
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal).expect("it runs");
    }

    fn modes(&self) -> LocalModes {
        tcgetattr(&self.tty).expect("a terminal").local_modes
    }

    /// Waits for the end; the terminal must be as before.
    #[track_caller]
    fn ends(mut self) -> ExitStatus {
        let mut status = None;
        eventually("top ends", || {
            status = self.child.try_wait().expect("a child");
            status.is_some()
        });
        self.shows("\x1b[?1049l");
        self.shows("\x1b[?25h");
        assert_eq!(self.modes(), self.before, "the terminal is as before");
        status.expect("it ended")
    }
}

#[test]
fn without_a_terminal_one_table_is_printed() {
    let (proxy, _origin, admin) = proxy();
    for _ in 0..3 {
        assert_eq!(proxy.get("/").text(), "x");
    }
    let output = output(&["--admin", &admin.to_string()]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(!text.contains('\x1b'), "{text:?}");
    let rows: Vec<&str> = text
        .lines()
        .filter(|line| line.starts_with("app "))
        .collect();
    assert_eq!(rows.len(), 2, "{text}");
    let cells: Vec<_> = rows[0].split_whitespace().collect();
    assert_eq!(cells[2..6], ["unchecked", "-", "1", "100.0%"], "{text}");
    assert!(text.contains("imbalance 1.00"), "{text}");
}

#[test]
fn a_terminal_shows_the_proxy_until_q() {
    let (proxy, _origin, admin) = proxy();
    let mut terminal = Terminal::run(&["--admin", &admin.to_string()]);
    terminal.shows("\x1b[?1049h");
    terminal.shows("unchecked");
    assert_ne!(terminal.modes(), terminal.before, "keys come at once");
    assert_eq!(proxy.get("/").text(), "x");
    terminal.shows("100.0%");
    terminal.press("s");
    terminal.shows("s sort (state)");
    drop(proxy);
    terminal.shows("NO ANSWER");
    terminal.forget();
    terminal.press("q");
    assert_eq!(terminal.ends().code(), Some(0));
}

#[test]
fn signals_give_the_terminal_back() {
    let (_proxy, _origin, admin) = proxy();
    for signal in [Signal::TERM, Signal::INT, Signal::HUP, Signal::QUIT] {
        let terminal = Terminal::run(&["--admin", &admin.to_string()]);
        terminal.shows("unchecked");
        terminal.signal(signal);
        assert_eq!(terminal.ends().code(), Some(0), "{signal:?}");
    }
    let mut terminal = Terminal::run(&["--admin", &admin.to_string()]);
    terminal.shows("unchecked");
    terminal.press("\x03");
    assert_eq!(terminal.ends().code(), Some(0), "Ctrl-C");
}

#[test]
fn what_cannot_be_reached_is_said() {
    let nowhere = Origin::nowhere();
    // With an address the configuration is not opened.
    for more in [&[][..], &["--config", "/nonexistent.toml"]] {
        let failed = output(&[&["--once", "--admin", &nowhere], more].concat());
        assert_eq!(failed.status.code(), Some(1), "{more:?}");
        let text = String::from_utf8_lossy(&failed.stderr);
        assert!(
            text.contains("nobody listens there") && text.contains(&nowhere),
            "{text}"
        );
    }
    for arguments in [
        &["--admin", "localhost"][..],
        &["--config", "/nonexistent.toml"],
        &["--sort", "colour"],
    ] {
        let output = output(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {output:?}");
    }
}

/// Nor does a stranger's page steer the terminal.
#[test]
fn what_another_server_answers_is_no_success() {
    let page = "\x1b[2J\x1b]0;owned\x07 no page";
    for (answer, told) in [
        (
            support::last("404 Not Found", page),
            "]0;owned? no page (status 404)",
        ),
        (
            support::last("200 OK", "{}"),
            "is this the status listener?",
        ),
        (
            support::last("200 OK", "[]"),
            "is this the status listener?",
        ),
        (support::last("200 OK", "hello"), "is not JSON"),
    ] {
        let stranger = Origin::bind().serve(move |_| answer.clone());
        let failed = output(&["--once", "--admin", &stranger.address]);
        let text = String::from_utf8_lossy(&failed.stderr);
        assert_eq!(failed.status.code(), Some(1), "{text:?}");
        assert!(text.contains(told) && !text.contains('\x1b'), "{text:?}");
        assert_eq!(failed.stdout, b"");
    }
}

#[test]
fn a_reader_that_leaves_early_is_no_failure() {
    let (_proxy, _origin, admin) = proxy();
    let mut child = command(&["--once", "--admin", &admin.to_string()])
        .stdout(Stdio::piped())
        .spawn()
        .expect("the program starts");
    drop(child.stdout.take());
    assert_eq!(child.wait().expect("it ends").code(), Some(0));
}
