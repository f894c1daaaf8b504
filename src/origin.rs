//! A small HTTP/1.1 origin for the demo, the benches and the comparison.
//!
//! One thread serves all its connections. Answers are built before they are asked for where possible, so that the origin costs
//! little beside the proxy in front of it. It reads requests well enough to keep a connection in step (pipelining, both body
//! framings) and is no web server: it does not belong on a public address.
//!
//! | path | answer |
//! |---|---|
//! | `/bytes/N` | N bytes with Content-Length, at most 100 GiB |
//! | `/chunked/N` | N bytes, chunked |
//! | `/slow/MS` | the usual text after MS milliseconds, at most ten minutes |
//! | `/status/CODE` | an answer with that status, 200 to 599 |
//! | `/echo` | the request's body, as it comes, in the framing it came in |
//! | `/headers` | the request's head as it arrived, as text |
//! | `/events` | server-sent events, one a second, without end |
//! | `/health` | 200 |
//! | any other | `hello from NAME` |

mod answer;
mod request;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use monoio::buf::IoBuf;
use monoio::io::AsyncWriteRentExt;
use monoio::net::TcpStream;

use crate::runtime;
use answer::{Answers, BINARY, BLOCK, BLOCK_BYTES, EVENTS, Length, TEXT};
use request::{Body, Input, Request, Route};

/// Bytes of one chunk, at most.
const CHUNK_BYTES: u64 = 64 * 1024;
/// Between two server-sent events.
const EVENT_INTERVAL: Duration = Duration::from_secs(1);

/// Starts an origin called `name` on a thread of its own, on `cpu` if given. Returns the address it listens on, so port 0 works.
pub fn spawn(addr: SocketAddr, name: String, cpu: Option<usize>) -> io::Result<SocketAddr> {
    let addresses = spawn_all(vec![(addr, name)], cpu)?;
    Ok(addresses[0])
}

/// Starts several origins, each with its address and name, on one thread.
pub fn spawn_all(
    origins: Vec<(SocketAddr, String)>,
    cpu: Option<usize>,
) -> io::Result<Vec<SocketAddr>> {
    let bound = origins
        .into_iter()
        .map(|(address, name)| Ok((runtime::listen(address)?, name)))
        .collect::<io::Result<Vec<(TcpListener, String)>>>()?;
    let addresses = bound
        .iter()
        .map(|(listener, _)| listener.local_addr())
        .collect::<io::Result<Vec<_>>>()?;
    runtime::start("origin", cpu, move || serve_all(bound))?;
    Ok(addresses)
}

/// Serves every listener, for ever.
async fn serve_all(bound: Vec<(TcpListener, String)>) {
    for (listener, name) in bound {
        let answers = Rc::new(Answers::new(&name));
        let accepting = runtime::accept(listener, move |stream| serve(stream, answers.clone()));
        if let Err(error) = accepting {
            tracing::error!(origin = name, %error, "the sample origin cannot accept connections");
        }
    }
    std::future::pending::<()>().await;
}

/// Serves one connection until either side ends it. What goes wrong on it is the client's business, and it sees the end.
async fn serve(stream: TcpStream, answers: Rc<Answers>) {
    let mut client = Client {
        stream,
        input: Input::new(),
    };
    while let Ok(true) = client.exchange(&answers).await {}
}

/// A connection: its socket and what has been read from it.
struct Client {
    stream: TcpStream,
    input: Input,
}

impl Client {
    /// One request and its answer. `false`: the connection has served its last.
    async fn exchange(&mut self, answers: &Answers) -> io::Result<bool> {
        let mut request = loop {
            match Request::parse(self.input.unread()) {
                Ok(Some(request)) => break request,
                Ok(None) if self.input.fill(&mut self.stream).await? == 0 => return Ok(false),
                Ok(None) => {}
                Err(status) => {
                    let refused = Request {
                        head_only: self.input.unread().trim_ascii_start().starts_with(b"HEAD "),
                        keep_alive: false,
                        ..Request::plain()
                    };
                    self.write(answer::status(status, &refused)).await?;
                    return Ok(false);
                }
            }
        };
        if request.expects_continue {
            self.write(&b"HTTP/1.1 100 Continue\r\n\r\n"[..]).await?;
        }
        match request.route {
            Route::Headers => self.headers(&mut request).await?,
            Route::Echo => self.echo(&mut request).await?,
            _ => self.answer(&mut request, answers).await?,
        }
        Ok(request.keep_alive)
    }

