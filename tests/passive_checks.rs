//! What counts against a server, and what does not.

mod support;

use std::time::Duration;

use support::{Config, Mode, Origin, Proxy, Wire, eventually, in_each_mode};

in_each_mode!(
    a_failure_status_whose_body_breaks_off_is_one_failure,
    an_answer_put_aside_that_breaks_off_is_one_failure,
    a_failure_status_that_is_no_answer_is_one_failure,
    bodies_that_do_not_come_eject_no_server,
    without_a_body_none_is_missing,
    a_server_that_closes_for_want_of_a_body_has_not_failed,
    a_server_that_closes_while_the_body_comes_has_failed,
    a_server_that_breaks_off_for_want_of_a_body_has_not_failed,
    a_client_that_holds_up_the_first_piece_is_no_failure,
    a_server_that_refuses_a_body_has_not_failed,
    a_server_that_switches_for_want_of_a_body_has_not_failed,
    garbage_is_a_failure_whatever_the_client_sends,
    an_answer_that_a_client_held_up_and_the_server_broke_off_is_no_failure,
);

/// A proxy that asks the servers in their order.
fn start(mode: Mode, servers: &[&str], settings: &str, passive: &str) -> Proxy {
    Config::new(mode)
        .tables("[admin]\naddress = \"127.0.0.1:0\"")
        .upstream(
            servers,
            &format!("policy = \"first\"\n{settings}\n[upstream.passive]\n{passive}"),
        )
        .start()
}

/// Reports are told in milliseconds.
fn expect_up(proxy: &Proxy) {
    std::thread::sleep(Duration::from_millis(300));
    let server = proxy.server(0);
    assert_eq!(server["state"], "up", "{server}");
}

fn expect_ejected(proxy: &Proxy) {
    eventually("the ejection", || proxy.server(0)["state"] == "ejected");
}

/// One request on a connection of its own, to the end of its answer.
fn ask(proxy: &Proxy) -> String {
    let mut client = proxy.connect();
    client.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    let (answer, _) = client.read_to_end();
    String::from_utf8_lossy(&answer).into_owned()
}

/// Asserts that each of four requests, answered by the first server with `answer` and a close, is one failure of it.
#[track_caller]
fn expect_one_failure_each(proxy: &Proxy, origin: &Origin, answer: &str, status: &str) {
    for round in 1..=4 {
        std::thread::scope(|scope| {
            let client = scope.spawn(|| ask(proxy));
            let mut upstream = origin.accept();
            upstream.request();
            upstream.send(answer);
            drop(upstream);
            let got = client.join().expect("an answer");
            assert!(got.starts_with(status), "{got}");
        });
        if round == 3 {
            expect_up(proxy);
        }
    }
    expect_ejected(proxy);
}

const CUT_OFF: &str = "HTTP/1.1 500 X\r\nContent-Length: 10\r\n\r\nabc";

fn a_failure_status_whose_body_breaks_off_is_one_failure(mode: Mode) {
    let (origin, spare) = (Origin::bind(), Origin::nowhere());
    let passive = "fall = 4\nstatuses = \"500\"";
    let proxy = start(mode, &[&origin.address, &spare], "retries = 0", passive);
    expect_one_failure_each(&proxy, &origin, CUT_OFF, "HTTP/1.1 500 ");
    assert_eq!(proxy.server(0)["failures"]["truncated"], 4);
}

fn an_answer_put_aside_that_breaks_off_is_one_failure(mode: Mode) {
    let (origin, dead) = (Origin::bind(), Origin::nowhere());
    let settings = "retry_statuses = \"500\"\nretry_budget = \"off\"";
    let passive = "fall = 4\nstatuses = \"500\"\nmax_ejected = 100";
    let proxy = start(mode, &[&origin.address, &dead], settings, passive);
    expect_one_failure_each(&proxy, &origin, CUT_OFF, "HTTP/1.1 500 ");
    assert_eq!(proxy.server(0)["failures"]["truncated"], 4);
}

fn a_failure_status_that_is_no_answer_is_one_failure(mode: Mode) {
    let (origin, spare) = (Origin::bind(), Origin::nowhere());
    let passive = "fall = 4\nstatuses = \"500\"";
    let proxy = start(mode, &[&origin.address, &spare], "retries = 0", passive);
    let answer = "HTTP/1.1 500 X\r\nTransfer-Encoding: chunked\r\n\r\nno chunk\r\n";
    expect_one_failure_each(&proxy, &origin, answer, "HTTP/1.1 502 ");
    let server = proxy.server(0);
    assert_eq!(server["failures"]["bad_response"], 4, "{server}");
    assert_eq!(server["responses"]["5xx"], 0, "{server}");
    assert_eq!(server["latency"]["count"], 0, "{server}");
}

