//! Mistakes in upstreams: their servers, policies, checks and retries.

use std::time::{Duration, Instant};

use super::{assert_complaints, assert_each};

#[test]
fn mistakes_in_sources() {
    assert_each(&[
        (
            "source = [\"10.0.0.1:0\"]",
            &["error 7: `10.0.0.1:0` is not an IP address"],
        ),
        (
            "source = [\"255.255.255.255\"]",
            &["error 7: connections cannot come from `255.255.255.255`"],
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
    ]);
}

#[test]
fn mistakes_in_retries_and_queues() {
    assert_each(&[
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
    ]);
}

#[test]
fn servers_that_keep_a_queue_from_acting() {
    let hardly = "warning 6: queue hardly acts: a server without limit is never full";
    let limited = "address = \"127.0.0.1:1\", max_requests = 1";
    let cases: [(&[&str], &[&str]); 5] = [
        (&[limited, "address = \"a:1\""], &[hardly]),
        (&[limited, "address = \"a:1\", backup = true"], &[]),
        (&[limited, "address = \"a:1\", weight = 0"], &[]),
        (
            &[
                "address = \"a:1\", backup = true",
                "address = \"b:1\", weight = 0, max_requests = 1",
            ],
            &[hardly],
        ),
        (&[limited, "address = \"a:1\", max_connections = 1"], &[]),
    ];
    for (servers, expected) in cases {
        let text = format!(
            "[[listen]]\naddress = \"127.0.0.1:8080\"\n[[upstream]]\nname = \"app\"\nserver = [{{ {} }}]\nqueue = 5\n",
            servers.join(" }, { ")
        );
        assert_complaints(&text, expected);
    }
}

#[test]
fn mistakes_in_balancing() {
    assert_each(&[
        (
            "policy = \"least_conections\"",
            &[
                "error 7: policy is \"least_conections\"; it takes \"round_robin\", \"least_connections\", \"random\", \"two_choices\", \"ip_hash\", \"hash\", \"first\" or \"least_latency\" (did you mean `least_connections`?)",
            ],
        ),
        (
            "policy = \"hsah\"\nhash = \"uri\"\nhash_balance_factor = 125",
            &["error 7: policy is \"hsah\"; it takes"],
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
            "policy = \"hash\"\nhash = \"query:\u{fc}\"",
            &[
                "error 8: hash: `query:\u{fc}` is no part of a request (write the name as it is sent: %C3%BC for",
            ],
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
        (
            "[[upstream]]\nname = \"b\"\npolicy = \"first\"\nserver = [{ address = \"127.0.0.1:1\", weight = 5 }, { address = \"127.0.0.1:2\", weight = 0 }]\n[[route]]\nupstream = \"app\"\n[[route]]\npath = \"/b\"\nupstream = \"b\"",
            &["warning 10: weight 5 acts like 1: the policy is \"first\" (put the servers"],
        ),
    ]);
}

#[test]
fn mistakes_in_health() {
    assert_each(&[
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
            "health = { method = \"get\" }",
            &["warning 7: method: `get` is not `GET` (write \"GET\""],
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
            &["error 7: headers: this is not a field (write \"Name: value\")"],
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
            "health = { path = \"/h\u{e9}\" }",
            &["error 7: path: a path cannot have `\u{e9}` (write it percent-encoded)"],
        ),
        (
            "health = { port = 0 }",
            &["error 7: port is 0; it takes 1 to 65535, or \"same\""],
        ),
        (
            "health = { pth = \"/\" }",
            &["error 7: there is no key `pth` in [upstream.health] (did you mean `path`?)"],
        ),
    ]);
}

#[test]
fn mistakes_in_passive_checks() {
    assert_each(&[
        (
            "passive = { eject = \"10s\", eject_max = \"5s\", max_ejected = 100 }",
            &["error 7: eject_max is 5s, shorter than the first ejection of 10s"],
        ),
        (
            "passive = { max_ejected = 101 }",
            &[
                "error 7: max_ejected is 101; it takes 1 to 100",
                "warning 7: no server is ever ejected",
            ],
        ),
        (
            "passive = {}",
            &[
                "warning 7: no server is ever ejected: 50 % of 1 is less than one (set max_ejected = 100)",
            ],
        ),
        ("passive = { max_ejected = 100 }", &[]),
        (
            "passive = { statuses = \"teapot\", max_ejected = 100 }",
            &["error 7: statuses: `teapot` is no status"],
        ),
    ]);
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
            "server = [{ address = \"::1:9001\" }]",
            "error 3: address: `::1:9001` has no port (write \"[::1]:9001\", or \"[::1:9001]:80\" for the address ::1:9001)",
        ),
        (
            "server = [{ address = \"/run/a.sock\" }]",
            "error 3: address: `/run/a.sock` is a path; a server is an address and port (write \"unix:/run/a.sock\")",
        ),
        (
            "server = [{ address = \"http://a:80/app\" }]",
            "error 3: address: `http://a:80/app` is a URL; a server is an address and port (write \"a:80\")",
        ),
        (
            "server = [{ address = \"http://[::1]/\" }]",
            "error 3: address: `http://[::1]/` is a URL; a server is an address and port (write \"[::1]:80\")",
        ),
        (
            "server = [{ address = \"https://a\" }]",
            "error 3: address: `https://a` is a URL; a server is an address and port (write host and port; servers are spoken to in HTTP/1.1 without TLS)",
        ),
        (
            "server = [\"127.0.0.1:80\"]",
            "error 3: server takes tables [[upstream.server]], not a string (write server = [{ address = \"127.0.0.1:80\" }])",
        ),
        (
            "server = { address = \"127.0.0.1:80\" }",
            "error 3: server takes tables [[upstream.server]], not a table (write [[upstream.server]], or server = [{ ... }])",
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
        (
            "server = [{ address = \"unix:/a\" }]\nsend_buffer = \"64KiB\"\ncongestion = \"bbr\"",
            "warning 5: congestion never acts: every server is a Unix socket",
        ),
    ];
    for (lines, expected) in cases {
        let text =
            format!("[[upstream]]\nname = \"app\"\n{lines}\n[[listen]]\naddress = \"[::1]:80\"\n");
        assert_complaints(&text, &[expected]);
    }
}

