//! The access log: off by default; one line a request, combined or JSON; written soon and to the end; nothing a client sends can break a line.

mod support;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use support::{Config, Mode, Origin, PATIENCE, Proxy, SLOWNESS, Served, eventually, in_each_mode};

in_each_mode!(
    combined,
    json,
    off_by_default,
    on_standard_output,
    hostile_fields_stay_in_their_place,
    own_answers_are_logged,
    answers_that_break_off,
    tunnels,
    refusals_show_the_host_asked_for,
    refusals_show_the_client_behind_a_trusted_proxy,
    complete_after_a_stop,
    written_while_running,
    last_lines_of_a_shard_that_dies,
    rotated,
    a_fifo_that_nobody_reads,
    rotated_to_a_fifo_that_nobody_reads,
    second_signal_while_the_log_is_waited_for,
);

fn start(mode: Mode, format: &str) -> (Proxy, Served, PathBuf) {
    let served = Origin::serve_text("fine");
    // Long: the lines of a shard that has not drained by then are not promised.
    let config = Config::new(mode).key("shutdown_timeout = \"20s\"");
    let path = config.directory().join("access.log");
    let table = format!(
        "[access_log]\npath = \"{}\"\nformat = \"{format}\"",
        path.display()
    );
    let proxy = config
        .tables(&table)
        .upstream(&[&served.address], "")
        .start();
    (proxy, served, path)
}

/// Stops the proxy, which writes what it still holds; its lines.
#[track_caller]
fn lines_after_stop(mut proxy: Proxy, path: &Path, count: usize) -> Vec<String> {
    let text = proxy.stop_and_read(path);
    let lines: Vec<String> = text.lines().map(str::to_owned).collect();
    assert_eq!(lines.len(), count, "{lines:?}");
    lines
}

fn send(proxy: &Proxy, request: impl AsRef<[u8]>) -> u16 {
    let mut client = proxy.connect();
    client.send(request);
    client.response("GET").status
}

/// Splits a combined line: words, `[...]` and `"..."` with backslashes.
fn parts(line: &str) -> Vec<String> {
    let mut parts = Vec::new();
    let mut rest = line.trim_start();
    while let Some(first) = rest.chars().next() {
        let end = match first {
            '"' => quoted_end(rest).unwrap_or_else(|| panic!("no closing quote in {line}")),
            '[' => {
                rest.find(']')
                    .unwrap_or_else(|| panic!("no closing bracket in {line}"))
                    + 1
            }
            _ => rest.find(' ').unwrap_or(rest.len()),
        };
        parts.push(rest[..end].to_owned());
        assert!(
            rest[end..].is_empty() || rest[end..].starts_with(' '),
            "{line}"
        );
        rest = rest[end..].trim_start();
    }
    parts
}

fn quoted_end(text: &str) -> Option<usize> {
    let mut escaped = false;
    for (at, each) in text.char_indices().skip(1) {
        match each {
            '"' if !escaped => return Some(at + 1),
            '\\' if !escaped => escaped = true,
            _ => escaped = false,
        }
    }
    None
}

/// The file is renamed while the proxy writes to it, as by logrotate.
fn rotated(mode: Mode) {
    let (proxy, _served, path) = start(mode, "combined");
    let old = path.with_extension("1");
    let read = |path: &Path| std::fs::read_to_string(path).unwrap_or_default();
    send(&proxy, "GET /before HTTP/1.1\r\nHost: a\r\n\r\n");
    eventually("it is written", || read(&path).contains("/before"));
    std::fs::rename(&path, &old).expect("there");
    proxy.signal("USR1");
    eventually("there is a new file", || path.exists());
    send(&proxy, "GET /after HTTP/1.1\r\nHost: a\r\n\r\n");
    eventually("it is written, too", || read(&path).contains("/after"));
    assert_eq!(
        (read(&old).lines().count(), read(&path).lines().count()),
        (1, 1)
    );
}

fn make_fifo(path: &Path) {
    let made = std::process::Command::new("mkfifo").arg(path).status();
    assert!(made.is_ok_and(|status| status.success()));
}

