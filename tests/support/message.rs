//! A strict reader of HTTP/1 messages (RFC 9112), made for tests: it takes only what a well-behaved sender may send.

use super::{End, Wire};

/// Names and values, in order.
pub(crate) type Fields = Vec<(String, String)>;

/// How a message's body was delimited (RFC 9112 section 6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    /// There is no body.
    None,
    Length(u64),
    Chunked,
    /// The end of the connection.
    Close,
}

/// Start line and fields. Bytes above 0x7f appear as the characters of the same number.
#[derive(Clone, Debug)]
pub(crate) struct Head {
    pub(crate) start: String,
    pub(crate) fields: Fields,
}

#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) version: String,
    pub(crate) head: Head,
    pub(crate) framing: Framing,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: Fields,
}

#[derive(Clone, Debug)]
pub(crate) struct Response {
    pub(crate) version: String,
    pub(crate) status: u16,
    pub(crate) head: Head,
    pub(crate) framing: Framing,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: Fields,
}

/// A response with this status, the last on its connection.
pub(crate) fn last(status: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}")
        .into()
}

/// A plain response with this body.
pub(crate) fn ok(body: &str) -> Vec<u8> {
    format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// The values of all fields of this name, in order.
pub(crate) fn field_values<'a>(fields: &'a [(String, String)], name: &str) -> Vec<&'a str> {
    fields
        .iter()
        .filter(|(each, _)| each.eq_ignore_ascii_case(name))
        .map(|(_, value)| value.as_str())
        .collect()
}

impl Head {
    pub(crate) fn values(&self, name: &str) -> Vec<&str> {
        field_values(&self.fields, name)
    }

    /// The value of the only field of this name; `None` where there is none.
    #[track_caller]
    pub(crate) fn value(&self, name: &str) -> Option<&str> {
        let values = self.values(name);
        assert!(values.len() <= 1, "several fields {name}: {values:?}");
        values.first().copied()
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        !self.values(name).is_empty()
    }

    /// Whether a list-valued field holds this member, in any case of letters.
    pub(crate) fn lists(&self, name: &str, member: &str) -> bool {
        self.values(name)
            .iter()
            .flat_map(|value| value.split(','))
            .any(|each| each.trim().eq_ignore_ascii_case(member))
    }

    fn read(wire: &mut Wire) -> Result<Self, String> {
        let bytes = wire.take_until(b"\r\n\r\n")?;
        let mut lines = lines(&bytes[..bytes.len() - 4])?.into_iter();
        let start = lines.next().unwrap_or_default();
        Ok(Self {
            start,
            fields: lines.map(|line| field(&line)).collect::<Result<_, _>>()?,
        })
    }

    /// RFC 9112 section 6.3, without its tolerance.
    fn declared(&self) -> Result<Option<Framing>, String> {
        match (
            self.values("transfer-encoding").as_slice(),
            self.values("content-length").as_slice(),
        ) {
            ([], []) => Ok(None),
            ([coding], []) if coding.eq_ignore_ascii_case("chunked") => Ok(Some(Framing::Chunked)),
            ([], [length]) if length.bytes().all(|byte| byte.is_ascii_digit()) => length
                .parse()
                .map(|length| Some(Framing::Length(length)))
                .map_err(|error| format!("length {length:?}: {error}")),
            (codings, lengths) => Err(format!(
                "ambiguous framing: Transfer-Encoding {codings:?}, Content-Length {lengths:?}"
            )),
        }
    }
}

fn lines(bytes: &[u8]) -> Result<Vec<String>, String> {
    let text: String = bytes.iter().map(|byte| char::from(*byte)).collect();
    let lines: Vec<String> = text.split("\r\n").map(str::to_owned).collect();
    match lines.iter().find(|line| line.contains(['\r', '\n', '\0'])) {
        None => Ok(lines),
        Some(line) => Err(format!("CR, LF or NUL inside a line: {line:?}")),
    }
}

fn is_token(text: &str) -> bool {
    !text.is_empty()
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

fn field(line: &str) -> Result<(String, String), String> {
    let (name, value) = line
        .split_once(':')
        .ok_or_else(|| format!("a field without a colon: {line:?}"))?;
    if !is_token(name)
        || value
            .chars()
            .any(|each| each.is_ascii_control() && each != '\t')
    {
        return Err(format!("not a field: {line:?}"));
    }
    Ok((name.to_owned(), value.trim_matches([' ', '\t']).to_owned()))
}

/// A chunked body (RFC 9112 section 7.1) without extensions: the proxy drops them. Returns content and trailers.
fn chunked(wire: &mut Wire) -> Result<(Vec<u8>, Fields), String> {
    let mut content = Vec::new();
    loop {
        let size = chunk_size(wire)?;
        if size == 0 {
            return Ok((content, trailers(wire)?));
        }
        content.extend(wire.take(size)?);
        if wire.take(2)? != b"\r\n" {
            return Err(format!("no CRLF after a chunk of {size} bytes"));
        }
    }
}

fn chunk_size(wire: &mut Wire) -> Result<usize, String> {
    let line = wire.take_until(b"\r\n")?;
    let digits = String::from_utf8_lossy(&line[..line.len() - 2]).into_owned();
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(format!("not a chunk size: {digits:?}"));
    }
    usize::from_str_radix(&digits, 16).map_err(|error| format!("chunk size {digits:?}: {error}"))
}

