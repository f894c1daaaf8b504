//! Whether what was seen is what the rule asks for.

use super::case::{Case, Level, Outcome, Persistence, Wanted};
use super::client::{End, Observed};
use super::message::{Fields, Message};
use super::text::show;

/// Why a case fails, or nothing.
pub(crate) fn judge(case: &Case, seen: &Observed) -> Result<(), String> {
    clean(seen)?;
    let mut complaints = Vec::new();
    for outcome in &case.outcomes {
        let verdict = match outcome {
            Outcome::Passed => passed(case, seen),
            Outcome::Refused(statuses) => refused(case, seen, statuses),
            Outcome::Answered => answered(case, seen),
            Outcome::Cut => cut(case, seen),
            Outcome::Closed => closed(case, seen),
        };
        match verdict {
            Ok(()) => return Ok(()),
            Err(complaint) => complaints.push(format!("not {outcome:?}: {complaint}")),
        }
    }
    Err(format!("{}\n{}", complaints.join("; "), account(seen)))
}

/// What holds for every case: nobody gets a malformed message, and nobody else's answers are touched.
fn clean(seen: &Observed) -> Result<(), String> {
    if let Some(malformed) = seen.origin.malformed.first() {
        return Err(format!("the origin got what is malformed: {malformed}"));
    }
    if let Some(complaint) = &seen.answers.complaint {
        let rest = show(&seen.answers.rest);
        return Err(format!(
            "the client got what is malformed: {complaint}: {rest}"
        ));
    }
    match &seen.poisoned {
        Some(poisoned) => Err(poisoned.clone()),
        None => Ok(()),
    }
}

fn account(seen: &Observed) -> String {
    let list = |messages: &[Message]| -> String {
        let texts: Vec<String> = messages.iter().map(|each| show(&each.raw)).collect();
        texts.join(" | ")
    };
    format!(
        "    origin got: {} (unfinished: {}; probes: {:?}; tunnel: {})\n    client got: {} (then: {}; end: {:?}; went on: {})",
        list(&seen.origin.requests),
        show(&seen.origin.unfinished.concat()),
        seen.origin.probes,
        show(&seen.origin.tunnel),
        list(&seen.answers.messages),
        show(&seen.answers.rest),
        seen.end,
        seen.went_on,
    )
}

fn passed(case: &Case, seen: &Observed) -> Result<(), String> {
    all_match(&case.got, &seen.origin.requests, "the origin")?;
    answers_match(case, seen)?;
    if case.probe && seen.origin.unfinished.iter().any(|rest| !rest.is_empty()) {
        return Err("the origin got an unfinished request".to_owned());
    }
    if let Some(tunnel) = &case.tunnel {
        if &seen.origin.tunnel != tunnel || seen.answers.rest != case.tunnel_answer {
            return Err("the tunnel carried other bytes".to_owned());
        }
    } else if !seen.answers.rest.is_empty() {
        return Err("the client got bytes beyond its answers".to_owned());
    }
    match case.persistence {
        Persistence::Open if !seen.went_on => Err("the connection did not go on".to_owned()),
        Persistence::Closed if seen.went_on => Err("the connection went on".to_owned()),
        Persistence::Closed if seen.end.is_none() => Err("the connection did not end".to_owned()),
        _ if case.probe && !seen.went_on && seen.end.is_none() => {
            Err("the connection hangs".to_owned())
        }
        _ => Ok(()),
    }
}

/// Interim responses may be left out, or added, unless the case wants one with certain fields.
fn answers_match(case: &Case, seen: &Observed) -> Result<(), String> {
    let is_interim = |start: &str| start.starts_with('1') && start != "101";
    if !case.interims
        && seen
            .answers
            .messages
            .iter()
            .any(|each| is_interim(&each.start))
    {
        return Err("the client got an interim response".to_owned());
    }
    let mut got = seen.answers.messages.iter().peekable();
    let mut kept = Vec::new();
    for wanted in &case.answers {
        let optional = is_interim(&wanted.start) && wanted.has.is_empty();
        while let Some(each) = got.next_if(|each| is_interim(&each.start)) {
            if each.start == wanted.start {
                kept.push((wanted, each));
                break;
            }
        }
        let found = kept
            .last()
            .is_some_and(|(last, _)| std::ptr::eq(*last, wanted));
        if found || optional {
            continue;
        }
        let next = got
            .next()
            .ok_or_else(|| format!("the client got no {}", wanted.start))?;
        kept.push((wanted, next));
    }
    if got.any(|each| !is_interim(&each.start)) {
        return Err("the client got more answers".to_owned());
    }
    kept.into_iter().try_for_each(|(wanted, got)| {
        matches(wanted, got)
            .map_err(|complaint| format!("the client's {}: {complaint}", wanted.start))
    })
}

fn all_match(wanted: &[Wanted], got: &[Message], who: &str) -> Result<(), String> {
    if wanted.len() != got.len() {
        return Err(format!(
            "{who} got {} messages, not {}",
            got.len(),
            wanted.len()
        ));
    }
    for (wanted, got) in wanted.iter().zip(got) {
        matches(wanted, got)
            .map_err(|complaint| format!("{who}'s {}: {complaint}", wanted.start))?;
    }
    Ok(())
}

