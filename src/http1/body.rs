//! A body on its way through: read in one framing, written in another.

use super::chunked::{Decoder, write_size};
use super::field::Name;
use super::framing::{Framing, Options};
use super::head::{Limits, trailer_fields};
use super::refusal::Refusal;

/// Bytes of a trailer section.
const TRAILER_BYTES_MAX: usize = 16 * 1024;

/// How many bytes more [`Reader::transfer`] writes than it reads, at most, the fields of a trailer section aside: of a chunk that goes on
/// before or after what was received, each part becomes a chunk of its own.
pub const ADDED_BYTES_MAX: usize = 32;

/// Finds data and end of a body in received bytes.
#[derive(Debug, Default)]
pub enum Reader {
    /// This many bytes are to come.
    Length(u64),
    /// The chunked coding; boxed because it is the larger and rarer one.
    Chunked(Box<Decoder>),
    /// All until the sender closes.
    UntilClose,
    /// The body has ended.
    #[default]
    Ended,
}

/// How a body is sent on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Coding {
    /// As it is: the length is known or the connection's end marks it.
    #[default]
    Identity,
    /// Chunked, without trailer section.
    Chunked,
    /// Chunked, the trailer section passed on.
    ChunkedTrailers,
}

impl Coding {
    /// For a body that goes on chunked from a message with these Connection options. Trailer fields that Connection names must not go on
    /// (RFC 9110 section 7.6.1); where it names any field the whole section stays behind, which is always allowed (section 6.5.1).
    pub const fn chunked(options: Options) -> Self {
        if options.names_fields {
            Self::Chunked
        } else {
            Self::ChunkedTrailers
        }
    }
}

impl Reader {
    /// A reader for a body of this framing.
    pub fn new(framing: Framing) -> Self {
        match framing {
            Framing::Empty => Self::Ended,
            Framing::Length(length) => Self::Length(length),
            Framing::Chunked => Self::Chunked(Box::new(Decoder::new(TRAILER_BYTES_MAX))),
            Framing::UntilClose => Self::UntilClose,
        }
    }

    /// Whether the body has ended.
    pub const fn ended(&self) -> bool {
        matches!(self, Self::Ended)
    }

    /// Whether received bytes are data as they stand, so that they can go on without being looked at.
    pub const fn is_plain(&self) -> bool {
        matches!(self, Self::Length(_) | Self::UntilClose)
    }

    /// How many bytes of a plain body `available` received ones hold; marks them as read.
    pub fn take_plain(&mut self, available: usize) -> usize {
        match self {
            Self::Length(remaining) => {
                let taken = (*remaining).min(available as u64);
                *remaining -= taken;
                if *remaining == 0 {
                    *self = Self::Ended;
                }
                taken as usize
            }
            Self::UntilClose => available,
            Self::Chunked(_) | Self::Ended => 0,
        }
    }

    /// Moves the body's part of `input` to `out` in `coding`. Gives the bytes of `input` that belong to the body and, of these, the data.
    ///
    /// All of `input` is read unless the body ends before it does.
    pub fn transfer(
        &mut self,
        input: &[u8],
        coding: Coding,
        limits: &Limits,
        out: &mut Vec<u8>,
    ) -> Result<Moved, Refusal> {
        if self.ended() {
            return Ok(Moved::default());
        }
        let Self::Chunked(decoder) = self else {
            let taken = self.take_plain(input.len());
            write_data(&input[..taken], coding, out);
            if self.ended() && coding != Coding::Identity {
                out.extend_from_slice(b"0\r\n\r\n");
            }
            return Ok(Moved {
                consumed: taken,
                data: taken as u64,
            });
        };
        let mut moved = Moved::default();
        loop {
            let step = decoder.decode(&input[moved.consumed..])?;
            moved.consumed += step.consumed;
            moved.data += step.data as u64;
            write_data(
                &input[moved.consumed - step.data..moved.consumed],
                coding,
                out,
            );
            if step.end {
                write_end(decoder.trailer(), coding, limits, out)?;
                *self = Self::Ended;
                return Ok(moved);
            }
            if moved.consumed == input.len() {
                return Ok(moved);
            }
        }
    }
}

/// What [`Reader::transfer`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moved {
    /// Bytes of input that belong to the body.
    pub consumed: usize,
    /// Bytes of data among them.
    pub data: u64,
}

fn write_data(data: &[u8], coding: Coding, out: &mut Vec<u8>) {
    if data.is_empty() {
        return;
    }
    if coding == Coding::Identity {
        out.extend_from_slice(data);
    } else {
        write_size(data.len(), out);
        out.extend_from_slice(data);
        out.extend_from_slice(b"\r\n");
    }
}

