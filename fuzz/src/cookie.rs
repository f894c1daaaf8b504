//! Cookies: the first pair of a name, in however many fields.

use ringlane::http1::cookie;

use super::{request_with, strict};

/// The first line of `input` is the name that is looked for, each further line the value of one field.
pub fn check(input: &[u8]) {
    let mut lines = input.split(|b| *b == b'\n');
    let name = lines.next().unwrap_or_default();
    let Some((bytes, head)) = request_with("cooKIE", lines) else {
        return;
    };
    let found = cookie::find(&head.fields, &bytes, name);
    let strict = strict::request(&bytes).expect("the strict reader accepts it");
    let fields = strict
        .fields
        .iter()
        .filter(|(name, _)| name.eq_ignore_ascii_case(b"cookie"));
    let pairs: Vec<&[u8]> = fields
        .flat_map(|(_, value)| value.split(|b| *b == b';'))
        .collect();
    let value = |pair: &[u8]| {
        let pair = trimmed(pair);
        let is_named =
            pair.len() > name.len() && pair.starts_with(name) && pair[name.len()] == b'=';
        is_named.then(|| pair[name.len() + 1..].to_vec())
    };
    assert_eq!(found.map(<[u8]>::to_vec), pairs.into_iter().find_map(value));
}

fn trimmed(pair: &[u8]) -> &[u8] {
    let is_space = |b: &u8| matches!(b, b' ' | b'\t');
    let start = pair.iter().position(|b| !is_space(b)).unwrap_or(pair.len());
    let end = pair
        .iter()
        .rposition(|b| !is_space(b))
        .map_or(start, |at| at + 1);
    &pair[start..end]
}
