//! A body that turns out to be refused when its head has left: the client's connection ends, and so does the server's. Where the next
//! request would begin is not known any more, so nothing behind such a body is read as one (RFC 9112 section 11.2).

mod support;

use support::{Config, Mode, Origin, Proxy, Wire, in_each_mode, ok};

in_each_mode!(
    nothing_behind_a_refused_body_is_a_request,
    nothing_behind_a_refused_body_is_a_request_after_an_early_success,
    a_refused_body_is_not_followed_by_another_request_to_the_server,
);

const HEAD: &str = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
/// A request behind the body, and what is its body. It comes later: a connection that goes on has lost the first.
const SECOND: &str = "POST /second HTTP/1.1\r\nHost: a\r\nContent-Length: 42\r\n\r\n";
const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: smuggled\r\n\r\n";

/// Bodies with the statuses of their refusals.
const BODIES: [(u16, &str); 6] = [
    (413, "14\r\nxxxxxxxxxxxxxxxxxxxx\r\n0\r\n\r\n"), // in one piece
    (413, "8\r\nxxxxxxxx\r\n8\r\nxxxxxxxx\r\n0\r\n\r\n"),
    (400, "1\r\nxx\r\n0\r\n\r\n"),
    (400, "1\r\nx\r\n0\r\nA b: c\r\n\r\n"),
    (400, "1\r\nx\r\n0\r\n\n"),
    (
        431,
        "0\r\nA: 1\r\nA: 2\r\nA: 3\r\nA: 4\r\nA: 5\r\nA: 6\r\nA: 7\r\nA: 8\r\nA: 9\r\n\r\n",
    ),
];

/// A client whose head has come to the origin, and the origin's end.
fn open(mode: Mode) -> (Proxy, Origin, Wire, Wire) {
    let origin = Origin::bind();
    let proxy = Config::new(mode)
        .tables("[limits]\nbody = \"10B\"\nheader_count = 8")
        .upstream(&[&origin.address], "")
        .start();
    let mut client = proxy.connect();
    client.send(HEAD);
    let mut upstream = origin.accept();
    upstream.request_head();
    (proxy, origin, client, upstream)
}

/// Asserts that neither side's connection goes on.
fn expect_ends(origin: &Origin, mut client: Wire, mut upstream: Wire, body: &str) {
    client.try_send(SMUGGLED).ok();
    client.expect_end();
    let (rest, _) = upstream.read_to_end();
    let rest = String::from_utf8_lossy(&rest);
    assert!(!rest.contains("HTTP/1.1"), "{body:?}: {rest}");
    assert!(!rest.contains("0\r\n"), "an end of {body:?}: {rest}");
    origin.expect_nobody();
}

fn nothing_behind_a_refused_body_is_a_request(mode: Mode) {
    for (status, body) in BODIES {
        let (_proxy, origin, mut client, upstream) = open(mode);
        client.send(format!("{body}{SECOND}"));
        let response = client.response("POST");
        assert_eq!(response.status, status, "{body:?}");
        assert!(response.head.lists("connection", "close"), "{body:?}");
        expect_ends(&origin, client, upstream, body);
    }
}

fn nothing_behind_a_refused_body_is_a_request_after_an_early_success(mode: Mode) {
    for (_, body) in BODIES {
        let (_proxy, origin, mut client, mut upstream) = open(mode);
        upstream.send(ok("early"));
        let response = client.response("POST");
        assert_eq!(response.text(), "early");
        assert!(!response.head.has("connection"), "{:?}", response.head);
        client.send(format!("{body}{SECOND}"));
        expect_ends(&origin, client, upstream, body);
    }
}

/// It would be taken for the rest of the body.
fn a_refused_body_is_not_followed_by_another_request_to_the_server(mode: Mode) {
    for early in [false, true] {
        let (proxy, origin, mut client, mut upstream) = open(mode);
        if early {
            upstream.send(ok("early"));
            client.response("POST");
        }
        client.send(BODIES[0].1);
        upstream.expect_end();
        let mut victim = proxy.connect();
        victim.send("GET /victim HTTP/1.1\r\nHost: a\r\n\r\n");
        let mut fresh = origin.accept();
        assert_eq!(fresh.request().target, "/victim");
        fresh.send(ok("hers"));
        assert_eq!(victim.response("GET").text(), "hers");
    }
}
