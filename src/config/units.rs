//! Durations, sizes and CPU lists as people write them.

use std::fmt;
use std::time::Duration;

use super::complaint::Flaw;

const DURATION_UNITS: [(&str, u64); 5] = [
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1000),
    ("ms", 1),
];

const SIZE_UNITS: [(&str, u64); 6] = [
    ("PiB", 1 << 50),
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("B", 1),
];

/// CPUs that an affinity mask of the C library can name (`CPU_SETSIZE`, sched.h).
const CPUS_MAX: usize = 1024;

/// Reads a duration such as `500ms`, `10s` or `1h30m`: whole numbers, each with its unit, larger units first.
pub(super) fn duration(text: &str) -> Result<Duration, Flaw> {
    let wrong = || {
        Flaw::new(format!("`{text}` is not a duration"))
            .help(r#"write "500ms", "10s", "1m30s" or "1h""#)
    };
    let mut rest = text;
    let mut units = DURATION_UNITS.iter();
    let mut total: u64 = 0;
    while !rest.is_empty() {
        let (number, unit, after) = term(rest).ok_or_else(wrong)?;
        // The iterator goes on from the last unit found, so units can only get smaller.
        let (_, milliseconds) = units.find(|(name, _)| *name == unit).ok_or_else(wrong)?;
        total = number
            .checked_mul(*milliseconds)
            .and_then(|part| total.checked_add(part))
            .ok_or_else(|| Flaw::new(format!("`{text}` is too long a duration")))?;
        rest = after;
    }
    if text.is_empty() {
        Err(wrong())
    } else {
        Ok(Duration::from_millis(total))
    }
}

/// Reads a size in bytes such as `32KiB`, `1MiB` or `4096`.
pub(super) fn size(text: &str) -> Result<u64, Flaw> {
    let wrong = || {
        Flaw::new(format!("`{text}` is not a size"))
            .help(r#"write "512B", "32KiB", "1MiB" or "2GiB""#)
    };
    let (number, unit, rest) = term(text).ok_or_else(wrong)?;
    let found = SIZE_UNITS
        .iter()
        .find(|(name, _)| *name == unit || unit.is_empty() && *name == "B");
    match found {
        Some((_, bytes)) if rest.is_empty() => number
            .checked_mul(*bytes)
            .ok_or_else(|| Flaw::new(format!("`{text}` is too large a size"))),
        _ => Err(wrong()),
    }
}

/// Splits off the first number and the letters that follow it.
fn term(text: &str) -> Option<(u64, &str, &str)> {
    let unit_start = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (digits, rest) = text.split_at(unit_start);
    let unit_end = rest
        .find(|c: char| !c.is_ascii_alphabetic())
        .unwrap_or(rest.len());
    let (unit, after) = rest.split_at(unit_end);
    Some((digits.parse().ok()?, unit, after))
}

/// Reads a CPU list as taskset(1) writes it: `0-3,8`. The answer is ascending.
pub(super) fn cpu_list(text: &str) -> Result<Vec<usize>, Flaw> {
    let mut cpus = Vec::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (cpu(first)?, cpu(last)?);
        if first > last {
            return Err(Flaw::new(format!("the CPU range `{part}` runs backwards"))
                .help(format!("write {last}-{first}")));
        }
        cpus.extend(first..=last);
    }
    cpus.sort_unstable();
    let count = cpus.len();
    cpus.dedup();
    if cpus.len() < count {
        return Err(Flaw::new(format!("`{text}` names a CPU twice")));
    }
    Ok(cpus)
}

fn cpu(text: &str) -> Result<usize, Flaw> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse() {
        Ok(cpu) if digits && cpu < CPUS_MAX => Ok(cpu),
        _ if digits => Err(Flaw::new(format!(
            "CPU {text} is beyond {}, the last one possible",
            CPUS_MAX - 1
        ))),
        _ => Err(Flaw::new(format!("`{text}` is not a CPU number"))
            .help(r#"write a list such as "0-3,8""#)),
    }
}

/// Writes a duration as the file takes it, in the largest unit that leaves no rest: `75s`. Parts of a millisecond are left out.
#[derive(Clone, Copy, Debug)]
pub struct Span(pub Duration);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let total = self.0.as_millis();
        let fits = |unit: u64| total > 0 && total.is_multiple_of(u128::from(unit));
        let fitting = DURATION_UNITS.iter().find(|(_, unit)| fits(*unit));
        let (name, unit) = fitting.unwrap_or(&("s", 1000));
        write!(f, "{}{name}", total / u128::from(*unit))
    }
}

