//! Addresses, networks and host names in their textual forms.

use std::fmt::Display;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use ipnet::IpNet;

use super::ServerAddress;
use super::complaint::Flaw;

/// Bytes of a Unix socket's path, without the closing NUL (`sun_path`, unix(7)).
const UNIX_PATH_BYTES_MAX: usize = 107;
/// RFC 1035 section 2.3.4, without the root's empty label.
const HOST_NAME_BYTES_MAX: usize = 253;
/// RFC 1035 section 2.3.4.
const LABEL_BYTES_MAX: usize = 63;

/// Reads the address of a listener. Port 0 lets the kernel choose.
pub(super) fn listener(text: &str) -> Result<SocketAddr, Flaw> {
    let address: SocketAddr = text.parse().map_err(|_| {
        let flaw = Flaw::new(format!("`{text}` is not an IP address and port"));
        match listener_hint(text) {
            Some(hint) => flaw.help(hint),
            None => flaw.help(r#"write "0.0.0.0:8080", "127.0.0.1:8080" or "[::]:8080""#),
        }
    })?;
    let ip = address.ip().to_canonical();
    if ip != address.ip() {
        // Listeners on IPv6 addresses take no IPv4 clients.
        let flaw = Flaw::new(format!("`{text}` is an IPv4 address, written as IPv6"));
        let hint = SocketAddr::new(ip, address.port());
        return Err(flaw.help(format!("write \"{hint}\"")));
    }
    if is_of_many(ip) {
        return Err(Flaw::new(format!("nobody can connect to `{ip}`")));
    }
    Ok(address)
}

/// Whether the address is that of more than one machine.
pub(super) fn is_of_many(ip: IpAddr) -> bool {
    ip.is_multicast() || matches!(ip, IpAddr::V4(ip) if ip.is_broadcast())
}

/// What common other ways of writing a listener mean.
fn listener_hint(text: &str) -> Option<String> {
    if let Some(hint) = ip_hint(text, 8080, |hint| listener(hint).is_ok()) {
        return Some(hint);
    }
    let (host, port) = text.rsplit_once(':').unwrap_or(("", text));
    let port: u16 = port.parse().ok()?;
    match host {
        "" | "*" => Some(write(format!("0.0.0.0:{port}"))),
        "localhost" => Some(write(format!("127.0.0.1:{port}"))),
        _ => {
            let ip: Ipv6Addr = host.parse().ok()?;
            Some(write(SocketAddr::new(ip.into(), port)))
        }
    }
}

/// For an IP address without a port, or whose port looks like the last part of an IPv6 address. `takes` tells what can be written.
fn ip_hint(text: &str, port: u16, takes: impl Fn(&str) -> bool) -> Option<String> {
    let ip: IpAddr = text.trim_matches(['[', ']']).parse().ok()?;
    let split = text.rsplit_once(':').and_then(|(host, port)| {
        let port = port_number(port).ok()?;
        // `::8080` is `[::]:8080` more likely than an address, but `::1` is one.
        let host = if host == ":" && port >= 80 {
            "::"
        } else {
            host
        };
        let host: Ipv6Addr = host.parse().ok()?;
        Some(SocketAddr::new(host.into(), port).to_string())
    });
    let whole = SocketAddr::new(ip, port).to_string();
    let (split, whole) = (
        split.filter(|it| takes(it)),
        Some(whole).filter(|it| takes(it)),
    );
    match (split, whole) {
        (Some(split), Some(whole)) => Some(format!(
            "{}, or \"{whole}\" for the address {ip}",
            write(split)
        )),
        (split, whole) => split.or(whole).map(write),
    }
}

fn write(address: impl Display) -> String {
    format!("write \"{address}\"")
}

/// Reads the address of an upstream's server: `IP:port`, `host:port` or `unix:/path`.
pub(super) fn server(text: &str) -> Result<ServerAddress, Flaw> {
    if let Some(path) = text.strip_prefix("unix:") {
        return unix_path(path).map(ServerAddress::Unix);
    }
    if let Some((scheme, rest)) = text.split_once("://") {
        return Err(url(text, scheme, rest));
    }
    if text.starts_with('/') {
        let flaw = Flaw::new(format!(
            "`{text}` is a path; a server is an address and port"
        ));
        return unix_path(text).and(Err(flaw.help(write(format!("unix:{text}")))));
    }
    if let Ok(address) = text.parse::<SocketAddr>() {
        return server_socket(address).map(ServerAddress::Socket);
    }
    let no_port = || Flaw::new(format!("`{text}` has no port"));
    if text.trim_matches(['[', ']']).parse::<IpAddr>().is_ok() {
        let hint = ip_hint(text, 80, |hint| server(hint).is_ok());
        return Err(match hint {
            Some(hint) => no_port().help(hint),
            None => no_port(),
        });
    }
    let Some((name, port)) = text.split_once(':') else {
        return Err(no_port().help(write(format!("{text}:80"))));
    };
    host_name(name)?;
    port_number(port).map(|port| ServerAddress::Name(name.to_ascii_lowercase(), port))
}

/// A URL in place of a server. Of it only host and port can be meant, and only where it is of HTTP without TLS.
fn url(text: &str, scheme: &str, rest: &str) -> Flaw {
    let plain = ["http", "ws", "tcp"]
        .iter()
        .any(|name| scheme.eq_ignore_ascii_case(name));
    let authority = rest.split(['/', '?', '#']).next().unwrap_or(rest);
    let with_port = format!("{authority}:80");
    let mut addresses = [authority, &with_port].into_iter();
    let help = match addresses.find(|address| plain && server(address).is_ok()) {
        Some(address) => write(address),
        None if plain => "write host and port".to_owned(),
        None => "write host and port; servers are spoken to in HTTP/1.1 without TLS".to_owned(),
    };
    Flaw::new(format!(
        "`{text}` is a URL; a server is an address and port"
    ))
    .help(help)
}

fn server_socket(address: SocketAddr) -> Result<SocketAddr, Flaw> {
    let ip = address.ip();
    if address.port() == 0 {
        return Err(Flaw::new(format!(
            "`{address}` has port 0, where nobody can listen"
        )));
    }
    if ip.is_unspecified() {
        let loopback = if ip.is_ipv4() { "127.0.0.1" } else { "[::1]" };
        let hint = format!("write \"{loopback}:{}\" for this machine", address.port());
        return Err(Flaw::new(format!("`{ip}` is no server's address")).help(hint));
    }
    if is_of_many(ip) {
        return Err(Flaw::new(format!(
            "`{ip}` is not the address of one server"
        )));
    }
    Ok(address)
}

fn unix_path(path: &str) -> Result<PathBuf, Flaw> {
    if !path.starts_with('/') {
        return Err(
            Flaw::new(format!("the socket path `{path}` is not absolute"))
                .help("write \"unix:/run/app.sock\""),
        );
    }
    if path.len() > UNIX_PATH_BYTES_MAX {
        return Err(Flaw::new(format!(
            "the socket path has {} bytes; {UNIX_PATH_BYTES_MAX} are possible",
            path.len()
        )));
    }
    // The path may end up in a header field, as the server's name.
    if path.contains(|c: char| !c.is_ascii_graphic()) {
        return Err(Flaw::new(
            "the socket path has a blank, control or non-ASCII character",
        ));
    }
    Ok(PathBuf::from(path))
}

/// Checks a host name: letters, digits, hyphens and, as real zones have them, underscores.
pub(super) fn host_name(name: &str) -> Result<(), Flaw> {
    let wrong = |reason: &str| Err(Flaw::new(format!("`{name}` is not a host name: {reason}")));
    if name.is_empty() {
        return Err(Flaw::new("the host name is empty"));
    }
    if name.len() > HOST_NAME_BYTES_MAX {
        return wrong("it is longer than 253 characters");
    }
    for label in name.split('.') {
        if label.is_empty() || label.len() > LABEL_BYTES_MAX {
            return wrong("between dots stand 1 to 63 characters");
        }
        if label.contains(|c: char| !c.is_ascii_alphanumeric() && c != '-' && c != '_') {
            return wrong("it takes letters, digits, `-` and `_`");
        }
        if label.starts_with('-') || label.ends_with('-') {
            return wrong("a part may not begin or end with `-`");
        }
    }
    // A last label of digits is a malformed IPv4 address to every URL parser (WHATWG URL, "ends in a number").
    let last = name.rsplit('.').next().unwrap_or(name);
    let is_ipv4 = name.parse::<std::net::Ipv4Addr>().is_ok();
    if last.bytes().all(|byte| byte.is_ascii_digit()) && !is_ipv4 {
        return wrong("it ends in a number, but is no IPv4 address");
    }
    Ok(())
}

/// Checks a value for the Host field: a host name, IPv4 or bracketed IPv6 address, with or without port (RFC 9110 section 7.2).
pub(super) fn host_field(text: &str) -> Result<(), Flaw> {
    if let Some(rest) = text.strip_prefix('[') {
        let (ip, port) = rest
            .split_once(']')
            .ok_or_else(|| Flaw::new(format!("`{text}` lacks a `]`")))?;
        ip.parse::<Ipv6Addr>()
            .map_err(|_| Flaw::new(format!("`{ip}` is not an IPv6 address")))?;
        return match port.strip_prefix(':') {
            Some(port) => port_number(port).map(drop),
            None if port.is_empty() => Ok(()),
            None => Err(Flaw::new(format!(
                "after `]` stands a port or nothing, not `{port}`"
            ))),
        };
    }
    match text.split_once(':') {
        Some((name, port)) => host_name(name).and_then(|()| port_number(port).map(drop)),
        None => host_name(text),
    }
}

fn port_number(text: &str) -> Result<u16, Flaw> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse() {
        Ok(port) if digits && port > 0 => Ok(port),
        _ => Err(Flaw::new(format!(
            "`{text}` is not a port: they run from 1 to 65535"
        ))),
    }
}

