//! Cases as the files in `cases/` have them; `docs/conformance.md` explains the lines.

use super::text;

/// What depends on a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    /// Broken, somebody's requests or answers can be changed, mixed up or held up by somebody else.
    Security,
    /// Broken, messages are lost, damaged or misunderstood.
    Correctness,
    /// Better this way, but a MAY, a SHOULD or good manners.
    Quality,
}

impl Level {
    pub(crate) const ALL: [Self; 3] = [Self::Security, Self::Correctness, Self::Quality];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Security => "security",
            Self::Correctness => "correctness",
            Self::Quality => "quality",
        }
    }
}

/// What the client does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Send(Vec<u8>),
    /// Wait a moment, so that what follows comes by itself.
    Pause,
    /// Wait for this many answers in all.
    Await(usize),
    /// Close the sending half.
    Finish,
}

/// What the origin does when a request has come.
#[derive(Clone, Debug, Default)]
pub(crate) struct Script {
    /// Pieces of the answer, a moment apart.
    pub(crate) pieces: Vec<Vec<u8>>,
    /// Answer when the head is there, without waiting for the body.
    pub(crate) early: bool,
    pub(crate) end: Option<OriginEnd>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OriginEnd {
    Close,
    Reset,
}

/// One way in which a case may end well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The origin gets the requests that `got` lists and no others, the client the answers.
    Passed,
    /// An error of the proxy's own with one of these statuses (any, where there are none) takes the place of the rest.
    Refused(Vec<u16>),
    /// The client gets its answers before the origin has got the last request whole; that request's connection goes no further.
    Answered,
    /// The client sees that its answer is not whole.
    Cut,
    /// The connection ends without a word.
    Closed,
}

/// What a message must be like.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wanted {
    /// `METHOD TARGET` of a request, the status of an answer.
    pub(crate) start: String,
    pub(crate) body: Option<Vec<u8>>,
    /// Fields that must be there: a name, or a name and the whole value.
    pub(crate) has: Vec<String>,
    /// Fields that must not: a name, or a name and a part of the value.
    pub(crate) lacks: Vec<String>,
    /// Fields of the trailer section that must be there.
    pub(crate) trailers: Vec<String>,
    /// Bytes that stand nowhere in the message as it came.
    pub(crate) raw_lacks: Vec<Vec<u8>>,
}

/// Whether the client's connection goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Persistence {
    Any,
    Open,
    Closed,
}

#[derive(Clone, Debug)]
pub(crate) struct Case {
    /// `topic::name`.
    pub(crate) name: String,
    pub(crate) level: Level,
    /// Where the rule stands.
    pub(crate) rule: String,
    pub(crate) about: String,
    pub(crate) client: Vec<Step>,
    /// For the first request, the second, ...; further ones get a plain 200.
    pub(crate) origin: Vec<Script>,
    pub(crate) outcomes: Vec<Outcome>,
    /// With [`Outcome::Refused`]: requests that pass before the one that is refused.
    pub(crate) before: usize,
    pub(crate) got: Vec<Wanted>,
    pub(crate) answers: Vec<Wanted>,
    pub(crate) persistence: Persistence,
    /// Another request follows on the connection. Not where the last one is left unfinished on purpose.
    pub(crate) probe: bool,
    /// The client may get interim responses.
    pub(crate) interims: bool,
    /// What the origin gets through a tunnel.
    pub(crate) tunnel: Option<Vec<u8>>,
    /// What the client gets through it.
    pub(crate) tunnel_answer: Vec<u8>,
}

impl Case {
    fn new(topic: &str, heading: &str) -> Result<Self, String> {
        let malformed = || format!("not `[name] level, rule: about`: {heading}");
        let (name, rest) = heading
            .strip_prefix('[')
            .and_then(|rest| rest.split_once("] "))
            .ok_or_else(malformed)?;
        let (level, rest) = rest.split_once(", ").ok_or_else(malformed)?;
        let (rule, about) = rest.split_once(": ").ok_or_else(malformed)?;
        Ok(Self {
            name: format!("{topic}::{name}"),
            level: Level::ALL
                .into_iter()
                .find(|each| each.name() == level)
                .ok_or_else(malformed)?,
            rule: rule.to_owned(),
            about: about.to_owned(),
            client: Vec::new(),
            origin: Vec::new(),
            outcomes: Vec::new(),
            before: 0,
            got: Vec::new(),
            answers: Vec::new(),
            persistence: Persistence::Any,
            probe: true,
            interims: true,
            tunnel: None,
            tunnel_answer: Vec::new(),
        })
    }