#[test]
fn servers_of_weight_0_are_none_to_eject() {
    let text = |max_ejected| {
        format!(
            "[[listen]]\naddress = \"127.0.0.1:8080\"\n[[upstream]]\nname = \"app\"\nserver = [{{ address = \"127.0.0.1:1\" }}, \
             {{ address = \"127.0.0.1:2\" }}, {{ address = \"127.0.0.1:3\", weight = 0 }}]\npassive = {{ max_ejected = {max_ejected} }}\n"
        )
    };
    let warning = "warning 6: no server is ever ejected: 49 % of 2 is less than one (set max_ejected = 50 or more)";
    assert_complaints(&text(49), &[warning]);
    assert_complaints(&text(50), &[]);
}

#[test]
fn mistakes_in_key_files() {
    use std::os::unix::fs::PermissionsExt as _;
    let path = std::env::temp_dir().join(format!("ringlane-key-file-{}", std::process::id()));
    let key = "0123456789abcdef0123456789abcdef\n";
    let cases: [(usize, u32, &[&str]); 3] = [
        (16, 0o640, &[]),
        (16, 0o644, &["warning 9: every user may read `/"]),
        (17, 0o600, &["error 9: a cookie has at most 16 keys"]),
    ];
    for (keys, mode, expected) in cases {
        std::fs::write(&path, key.repeat(keys)).expect("a file of ours");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("ours");
        let path = path.display();
        assert_each(&[(
            &format!("[upstream.sticky]\ncookie = \"id\"\nkey_file = \"{path}\""),
            expected,
        )]);
    }
    std::fs::remove_file(&path).expect("a file of ours");
}

#[test]
fn cookies_that_replace_each_other() {
    // Host and path of the routes to `app` and `b`, further keys of both cookies, and for what the warning is.
    let cases = [
        (("*", "/"), ("*", "/api"), "", Some("host *")),
        (
            ("*", "/"),
            ("x.example", "/api"),
            "",
            Some("host x.example"),
        ),
        (
            ("*.example", "/"),
            ("*.a.example", "/api"),
            "",
            Some("host *.a.example"),
        ),
        (("x.example", "/a"), ("*", "/"), "", Some("host x.example")),
        // All of the narrower host goes to one upstream.
        (("*", "/"), ("x.example", "/"), "", None),
        (("a.example", "/"), ("b.example", "/"), "", None),
        (("*.a.example", "/"), ("a.example", "/api"), "", None),
        (
            ("a.example", "/"),
            ("b.example", "/"),
            ", domain = \"Example\"",
            Some("domain example"),
        ),
    ];
    for (first, second, keys, warned) in cases {
        let route = |upstream: &str, (host, path): (&str, &str)| {
            format!("[[route]]\nupstream = \"{upstream}\"\nhost = \"{host}\"\npath = \"{path}\"\n")
        };
        let sticky = format!("sticky = {{ cookie = \"id\", key = \"{:032}\"{keys} }}", 7);
        let lines = [
            format!(
                "{sticky}\n[[upstream]]\nname = \"b\"\nserver = [{{ address = \"b:1\" }}]\n{sticky}"
            ),
            route("app", first),
            route("b", second),
        ];
        let warning = warned.map(|place| {
            format!("warning 9: upstream `app` has a cookie `id` for {place} too: each replaces")
        });
        let expected: Vec<_> = warning.iter().map(String::as_str).collect();
        assert_each(&[(&lines.join("\n"), &expected)]);
    }
    // The default's routes lead to a third upstream where the narrower ones do not.
    let text = |host: &str| {
        let sticky = "sticky = { cookie = \"id\", key = \"0123456789abcdef0123456789abcdef\" }";
        let upstream = |name: &str| {
            format!("[[upstream]]\nname = \"{name}\"\nserver = [{{ address = \"{name}:1\" }}]\n")
        };
        format!(
            "{sticky}\n{}{sticky}\n{}[[route]]\nupstream = \"app\"\n[[route]]\nupstream = \"b\"\nhost = \"x.example\"\n\
             path = \"/api\"\n[[route]]\nupstream = \"c\"\nhost = \"{host}\"",
            upstream("b"),
            upstream("c"),
        )
    };
    assert_each(&[(&text("*.example"), &[])]);
    assert_each(&[(
        &text("*.other"),
        &["warning 9: upstream `app` has a cookie"],
    )]);
}

/// Holding every pair of routes against every route is cubic.
#[test]
fn many_routes_with_one_cookie_are_checked_soon() {
    let sticky = "sticky = { cookie = \"id\", key = \"0123456789abcdef0123456789abcdef\" }";
    let routes = |at| {
        format!(
            "[[route]]\nupstream = \"app\"\npath = \"/{at}\"\n[[route]]\nupstream = \"b\"\nhost = \"{at}.example\"\n"
        )
    };
    let routes: String = (0..1000).map(routes).collect();
    let text = format!(
        "{sticky}\n[[upstream]]\nname = \"b\"\nserver = [{{ address = \"b:1\" }}]\n{sticky}\n{routes}"
    );
    let start = Instant::now();
    assert_each(&[(&text, &[])]);
    let took = start.elapsed();
    assert!(took < Duration::from_secs(10), "{took:?}");
}
