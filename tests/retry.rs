//! What is sent again and what is not (RFC 9110 section 9.2.2, RFC 9112 section 9.3.1): a request of an idempotent method that failed on a reused
//! connection before any byte of a response; any request whose connection could not be opened. Never one that may have been acted on.

mod support;

use support::{
    Config, Firewall, Mode, Origin, Proxy, Served, Wire, eventually, in_each_mode,
    is_in_own_network, ok,
};

in_each_mode!(
    idempotent_request_on_a_dying_connection,
    post_on_a_dying_connection,
    post_on_a_connection_that_a_firewall_ends,
    connect_failure_moves_on,
    nothing_again_after_the_first_byte,
    no_retries_configured,
    all_servers_dead,
    body_survives_moving_on,
    sent_again_at_most_once,
    chunked_body_survives_moving_on,
    a_bad_answer_moves_on_where_that_is_safe,
    another_server_is_not_sent_more_connections_than_it_may_have,
);

/// A client with a connection to the origin that has been used once.
fn used(mode: Mode) -> (Proxy, Origin, Wire, Wire) {
    let origin = Origin::bind();
    let proxy = Config::new(mode).upstream(&[&origin.address], "").start();
    let mut client = proxy.connect();
    client.send("GET /first HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut upstream = origin.accept();
    upstream.request();
    upstream.send(ok("first"));
    assert_eq!(client.response("GET").text(), "first");
    (proxy, origin, client, upstream)
}

/// The origin closes just when the next request comes: read, not answered.
fn die(upstream: Wire, reset: bool) {
    if reset {
        upstream.reset();
    }
}

fn idempotent_request_on_a_dying_connection(mode: Mode) {
    for method in ["GET", "HEAD", "OPTIONS", "TRACE", "DELETE"] {
        for reset in [false, true] {
            let (_proxy, origin, mut client, mut upstream) = used(mode);
            client.send(format!(
                "{method} /again HTTP/1.1\r\nHost: a\r\nX: y\r\n\r\n"
            ));
            let first = upstream.request();
            die(upstream, reset);
            let mut fresh = origin.accept();
            let second = fresh.request();
            assert_eq!(
                (second.method.as_str(), second.target.as_str()),
                (method, "/again")
            );
            assert_eq!(first.head.fields, second.head.fields, "the same request");
            fresh.send("HTTP/1.1 204 No Content\r\n\r\n");
            assert_eq!(client.response(method).status, 204, "{method}");
        }
    }
}

fn post_on_a_dying_connection(mode: Mode) {
    for (method, body) in [
        ("POST", "Content-Length: 2\r\n\r\nhi"),
        ("POST", "Content-Length: 0\r\n\r\n"),
        ("POST", "\r\n"),
        ("PATCH", "Content-Length: 2\r\n\r\nhi"),
        ("CUSTOM", "\r\n"),
    ] {
        for reset in [false, true] {
            let (_proxy, origin, mut client, mut upstream) = used(mode);
            client.send(format!("{method} /once HTTP/1.1\r\nHost: a\r\n{body}"));
            upstream.request();
            die(upstream, reset);
            assert_eq!(client.response(method).status, 502, "{method}");
            origin.expect_nobody();
        }
    }
}

fn nothing_again_after_the_first_byte(mode: Mode) {
    for sent in ["H", "HTTP/1.1 200 OK\r\nContent-Le"] {
        let (_proxy, origin, mut client, mut upstream) = used(mode);
        client.send("GET /once HTTP/1.1\r\nHost: a\r\n\r\n");
        upstream.request();
        upstream.send(sent);
        drop(upstream);
        assert_eq!(client.response("GET").status, 502);
        origin.expect_nobody();
    }
}

/// A server that breaks off in a head, answers with something else or not in time: the client has got nothing, so an idempotent request may
/// go to another server (RFC 9110 section 9.2.2).
fn a_bad_answer_moves_on_where_that_is_safe(mode: Mode) {
    for (bad, status) in [
        ("HTTP/1.1 200 OK\r\nContent-Le", 502),
        ("SSH-2.0-OpenSSH_9.6\r\n", 502),
        ("", 504),
    ] {
        let (origin, served) = (Origin::bind(), Origin::serve_text("fine"));
        let proxy = Config::new(mode)
            .upstream(
                &[&origin.address, &served.address],
                "policy = \"first\"\nresponse_header_timeout = \"300ms\"",
            )
            .start();
        for (method, expected) in [("GET", 200), ("PUT", 200), ("POST", status)] {
            let mut client = proxy.connect();
            client.send(format!(
                "{method} / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi"
            ));
            let mut upstream = origin.accept();
            assert_eq!(upstream.request().body, b"hi");
            upstream.send(bad);
            if !bad.is_empty() {
                drop(upstream);
            }
            assert_eq!(
                client.response(method).status,
                expected,
                "{method} after {bad:?}"
            );
        }
        assert_eq!(served.requests().len(), 2);
    }
}

/// Every connection dies: there must be an end to it.
fn sent_again_at_most_once(mode: Mode) {
    let (_proxy, origin, mut client, mut upstream) = used(mode);
    client.send("GET /again HTTP/1.1\r\nHost: a\r\n\r\n");
    upstream.request();
    drop(upstream);
    let mut fresh = origin.accept();
    fresh.request();
    drop(fresh);
    assert_eq!(client.response("GET").status, 502);
    origin.expect_nobody();
}

/// Two servers, of which the first is not there.
fn with_one_dead(mode: Mode) -> (Proxy, Served) {
    let served = Origin::serve_text("alive");
    let proxy = Config::new(mode)
        .upstream(&[&Origin::nowhere(), &served.address], "retries = 1")
        .start();
    (proxy, served)
}

fn connect_failure_moves_on(mode: Mode) {
    let (proxy, served) = with_one_dead(mode);
    let mut client = proxy.connect();
    for method in ["GET", "POST", "PATCH", "CUSTOM", "GET", "POST"] {
        client.send(format!(
            "{method} / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi"
        ));
        assert_eq!(client.response(method).text(), "alive", "{method}");
        assert_eq!(served.last_request().body, b"hi");
    }
    assert_eq!(served.requests().len(), 6);
}

/// A large body that is still coming in when the first server turns out dead.
fn body_survives_moving_on(mode: Mode) {
    let content: Vec<u8> = (0..1_000_000_u32)
        .map(|number| (number % 251) as u8)
        .collect();
    let (proxy, served) = with_one_dead(mode);
    let mut client = proxy.connect();
    for _ in 0..3 {
        client.send(format!(
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n",
            content.len()
        ));
        client.send(&content);
        assert_eq!(client.response("POST").text(), "alive");
        assert!(
            served.last_request().body == content,
            "another body than was sent"
        );
    }
}

fn no_retries_configured(mode: Mode) {
    let served = Origin::serve_text("alive");
    let proxy = Config::new(mode)
        .upstream(&[&Origin::nowhere(), &served.address], "retries = 0")
        .start();
    let mut statuses: Vec<u16> = (0..4).map(|_| proxy.get("/").status).collect();
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 200, 502, 502]);
}

