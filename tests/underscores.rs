//! Request fields whose names have underscores, which CGI and its like cannot tell from those with hyphens (RFC 3875 section 4.1.18).

mod support;

use support::{Config, Mode, Origin, QUIET, field_values, in_each_mode};

in_each_mode!(pass, dropped, refused, trailers);

const REQUEST: &str = "GET / HTTP/1.1\r\nHost: a\r\nX_User: eve\r\nX-User: bob\r\n\r\n";

/// What a server gets of the request: the fields `X_User` and `X-User`; `None` where it is refused.
fn ask(mode: Mode, limits: &str) -> Option<(bool, bool)> {
    let served = Origin::serve_text("fine");
    let proxy = Config::new(mode)
        .tables(limits)
        .upstream(&[&served.address], "")
        .start();
    let mut client = proxy.connect();
    client.send(REQUEST);
    if client.response("GET").status == 400 {
        client.expect_close();
        assert!(served.requests().is_empty());
        return None;
    }
    let head = served.only_request().head;
    Some((head.has("x_user"), head.has("x-user")))
}

fn pass(mode: Mode) {
    assert_eq!(ask(mode, ""), Some((true, true)));
}

fn dropped(mode: Mode) {
    let limits = "[limits]\nunderscores = \"drop\"";
    assert_eq!(ask(mode, limits), Some((false, true)));
}

fn refused(mode: Mode) {
    let limits = "[limits]\nunderscores = \"refuse\"";
    assert_eq!(ask(mode, limits), None);
}

/// A trailer section goes on only where every name may: whole or in pieces, with the head or behind it.
fn trailers(mode: Mode) {
    let head =
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTrailer: X_User\r\n\r\n";
    let body = "1\r\n.\r\n0\r\nX_User: eve\r\nX-Sum: 1\r\n\r\n";
    for (setting, passes) in [("pass", true), ("drop", false), ("refuse", false)] {
        let origin = Origin::bind();
        let proxy = Config::new(mode)
            .tables(&format!("[limits]\nunderscores = \"{setting}\""))
            .upstream(&[&origin.address], "")
            .start();
        for at_once in [true, false] {
            let mut client = proxy.connect();
            client.send(head);
            if !at_once {
                std::thread::sleep(QUIET);
            }
            client.send(body);
            let mut upstream = origin.accept();
            let seen = upstream.request();
            assert_eq!(seen.body, b".", "{setting}");
            assert_eq!(seen.head.has("trailer"), passes, "{setting}");
            let sent =
                ["x_user", "x-sum"].map(|name| !field_values(&seen.trailers, name).is_empty());
            assert_eq!(sent, [passes; 2], "{setting}: {:?}", seen.trailers);
        }
    }
}
