//! Lines of pods from the log index, as the API server's log of a pod that no node has any more.

use std::collections::BTreeSet;
use std::sync::Arc;

use apiserver::{LogArchive, PastLogQuery, PastPod};
use bytes::Bytes;
use futures::StreamExt;
use log_index::{Direction, LogIndex, Search};
use signal::{AttributeValue, LogRecord, Matcher, Timestamp};

/// Lines read from the index at once.
const PAGE: usize = 2000;
/// Lines of one time: a container's burst has one.
const MOST_AT_ONCE: usize = 1 << 20;
/// Lines of a tail that are counted at once.
const COUNTED: usize = 1 << 16;

pub(super) fn archive(index: Arc<LogIndex>) -> LogArchive {
    let of_pods = index.clone();
    LogArchive {
        pod: Arc::new(move |namespace, name| {
            let index = of_pods.clone();
            Box::pin(async move { blocking(move || pod(&index, &namespace, &name)).await })
        }),
        log: Arc::new(move |query| {
            let index = index.clone();
            Box::pin(async move {
                let first = blocking(move || Reader::open(index, query)).await?;
                Ok(first.map(|reader| futures::stream::unfold(Some(reader), page).boxed()))
            })
        }),
    }
}

async fn blocking<T: Send + 'static>(
    f: impl FnOnce() -> Result<Option<T>, String> + Send + 'static,
) -> Result<Option<T>, String> {
    tokio::task::spawn_blocking(f).await.map_err(|e| e.to_string())?
}

fn pod(index: &LogIndex, namespace: &str, name: &str) -> Result<Option<PastPod>, String> {
    let matchers = [Matcher::equal("namespace", namespace), Matcher::equal("pod", name)];
    let streams =
        index.streams(&matchers, Timestamp(i64::MIN), Timestamp(i64::MAX)).map_err(|e| e.to_string())?;
    let mut containers = BTreeSet::new();
    let mut node = String::new();
    for s in &streams {
        if let Some(c) = s.labels.get("container") {
            containers.insert(c.to_owned());
            s.labels.get("node").unwrap_or_default().clone_into(&mut node);
        }
    }
    Ok((!containers.is_empty()).then(|| PastPod { node, containers: containers.into_iter().collect() }))
}

/// Which life of its container a line belongs to; the first one's lines do not say.
fn life(r: &LogRecord) -> i64 {
    match r.attributes.get(collector::logfile::RESTARTS) {
        Some(AttributeValue::Int(n)) => *n,
        _ => 0,
    }
}

/// Stands at a time in a container's lines.
struct Reader {
    index: Arc<LogIndex>,
    query: PastLogQuery,
    life: i64,
    from: Timestamp,
    /// Lines at that time that come before a tail.
    skip: usize,
    sent: u64,
}

impl Reader {
    /// `None` if nothing is kept of it.
    fn open(index: Arc<LogIndex>, query: PastLogQuery) -> Result<Option<Reader>, String> {
        let from = query.since.unwrap_or(Timestamp(i64::MIN));
        let mut reader = Reader { index, query, life: 0, from, skip: 0, sent: 0 };
        if let Some(life) = reader.query.life {
            reader.life = life;
            return reader.begin().map(Some);
        }
        let mut all = reader.search(Timestamp(i64::MIN));
        all.direction = Direction::Backward;
        let last = reader
            .index
            .search(&all, 1, |_, r| is_of_container(&r).then(|| life(&r)))
            .map_err(|e| e.to_string())?;
        let Some((_, last)) = last.first() else { return Ok(None) };
        reader.life = last - i64::from(reader.query.previous);
        if reader.life < 0 {
            return Ok(None);
        }
        reader.begin().map(Some)
    }

    /// Finds where a tail begins: counts back from the end, holding the times of some lines at once and no line.
    fn begin(mut self) -> Result<Reader, String> {
        let Some(wanted) = self.query.tail_lines else { return Ok(self) };
        if wanted == 0 {
            self.from = Timestamp(i64::MAX);
            return Ok(self);
        }
        let mut left = usize::try_from(wanted).unwrap_or(usize::MAX);
        let mut at_once = COUNTED;
        let mut s = self.search(self.from);
        s.direction = Direction::Backward;
        loop {
            let limit = left.min(at_once);
            let times = self.find(&s, limit, |_| ())?;
            let Some((first, ())) = times.last().filter(|_| times.len() == limit) else { return Ok(self) };
            let first = *first;
            // Whole times only: the rest of the first one is counted with the next lines.
            let later = times.partition_point(|(t, ())| *t > first);
            if times.len() == left {
                let mut all = self.search(first);
                all.end = Timestamp(first.nanos() + 1);
                self.skip = self.find(&all, usize::MAX, |_| ())?.len() - (left - later);
                self.from = first;
                return Ok(self);
            }
            left -= later;
            at_once = if later == 0 { at_once.saturating_mul(8) } else { COUNTED };
            s.end = Timestamp(first.nanos() + 1);
        }
    }

