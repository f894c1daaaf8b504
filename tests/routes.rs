//! Which request goes where: host (exact, wildcard, any; RFC 9110 section 4.2.3 for its case) before path prefix on segment boundaries, the longest match
//! wins, 404 where there is none.

mod support;

use support::{Config, Mode, Origin, Proxy, Served, in_each_mode};

in_each_mode!(
    longest_match_wins,
    nothing_matches,
    prefix_is_stripped,
    absolute_form_decides,
    one_upstream_needs_no_route,
);

const ROUTES: &str = r#"
[[route]]
upstream = "any"
[[route]]
path = "/api"
upstream = "any-api"
[[route]]
path = "/api/v2"
upstream = "any-api-v2"
[[route]]
host = "*.example.com"
upstream = "wild"
[[route]]
host = "*.deep.example.com"
upstream = "deep"
[[route]]
host = "www.example.com"
upstream = "exact"
[[route]]
host = "WWW.example.com"
path = "/api"
upstream = "exact-api"
"#;
const NAMES: [&str; 7] = [
    "any",
    "any-api",
    "any-api-v2",
    "wild",
    "deep",
    "exact",
    "exact-api",
];

fn start(mode: Mode) -> (Proxy, Vec<Served>) {
    let origins = NAMES.map(Origin::serve_text);
    let config = NAMES
        .iter()
        .zip(&origins)
        .fold(Config::new(mode), |config, (name, origin)| {
            config.named_upstream(name, &[&origin.address], "")
        });
    (config.tables(ROUTES).start(), origins.into())
}

fn longest_match_wins(mode: Mode) {
    let (proxy, _origins) = start(mode);
    let mut client = proxy.connect();
    let cases = [
        ("a", "/", "any"),
        ("a", "/api", "any-api"),
        ("a", "/api?x", "any-api"),
        ("a", "/api/", "any-api"),
        ("a", "/api/x/y", "any-api"),
        ("a", "/apix", "any"),
        ("a", "/API", "any"),
        ("a", "/x/api", "any"),
        ("a", "/?/api", "any"),
        ("a", "/api/v2", "any-api-v2"),
        ("a", "/api/v2/x", "any-api-v2"),
        ("a", "/api/v2x", "any-api"),
        ("a:8080", "/api", "any-api"),
        ("[::1]:8080", "/", "any"),
        ("b.example.com", "/", "wild"),
        ("B.Example.COM:80", "/", "wild"),
        ("b.c.example.com", "/", "wild"),
        ("b.example.com", "/api", "wild"), // the host counts before the path
        ("example.com", "/", "any"),
        ("notexample.com", "/", "any"),
        ("b.example.com.evil", "/", "any"),
        ("x.deep.example.com", "/", "deep"),
        ("deep.example.com", "/", "wild"),
        ("www.example.com", "/", "exact"),
        ("WWW.EXAMPLE.COM:1234", "/x", "exact"),
        ("www.example.com", "/api/x", "exact-api"),
        ("www.example.com", "/apix", "exact"),
    ];
    for (host, target, expected) in cases {
        client.send(format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        assert_eq!(client.response("GET").text(), expected, "{host} {target}");
    }
}

fn nothing_matches(mode: Mode) {
    let served = Origin::serve_text("fine");
    let proxy = Config::new(mode)
        .upstream(&[&served.address], "")
        .tables("[[route]]\nhost = \"a.example\"\npath = \"/api\"\nupstream = \"app\"")
        .start();
    let mut client = proxy.connect();
    for (host, target, expected) in [
        ("a.example", "/", 404),
        ("b.example", "/api", 404),
        ("a.example", "/api", 200),
        ("a.example", "/ap", 404),
    ] {
        client.send(format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        assert_eq!(client.response("GET").status, expected, "{host} {target}");
    }
    client.send("OPTIONS * HTTP/1.1\r\nHost: b.example\r\n\r\n");
    assert_eq!(client.response("OPTIONS").status, 404);
}

fn prefix_is_stripped(mode: Mode) {
    let served = Origin::serve_text("fine");
    let proxy = Config::new(mode)
        .upstream(&[&served.address], "")
        .tables("[[route]]\npath = \"/app\"\nupstream = \"app\"\nstrip_prefix = true")
        .start();
    let mut client = proxy.connect();
    for (target, expected) in [
        ("/app/x/y?z=/app", "/x/y?z=/app"),
        ("/app/", "/"),
        ("/app", "/"),
        ("/app?q", "/?q"),
        ("/app//x", "//x"),
        ("/app/app/x", "/app/x"),
    ] {
        assert_eq!(client.get(target).status, 200, "{target}");
        assert_eq!(served.last_request().target, expected, "{target}");
    }
}

fn absolute_form_decides(mode: Mode) {
    let (proxy, _origins) = start(mode);
    let mut client = proxy.connect();
    client.send("GET http://www.example.com/api/x HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.response("GET").text(), "exact-api");
}

fn one_upstream_needs_no_route(mode: Mode) {
    let served = Origin::serve_text("fine");
    let proxy = Config::new(mode).upstream(&[&served.address], "").start();
    let mut client = proxy.connect();
    client.send("GET /anything HTTP/1.1\r\nHost: any.host\r\n\r\n");
    assert_eq!(client.response("GET").text(), "fine");
}
