//! A third reader, written by others: httparse must find the same head in what we write as the strict one does.

use super::strict::{Head, Pair};

const FIELDS_MAX: usize = 64;

/// A request's head.
pub fn request(head: &Head, bytes: &[u8]) {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut foreign = httparse::Request::new(&mut fields);
    let len = foreign.parse(bytes).expect("a well-formed head").unwrap();
    assert_eq!(len, head.len);
    assert_eq!(foreign.method.map(str::as_bytes), Some(head.start[0]));
    assert_eq!(foreign.path.map(str::as_bytes), Some(head.start[1]));
    assert_eq!(foreign.version, Some(1));
    check_fields(head, foreign.headers);
}

/// A response's head.
pub fn response(head: &Head, bytes: &[u8]) {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut foreign = httparse::Response::new(&mut fields);
    let len = foreign.parse(bytes).expect("a well-formed head").unwrap();
    assert_eq!(len, head.len);
    let status = foreign.code.expect("a status").to_string();
    assert_eq!(status.as_bytes(), head.start[1]);
    assert_eq!(foreign.version, Some(1));
    check_fields(head, foreign.headers);
}

fn check_fields(head: &Head, foreign: &[httparse::Header]) {
    let foreign: Vec<Pair> = foreign
        .iter()
        .map(|field| (field.name.as_bytes(), field.value))
        .collect();
    assert_eq!(foreign, head.fields);
}
