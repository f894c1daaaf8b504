//! Heads: the result does not depend on how the bytes came, and the strict reader sees the same.

use ringlane::http1::field::Field;
use ringlane::http1::head::{Progress, RequestHead, ResponseHead, empty_lines};
use ringlane::http1::refusal::Refusal;

use super::strict::{self, Head, Pair};
use super::{LIMITS, cuts};

type Outcome = Result<Progress, Refusal>;

/// A request's head.
pub fn request(input: &[u8]) {
    let input = behind_empty_lines(input);
    let (mut whole, mut resumed) = (RequestHead::default(), RequestHead::default());
    let outcome = whole.parse(input, &LIMITS);
    let in_pieces = in_pieces(input, |prefix| resumed.parse(prefix, &LIMITS));
    let Some((len, strict)) = complete(outcome, in_pieces, strict::request(input)) else {
        return;
    };
    let parts = |head: &RequestHead| (head.method, head.target, head.minor);
    assert_eq!(parts(&whole), parts(&resumed));
    assert_eq!(whole.fields, resumed.fields);
    assert_eq!(len, strict.len);
    assert_eq!(whole.method.of(input), strict.start[0]);
    assert_eq!(whole.target.of(input), strict.start[1]);
    assert_eq!(whole.minor, minor(strict.start[2]));
    assert_eq!(pairs(&whole.fields, input), strict.fields);
}

/// A response's head.
pub fn response(input: &[u8]) {
    let (mut whole, mut resumed) = (ResponseHead::default(), ResponseHead::default());
    let outcome = whole.parse(input, &LIMITS);
    let in_pieces = in_pieces(input, |prefix| resumed.parse(prefix, &LIMITS));
    let Some((len, strict)) = complete(outcome, in_pieces, strict::response(input)) else {
        return;
    };
    let parts = |head: &ResponseHead| (head.minor, head.status, head.reason);
    assert_eq!(parts(&whole), parts(&resumed));
    assert_eq!(whole.fields, resumed.fields);
    assert_eq!(len, strict.len);
    assert_eq!(whole.minor, minor(strict.start[0]));
    assert_eq!(whole.status.to_string().as_bytes(), strict.start[1]);
    assert_eq!(
        whole.reason.of(input),
        strict.start.get(2).copied().unwrap_or_default()
    );
    assert_eq!(pairs(&whole.fields, input), strict.fields);
}

/// Holds three readings of one head against each other; the strict one and its length when all accept it.
fn complete(
    outcome: Outcome,
    in_pieces: Outcome,
    strict: Option<Head<'_>>,
) -> Option<(usize, Head<'_>)> {
    match (outcome, in_pieces) {
        (Ok(whole), Ok(in_pieces)) => assert_eq!(whole, in_pieces),
        // A start line that cannot become one is refused before it is complete, so the cause may be another.
        (Err(_), Err(_)) => {}
        differing => panic!("whole and in pieces: {differing:?}"),
    }
    let limited = matches!(
        outcome,
        Err(Refusal::HeadTooLarge | Refusal::TooManyFields | Refusal::TargetTooLong)
    );
    match (outcome, strict) {
        (Ok(Progress::Complete(len)), Some(strict)) => Some((len, strict)),
        (Ok(Progress::Complete(_)), None) => panic!("the strict reader refuses it"),
        (_, Some(strict)) if !limited => panic!("{outcome:?}, but it is well formed: {strict:?}"),
        _ => None,
    }
}

fn in_pieces(input: &[u8], mut parse: impl FnMut(&[u8]) -> Outcome) -> Outcome {
    for end in cuts(input) {
        match parse(&input[..end]) {
            Ok(Progress::Partial) => {}
            done => return done,
        }
    }
    Ok(Progress::Partial)
}

/// What follows the empty lines before a request line, which are to be ignored (RFC 9112 section 2.2).
pub fn behind_empty_lines(input: &[u8]) -> &[u8] {
    let mut rest = input;
    while let Some(behind) = rest.strip_prefix(b"\r\n") {
        rest = behind;
    }
    assert_eq!(rest.len() + empty_lines(input), input.len());
    rest
}

fn minor(version: &[u8]) -> u8 {
    u8::from(version != b"HTTP/1.0")
}

fn pairs<'a>(fields: &[Field], bytes: &'a [u8]) -> Vec<Pair<'a>> {
    let pair = |field: &Field| (field.name.of(bytes), field.value.of(bytes));
    fields.iter().map(pair).collect()
}
