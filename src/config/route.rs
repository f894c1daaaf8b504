//! Routes: which request goes to which upstream.

use std::collections::HashSet;

use toml::Spanned;

use super::complaint::{Complaints, Flaw, Seen, nearest};
use super::reader::Reader;
use super::{HostPattern, Route, Size, Upstream, address};

/// All routes. With a single upstream and no route, the route to it is implied.
pub(super) fn routes(
    root: &Reader<'_>,
    upstreams: &[Spanned<Upstream>],
    uri_bytes_max: usize,
    complaints: &Complaints<'_>,
) -> Vec<Route> {
    if root.lacks("route") {
        return implied(upstreams, complaints);
    }
    let tables = root.tables("route");
    let targets: Vec<_> = tables
        .iter()
        .map(|table| table.parsed("upstream", |name| find(name, upstreams)))
        .collect();
    // A route whose upstream is not known may be the one that uses it.
    if !targets.is_empty() && targets.iter().all(Option::is_some) {
        warn_of_unused(&targets, upstreams, complaints);
    }
    let mut seen = Seen::new();
    let mut routes = Vec::new();
    for (table, target) in tables.iter().zip(targets) {
        let Some(route) = route(table, target, complaints) else {
            continue;
        };
        if route.path.len() > uri_bytes_max {
            let (length, max) = (route.path.len(), Size(uri_bytes_max as u64));
            let flaw = Flaw::new(format!("the route never acts: its path has {length} bytes"));
            let help = format!("limits.uri refuses targets of more than {max}");
            complaints.warning(&table.span_of("path"), flaw.help(help));
        }
        if let Some(first) = seen.note((route.host.clone(), route.path.clone()), &table.span()) {
            let line = complaints.line(&first);
            let flaw = Flaw::new(format!(
                "a route for host {} and path {} stands in line {line}",
                route.host, route.path
            ));
            complaints.error(&table.span(), flaw.help("change one of them, or remove it"));
        }
        routes.push(route);
    }
    routes
}

fn warn_of_unused(
    targets: &[Option<usize>],
    upstreams: &[Spanned<Upstream>],
    complaints: &Complaints<'_>,
) {
    // By name, not by index: of two upstreams with one name, routes only ever find the first.
    let name = |upstream: &Spanned<Upstream>| upstream.get_ref().name.clone();
    let used: HashSet<_> = targets
        .iter()
        .flatten()
        .map(|&target| name(&upstreams[target]))
        .collect();
    for upstream in upstreams {
        let name = name(upstream);
        if !name.is_empty() && !used.contains(&name) {
            complaints.warning(
                &upstream.span(),
                Flaw::new(format!("no route leads to upstream `{name}`")),
            );
        }
    }
}

fn implied(upstreams: &[Spanned<Upstream>], complaints: &Complaints<'_>) -> Vec<Route> {
    if upstreams.len() > 1 {
        let flaw = Flaw::new(format!(
            "there are {} upstreams and no [[route]]",
            upstreams.len()
        ));
        complaints
            .file_error(flaw.help("add a [[route]] for each: only a single upstream needs none"));
    }
    vec![Route {
        host: HostPattern::Any,
        path: "/".to_owned(),
        upstream: 0,
        strip_prefix: false,
    }]
}

fn route(
    table: &Reader<'_>,
    upstream: Option<usize>,
    complaints: &Complaints<'_>,
) -> Option<Route> {
    let host = table.parsed("host", host_pattern);
    let path = table.parsed("path", path_prefix);
    let strip_prefix = table.flag("strip_prefix");
    if strip_prefix && path.as_deref() == Some("/") {
        let flaw = Flaw::new("strip_prefix never acts: the path is `/`");
        complaints.warning(&table.span_of("strip_prefix"), flaw);
    }
    Some(Route {
        host: host?,
        path: path?,
        upstream: upstream?,
        strip_prefix,
    })
}

