//! Bodies on their way through: the same data comes out however it came in, in a framing that the strict reader can read.

use ringlane::http1::body::{Coding, Reader};
use ringlane::http1::framing::Framing;
use ringlane::http1::refusal::Refusal;

use super::strict::{self, Chunked};
use super::{LIMITS, cuts};

/// What became of a body.
#[derive(Debug)]
struct Transferred {
    out: Vec<u8>,
    consumed: usize,
    data: u64,
    ended: bool,
}

/// Passes `input` through in every framing and coding.
pub fn transfer(input: &[u8]) {
    let all = input.len() as u64;
    for framing in [
        Framing::Empty,
        Framing::Length(all.div_ceil(2).max(1)),
        Framing::Length(all.max(1)),
        Framing::Length(all + 1),
        Framing::Chunked,
        Framing::UntilClose,
    ] {
        let Some(plain) = agreed(framing, Coding::Identity, input) else {
            continue;
        };
        assert_eq!(plain.data, plain.out.len() as u64);
        for coding in [Coding::Chunked, Coding::ChunkedTrailers] {
            let chunked = agreed(framing, coding, input).expect("every coding accepts the same");
            assert_eq!(
                (chunked.consumed, chunked.data, chunked.ended),
                (plain.consumed, plain.data, plain.ended)
            );
            check(&chunked, &plain.out, coding);
        }
    }
}

/// The body passed through whole, after pieces have given the same.
fn agreed(framing: Framing, coding: Coding, input: &[u8]) -> Option<Transferred> {
    let whole = in_pieces(framing, coding, input, &[input.len()]);
    let pieces = in_pieces(framing, coding, input, &cuts(input));
    match (whole, pieces) {
        (Ok(whole), Ok(pieces)) => {
            assert_eq!(
                (whole.consumed, whole.data, whole.ended),
                (pieces.consumed, pieces.data, pieces.ended)
            );
            if coding == Coding::Identity {
                assert_eq!(whole.out, pieces.out);
            } else {
                check(&pieces, &data_of(&whole.out), coding);
            }
            Some(whole)
        }
        (Err(whole), Err(pieces)) => {
            assert_eq!(whole, pieces);
            None
        }
        differing => panic!("whole and in pieces: {differing:?}"),
    }
}

fn in_pieces(
    framing: Framing,
    coding: Coding,
    input: &[u8],
    ends: &[usize],
) -> Result<Transferred, Refusal> {
    let mut reader = Reader::new(framing);
    let (mut out, mut at, mut data) = (Vec::new(), 0, 0);
    for end in ends {
        if reader.ended() {
            break;
        }
        let piece = &input[at..*end];
        let moved = reader.transfer(piece, coding, &LIMITS, &mut out)?;
        assert!(moved.consumed == piece.len() || reader.ended());
        at += moved.consumed;
        data += moved.data;
    }
    Ok(Transferred {
        out,
        consumed: at,
        data,
        ended: reader.ended(),
    })
}

/// The output must be one chunked body of `data`, complete when the received one is.
fn check(transferred: &Transferred, expected: &[u8], coding: Coding) {
    // A body that was there before its first byte: nothing is written.
    if transferred.out.is_empty() {
        assert!(expected.is_empty());
        return;
    }
    match strict::chunked(&transferred.out) {
        Chunked::Complete {
            data,
            trailer,
            len,
            extended,
        } => {
            assert!(transferred.ended && !extended);
            assert_eq!(data, expected);
            assert_eq!(len, transferred.out.len(), "bytes behind the body");
            check_trailer(trailer, coding);
        }
        Chunked::Incomplete(data) => {
            assert!(!transferred.ended);
            assert_eq!(data, expected);
        }
        Chunked::Invalid => panic!("malformed: {}", transferred.out.escape_ascii()),
    }
}

/// Only fields that may trail, and only where they are wanted.
pub fn check_trailer(trailer: &[u8], coding: Coding) {
    const FORBIDDEN: [&str; 12] = [
        "authorization",
        "connection",
        "content-length",
        "content-type",
        "cookie",
        "expect",
        "host",
        "set-cookie",
        "te",
        "trailer",
        "transfer-encoding",
        "x-forwarded-for",
    ];
    let (fields, rest) = strict::fields(trailer).expect("a trailer section");
    assert!(rest.is_empty());
    assert!(fields.is_empty() || coding == Coding::ChunkedTrailers);
    for (name, _) in fields {
        let name = String::from_utf8_lossy(name).to_ascii_lowercase();
        assert!(!FORBIDDEN.contains(&&*name), "{name} in a trailer section");
    }
}

fn data_of(chunked: &[u8]) -> Vec<u8> {
    match strict::chunked(chunked) {
        Chunked::Complete { data, .. } | Chunked::Incomplete(data) => data,
        Chunked::Invalid => panic!("malformed: {}", chunked.escape_ascii()),
    }
}