/// Opening it would wait for the reader, with signals and ports in vain.
fn a_fifo_that_nobody_reads(mode: Mode) {
    let config = Config::new(mode);
    let path = config.directory().join("access.fifo");
    make_fifo(&path);
    let mut proxy = config
        .tables(&format!("[access_log]\npath = \"{}\"", path.display()))
        .upstream(&["127.0.0.1:1"], "")
        .start_unawaited();
    assert_eq!(proxy.exit_within(PATIENCE).code(), Some(1));
    let log = proxy.log().join("\n");
    assert!(log.contains("access.fifo: nobody reads this FIFO"), "{log}");
}

fn rotated_to_a_fifo_that_nobody_reads(mode: Mode) {
    let (mut proxy, _served, path) = start(mode, "combined");
    let old = path.with_extension("1");
    std::fs::rename(&path, &old).expect("there");
    make_fifo(&path);
    proxy.signal("USR1");
    eventually("the log says so", || {
        let log = proxy.log();
        log.iter().any(|line| {
            line.contains("the old file is kept") && line.contains("nobody reads this FIFO")
        })
    });
    send(&proxy, "GET /after HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(proxy.stop_and_read(&old).contains("/after"));
}

/// A pipe that is full holds up the end for a while, and a second signal ends that.
fn second_signal_while_the_log_is_waited_for(mode: Mode) {
    let config = Config::new(mode);
    let path = config.directory().join("access.fifo");
    make_fifo(&path);
    let reader = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(&path);
    let reader = reader.expect("a FIFO opens for both at once");
    let mut proxy = config
        .tables(&format!("[access_log]\npath = \"{}\"", path.display()))
        .upstream(&["127.0.0.1:1"], "")
        .start();
    let mut client = proxy.connect();
    // More than the pipe holds.
    for _ in 0..100 {
        client.get(&format!("/{}", "x".repeat(1000)));
    }
    proxy.signal("TERM");
    eventually("it waits for the log alone", || {
        let log = proxy.log();
        let ends = ["drained; bye", "shutdown_timeout is over"];
        log.iter()
            .any(|line| ends.iter().any(|end| line.contains(end)))
    });
    proxy.signal("TERM");
    assert_eq!(proxy.exit_within(PATIENCE).code(), Some(1));
    drop(reader);
}

fn combined(mode: Mode) {
    let (proxy, _served, path) = start(mode, "combined");
    send(
        &proxy,
        "GET /path?q=1 HTTP/1.1\r\nHost: a\r\nReferer: http://b/c\r\nUser-Agent: test/1.0 (x; y)\r\n\r\n",
    );
    send(
        &proxy,
        "POST / HTTP/1.0\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi",
    );
    let lines = lines_after_stop(proxy, &path, 2);
    let first = parts(&lines[0]);
    assert_eq!(first[..3], ["127.0.0.1", "-", "-"]);
    assert!(is_date(&first[3]), "{}", first[3]);
    assert_eq!(
        first[4..9],
        [
            "\"GET /path?q=1 HTTP/1.1\"",
            "200",
            "4",
            "\"http://b/c\"",
            "\"test/1.0 (x; y)\""
        ]
    );
    let second = parts(&lines[1]);
    assert_eq!(
        second[4..9],
        ["\"POST / HTTP/1.0\"", "200", "4", "\"-\"", "\"-\""]
    );
}

/// `[10/Oct/2000:13:55:36 -0700]`
fn is_date(text: &str) -> bool {
    let pattern = "[00/Aaa/0000:00:00:00 +0000]";
    text.len() == pattern.len()
        && text
            .chars()
            .zip(pattern.chars())
            .all(|(each, kind)| match kind {
                '0' => each.is_ascii_digit(),
                'A' => each.is_ascii_uppercase(),
                'a' => each.is_ascii_lowercase(),
                '+' => each == '+' || each == '-',
                _ => each == kind,
            })
}

fn json(mode: Mode) {
    let (proxy, _served, path) = start(mode, "json");
    send(&proxy, b"GET /path?q=1 HTTP/1.1\r\nHost: a.example\r\nReferer: http://b/c\r\nUser-Agent: t\"e\\s\tt\xe9\r\n\r\n");
    let lines = lines_after_stop(proxy, &path, 1);
    let value: serde_json::Value =
        serde_json::from_str(&lines[0]).expect("a line is a JSON object");
    let object = value.as_object().expect("a line is a JSON object");
    let texts: Vec<&str> = object.values().filter_map(|value| value.as_str()).collect();
    for expected in ["GET", "/path?q=1", "http://b/c", "a.example", "app"] {
        assert!(
            texts.iter().any(|text| text.contains(expected)),
            "{expected} in {value}"
        );
    }
    assert!(
        texts.iter().any(|text| text.contains("127.0.0.1")),
        "{value}"
    );
    assert_eq!(
        object.get("status").and_then(serde_json::Value::as_u64),
        Some(200),
        "{value}"
    );
}

fn off_by_default(mode: Mode) {
    let served = Origin::serve_text("fine");
    let mut proxy = Config::new(mode).upstream(&[&served.address], "").start();
    send(&proxy, "GET /path HTTP/1.1\r\nHost: a\r\n\r\n");
    proxy.stop();
    assert_eq!(proxy.output(), [""; 0]);
    assert!(!proxy.log().iter().any(|line| line.contains("/path")));
}

fn on_standard_output(mode: Mode) {
    let served = Origin::serve_text("fine");
    let proxy = Config::new(mode)
        .tables("[access_log]\npath = \"-\"")
        .upstream(&[&served.address], "")
        .start();
    send(&proxy, "GET /path HTTP/1.1\r\nHost: a\r\n\r\n");
    eventually("a line on standard output", || {
        proxy
            .output()
            .iter()
            .any(|line| line.contains("GET /path HTTP/1.1"))
    });
}

fn hostile_fields_stay_in_their_place(mode: Mode) {
    let (proxy, _served, path) = start(mode, "combined");
    let agents: [&[u8]; 5] = [
        b"x\" 200 4 \"y",
        b"x\\",
        b"x\\\" \"",
        b"tab\there",
        b"\xff\xfe\x80",
    ];
    for agent in agents {
        let request = [
            b"GET / HTTP/1.1\r\nHost: a\r\nUser-Agent: ",
            agent,
            b"\r\n\r\n",
        ]
        .concat();
        assert_eq!(send(&proxy, request), 200);
    }
    let lines = lines_after_stop(proxy, &path, 5);
    for line in lines {
        assert!(
            line.bytes().all(|byte| (0x20..0x7f).contains(&byte)),
            "{line:?}"
        );
        let parts = parts(&line);
        assert_eq!(
            parts[4..8],
            ["\"GET / HTTP/1.1\"", "200", "4", "\"-\""],
            "{line}"
        );
        assert!(
            parts[8].starts_with('"') && parts[8].ends_with('"'),
            "{line}"
        );
    }
}

fn own_answers_are_logged(mode: Mode) {
    let (proxy, _served, path) = start(mode, "combined");
    send(
        &proxy,
        "GET /bad HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n",
    );
    send(&proxy, "CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n");
    send(&proxy, "GET / HTTP/2.0\r\nHost: a\r\n\r\n");
    let lines = lines_after_stop(proxy, &path, 3);
    for (line, expected) in lines.iter().zip([
        ["\"GET /bad HTTP/1.1\"", "400"],
        ["\"CONNECT a:1 HTTP/1.1\"", "405"],
        ["\"-\"", "505"],
    ]) {
        let parts = parts(line);
        assert_eq!(parts[4..6], expected, "{line}");
        assert!(
            parts[6].parse::<u64>().is_ok_and(|bytes| bytes > 0),
            "an answer of ours has a body: {line}"
        );
    }
}

/// The authority of absolute-form replaces Host (RFC 9112 section 3.2.2), in the log too.
fn refusals_show_the_host_asked_for(mode: Mode) {
    let (proxy, _served, path) = start(mode, "json");
    for target in ["/", "http://authority/"] {
        // Of HTTP/1.0 and without a length.
        let refused = format!("POST {target} HTTP/1.0\r\nHost: field\r\n\r\n");
        assert_eq!(send(&proxy, refused), 411);
    }
    for (fields, status) in [("Host: b\r\n", 400), ("Expect: more\r\n", 417)] {
        let refused = format!("GET / HTTP/1.1\r\nHost: field\r\n{fields}\r\n");
        assert_eq!(send(&proxy, refused), status);
    }
    let lines = lines_after_stop(proxy, &path, 4);
    for (line, host) in lines.iter().zip(["field", "authority", "", "field"]) {
        let value: serde_json::Value = serde_json::from_str(line).expect("a JSON object");
        assert_eq!(value["host"], host, "{line}");
    }
}

/// The address of a refused client is what an operator looks for. What is left of a head that does not come whole may name another.
fn refusals_show_the_client_behind_a_trusted_proxy(mode: Mode) {
    let served = Origin::serve_text("fine");
    let config = Config::new(mode).key("shutdown_timeout = \"20s\"");
    let path = config.directory().join("access.log");
    let tables = format!(
        "[access_log]\npath = \"{}\"\n\
         [forward]\ntrusted_proxies = [\"127.0.0.1\"]\n\
         [limits]\nbody = \"1KiB\"\nmax_in_flight = 1\n\
         [rate_limit]\nrequests = 2\nperiod = \"1h\"\nexempt = [\"192.0.2.8\"]\n\
         [[route]]\nhost = \"a\"\nupstream = \"app\"",
        path.display()
    );
    let proxy = config
        .tables(&tables)
        .upstream(&[&served.address], "")
        .start();
    let ask = |method: &str, host: &str, client: &str, fields: &str| {
        let head = format!("{method} / HTTP/1.1\r\nHost: {host}\r\nX-Forwarded-For: {client}\r\n");
        send(&proxy, format!("{head}{fields}\r\n"))
    };
    assert_eq!(ask("GET", "a", "192.0.2.1", ""), 200);
    assert_eq!(ask("GET", "b", "192.0.2.1", ""), 404);
    assert_eq!(ask("GET", "a", "192.0.2.1", ""), 429);
    assert_eq!(ask("CONNECT", "a", "192.0.2.2", ""), 405);
    assert_eq!(
        ask("PUT", "a", "192.0.2.3", "Content-Length: 1025\r\n"),
        413
    );
    assert_eq!(ask("PUT", "a", "192.0.2.4", "Expect: more\r\n"), 417);
    assert_eq!(ask("GET", "a", "192.0.2.5", "Host: b\r\n"), 400);
    assert_eq!(ask("GET", "a", "192.0.2.6", "Bad Name: b\r\n"), 400);
    let mut held = proxy.connect();
    held.send(
        "PUT / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 192.0.2.7\r\nContent-Length: 2\r\n\r\n",
    );
    eventually("one is in flight", || {
        ask("GET", "a", "192.0.2.8", "") == 503
    });
    held.send("hi");
    assert_eq!(held.response("PUT").status, 200);

    let text = { proxy }.stop_and_read(&path);
    let told = |client: &str, status: &str| {
        let parts = text.lines().map(parts);
        let lines = parts.filter(|parts| parts[0] == client && parts[5] == status);
        lines.count()
    };
    for (client, status) in [
        ("192.0.2.1", "200"),
        ("192.0.2.1", "404"),
        ("192.0.2.1", "429"),
        ("192.0.2.2", "405"),
        ("192.0.2.3", "413"),
        ("192.0.2.4", "417"),
        ("192.0.2.5", "400"),
        ("127.0.0.1", "400"),
        ("192.0.2.7", "200"),
    ] {
        assert_eq!(told(client, status), 1, "{client} {status} in\n{text}");
    }
    assert!(told("192.0.2.8", "503") > 0, "{text}");
    assert_eq!(told("127.0.0.1", "503"), 0, "{text}");
}

fn complete_after_a_stop(mode: Mode) {
    let (proxy, _served, path) = start(mode, "combined");
    let mut client = proxy.connect();
    for number in 0..500 {
        assert_eq!(client.get(&format!("/{number}")).status, 200);
    }
    drop(client);
    let since = Instant::now();
    for (number, line) in lines_after_stop(proxy, &path, 500).iter().enumerate() {
        assert!(
            line.contains(&format!("\"GET /{number} HTTP/1.1\"")),
            "{line}"
        );
    }
    let took = since.elapsed();
    assert!(
        took < Duration::from_secs(2 * SLOWNESS),
        "the exit took {took:?}"
    );
}

fn written_while_running(mode: Mode) {
    let (proxy, _served, path) = start(mode, "combined");
    send(&proxy, "GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    eventually("the log is written", || {
        std::fs::read_to_string(&path).is_ok_and(|text| text.ends_with('\n'))
    });
}

