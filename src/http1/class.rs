//! Byte classes of RFC 9110 and RFC 3986, as one table.

const TOKEN: u8 = 1;
const TARGET: u8 = 2;
const VALUE: u8 = 4;
const NAME: u8 = 8;

const CLASSES: [u8; 256] = classes();

const fn classes() -> [u8; 256] {
    let mut table = [0u8; 256];
    let mut byte = 0usize;
    while byte < 256 {
        let b = byte as u8;
        let alphanumeric = b.is_ascii_alphanumeric();
        if alphanumeric || is_one_of(b, b"!#$%&'*+-.^_`|~") {
            table[byte] |= TOKEN;
        }
        // Visible ASCII but `#`: a fragment never travels (RFC 9110 section 7.1). Stricter than this real query strings are not.
        if b.is_ascii_graphic() && b != b'#' {
            table[byte] |= TARGET;
        }
        if b == b'\t' || b >= b' ' && b != 0x7f {
            table[byte] |= VALUE;
        }
        if alphanumeric || is_one_of(b, b"-._~%!$&'()*+;=") {
            table[byte] |= NAME;
        }
        byte += 1;
    }
    table
}

const fn is_one_of(byte: u8, set: &[u8]) -> bool {
    let mut i = 0;
    while i < set.len() {
        if set[i] == byte {
            return true;
        }
        i += 1;
    }
    false
}

/// Whether `bytes` is a token (RFC 9110 section 5.6.2): one or more of its characters.
#[inline]
pub fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && after_token(bytes).is_empty()
}

/// What follows the bytes at the start of `bytes` that may stand in a token.
#[inline]
pub fn after_token(bytes: &[u8]) -> &[u8] {
    after::<TOKEN>(bytes)
}

/// What follows the bytes at the start of `bytes` that may stand in a request target.
#[inline]
pub fn after_target(bytes: &[u8]) -> &[u8] {
    after::<TARGET>(bytes)
}

/// What follows the bytes at the start of `bytes` that may stand in a registered name (RFC 3986 section 3.2.2); not the comma, with
/// which two Host values could pass for one.
#[inline]
pub fn after_name(bytes: &[u8]) -> &[u8] {
    after::<NAME>(bytes)
}

/// What follows the bytes of a class that `bytes` begin with.
#[inline]
fn after<const CLASS: u8>(mut bytes: &[u8]) -> &[u8] {
    let is_other = |&b: &u8| CLASSES[b as usize] & CLASS == 0;
    // Eight have one look at the end in common, and no loop.
    while let Some(chunk) = bytes.first_chunk::<8>() {
        match chunk.iter().position(is_other) {
            Some(end) => return &bytes[end..],
            None => bytes = &bytes[chunk.len()..],
        }
    }
    let end = bytes.iter().position(is_other).unwrap_or(bytes.len());
    &bytes[end..]
}

/// Whether every byte may stand in a field value (RFC 9110 section 5.5): visible, space, tab or above 0x7f.
#[inline]
pub fn is_field_value(bytes: &[u8]) -> bool {
    after_value(bytes).is_empty()
}

/// What follows the bytes at the start of `bytes` that may stand in a field value.
#[inline]
pub fn after_value(mut bytes: &[u8]) -> &[u8] {
    while let Some(chunk) = bytes.first_chunk() {
        let controls = controls(u64::from_le_bytes(*chunk));
        if controls == 0 {
            bytes = &bytes[chunk.len()..];
            continue;
        }
        match &bytes[controls.trailing_zeros() as usize / 8..] {
            [b'\t', rest @ ..] => bytes = rest,
            rest => return rest,
        }
    }
    after::<VALUE>(bytes)
}

/// Marks the bytes below 0x20 and those that are 0x7f by their highest bit. The lowest mark is right; those above it may be false.
#[inline]
const fn controls(word: u64) -> u64 {
    const ONES: u64 = u64::MAX / 255;
    const HIGHS: u64 = ONES * 128;
    let below_space = word.wrapping_sub(ONES * 0x20) & !word;
    let xor_delete = word ^ (ONES * 0x7f);
    let delete = xor_delete.wrapping_sub(ONES) & !xor_delete;
    (below_space | delete) & HIGHS
}

/// Without the optional white space around it (RFC 9110 section 5.6.3: space and tab only).
#[inline]
pub fn trim(bytes: &[u8]) -> &[u8] {
    trim_end(trim_start(bytes))
}

/// Without the optional white space before it.
#[inline]
pub fn trim_start(mut bytes: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = bytes {
        bytes = rest;
    }
    bytes
}

/// Without the optional white space behind it.
#[inline]
pub fn trim_end(mut bytes: &[u8]) -> &[u8] {
    while let [rest @ .., b' ' | b'\t'] = bytes {
        bytes = rest;
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_word_check_agrees_with_the_table_on_every_byte_at_every_place() {
        for byte in 0..=255u8 {
            for place in 0..19 {
                let mut value = [b'a'; 19];
                value[place] = byte;
                let expected = byte == b'\t' || byte >= 0x20 && byte != 0x7f;
                assert_eq!(
                    value.len() - after_value(&value).len(),
                    if expected { value.len() } else { place },
                    "byte {byte:#x} at {place}"
                );
            }
        }
    }

    #[test]
    fn tokens() {
        assert!(is_token(b"M-SEARCH"));
        for bad in [&b""[..], b"a b", b"a:", b"a(b", b"\x80", b"a\t"] {
            assert!(!is_token(bad), "{bad:?}");
        }
    }

    #[test]
    fn trimming_takes_space_and_tab_only() {
        assert_eq!(trim(b" \ta b\t "), b"a b");
        assert_eq!(trim(b"\x0ba\x0b"), b"\x0ba\x0b");
        assert_eq!(trim(b"  "), b"");
    }
}
