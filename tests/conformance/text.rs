//! Bytes as the case files write them.

/// The bytes of `text`: `\r`, `\n`, `\t`, `\0`, `\\`, `\xNN`, and `\{...*N}` for N times what stands between.
pub(crate) fn bytes(text: &str) -> Result<Vec<u8>, String> {
    let mut out = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        out.extend_from_slice(&rest.as_bytes()[..at]);
        rest = escape(&rest[at + 1..], &mut out)?;
    }
    out.extend_from_slice(rest.as_bytes());
    Ok(out)
}

/// Reads what follows a backslash; gives what follows that.
fn escape<'a>(text: &'a str, out: &mut Vec<u8>) -> Result<&'a str, String> {
    let mut rest = text.chars();
    match rest.next() {
        Some('r') => out.push(b'\r'),
        Some('n') => out.push(b'\n'),
        Some('t') => out.push(b'\t'),
        Some('0') => out.push(0),
        Some('\\') => out.push(b'\\'),
        Some('x') => {
            let digits = text.get(1..3).ok_or("\\x without two digits")?;
            out.push(u8::from_str_radix(digits, 16).map_err(|_| format!("not \\xNN: {digits}"))?);
            return Ok(&text[3..]);
        }
        Some('{') => return repeat(&text[1..], out),
        other => return Err(format!("unknown escape {other:?}")),
    }
    Ok(rest.as_str())
}

fn repeat<'a>(text: &'a str, out: &mut Vec<u8>) -> Result<&'a str, String> {
    let (inside, rest) = text.split_once('}').ok_or("\\{ without }")?;
    let (part, times) = inside.rsplit_once('*').ok_or("\\{ without *")?;
    let times: usize = times
        .parse()
        .map_err(|_| format!("not a number: {times}"))?;
    out.extend(bytes(part)?.repeat(times));
    Ok(rest)
}

/// The start of `bytes`, fit to be read by people.
pub(crate) fn show(bytes: &[u8]) -> String {
    const SHOWN: usize = 600;
    let start = bytes[..bytes.len().min(SHOWN)].escape_ascii();
    if bytes.len() > SHOWN {
        format!("{start}... ({} bytes)", bytes.len())
    } else {
        start.to_string()
    }
}