    fn search(&self, from: Timestamp) -> Search {
        let q = &self.query;
        let labels = [("namespace", &q.namespace), ("pod", &q.pod), ("container", &q.container)];
        let matchers = labels.map(|(n, v)| Matcher::equal(n, v.as_str())).to_vec();
        let mut s = Search::new(matchers, from, q.until.unwrap_or(Timestamp(i64::MAX)));
        s.direction = Direction::Forward;
        s
    }

    fn take(&self, s: &Search, limit: usize) -> Result<Vec<(Timestamp, String)>, String> {
        self.find(s, limit, |r| r.body)
    }

    fn find<T: Send>(
        &self,
        s: &Search,
        limit: usize,
        keep: impl Fn(LogRecord) -> T + Sync,
    ) -> Result<Vec<(Timestamp, T)>, String> {
        let wanted = |r: &LogRecord| {
            let stream = r.attributes.get_str("log.iostream");
            is_of_container(r)
                && life(r) == self.life
                && self.query.stream.as_deref().is_none_or(|s| stream == Some(s))
        };
        self.index.search(s, limit, |_, r| wanted(&r).then(|| keep(r))).map_err(|e| e.to_string())
    }

    /// The next lines as text; `None` at the end.
    fn read(&mut self) -> Result<Option<Vec<u8>>, String> {
        if self.query.limit_bytes.is_some_and(|l| self.sent >= l) {
            return Ok(None);
        }
        let lines = self.next_page()?;
        if lines.is_empty() {
            return Ok(None);
        }
        let mut out = Vec::new();
        for (time, line) in lines.into_iter().skip(std::mem::take(&mut self.skip)) {
            if self.query.timestamps {
                let t = jiff::Timestamp::from_nanosecond(i128::from(time.nanos())).unwrap_or_default();
                out.extend_from_slice(format!("{t:.9} ").as_bytes());
            }
            out.extend_from_slice(line.as_bytes());
            out.push(b'\n');
        }
        let room = self.query.limit_bytes.map_or(u64::MAX, |l| l - self.sent.min(l));
        out.truncate(usize::try_from(room).unwrap_or(usize::MAX));
        self.sent += out.len() as u64;
        Ok(Some(out))
    }

    /// Whole times only: what is left of the last one comes with the next page.
    fn next_page(&mut self) -> Result<Vec<(Timestamp, String)>, String> {
        if self.from == Timestamp(i64::MAX) {
            return Ok(Vec::new());
        }
        let mut limit = PAGE;
        loop {
            let mut found = self.take(&self.search(self.from), limit)?;
            let Some((last, _)) = found.last() else { return Ok(found) };
            let last = *last;
            if found.len() < limit {
                self.from = Timestamp(i64::MAX);
                return Ok(found);
            }
            if found[0].0 < last {
                found.retain(|(t, _)| *t < last);
                self.from = last;
                return Ok(found);
            }
            if limit >= MOST_AT_ONCE {
                self.from = Timestamp(last.nanos() + 1);
                return Ok(found);
            }
            limit *= 8;
        }
    }
}

/// Others may write under a pod's name: what came from its pipes says from which.
fn is_of_container(r: &LogRecord) -> bool {
    r.attributes.get_str("log.iostream").is_some()
}

type Step = Option<(std::io::Result<Bytes>, Option<Reader>)>;

async fn page(reader: Option<Reader>) -> Step {
    let mut reader = reader?;
    match tokio::task::spawn_blocking(move || (reader.read(), reader)).await {
        Ok((Ok(Some(text)), reader)) => Some((Ok(text.into()), Some(reader))),
        Ok((Ok(None), _)) => None,
        Ok((Err(e), _)) => Some((Err(std::io::Error::other(e)), None)),
        Err(e) => Some((Err(std::io::Error::other(e)), None)),
    }
}

#[cfg(test)]
mod tests {
    use signal::{Attributes, Labels, LogBatch, LogStream};

    use super::*;

    fn line(time: i64, life: i64, body: &str) -> LogRecord {
        let mut attributes = Attributes::default();
        attributes.set("log.iostream", if body.starts_with('!') { "stderr" } else { "stdout" });
        if life > 0 {
            attributes.set(collector::logfile::RESTARTS, life);
        }
        LogRecord {
            timestamp: Timestamp::from_secs(time),
            body: body.to_owned(),
            attributes,
            ..LogRecord::default()
        }
    }

