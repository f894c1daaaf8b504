//! Whole files: what is complained about, where, and what a good file becomes.

use std::path::Path;
use std::time::Duration;

use proptest::prelude::*;

use super::*;

/// A valid file's end; each case puts its own lines before or after it.
const REST: &str = r#"
[[listen]]
address = "127.0.0.1:8080"
[[upstream]]
name = "app"
server = [{ address = "127.0.0.1:9001" }]
"#;

/// Complaints as `severity line: message (help)`.
fn complaints(text: &str) -> Vec<String> {
    let reading = Reading::parse(text, "test.toml");
    let is_error = |complaint: &Complaint| complaint.severity == Severity::Error;
    let refused = reading.complaints.iter().any(is_error);
    assert_eq!(reading.config.is_none(), refused, "{text}");
    let short = |complaint: &Complaint| {
        let severity = if is_error(complaint) {
            "error"
        } else {
            "warning"
        };
        let line = complaint.place.as_ref().map_or(0, |place| place.line);
        let help = complaint
            .help
            .as_ref()
            .map_or(String::new(), |help| format!(" ({help})"));
        format!("{severity} {line}: {}{help}", complaint.message)
    };
    reading.complaints.iter().map(short).collect()
}

/// Complains unless the file has exactly these complaints, each given by its beginning.
fn assert_complaints(text: &str, expected: &[&str]) {
    let found = complaints(text);
    let same = found
        .iter()
        .zip(expected)
        .all(|(found, expected)| found.starts_with(expected));
    assert!(
        same && found.len() == expected.len(),
        "{text}\nexpected {expected:#?}\nfound {found:#?}"
    );
}

fn good(text: &str) -> Config {
    Config::parse(text, "test.toml").unwrap_or_else(|complaints| panic!("{complaints:#?}"))
}

