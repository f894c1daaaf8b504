//! Answers of our own: what a client gets when no upstream's response can be passed on.

use http::StatusCode;

use super::field::{Field, Name};
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

    /// Writes the whole message. A HEAD request gets the head alone (RFC 9110 section 9.3.2).
    pub fn write(
        self,
        json: bool,
        to_head: bool,
        connection: &[u8],
        date: &[u8],
        out: &mut Vec<u8>,
    ) {
        let reason = StatusCode::from_u16(self.status)
            .ok()
            .and_then(|status| status.canonical_reason())
            .unwrap_or("");
        write_status_line(self.status, reason.as_bytes(), out);
        let (before, after, kind): (&str, &str, &[u8]) = if json {
            ("{\"error\":\"", "\"}\n", b"application/json")
        } else {
            ("", "\n", b"text/plain; charset=utf-8")
        };
        write_field(b"Content-Type", kind, out);
        out.extend_from_slice(b"Content-Length: ");
        write_number((before.len() + self.error.len() + after.len()) as u64, out);
        out.extend_from_slice(b"\r\n");
        write_field(b"Date", date, out);
        if let Some((name, value)) = self.field {
            write_field(name.as_bytes(), value.as_bytes(), out);
        }
        if !connection.is_empty() {
            write_field(b"Connection", connection, out);
        }
        out.extend_from_slice(b"\r\n");
        if !to_head {
            for part in [before, self.error, after] {
                out.extend_from_slice(part.as_bytes());
            }
        }
    }
}

/// Whether a client is better served with JSON than with text: unless its Accept fields name a text type first.
pub fn prefers_json(fields: &[Field], bytes: &[u8]) -> bool {
    fields
        .iter()
        .filter(|field| field.kind == Name::Accept)
        .map(|field| field.value.of(bytes))
        .find_map(|value| {
            match (
                memchr::memmem::find(value, b"json"),
                memchr::memmem::find(value, b"text/"),
            ) {
                (None, None) => None,
                (json, text) => Some(json.unwrap_or(usize::MAX) < text.unwrap_or(usize::MAX)),
            }
        })
        .unwrap_or(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(json: bool, to_head: bool, connection: &[u8]) -> String {
        let mut out = Vec::new();
        Answer {
            status: 405,
            error: "no",
            field: Some(("Allow", "GET")),
        }
        .write(json, to_head, connection, b"now", &mut out);
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn text_json_and_head() {
        let head = "HTTP/1.1 405 Method Not Allowed\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 3\r\nDate: now\r\nAllow: GET\r\n";
        assert_eq!(
            written(false, false, b"close"),
            format!("{head}Connection: close\r\n\r\nno\n")
        );
        assert_eq!(written(false, true, b""), format!("{head}\r\n"));
        assert!(written(true, false, b"").ends_with(
            "Content-Length: 15\r\nDate: now\r\nAllow: GET\r\n\r\n{\"error\":\"no\"}\n"
        ));
    }
}