/// The status of the answer to `request`, whose body does not come, when the first server answers its head with `answer` and closes, after
/// `pause`.
fn without_body(
    proxy: &Proxy,
    origin: &Origin,
    request: &str,
    pause: Duration,
    answer: &str,
) -> u16 {
    let mut client = proxy.connect();
    client.send(request);
    let mut upstream = origin.accept();
    upstream.request_head();
    std::thread::sleep(pause);
    upstream.send(answer);
    drop(upstream);
    client.response("POST").status
}

/// The server waits for what the client has announced. If that counted, any client could have it taken out.
fn bodies_that_do_not_come_eject_no_server(mode: Mode) {
    let (origin, spare) = (Origin::bind(), Origin::nowhere());
    let settings =
        "retries = 0\nresponse_header_timeout = \"200ms\"\nresponse_body_timeout = \"200ms\"";
    let proxy = start(mode, &[&origin.address, &spare], settings, "fall = 1");
    let send = |expect: &str| {
        let mut client = proxy.connect();
        client.send(format!(
            "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n{expect}\r\n"
        ));
        let mut upstream = origin.accept();
        upstream.request_head();
        (client, upstream)
    };
    let (mut client, upstream) = send("Expect: 100-continue\r\n");
    assert_eq!(client.response("PUT").status, 504);
    drop((client, upstream));
    let (mut client, mut upstream) = send("");
    upstream.send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab");
    client.expect("HTTP/1.1 200");
    client.finish_sending();
    client.read_to_end();
    let failures = proxy.server(0)["failures"].clone();
    assert_eq!(failures["response_timeout"], 1, "{failures}");
    assert_eq!(failures["truncated"], 1, "{failures}");
    expect_up(&proxy);
}

/// RFC 9110 section 10.1.1: without a body, nobody waits for 100 (Continue).
fn without_a_body_none_is_missing(mode: Mode) {
    let (origin, spare) = (Origin::bind(), Origin::nowhere());
    let settings = "retries = 0\nresponse_header_timeout = \"200ms\"";
    let proxy = start(mode, &[&origin.address, &spare], settings, "fall = 1");
    let mut client = proxy.connect();
    client.send("GET / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n\r\n");
    let mut upstream = origin.accept();
    upstream.request_head();
    assert_eq!(client.response("GET").status, 504);
    expect_ejected(&proxy);
}

const BODILESS: &str = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 8\r\n\r\n";

/// Until a server is known to have waited for the body: more than a second of the proxy's clock, which is slow on a busy machine.
const GIVES_UP: Duration = Duration::from_secs(3);

/// The server may have waited for the body, and if that counted, any client could have it taken out.
fn a_server_that_closes_for_want_of_a_body_has_not_failed(mode: Mode) {
    let (origin, spare) = (Origin::bind(), Origin::nowhere());
    let proxy = start(mode, &[&origin.address, &spare], "retries = 0", "fall = 1");
    // The second closes in the middle of a head.
    for answer in ["", "HTTP/1.1 200"] {
        assert_eq!(
            without_body(&proxy, &origin, BODILESS, GIVES_UP, answer),
            502
        );
    }
    assert_eq!(proxy.server(0)["failures"]["closed"], 2);
    expect_up(&proxy);
}

/// The client keeps nothing back: whatever accepts and closes at once would else take all uploads for ever.
fn a_server_that_closes_while_the_body_comes_has_failed(mode: Mode) {
    const BODY: usize = 1_000_000;
    for (answer, failure) in [("", "closed"), (BROKEN_OFF, "truncated")] {
        let (origin, spare) = (Origin::bind(), Origin::nowhere());
        let proxy = start(mode, &[&origin.address, &spare], "retries = 0", "fall = 1");
        let mut client = proxy.connect();
        client.send(format!(
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {BODY}\r\n\r\n"
        ));
        let mut upstream = origin.accept();
        if !answer.is_empty() {
            upstream.send(answer);
            client.read_until(b"abc");
        }
        drop(upstream);
        // The proxy may answer and close before it has all.
        let _ = client.try_send(vec![b'x'; BODY]);
        expect_ejected(&proxy);
        assert_eq!(proxy.server(0)["failures"][failure], 1);
    }
}

const BROKEN_OFF: &str = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc";