/// Lines before a valid rest, and the one complaint.
const OUTSIDE_LISTS: &[(&str, &str)] = &[
    (
        "shard = 4",
        "error 1: there is no key `shard` at the top of the file (did you mean `shards`?)",
    ),
    (
        "[timeout]",
        "error 1: there is no key `timeout` at the top of the file (did you mean `timeouts`?)",
    ),
    (
        "[log]\nshards = 1",
        "error 2: there is no key `shards` in [log] (`shards` can stand at the top of the file, before the first [table])",
    ),
    (
        "format = \"json\"",
        "error 1: there is no key `format` at the top of the file (`format` can stand in [log] or in [access_log])",
    ),
    (
        "certificate = 1",
        "error 1: there is no key `certificate` at the top of the file",
    ),
    (
        "pin = \"no\"",
        "error 1: pin takes true or false, not a string",
    ),
    (
        "io = \"Epoll\"",
        "error 1: io is \"Epoll\"; it takes \"auto\", \"uring\" or \"epoll\" (did you mean `epoll`?)",
    ),
    (
        "shards = 0",
        "error 1: shards is 0; it takes 1 to 1024, or \"auto\"",
    ),
    ("shards = -1", "error 1: shards is -1; it takes"),
    (
        "shards = 99999999999999999999",
        "error 1: shards is 99999999999999999999; it takes",
    ),
    (
        "shards = \"4\"",
        "error 1: shards takes 1 to 1024, or \"auto\", not a string",
    ),
    (
        "shards = 2\ncpus = \"0-3\"",
        "error 2: cpus and shards are both given",
    ),
    ("cpus = \"0-3,x\"", "error 1: cpus: `x` is not a CPU number"),
    (
        "ring_entries = 255",
        "error 1: ring_entries is 255; it takes 256 to 32768",
    ),
    (
        "shutdown_timeout = \"0s\"",
        "error 1: shutdown_timeout is 0s; it takes \"1ms\" to \"1d\"",
    ),
    (
        "shutdown_timeout = 30",
        "error 1: shutdown_timeout is 30 without a unit",
    ),
    (
        "shutdown_timeout = \"30\"",
        "error 1: shutdown_timeout: `30` is not a duration",
    ),
    (
        "log.level = \"inof\"",
        "error 1: level: `inof` is not a level; they are off, error, warn, info, debug, trace (did you mean `info`?)",
    ),
    (
        "log.level = \"ringlane=inof\"",
        "error 1: level: `ringlane=inof` is not a filter",
    ),
    ("log.level = \"\"", "error 1: level: `` is not a level"),
    ("access_log.path = \"\"", "error 1: path: the path is empty"),
    (
        "access_log.buffer = \"1KiB\"",
        "error 1: buffer is 1KiB; it takes \"4KiB\" to \"64MiB\"",
    ),
    (
        "admin.address = \"127.0.0.1:8080\"",
        "error 3: the status page listens on `127.0.0.1:8080` already",
    ),
    (
        "admin.address = \"localhost:9900\"",
        "error 1: address: `localhost:9900` is not an IP address and port (write \"127.0.0.1:9900\")",
    ),
    (
        "admin.address = \"0.0.0.0:9900\"",
        "error 1: other machines could give orders at `0.0.0.0:9900`, without a token (give [admin] a token_file,",
    ),
    (
        "admin = { address = \"[::ffff:10.0.0.1]:9900\", token = \"off\" }",
        "error 1: other machines could give orders at `[::ffff:10.0.0.1]:9900`",
    ),
    (
        "admin = { address = \"0.0.0.0:9900\", orders = false }",
        "warning 1: `0.0.0.0:9900` shows the status page to other machines",
    ),
    (
        "admin = { address = \"0.0.0.0:9900\", token = \"0123456789abcdef\" }",
        "warning 1: `0.0.0.0:9900` shows the status page to other machines",
    ),
    (
        "timeouts = 5",
        "error 1: timeouts takes a table [timeouts], not a number",
    ),
    (
        "limits.head = \"2MiB\"",
        "error 1: head is 2MiB; it takes \"1KiB\" to \"1MiB\"",
    ),
    ("limits.uri = \"32KiB\"", "warning 1: uri never acts"),
    ("limits.body = 0", "error 1: body is 0; it takes"),
    ("limits.connections = \"of\"", "error 1: connections takes"),
    (
        "forward.trusted_proxies = [\"10.1.0.0/8\"]",
        "error 1: `10.1.0.0/8` has bits set beyond its prefix length",
    ),
    (
        "forward.trusted_proxies = [7]",
        "error 1: trusted_proxies takes a list",
    ),
    (
        "forward.trusted_proxies = \"10.0.0.0/8\"",
        "error 1: trusted_proxies takes a list",
    ),
    (
        "forward.trusted_proxies = [\"::/0\"]",
        "warning 1: `::/0` lets every client claim any address",
    ),
    ("pin = true\npin = true", "error 2: duplicate key"),
    ("pin = ", "error 1: "),
];

#[test]
fn mistakes_outside_lists() {
    for (lines, expected) in OUTSIDE_LISTS {
        assert_complaints(&format!("{lines}{REST}"), &[expected]);
    }
}

