//! What the scripts answer, as values. Nothing of it is trusted: a server may hold another version's keys.

use redis::{ErrorKind, RedisError, Value};

use std::collections::BTreeMap;

use crate::store::{
    AfterRelease, ClaimAnswer, Claimed, Expired, Expiries, Extended, Held, Hold, KeptLetter, Letters, Order, Refusal,
    Stage, StoreError, SweepRecord, Sweeps, TaskRecord, Unreadable,
};
use crate::sweep::metric::{Estimate, Metric};
use crate::sweep::score::SplitScore;
use crate::task::{TaskKey, TaskState, Ticket};

/// Fields of a task's hash that [`record`] reads, in this order.
pub const RECORD_FIELDS: [&str; 9] =
    ["state", "generation", "epoch", "attempts", "crashes", "reached", "sequence", "cause", "rungs"];

pub fn unexpected(what: &str) -> StoreError {
    StoreError::Protocol(format!("found `{}`", what.chars().take(100).collect::<String>()))
}

/// By what the caller does next.
pub fn error(error: RedisError) -> StoreError {
    let whole = error.to_string();
    let word = code(&error, &whole);
    // Which script it was differs from call to call, and a fault that lasts is said once.
    let text = whole.split(" script: ").next().unwrap_or_default().to_string();
    match (error.kind(), word) {
        (_, Some("OOM")) => StoreError::Full(text),
        // The server starts, is a replica after a failover, has lost its own replicas, or runs a script for too long.
        (_, Some("LOADING" | "READONLY" | "MASTERDOWN" | "NOREPLICAS" | "BUSY" | "TRYAGAIN" | "UNKILLABLE")) => {
            StoreError::Unreachable(text)
        }
        // Its disk is full, a password was rotated, a right was taken away: all of it can be mended while this program waits.
        (_, Some("NOAUTH" | "WRONGPASS" | "NOPERM" | "NOSCRIPT" | "MISCONF" | "CLUSTERDOWN")) => {
            StoreError::Refused(text)
        }
        (
            ErrorKind::AuthenticationFailed | ErrorKind::InvalidClientConfig | ErrorKind::MasterNameNotFoundBySentinel,
            _,
        ) => StoreError::Refused(text),
        _ if error.is_io_error() || error.is_timeout() || error.is_connection_dropped() => {
            StoreError::Unreachable(text)
        }
        _ => StoreError::Protocol(text),
    }
}

/// The server's word for the error. Redis 6 hides that of a command within a script in the text:
/// `ERR Error running script (...): @user_script:7: -OOM command not allowed ...`.
fn code<'a>(error: &'a RedisError, text: &'a str) -> Option<&'a str> {
    // Redis 7.0 and 7.2 say so without a code of its own where a script may not run a command.
    if text.contains("can't run this command") || text.contains("ACL failure in script") {
        return Some("NOPERM");
    }
    if is_unauthenticated(text) {
        return Some("NOAUTH");
    }
    let within_script = text.contains("@user_script").then(|| text.split(": -").nth(1)).flatten();
    match within_script.and_then(|rest| rest.split_whitespace().next()) {
        Some(word) if !word.is_empty() && word.bytes().all(|b| b.is_ascii_uppercase()) => Some(word),
        _ => error.code(),
    }
}

/// Whether the server refuses a command of somebody that it does not know before it has read all of it: one of more than ten arguments, or of
/// more than 16 kB. It has no code of its own.
fn is_unauthenticated(text: &str) -> bool {
    text.contains("unauthenticated multibulk length") || text.contains("unauthenticated bulk length")
}

/// Whether the server does not accept the user or its password.
pub fn is_refused_login(error: &RedisError) -> bool {
    error.kind() == ErrorKind::AuthenticationFailed
        || matches!(error.code(), Some("NOAUTH" | "WRONGPASS" | "NOPERM"))
        || is_unauthenticated(&error.to_string())
}

pub fn key(id: &str) -> Result<TaskKey, StoreError> {
    id.parse().map_err(|_| unexpected(id))
}

fn number(text: &str) -> Result<u64, StoreError> {
    text.parse().map_err(|_| unexpected(text))
}

/// From a member of the outbox: `task generation`.
pub fn ticket(member: &str) -> Result<Ticket, StoreError> {
    let (id, generation) = member.split_once(' ').ok_or_else(|| unexpected(member))?;
    Ok(Ticket::new(key(id)?, number(generation)?))
}