/// Ends a chunked body; fields of the trailer section that may travel go with it.
fn write_end(
    trailer: &[u8],
    coding: Coding,
    limits: &Limits,
    out: &mut Vec<u8>,
) -> Result<(), Refusal> {
    let fields = trailer_fields(trailer, limits)?;
    if coding == Coding::Identity {
        return Ok(());
    }
    out.extend_from_slice(b"0\r\n");
    for field in &fields {
        let name = field.name.of(trailer);
        if coding == Coding::ChunkedTrailers && may_trail(field.kind, name) {
            out.extend_from_slice(name);
            out.extend_from_slice(b": ");
            out.extend_from_slice(field.value.of(trailer));
            out.extend_from_slice(b"\r\n");
        }
    }
    out.extend_from_slice(b"\r\n");
    Ok(())
}

/// Whether a field may stand in a trailer section (RFC 9110 section 6.5.1): none that frames, routes, authenticates or describes the content.
fn may_trail(kind: Name, name: &[u8]) -> bool {
    const FORBIDDEN: [&[u8]; 12] = [
        b"authorization",
        b"cache-control",
        b"content-encoding",
        b"content-range",
        b"content-type",
        b"cookie",
        b"max-forwards",
        b"range",
        b"set-cookie",
        b"te",
        b"trailer",
        b"www-authenticate",
    ];
    !kind.is_hop_by_hop()
        && !kind.is_protected()
        && !matches!(kind, Name::Expect | Name::Lookalike)
        && !FORBIDDEN
            .iter()
            .any(|forbidden| name.eq_ignore_ascii_case(forbidden))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        head_bytes: 1024,
        fields: 8,
        target_bytes: 100,
    };

    fn transfer(
        framing: Framing,
        input: &[u8],
        coding: Coding,
    ) -> Result<(Vec<u8>, Moved, bool), Refusal> {
        let (mut reader, mut out) = (Reader::new(framing), Vec::new());
        let moved = reader.transfer(input, coding, &LIMITS, &mut out)?;
        Ok((out, moved, reader.ended()))
    }

    #[test]
    fn each_framing_into_each_coding() {
        let chunked = b"3;x\r\nabc\r\n1\r\nd\r\n0\r\nX-Sum: 1\r\nContent-Length: 9\r\n\r\nrest";
        let cases = [
            (
                Framing::Length(4),
                &b"abcdrest"[..],
                Coding::Identity,
                &b"abcd"[..],
                4,
                true,
            ),
            (
                Framing::Length(9),
                b"abcd",
                Coding::Identity,
                b"abcd",
                4,
                false,
            ),
            (
                Framing::UntilClose,
                b"abcd",
                Coding::Chunked,
                b"4\r\nabcd\r\n",
                4,
                false,
            ),
            (
                Framing::Chunked,
                chunked,
                Coding::Identity,
                b"abcd",
                chunked.len() - 4,
                true,
            ),
            (
                Framing::Chunked,
                chunked,
                Coding::Chunked,
                b"3\r\nabc\r\n1\r\nd\r\n0\r\n\r\n",
                chunked.len() - 4,
                true,
            ),
            (
                Framing::Chunked,
                chunked,
                Coding::ChunkedTrailers,
                b"3\r\nabc\r\n1\r\nd\r\n0\r\nX-Sum: 1\r\n\r\n",
                chunked.len() - 4,
                true,
            ),
        ];
        for (framing, input, coding, expected, consumed, ended) in cases {
            let expected = (expected.to_vec(), Moved { consumed, data: 4 }, ended);
            assert_eq!(
                transfer(framing, input, coding),
                Ok(expected),
                "{framing:?} into {coding:?}"
            );
        }
    }

    #[test]
    fn no_more_than_told_is_added_wherever_receives_end() {
        for (size, received) in (1..60).flat_map(|size| (1..60).map(move |bytes| (size, bytes))) {
            let chunk = [
                format!("{size:x}\r\n").as_bytes(),
                &vec![b'x'; size],
                b"\r\n",
            ]
            .concat();
            let body = [&chunk.repeat(5)[..], b"0\r\n\r\n"].concat();
            for framing in [Framing::Chunked, Framing::Length(body.len() as u64)] {
                let mut reader = Reader::new(framing);
                for input in body.chunks(received) {
                    let mut out = Vec::new();
                    let moved = reader.transfer(input, Coding::Chunked, &LIMITS, &mut out);
                    assert!(moved.is_ok_and(|moved| moved.consumed == input.len()));
                    assert!(
                        out.len() <= input.len() + ADDED_BYTES_MAX,
                        "{size}, {received}"
                    );
                }
                assert!(reader.ended());
            }
        }
    }

    #[test]
    fn a_malformed_trailer_is_refused_even_when_it_is_dropped() {
        for coding in [Coding::Identity, Coding::Chunked, Coding::ChunkedTrailers] {
            assert_eq!(
                transfer(Framing::Chunked, b"0\r\nA b\r\n\r\n", coding),
                Err(Refusal::FieldName)
            );
        }
    }
}