#[test]
fn mistakes_in_lists() {
    // Lines after a valid file of six lines, and the complaints.
    let cases: [(&str, &[&str]); 21] = [
        ("[[listen]]", &["error 7: [[listen]] needs `address`"]),
        (
            "[[listen]]\naddress = \"127.0.0.1:8080\"",
            &["error 8: `127.0.0.1:8080` is listened on already, see line 3"],
        ),
        (
            "[[listen]]\naddress = \"0.0.0.0:9900\"",
            &["error 8: the status page listens on `127.0.0.1:9900` already"],
        ),
        (
            "[[listen]]\naddress = \"127.0.0.1:1\"\ncongestion = \"b b\"",
            &["error 9: congestion: `b b` cannot be the name"],
        ),
        ("[[route]]", &["error 7: [[route]] needs `upstream`"]),
        (
            "[[route]]\nupstream = \"ap\"",
            &["error 8: upstream: there is no upstream `ap` (did you mean `app`?)"],
        ),
        (
            "[[route]]\nupstream = \"shop\"",
            &["error 8: upstream: there is no upstream `shop` (there are: app)"],
        ),
        (
            "[[route]]\nupstream = \"app\"\npath = \"api\"",
            &["error 9: path: `api` does not begin with `/` (write \"/api\")"],
        ),
        (
            "[[route]]\nupstream = \"app\"\nhost = \"a b\"",
            &["error 9: host: `a b` is not a host name"],
        ),
        (
            "[[route]]\nupstream = \"app\"\nstrip_prefix = true",
            &["warning 9: strip_prefix never acts"],
        ),
        (
            "[[route]]\nupstream = \"app\"\n[[route]]\nupstream = \"app\"",
            &["error 9: a route for host * and path / stands in line 7"],
        ),
        (
            "[[route]]\nupstream = \"app\"\nhost=\"a.b\"\n[[route]]\nupstream = \"app\"\nhost=\"A.B\"",
            &["error 10: a route for host a.b and path / stands in line 7"],
        ),
        (
            "[route]\nupstream = \"app\"",
            &["error 7: route takes tables [[route]], not a table"],
        ),
        (
            "host = \"upstrem\"",
            &[
                "warning 7: host: every request will carry `Host: upstrem` (did you mean \"upstream\"?)",
            ],
        ),
        ("host = \"a\\r\\nX: y\"", &["error 7: host: "]),
        ("resolve = \"30s\"", &["warning 7: resolve never acts"]),
        (
            "retries = 17",
            &["error 7: retries is 17; it takes 0 to 16"],
        ),
        (
            "pool = { max_idle = -1 }",
            &["error 7: max_idle is -1; it takes 0 to 65536"],
        ),
        (
            "pool = { max_idel = 1 }",
            &["error 7: there is no key `max_idel` in [upstream.pool] (did you mean `max_idle`?)"],
        ),
        (
            "[[upstream]]\nname = \"b\"\nserver = [{ address = \"a:1\" }]\n[[route]]\nupstream = \"app\"",
            &["warning 8: no route leads to upstream `b`"],
        ),
        (
            "[[upstream]]\nname = \"app\"\nserver = [{ address = \"a:1\" }]",
            &[
                "error 8: there is an upstream `app` already, see line 5",
                "error 0: there are 2 upstreams and no [[route]]",
            ],
        ),
    ];
    for (lines, expected) in cases {
        assert_complaints(&format!("{REST}{lines}\n"), expected);
    }
}

#[test]
fn mistakes_in_sources() {
    let cases: [(&str, &[&str]); 4] = [
        (
            "source = [\"10.0.0.1:0\"]",
            &["error 7: `10.0.0.1:0` is not an IP address"],
        ),
        (
            "source = [\"10.0.0.1\", \"10.0.0.1\"]",
            &["error 7: `10.0.0.1` is a source already, see line 7"],
        ),
        (
            "source = [\"10.0.0.1\", \"::1\"]",
            &["error 7: source `::1` never acts"],
        ),
        (
            "source = [\"::1\"]",
            &[
                "error 7: no source is of the address family of server",
                "error 7: source `::1` never acts",
            ],
        ),
    ];
    for (lines, expected) in cases {
        assert_complaints(&format!("{REST}{lines}\n"), expected);
    }
}

#[test]
fn mistakes_in_retries_and_queues() {
    let cases: [(&str, &[&str]); 6] = [
        (
            "retry_statuses = \"200,503\"",
            &["error 7: retry_statuses: 200 is no failure (write statuses from 400 to 599"],
        ),
        (
            "retries = 0\nretry_statuses = \"503\"",
            &["warning 8: retry_statuses never acts: retries is 0"],
        ),
        (
            "retry_statuses = \"503\"",
            &["warning 7: retry_statuses never acts: there is no other server to try"],
        ),
        (
            "retry_body_bytes = \"1MiB\"",
            &["error 7: retry_body_bytes is 1MiB; it takes \"1B\" to \"64KiB\""],
        ),
        (
            "queue_timeout = \"1s\"",
            &["warning 7: queue_timeout never acts: there is no queue (add queue"],
        ),
        (
            "queue = 5",
            &["warning 7: queue hardly acts: a server without limit is never full (give"],
        ),
    ];
    for (lines, expected) in cases {
        assert_complaints(&format!("{REST}{lines}\n"), expected);
    }
}