fn last_lines_of_a_shard_that_dies(mode: Mode) {
    let served = Origin::serve_text("fine");
    let config = Config::new(mode).faults();
    let path = config.directory().join("access.log");
    let mut proxy = config
        .tables(&format!("[access_log]\npath = \"{}\"", path.display()))
        .upstream(&[&served.address], "")
        .start();
    let mut client = proxy.connect();
    // The second kills the shard within a tick, before the first one's line is handed over.
    client
        .send("GET /last HTTP/1.1\r\nHost: a\r\n\r\nGET /fault/shard HTTP/1.1\r\nHost: a\r\n\r\n");
    client.read_to_end();
    eventually("the shard died", || {
        proxy.log().iter().any(|line| line.contains("shard died"))
    });
    let text = proxy.stop_and_read(&path);
    assert_eq!(text.matches("GET /last").count(), 1, "{text}");
}

/// A proxy whose log has objects, the log, and the one server, which the test plays.
fn start_with_origin(mode: Mode) -> (Proxy, Origin, PathBuf) {
    let origin = Origin::bind();
    let config = Config::new(mode).key("shutdown_timeout = \"20s\"");
    let path = config.directory().join("access.log");
    let proxy = config
        .tables(&format!(
            "[access_log]\npath = \"{}\"\nformat = \"json\"\n[admin]\naddress = \"127.0.0.1:0\"",
            path.display()
        ))
        .upstream(&[&origin.address], "retries = 0")
        .start();
    (proxy, origin, path)
}

