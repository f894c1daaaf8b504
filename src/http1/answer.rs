//! Answers of our own: what a client gets when no upstream's response can be passed on.

use std::cmp::Ordering;

use http::StatusCode;

use super::class::trim;
use super::field::{Field, Fields, Name, Span, list};
use super::forward::{write_field, write_number, write_status_line};

/// An answer of our own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// What went wrong, in a few words; free of quotes and backslashes.
    pub error: &'static str,
    /// One more field, such as Allow or Retry-After.
    pub field: Option<(&'static str, &'static str)>,
}

impl Answer {
    /// An answer without further fields.
    pub const fn new(status: u16, error: &'static str) -> Self {
        Self {
            status,
            error,
            field: None,
        }
    }

    /// Writes the whole message. A HEAD request gets the head alone (RFC 9110 section 9.3.2). Gives the body's bytes.
    pub fn write(self, form: Form, date: &[u8], out: &mut Vec<u8>) -> usize {
        let reason = StatusCode::from_u16(self.status)
            .ok()
            .and_then(|status| status.canonical_reason())
            .unwrap_or("");
        write_status_line(self.status, reason.as_bytes(), out);
        let (before, after, kind): (&str, &str, &[u8]) = if form.json {
            ("{\"error\":\"", "\"}\n", b"application/json")
        } else {
            ("", "\n", b"text/plain; charset=utf-8")
        };
        let length = before.len() + self.error.len() + after.len();
        write_field(b"Content-Type", kind, out);
        out.extend_from_slice(b"Content-Length: ");
        write_number(length as u64, out);
        out.extend_from_slice(b"\r\n");
        write_field(b"Date", date, out);
        if let Some((name, value)) = self.field {
            write_field(name.as_bytes(), value.as_bytes(), out);
        }
        match (form.persistent, form.minor) {
            (false, _) => write_field(b"Connection", b"close", out),
            (true, 0) => write_field(b"Connection", b"keep-alive", out),
            (true, _) => {}
        }
        out.extend_from_slice(b"\r\n");
        if form.to_head {
            return 0;
        }
        for part in [before, self.error, after] {
            out.extend_from_slice(part.as_bytes());
        }
        length
    }
}

/// What the form of an answer of ours depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Form {
    /// JSON, else text.
    pub json: bool,
    /// The request was HEAD.
    pub to_head: bool,
    /// The connection goes on.
    pub persistent: bool,
    /// The client's version: 0 or 1, of HTTP/1.
    pub minor: u8,
}

/// Whether a client is better served with JSON than with text, by its Accept fields (RFC 9110 section 12.5.1). JSON is for clients that
/// have no wish; text for those that wish for neither, and of equal wishes the one that stands first.
pub fn prefers_json(fields: &Fields, bytes: &[u8]) -> bool {
    let accepts = fields.named(Name::Accept);
    let ranges = accepts.flat_map(|field| list(field.value.of(bytes)));
    let (mut json, mut text) = (Wish::default(), Wish::default());
    let (mut none, mut other_text) = (true, false);
    for (place, range) in ranges.enumerate() {
        let mut parts = range.split(|&b| b == b';').map(trim);
        let kind = parts.next().unwrap_or_default();
        let weight = weight(parts);
        json.consider(kind, b"application/json", b"application/*", weight, place);
        text.consider(kind, b"text/plain", b"text/*", weight, place);
        other_text |= kind.len() > 5 && kind[..5].eq_ignore_ascii_case(b"text/");
        none = false;
    }
    match json.weight.cmp(&text.weight) {
        Ordering::Greater => true,
        Ordering::Less => false,
        Ordering::Equal if json.place == text.place => none || json.weight > 0 && !other_text,
        Ordering::Equal => json.place < text.place,
    }
}

/// Accept fields of a head that was refused that are looked at: memory may be short.
const ACCEPT_FIELDS_MAX: usize = 16;

/// The same for a head that is refused, be it unread or not come whole: by those of its lines that look like an Accept field.
#[cold]
pub fn prefers_json_unread(bytes: &[u8]) -> bool {
    let mut fields = Fields::default();
    let mut start = memchr::memchr(b'\n', bytes).map_or(bytes.len(), |end| end + 1);
    for line in bytes[start..].split_inclusive(|&b| b == b'\n') {
        let text = line.trim_ascii_end();
        if text.is_empty() || !line.ends_with(b"\n") || fields.len() == ACCEPT_FIELDS_MAX {
            break;
        }
        if let Some(colon) = memchr::memchr(b':', text)
            && Name::of(&text[..colon]) == Name::Accept
        {
            fields.push(Field {
                kind: Name::Accept,
                name: Span::new(start, start + colon),
                value: Span::new(start + colon + 1, start + text.len()),
                is_plain: false,
            });
        }
        start += line.len();
    }
    prefers_json(&fields, bytes)
}