#[test]
fn mistakes_in_balancing() {
    let cases: [(&str, &[&str]); 8] = [
        (
            "policy = \"least_conections\"",
            &[
                "error 7: policy is \"least_conections\"; it takes \"round_robin\", \"least_connections\", \"random\", \"two_choices\", \"ip_hash\", \"hash\", \"first\" or \"least_latency\" (did you mean `least_connections`?)",
            ],
        ),
        (
            "policy = \"hash\"\nhash = \"heder:x\"",
            &["error 8: hash: `heder:x` is no part of a request (did you mean `header`?)"],
        ),
        (
            "policy = \"hash\"\nhash = \"cookie\"",
            &["error 8: hash: `cookie` is no part of a request (write \"path\""],
        ),
        (
            "policy = \"random\"\nhash = \"uri\"",
            &["warning 8: hash never acts with this policy (the policy is \"random\")"],
        ),
        (
            "policy = \"hash\"\nip_hash_v6_prefix = 56",
            &["warning 8: ip_hash_v6_prefix never acts"],
        ),
        (
            "hash_balance_factor = 99",
            &["error 7: hash_balance_factor is 99; it takes 100 to 10000, or \"off\""],
        ),
        (
            "[[upstream]]\nname = \"b\"\nserver = [{ address = \"127.0.0.1:1\", weight = 1001 }]\n[[route]]\nupstream = \"app\"\n[[route]]\npath = \"/b\"\nupstream = \"b\"",
            &["error 9: weight is 1001; it takes 0 to 1000"],
        ),
        (
            "[[upstream]]\nname = \"b\"\nserver = [{ address = \"127.0.0.1:1\", weight = 0 }]\n[[route]]\nupstream = \"app\"\n[[route]]\npath = \"/b\"\nupstream = \"b\"",
            &["warning 9: every server has weight 0: all requests get 503"],
        ),
    ];
    for (lines, expected) in cases {
        assert_complaints(&format!("{REST}{lines}\n"), expected);
    }
}

#[test]
fn tokens_of_the_status_listener() {
    let directory = std::env::temp_dir().join(format!("ringlane-token-{}", std::process::id()));
    std::fs::create_dir_all(&directory).expect("a directory for the test's files");
    let file = |name: &str, text: &str, mode: u32| {
        use std::os::unix::fs::PermissionsExt as _;
        let path = directory.join(name);
        std::fs::write(&path, text).expect("a file of ours");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("ours");
        path.display().to_string()
    };
    let good_file = file("good", "0123456789abcdef\n", 0o640);
    let open_file = file("open", "0123456789abcdef", 0o644);
    let short_file = file("short", "0123", 0o600);
    let cases: [(&str, &[&str]); 13] = [
        ("address = \"[::ffff:127.0.0.1]:9900\"", &[]),
        ("orders = false", &[]),
        (
            "token = \"0123456789abcdef\"\norders = false",
            &["warning 2: token never acts: orders = false"],
        ),
        ("token = \"0123456789abcdef\"", &[]),
        ("token = \"off\"\ntoken_file = \"off\"", &[]),
        (&format!("token_file = \"{good_file}\""), &[]),
        (
            &format!("token_file = \"{open_file}\""),
            &["warning 2: every user may read `"],
        ),
        (
            &format!("token_file = \"{short_file}\""),
            &["error 2: token_file: `"],
        ),
        (
            "token_file = \"/nonexistent\"",
            &["error 2: token_file: `/nonexistent`: it cannot be read: No such file"],
        ),
        (
            "token = \"short\"",
            &["error 2: token: a token has 16 to 256 characters, not 5"],
        ),
        (
            "token = \"0123456789 abcdef\"",
            &["error 2: token: a token has letters, digits"],
        ),
        (
            &format!("token = \"0123456789abcdef\"\ntoken_file = \"{good_file}\""),
            &["error 3: token and token_file are both given"],
        ),
        (
            "token = \"0123456789abcdef\"\nenabled = false",
            &["warning 2: token never acts: enabled = false"],
        ),
    ];
    for (lines, expected) in cases {
        assert_complaints(&format!("[admin]\n{lines}\n{REST}"), expected);
    }
    let config = good(&format!("[admin]\ntoken_file = \"{good_file}\"\n{REST}"));
    let token = config.admin.and_then(|admin| admin.token);
    assert!(token.is_some_and(|token| token.is(b"0123456789abcdef")));
    // With orders, slow start acts without checks.
    let slow = format!("{REST}slow_start = \"10s\"\n");
    assert_complaints(&slow, &[]);
    let unsteered = format!("[admin]\norders = false{slow}");
    assert_complaints(&unsteered, &["warning 8: slow_start never acts"]);
    std::fs::remove_dir_all(&directory).expect("a directory of ours");
}

