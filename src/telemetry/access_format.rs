//! Forms of an access log line, escaped so that no peer can end a line or a field.

use std::fmt;
use std::io::Write;
use std::time::SystemTime;

use super::access_log::Record;
use super::date::{Utc, unix_seconds};
use crate::config::AccessFormat;

/// The time of a line, formatted once a second.
pub(super) struct Stamp {
    seconds: u64,
    log: String,
    rfc3339: String,
}

impl Stamp {
    pub(super) fn new(now: SystemTime) -> Self {
        let seconds = unix_seconds(now);
        let date = Utc::from_unix_seconds(seconds);
        Self {
            seconds,
            log: date.log(),
            rfc3339: date.rfc3339(),
        }
    }

    pub(super) fn update(&mut self, now: SystemTime) {
        if unix_seconds(now) != self.seconds {
            *self = Self::new(now);
        }
    }
}

/// Appends a line with its line end.
pub(super) fn line(out: &mut Vec<u8>, format: AccessFormat, stamp: &Stamp, record: &Record<'_>) {
    match format {
        AccessFormat::Combined => combined(out, stamp, record),
        AccessFormat::Json => json(out, stamp, record),
    }
    out.push(b'\n');
}

/// A `Vec` takes all, so there is no error to pass on.
fn write(out: &mut Vec<u8>, text: fmt::Arguments<'_>) {
    let _ = out.write_fmt(text);
}

fn number(out: &mut Vec<u8>, n: u64) {
    out.extend_from_slice(itoa::Buffer::new().format(n).as_bytes());
}

fn client(out: &mut Vec<u8>, record: &Record<'_>) {
    write(out, format_args!("{}", record.client));
}

/// `client - - [time] "request" status bytes "referer" "user agent"`
fn combined(out: &mut Vec<u8>, stamp: &Stamp, record: &Record<'_>) {
    client(out, record);
    out.extend_from_slice(b" - - [");
    out.extend_from_slice(stamp.log.as_bytes());
    out.extend_from_slice(b"] \"");
    if record.target.is_empty() {
        out.push(b'-');
    } else {
        escape_hex(out, record.method);
        out.push(b' ');
        escape_hex(out, record.target);
        out.extend_from_slice(b" HTTP/1.");
        number(out, record.minor_version.into());
    }
    out.extend_from_slice(b"\" ");
    number(out, record.status.into());
    out.push(b' ');
    number(out, record.body_bytes_sent);
    out.extend_from_slice(b" \"");
    field_or_dash(out, record.referer);
    out.extend_from_slice(b"\" \"");
    field_or_dash(out, record.user_agent);
    out.push(b'"');
}

fn field_or_dash(out: &mut Vec<u8>, field: &[u8]) {
    escape_hex(out, if field.is_empty() { b"-" } else { field });
}

fn is_plain(byte: u8) -> bool {
    matches!(byte, b' '..=b'~') && byte != b'"' && byte != b'\\'
}

/// Looks at every byte even after a bad one, for then the compiler takes many at a time.
fn all_plain(bytes: &[u8]) -> bool {
    bytes
        .iter()
        .fold(true, |plain, byte| plain & is_plain(*byte))
}

/// Escapes as nginx does: `\xHH` for quotes, backslashes and all that is not printable ASCII.
fn escape_hex(out: &mut Vec<u8>, bytes: &[u8]) {
    if all_plain(bytes) {
        return out.extend_from_slice(bytes);
    }
    for byte in bytes {
        if is_plain(*byte) {
            out.push(*byte);
        } else {
            write(out, format_args!("\\x{byte:02X}"));
        }
    }
}