pub fn order(word: &str) -> Result<Held<Order>, StoreError> {
    Ok(match word {
        "fenced" => Held::Fenced,
        "continue" => Held::Yes(Order::Continue),
        "pause" => Held::Yes(Order::Pause),
        "cancel" => Held::Yes(Order::Cancel),
        other => return Err(unexpected(other)),
    })
}

fn state(word: &str) -> Result<TaskState, StoreError> {
    TaskState::parse(word).ok_or_else(|| unexpected(word))
}

pub fn onward(key: &TaskKey, word: &str, generation: Option<&String>) -> Result<AfterRelease, StoreError> {
    match (state(word)?, generation) {
        (TaskState::Queued, Some(generation)) => {
            Ok(AfterRelease::Queued(Ticket::new(key.clone(), number(generation)?)))
        }
        // It waits because its last attempt crashed.
        (TaskState::Queued, None) => Ok(AfterRelease::State(TaskState::Queued)),
        (other, _) => Ok(AfterRelease::State(other)),
    }
}

/// What became of a task that its worker let go of.
pub fn let_go(key: &TaskKey, words: &[String]) -> Result<Held<AfterRelease>, StoreError> {
    match words.first().map(String::as_str) {
        Some("fenced") => Ok(Held::Fenced),
        Some(state) => onward(key, state, words.get(1)).map(Held::Yes),
        None => Err(unexpected("nothing")),
    }
}

/// A score as a line of `name=value` and `name=value/standard_error`. Not JSON, which has no NaN.
pub fn score_line(score: &SplitScore) -> String {
    let mut line = format!("samples={}", score.samples);
    for (metric, Estimate { value, standard_error }) in score.all() {
        line.push_str(&format!(" {metric}={value:?}/{standard_error:?}"));
    }
    line
}

/// The reverse of [`score_line`].
fn score(line: &str) -> Result<SplitScore, StoreError> {
    if !line.contains('=') {
        return positional_score(line);
    }
    let fault = || unexpected(line);
    let (mut samples, mut loss, mut metrics) = (None, None, vec![]);
    for word in line.split(' ') {
        let (name, value) = word.split_once('=').ok_or_else(fault)?;
        if name == "samples" {
            samples = Some(number(value)? as usize);
            continue;
        }
        let metric = Metric::named(name).ok_or_else(fault)?;
        let (value, error) = value.split_once('/').ok_or_else(fault)?;
        let estimate = estimate(value, error).ok_or_else(fault)?;
        match metric == Metric::LOSS {
            true => loss = Some(estimate),
            false => metrics.push((metric, estimate)),
        }
    }
    Ok(SplitScore::new(samples.ok_or_else(fault)?, loss.ok_or_else(fault)?, metrics))
}

fn estimate(value: &str, error: &str) -> Option<Estimate> {
    Some(Estimate { value: value.parse().ok()?, standard_error: error.parse().ok()? })
}

/// A score as programs before metrics had names wrote it: loss, its error, accuracy, its error, and samples.
fn positional_score(line: &str) -> Result<SplitScore, StoreError> {
    let words: Vec<&str> = line.split(' ').collect();
    let ([loss, loss_error, value, error, samples], Some(accuracy)) = (words.as_slice(), Metric::named("accuracy"))
    else {
        return Err(unexpected(line));
    };
    let fault = || unexpected(line);
    let loss = estimate(loss, loss_error).ok_or_else(fault)?;
    let accuracy = (accuracy, estimate(value, error).ok_or_else(fault)?);
    Ok(SplitScore::new(number(samples)? as usize, loss, [accuracy]))
}

pub fn claim(key: &TaskKey, nonce: &str, values: Vec<Vec<u8>>) -> Result<ClaimAnswer, StoreError> {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).map_err(|_| unexpected("text that is not UTF-8"));
    match values.as_slice() {
        [tag, epoch, body, scores, spec, manifest, checkpoint, sequence, attempts, rungs] if tag == b"claimed" => {
            let filled = |bytes: &[u8]| (!bytes.is_empty()).then(|| bytes.to_vec());
            Ok(ClaimAnswer::Claimed(Box::new(Claimed {
                hold: Hold { key: key.clone(), epoch: number(&text(epoch)?)?, nonce: nonce.to_string() },
                body: text(body)?,
                is_scores: scores == b"1",
                spec: text(spec)?,
                manifest: filled(manifest).map(|bytes| text(&bytes)).transpose()?,
                checkpoint: filled(checkpoint),
                sequence: number(&text(sequence)?)?,
                attempts: number(&text(attempts)?)?,
                rungs: number(&text(rungs)?)? as u32,
            })))
        }
        [tag, why, detail] if tag == b"refused" => {
            let detail = text(detail)?;
            Ok(ClaimAnswer::Refused(match why.as_slice() {
                b"unknown" => Refusal::Unknown,
                b"state" => Refusal::State(state(&detail)?),
                b"generation" => Refusal::Generation(number(&detail)?),
                b"cap" => Refusal::Cap,
                b"early" => Refusal::Early(number(&detail)?),
                other => return Err(unexpected(&String::from_utf8_lossy(other))),
            }))
        }
        other => Err(unexpected(&format!("{} parts of a claim's answer", other.len()))),
    }
}

