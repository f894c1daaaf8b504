//! Health checks: what is asked, and what follows from the answers.

use std::time::Duration;

use http::uri::PathAndQuery;
use http::{HeaderName, HeaderValue, Method, header};

use super::complaint::{Complaints, Flaw};
use super::reader::Reader;
use super::statuses::Statuses;
use super::{Server, address, units};

/// Active checks of the servers of one upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// What is asked.
    pub kind: CheckKind,
    /// From the start of one probe to the start of the next, varied by a tenth either way.
    pub interval: Duration,
    /// The same while a server's state may be about to change; at most `interval`.
    pub fast_interval: Duration,
    /// For a whole probe, connecting included; at most `interval`.
    pub timeout: Duration,
    /// Successes in a row that bring a server up.
    pub rise: u32,
    /// Failures in a row that take it down.
    pub fall: u32,
    /// Port to probe in place of the server's own.
    pub port: Option<u16>,
}

/// What a probe asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CheckKind {
    /// Whether it accepts connections.
    Tcp,
    /// An HTTP request.
    Http(HttpCheck),
}

/// A probe's request and what must come back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpCheck {
    /// The method.
    pub method: Method,
    /// The path, with a query if any.
    pub path: PathAndQuery,
    /// The Host field; `None` is the server's address.
    pub host: Option<HeaderValue>,
    /// Further fields. One named User-Agent or Accept replaces ours.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Statuses that are a success.
    pub expect: Statuses,
    /// Text that the body must have, among its first `body_limit_bytes`.
    pub body: Option<String>,
    /// Bytes of the answer's content that are read; what follows is not.
    pub body_limit_bytes: usize,
}

/// Ejection of servers that fail requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Passive {
    /// Failures within `window` that eject a server.
    pub fall: u32,
    /// How long a failure counts.
    pub window: Duration,
    /// The longest ejection. A server that stays up for as long starts again from the first.
    pub eject_max: Duration,
    /// Length of the first ejection, at most `eject_max`; each further one in a row is twice as long.
    pub eject: Duration,
    /// Percent of an upstream's servers that may be out, for whatever reason, for one more to be ejected: the ejection must not
    /// take it above this.
    pub max_ejected_percent: u8,
    /// Statuses that count as failures.
    pub statuses: Option<Statuses>,
}