#[test]
fn mistakes_in_health() {
    let cases: [(&str, &[&str]); 24] = [
        (
            "when_none_healthy = \"try_all\"",
            &["warning 7: when_none_healthy never acts: nobody checks"],
        ),
        (
            "when_none_healthy = \"try_all\"",
            &["warning 7: when_none_healthy never acts: nobody checks"],
        ),
        (
            "slow_start = \"10s\"\npolicy = \"first\"\nhealth = {}",
            &["warning 7: slow_start never acts with this policy"],
        ),
        (
            "when_none_healthy = \"all\"\nhealth = {}",
            &["error 7: when_none_healthy is \"all\"; it takes \"fail\" or \"try_all\""],
        ),
        (
            "health = { type = \"https\" }",
            &["error 7: type is \"https\"; it takes \"http\" or \"tcp\" (did you mean `http`?)"],
        ),
        (
            "health = { interval = \"50ms\" }",
            &["error 7: interval is 50ms; it takes \"100ms\" to \"1h\""],
        ),
        (
            "health = { timeout = \"6s\" }",
            &[
                "error 7: timeout is 6s, longer than the interval of 5s (raise interval, or lower this)",
            ],
        ),
        (
            "health = { interval = \"1s\", fast_interval = \"2s\" }",
            &["error 7: fast_interval is 2s, longer"],
        ),
        (
            "health = { rise = 0 }",
            &["error 7: rise is 0; it takes 1 to 1000"],
        ),
        (
            "health = { path = \"health\" }",
            &["error 7: path: `health` is not a path"],
        ),
        (
            "health = { method = \"G T\" }",
            &["error 7: method: `G T` is not a method"],
        ),
        (
            "health = { method = \"CONNECT\" }",
            &["error 7: method: CONNECT is no method for a probe"],
        ),
        ("health = { host = \"a b\" }", &["error 7: host: "]),
        (
            "health = { headers = [\"Host: x\"] }",
            &["error 7: headers: Host has a key of its own (write host ="],
        ),
        (
            "health = { headers = [\"X: y\", \"Connection: x\"] }",
            &["error 7: headers: a probe sets connection itself"],
        ),
        (
            "health = { headers = [\"X\"] }",
            &["error 7: headers: `X` is not a field (write \"Name: value\")"],
        ),
        (
            "health = { expect = \"2xx,1xx\" }",
            &["error 7: expect: `1xx` is no status"],
        ),
        (
            "health = { method = \"HEAD\", body = \"x\" }",
            &["error 7: body: the answer to HEAD has none"],
        ),
        (
            "health = { type = \"tcp\", path = \"/x\" }",
            &["warning 7: path never acts: a \"tcp\" check only connects"],
        ),
        (
            "health = { port = 0 }",
            &["error 7: port is 0; it takes 1 to 65535, or \"same\""],
        ),
        (
            "health = { pth = \"/\" }",
            &["error 7: there is no key `pth` in [upstream.health] (did you mean `path`?)"],
        ),
        (
            "passive = { eject = \"10s\", eject_max = \"5s\" }",
            &["error 7: eject_max is 5s, shorter than the first ejection of 10s"],
        ),
        (
            "passive = { max_ejected = 101 }",
            &["error 7: max_ejected is 101; it takes 1 to 100"],
        ),
        (
            "passive = { statuses = \"teapot\" }",
            &["error 7: statuses: `teapot` is no status"],
        ),
    ];
    for (lines, expected) in cases {
        assert_complaints(&format!("{REST}{lines}\n"), expected);
    }
}

