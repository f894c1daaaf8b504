//! `ringlane ctl` as a user runs it, against a running proxy.

mod support;

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Command, Output};

use serde_json::Value;
use support::{Config, Mode, Origin, Proxy, Served};

const TOKEN: &str = "a-token-for-tests-only";

/// Epoll, for what is tested here does not touch the shards' ways.
fn start() -> (Proxy, [Served; 2]) {
    let servers = [Origin::serve_text("a"), Origin::serve_text("b")];
    let proxy = Config::new(Mode::Epoll)
        .tables(&format!(
            "[admin]\naddress = \"127.0.0.1:0\"\ntoken = \"{TOKEN}\""
        ))
        .upstream(&[&servers[0].address, &servers[1].address], "")
        .start();
    (proxy, servers)
}

fn ctl(arguments: &[&str], token: Option<&str>) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringlane"));
    command
        .arg("ctl")
        .args(arguments)
        .env_remove("RUST_LOG")
        .env_remove("RINGLANE_TOKEN");
    if let Some(token) = token {
        command.env("RINGLANE_TOKEN", token);
    }
    command.output().expect("the program starts")
}

/// The same for a running proxy.
fn ctl_of(proxy: &Proxy, arguments: &[&str], token: Option<&str>) -> Output {
    let address = proxy.admin.expect("the status page is on").to_string();
    ctl(&[arguments, &["--admin", &address]].concat(), token)
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[track_caller]
fn expect_success(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(0), "{}", stderr(output));
    assert_eq!(stderr(output), "");
    stdout(output)
}

#[track_caller]
fn expect_failure(output: &Output, code: i32, text: &str) {
    assert_eq!(output.status.code(), Some(code), "{}", stderr(output));
    assert!(stderr(output).contains(text), "{text}: {}", stderr(output));
    assert_eq!(stdout(output), "");
}

/// A file in the test's own directory, for its owner only.
fn file(name: &str, text: &str) -> PathBuf {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::write(&path, text).expect("the test's directory is writable");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("a file of ours");
    path
}

#[test]
fn orders_are_carried_out_and_shown() {
    let (proxy, _servers) = start();
    let text = expect_success(&ctl_of(&proxy, &["drain", "app", "a"], Some(TOKEN)));
    assert_eq!(text, "app a: drained, weight 1, 0 active\n");
    for _ in 0..4 {
        assert_eq!(proxy.get("/").text(), "b");
    }
    let text = expect_success(&ctl_of(&proxy, &["weight", "app", "a", "7"], Some(TOKEN)));
    assert_eq!(text, "app a: drained, weight 7, 0 active\n");
    let table = expect_success(&ctl_of(&proxy, &["status"], None));
    let rows: Vec<Vec<&str>> = table
        .lines()
        .map(|line| line.split_ascii_whitespace().collect())
        .collect();
    let row = |start: &[&str]| rows.iter().any(|row| row.starts_with(start));
    assert!(
        table.starts_with(concat!("ringlane ", env!("CARGO_PKG_VERSION"), ", pid ")),
        "{table}"
    );
    assert!(row(&["UPSTREAM", "SERVER", "STATE", "WEIGHT"]), "{table}");
    assert!(row(&["app", "a", "drained", "7", "0"]), "{table}");
    assert!(row(&["app", "b", "unchecked", "1"]), "{table}");
    assert!(row(&["0"]), "the shard: {table}");
    for (order, text) in [
        (
            &["down", "app", "a"][..],
            "app a: down, weight 7, 0 active\n",
        ),
        (
            &["up", "app", "a"],
            "app a: unchecked, weight 7, 0 active\n",
        ),
        (
            &["weight", "app", "a", "configured"],
            "app a: unchecked, weight 1, 0 active\n",
        ),
    ] {
        assert_eq!(expect_success(&ctl_of(&proxy, order, Some(TOKEN))), text);
    }
}

