//! Who may give orders, and what an order must look like.

use serde_json::Value;

use super::support::{Config, Mode, Origin, in_each_mode};
use super::{TOKEN, ask, names, order, post, start};

in_each_mode!(
    only_the_token_gives_orders,
    on_loopback_without_a_token_orders_are_taken_but_not_from_pages_of_others,
    orders_can_be_off,
);

/// Requests that must change nothing, and the status of their answers.
fn bad_orders() -> Vec<(String, u16)> {
    let bearer = format!("Authorization: Bearer {TOKEN}\r\n");
    let json = "Content-Type: application/json\r\n";
    let good = format!("{bearer}{json}");
    let request = |method: &str, path: &str, fields: &str, content: &str| {
        let length = content.len();
        format!(
            "{method} /lb/{path} HTTP/1.1\r\nHost: localhost\r\n{fields}Content-Length: {length}\r\n\r\n{content}"
        )
    };
    let drain = r#"{"state":"drain"}"#;
    let fields = |fields: &str| request("POST", "servers/app/a", fields, drain);
    let path = |path: &str| request("POST", path, &good, drain);
    let content = |content: &str| request("POST", "servers/app/a", &good, content);
    let method = |method: &str| request(method, "servers/app/a", &good, drain);
    let chunked = good.clone() + "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    vec![
        (fields(json), 401),
        (fields(&good.replace("tests-only", "tests-onlx")), 401),
        (fields(&good.replace("tests-only", "tests-onl")), 401),
        (fields(&good.replace("Bearer", "Basic")), 401),
        (fields(&format!("{bearer}{good}")), 400),
        (fields(&bearer), 415),
        (
            fields(&format!("{bearer}Content-Type: text/plain\r\n")),
            415,
        ),
        (fields(&good).replace("localhost", "evil.example"), 421),
        (path("servers/app/c"), 404),
        (path("servers/app"), 404),
        (path("servers/app/a/drain"), 404),
        (path("servers/app/%zz"), 404),
        (path("status"), 405),
        (content("{}"), 400),
        (content(""), 400),
        (content(r#"{"weight":1001}"#), 400),
        (content(r#"{"state":"up","weight":1}"#), 400),
        (content(&"x".repeat(5000)), 413),
        (method("PUT"), 405),
        (method("DELETE"), 405),
        (
            format!("POST /lb/servers/app/a HTTP/1.1\r\nHost: localhost\r\n{chunked}"),
            411,
        ),
    ]
}

fn only_the_token_gives_orders(mode: Mode) {
    let servers = names(["a", "b"]);
    let proxy = start(mode, &[&servers[0], &servers[1]], "");
    for (request, expected) in bad_orders() {
        let response = ask(&proxy, &request);
        assert_eq!(response.status, expected, "{request}\n{}", response.text());
        let has = |field| response.head.value(field).is_some();
        assert_eq!(has("www-authenticate"), expected == 401, "{request}");
        assert_eq!(has("allow"), expected == 405, "{request}");
    }
    // What a browser asks before it lets a page of another site send JSON.
    let preflight = "OPTIONS /lb/servers/app/a HTTP/1.1\r\nHost: localhost\r\nOrigin: http://evil.example\r\n\r\n";
    let preflight = ask(&proxy, preflight);
    let value = |name| preflight.head.value(name);
    assert_eq!(
        (preflight.status, value("allow")),
        (405, Some("GET, HEAD, POST"))
    );
    assert_eq!(value("access-control-allow-origin"), None);

    let history = &proxy.status()["health"]["history"];
    assert_eq!(history, &Value::Array(Vec::new()), "nothing has changed");
    let shown = proxy.page("/lb/servers/app/a");
    let shown: Value = serde_json::from_str(&shown).expect("JSON");
    assert_eq!(shown["state"], "unchecked");
    order(&proxy, "app/a", r#"{"state":"drain"}"#);
}

fn on_loopback_without_a_token_orders_are_taken_but_not_from_pages_of_others(mode: Mode) {
    let served = Origin::serve_text("a");
    let proxy = Config::new(mode)
        .tables("[admin]\naddress = \"127.0.0.1:0\"")
        .upstream(&[&served.address], "")
        .start();
    assert_eq!(proxy.status()["orders"], "open");
    let admin = proxy.admin.expect("the status page is on");
    let drain = |host: &str, fields: &str| {
        let content = r#"{"state":"drain"}"#;
        let length = content.len();
        let request = format!(
            "POST /lb/servers/app/a HTTP/1.1\r\nHost: {host}\r\n{fields}Content-Length: {length}\r\n\r\n{content}"
        );
        ask(&proxy, &request).status
    };
    let json = "Content-Type: application/json\r\n";
    let with = |field: &str| format!("{json}{field}\r\n");
    let own = admin.to_string();
    let port = admin.port();
    for (host, fields, expected) in [
        (&*own, with("Origin: http://evil.example"), 403),
        (&own, with(&format!("Origin: http://localhost:{port}")), 403),
        (&own, with("Origin: http://127.0.0.1:1"), 403),
        (&own, with("Origin: http://127.0.0.1"), 403),
        (&own, with(&format!("Origin: {own}")), 403),
        (&own, with("Origin: null"), 403),
        (&own, with("Origin:"), 403),
        (&own, with("Sec-Fetch-Site: cross-site"), 403),
        (&own, with("Sec-Fetch-Site: same-site"), 403),
        (
            &own,
            with(&format!(
                "Origin: http://{own}\r\nSec-Fetch-Site: cross-site"
            )),
            403,
        ),
        (
            &own,
            with("Sec-Fetch-Site: none\r\nSec-Fetch-Site: none"),
            400,
        ),
        // A name of theirs that resolves to loopback: their page is of the same origin then.
        (
            "evil.example",
            with("Origin: http://evil.example\r\nSec-Fetch-Site: same-origin"),
            421,
        ),
        // What a form of theirs can send.
        (&own, "Content-Type: text/plain\r\n".to_owned(), 415),
        (&own, String::new(), 415),
    ] {
        assert_eq!(drain(host, &fields), expected, "{host} {fields}");
    }
    assert_eq!(proxy.server(0)["order"], Value::Null);
    let page = with(&format!(
        "Origin: http://{own}\r\nSec-Fetch-Site: same-origin"
    ));
    for fields in [json.to_owned(), page] {
        assert_eq!(drain(&own, &fields), 200, "{fields}");
        assert_eq!(proxy.server(0)["state"], "drained");
        order(&proxy, "app/a", r#"{"state":"up"}"#);
    }
}

fn orders_can_be_off(mode: Mode) {
    let served = Origin::serve_text("a");
    for checks in ["", "[upstream.passive]\n"] {
        let proxy = Config::new(mode)
            .tables("[admin]\naddress = \"127.0.0.1:0\"\norders = false")
            .upstream(&[&served.address], checks)
            .start();
        let refused = post(&proxy, "app/a", r#"{"state":"down"}"#);
        assert_eq!(refused.status, 403);
        assert!(
            refused.text().contains("orders = false in [admin]"),
            "{}",
            refused.text()
        );
        assert_eq!(proxy.status()["orders"], "off");
        assert_eq!(proxy.get("/").text(), "a");
        assert_eq!(
            proxy.status()["health"].is_null(),
            checks.is_empty(),
            "no thread without a need"
        );
    }
}
