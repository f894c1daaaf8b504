//! A client of the status listener: one request on a connection of its own, blocking, with a limit on everything.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs as _};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::table::plain;

/// Where it is unless told otherwise.
pub(super) const DEFAULT_ADDRESS: &str = "127.0.0.1:9900";
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// For the whole exchange, but for the look-up of a name, which has limits of its own (resolv.conf(5)).
const TIMEOUT: Duration = Duration::from_secs(10);
/// A status page of thousands of servers is a few megabytes.
const ANSWER_BYTES_MAX: usize = 64 << 20;
const READ_BYTES: usize = 64 << 10;
const FIELDS_MAX: usize = 64;
/// Of what a refusal says, in characters.
const REFUSAL_MAX: usize = 400;
/// The likeliest reason for an answer that cannot be the listener's.
pub(super) const STRANGE: &str = "is this the status listener?";

/// Where a status listener is.
#[derive(Clone, Debug)]
pub(super) struct Client {
    /// Host and port.
    authority: String,
    timeout: Duration,
}

/// What it answered.
#[derive(Debug, PartialEq, Eq)]
struct Answer {
    status: u16,
    body: String,
}

impl Client {
    /// Takes `HOST:PORT`, with or without `http://` before it.
    ///
    /// # Errors
    /// A sentence for the user.
    pub(super) fn new(address: &str) -> Result<Self, String> {
        let authority = address.strip_prefix("http://").unwrap_or(address);
        let authority = authority.trim_end_matches('/');
        let parsed: Result<http::uri::Authority, _> = authority.parse();
        match parsed {
            Ok(parsed) if parsed.port_u16().is_some() && !authority.contains('@') => Ok(Self {
                authority: authority.to_owned(),
                timeout: TIMEOUT,
            }),
            _ => Err(format!(
                "`{address}` is no address: write HOST:PORT, such as 127.0.0.1:9900"
            )),
        }
    }

    /// The status page, and its text.
    ///
    /// # Errors
    /// As [`Client::post`], or the page is none of a status listener.
    pub(super) fn status(&self) -> Result<(Value, String), String> {
        let request = format!("GET /lb/status HTTP/1.1\r\n{}\r\n", self.fields());
        let text = accepted(self.exchange(&request)?)?;
        let status = document(&text)?;
        if !status["pid"].is_u64() || !status["upstreams"].is_array() {
            return Err(format!("the answer is no status page; {STRANGE}"));
        }
        Ok((status, text))
    }

    /// Sends JSON, with a token if there is one. The answer is JSON as well.
    ///
    /// # Errors
    /// A sentence for the user: nobody answers there, or not so, or refuses.
    pub(super) fn post(
        &self,
        path: &str,
        token: Option<&str>,
        json: &str,
    ) -> Result<Value, String> {
        let authorization = token.map(|token| format!("Authorization: Bearer {token}\r\n"));
        let answer = self.exchange(&format!(
            "POST {path} HTTP/1.1\r\n{}{}Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{json}",
            self.fields(),
            authorization.unwrap_or_default(),
            json.len(),
        ))?;
        document(&accepted(answer)?)
    }

    fn fields(&self) -> String {
        let version = env!("CARGO_PKG_VERSION");
        // A zone is not the server's business (RFC 6874 section 1).
        let host = match self.authority.parse::<SocketAddr>() {
            Ok(address) => SocketAddr::new(address.ip(), address.port()).to_string(),
            Err(_) => self.authority.clone(),
        };
        format!("Host: {host}\r\nUser-Agent: ringlane/{version}\r\nConnection: close\r\n")
    }

    fn exchange(&self, request: &str) -> Result<Answer, String> {
        let failed = |error| format!("http://{}: {}", self.authority, explained(&error));
        let deadline = Instant::now() + self.timeout;
        let exchange = || {
            let mut stream = self.connect(deadline)?;
            stream.set_write_timeout(Some(left_until(deadline)?))?;
            stream.write_all(request.as_bytes())?;
            read_all(stream, deadline)
        };
        let bytes = exchange().map_err(failed)?;
        parse(&bytes).ok_or_else(|| {
            let authority = &self.authority;
            format!("http://{authority}: the answer is not whole HTTP/1.1; {STRANGE}")
        })
    }

    fn connect(&self, deadline: Instant) -> io::Result<TcpStream> {
        let mut last = io::ErrorKind::AddrNotAvailable.into();
        for address in self.authority.to_socket_addrs()? {
            let timeout = left_until(deadline)?.min(CONNECT_TIMEOUT);
            match TcpStream::connect_timeout(&address, timeout) {
                Ok(stream) => return Ok(stream),
                Err(error) => last = error,
            }
        }
        Err(last)
    }
}

