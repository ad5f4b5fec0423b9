//! Lines around each hit.

use anyhow::Result;

use super::fetch;
use super::printer::{Entry, Printer};
use crate::commands::print as say;
use crate::commands::remote::Remote;

/// Hits whose surroundings are fetched at most.
const CONTEXTS: usize = 100;

/// Each hit among the lines of its own container; hits that stand near each other share their surroundings.
pub(super) async fn print(
    remote: &Remote,
    hits: Vec<Entry>,
    lines: usize,
    printer: &mut Printer,
) -> Result<()> {
    const DAY: i64 = 86_400_000_000_000;
    let shown = hits.len().min(CONTEXTS);
    let mut last: Option<(String, i64)> = None;
    for hit in hits.iter().rev().take(shown).rev() {
        let label = |n: &str| hit.labels[n].as_str().unwrap_or_default().to_owned();
        let stream = format!(
            "{{namespace={:?},pod={:?},container={:?}}}",
            label("namespace"),
            label("pod"),
            label("container")
        );
        let mut all = fetch(remote, &stream, hit.nanos - DAY, hit.nanos, lines, "backward").await?;
        all.extend(fetch(remote, &stream, hit.nanos, hit.nanos + DAY, lines + 1, "forward").await?);
        let joins =
            last.as_ref().is_some_and(|(s, at)| *s == stream && all.first().is_some_and(|e| e.nanos <= *at));
        if last.is_some() && !joins {
            say("--")?;
        }
        let from = last.filter(|(s, _)| *s == stream).map_or(i64::MIN, |(_, at)| at);
        for e in all.iter().filter(|e| e.nanos > from) {
            printer.entry(e)?;
        }
        last = Some((stream, all.last().map_or(hit.nanos, |e| e.nanos).max(from)));
    }
    if shown < hits.len() {
        say(&format!(
            "({} earlier hits are not shown: narrow the search, or use a smaller --tail)",
            hits.len() - shown
        ))?;
    }
    Ok(())
}