/// One flat object; an absent field is an empty string.
fn json(out: &mut Vec<u8>, stamp: &Stamp, record: &Record<'_>) {
    out.extend_from_slice(b"{\"time\":\"");
    out.extend_from_slice(stamp.rfc3339.as_bytes());
    out.extend_from_slice(b"\",\"client\":\"");
    client(out, record);
    out.push(b'"');
    json_text(out, ",\"method\":", record.method);
    json_text(out, ",\"host\":", record.host);
    json_text(out, ",\"target\":", record.target);
    out.extend_from_slice(b",\"protocol\":\"");
    if !record.target.is_empty() {
        out.extend_from_slice(b"HTTP/1.");
        number(out, record.minor_version.into());
    }
    out.push(b'"');
    json_number(out, ",\"status\":", record.status.into());
    json_number(out, ",\"body_bytes_sent\":", record.body_bytes_sent);
    json_text(out, ",\"referer\":", record.referer);
    json_text(out, ",\"user_agent\":", record.user_agent);
    json_text(out, ",\"upstream\":", record.upstream.as_bytes());
    json_text(out, ",\"server\":", record.server.as_bytes());
    json_number(out, ",\"duration_us\":", record.duration_us);
    json_number(out, ",\"upstream_us\":", record.upstream_us);
    json_number(out, ",\"retries\":", record.retries.into());
    out.extend_from_slice(if record.reused {
        b",\"reused\":true}"
    } else {
        b",\"reused\":false}"
    });
}

fn json_number(out: &mut Vec<u8>, key: &str, n: u64) {
    out.extend_from_slice(key.as_bytes());
    number(out, n);
}

fn json_text(out: &mut Vec<u8>, key: &str, bytes: &[u8]) {
    out.extend_from_slice(key.as_bytes());
    out.push(b'"');
    escape_json(out, bytes);
    out.push(b'"');
}