/// It has begun its answer, and waits for the rest of a body that does not come, or is none.
fn a_server_that_breaks_off_for_want_of_a_body_has_not_failed(mode: Mode) {
    for rest in ["", "no chunk\r\n"] {
        let (origin, spare) = (Origin::bind(), Origin::nowhere());
        let proxy = start(mode, &[&origin.address, &spare], "retries = 0", "fall = 1");
        let mut client = proxy.connect();
        client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
        let mut upstream = origin.accept();
        upstream.request_head();
        upstream.send(BROKEN_OFF);
        client.read_until(b"abc");
        client.send(rest);
        std::thread::sleep(GIVES_UP);
        drop(upstream);
        client.read_to_end();
        assert_eq!(proxy.server(0)["failures"]["truncated"], 1);
        expect_up(&proxy);
    }
}

/// What a server does that answers 413 and closes without a look at the body: the reset overtakes its answer.
fn a_server_that_refuses_a_body_has_not_failed(mode: Mode) {
    let (origin, spare) = (Origin::bind(), Origin::nowhere());
    let proxy = start(mode, &[&origin.address, &spare], "retries = 0", "fall = 1");
    let mut client = proxy.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000000\r\n\r\n");
    let mut upstream = origin.accept();
    upstream.send("HTTP/1.1 413 X\r\nContent-Length: 10\r\n\r\ntoo");
    client.read_until(b"too");
    client.send_until_full(&vec![b'x'; 65_536], GIVES_UP, 100_000_000);
    upstream.reset();
    client.read_to_end();
    eventually("it is told", || {
        proxy.server(0)["failures"]["truncated"] == 1
    });
    expect_up(&proxy);
}

/// It takes up what it was offered, and too soon only because the body is missing.
fn a_server_that_switches_for_want_of_a_body_has_not_failed(mode: Mode) {
    let (origin, spare) = (Origin::bind(), Origin::nowhere());
    let proxy = start(mode, &[&origin.address, &spare], "retries = 0", "fall = 1");
    let request = "GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x\r\nContent-Length: 1\r\n\r\n";
    let answer = "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n";
    assert_eq!(
        without_body(&proxy, &origin, request, Duration::ZERO, answer),
        502
    );
    assert_eq!(proxy.server(0)["failures"]["bad_response"], 1);
    expect_up(&proxy);
}

fn garbage_is_a_failure_whatever_the_client_sends(mode: Mode) {
    let (origin, spare) = (Origin::bind(), Origin::nowhere());
    let proxy = start(mode, &[&origin.address, &spare], "retries = 0", "fall = 1");
    let answer = "SSH-2.0-x\r\n\r\n";
    let status = without_body(&proxy, &origin, BODILESS, Duration::ZERO, answer);
    assert_eq!(status, 502);
    expect_ejected(&proxy);
}

/// The head and what comes with it wait for the client too.
fn a_client_that_holds_up_the_first_piece_is_no_failure(mode: Mode) {
    let (origin, spare) = (Origin::bind(), Origin::nowhere());
    let proxy = Config::new(mode)
        .tables("[admin]\naddress = \"127.0.0.1:0\"\n[[listen]]\naddress = \"127.0.0.1:0\"\nsend_buffer = 4096")
        .upstream(
            &[&origin.address, &spare],
            "policy = \"first\"\n[upstream.passive]\nfall = 1",
        )
        .start();
    let mut client = Wire::connect_narrow(proxy.addresses[0]);
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut upstream = origin.accept();
    upstream.request();
    let piece = "x".repeat(60_000);
    upstream.send(format!(
        "HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n{piece}"
    ));
    std::thread::sleep(GIVES_UP);
    drop(upstream);
    client.read_to_end();
    eventually("the end is seen", || {
        proxy.server(0)["failures"]["truncated"] == 1
    });
    expect_up(&proxy);
}

/// A server gives up when nobody takes its answer.
fn an_answer_that_a_client_held_up_and_the_server_broke_off_is_no_failure(mode: Mode) {
    let (origin, spare) = (Origin::bind(), Origin::nowhere());
    let proxy = start(mode, &[&origin.address, &spare], "", "fall = 1");
    let mut client = Wire::connect_narrow(proxy.addresses[0]);
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut upstream = origin.accept();
    upstream.request();
    upstream.send("HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n");
    let quiet = Duration::from_secs(2);
    upstream.send_until_full(&vec![b'.'; 1 << 16], quiet, 900_000_000);
    drop(upstream);
    client.read_to_end();
    eventually("the end is seen", || {
        proxy.server(0)["failures"]["truncated"] == 1
    });
    expect_up(&proxy);
    // One that is taken at once and breaks off is.
    let (mut client, mut upstream) = proxy.reach(&origin);
    upstream.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc");
    drop(upstream);
    client.read_to_end();
    expect_ejected(&proxy);
}
