//! The status page as text: what `ringlane ctl status` and `ringlane top` have in common.

use serde_json::Value;

/// A column of a table.
pub(super) struct Column<T> {
    title: &'static str,
    flush_right: bool,
    show: fn(&T) -> String,
}

/// A column of words.
pub(super) const fn left<T>(title: &'static str, show: fn(&T) -> String) -> Column<T> {
    Column {
        title,
        flush_right: false,
        show,
    }
}

/// A column of figures.
pub(super) const fn right<T>(title: &'static str, show: fn(&T) -> String) -> Column<T> {
    Column {
        title,
        flush_right: true,
        show,
    }
}

/// Wider cells, which nobody looks for, move their line only. Rust formats no width of more than 65,535.
pub(super) const WIDTH_MAX: usize = 200;

/// A line of titles and one for each row. Columns are as wide as their widest cell, and two spaces apart.
pub(super) fn table<T>(columns: &[Column<T>], rows: &[T]) -> Vec<String> {
    let titles = columns.iter().map(|column| column.title.to_owned());
    let mut lines: Vec<Vec<String>> = vec![titles.collect()];
    let cells = |row| columns.iter().map(|column| (column.show)(row)).collect();
    lines.extend(rows.iter().map(cells));
    let width = |column: usize| {
        let widths = lines.iter().map(|cells| cells[column].chars().count());
        widths.max().unwrap_or_default().min(WIDTH_MAX)
    };
    let widths: Vec<_> = (0..columns.len()).map(width).collect();
    let line = |cells: &Vec<String>| {
        let padded = cells.iter().zip(&widths).zip(columns);
        let padded = padded.map(|((cell, width), column)| {
            if column.flush_right {
                format!("{cell:>width$}  ")
            } else {
                format!("{cell:width$}  ")
            }
        });
        padded.collect::<String>().trim_end().to_owned()
    };
    lines.iter().map(line).collect()
}

/// What runs, in a line.
pub(super) fn headline(status: &Value) -> String {
    let mut out = format!(
        "ringlane {}, pid {}, up {} s, {}",
        text(&status["version"]),
        text(&status["pid"]),
        text(&status["uptime_s"]),
        text(&status["io"]["mode"])
    );
    if status["draining"] == true {
        out += ", draining";
    }
    if status["health"]["stale"] == true {
        out += ", health is STALE";
    }
    out
}

/// Whether a shard works.
pub(super) fn shard_state(shard: &Value) -> &'static str {
    match (&shard["running"], &shard["stalled"]) {
        (Value::Bool(true), Value::Bool(true)) => "stalled",
        (Value::Bool(true), _) => "running",
        _ => "not running",
    }
}

/// The members of an array; none of anything else.
pub(super) fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// A line for the terminal: whatever another process wrote into it, it must not steer it.
pub(super) fn plain(text: &str) -> String {
    let plain = |char: char| if char.is_control() { '?' } else { char };
    text.chars().map(plain).collect()
}

/// A value as it is, and a dash where there is none.
pub(super) fn text(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// A share of 1.
pub(super) fn percent(share: &Value) -> String {
    or_dash(share.as_f64().map(|share| format!("{:.1}%", share * 100.0)))
}

/// A time in microseconds.
pub(super) fn milliseconds(us: &Value) -> String {
    or_dash(us.as_f64().map(|us| format!("{:.2}ms", us / 1e3)))
}

/// All of some counts; `None` where there are none to count.
pub(super) fn sum(counts: &Value) -> Option<u64> {
    let counts = counts.as_object()?.values();
    Some(
        counts
            .filter_map(Value::as_u64)
            .fold(0, u64::saturating_add),
    )
}

/// A dash where nothing is known.
pub(super) fn or_dash(known: Option<impl ToString>) -> String {
    known.map_or_else(|| "-".to_owned(), |known| known.to_string())
}