/// Escapes for a JSON string (RFC 8259 section 7).
///
/// UTF-8 stays as it is. A byte that is not UTF-8 becomes `\u00HH`, as if it were ISO 8859-1: the line stays valid JSON and
/// the byte can be read from it. Control characters of all kinds and the Unicode line separators are escaped too, for some
/// viewers end a line there.
fn escape_json(out: &mut Vec<u8>, bytes: &[u8]) {
    if all_plain(bytes) {
        return out.extend_from_slice(bytes);
    }
    for chunk in bytes.utf8_chunks() {
        for char in chunk.valid().chars() {
            match char {
                '"' | '\\' => out.extend_from_slice(&[b'\\', char as u8]),
                '\u{2028}' | '\u{2029}' => unicode_escape(out, char.into()),
                _ if char.is_control() => unicode_escape(out, char.into()),
                _ => out.extend_from_slice(char.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        chunk
            .invalid()
            .iter()
            .for_each(|byte| unicode_escape(out, (*byte).into()));
    }
}

fn unicode_escape(out: &mut Vec<u8>, code: u32) {
    write(out, format_args!("\\u{code:04x}"));
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn stamp() -> Stamp {
        Stamp::new(UNIX_EPOCH + Duration::from_secs(971_186_136))
    }

    fn record() -> Record<'static> {
        Record {
            client: "2001:db8::7".parse().expect("an address"),
            method: b"GET",
            target: b"/a?b=c",
            minor_version: 1,
            status: 206,
            body_bytes_sent: 1234,
            referer: b"http://example.com/",
            user_agent: b"curl/8.5.0",
            host: b"example.com",
            upstream: "app",
            server: "a",
            duration_us: 1500,
            upstream_us: 1200,
            retries: 1,
            reused: true,
        }
    }

    fn formatted(format: AccessFormat, record: &Record<'_>) -> String {
        let mut out = Vec::new();
        line(&mut out, format, &stamp(), record);
        String::from_utf8(out).expect("lines are UTF-8")
    }

    fn parsed(record: &Record<'_>) -> Value {
        let line = formatted(AccessFormat::Json, record);
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"))
    }

    #[test]
    fn a_combined_line() {
        assert_eq!(
            formatted(AccessFormat::Combined, &record()),
            "2001:db8::7 - - [10/Oct/2000:13:55:36 +0000] \"GET /a?b=c HTTP/1.1\" 206 1234 \"http://example.com/\" \"curl/8.5.0\"\n"
        );
        let unread = Record {
            target: b"",
            referer: b"",
            user_agent: b"",
            status: 400,
            ..record()
        };
        assert_eq!(
            formatted(AccessFormat::Combined, &unread),
            "2001:db8::7 - - [10/Oct/2000:13:55:36 +0000] \"-\" 400 1234 \"-\" \"-\"\n"
        );
    }

    #[test]
    fn a_json_line() {
        let expected = json!({
            "time": "2000-10-10T13:55:36Z", "client": "2001:db8::7", "method": "GET", "host": "example.com",
            "target": "/a?b=c", "protocol": "HTTP/1.1", "status": 206, "body_bytes_sent": 1234,
            "referer": "http://example.com/", "user_agent": "curl/8.5.0", "upstream": "app", "server": "a",
            "duration_us": 1500, "upstream_us": 1200, "retries": 1, "reused": true,
        });
        assert_eq!(parsed(&record()), expected);
        let unread = Record {
            target: b"",
            ..record()
        };
        assert_eq!(parsed(&unread)["protocol"], "");
        assert_eq!(parsed(&unread)["method"], "GET", "it may be known");
    }

    #[test]
    fn escapes() {
        let cases: [(&[u8], &str, &str); 7] = [
            (b"plain ~", "plain ~", "plain ~"),
            (b"a\"b\\c", r"a\x22b\x5Cc", r#"a\"b\\c"#),
            (
                b"\r\n\0\x1b",
                r"\x0D\x0A\x00\x1B",
                r"\u000d\u000a\u0000\u001b",
            ),
            (b"\x7f", r"\x7F", r"\u007f"),
            (
                "é€\u{85}\u{2028}".as_bytes(),
                r"\xC3\xA9\xE2\x82\xAC\xC2\x85\xE2\x80\xA8",
                r"é€\u0085\u2028",
            ),
            (
                b"a\xffb\xe2\x82",
                r"a\xFFb\xE2\x82",
                r"a\u00ffb\u00e2\u0082",
            ),
            (b"\xed\xa0\x80", r"\xED\xA0\x80", r"\u00ed\u00a0\u0080"),
        ];
        for (bytes, hex, json) in cases {
            let (mut in_hex, mut in_json) = (Vec::new(), Vec::new());
            escape_hex(&mut in_hex, bytes);
            escape_json(&mut in_json, bytes);
            assert_eq!(String::from_utf8_lossy(&in_hex), hex);
            assert_eq!(String::from_utf8_lossy(&in_json), json);
        }
    }

    #[test]
    fn the_time_changes_with_the_second() {
        let mut stamp = stamp();
        stamp.update(UNIX_EPOCH + Duration::from_millis(971_186_136_999));
        assert_eq!(stamp.rfc3339, "2000-10-10T13:55:36Z");
        stamp.update(UNIX_EPOCH + Duration::from_secs(971_186_137));
        assert_eq!(
            (stamp.rfc3339.as_str(), stamp.log.as_str()),
            ("2000-10-10T13:55:37Z", "10/Oct/2000:13:55:37 +0000")
        );
    }

    proptest! {
        #[test]
        fn no_bytes_break_a_line(bytes in prop::collection::vec(any::<u8>(), 1..40)) {
            let hostile = Record { method: &bytes, target: &bytes, referer: &bytes, user_agent: &bytes, host: &bytes, ..record() };
            let line = formatted(AccessFormat::Combined, &hostile);
            prop_assert_eq!(line.find('\n'), Some(line.len() - 1));
            prop_assert!(line.trim_end_matches('\n').bytes().all(|byte| matches!(byte, b' '..=b'~')));
            prop_assert_eq!(line.matches('"').count(), 6);

            let line = formatted(AccessFormat::Json, &hostile);
            prop_assert_eq!(line.find('\n'), Some(line.len() - 1));
            let value = parsed(&hostile);
            prop_assert_eq!(value.as_object().map(serde_json::Map::len), Some(16));
            if let Ok(text) = str::from_utf8(&bytes) {
                prop_assert_eq!(value["user_agent"].as_str(), Some(text));
            }
        }
    }
}
