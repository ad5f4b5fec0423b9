//! Patterns mined as lines arrive: which kinds of lines there are, how many of each over time, and which are new.
//!
//! A [`Miner`] is fed by a tail and holds a bounded number of streams, of patterns and of counts. Of a batch with
//! very many lines every so-many-th is looked at and counted for the others, so that a flood costs no more.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::IgnoredAny;
use signal::{Labels, LogStream, Matcher, Timestamp};

use crate::drain::{Drain, Pattern};

/// Streams that are followed; of more the one silent for longest is let go.
const STREAMS: usize = 1000;
/// Lines of one batch and stream that are looked at, about.
const LOOKED_AT: usize = 200;
/// Seconds of a count.
pub const BUCKET: i64 = 60;
/// Counts are kept for so many seconds.
pub const KEPT: i64 = 6 * 3600;
/// Patterns of all streams that are kept.
const PATTERNS: usize = 20_000;

/// A pattern of some streams.
#[derive(Clone, Debug, PartialEq)]
pub struct Mined {
    pub pattern: Pattern,
    /// When its first line came, as far as is known.
    pub first: Timestamp,
    pub last: Timestamp,
    /// Of one of its streams.
    pub labels: Labels,
}

#[derive(Default)]
struct Stream {
    drain: Drain,
    last: i64,
}

pub struct Miner {
    since: Timestamp,
    streams: BTreeMap<Labels, Stream>,
    trimmed: i64,
}

impl Miner {
    pub fn new(now: Timestamp) -> Self {
        Miner { since: now, streams: BTreeMap::new(), trimmed: now.nanos() / 1_000_000_000 }
    }

    /// Since when every line has been seen.
    pub fn since(&self) -> Timestamp {
        self.since
    }

    pub fn add(&mut self, stream: &LogStream) {
        let every = stream.records.len().div_ceil(LOOKED_AT).max(1);
        if !self.streams.contains_key(&stream.labels) && self.streams.len() >= STREAMS {
            let oldest = self.streams.iter().min_by_key(|(_, s)| s.last).map(|(l, _)| l.clone());
            if let Some(l) = oldest {
                self.streams.remove(&l);
            }
        }
        let known = self.streams.entry(stream.labels.clone()).or_default();
        let mut newest = known.last;
        for r in stream.records.iter().step_by(every) {
            let at = r.timestamp.nanos() / 1_000_000_000;
            newest = newest.max(at);
            known.drain.add_many(
                &message(&r.body),
                at - at.rem_euclid(BUCKET),
                every as u64,
                r.timestamp.nanos(),
            );
        }
        known.last = newest;
        self.trim(newest);
    }

    /// Once a minute of the lines' own time what is old is let go.
    fn trim(&mut self, now: i64) {
        if now < self.trimmed + BUCKET {
            return;
        }
        self.trimmed = now;
        self.streams.retain(|_, s| {
            s.drain.forget(now - KEPT);
            s.last >= now - KEPT
        });
        // The limit of all patterns is shared by the streams, the longest silent of which go first.
        let mut by_age: Vec<(i64, usize, Labels)> =
            self.streams.iter().map(|(l, s)| (s.last, s.drain.len(), l.clone())).collect();
        by_age.sort_by_key(|(last, _, _)| std::cmp::Reverse(*last));
        let mut held = 0;
        for (_, n, labels) in by_age {
            held += n;
            if held > PATTERNS {
                self.streams.remove(&labels);
            }
        }
    }

    /// Patterns of the streams that match, with counts from `start` on; the most frequent first.
    pub fn patterns(&self, matchers: &[Matcher], start: Timestamp, end: Timestamp) -> Vec<Mined> {
        let fits = |l: &Labels| matchers.iter().all(|m| m.matches(l.get(&m.name).unwrap_or("")));
        let (start, end) = (start.nanos() / 1_000_000_000, end.nanos() / 1_000_000_000);
        let mut all: BTreeMap<String, Mined> = BTreeMap::new();
        for (labels, s) in self.streams.iter().filter(|(l, _)| fits(l)) {
            for (mut p, first, last) in s.drain.snapshot() {
                p.counts.retain(|at, _| *at + BUCKET > start && *at <= end);
                p.total = p.counts.values().sum();
                let (first, last) = (Timestamp(first), Timestamp(last));
                match all.get_mut(&p.text) {
                    Some(m) => {
                        p.counts.iter().for_each(|(at, n)| *m.pattern.counts.entry(*at).or_default() += n);
                        m.pattern.total += p.total;
                        (m.first, m.last) = (m.first.min(first), m.last.max(last));
                    }
                    None => {
                        let m = Mined { first, last, labels: labels.clone(), pattern: p };
                        all.insert(m.pattern.text.clone(), m);
                    }
                }
            }
        }
        // One that is not seen in this time may still say that another stream's is not new.
        let mut all: Vec<Mined> = all.into_values().filter(|m| m.pattern.total > 0).collect();
        all.sort_by(|a, b| {
            b.pattern.total.cmp(&a.pattern.total).then_with(|| a.pattern.text.cmp(&b.pattern.text))
        });
        all
    }
}

