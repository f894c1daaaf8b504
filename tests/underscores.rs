//! Request fields whose names have underscores, which CGI and its like cannot tell from those with hyphens (RFC 3875 section 4.1.18).

mod support;

use support::{Config, Mode, Origin, in_each_mode};

in_each_mode!(pass, dropped, refused);

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
