//! The response to a probe: whole and in pieces it is the same, and the strict reader finds the same content.

use http::Method;
use ringlane::health::Cause;
use ringlane::health::response::{Content, Heads};
use ringlane::http1::head::INTERIMS_MAX;

use super::cuts;
use super::strict::{self, Chunked, Framing, Head};

/// Small, so that small inputs reach it.
const CONTENT_BYTES_MAX: usize = 64;

/// The least that the prober allows where the strict reader has no limit: bytes of a head, of chunk extensions or trailers,
const BYTES_MIN: usize = 1024;
/// fields,
const FIELDS_MIN: usize = 128;
/// and digits of a length.
const LENGTH_DIGITS_MIN: usize = 18;

/// What a prober made of a response.
#[derive(Debug, PartialEq, Eq)]
struct Read {
    /// The status and whether the content is over, once the head is complete.
    last: Option<(u16, bool)>,
    content: Vec<u8>,
}

/// Reads `input` as the response to a GET and to a HEAD, in one piece, in many, and byte by byte.
pub fn check(input: &[u8]) {
    for method in [Method::GET, Method::HEAD] {
        let whole = in_pieces(&method, input, [input.len()]);
        for pieces in [cuts(input), (1..=input.len()).collect()] {
            match (&whole, in_pieces(&method, input, pieces)) {
                (Ok(whole), Ok(in_pieces)) => assert_eq!(*whole, in_pieces),
                (Err(_), Err(_)) => {}
                differing => panic!("whole and in pieces: {differing:?}"),
            }
        }
        match whole {
            Ok(read) => agrees(&method, input, &read),
            Err(_) => assert!(!is_clear(input), "refused, but it is well formed"),
        }
    }
}

/// Reads pieces that end at `ends`.
fn in_pieces(
    method: &Method,
    input: &[u8],
    ends: impl IntoIterator<Item = usize>,
) -> Result<Read, Cause> {
    let mut heads = Heads::new(method);
    let mut last: Option<(u16, Content)> = None;
    let mut start = 0;
    for end in ends {
        let piece = &input[start..end];
        start = end;
        if let Some((_, content)) = &mut last {
            content.receive(piece)?;
        } else if let Some(response) = heads.receive(piece)? {
            let mut content = Content::new(response.framing, CONTENT_BYTES_MAX);
            content.receive(&response.behind)?;
            last = Some((response.status, content));
        }
    }
    Ok(Read {
        content: last
            .as_ref()
            .map_or_else(Vec::new, |(_, content)| content.bytes().to_vec()),
        last: last.map(|(status, content)| (status, content.is_over())),
    })
}

/// The head of the final response as the strict reader sees it, and what stands behind it. A 101 ends HTTP/1.1.
fn final_head(mut input: &[u8]) -> Option<(Head<'_>, &[u8])> {
    for _ in 0..=INTERIMS_MAX {
        let head = strict::response(input)?;
        input = &input[head.len..];
        match head.start[1] {
            b"101" => return None,
            [b'1', ..] => {}
            _ => return Some((head, input)),
        }
    }
    None
}

/// What was accepted is what the strict reader sees.
fn agrees(method: &Method, input: &[u8], read: &Read) {
    let Some((head, body)) = final_head(input) else {
        assert_eq!(read.last, None, "the strict reader sees no final response");
        return;
    };
    let (status, over) = read.last.expect("the strict reader sees a final response");
    assert_eq!(status.to_string().as_bytes(), head.start[1]);
    let framing = head.framing().unwrap_or_else(|| same_lengths(&head));
    let (content, complete) = if *method == Method::HEAD || matches!(status, 204 | 304) {
        (Vec::new(), true)
    } else {
        match framing {
            Framing::Chunked => match strict::chunked(body) {
                Chunked::Complete { data, .. } => (data, true),
                Chunked::Incomplete(data) => (data, false),
                Chunked::Invalid => panic!("not chunked to the strict reader"),
            },
            Framing::Length(length) => {
                let there = body
                    .len()
                    .min(usize::try_from(length).unwrap_or(usize::MAX));
                (body[..there].to_vec(), there as u64 == length)
            }
            Framing::None => (body.to_vec(), false),
        }
    };
    assert_eq!(
        read.content,
        content[..content.len().min(CONTENT_BYTES_MAX)]
    );
    assert_eq!(over, complete || content.len() >= CONTENT_BYTES_MAX);
}

/// Where the strict reader sees a doubt, only the same length several times is accepted (RFC 9110 section 8.6).
fn same_lengths(head: &Head) -> Framing {
    assert!(head.values("transfer-encoding").is_empty());
    let length = |digits: &[u8]| -> u64 {
        assert!(digits.iter().all(u8::is_ascii_digit));
        String::from_utf8_lossy(digits).parse().expect("a length")
    };
    let lengths: Vec<u64> = head
        .values("content-length")
        .into_iter()
        .map(length)
        .collect();
    assert!(lengths.len() > 1 && lengths.iter().all(|one| *one == lengths[0]));
    Framing::Length(lengths[0])
}

/// Whether this is a response that nobody could refuse.
fn is_clear(input: &[u8]) -> bool {
    let Some((head, body)) = final_head(input) else {
        return false;
    };
    let is_small = input.len() < BYTES_MIN && input.split(|b| *b == b'\n').count() <= FIELDS_MIN;
    is_small
        && match head.framing() {
            Some(Framing::None) => true,
            Some(Framing::Length(_)) => head.values("content-length")[0].len() <= LENGTH_DIGITS_MIN,
            Some(Framing::Chunked) => match strict::chunked(body) {
                Chunked::Complete { trailer, .. } => {
                    head.start[0] != b"HTTP/1.0" && strict::fields(trailer).is_some()
                }
                _ => false,
            },
            None => false,
        }
}