fn matches(wanted: &Wanted, got: &Message) -> Result<(), String> {
    if wanted.start != got.start {
        return Err(format!("it is {}", got.start));
    }
    if let Some(body) = wanted.body.as_ref().filter(|body| **body != got.body) {
        return Err(format!("body {}, not {}", show(&got.body), show(body)));
    }
    for field in &wanted.has {
        if !has(&got.fields, field) {
            return Err(format!("lacks {field}"));
        }
    }
    for field in &wanted.trailers {
        if !has(&got.trailers, field) {
            return Err(format!("trailers lack {field}"));
        }
    }
    for field in &wanted.lacks {
        if names(&got.fields, field) || names(&got.trailers, field) {
            return Err(format!("has {field}"));
        }
    }
    for bytes in &wanted.raw_lacks {
        if got.raw.windows(bytes.len()).any(|window| window == bytes) {
            return Err(format!("has the bytes {}", show(bytes)));
        }
    }
    Ok(())
}

/// Whether a field `Name` or `Name: whole value` is there.
fn has(fields: &Fields, wanted: &str) -> bool {
    let (name, value) = split(wanted);
    fields.iter().any(|(each, of)| {
        each.eq_ignore_ascii_case(name) && value.is_none_or(|value| value.as_bytes() == of)
    })
}

/// Whether a field `Name` or `Name: part of the value` is there.
fn names(fields: &Fields, unwanted: &str) -> bool {
    let (name, part) = split(unwanted);
    fields.iter().any(|(each, of)| {
        let of = String::from_utf8_lossy(of).to_ascii_lowercase();
        each.eq_ignore_ascii_case(name)
            && part.is_none_or(|part| of.contains(&part.to_ascii_lowercase()))
    })
}

fn split(field: &str) -> (&str, Option<&str>) {
    field
        .split_once(": ")
        .map_or((field, None), |(name, value)| (name, Some(value)))
}

/// Where safety is all that counts, an answer to a bad response that is visibly cut, or none, is as good as a 502.
fn refused(case: &Case, seen: &Observed, statuses: &[u16]) -> Result<(), String> {
    let safe = case.level == Level::Security && !case.origin.is_empty();
    if safe && (cut(case, seen).is_ok() || closed(case, seen).is_ok()) {
        return Ok(());
    }
    let answers: Vec<&Message> = seen
        .answers
        .messages
        .iter()
        .filter(|each| !each.start.starts_with('1'))
        .collect();
    expected_requests(case, seen)?;
    let taken_along = answers.len() <= case.before && seen.end == Some(End::Reset);
    if !taken_along {
        // A reset may take the answer along before it is read.
        let Some(last) = answers.get(case.before) else {
            return Err("no answer".to_owned());
        };
        let status: u16 = last.start.parse().unwrap_or(0);
        let fits = if statuses.is_empty() {
            (400..600).contains(&status)
        } else {
            statuses.contains(&status)
        };
        if !fits || answers.len() > case.before + 1 {
            return Err(format!(
                "the last answer is {status}, answer {}",
                answers.len()
            ));
        }
    }
    if !seen.answers.rest.is_empty() {
        return Err("the client got bytes beyond its answers".to_owned());
    }
    let must_close = case.origin.is_empty() && case.level == Level::Security;
    if (must_close || case.persistence == Persistence::Closed) && seen.went_on {
        return Err("the connection went on".to_owned());
    }
    // Some wait long for the client to close first.
    let told = answers
        .last()
        .is_some_and(|last| names(&last.fields, "Connection: close"));
    if seen.end.is_none() && !told {
        return Err("the connection did not end".to_owned());
    }
    Ok(())
}

fn answered(case: &Case, seen: &Observed) -> Result<(), String> {
    let got = &seen.origin.requests;
    all_match(
        &case.got[..got.len().min(case.got.len())],
        got,
        "the origin",
    )?;
    answers_match(case, seen)?;
    if seen.went_on || seen.end.is_none() {
        return Err("the connection did not end".to_owned());
    }
    Ok(())
}

/// Of a refused request the origin must not have got the whole; of one whose answer was refused it may.
fn expected_requests(case: &Case, seen: &Observed) -> Result<(), String> {
    let got = &seen.origin.requests;
    let most = if case.origin.is_empty() {
        case.before
    } else {
        case.got.len()
    };
    if got.len() > most || got.len() < case.before {
        return Err(format!("the origin got {} requests", got.len()));
    }
    all_match(&case.got[..got.len()], got, "the origin")
}

fn cut(case: &Case, seen: &Observed) -> Result<(), String> {
    expected_requests(case, seen)?;
    if seen.went_on || seen.end.is_none() {
        return Err("the connection did not end".to_owned());
    }
    let partial = !seen.answers.rest.is_empty();
    // Where only the close would mark the end, a reset says that it is not the end.
    if partial || seen.end == Some(End::Reset) {
        Ok(())
    } else {
        Err("the answer looks whole".to_owned())
    }
}

fn closed(case: &Case, seen: &Observed) -> Result<(), String> {
    expected_requests(case, seen)?;
    let answers = seen.answers.messages.iter();
    let finals = answers.filter(|each| !each.start.starts_with('1')).count();
    if seen.end.is_some() && finals == case.before && seen.answers.rest.is_empty() {
        Ok(())
    } else {
        Err("there was an answer".to_owned())
    }
}