#[test]
fn short_intervals_cut_what_is_not_given() {
    let health = |lines: &str| {
        let config = good(&format!("{REST}health = {{ {lines} }}\n"));
        config.upstreams[0].health.clone().expect("checks are on")
    };
    let check = health("interval = \"500ms\"");
    let half = Duration::from_millis(500);
    assert_eq!((check.timeout, check.fast_interval), (half, half));
    let config = good(&format!("{REST}passive = {{ eject_max = \"5s\" }}\n"));
    let passive = config.upstreams[0].passive.as_ref().expect("on");
    assert_eq!(passive.eject, Duration::from_secs(5));
    let config = good(&format!("{REST}passive = {{ eject = \"10m\" }}\n"));
    let passive = config.upstreams[0].passive.as_ref().expect("on");
    assert_eq!(passive.eject_max, Duration::from_secs(600));
}

#[test]
fn mistakes_in_servers() {
    // Lines after the first two of an upstream, and the one complaint.
    let two_named_a = "[[upstream.server]]\naddress = \"a:1\"\nname = \"a\"\n[[upstream.server]]\naddress = \"b:1\"\nname = \"a\"";
    let cases = [
        ("server = []", "error 3: this upstream has no server"),
        ("", "error 1: this upstream has no server"),
        (
            "server = \"127.0.0.1:80\"",
            "error 3: server takes tables [[upstream.server]], not a string",
        ),
        (
            "server = [\"127.0.0.1:80\"]",
            "error 3: server takes tables [[upstream.server]], not a string",
        ),
        (
            "server = [{}]",
            "error 3: [[upstream.server]] needs `address`",
        ),
        (
            "server = [{ address = \"127.0.0.1:0\" }]",
            "error 3: address: `127.0.0.1:0` has port 0",
        ),
        (
            "server = [{ address = \"127.0.0.1\" }]",
            "error 3: address: `127.0.0.1` has no port (write \"127.0.0.1:80\")",
        ),
        (
            "server = [{ address = \"a:1\" }, { address = \"A:1\" }]",
            "error 3: `a:1` is a server already, see line 3 (give one of them another address, or",
        ),
        (
            two_named_a,
            "error 8: there is a server `a` already, see line 5 (give one of them another name: metrics and orders",
        ),
        (
            "server = [{ address = \"a:1\", name = \"a b\" }]",
            "error 3: name: `a b` is not a name",
        ),
        (
            "server = [{ address = \"unix:/a\" }]\nhealth = { port = 81 }",
            "warning 4: port never acts: every server is a Unix socket",
        ),
    ];
    for (lines, expected) in cases {
        let text =
            format!("[[upstream]]\nname = \"app\"\n{lines}\n[[listen]]\naddress = \"[::1]:80\"\n");
        assert_complaints(&text, &[expected]);
    }
}

#[test]
fn all_mistakes_come_at_once_and_in_order() {
    let text = "pin = 1\nio = 2\nx = 3\n[log]\nlevel = 4\n[[listen]]\nbacklog = 0\n[[upstream]]\nname = \"\"\n";
    let places = [
        "error 1", "error 2", "error 3", "error 5", "error 6", "error 7", "error 8", "error 9",
    ];
    assert_complaints(text, &places);
}

#[test]
fn a_listener_and_an_upstream_are_needed() {
    for text in ["", "listen = []\nupstream = []"] {
        assert_complaints(
            text,
            &[
                "error 0: there is no [[listen]]",
                "error 0: there is no [[upstream]]",
            ],
        );
    }
}

#[test]
fn the_shortest_file_has_an_implied_route() {
    let config = good(REST);
    let route = Route {
        host: HostPattern::Any,
        path: "/".to_owned(),
        upstream: 0,
        strip_prefix: false,
    };
    assert_eq!(config.routes, [route]);
    assert_eq!(config.shards, Shards::Auto);
    assert_eq!(config.access_log, None);
    assert_eq!(config.timeouts.keep_alive, Duration::from_secs(75));
    assert_eq!(config.upstreams[0].servers[0].name, "127.0.0.1:9001");
}

