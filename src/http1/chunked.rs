//! The chunked transfer coding (RFC 9112 section 7.1), both ways.

use super::refusal::Refusal;

/// Bytes of chunk extensions that a body may hold in all; they are dropped, so nobody needs more.
const EXTENSION_BYTES_MAX: u32 = 16 * 1024;
/// Hexadecimal digits of a chunk size, leading zeros included.
const SIZE_DIGITS_MAX: u8 = 16;

/// What comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Size,
    /// White space after a size, which only an extension may follow.
    SizeSpace,
    Extension,
    SizeLf,
    Data,
    DataCr,
    DataLf,
    Trailer,
    End,
}

/// What one call of [`Decoder::decode`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// Bytes of input that are done with.
    pub consumed: usize,
    /// How many of them, the last ones, are data.
    pub data: usize,
    /// The body has ended.
    pub end: bool,
}

/// Takes the chunked coding off a body, piece by piece.
#[derive(Debug)]
pub struct Decoder {
    state: State,
    /// Bytes of the current chunk that are still to come.
    remaining: u64,
    digits: u8,
    extension_bytes: u32,
    trailer: Vec<u8>,
    trailer_bytes_max: usize,
}

impl Decoder {
    /// A decoder at the start of a body, whose trailer section may have at most `trailer_bytes_max` bytes.
    pub const fn new(trailer_bytes_max: usize) -> Self {
        Self {
            state: State::Size,
            remaining: 0,
            digits: 0,
            extension_bytes: 0,
            trailer: Vec::new(),
            trailer_bytes_max,
        }
    }

    /// Goes on to the end of the next run of data, of the body, or of the input.
    pub fn decode(&mut self, input: &[u8]) -> Result<Step, Refusal> {
        let mut at = 0;
        while self.state != State::End {
            if self.state == State::Data {
                let data = self.remaining.min((input.len() - at) as u64) as usize;
                self.remaining -= data as u64;
                if self.remaining == 0 {
                    self.state = State::DataCr;
                }
                return Ok(Step {
                    consumed: at + data,
                    data,
                    end: false,
                });
            }
            let Some(&byte) = input.get(at) else { break };
            at += 1;
            self.state = self.step(byte)?;
        }
        Ok(Step {
            consumed: at,
            data: 0,
            end: self.state == State::End,
        })
    }

    /// The state after one byte outside of data.
    fn step(&mut self, byte: u8) -> Result<State, Refusal> {
        match (self.state, byte) {
            (State::Size, b'\r') if self.digits > 0 => Ok(State::SizeLf),
            (State::Size | State::SizeSpace, b' ' | b'\t') if self.digits > 0 => {
                self.extension(byte).map(|_| State::SizeSpace)
            }
            (State::Size | State::SizeSpace, b';') if self.digits > 0 => self.extension(byte),
            (State::Size, _) => self.size_digit(byte),
            (State::Extension, b'\r') => Ok(State::SizeLf),
            (State::Extension, _) => self.extension(byte),
            (State::SizeLf, b'\n') => Ok(self.chunk_begins()),
            (State::DataCr, b'\r') => Ok(State::DataLf),
            (State::DataLf, b'\n') => Ok(State::Size),
            (State::Trailer, _) => self.trailer_byte(byte),
            _ => Err(Refusal::ChunkLine),
        }
    }

    fn size_digit(&mut self, byte: u8) -> Result<State, Refusal> {
        let digit = char::from(byte).to_digit(16).ok_or(Refusal::ChunkSize)?;
        self.digits += 1;
        // 60 bits leave room, so that no sum of sizes overflows.
        if self.digits > SIZE_DIGITS_MAX || self.remaining >> 56 != 0 {
            return Err(Refusal::ChunkSize);
        }
        self.remaining = self.remaining << 4 | u64::from(digit);
        Ok(State::Size)
    }

    fn extension(&mut self, byte: u8) -> Result<State, Refusal> {
        self.extension_bytes += 1;
        if self.extension_bytes > EXTENSION_BYTES_MAX {
            return Err(Refusal::ChunkExtension);
        }
        // A bare LF here is where lenient and strict readers part (the "chunk extension" smuggling of 2025).
        if byte != b'\t' && (byte < b' ' || byte == 0x7f) {
            return Err(Refusal::ChunkLine);
        }
        Ok(State::Extension)
    }

    fn chunk_begins(&mut self) -> State {
        self.digits = 0;
        if self.remaining == 0 {
            State::Trailer
        } else {
            State::Data
        }
    }

