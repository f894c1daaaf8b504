//! Sticky sessions: the cookie, what it leads to, and when it changes.

mod support;

use serde_json::json;
use support::{Config, Mode, Origin, Patient, Proxy, Response, Served, eventually, in_each_mode};

in_each_mode!(
    a_client_stays_on_every_shard,
    the_cookie_has_its_attributes,
    nodes_and_restarts_agree,
    another_key_is_another_cookie,
    a_rotated_key_keeps_sessions,
    a_client_moves_from_a_sick_server,
    a_client_moves_within_a_request,
    what_is_no_cookie_of_ours_is_replaced,
    a_server_that_takes_no_new_clients_keeps_its_own,
    other_responses_are_left_alone,
    upstreams_do_not_share_cookies,
);

const KEY: &str = "0123456789abcdef0123456789abcdef";
const OTHER_KEY: &str = "fedcba9876543210fedcba9876543210";
const ADMIN: &str = "[admin]\naddress = \"127.0.0.1:0\"";
/// The start of HMAC-SHA-256 with [`KEY`] over `ringlane sticky 1`, `app` and `a`, each with a zero byte after it.
const VALUE_OF_A: &str = "f3cb40f03e54282223a497081979b6b2";

fn serve() -> [Served; 3] {
    ["a", "b", "c"].map(Origin::serve_text)
}

fn sticky(settings: &str) -> String {
    format!("sticky = {{ cookie = \"lb\", {settings} }}")
}

fn with_key(key: &str) -> String {
    sticky(&format!("key = \"{key}\""))
}

fn start<'o>(mode: Mode, origins: impl IntoIterator<Item = &'o Served>, upstream: &str) -> Proxy {
    let addresses: Vec<&str> = origins.into_iter().map(|o| &*o.address).collect();
    Config::new(mode)
        .key("shards = 2")
        .tables(ADMIN)
        .upstream(&addresses, upstream)
        .start()
}