#[test]
fn status_as_json_is_the_status_page() {
    let (proxy, _servers) = start();
    let text = expect_success(&ctl_of(&proxy, &["status", "--json"], None));
    let status: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(status["pid"], proxy.pid());
}

#[test]
fn address_and_token_come_from_options_variable_and_configuration() {
    let (proxy, _servers) = start();
    let address = proxy.admin.expect("the status page is on").to_string();
    let token = file("ctl-token", &format!("{TOKEN}\n"))
        .display()
        .to_string();
    let wrong = "another-token-for-tests";
    let config = |name: &str, admin: &str| {
        let rest = "[[listen]]\naddress = \"127.0.0.1:0\"\n[[upstream]]\nname = \"x\"\nserver = [{ address = \"127.0.0.1:1\" }]";
        file(
            name,
            &format!("[admin]\naddress = \"{address}\"\n{admin}\n{rest}"),
        )
        .display()
        .to_string()
    };
    let with_file = config("ctl-file.toml", &format!("token_file = \"{token}\""));
    let with_wrong = config("ctl-wrong.toml", &format!("token = \"{wrong}\""));
    // (arguments, variable)
    let cases: [(&[&str], Option<&str>); 4] = [
        (&["--config", &with_file, "up", "app", "a"], None),
        (&["up", "app", "a", "--config", &with_wrong], Some(TOKEN)),
        (
            &[
                "up",
                "app",
                "a",
                "--config",
                &with_wrong,
                "--token-file",
                &token,
            ],
            Some(wrong),
        ),
        (
            &[
                "up",
                "app",
                "a",
                "--admin",
                &format!("http://{address}/"),
                "--token-file",
                &token,
            ],
            None,
        ),
    ];
    for (arguments, variable) in cases {
        let text = expect_success(&ctl(arguments, variable));
        assert_eq!(
            text, "app a: unchecked, weight 1, 0 active\n",
            "{arguments:?}"
        );
    }
    expect_failure(
        &ctl(&["up", "app", "a", "--config", &with_wrong], None),
        1,
        "this is not the token (status 401)",
    );
}

#[test]
fn what_the_proxy_refuses_exits_1() {
    let (proxy, _servers) = start();
    let refused = ctl_of(&proxy, &["down", "app", "c"], Some(TOKEN));
    expect_failure(&refused, 1, "there is no such server");
    let served = Origin::serve_text("a");
    let steerless = Config::new(Mode::Epoll)
        .tables("[admin]\naddress = \"127.0.0.1:0\"\norders = false")
        .upstream(&[&served.address], "")
        .start();
    let refused = ctl_of(&steerless, &["down", "app", "a"], Some(TOKEN));
    expect_failure(&refused, 1, "orders are off");
    let refused = ctl_of(&proxy, &["down", "app", "a"], None);
    expect_failure(&refused, 1, "orders need the token");
}

#[test]
fn on_loopback_without_a_token_orders_go_without() {
    let served = Origin::serve_text("a");
    let proxy = Config::new(Mode::Epoll)
        .tables("[admin]\naddress = \"127.0.0.1:0\"")
        .upstream(&[&served.address], "")
        .start();
    for token in [None, Some(TOKEN)] {
        let taken = ctl_of(&proxy, &["drain", "app", "a"], token);
        assert!(expect_success(&taken).contains("drained"));
    }
}

#[test]
fn what_cannot_be_reached_exits_1() {
    let nobody = ctl(&["status", "--admin", &Origin::nowhere()], None);
    expect_failure(&nobody, 1, "nobody listens there");
    let other = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = other.local_addr().expect("bound").to_string();
    let greeter = std::thread::spawn(move || {
        use std::io::Write as _;
        let (mut stream, _) = other.accept().expect("a client");
        stream
            .write_all(b"SSH-2.0-OpenSSH_9.9\r\n")
            .expect("it reads");
        // Read first, or closing would reset the connection under the greeting.
        let mut request = [0; 4096];
        let _ = std::io::Read::read(&mut stream, &mut request);
    });
    let output = ctl(&["status", "--admin", &address], None);
    expect_failure(&output, 1, "is this the status listener?");
    greeter.join().expect("greeted");
}