    fn trailer_byte(&mut self, byte: u8) -> Result<State, Refusal> {
        if self.trailer.len() == self.trailer_bytes_max {
            return Err(Refusal::Trailer);
        }
        self.trailer.push(byte);
        if byte == b'\n' && !self.trailer.ends_with(b"\r\n") {
            return Err(Refusal::BareLf);
        }
        let ended = self.trailer == b"\r\n" || self.trailer.ends_with(b"\r\n\r\n");
        Ok(if ended { State::End } else { State::Trailer })
    }

    /// The trailer section as received, its last empty line included; complete once the body has ended.
    pub fn trailer(&self) -> &[u8] {
        &self.trailer
    }
}

/// Writes the line that begins a chunk of `size` bytes, which must not be 0.
pub fn write_size(size: usize, out: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    debug_assert!(size > 0, "a chunk of size 0 ends the body");
    let digits = (usize::BITS - size.leading_zeros()).div_ceil(4);
    for digit in (0..digits).rev() {
        out.push(DIGITS[size >> (digit * 4) & 15]);
    }
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Data and trailer of a whole body, fed in pieces of `size` bytes.
    fn decode(input: &[u8], size: usize) -> Result<(Vec<u8>, Vec<u8>, usize), Refusal> {
        let mut decoder = Decoder::new(64);
        let (mut data, mut at) = (Vec::new(), 0);
        while at < input.len() {
            let piece = &input[at..(at + size).min(input.len())];
            let step = decoder.decode(piece)?;
            data.extend_from_slice(&piece[step.consumed - step.data..step.consumed]);
            at += step.consumed;
            if step.end {
                return Ok((data, decoder.trailer().to_vec(), at));
            }
            assert!(step.consumed > 0, "no progress at {at}");
        }
        Ok((data, Vec::new(), 0))
    }

    #[test]
    fn bodies_in_pieces_of_every_size() {
        let body = b"4\r\nWiki\r\n005;a=\"b\"\r\npedia\r\n0 ;x\r\nA: b\r\nC: d\r\n\r\nnext";
        for size in 1..=body.len() {
            let expected = (
                b"Wikipedia".to_vec(),
                b"A: b\r\nC: d\r\n\r\n".to_vec(),
                body.len() - 4,
            );
            assert_eq!(decode(body, size), Ok(expected), "pieces of {size}");
        }
        assert_eq!(decode(b"0\r\n\r\n", 9), Ok((vec![], b"\r\n".to_vec(), 5)));
    }

    #[test]
    fn refused() {
        let cases: &[(&[u8], Refusal)] = &[
            (b"\r\n", Refusal::ChunkSize),
            (b";a\r\n", Refusal::ChunkSize),
            (b" 5\r\n", Refusal::ChunkSize),
            (b"+5\r\n", Refusal::ChunkSize),
            (b"0x5\r\n", Refusal::ChunkSize),
            (b"5g\r\n", Refusal::ChunkSize),
            (b"fffffffffffffffff\r\n", Refusal::ChunkSize),
            (b"00000000000000000\r\n", Refusal::ChunkSize),
            (b"5\n", Refusal::ChunkSize),
            (b"5 5\r\nhello", Refusal::ChunkLine),
            (b"5 \r\nhello", Refusal::ChunkLine),
            (b"5\rx", Refusal::ChunkLine),
            (b"5;a\nhello", Refusal::ChunkLine),
            (b"5;a\rb\r\nhello", Refusal::ChunkLine),
            (b"1\r\nab\r\n", Refusal::ChunkLine),
            (b"1\r\na\n", Refusal::ChunkLine),
            (b"0\r\n\n", Refusal::BareLf),
            (b"0\r\nA: b\n\r\n", Refusal::BareLf),
        ];
        for (body, refusal) in cases {
            assert_eq!(
                decode(body, body.len()),
                Err(*refusal),
                "{}",
                body.escape_ascii()
            );
        }
        assert_eq!(
            decode(
                &[b"0\r\n".as_slice(), &b"A: b\r\n".repeat(20)].concat(),
                999
            ),
            Err(Refusal::Trailer)
        );
        let extension = [b"1;".as_slice(), &b"a".repeat(20_000)].concat();
        assert_eq!(decode(&extension, 30_000), Err(Refusal::ChunkExtension));
    }

    #[test]
    fn sizes_are_written_in_hexadecimal() {
        for size in [1usize, 9, 10, 15, 16, 255, 256, 65_535, 1 << 40, usize::MAX] {
            let mut out = Vec::new();
            write_size(size, &mut out);
            assert_eq!(out, format!("{size:x}\r\n").into_bytes());
        }
    }
}