fn trailers(wire: &mut Wire) -> Result<Fields, String> {
    let mut fields = Vec::new();
    loop {
        let line = wire.take_until(b"\r\n")?;
        if line == b"\r\n" {
            return Ok(fields);
        }
        fields.push(field(&lines(&line[..line.len() - 2])?[0])?);
    }
}

fn body(wire: &mut Wire, framing: Framing) -> Result<(Vec<u8>, Fields), String> {
    match framing {
        Framing::None => Ok((Vec::new(), Vec::new())),
        Framing::Length(length) => Ok((wire.take(length as usize)?, Vec::new())),
        Framing::Chunked => chunked(wire),
        Framing::Close => match wire.read_to_end() {
            (body, End::Close) => Ok((body, Vec::new())),
            (body, End::Reset) => Err(format!("reset after {} bytes of a body", body.len())),
        },
    }
}

impl Request {
    /// Reads a head and stops there.
    pub(crate) fn read_head(wire: &mut Wire) -> Result<Self, String> {
        let head = Head::read(wire)?;
        let parts: Vec<&str> = head.start.split(' ').collect();
        let [method, target, version @ ("HTTP/1.1" | "HTTP/1.0")] = parts[..] else {
            return Err(format!("not a request line: {:?}", head.start));
        };
        if !is_token(method)
            || target.is_empty()
            || target.bytes().any(|byte| byte.is_ascii_control())
        {
            return Err(format!("not a request line: {:?}", head.start));
        }
        if head.values("host").len() != 1 {
            return Err(format!("not one Host field: {:?}", head.fields));
        }
        Ok(Self {
            method: method.to_owned(),
            target: target.to_owned(),
            version: version.to_owned(),
            framing: head.declared()?.unwrap_or(Framing::None),
            head,
            body: Vec::new(),
            trailers: Vec::new(),
        })
    }

    pub(crate) fn read_body(&mut self, wire: &mut Wire) -> Result<(), String> {
        (self.body, self.trailers) = body(wire, self.framing)?;
        Ok(())
    }

    pub(crate) fn read(wire: &mut Wire) -> Result<Self, String> {
        let mut request = Self::read_head(wire)?;
        request.read_body(wire)?;
        Ok(request)
    }
}

impl Response {
    /// Reads a head and stops there. `method` is the request's: it decides whether a body follows.
    pub(crate) fn read_head(wire: &mut Wire, method: &str) -> Result<Self, String> {
        let head = Head::read(wire)?;
        let (version, status) = status_line(&head.start)?;
        let declared = head.declared()?;
        let bare = status < 200 || status == 204;
        if bare && declared.is_some() {
            return Err(format!("{status} with framing fields: {:?}", head.fields));
        }
        let framing = if bare || status == 304 || method == "HEAD" {
            Framing::None
        } else {
            declared.unwrap_or(Framing::Close)
        };
        Ok(Self {
            version,
            status,
            head,
            framing,
            body: Vec::new(),
            trailers: Vec::new(),
        })
    }

    pub(crate) fn read_body(&mut self, wire: &mut Wire) -> Result<(), String> {
        (self.body, self.trailers) = body(wire, self.framing)?;
        Ok(())
    }

    pub(crate) fn read(wire: &mut Wire, method: &str) -> Result<Self, String> {
        let mut response = Self::read_head(wire, method)?;
        response.read_body(wire)?;
        Ok(response)
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// RFC 9112 section 4: the space before an empty reason phrase is not optional.
fn status_line(line: &str) -> Result<(String, u16), String> {
    let mut parts = line.splitn(3, ' ');
    match (parts.next(), parts.next(), parts.next()) {
        (Some(version @ ("HTTP/1.1" | "HTTP/1.0")), Some(status), Some(_)) if status.len() == 3 => {
            let status: u16 = status
                .parse()
                .map_err(|error| format!("status {status:?}: {error}"))?;
            Ok((version.to_owned(), status))
        }
        _ => Err(format!("not a status line: {line:?}")),
    }
}

impl Wire {
    /// Reads a whole request, as an origin does.
    #[track_caller]
    pub(crate) fn request(&mut self) -> Request {
        Request::read(self).unwrap_or_else(|error| panic!("request: {error}"))
    }

    #[track_caller]
    pub(crate) fn request_head(&mut self) -> Request {
        Request::read_head(self).unwrap_or_else(|error| panic!("request: {error}"))
    }

    /// Reads a whole response to a request with this method, as a client does; an interim response counts as one.
    #[track_caller]
    pub(crate) fn response(&mut self, method: &str) -> Response {
        Response::read(self, method).unwrap_or_else(|error| panic!("response: {error}"))
    }

    #[track_caller]
    pub(crate) fn response_head(&mut self, method: &str) -> Response {
        Response::read_head(self, method).unwrap_or_else(|error| panic!("response: {error}"))
    }

    /// Sends a GET and reads the answer.
    #[track_caller]
    pub(crate) fn get(&mut self, target: &str) -> Response {
        self.send(format!("GET {target} HTTP/1.1\r\nHost: a.example\r\n\r\n"));
        self.response("GET")
    }
}
