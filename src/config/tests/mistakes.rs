//! Mistakes anywhere but in upstreams.

use super::{REST, assert_complaints, assert_each, good};

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
        "error 1: there is no key `certificate` at the top of the file (there are shards, cpus, ",
    ),
    (
        "[limits]\nheaders = 9",
        "error 2: there is no key `headers` in [limits] (did you mean `header_count`? `headers` can stand in [upstream.health])",
    ),
    (
        "[timeouts]\nheader = \"1s\"",
        "error 2: there is no key `header` in [timeouts] (did you mean `client_header`?)",
    ),
    (
        "[timeouts]\nconnect = \"1s\"",
        "error 2: there is no key `connect` in [timeouts] (there is `connect_timeout` in [[upstream]])",
    ),
    (
        "pin = \"no\"",
        "error 1: pin takes true or false, not a string (write false, without quotes)",
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
        "error 1: shards takes 1 to 1024, or \"auto\", not a string (write 4, without quotes)",
    ),
    (
        "[access_log]\nfile = \"a\"",
        "error 2: there is no key `file` in [access_log] (there are path, format, buffer; elsewhere `token_file` in [admin] and",
    ),
    (
        "shards = 2\ncpus = \"0-3\"",
        "error 2: cpus and shards are both given",
    ),
    (
        "user = \"4294967295\"\ngroup = \"0\"",
        "error 1: user: `4294967295` is nobody's number",
    ),
    (
        "user = \"same\"\ngroup = \"0\"",
        "error 2: group is given without a user",
    ),
    (
        "user = \"4294967294\"\ngroup = \"4294967295\"",
        "error 2: group: `4294967295` is nobody's number",
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
        "admin = { enabled = false, address = \"127.0.0.1:9901\" }",
        "warning 1: address never acts: enabled = false in [admin]",
    ),
    (
        "limits = { client_v6_prefix = 56, connections_per_client = \"off\" }",
        "warning 1: client_v6_prefix never acts: clients have no limits (set connections_per_client,",
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
        "admin = { address = \"10.0.0.1:9900\", token = \"off\" }",
        "error 1: other machines could give orders at `10.0.0.1:9900`",
    ),
    (
        "admin.address = \"[::ffff:127.0.0.1]:9900\"",
        "error 1: address: `[::ffff:127.0.0.1]:9900` is an IPv4 address, written as IPv6 (write \"127.0.0.1:9900\")",
    ),
    (
        "admin = { address = \"0.0.0.0:9900\", orders = false }",
        "warning 1: `0.0.0.0:9900` shows the status page to other machines",
    ),
    (
        "admin = { address = \"0.0.0.0:9900\", token = \"0123456789abcdef\" }",
        "warning 1: `0.0.0.0:9900` shows the status page to other machines, without a password",
    ),
    (
        "admin = { address = \"[::]:9900\", orders = false }",
        "warning 1: `[::]:9900` shows the status page to other machines, over IPv6 alone and without a password",
    ),
    (
        "timeouts = 5",
        "error 1: timeouts takes a table [timeouts], not a number",
    ),
    (
        "limits.head = \"2MiB\"",
        "error 1: head is 2MiB; it takes \"1KiB\" to \"1MiB\"",
    ),
    (
        "accepts = 16\nio = \"epoll\"",
        "warning 1: accepts never acts: io = \"epoll\"",
    ),
    ("limits.uri = \"32KiB\"", "warning 1: uri never acts"),
    (
        "[rate_limit]\nrequests = 1\nperiod = \"1h\"\nburst = 8761",
        "error 4: burst is 8761: it takes 366 days to come back, longer than 365d",
    ),
    (
        "[rate_limit]\nperiod = \"1h\"\nburst = 100000",
        "error 1: [rate_limit] needs `requests`",
    ),
    (
        "[rate_limit]\nrequests = 0\nperiod = \"1h\"\nburst = 100000",
        "error 2: requests is 0; it takes",
    ),
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
    assert_each(&[
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
            "[[route]]\nupstream = \"app\"\npath=\"/%c3\"\n[[route]]\nupstream = \"app\"\npath=\"/%C3\"",
            &["error 10: a route for host * and path /%C3 stands in line 7"],
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
            "pool = { max_idle = 0, max_age = \"1m\" }",
            &["warning 7: max_age never acts: max_idle is 0"],
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
    ]);
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
    let cases: [(&str, &[&str]); 14] = [
        ("address = \"[::1]:9900\"", &[]),
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
            "token_file = \"0123456789abcdef\"",
            &["error 2: token_file: this file: it cannot be read: No such file"],
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
