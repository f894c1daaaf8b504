//! Prometheus text exposition format 0.0.4.
//!
//! The data are counters already, so a registry of metric objects would only copy them: this writes text straight away.
//! A family is written through a borrow of the whole text, so that its lines are contiguous, as the format asks.

use std::fmt::{Display, Write};
use std::time::Duration;

use super::histogram::Snapshot;

/// The Content-Type of the text.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Exponents of two, in seconds, of the buckets' upper bounds: 61 us to 64 s. These are edges of the histogram's own buckets, so
/// the counts are exact; and they are the bounds of native histograms of schema 0, so nothing is lost in between.
const LE_EXPONENTS: std::ops::RangeInclusive<i32> = -14..=6;

/// A label's name and value.
pub type Label<'a> = (&'a str, &'a str);

/// A text that grows family by family.
#[derive(Debug, Default)]
pub struct Text(String);

impl Text {
    /// Starts a family whose samples only grow. Its name ends in `_total` by convention.
    pub fn counter(&mut self, name: &'static str, help: &str) -> Family<'_> {
        self.family(name, "counter", help)
    }

    /// Starts a family of present values.
    pub fn gauge(&mut self, name: &'static str, help: &str) -> Family<'_> {
        self.family(name, "gauge", help)
    }

    /// Starts a family of distributions. Its name ends in a unit.
    pub fn histogram(&mut self, name: &'static str, help: &str) -> Family<'_> {
        self.family(name, "histogram", help)
    }

    fn family(&mut self, name: &'static str, kind: &str, help: &str) -> Family<'_> {
        let help = help.replace('\\', r"\\").replace('\n', r"\n");
        self.write(format_args!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
        Family { text: self, name }
    }

    fn write(&mut self, what: impl Display) {
        write!(self.0, "{what}").expect("a String takes all");
    }

    /// The whole text.
    pub fn finish(self) -> String {
        self.0
    }
}

/// A family that is being written.
#[derive(Debug)]
pub struct Family<'a> {
    text: &'a mut Text,
    name: &'static str,
}

impl Family<'_> {
    /// Adds a sample of a counter or gauge.
    pub fn sample(&mut self, labels: &[Label<'_>], value: impl Display) -> &mut Self {
        self.line("", labels, None, value)
    }

    /// Adds a sample of a gauge or counter where there is a value.
    pub fn maybe(&mut self, value: Option<impl Display>) {
        if let Some(value) = value {
            self.sample(&[], value);
        }
    }

    /// Adds a distribution, in seconds.
    pub fn distribution(&mut self, labels: &[Label<'_>], snapshot: &Snapshot) {
        for exponent in LE_EXPONENTS {
            let bound = power_of_two(exponent).to_string();
            self.line(
                "_bucket",
                labels,
                Some(("le", &bound)),
                snapshot.count_to_power(exponent),
            );
        }
        self.line("_bucket", labels, Some(("le", "+Inf")), snapshot.count());
        self.line(
            "_sum",
            labels,
            None,
            Duration::from_micros(snapshot.sum_us()).as_secs_f64(),
        );
        self.line("_count", labels, None, snapshot.count());
    }

    fn line(
        &mut self,
        suffix: &str,
        labels: &[Label<'_>],
        last: Option<Label<'_>>,
        value: impl Display,
    ) -> &mut Self {
        let name = self.name;
        self.text.write(format_args!("{name}{suffix}"));
        let mut before = '{';
        for (label, value) in labels.iter().copied().chain(last) {
            self.text.write(format_args!("{before}{label}=\""));
            value.chars().for_each(|char| self.label_char(char));
            self.text.write('"');
            before = ',';
        }
        let end = if before == ',' { "} " } else { " " };
        self.text.write(format_args!("{end}{value}\n"));
        self
    }

    fn label_char(&mut self, char: char) {
        match char {
            '\\' => self.text.0.push_str(r"\\"),
            '"' => self.text.0.push_str(r#"\""#),
            '\n' => self.text.0.push_str(r"\n"),
            _ => self.text.0.push(char),
        }
    }
}

/// `2^exponent`, exactly. The last bits of `exp2` are each platform's own, and would be seen in a label.
fn power_of_two(exponent: i32) -> f64 {
    let power = f64::from(1_u32 << exponent.unsigned_abs());
    if exponent < 0 { power.recip() } else { power }
}

#[cfg(test)]
mod tests {
    use super::super::histogram::Histogram;
    use super::*;

    #[test]
    fn a_family_with_labels_and_without() {
        let mut text = Text::default();
        text.counter("a_total", "Counts\na \\.")
            .sample(&[("x", "1"), ("y", "q\"\\\n\u{e9}")], 7)
            .sample(&[], 8);
        text.gauge("b", "B.").maybe(None::<u64>);
        let expected = "# HELP a_total Counts\\na \\\\.\n# TYPE a_total counter\n\
            a_total{x=\"1\",y=\"q\\\"\\\\\\n\u{e9}\"} 7\na_total 8\n# HELP b B.\n# TYPE b gauge\n";
        assert_eq!(text.finish(), expected);
    }

    #[test]
    fn a_distribution_is_cumulative_and_ends_in_the_count() {
        let histogram = Histogram::default();
        for us in [10, 61, 62, 1_000_000, 100_000_000] {
            histogram.record(us);
        }
        let mut text = Text::default();
        text.histogram("h_seconds", "H.")
            .distribution(&[("s", "a")], &histogram.snapshot());
        let text = text.finish();
        for line in [
            "h_seconds_bucket{s=\"a\",le=\"0.00006103515625\"} 2",
            "h_seconds_bucket{s=\"a\",le=\"0.0001220703125\"} 3",
            "h_seconds_bucket{s=\"a\",le=\"0.5\"} 3",
            "h_seconds_bucket{s=\"a\",le=\"1\"} 4",
            "h_seconds_bucket{s=\"a\",le=\"64\"} 4",
            "h_seconds_bucket{s=\"a\",le=\"+Inf\"} 5",
            "h_seconds_sum{s=\"a\"} 101.000133",
            "h_seconds_count{s=\"a\"} 5",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
        }
    }
}
