//! The chunked coding: whole and in pieces decode to the same, and the strict reader agrees.

use ringlane::http1::chunked::Decoder;
use ringlane::http1::refusal::Refusal;

use super::cuts;
use super::strict::{self, Chunked};

const TRAILER_BYTES_MAX: usize = 256;
/// The least that the decoder allows for chunk extensions; the strict reader has no such limit.
const EXTENSION_BYTES_MIN: usize = 1024;

/// What a decoder made of a body.
#[derive(Debug, PartialEq, Eq)]
struct Decoded {
    data: Vec<u8>,
    trailer: Vec<u8>,
    /// Bytes of the body, once it has ended.
    len: Option<usize>,
}

/// Decodes `input` in one piece, in many, and byte by byte.
pub fn decode(input: &[u8]) {
    let whole = in_pieces(input, [input.len()]);
    assert_eq!(whole, in_pieces(input, cuts(input)));
    assert_eq!(whole, in_pieces(input, 1..=input.len()));
    match (whole, strict::chunked(input)) {
        (
            Ok(decoded),
            Chunked::Complete {
                data, trailer, len, ..
            },
        ) => {
            assert_eq!(decoded.data, data);
            assert_eq!(decoded.trailer, trailer);
            assert_eq!(decoded.len, Some(len));
        }
        (Ok(decoded), strict) => {
            assert_eq!(decoded.len, None, "the strict reader: {strict:?}");
        }
        (Err(refusal), Chunked::Complete { trailer, .. }) => {
            let limited = trailer.len() > TRAILER_BYTES_MAX || input.len() > EXTENSION_BYTES_MIN;
            assert!(limited, "{refusal:?}, but it is well formed");
        }
        (Err(_), _) => {}
    }
}

/// Decodes pieces that end at `ends`.
fn in_pieces(input: &[u8], ends: impl IntoIterator<Item = usize>) -> Result<Decoded, Refusal> {
    let mut decoder = Decoder::new(TRAILER_BYTES_MAX);
    let (mut data, mut at, mut ended) = (Vec::new(), 0, false);
    for end in ends {
        while at < end && !ended {
            let step = decoder.decode(&input[at..end])?;
            assert!(step.consumed > 0, "no progress at {at}");
            assert!(step.data <= step.consumed && step.consumed <= end - at);
            at += step.consumed;
            data.extend_from_slice(&input[at - step.data..at]);
            ended = step.end;
        }
    }
    let trailer = if ended { decoder.trailer() } else { b"" };
    Ok(Decoded {
        data,
        trailer: trailer.to_vec(),
        len: ended.then_some(at),
    })
}
