//! Pipelined requests are answered in their order (RFC 9112 section 9.3.2), and nothing behind the last one is acted on.

mod support;

use support::{Config, Mode, Origin, QUIET, Wire, in_each_mode, ok};

in_each_mode!(
    answered_in_order,
    hundreds_without_reading,
    bodies_between,
    nothing_after_close,
    nothing_after_an_error,
    after_a_refused_request,
    refused_once,
    split_anywhere,
    half_closed_client_gets_its_answers,
    a_truncated_answer_does_not_cut_those_before_it,
);

fn answered_in_order(mode: Mode) {
    let slow = Origin::bind().serve(|request| {
        std::thread::sleep(std::time::Duration::from_millis(100));
        ok(&format!("slow {}", request.target))
    });
    let fast = Origin::bind().serve(|request| ok(&format!("fast {}", request.target)));
    let proxy = Config::new(mode)
        .named_upstream("slow", &[&slow.address], "")
        .named_upstream("fast", &[&fast.address], "")
        .tables("[[route]]\npath = \"/s\"\nupstream = \"slow\"\n[[route]]\npath = \"/f\"\nupstream = \"fast\"")
        .start();
    let mut client = proxy.connect();
    let targets = ["/s/1", "/f/2", "/s/3", "/f/4", "/f/5"];
    client.send(
        targets
            .map(|target| format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n"))
            .concat(),
    );
    for target in targets {
        assert!(client.response("GET").text().ends_with(target));
    }
}

fn bodies_between(mode: Mode) {
    let served = Origin::bind().serve(|request| match request.target.as_str() {
        "/none" => b"HTTP/1.1 204 No Content\r\n\r\n".to_vec(),
        "/chunked" => {
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n".to_vec()
        }
        _ if request.method == "HEAD" => b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n".to_vec(),
        _ => ok(&String::from_utf8_lossy(&request.body)),
    });
    let proxy = Config::new(mode).upstream(&[&served.address], "").start();
    let mut client = proxy.connect();
    client.send(concat!(
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\none",
        "HEAD / HTTP/1.1\r\nHost: a\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\ntwo\r\n0\r\nX: y\r\n\r\n",
        "GET /none HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /chunked HTTP/1.1\r\nHost: a\r\n\r\n",
        "\r\nPUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nthree",
    ));
    assert_eq!(client.response("POST").text(), "one");
    assert_eq!(client.response("HEAD").status, 200);
    assert_eq!(client.response("POST").text(), "two");
    assert_eq!(client.response("GET").status, 204);
    assert_eq!(client.response("GET").text(), "abc");
    assert_eq!(client.response("PUT").text(), "three");
    assert_eq!(served.connections(), 1);
}

fn hundreds_without_reading(mode: Mode) {
    let body = "0123456789".repeat(1000);
    let served = Origin::bind().serve(move |request| ok(&format!("{} {body}", request.target)));
    let proxy = Config::new(mode).upstream(&[&served.address], "").start();
    let mut client = proxy.connect();
    let request = |number| format!("GET /{number} HTTP/1.1\r\nHost: a\r\n\r\n");
    client.send((0..1000).map(request).collect::<Vec<_>>().concat());
    std::thread::sleep(QUIET);
    for number in 0..1000 {
        assert!(
            client
                .response("GET")
                .text()
                .starts_with(&format!("/{number} ")),
            "answer {number}"
        );
    }
}

const NO_ROUTE: &str = "GET /none HTTP/1.1\r\nHost: a\r\n\r\n";

fn only_for_a(mode: Mode) -> (support::Proxy, support::Served) {
    let served = Origin::bind().serve(|request| ok(&request.target));
    let proxy = Config::new(mode)
        .named_upstream("app", &[&served.address], "")
        .tables("[[route]]\npath = \"/a\"\nupstream = \"app\"")
        .start();
    (proxy, served)
}

fn after_a_refused_request(mode: Mode) {
    let (proxy, _served) = only_for_a(mode);
    let mut client = proxy.connect();
    let wanted = |number| format!("GET /a/{number} HTTP/1.1\r\nHost: a\r\n\r\n");
    client.send([NO_ROUTE, &wanted(1), NO_ROUTE, NO_ROUTE, &wanted(2)].concat());
    for expected in [404, 200, 404, 404, 200] {
        assert_eq!(client.response("GET").status, expected);
    }
    client.expect_silence(QUIET);
}

fn refused_once(mode: Mode) {
    let (proxy, _served) = only_for_a(mode);
    let mut client = proxy.connect();
    let (begin, end) = NO_ROUTE.split_at(20);
    client.send(begin);
    std::thread::sleep(QUIET);
    client.send(end);
    assert_eq!(client.response("GET").status, 404);
    client.expect_silence(QUIET);
    assert_eq!(client.get("/a").status, 200);
}

fn nothing_after_close(mode: Mode) {
    let served = Origin::serve_text("fine");
    let proxy = Config::new(mode).upstream(&[&served.address], "").start();
    let mut client = proxy.connect();
    client.send(concat!(
        "GET /1 HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /2 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        "GET /3 HTTP/1.1\r\nHost: a\r\n\r\n",
    ));
    assert!(!client.response("GET").head.lists("connection", "close"));
    assert!(client.response("GET").head.lists("connection", "close"));
    client.expect_end();
    assert_eq!(served.targets(), ["/1", "/2"]);
}

fn nothing_after_an_error(mode: Mode) {
    let served = Origin::serve_text("fine");
    let proxy = Config::new(mode).upstream(&[&served.address], "").start();
    let mut client = proxy.connect();
    client.send("GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost : a\r\n\r\nGET /3 HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.response("GET").text(), "fine");
    let response = client.response("GET");
    assert_eq!(response.status, 400);
    assert!(response.head.lists("connection", "close"));
    client.expect_end();
    assert_eq!(served.targets(), ["/1"]);
}

/// Two requests in two segments, cut at each place in turn.
fn split_anywhere(mode: Mode) {
    let served =
        Origin::bind().serve(|request| ok(&format!("{}{}", request.target, request.body.len())));
    let proxy = Config::new(mode).upstream(&[&served.address], "").start();
    let both = "POST /1 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\noneGET /2 HTTP/1.1\r\nHost: a\r\n\r\n";
    let mut client = proxy.connect();
    for cut in 1..both.len() {
        client.send(&both[..cut]);
        std::thread::sleep(std::time::Duration::from_micros(500));
        client.send(&both[cut..]);
        assert_eq!(client.response("POST").text(), "/13", "cut at {cut}");
        assert_eq!(client.response("GET").text(), "/20", "cut at {cut}");
    }
}

/// RFC 9112 section 9.6: a client that has closed its sending half still reads.
fn half_closed_client_gets_its_answers(mode: Mode) {
    let served = Origin::bind().serve(|request| {
        std::thread::sleep(std::time::Duration::from_millis(100));
        ok(&request.target)
    });
    let proxy = Config::new(mode).upstream(&[&served.address], "").start();
    let mut client = proxy.connect();
    client.send("GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n");
    client.finish_sending();
    assert_eq!(client.response("GET").text(), "/1");
    assert_eq!(client.response("GET").text(), "/2");
    client.expect_close();
}

/// The proxy ends the connection while a further request is unread: with a plain close the kernel would reset it, and drop what the client
/// has not taken yet.
fn a_truncated_answer_does_not_cut_those_before_it(mode: Mode) {
    const BODY: usize = 200_000;
    let origin = Origin::bind();
    let proxy = Config::new(mode)
        .upstream(&[&origin.address], "retries = 0")
        .start();
    let mut client = Wire::connect_narrow(proxy.addresses[0]);
    client.send("GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut upstream = origin.accept();
    upstream.request();
    upstream.send(ok(&"1".repeat(BODY)));
    upstream.request();
    client.send(b"POST /3 HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nunread");
    upstream.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf");
    drop(upstream);
    std::thread::sleep(QUIET);
    assert_eq!(client.response("GET").body.len(), BODY);
    client.response_head("GET");
    client.expect("half");
    client.expect_end();
}
