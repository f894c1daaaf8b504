//! The response to a probe, read by the rules of [`http1`](crate::http1): what would give a client 502 for being malformed is no healthy answer.

use http::Method;

use super::Cause;
use crate::http1::body::{Coding, Reader};
use crate::http1::framing::{self, Framing};
use crate::http1::head::{INTERIMS_MAX, Limits, Progress, ResponseHead};

/// Of a head or trailer section.
const LIMITS: Limits = Limits {
    head_bytes: 32 * 1024,
    fields: 128,
    target_bytes: 0,
};

/// The heads of a response: that of the final one behind those of interim ones.
#[derive(Debug)]
pub struct Heads {
    to_head: bool,
    head: ResponseHead,
    interims: u32,
    received: Vec<u8>,
}

/// A final response, up to its content.
#[derive(Debug, PartialEq, Eq)]
pub struct Final {
    /// 200 to 999.
    pub status: u16,
    /// How its content ends.
    pub framing: Framing,
    /// What has come behind the head.
    pub behind: Vec<u8>,
}

impl Heads {
    /// Those of the response to a request with this method.
    pub fn new(method: &Method) -> Self {
        Self {
            to_head: *method == Method::HEAD,
            head: ResponseHead::default(),
            interims: 0,
            received: Vec::new(),
        }
    }

    /// Takes in the bytes that came next. The final response is given once, when its head is complete; nothing can be taken in after it
    /// or after an error, which is [`Cause::NotHttp`].
    pub fn receive(&mut self, bytes: &[u8]) -> Result<Option<Final>, Cause> {
        self.received.extend_from_slice(bytes);
        while let Progress::Complete(length) = self.parse()? {
            let behind = self.received.split_off(length);
            let status = self.head.status;
            if status >= 200 {
                return Ok(Some(Final {
                    status,
                    framing: framing::response(&self.head, &self.received, self.to_head)
                        .map_err(|_| Cause::NotHttp)?,
                    behind,
                }));
            }
            self.interims += 1;
            if status == 101 || self.interims > INTERIMS_MAX {
                return Err(Cause::NotHttp);
            }
            self.head.clear();
            self.received = behind;
        }
        Ok(None)
    }

    fn parse(&mut self) -> Result<Progress, Cause> {
        let progress = self.head.parse(&self.received, &LIMITS);
        progress.map_err(|_| Cause::NotHttp)
    }
}

/// The content of a response, as it comes.
#[derive(Debug)]
pub struct Content {
    body: Reader,
    bytes: Vec<u8>,
    bytes_max: usize,
}

impl Content {
    /// Content that ends by this framing, of which the first `bytes_max` bytes count.
    pub fn new(framing: Framing, bytes_max: usize) -> Self {
        Self {
            body: Reader::new(framing),
            bytes: Vec::new(),
            bytes_max,
        }
    }

    /// Takes in the bytes that came next. An error is [`Cause::NotHttp`]: content before it counts, and nothing can be taken in
    /// after it.
    pub fn receive(&mut self, received: &[u8]) -> Result<(), Cause> {
        let bytes = &mut self.bytes;
        let moved = self
            .body
            .transfer(received, Coding::Identity, &LIMITS, bytes);
        bytes.truncate(self.bytes_max);
        moved.map(drop).map_err(|_| Cause::NotHttp)
    }

    /// Those that count of what has come, transfer coding taken off.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Whether no more of them will come.
    pub fn is_over(&self) -> bool {
        self.body.ended() || self.bytes.len() >= self.bytes_max
    }

    /// Whether it is complete when the connection ends.
    pub const fn ends_with_connection(&self) -> bool {
        matches!(self.body, Reader::UntilClose)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OK: &str = "HTTP/1.1 200 OK\r\n";

    /// Status, content and whether it is over, for the same bytes in one piece and one by one.
    fn read(method: &Method, bytes: &str) -> Result<(u16, String, bool), Cause> {
        let in_pieces = |size: usize| {
            let mut pieces = bytes.as_bytes().chunks(size);
            let mut heads = Heads::new(method);
            let response = loop {
                let piece = pieces.next().expect("a final response");
                if let Some(response) = heads.receive(piece)? {
                    break response;
                }
            };
            let mut content = Content::new(response.framing, 8);
            content.receive(&response.behind)?;
            for piece in pieces {
                content.receive(piece)?;
            }
            let text = String::from_utf8_lossy(content.bytes()).into_owned();
            Ok((response.status, text, content.is_over()))
        };
        let whole = in_pieces(bytes.len());
        assert_eq!(in_pieces(1), whole, "{}", bytes.escape_debug());
        whole
    }

    #[test]
    fn content_ends_as_the_head_says() {
        let cases = [
            ("\r\nabc", Ok(("abc", false))),
            ("\r\nabcdefghi", Ok(("abcdefgh", true))),
            ("Content-Length: 3\r\n\r\nab", Ok(("ab", false))),
            ("Content-Length: 3\r\n\r\nabcd", Ok(("abc", true))),
            ("Content-Length: -1\r\n\r\n", Err(Cause::NotHttp)),
            (
                "Transfer-Encoding: Chunked\r\n\r\n2;x=y\r\nab\r\n1\r\nc",
                Ok(("abc", false)),
            ),
            (
                "Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nX: y\r\n\r\nb",
                Ok(("a", true)),
            ),
            (
                "Transfer-Encoding: chunked\r\n\r\n1\r\nab",
                Err(Cause::NotHttp),
            ),
            (
                "Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n",
                Err(Cause::NotHttp),
            ),
        ];
        for (rest, expected) in cases {
            let expected = expected.map(|(content, over)| (200, content.to_owned(), over));
            let found = read(&Method::GET, &format!("{OK}{rest}"));
            assert_eq!(found, expected, "{}", rest.escape_debug());
        }
    }

    #[test]
    fn some_responses_have_no_content() {
        let cases = [
            (Method::HEAD, "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n"),
            (Method::GET, "HTTP/1.1 204 No Content\r\n\r\n"),
            (
                Method::GET,
                "HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n",
            ),
        ];
        for (method, bytes) in cases {
            let (_, content, over) = read(&method, bytes).expect("well-formed");
            assert!(content.is_empty() && over, "{bytes}");
        }
    }

    #[test]
    fn interim_responses_are_passed_over_within_the_limit() {
        let interim = "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n";
        let response = format!("{OK}\r\nab");
        let times = |n| read(&Method::GET, &format!("{}{response}", interim.repeat(n)));
        assert_eq!(times(0), Ok((200, "ab".into(), false)));
        assert_eq!(times(64), times(0));
        assert_eq!(times(65), Err(Cause::NotHttp));
        let switching = format!("HTTP/1.1 101 Switching Protocols\r\n\r\n{response}");
        assert_eq!(read(&Method::GET, &switching), Err(Cause::NotHttp));
    }
}
