//! The secret that orders to the status listener carry.

use std::fmt;
use std::fs;
use std::hint::black_box;
use std::io::Read as _;
use std::path::Path;

use super::complaint::{Complaints, Flaw};
use super::reader::Reader;
use super::secrecy;

/// Shorter ones can be guessed.
const CHARS_MIN: usize = 16;
const CHARS_MAX: usize = 256;
/// Of a token file, line end included.
const FILE_BYTES_MAX: u64 = 1024;

/// A bearer token (RFC 6750 section 2.1). It does not show in debug output.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// Whether this is the token. The time it takes tells the length and nothing else.
    pub fn is(&self, given: &[u8]) -> bool {
        let own = self.0.as_bytes();
        let differ = |(own, given): (&u8, &u8)| own ^ given;
        let pairs = own.iter().zip(given).map(differ);
        // The black box keeps the compiler from leaving at the first difference.
        let difference = pairs.fold(0, |sum, bits| black_box(sum | bits));
        own.len() == given.len() && difference == 0
    }

    /// The token, to send it.
    pub fn secret(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

/// The error is a sentence for people that does not repeat the text.
impl std::str::FromStr for Token {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let good = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+/".contains(&byte);
        if !text.trim_end_matches('=').bytes().all(good) {
            return Err("a token has letters, digits and -._~+/ only, and = at its end".to_owned());
        }
        if !(CHARS_MIN..=CHARS_MAX).contains(&text.len()) {
            let length = text.len();
            return Err(format!(
                "a token has {CHARS_MIN} to {CHARS_MAX} characters, not {length}"
            ));
        }
        Ok(Self(text.to_owned()))
    }
}

/// Reads a token from a file: one line, space around it ignored. The error is a sentence for people, without the file's name.
pub fn read_token(path: &Path) -> Result<Token, String> {
    let read = || {
        let mut text = String::new();
        let file = fs::File::open(path)?;
        file.take(FILE_BYTES_MAX).read_to_string(&mut text)?;
        Ok(text)
    };
    let text = read().map_err(|error: std::io::Error| format!("it cannot be read: {error}"))?;
    text.trim().parse()
}

/// The token of `[admin]`, from either key.
pub(super) fn token(table: &Reader<'_>, complaints: &Complaints<'_>) -> Option<Token> {
    let given = table.parsed("token", |text| text.parse().map_err(flaw));
    let Some(path) = table.text("token_file") else {
        return given;
    };
    let span = path.span();
    if table.changes("token") {
        let flaw = Flaw::new("token and token_file are both given");
        complaints.error(&span, flaw.help("remove one of them"));
        return None;
    }
    let name = secrecy::file_name(path.get_ref());
    let path = Path::new(path.into_inner());
    let read = read_token(path).map_err(|error| flaw(format!("{name}: {error}")).of("token_file"));
    let token = complaints.check(&span, read)?;
    secrecy::check_file(path, &span, complaints);
    Some(token)
}

fn flaw(error: String) -> Flaw {
    Flaw::new(error).help("`openssl rand -hex 24` makes a good token")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens() {
        let long = "a".repeat(256);
        let cases = [
            ("0123456789abcdef", true),
            ("AZaz09-._~+/AZaz==", true),
            (&long, true),
            ("0123456789abcde", false),
            ("0123456789=abcdef", false),
            ("0123456789 abcdef", false),
            ("0123456789abcdef\n", false),
            ("0123456789abcdé", false),
            ("", false),
            (&format!("{long}a"), false),
        ];
        for (text, good) in cases {
            assert_eq!(text.parse::<Token>().is_ok(), good, "{text:?}");
        }
    }

    #[test]
    fn only_the_token_itself_is_the_token_and_it_does_not_show() {
        let token: Token = "0123456789abcdef".parse().expect("a token");
        assert!(token.is(b"0123456789abcdef"));
        for other in [
            "",
            "0123456789abcde",
            "0123456789abcdef0",
            "0123456789abcdeF",
            "x123456789abcdef",
        ] {
            assert!(!token.is(other.as_bytes()), "{other}");
        }
        assert_eq!(format!("{token:?}"), "Token(..)");
    }
}