fn all_servers_dead(mode: Mode) {
    let proxy = Config::new(mode)
        .upstream(
            &[&Origin::nowhere(), &Origin::nowhere(), &Origin::nowhere()],
            "retries = 5",
        )
        .start();
    let mut client = proxy.connect();
    for _ in 0..3 {
        assert!(matches!(client.get("/").status, 502 | 503));
    }
}

fn chunked_body_survives_moving_on(mode: Mode) {
    let (proxy, served) = with_one_dead(mode);
    let mut client = proxy.connect();
    for _ in 0..3 {
        client
            .send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n");
        std::thread::sleep(std::time::Duration::from_millis(20));
        client.send("6\r\n world\r\n0\r\n\r\n");
        assert_eq!(client.response("POST").text(), "alive");
        assert_eq!(served.last_request().body, b"hello world");
    }
}

/// The server of a dying connection has been taken out meanwhile, and the other one has room on its idle connection alone.
fn another_server_is_not_sent_more_connections_than_it_may_have(mode: Mode) {
    let [first, other] = [Origin::bind(), Origin::bind()];
    let proxy = Config::new(mode)
        .tables("[admin]\naddress = \"127.0.0.1:0\"")
        .tables(&format!(
            "[[upstream]]\nname = \"app\"\npolicy = \"first\"\nretry_statuses = \"503\"\n\
             passive = {{ fall = 1, eject = \"1m\" }}\n\
             server = [{{ address = \"{}\" }}, {{ address = \"{}\", max_connections = 1 }}]",
            first.address, other.address
        ))
        .start();
    let mut client = proxy.connect();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut dying = first.accept();
    dying.request();
    dying.send("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n");
    let mut idle = other.accept();
    idle.request();
    idle.send(ok("other"));
    assert_eq!(client.response("GET").text(), "other");
    client.send("GET /again HTTP/1.1\r\nHost: a\r\n\r\n");
    dying.request();
    let mut failing = proxy.connect();
    failing.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi");
    drop(first.accept());
    assert_eq!(failing.response("POST").status, 502);
    eventually("the ejection", || proxy.server(0)["state"] == "ejected");
    drop(dying);
    assert_eq!(idle.request().target, "/again");
    idle.send(ok("again"));
    assert_eq!(client.response("GET").text(), "again");
    other.expect_nobody();
}

/// Where an ICMP error came before the timeout that ends a connection, the kernel gives that: "connection refused" does not mean then that
/// nothing was sent.
fn post_on_a_connection_that_a_firewall_ends(mode: Mode) {
    let test = "post_on_a_connection_that_a_firewall_ends";
    if !is_in_own_network(test, mode) {
        return;
    }
    let Some(firewall) = Firewall::raise(test) else {
        return;
    };
    let (origin, other) = (Origin::bind(), Origin::serve_text("other"));
    let port = origin.address.rsplit(':').next().expect("a port");
    let proxy = Config::new(mode)
        .upstream(
            &[&origin.address, &other.address],
            "policy = \"first\"\ntcp_user_timeout = \"2s\"",
        )
        .start();
    let (mut client, mut upstream) = proxy.reach(&origin);
    upstream.send(ok("first"));
    assert_eq!(client.response("GET").text(), "first");
    firewall.add(&format!("output tcp sport {port} drop"));
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi");
    assert_eq!(upstream.request().body, b"hi", "it is acted on");
    firewall.add(&format!(
        "input tcp dport {port} reject with icmp type port-unreachable"
    ));
    let answer = client.response("POST");
    assert_eq!((answer.status, other.requests().len()), (502, 0));
}