/// All that comes until the peer ends it.
fn read_all(mut stream: TcpStream, deadline: Instant) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut part = vec![0; READ_BYTES];
    while bytes.len() < ANSWER_BYTES_MAX {
        stream.set_read_timeout(Some(left_until(deadline)?))?;
        match stream.read(&mut part) {
            Ok(0) => break,
            Ok(read) => bytes.extend_from_slice(&part[..read]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(bytes)
}

/// Never zero, which would be no limit (socket(7)).
fn left_until(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    let late = || io::ErrorKind::TimedOut.into();
    Some(left).filter(|left| !left.is_zero()).ok_or_else(late)
}

/// The body of an answer that is a success; otherwise what it says went wrong.
fn accepted(Answer { status, body }: Answer) -> Result<String, String> {
    if status == 200 {
        return Ok(body);
    }
    let error = serde_json::from_str(&body)
        .ok()
        .and_then(|refusal: Value| Some(refusal.get("error")?.as_str()?.to_owned()));
    let error = error.unwrap_or_else(|| body.trim().to_owned());
    let error: String = error.chars().take(REFUSAL_MAX).collect();
    Err(format!("{} (status {status})", plain(&error)))
}

fn document(text: &str) -> Result<Value, String> {
    serde_json::from_str(text)
        .map_err(|error| format!("the answer is not JSON: {error}; {STRANGE}"))
}

/// Where a listener that listens on this address is reached from its own machine.
pub(super) fn reachable(mut address: SocketAddr) -> SocketAddr {
    use std::net::{Ipv4Addr, Ipv6Addr};
    if address.ip().is_unspecified() {
        address.set_ip(match address {
            SocketAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    address
}

fn explained(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => {
            "nobody listens there; is ringlane running, and is [admin] at this address?".to_owned()
        }
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => "no answer in time".to_owned(),
        _ => error.to_string(),
    }
}

/// An answer whose end is that of the connection. `None` when it is none, or is cut short.
fn parse(bytes: &[u8]) -> Option<Answer> {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut response = httparse::Response::new(&mut fields);
    let Ok(httparse::Status::Complete(head_bytes)) = response.parse(bytes) else {
        return None;
    };
    let body = &bytes[head_bytes..];
    let length = response
        .headers
        .iter()
        .find(|field| field.name.eq_ignore_ascii_case("content-length"));
    let whole = match length {
        Some(field) => str::from_utf8(field.value).ok()?.parse() == Ok(body.len()),
        None => true,
    };
    whole.then_some(())?;
    Some(Answer {
        status: response.code?,
        body: String::from_utf8_lossy(body).into_owned(),
    })
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::sync::mpsc;
    use std::thread;

    use super::*;

    #[test]
    fn addresses() {
        let cases = [
            ("127.0.0.1:9900", Some("127.0.0.1:9900")),
            ("http://localhost:9900/", Some("localhost:9900")),
            ("[::1]:9900", Some("[::1]:9900")),
            ("localhost", None),
            ("https://localhost:9900", None),
            ("u@localhost:9900", None),
            ("a:1\r\nX: y", None),
            ("", None),
        ];
        for (address, authority) in cases {
            let client = Client::new(address);
            assert_eq!(
                client.ok().map(|client| client.authority).as_deref(),
                authority,
                "{address:?}"
            );
        }
    }

    /// A byte now and then is no reason to wait for ever.
    #[test]
    fn the_whole_exchange_has_one_limit() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("bound").to_string();
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a client");
            while stream.write_all(b" ").is_ok() {
                thread::sleep(Duration::from_millis(100));
            }
        });
        let mut client = Client::new(&address).expect("an address");
        client.timeout = Duration::from_millis(500);
        let (sender, answer) = mpsc::channel();
        thread::spawn(move || sender.send(client.status()));
        let error = answer.recv_timeout(Duration::from_secs(30));
        let error = error.expect("an end").expect_err("no answer");
        assert!(error.ends_with("no answer in time"), "{error}");
    }

    #[test]
    fn answers_are_whole_or_none() {
        let cases = [
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi",
                Some((200, "hi")),
            ),
            ("HTTP/1.1 404 Not Found\r\n\r\nno", Some((404, "no"))),
            ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nhi", None),
            ("HTTP/1.1 200 OK\r\nContent-Le", None),
            ("SSH-2.0-OpenSSH\r\n", None),
            ("", None),
        ];
        for (bytes, expected) in cases {
            let expected = expected.map(|(status, body)| Answer {
                status,
                body: body.to_owned(),
            });
            assert_eq!(parse(bytes.as_bytes()), expected, "{bytes:?}");
        }
    }
}