/// How much a media type is wished for: what the most specific range says that covers it.
#[derive(Default)]
struct Wish {
    specificity: u8,
    /// Thousandths; 0 is not acceptable.
    weight: u32,
    /// Where in the list it stands.
    place: usize,
}

impl Wish {
    fn consider(&mut self, kind: &[u8], exact: &[u8], family: &[u8], weight: u32, place: usize) {
        let specificity = match kind {
            _ if kind.eq_ignore_ascii_case(exact) => 3,
            _ if kind.eq_ignore_ascii_case(family) => 2,
            b"*/*" => 1,
            _ => 0,
        };
        if specificity > self.specificity {
            *self = Self {
                specificity,
                weight,
                place,
            };
        }
    }
}

/// The `q` of a range in thousandths; 1000 where it has none, 0 where it is no number.
fn weight<'a>(mut parameters: impl Iterator<Item = &'a [u8]>) -> u32 {
    let Some(text) = parameters.find_map(|parameter| parameter.strip_prefix(b"q=")) else {
        return 1000;
    };
    let number = std::str::from_utf8(text)
        .ok()
        .and_then(|text| text.parse::<f32>().ok());
    number.map_or(0, |number| (number.clamp(0.0, 1.0) * 1000.0) as u32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http1::head::{Limits, RequestHead};

    fn written(json: bool, to_head: bool, persistent: bool, minor: u8) -> String {
        let mut out = Vec::new();
        let answer = Answer {
            status: 405,
            error: "no",
            field: Some(("Allow", "GET")),
        };
        let form = Form {
            json,
            to_head,
            persistent,
            minor,
        };
        answer.write(form, b"now", &mut out);
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn text_json_and_head() {
        let head = "HTTP/1.1 405 Method Not Allowed\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 3\r\n\
                    Date: now\r\nAllow: GET\r\n";
        assert_eq!(
            written(false, false, false, 1),
            format!("{head}Connection: close\r\n\r\nno\n")
        );
        assert_eq!(
            written(false, true, true, 0),
            format!("{head}Connection: keep-alive\r\n\r\n")
        );
        let json = written(true, false, true, 1);
        assert!(json.ends_with(
            "Content-Length: 15\r\nDate: now\r\nAllow: GET\r\n\r\n{\"error\":\"no\"}\n"
        ));
    }

    #[test]
    fn json_or_text() {
        let cases = [
            ("", true),
            ("Accept: */*\r\n", true),
            (
                "Accept: text/html,application/xhtml+xml,*/*;q=0.8\r\n",
                false,
            ),
            ("Accept: text/html, application/json;q=0.9\r\n", true),
            ("Accept: text/plain, application/json\r\n", false),
            ("Accept: application/json, text/plain\r\n", true),
            ("Accept: application/json;q=0.2, text/plain\r\n", false),
            (
                "Accept: text/plain;q=0.2, application/json ; q=0.3\r\n",
                true,
            ),
            ("Accept: application/json;q=0, text/html\r\n", false),
            ("Accept: application/problem+json, text/plain\r\n", false),
            ("Accept: APPLICATION/JSON;charset=utf-8\r\n", true),
            ("Accept: application/*\r\n", true),
            ("Accept: application/jsonx\r\n", false),
            ("Accept: application/json;q=0\r\n", false),
            ("Accept: text/*, */*\r\n", false),
            ("Accept: image/png\r\n", false),
        ];
        for (fields, json) in cases {
            let bytes = format!("GET / HTTP/1.1\r\n{fields}\r\n").into_bytes();
            let mut head = RequestHead::default();
            let limits = Limits {
                head_bytes: 999,
                fields: 9,
                target_bytes: 9,
            };
            head.parse(&bytes, &limits).expect("a valid head");
            assert_eq!(prefers_json(&head.fields, &bytes), json, "{fields}");
            assert_eq!(prefers_json_unread(&bytes), json, "{fields}");
        }
    }
}
