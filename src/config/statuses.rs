//! A set of HTTP statuses, as in `2xx,3xx,401,500-503`.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

/// Status codes of final responses, 200 to 599.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Statuses {
    ranges: Vec<RangeInclusive<u16>>,
}

/// What is wrong with a list of statuses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadStatuses {
    part: String,
}

impl fmt::Display for BadStatuses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "`{}` is no status: write a code (204), a class (2xx) or a range (200-299), from 200 to 599, with commas between",
            self.part
        )
    }
}

impl std::error::Error for BadStatuses {}

impl Statuses {
    /// Whether the status is in the set.
    pub fn contains(&self, status: u16) -> bool {
        self.ranges.iter().any(|range| range.contains(&status))
    }
}

/// As the file writes it.
impl fmt::Display for Statuses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, range) in self.ranges.iter().enumerate() {
            let comma = if number == 0 { "" } else { "," };
            let (first, last) = (range.start(), range.end());
            if first == last {
                write!(f, "{comma}{first}")?;
            } else {
                write!(f, "{comma}{first}-{last}")?;
            }
        }
        Ok(())
    }
}

impl FromStr for Statuses {
    type Err = BadStatuses;

    fn from_str(text: &str) -> Result<Self, BadStatuses> {
        let range = |part: &str| {
            let part = part.trim();
            parse_range(part).ok_or_else(|| BadStatuses {
                part: part.to_owned(),
            })
        };
        Ok(Self {
            ranges: text.split(',').map(range).collect::<Result<_, _>>()?,
        })
    }
}

fn parse_range(part: &str) -> Option<RangeInclusive<u16>> {
    if let Some(class) = part.strip_suffix("xx") {
        let class = code(&format!("{class}00"))?;
        return Some(class..=class + 99);
    }
    let (first, last) = part.split_once('-').unwrap_or((part, part));
    let range = code(first.trim())?..=code(last.trim())?;
    (!range.is_empty()).then_some(range)
}

fn code(text: &str) -> Option<u16> {
    let digits = text.len() == 3 && text.bytes().all(|byte| byte.is_ascii_digit());
    digits
        .then(|| text.parse().ok())?
        .filter(|code| (200..600).contains(code))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_classes_and_ranges_are_read() {
        let statuses: Statuses = "2xx, 302,400-403".parse().expect("well formed");
        for (status, expected) in [
            (199, false),
            (200, true),
            (299, true),
            (300, false),
            (302, true),
            (403, true),
            (404, false),
        ] {
            assert_eq!(statuses.contains(status), expected, "{status}");
        }
    }

    #[test]
    fn they_are_written_as_codes_and_ranges() {
        let statuses: Statuses = "5xx, 404,400-403".parse().expect("well formed");
        assert_eq!(statuses.to_string(), "500-599,404,400-403");
    }

    #[test]
    fn what_is_no_status_is_named() {
        for text in [
            "", "2x", "xx", "1xx", "6xx", "0xx", "20", "2000", "+20", "300-200", "200,,201",
            "200-", "a-b", "2\u{e9}x",
        ] {
            assert!(text.parse::<Statuses>().is_err(), "{text}");
        }
        let error = "2xx,abc".parse::<Statuses>().expect_err("abc");
        assert!(error.to_string().starts_with("`abc` is no status"));
    }
}
