//! What the origin is told about the client: X-Forwarded-For, -Proto, -Host and X-Real-IP, Forwarded (RFC 7239), Via (RFC 9110 section 7.6.3) and
//! Host. A peer that is not trusted cannot forge them, and nobody can have them stripped by listing them in Connection.

mod support;

use support::{Config, Mode, Origin, Request, Response, Served, in_each_mode};

in_each_mode!(
    filled_for_a_plain_client,
    forged_by_an_untrusted_peer,
    kept_from_a_trusted_peer,
    filled_for_a_trusted_peer_without_any,
    several_fields_of_a_trusted_peer,
    without_a_host,
    cannot_be_stripped_by_connection,
    switched_off,
    forwarded_field,
    forwarded_from_a_trusted_peer,
    via_both_ways,
    served_by,
    host_of_the_upstream,
    host_fixed,
);

const FORGED: &str = "X-Forwarded-For: 1.2.3.4\r\nX-Forwarded-For: 5.6.7.8\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: evil.example\r\nX-Real-IP: 1.2.3.4\r\nForwarded: for=1.2.3.4;proto=https\r\n";
const NAMES: [&str; 4] = [
    "x-forwarded-for",
    "x-forwarded-proto",
    "x-forwarded-host",
    "x-real-ip",
];

/// Sends one GET with these fields through a proxy with these tables; what the origin saw and what came back.
fn ask(mode: Mode, tables: &str, upstream: &str, fields: &str) -> (Request, Response, Served) {
    let served = Origin::serve_text("fine");
    let proxy = Config::new(mode)
        .tables(tables)
        .upstream(&[&served.address], upstream)
        .start();
    let mut client = proxy.connect();
    client.send(format!(
        "GET / HTTP/1.1\r\nHost: a.example:8080\r\n{fields}\r\n"
    ));
    let response = client.response("GET");
    assert_eq!(response.status, 200);
    (served.only_request(), response, served)
}

fn values(seen: &Request) -> [Option<&str>; 4] {
    NAMES.map(|name| seen.head.value(name))
}

const PLAIN: [Option<&str>; 4] = [
    Some("127.0.0.1"),
    Some("http"),
    Some("a.example:8080"),
    Some("127.0.0.1"),
];

fn filled_for_a_plain_client(mode: Mode) {
    let (seen, response, _) = ask(mode, "", "", "");
    assert_eq!(values(&seen), PLAIN);
    for off in ["forwarded", "via"] {
        assert!(!seen.head.has(off), "{off} is off by default");
    }
    assert!(
        !response.head.has("via") && !response.head.has("x-served-by"),
        "{:?}",
        response.head
    );
}

fn forged_by_an_untrusted_peer(mode: Mode) {
    let (seen, _, _) = ask(mode, "", "", FORGED);
    assert_eq!(values(&seen), PLAIN);
    assert!(
        !seen
            .head
            .values("forwarded")
            .iter()
            .any(|value| value.contains("1.2.3.4")),
        "{:?}",
        seen.head
    );
    let (seen, _, _) = ask(
        mode,
        "[forward]\ntrusted_proxies = [\"10.0.0.0/8\", \"::1\"]",
        "",
        FORGED,
    );
    assert_eq!(values(&seen), PLAIN);
}

fn kept_from_a_trusted_peer(mode: Mode) {
    let fields = "X-Forwarded-For: 1.2.3.4\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: b.example\r\nX-Real-IP: 1.2.3.4\r\n";
    let (seen, _, _) = ask(
        mode,
        "[forward]\ntrusted_proxies = [\"127.0.0.0/8\"]",
        "",
        fields,
    );
    assert_eq!(
        values(&seen),
        [
            Some("1.2.3.4, 127.0.0.1"),
            Some("https"),
            Some("b.example"),
            Some("1.2.3.4")
        ]
    );
}

fn filled_for_a_trusted_peer_without_any(mode: Mode) {
    let (seen, _, _) = ask(mode, "[forward]\ntrusted_proxies = [\"127.0.0.1\"]", "", "");
    assert_eq!(values(&seen), PLAIN);
}

/// RFC 9110 section 5.3: several fields are one list. All of it stays, in order, and we come last.
fn several_fields_of_a_trusted_peer(mode: Mode) {
    let fields = "X-Forwarded-For: 1.1.1.1, 2.2.2.2\r\nX-Other: x\r\nX-Forwarded-For: 3.3.3.3\r\n";
    let (seen, _, _) = ask(
        mode,
        "[forward]\ntrusted_proxies = [\"127.0.0.1\"]",
        "",
        fields,
    );
    let joined = seen.head.values("x-forwarded-for").join(", ");
    assert_eq!(joined, "1.1.1.1, 2.2.2.2, 3.3.3.3, 127.0.0.1");
}

