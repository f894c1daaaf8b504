//! Dates for log lines and headers, in UTC: local time would cost a time zone look-up for each line.

use std::time::{SystemTime, UNIX_EPOCH};

const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];
/// The first day of the Unix epoch was a Thursday.
const WEEKDAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
/// Days in 400 years of the Gregorian calendar.
const ERA_DAYS: u64 = 146_097;

/// Whole seconds since the Unix epoch; 0 for a clock set before it.
pub fn unix_seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

/// A second in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Utc {
    year: u64,
    month: usize,
    day: u64,
    weekday: usize,
    hour: u64,
    minute: u64,
    second: u64,
}

impl Utc {
    /// The date of a number of seconds since the Unix epoch.
    ///
    /// Years are counted from 1 March, so that the leap day is a year's last. Then 153 days are each five months, and
    /// a month starts at day `(153 m + 2) / 5`.
    pub fn from_unix_seconds(seconds: u64) -> Self {
        let days = seconds / 86_400;
        // 719468 days lie between 1 March of year 0 and 1 January 1970.
        let shifted = days + 719_468;
        let (era, of_era) = (shifted / ERA_DAYS, shifted % ERA_DAYS);
        let year_of_era =
            (of_era - of_era / 1460 + of_era / 36_524 - of_era / (ERA_DAYS - 1)) / 365;
        let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let from_march = (5 * of_year + 2) / 153;
        let january_or_later = from_march >= 10;
        Self {
            year: era * 400 + year_of_era + u64::from(january_or_later),
            month: (from_march as usize + 2) % 12,
            day: of_year - (153 * from_march + 2) / 5 + 1,
            weekday: (days % 7) as usize,
            hour: seconds / 3600 % 24,
            minute: seconds / 60 % 60,
            second: seconds % 60,
        }
    }

    /// As in the common log format: `10/Oct/2000:13:55:36 +0000`.
    pub fn log(self) -> String {
        let Self {
            year,
            month,
            day,
            hour,
            minute,
            second,
            ..
        } = self;
        let month = MONTHS[month];
        format!("{day:02}/{month}/{year:04}:{hour:02}:{minute:02}:{second:02} +0000")
    }

    /// As in RFC 3339: `2000-10-10T13:55:36Z`.
    pub fn rfc3339(self) -> String {
        let Self {
            year,
            month,
            day,
            hour,
            minute,
            second,
            ..
        } = self;
        let month = month + 1;
        format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
    }

    /// As in a Date field (RFC 9110 section 5.6.7): `Tue, 10 Oct 2000 13:55:36 GMT`.
    pub fn http(self) -> String {
        let Self {
            year,
            month,
            day,
            weekday,
            hour,
            minute,
            second,
        } = self;
        let (weekday, month) = (WEEKDAYS[weekday], MONTHS[month]);
        format!("{weekday}, {day:02} {month} {year:04} {hour:02}:{minute:02}:{second:02} GMT")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_of_known_seconds() {
        let cases = [
            (0, "1970-01-01T00:00:00Z", "Thu, 01 Jan 1970 00:00:00 GMT"),
            (
                784_111_777,
                "1994-11-06T08:49:37Z",
                "Sun, 06 Nov 1994 08:49:37 GMT",
            ),
            (
                951_782_400,
                "2000-02-29T00:00:00Z",
                "Tue, 29 Feb 2000 00:00:00 GMT",
            ),
            (
                951_868_800,
                "2000-03-01T00:00:00Z",
                "Wed, 01 Mar 2000 00:00:00 GMT",
            ),
            (
                1_735_689_599,
                "2024-12-31T23:59:59Z",
                "Tue, 31 Dec 2024 23:59:59 GMT",
            ),
            (
                4_107_542_400,
                "2100-03-01T00:00:00Z",
                "Mon, 01 Mar 2100 00:00:00 GMT",
            ),
        ];
        for (seconds, rfc3339, http) in cases {
            let date = Utc::from_unix_seconds(seconds);
            assert_eq!(
                (date.rfc3339().as_str(), date.http().as_str()),
                (rfc3339, http)
            );
        }
    }

    #[test]
    fn each_day_follows_the_one_before() {
        let mut before = Utc::from_unix_seconds(0);
        for day in 1..200_000 {
            let date = Utc::from_unix_seconds(day * 86_400);
            let next_day =
                (date.year, date.month, date.day) == (before.year, before.month, before.day + 1);
            let new_month =
                date.day == 1 && before.day >= 28 && date.month == (before.month + 1) % 12;
            assert!(next_day || new_month, "{before:?} then {date:?}");
            before = date;
        }
    }

    #[test]
    fn the_common_log_format() {
        assert_eq!(
            Utc::from_unix_seconds(971_186_136).log(),
            "10/Oct/2000:13:55:36 +0000"
        );
    }
}
