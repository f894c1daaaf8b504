//! Answers of our own: each code with a short body, text or JSON by Accept (RFC 9110 section 12.5.1), and a Connection field that says what
//! happens to the connection (RFC 9112 section 9.6). An answer to HEAD has no body (RFC 9110 section 9.3.2).

mod support;

use std::time::Duration;

use support::{Config, Mode, Origin, Proxy, Response, Served, Wire, all_at_once, in_each_mode};

in_each_mode!(
    each_code,
    text_or_json,
    no_body_for_head,
    connection_is_kept_where_it_can_be,
    http_1_0_client,
);

/// A way to provoke an answer.
struct Case {
    status: u16,
    method: &'static str,
    /// What follows the method.
    request: &'static str,
    /// Whether the connection must end: where the end of the request is not known or not awaited.
    closes: bool,
}

const CASES: &[Case] = &[
    Case {
        status: 400,
        method: "GET",
        request: " / HTTP/1.1\r\nHost : a\r\n",
        closes: true,
    },
    Case {
        status: 404,
        method: "GET",
        request: " / HTTP/1.1\r\nHost: nobody.example\r\n",
        closes: false,
    },
    Case {
        status: 405,
        method: "CONNECT",
        request: " a:1 HTTP/1.1\r\nHost: a:1\r\n",
        closes: true,
    },
    Case {
        status: 408,
        method: "GET",
        request: " / HTTP/1.1\r\nHost: a\r\n",
        closes: true,
    },
    Case {
        status: 413,
        method: "POST",
        request: " / HTTP/1.1\r\nHost: a\r\nContent-Length: 1001\r\n",
        closes: true,
    },
    Case {
        status: 414,
        method: "GET",
        request: " /LONG HTTP/1.1\r\nHost: a\r\n",
        closes: true,
    },
    Case {
        status: 417,
        method: "GET",
        request: " / HTTP/1.1\r\nHost: a\r\nExpect: a-miracle\r\n",
        closes: false,
    },
    Case {
        status: 431,
        method: "GET",
        request: " / HTTP/1.1\r\nHost: a\r\nX: LONG\r\nY: LONG\r\nZ: LONG\r\n",
        closes: true,
    },
    Case {
        status: 502,
        method: "GET",
        request: " /garbage HTTP/1.1\r\nHost: a\r\n",
        closes: false,
    },
    Case {
        status: 502,
        method: "GET",
        request: " / HTTP/1.1\r\nHost: dead.example\r\n",
        closes: false,
    },
    Case {
        status: 504,
        method: "GET",
        request: " /silence HTTP/1.1\r\nHost: a\r\n",
        closes: false,
    },
];

/// An upstream that answers, one that is dead, limits that are low.
fn start(mode: Mode) -> (Proxy, Served) {
    let served = Origin::bind().serve(|request| match request.target.as_str() {
        "/garbage" => b"garbage\r\n\r\n".to_vec(),
        "/silence" => {
            std::thread::sleep(Duration::from_secs(2));
            Vec::new()
        }
        _ => support::ok("fine"),
    });
    let proxy = Config::new(mode)
        .tables("[timeouts]\nclient_header = \"500ms\"\n[limits]\nuri = \"1KiB\"\nhead = \"4KiB\"\nbody = \"1000B\"")
        .named_upstream("app", &[&served.address], "retries = 0\nresponse_header_timeout = \"500ms\"")
        .named_upstream("dead", &[&Origin::nowhere()], "retries = 0")
        .tables("[[route]]\nhost = \"a\"\nupstream = \"app\"\n[[route]]\nhost = \"dead.example\"\nupstream = \"dead\"")
        .start();
    (proxy, served)
}

/// Asks and reads the answer, with its body.
#[track_caller]
fn answer(client: &mut Wire, case: &Case, method: &str, accept: &str) -> Response {
    let long = "x".repeat(1500);
    let request = case.request.replace("LONG", &long);
    let end = if case.status == 408 { "" } else { "\r\n" };
    let accept = if accept.is_empty() {
        String::new()
    } else {
        format!("Accept: {accept}\r\n")
    };
    client.send(format!("{method}{request}{accept}{end}"));
    let response = client.response(method);
    assert_eq!(response.status, case.status, "{}", response.text());
    response
}

fn name(case: &Case) -> String {
    format!("{} for {}{:?}", case.status, case.method, case.request)
}