/// Writes a size in bytes as the file takes it, in the largest unit that leaves no rest: `32KiB`.
#[derive(Clone, Copy, Debug)]
pub struct Size(pub u64);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fitting = SIZE_UNITS
            .iter()
            .find(|(_, bytes)| self.0 > 0 && self.0.is_multiple_of(*bytes));
        let (unit, bytes) = fitting.unwrap_or(&("B", 1));
        write!(f, "{}{unit}", self.0 / bytes)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations() {
        let cases = [
            ("500ms", Some(500)),
            ("10s", Some(10_000)),
            ("1m30s", Some(90_000)),
            ("1h", Some(3_600_000)),
            ("1d2h3m4s5ms", Some(93_784_005)),
            ("0s", Some(0)),
            ("007s", Some(7000)),
            ("", None),
            ("10", None),
            ("s", None),
            ("-1s", None),
            ("+1s", None),
            ("1.5s", None),
            ("1 s", None),
            (" 1s", None),
            ("1s ", None),
            ("30s1m", None),
            ("1s1s", None),
            ("10sec", None),
            ("1H", None),
            ("1s2", None),
            ("١s", None),
            ("18446744073709551616ms", None),
            ("18446744073709551615d", None),
            ("213503982334d18446744073709551615ms", None),
        ];
        for (text, milliseconds) in cases {
            assert_eq!(
                duration(text).ok(),
                milliseconds.map(Duration::from_millis),
                "{text:?}"
            );
        }
    }

    #[test]
    fn sizes() {
        let cases = [
            ("4096", Some(4096)),
            ("0", Some(0)),
            ("512B", Some(512)),
            ("32KiB", Some(32 << 10)),
            ("1MiB", Some(1 << 20)),
            ("2GiB", Some(2 << 30)),
            ("3TiB", Some(3 << 40)),
            ("1PiB", Some(1 << 50)),
            ("", None),
            ("KiB", None),
            ("32 KiB", None),
            ("32kib", None),
            ("32K", None),
            ("32KB", None),
            ("1MiB1KiB", None),
            ("1.5MiB", None),
            ("-1", None),
            ("18446744073709551615PiB", None),
        ];
        for (text, bytes) in cases {
            assert_eq!(size(text).ok(), bytes, "{text:?}");
        }
    }

    #[test]
    fn cpu_lists() {
        let cases: [(&str, Option<&[usize]>); 18] = [
            ("0", Some(&[0])),
            ("0-3,8", Some(&[0, 1, 2, 3, 8])),
            ("8,0-3", Some(&[0, 1, 2, 3, 8])),
            ("5-5", Some(&[5])),
            ("1023", Some(&[1023])),
            ("1024", None),
            ("", None),
            (",", None),
            ("0,", None),
            ("3-0", None),
            ("0-3,2", None),
            ("1,1", None),
            ("-1", None),
            ("+1", None),
            ("0-", None),
            ("0 ,1", None),
            ("0-1-2", None),
            ("0-99999999999999999999", None),
        ];
        for (text, cpus) in cases {
            assert_eq!(cpu_list(text).ok().as_deref(), cpus, "{text:?}");
        }
    }

    #[test]
    fn sizes_are_written_in_the_largest_exact_unit() {
        let cases = [
            (0, "0B"),
            (1, "1B"),
            (1024, "1KiB"),
            (1025, "1025B"),
            (3 << 20, "3MiB"),
            (u64::MAX, "18446744073709551615B"),
        ];
        for (bytes, text) in cases {
            assert_eq!(Size(bytes).to_string(), text);
        }
    }

    #[test]
    fn durations_are_written_in_the_largest_exact_unit() {
        let cases = [
            (0, "0s"),
            (1, "1ms"),
            (1500, "1500ms"),
            (60_000, "1m"),
            (75_000, "75s"),
            (3_600_000, "1h"),
            (86_400_000, "1d"),
        ];
        for (milliseconds, text) in cases {
            assert_eq!(Span(Duration::from_millis(milliseconds)).to_string(), text);
        }
    }

    proptest! {
        #[test]
        fn a_written_duration_reads_back(milliseconds: u64) {
            let span = Duration::from_millis(milliseconds);
            prop_assert_eq!(duration(&Span(span).to_string()).ok(), Some(span));
        }

        #[test]
        fn a_written_size_reads_back(number: u64, shift in 0..64) {
            let bytes = number >> shift << (shift / 2);
            prop_assert_eq!(size(&Size(bytes).to_string()).ok(), Some(bytes));
        }

        #[test]
        fn a_written_cpu_list_reads_back(cpus in prop::collection::btree_set(0..CPUS_MAX, 1..20)) {
            let cpus: Vec<usize> = cpus.into_iter().collect();
            let text: Vec<String> = cpus.iter().map(ToString::to_string).collect();
            prop_assert_eq!(cpu_list(&text.join(",")).ok(), Some(cpus));
        }

        #[test]
        fn no_text_panics(text in "[0-9a-zA-Z,. +-]{0,24}|\\PC*") {
            let _ = (duration(&text), size(&text), cpu_list(&text));
        }
    }
}
