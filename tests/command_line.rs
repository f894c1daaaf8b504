//! The program's commands, run as a user runs them: exit codes and what is printed where.

mod support;

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output};

use rustix::process::{Pid, Signal, kill_process};

fn ringlane(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringlane"));
    command
        .args(arguments)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .env_remove("RUST_LOG");
    command.output().expect("the program starts")
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A file in the test's own directory, with this text.
fn file(name: &str, text: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::write(&path, text).expect("the test's directory is writable");
    path
}

#[test]
fn wrong_use_exits_2_with_a_usage_line() {
    let cases: [&[&str]; 8] = [
        &[],
        &["serve"],
        &["--nonsense"],
        &["run"],
        &["run", "--config"],
        &["run", "--confi", "config/ringlane.toml"],
        &["check"],
        &["check", "config/ringlane.toml"],
    ];
    for arguments in cases {
        let output = ringlane(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(
            stderr(&output).contains("Usage: ringlane"),
            "{arguments:?}: {}",
            stderr(&output)
        );
        assert_eq!(stdout(&output), "", "{arguments:?}");
    }
}

#[test]
fn wrong_values_bring_the_usage_line_of_the_command() {
    let cases: [(&[&str], &str); 7] = [
        (&["demo", "--listen", "nope"], "ringlane demo [OPTIONS]"),
        (&["origin", "--listen", "nope"], "ringlane origin [OPTIONS]"),
        (&["run", "--config"], "ringlane run --config <FILE>"),
        (&["run", "--config", ""], "ringlane run --config <FILE>"),
        (&["check", "--config"], "ringlane check"),
        (&["ctl", "drain", "--admin"], "ringlane ctl drain [OPTIONS]"),
        (&["top", "--nonsense"], "ringlane top"),
    ];
    for (arguments, usage) in cases {
        let output = ringlane(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        let errors = stderr(&output);
        let lines = errors.lines().filter(|line| line.starts_with("Usage:"));
        let lines: Vec<&str> = lines.collect();
        assert_eq!(lines.len(), 1, "{arguments:?}: {errors}");
        let line = lines[0].strip_prefix("Usage: ").unwrap_or_default();
        assert!(line.starts_with(usage), "{arguments:?}: {line}");
    }
}

#[test]
fn help_and_version_go_to_standard_output() {
    let version = ringlane(&["--version"]);
    assert_eq!(
        stdout(&version),
        format!("ringlane {}\n", env!("CARGO_PKG_VERSION"))
    );
    let cases: [(&[&str], &[&str]); 4] = [
        (
            &["--help"],
            &[
                "Usage: ringlane",
                "Examples:",
                "ringlane check --config",
                "run",
                "check",
            ],
        ),
        (&["-h"], &["Usage: ringlane", "Examples:"]),
        (
            &["run", "--help"],
            &["--config <FILE>", "SIGTERM", "RUST_LOG", "Exit code: 0"],
        ),
        (&["check", "--help"], &["--config <FILE>", "Exit code: 0"]),
    ];
    for (arguments, expected) in cases {
        let output = ringlane(arguments);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}");
        for text in expected {
            assert!(
                stdout(&output).contains(text),
                "{arguments:?} lacks {text}: {}",
                stdout(&output)
            );
        }
    }
}

#[test]
fn check_prints_what_would_run() {
    let cases: [(&str, &[&str]); 3] = [
        (
            "config/ringlane.toml",
            &[
                "config/ringlane.toml is valid",
                "0.0.0.0:8080",
                "127.0.0.1:9001 (a)",
                "* /  to app",
                "keep-alive    75s",
            ],
        ),
        (
            "config/full.toml",
            &[
                "standard output",
                "127.0.0.1:9001\n",
                "no limit for each connection",
            ],
        ),
        (
            "config/edge.toml",
            &[
                "io_uring; 1024 ring entries",
                "[::]:80: backlog 16384, accepted with data or after 5s, fast open 1024",
                "unix:/run/api/local.sock (api-local)",
                "*.example.com /api/v1  to api, without the prefix",
                "api.internal.example; names resolved every 30s",
                "/var/log/ringlane/access.log, 4MiB buffered",
            ],
        ),
    ];
    for (path, expected) in cases {
        let output = ringlane(&["check", "--config", path]);
        assert_eq!(output.status.code(), Some(0), "{path}: {}", stderr(&output));
        assert_eq!(stderr(&output), "", "{path}");
        for text in expected {
            assert!(
                stdout(&output).contains(text),
                "{path} lacks {text}:\n{}",
                stdout(&output)
            );
        }
    }
}

#[test]
fn check_tells_of_cpus_that_this_machine_lacks() {
    let rest = "[[listen]]\naddress = \"127.0.0.1:0\"\n[[upstream]]\nname = \"a\"\nserver = [{ address = \"127.0.0.1:1\" }]\n";
    let text = format!("cpus = \"0,1000-1001\"\n{rest}");
    let path = file("cpus.toml", &text).display().to_string();
    let output = ringlane(&["check", "--config", &path]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let told = "3, on CPU 0, 1000, 1001 (not here: the process may not use CPU 1000, 1001)";
    assert!(stdout(&output).contains(told), "{}", stdout(&output));
    let output = ringlane(&["run", "--config", &path]);
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    let refused = "cpus: the process may not use CPU 1000;";
    assert!(stderr(&output).contains(refused), "{}", stderr(&output));
}

/// By `check` as a remark, for the file may be for another machine; by `run` once, with what to do.
#[test]
fn a_missing_directory_of_the_access_log_is_told() {
    let rest = "[[listen]]\naddress = \"127.0.0.1:0\"\n[[upstream]]\nname = \"a\"\nserver = [{ address = \"127.0.0.1:1\" }]\n";
    let there = file("there.log", "").display().to_string();
    let missing = there.replace("there.log", "not-there/access.log");
    let with_log = |path: &str| {
        file(
            "access-log.toml",
            &format!("{rest}[access_log]\npath = \"{path}\"\n"),
        )
    };
    for (path, told) in [
        (missing.as_str(), true),
        (&there, false),
        ("access.log", false),
    ] {
        let output = ringlane(&["check", "--config", &with_log(path).display().to_string()]);
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        let plan = stdout(&output);
        let row = plan.lines().find(|line| line.starts_with("access log"));
        let row = row.expect("the access log's row");
        assert!(row.contains(path), "{row}");
        let found = row.ends_with("(not here: its directory is missing)");
        assert_eq!(found, told, "{row}");
    }
    let output = ringlane(&["run", "--config", &with_log(&missing).display().to_string()]);
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    let refused = format!("access log: {missing}: its directory is missing; make it first");
    assert!(stderr(&output).contains(&refused), "{}", stderr(&output));
}

/// What runs is not always what the keys name.
#[test]
fn check_tells_of_more_shards_than_cpus_and_of_low_ports() {
    // The most that there may be; a quota of CPU time must not play a part.
    let shards = 1024;
    let rest = "[[upstream]]\nname = \"a\"\nserver = [{ address = \"127.0.0.1:1\" }]\n";
    let first_free = fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start");
    let first_free: u16 = first_free.map_or(1024, |text| text.trim().parse().expect("a port"));
    for (name, port) in [
        ("low-port.toml", 80),
        ("no-port.toml", 0),
        ("high-port.toml", 65535),
    ] {
        let text = format!(
            "shards = {shards}\nuser = \"nobody\"\n[[listen]]\naddress = \"127.0.0.1:{port}\"\n{rest}"
        );
        let path = file(name, &text).display().to_string();
        let output = ringlane(&["check", "--config", &path]);
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        let text = stdout(&output);
        let pinned = format!("{shards}, not pinned: the process may use fewer CPUs here");
        assert!(text.contains(&pinned), "{text}");
        let capabilities = if (1..first_free).contains(&port) {
            ", may keep CAP_NET_BIND_SERVICE alone\n"
        } else {
            ", without capabilities\n"
        };
        assert!(text.contains(capabilities), "{text}");
    }
}

/// Such a path is longer than any target may be.
#[test]
fn routes_that_never_act_for_their_length_bring_a_warning() {
    let rest = "[[listen]]\naddress = \"127.0.0.1:0\"\n[[upstream]]\nname = \"a\"\nserver = [{ address = \"127.0.0.1:1\" }]\n";
    for (length, warned) in [(1024, false), (1025, true), (70_000, true)] {
        let path = format!("/{}", "a".repeat(length - 1));
        let text = format!(
            "{rest}[[route]]\npath = \"{path}\"\nupstream = \"a\"\n[limits]\nuri = \"1KiB\"\n"
        );
        let file = file(&format!("route-{length}.toml"), &text)
            .display()
            .to_string();
        let output = ringlane(&["check", "--config", &file]);
        assert_eq!(output.status.code(), Some(0), "{length}");
        let warning = format!("warning: the route never acts: its path has {length} bytes");
        assert_eq!(stderr(&output).contains(&warning), warned, "{length}");
        assert!(stdout(&output).contains(&path), "{length}");
    }
}

#[test]
fn a_start_that_fails_is_told_even_where_the_log_is_off() {
    let rest = "[[listen]]\naddress = \"192.0.2.1:0\"\n[[upstream]]\nname = \"a\"\nserver = [{ address = \"127.0.0.1:1\" }]\n";
    for level in ["off", "info", "ringlane=off,info"] {
        let name = format!("level-{}.toml", level.len());
        let text = format!("[log]\nlevel = \"{level}\"\n{rest}");
        let path = file(&name, &text).display().to_string();
        let output = ringlane(&["run", "--config", &path]);
        assert_eq!(output.status.code(), Some(1), "{level}");
        let errors = stderr(&output);
        assert_eq!(
            errors.matches("listen on 192.0.2.1:0").count(),
            1,
            "{level}: {errors}"
        );
    }
}

#[test]
fn a_refused_configuration_exits_2_with_every_complaint() {
    let text = "shard = 2\n[timeouts]\nkeep_alive = 5\n[[listen]]\naddress = \"127.0.0.1:0\"\n";
    let path = file("refused.toml", text).display().to_string();
    for command in ["check", "run"] {
        let output = ringlane(&[command, "--config", &path]);
        assert_eq!(output.status.code(), Some(2), "{command}");
        assert_eq!(stdout(&output), "", "{command}");
        let errors = stderr(&output);
        for expected in [
            "error: there is no key `shard` at the top of the file",
            &format!(" --> {path}:1:1\n"),
            "1 | shard = 2\n  | ^^^^^\n  = help: did you mean `shards`?",
            "error: keep_alive is 5 without a unit",
            "error: there is no [[upstream]]",
            "is refused",
        ] {
            assert!(
                errors.contains(expected),
                "{command} lacks {expected}:\n{errors}"
            );
        }
    }
}

#[test]
fn a_missing_configuration_exits_2() {
    for command in ["check", "run"] {
        let output = ringlane(&[command, "--config", "/nonexistent.toml"]);
        assert_eq!(output.status.code(), Some(2), "{command}");
        assert!(
            stderr(&output).contains("No such file"),
            "{}",
            stderr(&output)
        );
    }
}

#[test]
fn warnings_are_printed_and_do_not_refuse() {
    let text = "admin.address = \"0.0.0.0:9900\"\nadmin.orders = false\n[[listen]]\naddress = \"127.0.0.1:0\"\n[[upstream]]\nname = \"a\"\nserver = [{ address = \"127.0.0.1:1\" }]\n";
    let path = file("warned.toml", text).display().to_string();
    let output = ringlane(&["check", "--config", &path]);
    assert_eq!(output.status.code(), Some(0));
    assert!(
        stderr(&output).contains("warning: `0.0.0.0:9900`"),
        "{}",
        stderr(&output)
    );
    assert!(stdout(&output).contains("is valid"), "{}", stdout(&output));
}

#[test]
fn a_wrong_rust_log_exits_2() {
    // With a filter that is taken it would end with 1: the address is none of ours.
    let text = "[[listen]]\naddress = \"192.0.2.1:0\"\n[[upstream]]\nname = \"a\"\nserver = [{ address = \"127.0.0.1:1\" }]\n";
    let path = file("rust-log.toml", text).display().to_string();
    for (filter, told) in [
        (
            "ringlane=nonsense",
            "RUST_LOG: `ringlane=nonsense` is not a filter",
        ),
        ("inof", "RUST_LOG: `inof` is not a level"),
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_ringlane"))
            .args(["run", "--config", &path])
            .env("RUST_LOG", filter)
            .output()
            .expect("the program starts");
        let errors = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{errors}");
        assert!(errors.contains(told), "{errors}");
    }
}

#[test]
fn a_demo_that_is_refused_exits_2() {
    let address = "127.0.0.1:1";
    let output = ringlane(&["demo", "--listen", address, "--admin", address]);
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    assert!(stderr(&output).contains(address), "{}", stderr(&output));
}

/// A terminal that is gone, or a full disk, ends no demo.
#[test]
fn a_demo_runs_without_its_guide() {
    // Where the demo listens would stand in the guide. A free port is taken by another seldom enough.
    let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    let address = free.expect("a free port");
    let full = fs::File::options().write(true).open("/dev/full");
    let demo = Command::new(env!("CARGO_BIN_EXE_ringlane"))
        .args([
            "demo",
            "--listen",
            &address.to_string(),
            "--admin",
            "127.0.0.1:0",
        ])
        .stdout(full.expect("null(4)"))
        .spawn();
    let mut demo = Ended(demo.expect("the program starts"));
    let mut status = None;
    support::eventually("the demo serves or has ended", || {
        status = demo.0.try_wait().expect("a child");
        status.is_some() || serves(address)
    });
    std::thread::sleep(support::QUIET);
    if status.is_none() {
        kill_process(Pid::from_child(&demo.0), Signal::TERM).expect("nobody has waited for it");
        status = demo.0.wait().ok();
    }
    assert_eq!(status.and_then(|status| status.code()), Some(0));
}

/// A child that ends with the test, however that ends.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        // It may have ended itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn serves(address: SocketAddr) -> bool {
    let mut answer = String::new();
    let exchange = |mut stream: TcpStream| {
        stream.set_read_timeout(Some(support::PATIENCE))?;
        stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")?;
        stream.read_to_string(&mut answer)
    };
    TcpStream::connect(address).and_then(exchange).is_ok() && answer.contains("hello")
}

#[test]
fn a_cpu_that_cannot_be_is_told_and_exits_1() {
    for command in [
        &["origin", "--listen", "127.0.0.1:0"][..],
        &["relay", "--listen", "127.0.0.1:0", "--to", "127.0.0.1:1"],
    ] {
        for cpu in ["1023", "1024", "99999", "18446744073709551615"] {
            let output = ringlane(&[command, &["--cpu", cpu]].concat());
            assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
            let told = format!("cannot pin a thread to CPU {cpu}");
            assert!(stderr(&output).contains(&told), "{}", stderr(&output));
        }
    }
}