    /// An answer that does not depend on what was sent: reads the body, if any, to its end first.
    async fn answer(&mut self, request: &mut Request, answers: &Answers) -> io::Result<()> {
        self.input.consume(request.head_bytes);
        self.skip_body(request).await?;
        match request.route {
            Route::Status(status) => self.write(answer::status(status, request)).await,
            Route::Bytes(length) if length <= BLOCK_BYTES => {
                self.write(answers.bytes(length, request)).await
            }
            Route::Bytes(length) => self.bytes(length, request).await,
            Route::Chunked(length) => self.chunked(length, request).await,
            Route::Events => self.events(request).await,
            Route::Slow(delay) => {
                monoio::time::sleep(delay).await;
                self.write(answers.text(request)).await
            }
            Route::Text | Route::Headers | Route::Echo => self.write(answers.text(request)).await,
        }
    }

    /// The request's head as a text.
    async fn headers(&mut self, request: &mut Request) -> io::Result<()> {
        let head = &self.input.unread()[..request.head_bytes];
        let page = answer::page(StatusCode::OK, TEXT, head, request);
        self.input.consume(request.head_bytes);
        self.skip_body(request).await?;
        self.write(page).await
    }

    /// The request's body, piece by piece as it comes, in its own framing. The head leaves with the first piece.
    async fn echo(&mut self, request: &mut Request) -> io::Result<()> {
        self.input.consume(request.head_bytes);
        let length = match request.body {
            Body::Length(length) => Length::Known(length),
            Body::Chunked(_) => Length::Unknown,
        };
        let chunked = matches!(length, Length::Unknown) && request.knows_chunked;
        let mut out = answer::head(StatusCode::OK, BINARY, length, request);
        if request.head_only {
            self.skip_body(request).await?;
            return self.write(out).await;
        }
        while let Some(length) = request
            .body
            .ready(&mut self.input, &mut self.stream)
            .await?
        {
            answer::push_piece(&mut out, &self.input.unread()[..length], chunked);
            request.body.used(&mut self.input, length);
            out = self.flush(out).await?;
        }
        answer::push_end(&mut out, chunked);
        self.write(out).await
    }

    /// A body of more than one block.
    async fn bytes(&mut self, length: u64, request: &Request) -> io::Result<()> {
        let head = answer::head(StatusCode::OK, BINARY, Length::Known(length), request);
        self.write(head).await?;
        let mut left = if request.head_only { 0 } else { length };
        while left > 0 {
            let piece = left.min(BLOCK_BYTES);
            self.write(Bytes::slice(&BLOCK, ..piece as usize)).await?;
            left -= piece;
        }
        Ok(())
    }

    /// A body in chunks of at most [`CHUNK_BYTES`]; a short one leaves with its head.
    async fn chunked(&mut self, length: u64, request: &Request) -> io::Result<()> {
        let mut out = answer::head(StatusCode::OK, BINARY, Length::Unknown, request);
        if request.head_only {
            return self.write(out).await;
        }
        let mut left = length;
        while left > 0 {
            let piece = left.min(CHUNK_BYTES);
            answer::push_piece(&mut out, &BLOCK[..piece as usize], request.knows_chunked);
            left -= piece;
            if left > 0 {
                out = self.flush(out).await?;
            }
        }
        answer::push_end(&mut out, request.knows_chunked);
        self.write(out).await
    }

    /// Server-sent events, one a second, until the client goes.
    async fn events(&mut self, request: &Request) -> io::Result<()> {
        let mut out = answer::head(StatusCode::OK, EVENTS, Length::Unknown, request);
        if request.head_only {
            return self.write(out).await;
        }
        for number in 1_u64.. {
            let event = format!("id: {number}\ndata: event {number}\n\n");
            answer::push_piece(&mut out, event.as_bytes(), request.knows_chunked);
            out = self.flush(out).await?;
            monoio::time::sleep(EVENT_INTERVAL).await;
        }
        Ok(())
    }

    /// Reads the body to its end.
    async fn skip_body(&mut self, request: &mut Request) -> io::Result<()> {
        while let Some(length) = request
            .body
            .ready(&mut self.input, &mut self.stream)
            .await?
        {
            request.body.used(&mut self.input, length);
        }
        Ok(())
    }

    /// Sends all of it.
    async fn write<T: IoBuf>(&mut self, out: T) -> io::Result<()> {
        self.stream.write_all(out).await.0.map(drop)
    }

    /// Sends all of it and hands the buffer back empty.
    async fn flush(&mut self, out: Vec<u8>) -> io::Result<Vec<u8>> {
        let (written, mut out) = self.stream.write_all(out).await;
        out.clear();
        written.map(|_| out)
    }
}
