//! `/lb/servers/UPSTREAM/SERVER`: what is known of one server, and orders for it.

use serde::{Deserialize, Serialize};

use super::http::{Answer, Request};
use super::sampler::Sampler;
use super::status::Server;
use crate::config::Token;
use crate::health::overview::Overview;
use crate::health::{Order, Steer};
use crate::telemetry::view::{ServerView, UpstreamView, View};

/// What paths of servers start with.
pub(super) const PREFIX: &str = "/lb/servers/";

const METHODS: &str = "GET, HEAD, POST";
/// RFC 6750 section 3.
const NO_TOKEN: &str = "Bearer realm=\"ringlane\"";
const WRONG_TOKEN: &str = "Bearer realm=\"ringlane\", error=\"invalid_token\"";
const WEIGHT_MAX: u16 = 1000;
const FORM: &str = r#"an order is {"state": "up", "drain" or "down"} or {"weight": 0 to 1000, or null for the configured one}"#;

/// A server with its flat index and its upstream.
type Found<'a> = (usize, &'a UpstreamView, &'a ServerView);

/// Who gives orders, and to whom.
#[derive(Clone, Copy)]
pub(super) struct Servers<'a> {
    pub(super) sampler: &'a Sampler,
    /// `None` when nobody checks servers and orders are refused.
    pub(super) overview: Option<&'a Overview>,
    pub(super) orders: &'a Orders,
}

/// Who may give orders.
#[derive(Debug)]
pub enum Orders {
    /// Nobody.
    Refused,
    /// Who reaches the listener, which is on loopback then.
    Open,
    /// Who has the token.
    Token(Token),
}

impl Orders {
    /// Orders that must carry this token, if there is one.
    #[must_use]
    pub fn new(token: Option<Token>) -> Self {
        token.map_or(Self::Open, Self::Token)
    }

    pub(super) fn as_str(&self) -> &'static str {
        match self {
            Self::Refused => "off",
            Self::Open => "open",
            Self::Token(_) => "token",
        }
    }
}

/// An order as it is written: `{"state": "drain"}`, `{"weight": 5}`.
#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Content {
    State(StateOrder),
    /// `null` is the configured one.
    Weight(Option<u16>),
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum StateOrder {
    Up,
    Drain,
    Down,
}

#[derive(Serialize)]
struct Refusal<'a> {
    error: &'a str,
}

fn refused(status: u16, error: &str) -> Answer {
    Answer::json(&Refusal { error }).with_status(status)
}

impl Servers<'_> {
    /// Answers a request for a path that starts with [`PREFIX`].
    pub(super) fn answer(self, request: &Request) -> Answer {
        let answer =
            match request.method.as_str() {
                "GET" | "HEAD" => self.find(&request.path).map(|found| self.show(found)),
                "POST" => self.order(request),
                _ => Err(refused(405, "GET, HEAD and POST are allowed here")
                    .with_field("Allow", METHODS)),
            };
        answer.unwrap_or_else(|refusal| refusal)
    }

    /// Changes nothing unless all of the request is in order.
    fn order(self, request: &Request) -> Result<Answer, Answer> {
        let overview = self.authorize(request)?;
        let found = self.find(&request.path)?;
        let steer = order_in(request)?;
        match overview.helm.steer(found.0, steer) {
            Some(_) => Ok(self.show(found)),
            None => Err(refused(
                503,
                "the health thread is being started again; nothing has changed, try again",
            )
            .with_field("Retry-After", "1")),
        }
    }

    fn authorize(&self, request: &Request) -> Result<&Overview, Answer> {
        let (Orders::Open | Orders::Token(_), Some(overview)) = (self.orders, self.overview) else {
            return Err(refused(403, "orders are off: orders = false in [admin]"));
        };
        if request.foreign {
            return Err(refused(403, "pages of other sites give no orders"));
        }
        let Orders::Token(token) = self.orders else {
            return Ok(overview);
        };
        let Some(authorization) = &request.authorization else {
            let error = "orders need the token: Authorization: Bearer TOKEN";
            return Err(refused(401, error).with_field("WWW-Authenticate", NO_TOKEN));
        };
        match bearer(authorization) {
            Some(given) if token.is(given) => Ok(overview),
            _ => {
                Err(refused(401, "this is not the token")
                    .with_field("WWW-Authenticate", WRONG_TOKEN))
            }
        }
    }

    /// The server that a path names.
    fn find(&self, path: &str) -> Result<Found<'_>, Answer> {
        let names = path
            .strip_prefix(PREFIX)
            .and_then(|rest| rest.split_once('/'));
        let names =
            names.and_then(|(upstream, server)| Some((decoded(upstream)?, decoded(server)?)));
        let found =
            names.and_then(|(upstream, server)| find(self.sampler.view(), &upstream, &server));
        found.ok_or_else(|| refused(404, "there is no such server; /lb/status lists them"))
    }

    fn show(&self, (index, upstream, server): Found<'_>) -> Answer {
        Answer::json(&Server::new(
            self.sampler,
            self.overview,
            &self.sampler.traffic(),
            upstream,
            server,
            index,
        ))
    }
}

