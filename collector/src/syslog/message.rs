//! One syslog message as a record, and the streams of a connection.
//!
//! The stream is the identity with the host and application that the message names; facility, process and structured
//! data become attributes.

use std::collections::BTreeMap;

use signal::{Identity, LogBatch, LogRecord, LogStream, Severity, Timestamp};
use syslog_loose::{ProcId, Protocol, Variant, decompose_pri, parse_message_with_year};

use crate::detect;
use crate::sender::{self, exported};

/// Structured data beyond it is left out, and the record says so.
const MOST_PARAMS: usize = 256;

/// Collects a connection's messages by stream.
pub(super) struct Messages<'a> {
    identity: &'a Identity,
    streams: BTreeMap<(String, String), Vec<LogRecord>>,
}

impl<'a> Messages<'a> {
    pub(super) fn new(identity: &'a Identity) -> Self {
        Messages { identity, streams: BTreeMap::new() }
    }

    pub(super) fn add(&mut self, message: &[u8], now: Timestamp) {
        let text = String::from_utf8_lossy(message);
        let text = text.trim_end_matches(['\n', '\r', '\0']);
        if text.is_empty() {
            return;
        }
        let (record, host, app) = record(text, now);
        self.streams.entry((host, app)).or_default().push(record);
    }

    pub(super) fn batch(self) -> LogBatch {
        let streams = self.streams.into_iter().map(|((host, app), records)| {
            let mut labels = sender::stream(self.identity, Some(&app));
            labels.set("host", &host).set("job", "syslog");
            LogStream { labels: labels.build(), records }
        });
        LogBatch { streams: streams.collect(), checkpoints: Vec::new() }
    }
}

/// The record, and which host and application it names.
fn record(text: &str, now: Timestamp) -> (LogRecord, String, String) {
    // A date without a year is the one nearest to now: December's last messages come in January.
    let year = |(month, ..): (u32, u32, u32, u32, u32)| {
        let date = jiff::Timestamp::from_nanosecond(i128::from(now.nanos())).unwrap_or_default();
        let today = date.to_zoned(jiff::tz::TimeZone::UTC);
        let (this, at) = (i32::from(today.year()), i32::from(today.month()));
        match i32::try_from(month).unwrap_or(at) - at {
            7.. => this - 1,
            ..=-7 => this + 1,
            _ => this,
        }
    };
    let mut m = parse_message_with_year(text, year, Variant::Either);
    if m.severity.is_none()
        && let Some((pri, rest)) = priority(text)
    {
        (m.facility, m.severity) = decompose_pri(pri);
        (m.appname, m.procid, m.msg) = tag(rest);
    }
    let nanos = m.timestamp.and_then(|t| t.timestamp_nanos_opt());
    let mut record = LogRecord {
        timestamp: nanos.map(Timestamp::from_nanos).or_else(|| detect::timestamp(m.msg)).unwrap_or(now),
        severity: m.severity.map_or(Severity::UNSPECIFIED, |s| severity(s as u8)),
        // Some senders begin the text with a byte order mark, as RFC 5424 has it.
        body: m.msg.trim_start_matches('\u{feff}').to_owned(),
        ..LogRecord::default()
    };
    let a = &mut record.attributes;
    if let Some(f) = m.facility {
        a.set("syslog.facility", f.as_str());
    }
    if let Some(s) = m.severity {
        a.set("syslog.severity", s.as_str());
    }
    match m.procid {
        Some(ProcId::PID(n)) => a.set("syslog.procid", i64::from(n)),
        Some(ProcId::Name(n)) => a.set("syslog.procid", n),
        None => {}
    }
    if let Some(id) = m.msgid {
        a.set("syslog.msgid", id);
    }
    if let Protocol::RFC5424(version) = m.protocol {
        a.set("syslog.version", i64::from(version));
    }
    let params = m.structured_data.iter().flat_map(|e| e.params().map(move |(n, v)| (e.id, n, v)));
    for (n, (element, name, value)) in params.enumerate() {
        if n == MOST_PARAMS {
            a.set("binnacle.truncated", true);
            break;
        }
        let name = format!("{element}.{name}");
        a.set(exported(&name).unwrap_or(name), value);
    }
    let host = m.hostname.unwrap_or_default().to_owned();
    let app = m.appname.filter(|a| !a.is_empty()).unwrap_or("syslog").to_owned();
    detect::complete(&mut record);
    (record, host, app)
}