/// A GET with these fields, each line ended, on a connection of its own.
fn ask(proxy: &Proxy, fields: &str) -> Response {
    let mut client = proxy.connect();
    client.send(format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n"));
    client.response("GET")
}

fn ask_with(proxy: &Proxy, cookie: &str) -> Response {
    ask(proxy, &format!("Cookie: {cookie}\r\n"))
}

/// `name=value` of the only cookie that is set.
fn set(response: &Response) -> Option<String> {
    let cookie = response.head.value("set-cookie")?;
    cookie.split(';').next().map(str::to_owned)
}

/// A client of each server: its cookie.
fn clients(proxy: &Proxy) -> [String; 3] {
    let mut cookies = [const { None }; 3];
    eventually("a client of each server", || {
        let response = ask(proxy, "");
        let server = usize::from(response.body[0] - b'a');
        cookies[server] = set(&response);
        cookies.iter().all(Option::is_some)
    });
    cookies.map(|cookie| cookie.expect("looked at above"))
}

fn sum(proxy: &Proxy, kind: &str) -> u64 {
    let servers = proxy.upstream()["servers"].take();
    let servers = servers.as_array().expect("a list");
    let counts = servers.iter().map(|server| server["sticky"][kind].as_u64());
    counts.map(|count| count.expect("a number")).sum()
}

fn a_client_stays_on_every_shard(mode: Mode) {
    let origins = serve();
    let proxy = start(mode, &origins, &with_key(KEY));
    let cookies = clients(&proxy);
    assert_eq!(cookies[0], format!("lb={VALUE_OF_A}"));
    let inserts = sum(&proxy, "inserts");
    // Each connection lands on either shard.
    for _ in 0..20 {
        for (cookie, name) in cookies.iter().zip(["a", "b", "c"]) {
            let response = ask_with(&proxy, &format!("x=y; {cookie}; lb=z"));
            assert_eq!(response.text(), name);
            assert_eq!(
                (set(&response), response.head.has("cache-control")),
                (None, false)
            );
        }
    }
    let counts = ["hits", "moves", "inserts"].map(|kind| sum(&proxy, kind));
    assert_eq!(counts, [60, 0, inserts]);
    // Servers get the cookie as it came.
    let request = origins[2].last_request();
    assert_eq!(
        request.head.value("cookie"),
        Some(&*format!("x=y; {}; lb=z", cookies[2]))
    );
}

fn the_cookie_has_its_attributes(mode: Mode) {
    let host = "; Path=/; HttpOnly; SameSite=Lax";
    let cases = [
        ("", host),
        (
            "max_age = \"1h30s\"",
            "; Path=/; Max-Age=3630; HttpOnly; SameSite=Lax",
        ),
        (
            "path = \"/app\", domain = \"example.com\", same_site = \"strict\", http_only = false",
            "; Path=/app; Domain=example.com; SameSite=Strict",
        ),
        (
            "same_site = \"none\", secure = true",
            "; Path=/; Secure; HttpOnly; SameSite=None",
        ),
    ];
    let origins = [Origin::serve_text("a")];
    for (settings, attributes) in cases {
        let comma = if settings.is_empty() { "" } else { ", " };
        let upstream = sticky(&format!("key = \"{KEY}\"{comma}{settings}"));
        let response = ask(&start(mode, &origins, &upstream), "");
        let expected = format!("lb={VALUE_OF_A}{attributes}");
        assert_eq!(response.head.value("set-cookie"), Some(&*expected));
        assert_eq!(response.head.value("cache-control"), Some("private"));
    }
}

fn nodes_and_restarts_agree(mode: Mode) {
    let origins = serve();
    let mut first = start(mode, &origins, &with_key(KEY));
    let second = start(mode, &origins, &with_key(KEY));
    let cookies = clients(&first);
    assert_eq!(cookies, clients(&second));
    first.stop();
    let [a, b, c] = &origins;
    let file = Config::new(mode);
    let key = file.directory().join("key");
    std::fs::write(&key, format!("\n  {KEY}\n")).expect("a file");
    let path = key.display();
    // The servers in another order, `a` at the address that `b` had, and the key from a file.
    let again = file
        .tables(&format!(
            "[[upstream]]\nname = \"app\"\nserver = [\n{{ name = \"c\", address = \"{}\" }},\n\
             {{ name = \"a\", address = \"{}\" }},\n{{ name = \"b\", address = \"{}\" }},\n]\n{}",
            c.address,
            b.address,
            a.address,
            sticky(&format!("key_file = \"{path}\""))
        ))
        .start();
    for (cookie, text) in cookies.iter().zip(["b", "a", "c"]) {
        let response = ask_with(&again, cookie);
        assert_eq!((response.text().as_str(), set(&response)), (text, None));
    }
}

fn another_key_is_another_cookie(mode: Mode) {
    let origins = serve();
    let ours = start(mode, &origins, &with_key(KEY));
    let theirs = start(mode, &origins, &with_key(OTHER_KEY));
    let cookies = clients(&ours);
    for cookie in &cookies {
        let new = set(&ask_with(&theirs, cookie)).expect("a new cookie");
        assert!(!cookies.contains(&new), "{new}");
    }
    assert_eq!(
        ["hits", "moves", "inserts"].map(|kind| sum(&theirs, kind)),
        [0, 0, 3]
    );
}

fn a_rotated_key_keeps_sessions(mode: Mode) {
    let origins = serve();
    let before = start(mode, &origins, &with_key(OTHER_KEY));
    let keys = sticky(&format!(
        "key = \"{KEY}\", previous_keys = [\"{OTHER_KEY}\"]"
    ));
    let after = start(mode, &origins, &keys);
    for (cookie, name) in clients(&before).iter().zip(["a", "b", "c"]) {
        let response = ask_with(&after, cookie);
        assert_eq!(response.text(), name);
        let new = set(&response).expect("the present key's");
        assert_ne!(&new, cookie);
        let response = ask_with(&after, &new);
        assert_eq!((response.text().as_str(), set(&response)), (name, None));
    }
    assert_eq!(["hits", "moves"].map(|kind| sum(&after, kind)), [6, 0]);
}

fn a_client_moves_from_a_sick_server(mode: Mode) {
    let patients = ["a", "b", "c"].map(Patient::new);
    let origins = patients.each_ref().map(|patient| &patient.served);
    let checks =
        "[upstream.health]\ninterval = \"1s\"\nfast_interval = \"30ms\"\nrise = 1\nfall = 2";
    let proxy = start(mode, origins, &format!("{}\n{checks}", with_key(KEY)));
    let [_, old, _] = clients(&proxy);
    patients[1].set(503);
    eventually("b is down", || proxy.server(1)["state"] == "down");
    let moved = ask_with(&proxy, &old);
    let (home, new) = (moved.text(), set(&moved).expect("a new cookie"));
    assert_ne!(home, "b");
    assert_ne!(new, old);
    assert_eq!(sum(&proxy, "moves"), 1);
    for _ in 0..5 {
        let response = ask_with(&proxy, &new);
        assert_eq!((response.text(), set(&response)), (home.clone(), None));
    }
    patients[1].set(200);
    eventually("b is up", || proxy.server(1)["state"] == "up");
    // Who has moved stays, and who did not ask meanwhile is still at home.
    for _ in 0..5 {
        assert_eq!(ask_with(&proxy, &new).text(), home);
        let response = ask_with(&proxy, &old);
        assert_eq!((response.text().as_str(), set(&response)), ("b", None));
    }
}

/// No health check knows yet that the server is gone: the cookie names the server that answered in the end.
fn a_client_moves_within_a_request(mode: Mode) {
    let [_, b, c] = serve();
    let dead = Origin::nowhere();
    let addresses = [&*dead, &*b.address, &*c.address];
    let upstream = format!("policy = \"first\"\n{}", with_key(KEY));
    let proxy = Config::new(mode)
        .tables(ADMIN)
        .upstream(&addresses, &upstream)
        .start();
    let response = ask_with(&proxy, &format!("lb={VALUE_OF_A}"));
    let new = set(&response).expect("a new cookie");
    assert_eq!(response.text(), "b");
    assert_eq!(
        proxy.server(1)["sticky"],
        json!({ "hits": 0, "moves": 1, "inserts": 0 })
    );
    let response = ask_with(&proxy, &new);
    assert_eq!((response.text().as_str(), set(&response)), ("b", None));
}

fn what_is_no_cookie_of_ours_is_replaced(mode: Mode) {
    let origins = [Origin::serve_text("a")];
    let proxy = start(mode, &origins, &with_key(KEY));
    let right = format!("lb={VALUE_OF_A}");
    let huge = format!("lb={}", "f".repeat(20_000));
    let many = "a=b; ".repeat(2000);
    let wrong = [
        "lb=".to_owned(),
        "lb".to_owned(),
        "lb=0".to_owned(),
        format!("lb={}", VALUE_OF_A.to_uppercase()),
        format!("lb={VALUE_OF_A}0"),
        format!("lb={}", &VALUE_OF_A[1..]),
        format!("lb={}", VALUE_OF_A.replace('f', "e")),
        format!("lb=\"{VALUE_OF_A}\""),
        format!("LB={VALUE_OF_A}"),
        format!("xlb={VALUE_OF_A}"),
        // The first of the name counts.
        format!("lb=0; {right}"),
        format!("{huge}; {right}"),
        "lb=\u{ff}\u{fe}".to_owned(),
    ];
    for cookie in &wrong {
        assert_eq!(
            set(&ask_with(&proxy, cookie)),
            Some(right.clone()),
            "{cookie}"
        );
    }
    assert_eq!(sum(&proxy, "inserts"), wrong.len() as u64);
    let good = [
        format!("Cookie: {right}\r\n"),
        format!("cookie: {many}{right}; {many}\r\n"),
        format!("Cookie: a=b\r\nX: y\r\nCookie: {right}\r\nCookie: lb=0\r\n"),
        format!("Cookie: =; ;;\t{right}\r\n"),
    ];
    for fields in &good {
        let response = ask(&proxy, fields);
        assert_eq!((response.status, set(&response)), (200, None), "{fields}");
    }
    assert_eq!(sum(&proxy, "hits"), good.len() as u64);
}

fn a_server_that_takes_no_new_clients_keeps_its_own(mode: Mode) {
    let origins = serve();
    let cookies = clients(&start(mode, &origins, &with_key(KEY)));
    let settings = [", weight = 0", ", backup = true", ""];
    let servers: Vec<_> = origins
        .iter()
        .zip('a'..)
        .zip(settings)
        .map(|((origin, name), more)| {
            format!(
                "{{ address = \"{}\", name = \"{name}\"{more} }}",
                origin.address
            )
        })
        .collect();
    let proxy = Config::new(mode)
        .tables(&format!(
            "[[upstream]]\nname = \"app\"\nserver = [{}]\n{}",
            servers.join(", "),
            with_key(KEY)
        ))
        .start();
    for _ in 0..4 {
        assert_eq!(ask(&proxy, "").text(), "c");
        for (cookie, name) in cookies.iter().zip(["a", "b", "c"]) {
            let response = ask_with(&proxy, cookie);
            assert_eq!((response.text().as_str(), set(&response)), (name, None));
        }
    }
}

fn other_responses_are_left_alone(mode: Mode) {
    let origin = Origin::bind().serve(|request| {
        let head = match request.target.as_str() {
            "/304" => "304 Not Modified",
            "/early" => "103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 204 No Content",
            _ => "200 OK\r\nContent-Length: 0",
        };
        let own = "Set-Cookie: sid=1; Path=/x\r\nSet-Cookie: lb=theirs\r\nCache-Control: public, max-age=60";
        format!("HTTP/1.1 {head}\r\n{own}\r\n\r\n").into_bytes()
    });
    let dead = Origin::nowhere();
    let proxy = Config::new(mode)
        .upstream(&[&origin.address], &with_key(KEY))
        .named_upstream("dead", &[&dead], &with_key(KEY))
        .tables("[[route]]\nupstream = \"app\"\n[[route]]\npath = \"/dead\"\nupstream = \"dead\"")
        .start();
    let ours = format!("lb={VALUE_OF_A}; Path=/; HttpOnly; SameSite=Lax");
    let theirs = ["sid=1; Path=/x", "lb=theirs"];
    let mut client = proxy.connect();
    for (method, target) in [
        ("GET", "/"),
        ("HEAD", "/"),
        ("GET", "/304"),
        ("GET", "/early"),
    ] {
        client.send(format!("{method} {target} HTTP/1.1\r\nHost: a\r\n\r\n"));
        let mut response = client.response(method);
        if response.status == 103 {
            assert!(!response.head.has("set-cookie"), "{:?}", response.head);
            response = client.response(method);
        }
        let cookies = response.head.values("set-cookie");
        assert_eq!(cookies, [theirs[0], theirs[1], &ours], "{method} {target}");
        let control = response.head.values("cache-control");
        assert_eq!(
            control,
            ["public, max-age=60", "private"],
            "{method} {target}"
        );
    }
    let response = ask_with(&proxy, &format!("lb={VALUE_OF_A}"));
    assert_eq!(response.head.values("set-cookie"), theirs);
    assert_eq!(
        response.head.value("cache-control"),
        Some("public, max-age=60")
    );
    // An answer of our own comes from no server.
    let response = proxy.get("/dead");
    assert_eq!(
        (response.status, response.head.has("set-cookie")),
        (502, false)
    );
}

fn upstreams_do_not_share_cookies(mode: Mode) {
    let origins = serve();
    let addresses = [&*origins[0].address, &*origins[1].address];
    let proxy = Config::new(mode)
        .upstream(&addresses, &with_key(KEY))
        .named_upstream(
            "web",
            &addresses,
            &with_key(KEY).replace("\"lb\"", "\"web\""),
        )
        .tables("[[route]]\nupstream = \"app\"\n[[route]]\npath = \"/web\"\nupstream = \"web\"")
        .start();
    let value = |cookie: &str| cookie.split_once('=').expect("a pair").1.to_owned();
    let app = value(&set(&proxy.get("/")).expect("a cookie"));
    let web: Vec<_> = (0..2)
        .map(|_| value(&set(&proxy.get("/web")).expect("a cookie")))
        .collect();
    assert_ne!(web[0], web[1]);
    assert!(!web.contains(&app), "{app}");
}

/// Runs `ringlane check` on an upstream with these sticky settings: its exit code and all that it wrote.
fn check(settings: &str) -> (Option<i32>, String) {
    use std::process::Command;
    let config = Config::new(Mode::Epoll);
    let path = config.directory().join("check.toml");
    let text = format!(
        "[[listen]]\naddress = \"127.0.0.1:8080\"\n[[upstream]]\nname = \"app\"\n\
         server = [{{ address = \"127.0.0.1:1\" }}, {{ address = \"127.0.0.1:2\" }}]\n{settings}\n"
    );
    std::fs::write(&path, text).expect("a file");
    let binary = env!("CARGO_BIN_EXE_ringlane");
    let output = Command::new(binary)
        .arg("check")
        .arg("--config")
        .arg(&path)
        .output();
    let output = output.expect("it runs");
    std::fs::remove_dir_all(config.directory()).ok();
    let text = [output.stdout, output.stderr].concat();
    (
        output.status.code(),
        String::from_utf8_lossy(&text).into_owned(),
    )
}

#[test]
fn a_bad_block_is_refused_and_no_key_is_shown() {
    let key = "key = \"s3cret-s3cret-s3cret-s3cret-s3cret\"";
    let cases = [
        ("", "[upstream.sticky] needs `key`"),
        (
            "key = \"s3cret\"",
            "key: the key has 6 bytes; 32 are the least",
        ),
        ("key_file = \"/nowhere/at-all\"", "cannot be read"),
        ("key_file = \"/dev/zero\"", "is no file"),
        (
            &format!("{key}, key_file = \"/x\""),
            "key and key_file are both given",
        ),
        (
            &format!("{key}, same_site = \"none\""),
            "SameSite=None and no Secure",
        ),
        (
            &format!("{key}, same_site = \"lex\""),
            "did you mean `lax`?",
        ),
        (
            &format!("{key}, path = \"/; Secure\""),
            "is no path of a cookie",
        ),
        (&format!("{key}, domain = \".a.b\""), "is no domain"),
        (&format!("{key}, max_age = \"401d\""), "max_age is 401d"),
        (
            &format!("{key}, previous_keys = [\"s3cret\"]"),
            "previous_keys: the key has 6 bytes",
        ),
        (&format!("k{key}"), "there is no key `kkey`"),
        (&format!("{key} same_site"), "error"),
    ];
    for (settings, expected) in cases {
        let (code, text) = check(&format!("sticky = {{ cookie = \"lb\", {settings} }}"));
        assert!(
            code == Some(2) && text.contains(expected),
            "{settings}: {code:?} {text}"
        );
        assert!(!text.contains("s3cret"), "{text}");
    }
    let (code, text) = check(&format!("sticky = {{ cookie = \"__Host-lb\", {key} }}"));
    assert!(
        code == Some(2) && text.contains("add secure = true"),
        "{text}"
    );
    let sticky = format!("sticky = {{ cookie = \"lb\", {key} }}");
    let other = "[[upstream]]\nname = \"web\"\nserver = [{ address = \"127.0.0.1:1\" }]";
    let routes = "[[route]]\nupstream = \"app\"\n[[route]]\npath = \"/web\"\nupstream = \"web\"";
    let (code, text) = check(&format!("{sticky}\n{other}\n{sticky}\n{routes}"));
    let warning = "upstream `app` has a cookie `lb` for host * too";
    assert!(code == Some(0) && text.contains(warning), "{text}");
    let renamed = sticky.replace("\"lb\"", "\"web\"");
    let (_, text) = check(&format!("{sticky}\n{other}\n{renamed}\n{routes}"));
    assert!(!text.contains("warning"), "{text}");
    let (code, text) = check(&sticky);
    let row = "sticky        cookie lb; Path=/; HttpOnly; SameSite=Lax; one key";
    assert!(code == Some(0) && text.contains(row), "{text}");
    assert!(!text.contains("s3cret"), "{text}");
}
