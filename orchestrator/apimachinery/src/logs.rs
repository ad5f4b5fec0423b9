//! What a node tells of a container's log whose beginning it no longer has.

use std::str::FromStr;

/// The header of a kubelet's answer that carries [`RotatedAway`].
pub const ROTATED_AWAY: &str = "x-binnacle-log-rotated-away";

/// Lines that were asked for and are older than what the node keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RotatedAway {
    /// Time of the first line that the node has, in nanoseconds since 1970: all before it are away.
    pub before: i64,
    /// Which of the container's lives the log is of: how often it had been started before.
    pub life: i64,
    /// If a number of last lines was asked for: how many of them are away.
    pub lines: Option<u64>,
}

impl std::fmt::Display for RotatedAway {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.before, self.life)?;
        self.lines.map_or(Ok(()), |n| write!(f, " {n}"))
    }
}

impl FromStr for RotatedAway {
    type Err = std::num::ParseIntError;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        let mut parts = s.splitn(3, ' ');
        let before = parts.next().unwrap_or_default().parse()?;
        let life = parts.next().unwrap_or_default().parse()?;
        Ok(RotatedAway { before, life, lines: parts.next().map(str::parse).transpose()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_writes() {
        for lines in [None, Some(7)] {
            let r = RotatedAway { before: -3, life: 2, lines };
            assert_eq!(r.to_string().parse(), Ok(r));
        }
        assert!("".parse::<RotatedAway>().is_err() && "1 2 x".parse::<RotatedAway>().is_err());
    }
}