/// Bits of an IPv4-mapped IPv6 address before the IPv4 address (RFC 4291 section 2.5.5.2).
const MAPPED_PREFIX: u8 = 96;

/// Reads a network such as `10.0.0.0/8`, or a single address. IPv4-mapped ones become IPv4, as the addresses that are compared with them.
pub(super) fn network(text: &str) -> Result<IpNet, Flaw> {
    let wrong = || {
        Flaw::new(format!("`{text}` is not an address or network"))
            .help(r#"write "10.0.0.0/8", "192.0.2.7", "2001:db8::/32" or "::1""#)
    };
    let network = match text.parse::<IpAddr>() {
        Ok(ip) => IpNet::from(ip),
        Err(_) => text.parse().map_err(|_| wrong())?,
    };
    if network.trunc() != network {
        let hint = format!(
            "write \"{}\", or \"{}\" for the one address",
            network.trunc(),
            network.addr()
        );
        return Err(
            Flaw::new(format!("`{text}` has bits set beyond its prefix length")).help(hint),
        );
    }
    let mapped = network.addr().to_canonical();
    match network.prefix_len().checked_sub(MAPPED_PREFIX) {
        Some(prefix) if mapped != network.addr() => IpNet::new(mapped, prefix).map_err(|_| wrong()),
        _ => Ok(network),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn listeners() {
        let cases = [
            ("0.0.0.0:8080", true),
            ("127.0.0.1:0", true),
            ("[::]:8080", true),
            ("[::1]:443", true),
            ("[::ffff:127.0.0.1]:443", false),
            ("224.0.0.1:80", false),
            ("255.255.255.255:80", false),
            ("[ff02::1]:80", false),
            ("", false),
            (":8080", false),
            ("8080", false),
            ("*:8080", false),
            ("localhost:8080", false),
            ("127.0.0.1", false),
            ("::1:8080", false),
            ("127.0.0.1:65536", false),
            ("127.0.0.1:+80", false),
            ("010.0.0.1:80", false),
            ("http://127.0.0.1:80", false),
        ];
        for (text, good) in cases {
            assert_eq!(listener(text).is_ok(), good, "{text:?}");
        }
    }

    #[test]
    fn listener_hints() {
        let cases = [
            (":8080", Some("write \"0.0.0.0:8080\"")),
            ("8080", Some("write \"0.0.0.0:8080\"")),
            ("*:80", Some("write \"0.0.0.0:80\"")),
            ("localhost:8080", Some("write \"127.0.0.1:8080\"")),
            ("::1", Some("write \"[::1]:8080\"")),
            ("10.0.0.1", Some("write \"10.0.0.1:8080\"")),
            (
                "::1:80",
                Some("write \"[::1]:80\", or \"[::1:80]:8080\" for the address ::1:80"),
            ),
            (
                "::8080",
                Some("write \"[::]:8080\", or \"[::8080]:8080\" for the address ::8080"),
            ),
            ("::ffff:10.0.0.1", None),
            ("224.0.0.1", None),
            ("[::1:80]", Some("write \"[::1:80]:8080\"")),
            ("example.com:80", None),
            ("nonsense", None),
        ];
        for (text, hint) in cases {
            assert_eq!(listener_hint(text).as_deref(), hint, "{text:?}");
        }
    }

    #[test]
    fn hosts_of_urls() {
        let hint = |text: &str| server(text).expect_err("a URL").into_sentence();
        let without_tls = "; servers are spoken to in HTTP/1.1 without TLS";
        let cases = [
            ("http://a/b", "write \"a:80\"", ""),
            ("http://user:pw@a:81/", "write host and port", ""),
            ("http://[::1]/", "write \"[::1]:80\"", ""),
            ("https://a", "write host and port", without_tls),
            ("https://a:443", "write host and port", without_tls),
            ("wss://a", "write host and port", without_tls),
            ("http:///x", "write host and port", ""),
            ("http://a:0/", "write host and port", ""),
            ("http://2001:db8::1/", "write host and port", ""),
            ("http://unix:/run/a", "write host and port", ""),
        ];
        for (text, host, tls) in cases {
            let told = hint(text);
            assert!(told.ends_with(&format!("; {host}{tls}")), "{told}");
        }
    }

    #[test]
    fn servers() {
        let cases = [
            ("127.0.0.1:9001", Some("127.0.0.1:9001")),
            ("[::1]:9002", Some("[::1]:9002")),
            ("App.Example:80", Some("app.example:80")),
            ("_sip.app-1.example:65535", Some("_sip.app-1.example:65535")),
            ("unix:/run/app.sock", Some("unix:/run/app.sock")),
            ("", None),
            ("127.0.0.1", None),
            ("127.0.0.1:0", None),
            ("127.0.0.1:65536", None),
            ("127.0.0.1:", None),
            ("127.0.0.256:80", None),
            ("1.2.3:80", None),
            ("0.0.0.0:80", None),
            ("[::]:80", None),
            ("224.0.0.1:80", None),
            ("255.255.255.255:80", None),
            ("[ff02::1]:80", None),
            ("::1:9002", None),
            ("app.example", None),
            ("app.example:", None),
            ("app.example:0", None),
            ("app.example:+80", None),
            ("app..example:80", None),
            ("-app.example:80", None),
            ("app.example.:80", None),
            ("app example:80", None),
            ("app.example:80\r\nX: y", None),
            ("ünï.example:80", None),
            ("http://127.0.0.1:9001", None),
            ("unix:run/app.sock", None),
            ("unix:", None),
            ("unix:@app", None),
            ("unix:/run/a\r\nb", None),
            ("unix:/run/a b", None),
        ];
        for (text, address) in cases {
            assert_eq!(
                server(text)
                    .ok()
                    .map(|server| server.to_string())
                    .as_deref(),
                address,
                "{text:?}"
            );
        }
        assert!(server(&format!("unix:/{}", "a".repeat(106))).is_ok());
        assert!(server(&format!("unix:/{}", "a".repeat(107))).is_err());
    }

    #[test]
    fn host_fields() {
        let cases = [
            ("example.com", true),
            ("example.com:8080", true),
            ("192.0.2.1", true),
            ("192.0.2.1:80", true),
            ("[2001:db8::1]", true),
            ("[2001:db8::1]:80", true),
            ("", false),
            (":80", false),
            ("example.com:", false),
            ("example.com:0", false),
            ("example.com:80:80", false),
            ("[::1", false),
            ("[::1]80", false),
            ("[::g]", false),
            ("a b", false),
            ("a\r\nX-Evil: 1", false),
            ("a\0", false),
            ("user@example.com", false),
            ("example.com/path", false),
            ("a,b", false),
        ];
        for (text, good) in cases {
            assert_eq!(host_field(text).is_ok(), good, "{text:?}");
        }
    }

    #[test]
    fn host_name_lengths() {
        let label = "a".repeat(63);
        assert!(host_name(&label).is_ok());
        assert!(host_name(&format!("{label}a")).is_err());
        assert!(
            host_name(&[label.as_str(); 4].join(".")[2..]).is_ok(),
            "253 characters"
        );
        assert!(
            host_name(&[label.as_str(); 4].join(".")[1..]).is_err(),
            "254 characters"
        );
    }

    #[test]
    fn networks() {
        let cases = [
            ("10.0.0.0/8", Some("10.0.0.0/8")),
            ("192.0.2.7", Some("192.0.2.7/32")),
            ("::1", Some("::1/128")),
            ("2001:db8::/32", Some("2001:db8::/32")),
            ("0.0.0.0/0", Some("0.0.0.0/0")),
            ("::ffff:192.0.2.7", Some("192.0.2.7/32")),
            ("::ffff:10.0.0.0/104", Some("10.0.0.0/8")),
            ("::ffff:0:0/96", Some("0.0.0.0/0")),
            ("::fffe:0:0/95", Some("::fffe:0:0/95")),
            ("::ffff:10.0.0.1/104", None),
            ("10.0.0.1/8", None),
            ("10.0.0.0/33", None),
            ("::/129", None),
            ("10.0.0.0/", None),
            ("10.0.0/8", None),
            ("localhost", None),
            ("", None),
        ];
        for (text, expected) in cases {
            assert_eq!(
                network(text)
                    .ok()
                    .map(|network| network.to_string())
                    .as_deref(),
                expected,
                "{text:?}"
            );
        }
    }

    proptest! {
        #[test]
        fn what_may_be_a_host_field_cannot_break_a_head(text in "[a-z0-9:.\\[\\]\r\n\0 @-]{0,16}|\\PC*") {
            if host_field(&text).is_ok() {
                prop_assert!(text.bytes().all(|byte| byte.is_ascii_graphic()), "{:?}", text);
            }
        }

        #[test]
        fn no_text_panics(text in "[a-z0-9:./\\[\\]*-]{0,24}|\\PC*") {
            let _ = (listener(&text), server(&text), network(&text), host_field(&text));
        }
    }
}