/// A line's message: of a JSON object that field which tells what happened, else all of it.
pub fn message(line: &str) -> Cow<'_, str> {
    if line.starts_with('{')
        && let Ok(m) = serde_json::from_str::<Message<'_>>(line)
    {
        let texts = [m.msg, m.message, m.log, m.body, m.error, m.err].into_iter().flatten();
        let text = |v| if let Field::Text(t) = v { Some(t) } else { None };
        return texts.filter_map(text).next().unwrap_or(line.into());
    }
    line.into()
}

/// Of a JSON object what may be its message; the rest is passed over and never kept.
#[derive(Deserialize)]
struct Message<'a> {
    #[serde(borrow)]
    msg: Option<Field<'a>>,
    #[serde(borrow)]
    message: Option<Field<'a>>,
    #[serde(borrow)]
    log: Option<Field<'a>>,
    #[serde(borrow)]
    body: Option<Field<'a>>,
    #[serde(borrow)]
    error: Option<Field<'a>>,
    #[serde(borrow)]
    err: Option<Field<'a>>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Field<'a> {
    #[serde(borrow)]
    Text(Cow<'a, str>),
    Other(IgnoredAny),
}

#[cfg(test)]
mod tests {
    use super::*;
    use signal::LogRecord;

    fn stream(pod: &str, lines: &[(i64, &str)]) -> LogStream {
        let record = |(at, line): &(i64, &str)| LogRecord {
            timestamp: Timestamp::from_secs(*at),
            body: (*line).to_owned(),
            ..LogRecord::default()
        };
        LogStream { labels: Labels::from_pairs([("pod", pod)]), records: lines.iter().map(record).collect() }
    }

    #[test]
    fn patterns_are_counted_over_time_and_known_to_be_new() {
        let mut m = Miner::new(Timestamp::from_secs(0));
        m.add(&stream("a", &[(10, "user 1 came in"), (20, "user 2 came in")]));
        m.add(&stream("b", &[(70, "user 3 came in"), (80, r#"{"msg":"disk is full","n":1}"#)]));
        let all = |matchers: &[Matcher], from: i64| -> Vec<(String, u64, i64)> {
            m.patterns(matchers, Timestamp::from_secs(from), Timestamp::from_secs(1000))
                .into_iter()
                .map(|p| (p.pattern.text, p.pattern.total, p.first.nanos() / 1_000_000_000))
                .collect()
        };
        assert_eq!(all(&[], 0), [("user <_> came in".to_owned(), 3, 10), ("disk is full".to_owned(), 1, 80)]);
        assert_eq!(all(&[Matcher::equal("pod", "a")], 0), [("user <_> came in".to_owned(), 2, 10)]);
        assert_eq!(
            all(&[], 60),
            [("disk is full".to_owned(), 1, 80), ("user <_> came in".to_owned(), 1, 10)]
        );
    }

    #[test]
    fn messages_of_json() {
        let check = |line: &str, expect: &str| assert_eq!(message(line), expect);
        check(r#"{"a":[1,{"b":null}],"msg":"disk is full"}"#, "disk is full");
        check(r#"{"message":"\"x\" is gone","error":"e"}"#, "\"x\" is gone");
        // The first of them that is a text.
        check(r#"{"err":"late","msg":{"a":1},"log":[2],"body":true,"error":1.5,"message":null}"#, "late");
        check(r#"{"n":-1,"msg":-1}"#, r#"{"n":-1,"msg":-1}"#);
        check(r#"{"msg":"open"#, r#"{"msg":"open"#);
        check("plain", "plain");
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let mut m = Miner::new(Timestamp::from_secs(0));
        for i in 0..2 * STREAMS {
            m.add(&stream(&format!("p{i}"), &[(i as i64, "a line")]));
        }
        assert_eq!(m.streams.len(), STREAMS);
        m.add(&stream("late", &[(KEPT * 2, "another line")]));
        assert_eq!(m.streams.len(), 1);
        // Of a flood every so-many-th line counts for the others.
        let flood: Vec<(i64, &str)> = (0..10_000).map(|_| (KEPT * 2, "the same thing")).collect();
        m.add(&stream("late", &flood));
        let p = m.patterns(&[], Timestamp::from_secs(0), Timestamp::MAX);
        assert_eq!(p.first().map(|p| p.pattern.total), Some(10_000));
    }
}