/// From task, state or `unreadable`, generation or what is wrong, of each.
pub fn expiries(words: &[String]) -> Result<Expiries, StoreError> {
    let mut expiries = Expiries::default();
    for words in words.chunks(3) {
        let [id, word, detail] = words else { return Err(unexpected("a part of an answer")) };
        let read = || -> Result<Expired, StoreError> {
            let key = key(id)?;
            let generation = Some(detail).filter(|detail| !detail.is_empty());
            Ok(Expired { onward: onward(&key, word, generation)?, key })
        };
        match (word.as_str(), read()) {
            ("unreadable", _) => expiries.unreadable.push(Unreadable { id: id.clone(), why: detail.clone() }),
            (_, Ok(expired)) => expiries.expired.push(expired),
            (_, Err(error)) => expiries.unreadable.push(Unreadable { id: id.clone(), why: error.to_string() }),
        }
    }
    Ok(expiries)
}

/// From lines of id, what is wrong with the record or nothing, and then what [`sweep`] reads.
pub fn sweeps(lines: &[Vec<String>]) -> Sweeps {
    let mut sweeps = Sweeps::default();
    for line in lines {
        let read = match line.as_slice() {
            [id, fault, words @ ..] if fault.is_empty() => sweep(id, words).map_err(|e| (id, e.to_string())),
            [id, fault, ..] => Err((id, fault.clone())),
            // The script answers no such line.
            _ => continue,
        };
        match read {
            Ok(record) => sweeps.records.push(record),
            Err((id, why)) => sweeps.unreadable.push(Unreadable { id: id.clone(), why }),
        }
    }
    sweeps
}

/// From state and count, again and again; states without tasks are left out.
pub fn counts(words: &[String]) -> Result<BTreeMap<TaskState, usize>, StoreError> {
    let mut counts = BTreeMap::new();
    for pair in words.chunks(2) {
        let [name, count] = pair else { return Err(unexpected("a state without its count")) };
        let count = number(count).map_err(|_| {
            StoreError::Protocol(format!("the count of {name} tasks: expected 0 or more, found {count}"))
        })?;
        if count > 0 {
            counts.insert(state(name)?, count as usize);
        }
    }
    Ok(counts)
}

/// What became of tasks for an open sweep.
pub fn extended(words: &[String]) -> Result<Extended, StoreError> {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    Ok(match words.as_slice() {
        ["added", count] => Extended::Added(number(count)? as usize),
        ["taken", place] => Extended::Taken(number(place)? as usize),
        ["full", limit] => Extended::Full(number(limit)? as usize),
        ["closed"] => Extended::Closed,
        ["unknown"] => return Err(StoreError::Protocol("no such sweep".to_string())),
        other => return Err(unexpected(&other.join(" "))),
    })
}

/// From name, stage, order, created, priority, cap, attempts, ready, delayed, search_controlled, may_grow, and then state and count of its tasks.
fn sweep(id: &str, words: &[String]) -> Result<SweepRecord, StoreError> {
    let [
        name,
        stage,
        order_word,
        created,
        priority,
        cap,
        attempts,
        ready,
        delayed,
        search_controlled,
        may_grow,
        counted @ ..,
    ] = words
    else {
        return Err(unexpected("a part of a sweep"));
    };
    let stage = match stage.as_str() {
        "creating" => Stage::Creating,
        "scoring" => Stage::Scoring,
        "ready" => Stage::Ready,
        other => return Err(unexpected(other)),
    };
    let Held::Yes(order) = order(order_word)? else { return Err(unexpected(order_word)) };
    Ok(SweepRecord {
        id: id.to_string(),
        name: name.clone(),
        stage,
        order,
        created: number(created)?,
        priority: priority.parse().map_err(|_| unexpected(priority))?,
        cap: number(cap)? as u32,
        attempts: number(attempts)? as u32,
        search_controlled: search_controlled == "1",
        counts: counts(counted)?,
        ready: number(ready)? as usize,
        delayed: number(delayed)? as usize,
        may_grow: may_grow == "1",
    })
}