    /// Takes one `key: value` line.
    fn line(&mut self, key: &str, value: &str) -> Result<(), String> {
        match key {
            "client" => self.client.push(Step::Send(text::bytes(value)?)),
            "client-then" => {
                self.client.push(Step::Pause);
                self.client.push(Step::Send(text::bytes(value)?));
            }
            "client-awaits" => self.client.push(Step::Await(number(value)?)),
            "client-finishes" => self.client.push(Step::Finish),
            "origin" => self.origin.push(Script {
                pieces: vec![text::bytes(value)?],
                ..Script::default()
            }),
            "origin-then" => last(&mut self.origin)?.pieces.push(text::bytes(value)?),
            "origin-early" => last(&mut self.origin)?.early = true,
            "origin-closes" => last(&mut self.origin)?.end = Some(OriginEnd::Close),
            "origin-resets" => last(&mut self.origin)?.end = Some(OriginEnd::Reset),
            "expect" => {
                self.outcomes = value.split(" | ").map(outcome).collect::<Result<_, _>>()?;
            }
            "before" => self.before = number(value)?,
            "got" => self.got.push(Wanted::starting(&decoded(value)?)),
            "answer" => self.answers.push(Wanted::starting(value)),
            "end" => self.persistence = persistence(value)?,
            "probe" if value == "no" => self.probe = false,
            "interims" if value == "no" => self.interims = false,
            "tunnel-answer" => self.tunnel_answer = text::bytes(value)?,
            "tunnel" => self.tunnel = Some(text::bytes(value)?),
            _ => self.detail(key, value)?,
        }
        Ok(())
    }

    /// A line about the message named last.
    fn detail(&mut self, key: &str, value: &str) -> Result<(), String> {
        let (messages, what) = if let Some(what) = key.strip_prefix("got-") {
            (&mut self.got, what)
        } else if let Some(what) = key.strip_prefix("answer-") {
            (&mut self.answers, what)
        } else {
            return Err(format!("unknown line `{key}`"));
        };
        let message = last(messages)?;
        match what {
            "body" => message.body = Some(text::bytes(value)?),
            "has" => message.has.push(value.to_owned()),
            "lacks" => message.lacks.push(value.to_owned()),
            "trailer" => message.trailers.push(value.to_owned()),
            "raw-lacks" => message.raw_lacks.push(text::bytes(value)?),
            _ => return Err(format!("unknown line `{key}`")),
        }
        Ok(())
    }

    /// Fills in what the file leaves out.
    fn complete(mut self) -> Result<Self, String> {
        const PLAIN: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
        if self.client.is_empty() {
            self.client.push(Step::Send(PLAIN.to_vec()));
        }
        if self.outcomes.is_empty() {
            return Err("no `expect` line".to_owned());
        }
        if self.got.is_empty() {
            if self.origin.is_empty() && self.outcomes.contains(&Outcome::Passed) {
                return Err("`passed` without a `got` line".to_owned());
            }
            self.got = vec![Wanted::starting("GET /"); self.origin.len()];
        }
        if self.answers.is_empty() {
            self.answers = vec![Wanted::starting("200"); self.got.len()];
        }
        Ok(self)
    }
}

impl Wanted {
    fn starting(start: &str) -> Self {
        Self {
            start: start.to_owned(),
            ..Self::default()
        }
    }
}

fn last<T>(list: &mut [T]) -> Result<&mut T, String> {
    list.last_mut()
        .ok_or_else(|| "nothing that this line could be about".to_owned())
}

/// A start line, which may have repetitions in it.
fn decoded(text: &str) -> Result<String, String> {
    String::from_utf8(text::bytes(text)?).map_err(|_| format!("not UTF-8: {text}"))
}

fn number(text: &str) -> Result<usize, String> {
    text.parse().map_err(|_| format!("not a number: {text}"))
}

fn persistence(text: &str) -> Result<Persistence, String> {
    match text {
        "open" => Ok(Persistence::Open),
        "closed" => Ok(Persistence::Closed),
        _ => Err(format!("neither open nor closed: {text}")),
    }
}

fn outcome(text: &str) -> Result<Outcome, String> {
    let mut words = text.split(' ');
    match words.next() {
        Some("passed") => Ok(Outcome::Passed),
        Some("answered") => Ok(Outcome::Answered),
        Some("cut") => Ok(Outcome::Cut),
        Some("closed") => Ok(Outcome::Closed),
        Some("refused") => words
            .map(|word| word.parse().map_err(|_| format!("not a status: {word}")))
            .collect::<Result<_, _>>()
            .map(Outcome::Refused),
        _ => Err(format!("unknown outcome `{text}`")),
    }
}

/// Reads one file. An error names topic and line.
pub(crate) fn parse(topic: &str, file: &str) -> Result<Vec<Case>, String> {
    let mut cases: Vec<Case> = Vec::new();
    for (at, line) in file.lines().enumerate() {
        let place = |error: String| format!("{topic}, line {}: {error}", at + 1);
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if line.starts_with('[') {
            cases.push(Case::new(topic, line).map_err(place)?);
            continue;
        }
        let (key, value) = line
            .split_once(':')
            .ok_or_else(|| place("no colon".to_owned()))?;
        last(&mut cases)
            .and_then(|case| case.line(key, value.strip_prefix(' ').unwrap_or(value)))
            .map_err(place)?;
    }
    cases
        .into_iter()
        .map(|case| {
            let name = case.name.clone();
            case.complete().map_err(|error| format!("{name}: {error}"))
        })
        .collect()
}
