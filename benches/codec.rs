//! The codec by size of input: ours, monoio-http's, and httparse as the floor of careful parsing.
//!
//! monoio-http's decoders take their input out of a buffer, so each round gets a buffer that was filled outside of the measured time. They
//! are called directly: the runtime, the reads and the channel between head and body that a user of it pays for are left out.
//! Ours reads the framing fields as well.

#![allow(missing_docs)] // criterion_group makes a public function

use std::hint::black_box;
use std::mem::MaybeUninit;

use bytes::BytesMut;
use criterion::measurement::WallTime;
use criterion::{
    BatchSize, BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main,
};
use monoio_codec::{Decoded, Decoder as _};
use monoio_http::h1::codec::decoder::{
    ChunkedBodyDecoder, RequestHeadDecoder, ResponseHeadDecoder,
};
use ringlane::http1::chunked::{Decoder, write_size};
use ringlane::http1::framing;
use ringlane::http1::head::{Limits, Progress, RequestHead, ResponseHead};

const LIMITS: Limits = Limits {
    head_bytes: 32 * 1024,
    fields: 128,
    target_bytes: 8 * 1024,
};
/// What monoio-http allows; httparse gets as many.
const FIELDS_MAX: usize = 96;

/// What wrk sends.
const SMALL_REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: 127.0.0.1:8080\r\n\r\n";

/// What a browser sends for a page.
const BROWSER_REQUEST: &[u8] = b"GET /products/1234?colour=red&size=m HTTP/1.1\r\n\
    Host: www.example.com\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0\r\n\
    Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\n\
    Accept-Language: en-GB,en;q=0.5\r\n\
    Accept-Encoding: gzip, deflate, br, zstd\r\n\
    Referer: https://www.example.com/products\r\n\
    Connection: keep-alive\r\n\
    Cookie: session=6f1e0c0f5f3c4a0e9d4a8a1f; consent=necessary%2Cstatistics; theme=dark\r\n\
    Upgrade-Insecure-Requests: 1\r\n\
    Sec-Fetch-Dest: document\r\n\
    Sec-Fetch-Mode: navigate\r\n\
    Sec-Fetch-Site: same-origin\r\n\
    Priority: u=0, i\r\n\r\n";

const SMALL_RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 13\r\n\r\n";

/// `start` and `count` fields, the first of which are given.
fn head(start: &str, first: &[&str], count: usize) -> Vec<u8> {
    let rest = (first.len()..count)
        .map(|number| format!("X-Application-Field-{number}: the value of field number {number}"));
    let mut lines = vec![start.to_owned()];
    lines.extend(first.iter().map(|&field| field.to_owned()));
    lines.extend(rest);
    (lines.join("\r\n") + "\r\n\r\n").into_bytes()
}

