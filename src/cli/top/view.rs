//! What `ringlane top` shows: the status page as lines of text.

use std::cmp::{Ordering, Reverse};
use std::time::Instant;

use serde_json::Value;

use super::rows::{Mood, SERVERS, SHARDS, Server, Shard, Sort, number};
use crate::cli::table::{Column, headline, list, plain, table, text};

/// A line of the view.
#[derive(Clone, Debug)]
pub(super) struct Line {
    pub(super) text: String,
    pub(super) mood: Mood,
}

impl Line {
    fn new(mood: Mood, text: &str) -> Self {
        Self {
            text: plain(text.trim_end()),
            mood,
        }
    }
}

/// A status and when it came.
struct Taken {
    status: Value,
    at: Instant,
}

/// The last two statuses, and how to show them.
pub(super) struct View {
    sort: Sort,
    /// Servers that are scrolled away.
    first: usize,
    last: Option<Taken>,
    before: Option<Taken>,
    /// Why there is no newer status, since the last one.
    trouble: Option<(String, Instant)>,
}

impl View {
    pub(super) fn new(sort: Sort) -> Self {
        Self {
            sort,
            first: 0,
            last: None,
            before: None,
            trouble: None,
        }
    }

    /// A new status has come.
    pub(super) fn take(&mut self, status: Value, at: Instant) {
        // Counters of another process say nothing about rates.
        self.before = self
            .last
            .take()
            .filter(|last| last.status["pid"] == status["pid"]);
        self.last = Some(Taken { status, at });
        self.trouble = None;
    }

    /// None has come.
    pub(super) fn fail(&mut self, why: String, at: Instant) {
        self.trouble = Some((why, at));
    }

    pub(super) fn sort_by_next(&mut self) {
        self.sort = self.sort.next();
    }

    pub(super) fn scroll(&mut self, by: isize) {
        let servers = self
            .last
            .as_ref()
            .map_or(0, |last| self.servers(last).len());
        let first = self.first.saturating_add_signed(by);
        self.first = first.min(servers.saturating_sub(1));
    }

    /// All lines.
    pub(super) fn lines(&self) -> Vec<Line> {
        self.fitting(usize::MAX).0
    }

    /// The lines that fit into so many rows.
    pub(super) fn visible(&self, rows: usize) -> Vec<Line> {
        // The last row stays free for the cursor, the one before it tells the keys.
        let room = rows.saturating_sub(2);
        let (mut lines, hidden) = self.fitting(room);
        lines.truncate(room);
        let keys = format!("q quit   s sort ({}){hidden}", self.sort.name());
        lines.push(Line::new(Mood::Title, &keys));
        lines
    }

    /// First the shards give way, until they have half of the rows; then the servers, which can be scrolled. With what is not shown, in
    /// words.
    fn fitting(&self, rows: usize) -> (Vec<Line>, String) {
        let mut lines = self.head();
        let Some(last) = &self.last else {
            return (lines, String::new());
        };
        let mut servers = moody(&SERVERS, &self.servers(last), Server::mood);
        let mut shards = moody(&SHARDS, &self.shards(last), Shard::mood);
        let (titles, between) = ([servers.remove(0), shards.remove(0)], 2);
        let room = rows.saturating_sub(lines.len() + titles.len() + between);
        let shards_shown = room.saturating_sub(servers.len()).max(room / 2);
        let shards_hidden = shards.len().saturating_sub(shards_shown);
        if shards_hidden > 0 {
            shards.sort_by_key(|shard| Reverse(shard.mood));
            shards.truncate(shards_shown);
        }
        let servers_hidden = servers.len().saturating_sub(room - shards.len());
        servers.drain(..self.first.min(servers_hidden));
        servers.truncate(room - shards.len());
        let [servers_title, shards_title] = titles;
        lines.push(servers_title);
        lines.extend(servers);
        lines.push(Line::new(Mood::Plain, ""));
        lines.push(shards_title);
        lines.extend(shards);
        lines.push(Line::new(Mood::Plain, &imbalance(&last.status)));
        let hidden = match (servers_hidden, shards_hidden) {
            (0, 0) => String::new(),
            (servers, 0) => format!("   {servers} servers are not shown"),
            (0, shards) => format!("   {shards} shards are not shown"),
            (servers, shards) => format!("   {servers} servers, {shards} shards are not shown"),
        };
        (lines, hidden)
    }