/// What answers with JSON is not for that the status listener.
#[test]
fn what_another_server_answers_is_no_success() {
    let page = r#"{"ok": true, "name": "another"}"#;
    let stranger = Origin::bind().serve(move |_| support::last("200 OK", page));
    let admin = ["--admin", &stranger.address];
    let commands: [&[&str]; 6] = [
        &["status"],
        &["status", "--json"],
        &["drain", "app", "a"],
        &["up", "app", "a"],
        &["weight", "app", "a", "7"],
        &["weight", "app", "a", "configured"],
    ];
    for command in commands {
        let output = ctl(&[command, &admin[..]].concat(), None);
        expect_failure(&output, 1, "is this the status listener?");
    }
}

/// The right server, and not what was ordered.
#[test]
fn an_order_that_is_not_shown_is_no_success() {
    let page = r#"{"name": "a", "state": "up", "order": null, "weight": 5, "configured_weight": 1, "active": 0}"#;
    let stale = Origin::bind().serve(move |_| support::last("200 OK", page));
    let another = Some("another order has come since: app a: up, weight 5, 0 active");
    let commands: [(&[&str], Option<&str>); 6] = [
        (&["drain", "app", "a"], another),
        (&["up", "app", "b"], Some("is this the status listener?")),
        (&["weight", "app", "a", "7"], another),
        (&["weight", "app", "a", "configured"], another),
        (&["up", "app", "a"], None),
        (&["weight", "app", "a", "5"], None),
    ];
    for (command, failure) in commands {
        let output = ctl(&[command, &["--admin", &stale.address]].concat(), None);
        match failure {
            Some(text) => expect_failure(&output, 1, text),
            None => drop(expect_success(&output)),
        }
    }
}

#[test]
fn no_cell_of_a_table_is_too_long() {
    let name = "x".repeat(70_000);
    let page = format!(
        r#"{{"pid": 1, "upstreams": [{{"name": "app", "servers": [{{"name": "{name}", "failures": {{"closed": {max}, "truncated": 5}}}}]}}]}}"#,
        max = u64::MAX
    );
    let strange = Origin::bind().serve(move |_| support::last("200 OK", &page));
    let text = expect_success(&ctl(&["status", "--admin", &strange.address], None));
    assert!(text.contains(&name), "it is shown");
    assert!(
        text.lines().all(|line| line.len() < 71_000),
        "and the others are short"
    );
}

#[test]
fn wrong_use_exits_2() {
    let empty = file("ctl-empty", "").display().to_string();
    let broken = file("ctl-broken.toml", "nonsense = 1")
        .display()
        .to_string();
    let cases: [(&[&str], Option<&str>, &str); 10] = [
        (&[], None, "Usage: ringlane ctl"),
        (&["drain", "app"], None, "Usage: ringlane ctl drain"),
        (
            &["weight", "app", "a", "1001"],
            None,
            "a weight is 0 to 1000",
        ),
        (&["weight", "app", "a", "-1"], None, "Usage:"),
        (&["stop", "app", "a"], None, "Usage: ringlane ctl"),
        (
            &["drain", "app", "a"],
            Some("short"),
            "RINGLANE_TOKEN: a token has 16",
        ),
        (
            &["drain", "app", "a"],
            Some("0123456789abcdef\r\nX: y"),
            "RINGLANE_TOKEN: a token has letters",
        ),
        (
            &["drain", "app", "a", "--token-file", &empty],
            None,
            "ctl-empty: a token has 16",
        ),
        (
            &["status", "--config", &broken],
            None,
            "there is no key `nonsense`",
        ),
        (&["status", "--admin", "somewhere"], None, "is no address"),
    ];
    for (arguments, token, text) in cases {
        expect_failure(&ctl(arguments, token), 2, text);
    }
}