fn each_code(mode: Mode) {
    let (proxy, served) = start(mode);
    all_at_once(CASES, name, |case| {
        let mut client = proxy.connect();
        let response = answer(&mut client, case, case.method, "");
        assert!(
            (1..200).contains(&response.body.len()),
            "{:?}",
            response.text()
        );
        assert_eq!(response.version, "HTTP/1.1");
        if case.closes {
            assert!(
                response.head.lists("connection", "close"),
                "{:?}",
                response.head
            );
        }
        if response.head.lists("connection", "close") {
            client.expect_end();
        } else {
            assert_eq!(client.get("/after").status, 404, "a.example has no route");
        }
    });
    served.take_complaints();
}

fn text_or_json(mode: Mode) {
    let (proxy, served) = start(mode);
    let cases = [
        ("application/json", true),
        ("application/problem+json, application/json", true),
        ("text/html, application/json;q=0.9", true),
        ("APPLICATION/JSON; charset=utf-8", true),
        ("application/*", true),
        ("application/json;q=0.2, text/plain", false),
        ("application/json;q=0", false),
        ("application/jsonx", false),
        ("text/plain", false),
        ("text/*", false),
        // A browser's.
        (
            "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
            false,
        ),
    ];
    let not_found = CASES
        .iter()
        .find(|case| case.status == 404)
        .expect("the table has one");
    for (accept, json) in cases {
        let response = answer(&mut proxy.connect(), not_found, "GET", accept);
        let kind = response.head.value("content-type").unwrap_or_default();
        assert_eq!(
            kind.starts_with("application/json"),
            json,
            "Accept: {accept} gave {kind}"
        );
        if json {
            let value: serde_json::Value = serde_json::from_slice(&response.body).expect("JSON");
            assert!(
                value["error"].as_str().is_some_and(|text| !text.is_empty()),
                "{value}"
            );
        }
    }
    // Where the head was refused, or did not come whole, too.
    all_at_once(CASES, name, |case| {
        for accept in ["application/json", "text/plain"] {
            let response = answer(&mut proxy.connect(), case, case.method, accept);
            let kind = response.head.value("content-type").unwrap_or_default();
            assert!(kind.starts_with(accept), "{kind}: {}", response.text());
            let is_json = serde_json::from_slice::<serde_json::Value>(&response.body).is_ok();
            assert_eq!(is_json, accept == "application/json", "{}", response.text());
        }
    });
    served.take_complaints();
}

fn no_body_for_head(mode: Mode) {
    let (proxy, _served) = start(mode);
    let cases: Vec<&Case> = CASES
        .iter()
        .filter(|case| matches!(case.status, 404 | 417 | 431 | 502 | 504))
        .collect();
    all_at_once(
        &cases,
        |case| name(case),
        |case| {
            let mut client = proxy.connect();
            let response = answer(&mut client, case, "HEAD", "");
            if response.head.lists("connection", "close") {
                client.expect_end(); // which would show a body
            } else {
                client.send("GET / HTTP/1.1\r\nHost: nobody.example\r\n\r\n");
                assert_eq!(client.response("GET").status, 404);
            }
        },
    );
}

/// A request that was read to its end leaves the connection as good as it was.
fn connection_is_kept_where_it_can_be(mode: Mode) {
    let (proxy, _served) = start(mode);
    let mut client = proxy.connect();
    for host in ["nobody.example", "dead.example", "a"] {
        for (method, body) in [
            ("GET", "\r\n"),
            ("POST", "Content-Length: 5\r\n\r\nhello"),
            (
                "POST",
                "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
            ),
        ] {
            client.send(format!("{method} / HTTP/1.1\r\nHost: {host}\r\n{body}"));
            let response = client.response(method);
            let expected = if host == "a" {
                200
            } else if host == "dead.example" {
                502
            } else {
                404
            };
            assert_eq!(response.status, expected, "{host} {method}");
            if response.head.lists("connection", "close") {
                assert_eq!(
                    method, "POST",
                    "{host}: a request without a body need not close"
                );
                client.expect_end();
                client = proxy.connect();
            }
        }
    }
}

fn http_1_0_client(mode: Mode) {
    let (proxy, _served) = start(mode);
    let mut client = proxy.connect();
    client.send("GET / HTTP/1.0\r\nHost: nobody.example\r\nConnection: keep-alive\r\n\r\n");
    let response = client.response("GET");
    assert_eq!(response.status, 404);
    if !response.head.lists("connection", "keep-alive") {
        client.expect_end();
        client = proxy.connect();
    }
    client.send("GET / HTTP/1.0\r\nHost: nobody.example\r\n\r\n");
    let response = client.response("GET");
    assert_eq!(response.status, 404);
    assert!(
        !response.head.lists("connection", "keep-alive"),
        "{:?}",
        response.head
    );
    client.expect_end();
}