fn tunnels(mode: Mode) {
    let (proxy, origin, path) = start_with_origin(mode);
    let mut client = proxy.connect();
    client.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n");
    let mut upstream = origin.accept();
    upstream.request();
    upstream
        .send("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\nearly");
    client.response_head("GET");
    client.expect("early");
    client.send("not counted");
    upstream.expect("not counted");
    upstream.send(" and late");
    client.expect(" and late");
    drop(upstream);
    client.expect_end();
    drop(client);
    let lines = lines_after_stop(proxy, &path, 1);
    let line: serde_json::Value = serde_json::from_str(&lines[0]).expect("an object");
    assert_eq!(line["status"], 101);
    assert_eq!(line["body_bytes_sent"], "early and late".len());
}

/// A line tells what the client got of an answer that was not whole, and which server it was.
fn answers_that_break_off(mode: Mode) {
    let (proxy, origin, path) = start_with_origin(mode);
    let (mut client, mut upstream) = proxy.reach(&origin);
    upstream.send("HTTP/1.1 206 Partial Content\r\nContent-Length: 10\r\n\r\n");
    client.response_head("GET");
    upstream.send("hello");
    client.expect("hello");
    drop(upstream);
    client.expect_end();
    let (mut client, upstream) = proxy.reach(&origin);
    drop(upstream);
    assert_eq!(client.response("GET").status, 502);
    assert_eq!(proxy.status()["totals"]["responses"]["2xx"], 1);
    let lines = lines_after_stop(proxy, &path, 2);
    let part = |line: &str| {
        let line: serde_json::Value = serde_json::from_str(line).expect("an object");
        let number = |name: &str| line[name].as_u64().expect("a number");
        assert_eq!(line["server"], "a");
        (number("status"), number("body_bytes_sent"))
    };
    assert_eq!(part(&lines[0]), (206, 5));
    assert_eq!(part(&lines[1]).0, 502);
}
