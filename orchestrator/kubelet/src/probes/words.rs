//! The words in which probes and pulls fail: Go's, since people and their alerts search for them.

use std::io;
use std::time::Duration;

use nix::errno::Errno;

/// An operating system's error as Go prints it.
pub(crate) fn io_text(e: &io::Error) -> String {
    match e.raw_os_error().map(Errno::from_raw) {
        Some(Errno::ECONNREFUSED) => "connection refused".to_owned(),
        Some(Errno::EHOSTUNREACH) => "no route to host".to_owned(),
        Some(Errno::ENETUNREACH) => "network is unreachable".to_owned(),
        Some(Errno::ECONNRESET) => "connection reset by peer".to_owned(),
        Some(Errno::ETIMEDOUT) => "connection timed out".to_owned(),
        Some(Errno::EPIPE) => "broken pipe".to_owned(),
        Some(Errno::ENOSPC) => "no space left on device".to_owned(),
        _ if e.kind() == io::ErrorKind::UnexpectedEof => "EOF".to_owned(),
        _ => e.to_string(),
    }
}

/// A duration as Go prints it, to the millisecond: `850ms`, `1.5s`, `1m20s`.
pub(crate) fn duration_text(d: Duration) -> String {
    let millis = d.as_millis();
    if millis < 1000 {
        return if millis == 0 { "0s".to_owned() } else { format!("{millis}ms") };
    }
    let (hours, minutes, rest) = (millis / 3_600_000, millis / 60_000 % 60, millis % 60_000);
    let mut text = String::new();
    if hours > 0 {
        text += &format!("{hours}h");
    }
    if hours > 0 || minutes > 0 {
        text += &format!("{minutes}m");
    }
    let fraction = format!("{:03}", rest % 1000);
    match fraction.trim_end_matches('0') {
        "" => text + &format!("{}s", rest / 1000),
        f => text + &format!("{}.{f}s", rest / 1000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_go_prints_them() {
        let check = |millis, expect: &str| assert_eq!(duration_text(Duration::from_millis(millis)), expect);
        check(0, "0s");
        check(12, "12ms");
        check(1000, "1s");
        check(1250, "1.25s");
        check(80_000, "1m20s");
        check(300_000, "5m0s");
        check(3_600_500, "1h0m0.5s");
        let refused = io::Error::from_raw_os_error(Errno::ECONNREFUSED as i32);
        assert_eq!(io_text(&refused), "connection refused");
    }
}