    fn head(&self) -> Vec<Line> {
        let mut lines = Vec::new();
        if let Some((why, at)) = &self.trouble {
            let age = self.last.as_ref().map(|last| at.duration_since(last.at));
            let age = age.map_or_else(String::new, |age| format!(" for {} s", age.as_secs()));
            let text = format!("NO ANSWER{age}: {why}");
            lines.push(Line::new(Mood::Bad, &text));
        }
        let Some(last) = &self.last else {
            if lines.is_empty() {
                lines.push(Line::new(Mood::Plain, "waiting for the first answer"));
            }
            return lines;
        };
        lines.push(Line::new(Mood::Title, &headline(&last.status)));
        let totals = &last.status["totals"];
        let requests = self
            .rate(last, |status| &status["totals"]["requests"])
            .or_else(|| last.status["requests_per_s"].as_f64());
        let errors = self.rate(last, |status| &status["totals"]["responses"]["5xx"]);
        let text = format!(
            "{} requests/s   {} 5xx/s   {} connections, {} active",
            number(requests),
            number(errors),
            text(&totals["connections"]),
            text(&totals["active"]),
        );
        lines.push(Line::new(Mood::Plain, &text));
        lines.push(Line::new(Mood::Plain, ""));
        lines
    }

    /// What a counter gains in a second; `None` before the second status.
    fn rate(&self, last: &Taken, find: impl Fn(&Value) -> &Value) -> Option<f64> {
        let before = self.before.as_ref()?;
        let gained = find(&last.status)
            .as_u64()?
            .checked_sub(find(&before.status).as_u64()?)?;
        let passed = last.at.duration_since(before.at).as_secs_f64();
        (passed > 0.0).then(|| gained as f64 / passed)
    }

    fn servers(&self, last: &Taken) -> Vec<Server> {
        let mut servers = Vec::new();
        for (number, upstream) in list(&last.status["upstreams"]).iter().enumerate() {
            for (index, value) in list(&upstream["servers"]).iter().enumerate() {
                let rate = self.rate(last, |status| {
                    &status["upstreams"][number]["servers"][index]["requests"]
                });
                servers.push(Server {
                    upstream: upstream["name"].clone(),
                    rate: rate.or_else(|| value["requests_per_s"].as_f64()),
                    value: value.clone(),
                });
            }
        }
        let key = |server: &Server| self.sort.key(server);
        servers.sort_by(|a, b| key(b).partial_cmp(&key(a)).unwrap_or(Ordering::Equal));
        servers
    }

    fn shards(&self, last: &Taken) -> Vec<Shard> {
        let shards = list(&last.status["shards"]).iter().enumerate();
        let shard = |(number, value): (usize, &Value)| {
            let rate = self.rate(last, |status| &status["shards"][number]["requests"]);
            Shard {
                rate: rate.or_else(|| value["requests_per_s"].as_f64()),
                value: value.clone(),
            }
        };
        shards.map(shard).collect()
    }
}

/// A table with the mood of each row.
fn moody<T>(columns: &[Column<T>], rows: &[T], mood: fn(&T) -> Mood) -> Vec<Line> {
    let moods = std::iter::once(Mood::Title).chain(rows.iter().map(mood));
    let lines = moods.zip(table(columns, rows));
    lines.map(|(mood, text)| Line::new(mood, &text)).collect()
}

