//! One connection to the status listener, from request to close.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant, SystemTime};

use super::http::{self, Answer, Framing, HEAD_BYTES_MAX, Head, Request};

/// Bytes read and dropped after the answer.
const DISCARD_BYTES_MAX: usize = 64 * 1024;

/// What one client may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Connections at a time.
    pub(super) connections: usize,
    /// For the whole request head, and for the whole content.
    pub(super) head_timeout: Duration,
    /// For each write that makes progress.
    pub(super) write_timeout: Duration,
    /// For the whole answer.
    pub(super) answer_timeout: Duration,
    /// For the client to close after the answer.
    pub(super) close_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 64,
            head_timeout: Duration::from_secs(5),
            write_timeout: Duration::from_secs(5),
            answer_timeout: Duration::from_secs(30),
            close_timeout: Duration::from_secs(1),
        }
    }
}

/// What serves each connection.
pub(super) struct Server<H> {
    pub(super) handler: H,
    pub(super) limits: Limits,
    /// Only this machine can connect.
    pub(super) loopback: bool,
}

impl<H: Fn(&Request) -> Answer> Server<H> {
    /// One connection, from request to close. A client's failing is its own affair and not logged.
    pub(super) fn serve(&self, stream: &TcpStream) {
        let _ = stream.set_nodelay(true);
        let mut bytes = Vec::with_capacity(1024);
        let Ok(head) = self.read_head(stream, &mut bytes) else {
            return;
        };
        let head_only = http::is_head(&bytes);
        let answer = match head {
            Head::Request(mut request, framing) => {
                let Ok(content) = self.read_content(stream, bytes, framing) else {
                    return;
                };
                let answer = content.map(|content| {
                    request.content = content;
                    self.handle(&request)
                });
                answer.unwrap_or_else(|refusal| refusal)
            }
            Head::Refused(answer) => answer,
            Head::Partial => return,
        };
        if self
            .write(stream, &answer.to_bytes(head_only, SystemTime::now()))
            .is_ok()
        {
            self.close(stream);
        }
    }

    /// `Partial` when the client left before it had said anything.
    fn read_head(&self, mut stream: &TcpStream, bytes: &mut Vec<u8>) -> io::Result<Head> {
        let deadline = Instant::now() + self.limits.head_timeout;
        let mut part = [0; 4096];
        loop {
            let room = part.len().min(HEAD_BYTES_MAX - bytes.len());
            let read = match set_read_deadline(stream, deadline)
                .and_then(|()| stream.read(&mut part[..room]))
            {
                Ok(read) => read,
                Err(error) if is_timeout(&error) && !bytes.is_empty() => {
                    return Ok(Head::Refused(Answer::text(
                        408,
                        "the request head did not come in time\n",
                    )));
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            bytes.extend_from_slice(&part[..read]);
            match http::parse(bytes, self.loopback) {
                Head::Partial if read == 0 && bytes.is_empty() => return Ok(Head::Partial),
                Head::Partial if read == 0 => {
                    return Ok(Head::Refused(Answer::text(
                        400,
                        "the request head ended early\n",
                    )));
                }
                Head::Partial => {}
                head => return Ok(head),
            }
        }
    }

    /// The content of a request, of which `bytes` have come already, head included.
    fn read_content(
        &self,
        mut stream: &TcpStream,
        mut bytes: Vec<u8>,
        framing: Framing,
    ) -> io::Result<Result<Vec<u8>, Answer>> {
        let deadline = Instant::now() + self.limits.head_timeout;
        let end = framing.head_bytes + framing.content_bytes;
        if framing.expects_continue && bytes.len() < end {
            self.write(stream, b"HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        let mut part = [0; 4096];
        while bytes.len() < end {
            let room = part.len().min(end - bytes.len());
            let read =
                set_read_deadline(stream, deadline).and_then(|()| stream.read(&mut part[..room]));
            match read {
                Ok(0) => return Ok(Err(Answer::text(400, "the content ended early\n"))),
                Ok(read) => bytes.extend_from_slice(&part[..read]),
                Err(error) if is_timeout(&error) => {
                    return Ok(Err(Answer::text(408, "the content did not come in time\n")));
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Ok(bytes.drain(framing.head_bytes..end).collect()))
    }

    /// A panic here is a fault of ours; it costs this answer only.
    fn handle(&self, request: &Request) -> Answer {
        catch_unwind(AssertUnwindSafe(|| (self.handler)(request))).unwrap_or_else(|_| {
            tracing::error!(path = request.path, "admin: the handler panicked");
            Answer::text(500, "internal error; the log says more\n")
        })
    }

    fn write(&self, mut stream: &TcpStream, mut bytes: &[u8]) -> io::Result<()> {
        let deadline = Instant::now() + self.limits.answer_timeout;
        while !bytes.is_empty() {
            let left = remaining(deadline)?.min(self.limits.write_timeout);
            stream.set_write_timeout(Some(left))?;
            match stream.write(bytes) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => bytes = &bytes[written..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Closes in two steps (RFC 9112 section 9.6): bytes unread at close would reset the connection under the answer.
    fn close(&self, mut stream: &TcpStream) {
        let deadline = Instant::now() + self.limits.close_timeout;
        let mut discarded = 0;
        let mut part = [0; 4096];
        let _ = stream.shutdown(Shutdown::Write);
        while discarded < DISCARD_BYTES_MAX {
            match set_read_deadline(stream, deadline).and_then(|()| stream.read(&mut part)) {
                Ok(0) | Err(_) => return,
                Ok(read) => discarded += read,
            }
        }
    }
}

fn remaining(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        Err(io::ErrorKind::TimedOut.into())
    } else {
        Ok(left)
    }
}

fn set_read_deadline(stream: &TcpStream, deadline: Instant) -> io::Result<()> {
    stream.set_read_timeout(Some(remaining(deadline)?))
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock
    )
}