#[test]
fn what_is_given_arrives() {
    let config = good(
        r#"
cpus = "0-1,4"
access_log = { path = "/var/log/ringlane.log" }
admin.enabled = false
limits = { head = 2048, body = "10MiB", connections = 1000 }
listen = [{ address = "127.0.0.1:0" }, { address = "127.0.0.1:0" }]
[[upstream]]
name = "a"
host = "origin.example:8080"
pool = { max_age = "off", max_idle = 0 }
[[upstream.server]]
address = "unix:/run/a.sock"
name = "first"
[[upstream.server]]
address = "B.example:80"
[[upstream]]
name = "b"
host = "upstream"
resolve = "30s"
server = [{ address = "c.example:80" }]
[[route]]
host = "*.Example.com"
path = "/api"
upstream = "b"
strip_prefix = true
[[route]]
upstream = "a"
"#,
    );
    assert_eq!(config.shards, Shards::Cpus(vec![0, 1, 4]));
    assert_eq!(
        config.access_log.map(|log| log.path),
        Some(Some("/var/log/ringlane.log".into()))
    );
    assert_eq!(config.admin, None);
    assert_eq!(
        (config.limits.head_bytes, config.limits.body_bytes),
        (2048, Some(10 << 20))
    );
    assert_eq!(config.limits.connections, Some(1000));
    assert_eq!(config.listens.len(), 2);
    let [a, b] = config.upstreams.as_slice() else {
        panic!("two upstreams")
    };
    assert_eq!(a.host, HostPolicy::Fixed("origin.example:8080".to_owned()));
    assert_eq!((a.pool.max_age, a.pool.max_idle), (None, 0));
    assert_eq!(a.servers[0].name, "first");
    assert_eq!(
        a.servers[1].address,
        ServerAddress::Name("b.example".to_owned(), 80)
    );
    assert_eq!(
        (&b.host, b.resolve),
        (&HostPolicy::Upstream, Some(Duration::from_secs(30)))
    );
    assert_eq!(
        config.routes[0].host,
        HostPattern::Suffix(".example.com".to_owned())
    );
    assert_eq!(
        (config.routes[0].upstream, config.routes[0].strip_prefix),
        (1, true)
    );
    assert_eq!(config.routes[1].upstream, 0);
}

#[test]
fn an_unreadable_file_is_complained_about() {
    let found = Reading::load(Path::new("/nonexistent/ringlane.toml")).complaints;
    assert!(found[0].message.contains("cannot be read"), "{found:?}");
    assert_eq!(found[0].file, "/nonexistent/ringlane.toml");
}

/// Headers, keys and values thrown together, so that most cases get beyond the TOML parser.
fn line() -> impl Strategy<Value = String> {
    let headers = [
        "[[listen]]",
        "[[upstream]]",
        "[[upstream.server]]",
        "[[route]]",
        "[log]",
        "[admin]",
        "[upstream]",
    ];
    let key = prop::sample::select(vec![
        "listen", "upstream", "route", "server", "log", "host", "address", "name", "pool",
    ]);
    let value = prop_oneof![
        "1|-1|1\\.5|true|\\[\\]|\\{\\}|\\[\\{\\}\\]|\\[1\\]",
        "\"[a-z:/.*0-9-]{0,8}\""
    ];
    prop_oneof![
        prop::sample::select(headers.to_vec()).prop_map(str::to_owned),
        (key, value).prop_map(|(key, value)| format!("{key} = {value}")),
    ]
}

proptest! {
    #[test]
    fn no_file_panics(lines in prop::collection::vec(line(), 0..8)) {
        let reading = Reading::parse(&lines.join("\n"), "test.toml");
        prop_assert!(reading.config.is_some() || !reading.complaints.is_empty());
        for complaint in reading.complaints {
            prop_assert!(complaint.to_string().contains("test.toml"));
        }
    }
}