fn chunked(chunk_bytes: usize, chunks: usize) -> Vec<u8> {
    let mut body = Vec::new();
    for _ in 0..chunks {
        write_size(chunk_bytes, &mut body);
        body.resize(body.len() + chunk_bytes, b'x');
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(b"0\r\n\r\n");
    body
}

/// Times `decode` on buffers that hold `input`.
fn bench_buffer<T>(
    group: &mut BenchmarkGroup<WallTime>,
    input: &[u8],
    mut decode: impl FnMut(&mut BytesMut) -> T,
) {
    group.bench_function("monoio-http", |bencher| {
        bencher.iter_batched_ref(|| BytesMut::from(input), &mut decode, BatchSize::SmallInput);
    });
}

fn request_head(criterion: &mut Criterion) {
    let many = head(
        "POST /api/v1/items HTTP/1.1",
        &["Host: h", "Content-Length: 0"],
        32,
    );
    for (name, input) in [
        ("small", SMALL_REQUEST),
        ("browser", BROWSER_REQUEST),
        ("32 fields", &many),
    ] {
        let mut group = criterion.benchmark_group(format!("request head/{name}"));
        group.throughput(Throughput::Bytes(input.len() as u64));
        let complete = Progress::Complete(input.len());
        let mut head = RequestHead::default();
        group.bench_function("ringlane", |bencher| {
            bencher.iter(|| {
                head.clear();
                assert_eq!(head.parse(black_box(input), &LIMITS), Ok(complete));
                framing::request(&head, input)
            });
        });
        bench_buffer(&mut group, input, |buffer| {
            match RequestHeadDecoder.decode(buffer) {
                Ok(Decoded::Some(head)) => head,
                _ => panic!("a whole head"),
            }
        });
        group.bench_function("httparse", |bencher| {
            bencher.iter(|| {
                let mut fields = [const { MaybeUninit::uninit() }; FIELDS_MAX];
                let parsed = httparse::Request::new(&mut [])
                    .parse_with_uninit_headers(black_box(input), &mut fields);
                assert_eq!(parsed, Ok(httparse::Status::Complete(input.len())));
            });
        });
    }
}

fn response_head(criterion: &mut Criterion) {
    let large = head(
        "HTTP/1.1 200 OK",
        &[
            "Date: Thu, 01 Jan 1970 00:00:00 GMT",
            "Content-Type: text/html; charset=utf-8",
            "Content-Length: 16384",
            "Cache-Control: public, max-age=3600, stale-while-revalidate=60",
            "Content-Security-Policy: default-src 'self'; img-src 'self' data: https://images.example.com; script-src 'self'",
            "Set-Cookie: session=6f1e0c0f5f3c4a0e9d4a8a1f; Path=/; HttpOnly; Secure; SameSite=Lax",
        ],
        24,
    );
    for (name, input) in [("small", SMALL_RESPONSE), ("large", &large)] {
        let mut group = criterion.benchmark_group(format!("response head/{name}"));
        group.throughput(Throughput::Bytes(input.len() as u64));
        let complete = Progress::Complete(input.len());
        let mut head = ResponseHead::default();
        group.bench_function("ringlane", |bencher| {
            bencher.iter(|| {
                head.clear();
                assert_eq!(head.parse(black_box(input), &LIMITS), Ok(complete));
                framing::response(&head, input, false)
            });
        });
        bench_buffer(&mut group, input, |buffer| {
            match ResponseHeadDecoder.decode(buffer) {
                Ok(Decoded::Some(head)) => head,
                _ => panic!("a whole head"),
            }
        });
        group.bench_function("httparse", |bencher| {
            bencher.iter(|| {
                let mut fields = [const { MaybeUninit::uninit() }; FIELDS_MAX];
                let parsed = httparse::ParserConfig::default().parse_response_with_uninit_headers(
                    &mut httparse::Response::new(&mut []),
                    black_box(input),
                    &mut fields,
                );
                assert_eq!(parsed, Ok(httparse::Status::Complete(input.len())));
            });
        });
    }
}

fn chunked_body(criterion: &mut Criterion) {
    for (name, chunk_bytes, chunks) in [("64 x 16 B", 16, 64), ("16 x 4 KiB", 4096, 16)] {
        let (input, data) = (chunked(chunk_bytes, chunks), chunk_bytes * chunks);
        let mut group = criterion.benchmark_group(format!("chunked body/{name}"));
        // Nobody looks at the data: what counts is the chunk.
        group.throughput(Throughput::Elements(chunks as u64));
        group.bench_function("ringlane", |bencher| {
            bencher.iter(|| assert_eq!(ours(black_box(&input)), data));
        });
        bench_buffer(&mut group, &input, |buffer| {
            assert_eq!(monoio_http(buffer), data);
        });
        group.bench_function("httparse", |bencher| {
            bencher.iter(|| assert_eq!(httparse_sizes(black_box(&input)), data));
        });
    }
}

/// Bytes of data in a chunked body.
fn ours(input: &[u8]) -> usize {
    let mut decoder = Decoder::new(1024);
    let (mut at, mut data) = (0, 0);
    loop {
        let step = decoder.decode(&input[at..]).expect("a well-formed body");
        at += step.consumed;
        data += step.data;
        if step.end {
            return data;
        }
    }
}

fn monoio_http(buffer: &mut BytesMut) -> usize {
    let mut decoder = ChunkedBodyDecoder::default();
    let mut data = 0;
    loop {
        match decoder.decode(buffer) {
            Ok(Decoded::Some(Some(chunk))) => data += chunk.len(),
            Ok(Decoded::Some(None)) => return data,
            _ => panic!("a well-formed body"),
        }
    }
}

/// httparse reads the size lines; to step over the data is its caller's work.
fn httparse_sizes(mut input: &[u8]) -> usize {
    let mut data = 0;
    loop {
        match httparse::parse_chunk_size(input) {
            Ok(httparse::Status::Complete((_, 0))) => return data,
            Ok(httparse::Status::Complete((line, size))) => {
                let size = size as usize;
                data += size;
                assert_eq!(&input[line + size..line + size + 2], b"\r\n");
                input = &input[line + size + 2..];
            }
            _ => panic!("a well-formed body"),
        }
    }
}

criterion_group!(codec, request_head, response_head, chunked_body);
criterion_main!(codec);