/// The index of the upstream of that name.
fn find(name: &str, upstreams: &[Spanned<Upstream>]) -> Result<usize, Flaw> {
    let names = || {
        upstreams
            .iter()
            .map(|upstream| upstream.get_ref().name.as_str())
    };
    names()
        .position(|known| known == name)
        .filter(|_| !name.is_empty())
        .ok_or_else(|| {
            let flaw = Flaw::new(format!("there is no upstream `{}`", name.escape_debug()));
            let known: Vec<_> = names().filter(|name| !name.is_empty()).collect();
            match nearest(name, known.iter().copied()) {
                Some(near) => flaw.help(format!("did you mean `{near}`?")),
                None => flaw.help(format!("there are: {}", known.join(", "))),
            }
        })
}

/// Reads `*`, a host or `*.` and a domain. Host names know no case (RFC 9110 section 4.2.3).
fn host_pattern(text: &str) -> Result<HostPattern, Flaw> {
    if text == "*" {
        return Ok(HostPattern::Any);
    }
    let lower = text.to_ascii_lowercase();
    if let Some(domain) = lower.strip_prefix("*.") {
        address::host_name(domain)?;
        return Ok(HostPattern::Suffix(format!(".{domain}")));
    }
    if text.contains('*') {
        let flaw = Flaw::new(format!(
            "`{text}`: a `*` stands alone, or for the first parts of a name"
        ));
        return Err(flaw.help(r#"write "*" or "*.example.com""#));
    }
    if let Some(name) = lower.strip_suffix('.') {
        return Err(Flaw::new(format!("`{text}` ends in a dot")).help(format!("write \"{name}\"")));
    }
    address::host_field(&lower)?;
    // Beyond brackets, only a port can hold a colon.
    match lower.rsplit_once(':') {
        Some((host, _)) if !lower.ends_with(']') => Err(Flaw::new(format!(
            "`{text}` has a port; routes look at the host alone"
        ))
        .help(format!("write \"{host}\""))),
        _ => Ok(exact(lower)),
    }
}

/// The pattern of one host. An IPv6 address has more than one form (RFC 4291 section 2.2): it is not compared as text.
fn exact(host: String) -> HostPattern {
    match host.trim_matches(['[', ']']).parse() {
        Ok(address) => HostPattern::Address(address),
        Err(_) => HostPattern::Exact(host),
    }
}

/// Checks a path prefix against RFC 3986 section 3.3. What requests' paths lose before they are compared (dot segments, empty ones, needless
/// escapes) would match nothing, or not what it seems to, as would a closing slash. Escapes get their usual form, in upper case.
fn path_prefix(text: &str) -> Result<String, Flaw> {
    if !text.starts_with('/') {
        return Err(Flaw::new(format!("`{text}` does not begin with `/`"))
            .help(format!("write \"/{text}\"")));
    }
    if let Some(wrong) = text.chars().find(|&c| !is_path_character(c)) {
        let hint = if matches!(wrong, '?' | '#') {
            "routes look at the path alone"
        } else {
            "write it percent-encoded"
        };
        return Err(Flaw::new(format!("a path cannot have `{}`", wrong.escape_debug())).help(hint));
    }
    let escapes = text.split('%').skip(1);
    for digits in escapes.map(|rest| rest.get(..2).unwrap_or_default()) {
        let Some(byte) = escaped_byte(digits) else {
            let flaw = Flaw::new(format!("`%{digits}` is not a percent-encoded byte"));
            return Err(flaw.help("write % as %25"));
        };
        let plain = char::from(byte);
        if is_path_character(plain) && !matches!(plain, '/' | '%') {
            let flaw = Flaw::new(format!("`%{digits}` stands for `{plain}`"));
            return Err(flaw.help(format!("write `{plain}`")));
        }
    }
    if text.contains("//") {
        return Err(Flaw::new(format!(
            "`{text}` has an empty segment; requests are compared without those"
        )));
    }
    if text.split('/').any(|segment| matches!(segment, "." | "..")) {
        return Err(Flaw::new(format!(
            "`{text}` has a segment `.` or `..`, which leads elsewhere"
        )));
    }
    match text.strip_suffix('/') {
        Some(shorter) if !shorter.is_empty() => {
            let hint = format!("write \"{shorter}\", which takes {shorter} and all below it");
            Err(Flaw::new(format!("`{text}` ends in `/`")).help(hint))
        }
        _ => Ok(upper_escapes(text)),
    }
}

/// The path with the digits of its escapes in upper case (RFC 3986 section 6.2.2.1).
fn upper_escapes(path: &str) -> String {
    let mut parts = path.split('%');
    let mut upper = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (digits, rest) = part.split_at_checked(2).unwrap_or((part, ""));
        upper.extend(["%", &digits.to_ascii_uppercase(), rest]);
    }
    upper
}

fn is_path_character(c: char) -> bool {
    c.is_ascii_alphanumeric() || "/%-._~!$&'()*+,;=:@".contains(c)
}

/// The byte that `%` and these digits stand for.
fn escaped_byte(digits: &str) -> Option<u8> {
    let is_hex_pair = digits.len() == 2 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    u8::from_str_radix(digits, 16).ok().filter(|_| is_hex_pair)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn host_patterns() {
        let exact = |text: &str| Some(HostPattern::Exact(text.to_owned()));
        let suffix = |text: &str| Some(HostPattern::Suffix(text.to_owned()));
        let address = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
        let address = || Some(HostPattern::Address(address));
        let cases = [
            ("*", Some(HostPattern::Any)),
            ("Example.COM", exact("example.com")),
            ("localhost", exact("localhost")),
            ("192.0.2.1", exact("192.0.2.1")),
            ("[2001:DB8::1]", address()),
            ("[2001:db8:0:0:0:0:0:1]", address()),
            ("*.Example.com", suffix(".example.com")),
            ("*.com", suffix(".com")),
            ("", None),
            ("*.", None),
            ("**", None),
            ("*example.com", None),
            ("a.*.com", None),
            ("*.*.com", None),
            ("example.com:80", None),
            ("*.example.com:80", None),
            ("[::1]:80", None),
            ("example.com.", None),
            ("example..com", None),
            ("http://example.com", None),
            ("example.com/x", None),
            ("a\r\nb", None),
        ];
        for (text, pattern) in cases {
            assert_eq!(host_pattern(text).ok(), pattern, "{text:?}");
        }
    }

    #[test]
    fn path_prefixes() {
        let cases = [
            ("/", true),
            ("/api", true),
            ("/api/v1", true),
            ("/a%20b", true),
            ("/a%2Fb/100%25/%c3%BC", true),
            ("/.well-known/acme-challenge", true),
            ("/~user;x=1,2:@!$&'()*+", true),
            ("", false),
            ("api", false),
            ("*", false),
            ("/api/", false),
            ("//", false),
            ("/a//b", false),
            ("/%61pi", false),
            ("/%2e%2e/a", false),
            ("/a b", false),
            ("/a?b", false),
            ("/a#b", false),
            ("/ü", false),
            ("/%", false),
            ("/%2", false),
            ("/%zz", false),
            ("/%+1", false),
            ("/a/../b", false),
            ("/.", false),
            ("/a\r\nX: y", false),
            ("/a\\b", false),
        ];
        for (text, good) in cases {
            assert_eq!(path_prefix(text).is_ok(), good, "{text:?}");
        }
    }

    #[test]
    fn escapes_have_one_form() {
        let path = path_prefix("/ab%2fcd/%c3%Bcef").ok();
        assert_eq!(path.as_deref(), Some("/ab%2Fcd/%C3%BCef"));
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "[/a-z%.*\\[\\]:?ü]{0,16}|\\PC*") {
            let _ = (host_pattern(&text), path_prefix(&text));
        }
    }
}