/// `<N>` and the rest, for headers that are neither standard's: small devices leave out the time.
fn priority(text: &str) -> Option<(u8, &str)> {
    let (number, rest) = text.strip_prefix('<')?.split_once('>')?;
    let pri = number.parse().ok().filter(|n| *n < 192)?;
    Some((pri, rest.trim_start()))
}

/// `app[77]: text` or `app: text`.
fn tag(text: &str) -> (Option<&str>, Option<ProcId<&str>>, &str) {
    let named = text.split_once(": ").filter(|(t, _)| t.len() <= 48 && !t.contains(char::is_whitespace));
    let Some((tag, message)) = named else { return (None, None, text) };
    match tag.strip_suffix(']').and_then(|t| t.split_once('[')) {
        Some((app, pid)) => (Some(app), Some(pid.into()), message),
        None => (Some(tag), None, message),
    }
}

/// As OpenTelemetry maps them (logs data model, appendix B).
fn severity(number: u8) -> Severity {
    Severity(match number {
        0 => 21,
        1 => 19,
        2 => 18,
        3 => 17,
        4 => 13,
        5 => 10,
        6 => 9,
        _ => 5,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-01-02T00:00:00Z
    const NOW: Timestamp = Timestamp::from_secs(1_767_312_000);

    fn check(text: &str, expect: (&str, &str, &str, u8, Option<&str>)) -> LogRecord {
        let (r, host, app) = record(text, NOW);
        let time = expect.4.map_or(NOW, |t| {
            let t: jiff::Timestamp = t.parse().expect("a time");
            Timestamp::from_nanos(i64::try_from(t.as_nanosecond()).expect("near"))
        });
        assert_eq!(
            (r.body.as_str(), host.as_str(), app.as_str(), r.severity.0, r.timestamp),
            (expect.0, expect.1, expect.2, expect.3, time),
            "{text}"
        );
        r
    }

    #[test]
    fn the_examples_of_the_standards() {
        let r = check(
            "<34>1 2003-10-11T22:14:15.003Z mymachine.example.com su - ID47 - \u{feff}'su root' failed on /dev/pts/8",
            (
                "'su root' failed on /dev/pts/8",
                "mymachine.example.com",
                "su",
                18,
                Some("2003-10-11T22:14:15.003Z"),
            ),
        );
        assert_eq!(r.attributes.get_str("syslog.msgid"), Some("ID47"));
        assert_eq!(r.attributes.get_str("syslog.facility"), Some("auth"));
        let r = check(
            r#"<165>1 2003-10-11T22:14:15.003Z m evntslog 12 ID47 [exampleSDID@32473 iut="3" eventSource="App \"x\""] An event"#,
            ("An event", "m", "evntslog", 10, Some("2003-10-11T22:14:15.003Z")),
        );
        assert_eq!(r.attributes.get_str("exampleSDID@32473.eventSource"), Some("App \"x\""));
        assert_eq!(r.attributes.get("syslog.procid"), Some(&12i64.into()));
        check("<165>1 - - - - - -", ("", "", "syslog", 10, None));
    }

    #[test]
    fn what_old_senders_write() {
        // In the year before: the second of January is now. The machine's zone is that of the time.
        let (r, host, app) = record("<13>Dec 31 12:00:00 box app[77]: it's late", NOW);
        assert_eq!((r.body.as_str(), host.as_str(), app.as_str()), ("it's late", "box", "app"));
        assert!((0..3 * 86_400).contains(&NOW.since(r.timestamp).as_secs()), "{}", r.timestamp);
        check(
            "<13>2026-01-01T12:00:00+01:00 box app: x",
            ("x", "box", "app", 10, Some("2026-01-01T11:00:00Z")),
        );
        check("no header at all", ("no header at all", "", "syslog", 0, None));
        check("<13>router[9]: no time", ("no time", "", "router", 10, None));
        check("<13>no time: no tag", ("no time: no tag", "", "syslog", 10, None));
        check("<999>what is this", ("<999>what is this", "", "syslog", 0, None));
    }
}