/// Fields that a probe has already, or that would change what the request is.
const OWN_FIELDS: [HeaderName; 6] = [
    header::CONNECTION,
    header::CONTENT_LENGTH,
    header::EXPECT,
    header::TE,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

pub(super) fn check(table: &Reader<'_>, servers: &[Server], complaints: &Complaints<'_>) -> Check {
    let is_unix = |server: &Server| server.address.is_unix();
    if table.changes("port") && !servers.is_empty() && servers.iter().all(is_unix) {
        let flaw = Flaw::new("port never acts: every server is a Unix socket");
        complaints.warning(&table.span_of("port"), flaw);
    }
    let interval = table.duration("interval");
    let within = |key: &str| {
        let duration = table.duration(key);
        if table.gives(key) && duration > interval {
            let (duration, interval) = (units::Span(duration), units::Span(interval));
            let flaw = Flaw::new(format!(
                "{key} is {duration}, longer than the interval of {interval}"
            ));
            complaints.error(
                &table.span_of(key),
                flaw.help("raise interval, or lower this"),
            );
        }
        duration.min(interval)
    };
    Check {
        kind: kind(table, complaints),
        interval,
        fast_interval: within("fast_interval"),
        timeout: within("timeout"),
        rise: table.number("rise") as u32,
        fall: table.number("fall") as u32,
        port: table.number_or_word("port").map(|port| port as u16),
    }
}

fn kind(table: &Reader<'_>, complaints: &Complaints<'_>) -> CheckKind {
    let http = HttpCheck {
        method: table.parsed("method", method).unwrap_or_default(),
        path: table
            .parsed("path", path)
            .unwrap_or_else(|| PathAndQuery::from_static("/")),
        host: table.parsed("host", host),
        headers: headers(table, complaints),
        expect: table.parsed("expect", statuses).unwrap_or_default(),
        body: table.text("body").map(|text| text.into_inner().to_owned()),
        body_limit_bytes: table.size("body_limit") as usize,
    };
    if table.choice("type") == "http" {
        let upper = http.method.as_str().to_ascii_uppercase();
        if http.method.as_str() != upper {
            // RFC 9110 section 9.1.
            let flaw = Flaw::new(format!("method: `{}` is not `{upper}`", http.method));
            let help = format!("write \"{upper}\": methods are case-sensitive");
            complaints.warning(&table.span_of("method"), flaw.help(help));
        }
        if http.method == Method::HEAD && http.body.is_some() {
            let flaw = Flaw::new("body: the answer to HEAD has none");
            complaints.error(&table.span_of("body"), flaw.help("use another method"));
        }
        return CheckKind::Http(http);
    }
    let only_http = [
        "path",
        "method",
        "host",
        "headers",
        "expect",
        "body",
        "body_limit",
    ];
    for key in only_http.into_iter().filter(|key| table.changes(key)) {
        let flaw = Flaw::new(format!("{key} never acts: a \"tcp\" check only connects"));
        complaints.warning(&table.span_of(key), flaw);
    }
    CheckKind::Tcp
}

fn method(text: &str) -> Result<Method, Flaw> {
    match Method::from_bytes(text.as_bytes()) {
        Ok(Method::CONNECT) => Err(Flaw::new("CONNECT is no method for a probe")),
        Ok(method) => Ok(method),
        Err(_) => Err(Flaw::new(format!(
            "`{}` is not a method",
            text.escape_debug()
        ))),
    }
}

fn path(text: &str) -> Result<PathAndQuery, Flaw> {
    let wrong = || {
        Flaw::new(format!("`{}` is not a path", text.escape_debug()))
            .help("write a path that starts with \"/\", with a query if need be")
    };
    if !text.starts_with('/') || text.contains('#') {
        return Err(wrong());
    }
    if let Some(wrong) = text.chars().find(|character| !character.is_ascii_graphic()) {
        let flaw = Flaw::new(format!("a path cannot have `{}`", wrong.escape_debug()));
        return Err(flaw.help("write it percent-encoded"));
    }
    PathAndQuery::try_from(text).map_err(|_| wrong())
}

fn host(text: &str) -> Result<HeaderValue, Flaw> {
    address::host_field(text)?;
    HeaderValue::from_str(text).map_err(|_| Flaw::new("this is not a host"))
}

pub(super) fn statuses(text: &str) -> Result<Statuses, Flaw> {
    text.parse::<Statuses>()
        .map_err(|bad| Flaw::new(bad.to_string()))
}

fn headers(table: &Reader<'_>, complaints: &Complaints<'_>) -> Vec<(HeaderName, HeaderValue)> {
    let texts = table.texts("headers").into_iter();
    texts
        .filter_map(|text| complaints.check(&text.span(), field(text.get_ref())))
        .collect()
}

fn field(text: &str) -> Result<(HeaderName, HeaderValue), Flaw> {
    // The field may be a secret, so the complaint does not repeat it.
    let wrong = || Flaw::new("headers: this is not a field").help("write \"Name: value\"");
    let (name, value) = text.split_once(':').ok_or_else(wrong)?;
    let name = HeaderName::try_from(name).map_err(|_| wrong())?;
    let value = HeaderValue::from_str(value.trim_matches([' ', '\t'])).map_err(|_| wrong())?;
    if name == header::HOST {
        let flaw = Flaw::new("headers: Host has a key of its own");
        return Err(flaw.help("write host = \"...\""));
    }
    if OWN_FIELDS.contains(&name) {
        return Err(Flaw::new(format!("headers: a probe sets {name} itself")));
    }
    Ok((name, value))
}

pub(super) fn passive(
    table: &Reader<'_>,
    servers: &[Server],
    complaints: &Complaints<'_>,
) -> Passive {
    let (eject, eject_max) = (table.duration("eject"), table.duration("eject_max"));
    if table.gives("eject") && table.gives("eject_max") && eject > eject_max {
        let (eject, eject_max) = (units::Span(eject), units::Span(eject_max));
        let flaw = Flaw::new(format!(
            "eject_max is {eject_max}, shorter than the first ejection of {eject}"
        ));
        complaints.error(&table.span_of("eject_max"), flaw);
    }
    let eject_max = if table.gives("eject_max") {
        eject_max
    } else {
        eject_max.max(eject)
    };
    let max_ejected_percent = table.number("max_ejected") as u8;
    let servers = servers.iter().filter(|server| server.weight > 0).count();
    if servers > 0 && servers * usize::from(max_ejected_percent) < 100 {
        let flaw = Flaw::new(format!(
            "no server is ever ejected: {max_ejected_percent} % of {servers} is less than one"
        ));
        let help = match 100_usize.div_ceil(servers) {
            100 => "set max_ejected = 100".to_owned(),
            least => format!("set max_ejected = {least} or more"),
        };
        complaints.warning(&table.span_of("max_ejected"), flaw.help(help));
    }
    Passive {
        fall: table.number("fall") as u32,
        window: table.duration("window"),
        eject_max,
        eject: eject.min(eject_max),
        max_ejected_percent,
        statuses: table.parsed("statuses", statuses),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probe_fields() {
        let cases = [
            ("X-Probe: yes", Ok(("x-probe", "yes"))),
            ("X-Probe:yes:no \t", Ok(("x-probe", "yes:no"))),
            ("X-Empty:", Ok(("x-empty", ""))),
            ("User-Agent: mine", Ok(("user-agent", "mine"))),
            ("X-Probe", Err("is not a field")),
            ("X Probe: yes", Err("is not a field")),
            (": yes", Err("is not a field")),
            ("X: a\r\nY: b", Err("is not a field")),
            ("host: a", Err("Host has a key of its own")),
            (
                "Content-Length: 3",
                Err("a probe sets content-length itself"),
            ),
            ("connection: close", Err("a probe sets connection itself")),
        ];
        for (text, expected) in cases {
            match (field(text), expected) {
                (Ok((name, value)), Ok(expected)) => assert_eq!(
                    (name.as_str(), &value),
                    (expected.0, &HeaderValue::from_static(expected.1))
                ),
                (Err(flaw), Err(expected)) => {
                    assert!(format!("{flaw:?}").contains(expected), "{flaw:?}");
                }
                (found, _) => panic!("{text:?}: {found:?}"),
            }
        }
    }

    #[test]
    fn probe_paths_and_methods() {
        for (text, good) in [
            ("/", true),
            ("/a?b=c", true),
            ("", false),
            ("a", false),
            ("/a#b", false),
            ("/a b", false),
            ("*", false),
        ] {
            assert_eq!(path(text).is_ok(), good, "{text:?}");
        }
        for (text, good) in [
            ("GET", true),
            ("OPTIONS", true),
            ("MY-METHOD", true),
            ("CONNECT", false),
            ("", false),
            ("G T", false),
        ] {
            assert_eq!(method(text).is_ok(), good, "{text:?}");
        }
    }
}
