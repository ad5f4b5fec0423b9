//! A line on stderr: time, level, room, message and fields. Spans are left out: they go to the trace store.

use std::fmt;

use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

pub(crate) struct Line {
    pub(crate) color: bool,
}

impl<S, N> FormatEvent<S, N> for Line
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        ctx: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let (name, color) = match *event.metadata().level() {
            Level::ERROR => ("ERROR", 31),
            Level::WARN => ("WARN ", 33),
            Level::INFO => ("INFO ", 32),
            Level::DEBUG => ("DEBUG", 34),
            Level::TRACE => ("TRACE", 35),
        };
        SystemTime.format_time(&mut writer)?;
        if self.color {
            write!(writer, " \x1b[{color}m{name}\x1b[0m ")?;
        } else {
            write!(writer, " {name} ")?;
        }
        let room = event.metadata().target().split("::").next().unwrap_or_default();
        write!(writer, "{room}: ")?;
        let mut plain = Writer::new(&mut writer);
        ctx.format_fields(plain.by_ref(), event)?;
        writeln!(writer)
    }
}