    async fn read(index: &Arc<LogIndex>, change: impl FnOnce(&mut PastLogQuery)) -> Option<String> {
        let mut query = PastLogQuery {
            namespace: "shop".into(),
            pod: "web-1".into(),
            container: "web".into(),
            ..PastLogQuery::default()
        };
        change(&mut query);
        let mut lines = (archive(index.clone()).log)(query).await.expect("read")?;
        let mut all = String::new();
        while let Some(piece) = lines.next().await {
            all.push_str(std::str::from_utf8(&piece.expect("a piece")).expect("text"));
        }
        Some(all)
    }

    #[tokio::test]
    async fn a_deleted_pods_lines_in_the_words_of_kubectl_logs() {
        let dir = tempfile::tempdir().expect("a directory");
        let index = LogIndex::open(log_index::Config::new(dir.path(), log_index::Kind::Logs)).expect("opens");
        // Near now: what is too old is not taken.
        let now = signal::time::now().nanos() / 1_000_000_000 - 600;
        let labels = [("namespace", "shop"), ("pod", "web-1"), ("container", "web"), ("node", "n")];
        let mut records = vec![line(now, 0, "first life"), line(now + 1, 1, "one"), line(now + 2, 1, "!two")];
        // More lines of one time than a page holds.
        records.extend((0..5000).map(|n| line(now + 3, 1, &format!("burst {n}"))));
        records.push(line(now + 4, 1, "last"));
        let stream = LogStream { labels: Labels::from_pairs(labels), records };
        index
            .append_logs(LogBatch { streams: vec![stream], checkpoints: Vec::new() })
            .await
            .expect("appends");
        let all = read(&index, |_| {}).await.expect("lines");
        assert_eq!(all.lines().count(), 5003);
        assert!(all.starts_with("one\n!two\nburst 0\nburst 1\n") && all.ends_with("burst 4999\nlast\n"));
        assert_eq!(read(&index, |q| q.previous = true).await.as_deref(), Some("first life\n"));
        assert_eq!(read(&index, |q| q.tail_lines = Some(2)).await.as_deref(), Some("burst 4999\nlast\n"));
        assert_eq!(read(&index, |q| q.limit_bytes = Some(6)).await.as_deref(), Some("one\n!t"));
        assert_eq!(read(&index, |q| q.stream = Some("stderr".into())).await.as_deref(), Some("!two\n"));
        let since = Some(Timestamp::from_secs(now + 4));
        let stamped = read(&index, |q| (q.since, q.timestamps) = (since, true)).await.expect("lines");
        assert!(stamped.ends_with("Z last\n") && stamped.lines().count() == 1, "{stamped}");
        // Beginning within a time, and beyond what is counted at once.
        for n in [3000, 5002, 9000] {
            let tail = read(&index, |q| q.tail_lines = Some(n)).await.expect("lines");
            let expect: Vec<&str> = all.lines().skip(5003usize.saturating_sub(n as usize)).collect();
            assert!(tail.lines().eq(expect), "a tail of {n}");
        }
        assert_eq!(read(&index, |q| q.tail_lines = Some(0)).await.as_deref(), Some(""));
        let many = COUNTED as i64 + 1000;
        // Two hundred lines each of their times.
        let records = (0..many).map(|n| line(now + 10 + n / 200, 2, &n.to_string())).collect();
        let stream = LogStream { labels: Labels::from_pairs(labels), records };
        let batch = LogBatch { streams: vec![stream], checkpoints: Vec::new() };
        index.append_logs(batch).await.expect("appends");
        for n in [COUNTED as i64 - 1, COUNTED as i64, COUNTED as i64 + 7, many] {
            let tail = read(&index, |q| q.tail_lines = Some(n as u64)).await.expect("lines");
            assert!(tail.lines().eq((many - n..many).map(|n| n.to_string())), "a tail of {n}");
        }
        // What a node has rotated away: of one life, before a time.
        let before =
            |q: &mut PastLogQuery| (q.life, q.until) = (Some(1), Some(Timestamp::from_secs(now + 3)));
        assert_eq!(read(&index, |q| before(q)).await.as_deref(), Some("one\n!two\n"));
        let last = read(&index, |q| {
            before(q);
            q.tail_lines = Some(1)
        })
        .await;
        assert_eq!(last.as_deref(), Some("!two\n"));
        assert_eq!(read(&index, |q| q.pod = "other".into()).await, None);
        let found = pod(&index, "shop", "web-1").expect("read");
        assert_eq!(found, Some(PastPod { node: "n".into(), containers: vec!["web".into()] }));
    }
}