fn imbalance(status: &Value) -> String {
    status["imbalance"].as_f64().map_or_else(
        || "no requests in the last minute".to_owned(),
        |imbalance| {
            format!(
                "imbalance {imbalance:.2}: requests of the busiest shard to those of the mean one"
            )
        },
    )
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;

    fn status(requests: u64) -> Value {
        let server = |name: &str, state: &str, requests: u64, p99: u64| {
            json!({
                "name": name, "state": state, "weight": 1, "share": 0.5, "requests": requests, "active": 0, "idle": 2,
                "recent_latency": { "p50_us": 90, "p90_us": 95, "p99_us": p99 }, "failures": { "closed": 1, "connect_refused": 2 },
            })
        };
        json!({
            "version": "0", "pid": 7, "uptime_s": 3, "io": { "mode": "epoll" }, "imbalance": 1.25,
            "totals": { "requests": requests, "responses": { "5xx": 0 }, "connections": 4, "active": 1 },
            "shards": [{ "number": 0, "running": true, "stalled": false, "requests": requests, "share": 1.0 }],
            "upstreams": [{ "name": "app", "servers": [
                server("a", "up", requests, 900), server("b\u{1b}[2J", "down", 0, 7), server("c", "ejected", 2 * requests, 1200),
            ]}],
        })
    }

    fn two_statuses(sort: Sort) -> View {
        let mut view = View::new(sort);
        let start = Instant::now();
        view.take(status(100), start);
        view.take(status(160), start + Duration::from_secs(2));
        view
    }

    fn shown(lines: &[Line]) -> String {
        let lines: Vec<_> = lines.iter().map(|line| &*line.text).collect();
        lines.join("\n")
    }

    #[test]
    fn rates_are_of_the_last_two_statuses() {
        let text = shown(&two_statuses(Sort::Configured).lines());
        assert!(text.contains("30.0 requests/s   0.0 5xx/s"), "{text}");
        let server = text.lines().find(|line| line.starts_with("app       c"));
        let cells: Vec<_> = server.expect("c").split_whitespace().collect();
        assert_eq!(
            cells[2..7],
            ["ejected", "-", "1", "50.0%", "60.0"],
            "{text}"
        );
        assert_eq!(cells[11..13], ["1.20ms", "3"], "{text}");
        assert!(text.contains("imbalance 1.25"), "{text}");
    }

    #[test]
    fn each_order_puts_its_first_server_first() {
        for (sort, first) in [
            (Sort::Configured, "a"),
            (Sort::State, "b?[2J"),
            (Sort::Requests, "c"),
            (Sort::P99, "c"),
        ] {
            let lines = two_statuses(sort).lines();
            let title = lines.iter().position(|line| line.text.contains("REASON"));
            let row = &lines[title.expect("a table") + 1].text;
            assert_eq!(row.split_whitespace().nth(1), Some(first), "{sort:?}");
        }
    }

    #[test]
    fn orders_show_and_are_no_trouble() {
        let mut view = View::new(Sort::Configured);
        let mut status = status(1);
        let server = &mut status["upstreams"][0]["servers"][1];
        server["order"] = json!("down");
        server["weight"] = json!(5);
        server["configured_weight"] = json!(1);
        view.take(status, Instant::now());
        let lines = view.lines();
        let line = lines.iter().find(|line| line.text.contains("b?[2J"));
        let line = line.expect("the server");
        let cells: Vec<_> = line.text.split_whitespace().collect();
        assert_eq!(cells[2..6], ["down", "down", "5", "(1)"], "{}", line.text);
        assert_eq!(line.mood, Mood::Warning);
    }

    #[test]
    fn nothing_in_a_name_steers_the_terminal() {
        let text = shown(&two_statuses(Sort::Configured).lines());
        assert!(text.chars().all(|char| char == '\n' || !char.is_control()));
    }

    #[test]
    fn servers_give_way_where_rows_are_few_and_can_be_scrolled() {
        let mut view = two_statuses(Sort::Configured);
        assert_eq!(view.visible(100).len(), view.lines().len() + 1);
        let few = view.lines().len();
        let text = shown(&view.visible(few));
        assert!(
            text.contains("2 servers are not shown") && text.contains("app       a"),
            "{text}"
        );
        view.scroll(1);
        let text = shown(&view.visible(few));
        assert!(
            text.contains("app       b?") && !text.contains("app       a"),
            "{text}"
        );
        for rows in 0..12 {
            view.scroll(1);
            assert!(view.visible(rows).len() <= rows.max(1), "{rows} rows");
        }
    }

    #[test]
    fn many_shards_leave_rows_for_the_servers() {
        let mut view = View::new(Sort::Configured);
        let mut status = status(1);
        let shard =
            |number| json!({ "number": number, "running": number != 40, "stalled": number == 50 });
        status["shards"] = (0..64).map(shard).collect();
        view.take(status, Instant::now());
        let text = shown(&view.visible(24));
        assert_eq!(text.matches("\napp ").count(), 3, "{text}");
        assert!(text.contains("imbalance"), "{text}");
        assert!(text.contains("   52 shards are not shown"), "{text}");
        let of_shards = text.split_once("\nSHARD").expect("a table").1;
        let numbers: Vec<_> = of_shards.lines().skip(1).take(4).collect();
        let starts = ["40 ", "50 ", "0 ", "1 "];
        assert!(
            numbers
                .iter()
                .zip(starts)
                .all(|(line, start)| line.starts_with(start)),
            "those in trouble first: {text}"
        );
    }

    #[test]
    fn a_proxy_that_does_not_answer_shows_first() {
        let mut view = two_statuses(Sort::Configured);
        let at = view.last.as_ref().expect("taken").at + Duration::from_secs(5);
        view.fail("nobody listens there".to_owned(), at);
        let lines = view.lines();
        assert_eq!(lines[0].text, "NO ANSWER for 5 s: nobody listens there");
        assert_eq!(lines[0].mood, Mood::Bad);
        assert!(
            shown(&lines).contains("app       c"),
            "what was known stays"
        );
    }
}