/// From how many there ever were, and lines of `time letter`, newest first.
pub fn letters(values: Vec<Value>) -> Result<Letters, StoreError> {
    let mut values = values.into_iter();
    let total: Option<u64> = part(values.next())?;
    let lines: Vec<String> = part(values.next())?;
    let letter = |line: &String| {
        let (at, letter) = line.split_once(' ').ok_or_else(|| unexpected(line))?;
        let letter = serde_json::from_str(letter).map_err(|_| unexpected(letter))?;
        Ok(KeptLetter { at: number(at)?, letter })
    };
    Ok(Letters { total: total.unwrap_or(0), newest: lines.iter().map(letter).collect::<Result<_, _>>()? })
}

/// One part of an answer; one that is missing reads as nothing.
fn part<T: redis::FromRedisValue>(value: Option<Value>) -> Result<T, StoreError> {
    redis::from_redis_value(value.unwrap_or(Value::Nil)).map_err(|e| unexpected(&e.to_string()))
}

/// From the fields, whether there is a checkpoint, and whether there is a result; `None` without the task.
pub fn record(key: &TaskKey, values: &[Value]) -> Result<Option<TaskRecord>, StoreError> {
    let [fields, checkpoint, result] = values else { return Err(unexpected("a part of a task")) };
    let fields: Vec<Option<String>> =
        redis::from_redis_value(fields.clone()).map_err(|e| unexpected(&e.to_string()))?;
    let flag = |value: &Value| redis::from_redis_value::<bool>(value.clone()).map_err(|e| unexpected(&e.to_string()));
    let [Some(word), generation, epoch, attempts, crashes, reached, sequence, cause, rungs] = fields.as_slice() else {
        return Ok(None);
    };
    let count = |field: &Option<String>| number(field.as_deref().unwrap_or("0"));
    Ok(Some(TaskRecord {
        key: key.clone(),
        state: state(word)?,
        generation: count(generation)?,
        epoch: count(epoch)?,
        attempts: count(attempts)?,
        crashes: count(crashes)?,
        reached: count(reached)?,
        sequence: count(sequence)?,
        rungs: rungs.iter().flat_map(|rungs| rungs.lines()).map(score).collect::<Result<_, _>>()?,
        cause: cause.clone(),
        has_checkpoint: flag(checkpoint)?,
        has_result: flag(result)?,
    }))
}

#[cfg(test)]
mod tests {
    use redis::{Value, parse_redis_value};

    use super::*;

    fn answered(line: &str) -> RedisError {
        match parse_redis_value(format!("-{line}\r\n").as_bytes()) {
            Ok(Value::ServerError(error)) => error.into(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_score_comes_back_from_its_line_also_from_that_of_earlier_programs() {
        let accuracy = Metric::named("accuracy").unwrap();
        let estimate = |value, standard_error| Estimate { value, standard_error };
        let named = SplitScore::new(50, estimate(0.25, 0.01), [(accuracy, estimate(0.9, 0.02))]);
        assert_eq!(score_line(&named), "samples=50 loss=0.25/0.01 accuracy=0.9/0.02");
        assert_eq!(score(&score_line(&named)).unwrap(), named);
        assert_eq!(score("0.25 0.01 0.9 0.02 50").unwrap(), named);
        let lost = score(&score_line(&SplitScore::new(3, estimate(f64::NAN, f64::INFINITY), []))).unwrap();
        assert!(lost.loss.is_nan() && lost.loss_standard_error.is_infinite() && lost.samples == 3);
        for bad in ["", "0.25 0.01 0.9 0.02", "loss=0.25/0.01", "samples=5", "samples=5 loss=0.25", "samples=5 f1=1/0"]
        {
            assert!(score(bad).is_err(), "{bad}");
        }
    }

    /// What Redis answers somebody that it does not know, or not any more, depends on the command's length.
    #[test]
    fn a_login_that_is_not_accepted_any_more_is_known_whatever_the_command_was() {
        for line in [
            "NOAUTH Authentication required.",
            "WRONGPASS invalid username-password pair or user is disabled.",
            "ERR Protocol error: unauthenticated multibulk length",
            "ERR Protocol error: unauthenticated bulk length",
        ] {
            assert!(is_refused_login(&answered(line)), "{line}");
            assert!(matches!(error(answered(line)), StoreError::Refused(_)), "{line}");
        }
        assert!(!is_refused_login(&answered("ERR unknown command")));
    }
}