fn find<'a>(view: &'a View, upstream: &str, server: &str) -> Option<Found<'a>> {
    view.servers()
        .find(|(_, u, s)| u.name == upstream && s.name == server)
}

/// The token of an Authorization field (RFC 6750 section 2.1). The scheme's case does not matter (RFC 9110 section 11.1).
fn bearer(authorization: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = authorization.split_at_checked("Bearer ".len())?;
    scheme
        .eq_ignore_ascii_case(b"Bearer ")
        .then(|| token.trim_ascii())
}

/// A path segment without percent-encoding (RFC 3986 section 2.1). `None` when that is broken, or makes no text.
fn decoded(segment: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(segment.len());
    let mut rest = segment.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(if byte == b'%' {
            let mut digit = || char::from(rest.next()?).to_digit(16);
            (digit()? * 16 + digit()?) as u8
        } else {
            byte
        });
    }
    String::from_utf8(bytes).ok()
}

fn order_in(request: &Request) -> Result<Steer, Answer> {
    // A page of another site can send this type only after asking, which is refused here (fetch.spec.whatwg.org, CORS-safelisted).
    let is_json = request.content_type.as_deref().is_some_and(|media| {
        let essence = media.split(';').next().unwrap_or_default();
        essence.trim().eq_ignore_ascii_case("application/json")
    });
    if !is_json {
        return Err(refused(415, "orders are written as application/json")
            .with_field("Accept", "application/json"));
    }
    match serde_json::from_slice(&request.content) {
        Ok(Content::State(state)) => Ok(Steer::Order(match state {
            StateOrder::Up => Order::Serve,
            StateOrder::Drain => Order::Drain,
            StateOrder::Down => Order::Down,
        })),
        Ok(Content::Weight(weight)) if weight.is_none_or(|weight| weight <= WEIGHT_MAX) => {
            Ok(Steer::Weight(weight))
        }
        Ok(Content::Weight(_)) => Err(refused(400, "weight takes 0 to 1000, or null")),
        Err(error) => Err(refused(400, &format!("{FORM}; this is not: {error}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn path_segments() {
        let cases = [
            ("app", Some("app")),
            ("127.0.0.1:9001", Some("127.0.0.1:9001")),
            ("unix:%2Frun%2fa.sock", Some("unix:/run/a.sock")),
            ("%5B::1%5D:80", Some("[::1]:80")),
            ("a%2", None),
            ("a%", None),
            ("a%zz", None),
            ("a%+1", None),
            ("%ff", None),
            ("", Some("")),
        ];
        for (segment, expected) in cases {
            assert_eq!(decoded(segment).as_deref(), expected, "{segment:?}");
        }
    }

    #[test]
    fn bearer_tokens() {
        let cases: [(&str, Option<&str>); 6] = [
            ("Bearer abc", Some("abc")),
            ("bearer  abc ", Some("abc")),
            ("Basic abc", None),
            ("Bearer", None),
            ("Bearerabc", None),
            ("", None),
        ];
        for (field, token) in cases {
            assert_eq!(
                bearer(field.as_bytes()),
                token.map(str::as_bytes),
                "{field:?}"
            );
        }
    }

    #[test]
    fn orders() {
        let weight = |weight| Some(Steer::Weight(weight));
        let state = |order| Some(Steer::Order(order));
        let cases = [
            (r#"{"state":"drain"}"#, state(Order::Drain)),
            (r#"{"state":"down"}"#, state(Order::Down)),
            (r#" { "state" : "up" } "#, state(Order::Serve)),
            (r#"{"weight":0}"#, weight(Some(0))),
            (r#"{"weight":1000}"#, weight(Some(1000))),
            (r#"{"weight":null}"#, weight(None)),
            (r#"{"weight":1001}"#, None),
            (r#"{"weight":70000}"#, None),
            (r#"{"weight":-1}"#, None),
            (r#"{"weight":1.5}"#, None),
            (r#"{"weight":"5"}"#, None),
            (r#"{"state":"Drain"}"#, None),
            (r#"{"state":"ejected"}"#, None),
            (r#"{"state":null}"#, None),
            (r#"{"state":"up","weight":5}"#, None),
            (r#"{"state":"up","state":"down"}"#, None),
            (r#"{"state":"up","more":1}"#, None),
            (r#"{"state":"up"} x"#, None),
            (r#"["up"]"#, None),
            ("{}", None),
            ("", None),
            ("state=up", None),
        ];
        for (content, expected) in cases {
            let request = Request {
                content_type: Some("Application/JSON; charset=utf-8".into()),
                content: content.into(),
                ..Request::default()
            };
            let found = order_in(&request);
            assert_eq!(found.as_ref().ok(), expected.as_ref(), "{content}");
            assert!(
                found.is_ok() || found.is_err_and(|answer| answer.status == 400),
                "{content}"
            );
        }
        for media in [
            None,
            Some("text/plain"),
            Some("application/x-www-form-urlencoded"),
        ] {
            let request = Request {
                content_type: media.map(str::to_owned),
                content: br#"{"state":"up"}"#.to_vec(),
                ..Request::default()
            };
            assert_eq!(
                order_in(&request).map_err(|answer| answer.status),
                Err(415),
                "{media:?}"
            );
        }
    }
}