/// Where a request has no host, as HTTP/1.0 allows, there is none to tell, unless a trusted peer tells it.
fn without_a_host(mode: Mode) {
    let served = Origin::serve_text("fine");
    for (trusted, fields, host) in [
        ("", "", None),
        ("\"127.0.0.1\"", "", None),
        ("\"127.0.0.1\"", "X-Forwarded-Host:\r\n", None),
        (
            "\"127.0.0.1\"",
            "X-Forwarded-Host: b.example\r\n",
            Some("b.example"),
        ),
    ] {
        let proxy = Config::new(mode)
            .tables(&format!(
                "[forward]\nforwarded = true\ntrusted_proxies = [{trusted}]"
            ))
            .upstream(&[&served.address], "")
            .start();
        let mut client = proxy.connect();
        client.send(format!("GET / HTTP/1.0\r\n{fields}\r\n"));
        assert_eq!(client.response("GET").status, 200);
        let seen = served.last_request();
        let [address, scheme, _, real] = PLAIN;
        assert_eq!(values(&seen), [address, scheme, host, real]);
        assert_eq!(last_element(&seen), ["for=127.0.0.1", "proto=http"]);
    }
}

fn cannot_be_stripped_by_connection(mode: Mode) {
    let all = "[forward]\nforwarded = true\nvia = true";
    let listed = "Connection: X-Forwarded-For, x-forwarded-proto, X-FORWARDED-HOST, X-Real-IP, Forwarded, Via, Host\r\n";
    for fields in [
        listed.to_owned(),
        format!("{listed}{FORGED}Via: 1.0 fred\r\n"),
        format!("{FORGED}Via: 1.0 fred\r\n{listed}"),
    ] {
        let (seen, _, _) = ask(mode, all, "", &fields);
        assert_eq!(values(&seen), PLAIN);
        assert!(
            seen.head
                .values("forwarded")
                .join(",")
                .contains("for=127.0.0.1"),
            "{:?}",
            seen.head
        );
        assert!(seen.head.has("via"), "{:?}", seen.head);
    }
}

/// Off means that the origin is told nothing, not that a client may tell it anything.
fn switched_off(mode: Mode) {
    let (seen, _, _) = ask(mode, "[forward]\nx_forwarded = false", "", "");
    assert_eq!(values(&seen), [None; 4]);
}

/// The parameters of the last element of Forwarded, sorted.
fn last_element(seen: &Request) -> Vec<String> {
    let joined = seen.head.values("forwarded").join(", ");
    let last = joined.rsplit(", ").next().unwrap_or_default();
    let mut parameters: Vec<String> = last
        .split(';')
        .map(|each| each.trim().to_ascii_lowercase())
        .collect();
    parameters.sort();
    parameters
}

fn forwarded_field(mode: Mode) {
    let (seen, _, _) = ask(mode, "[forward]\nforwarded = true", "", FORGED);
    let parameters = last_element(&seen);
    assert!(
        parameters.contains(&"for=127.0.0.1".to_owned()),
        "{parameters:?}"
    );
    assert!(
        parameters.contains(&"proto=http".to_owned()),
        "{parameters:?}"
    );
    let host = "host=\"a.example:8080\"".to_owned(); // a colon needs the quotes (RFC 7239 section 4)
    assert!(parameters.contains(&host), "{parameters:?}");
    assert!(
        !seen.head.values("forwarded").join(",").contains("1.2.3.4"),
        "{:?}",
        seen.head
    );
}

fn forwarded_from_a_trusted_peer(mode: Mode) {
    let tables = "[forward]\nforwarded = true\ntrusted_proxies = [\"127.0.0.1\"]";
    let (seen, _, _) = ask(mode, tables, "", "Forwarded: for=1.2.3.4;proto=https\r\n");
    let joined = seen.head.values("forwarded").join(", ");
    assert!(joined.starts_with("for=1.2.3.4;proto=https, "), "{joined}");
    assert!(
        last_element(&seen).contains(&"for=127.0.0.1".to_owned()),
        "{joined}"
    );
}

fn via_both_ways(mode: Mode) {
    let served = Origin::bind()
        .serve(|_| b"HTTP/1.0 200 OK\r\nVia: 1.1 inner\r\nContent-Length: 4\r\n\r\nfine".to_vec());
    let proxy = Config::new(mode)
        .tables("[forward]\nvia = true")
        .upstream(&[&served.address], "")
        .start();
    for version in ["1.1", "1.0"] {
        let mut client = proxy.connect();
        client.send(format!("GET / HTTP/{version}\r\nHost: a\r\nVia: 1.0 fred, 1.1 p.example\r\nConnection: close\r\n\r\n"));
        let response = client.response("GET");
        let via = served.last_request().head.values("via").join(", ");
        assert!(
            via.starts_with(&format!("1.0 fred, 1.1 p.example, {version} ")),
            "received by us as {version}: {via}"
        );
        let via = response.head.values("via").join(", ");
        assert!(
            via.starts_with("1.1 inner, 1.0 "),
            "received by us as 1.0: {via}"
        );
    }
}

fn served_by(mode: Mode) {
    let (_, response, _) = ask(mode, "[forward]\nserved_by = true", "", "");
    assert_eq!(response.head.value("x-served-by"), Some("a"));
}

fn host_of_the_upstream(mode: Mode) {
    let (seen, _, served) = ask(mode, "", "host = \"upstream\"", "");
    assert_eq!(seen.head.value("host"), Some(served.address.as_str()));
    assert_eq!(seen.head.value("x-forwarded-host"), Some("a.example:8080"));
}

fn host_fixed(mode: Mode) {
    let (seen, _, _) = ask(mode, "", "host = \"inner.example\"", "");
    assert_eq!(seen.head.value("host"), Some("inner.example"));
    assert_eq!(seen.head.value("x-forwarded-host"), Some("a.example:8080"));
}
