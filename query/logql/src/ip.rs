//! `ip("192.168.0.0/16")`: addresses in lines and labels.

use std::net::IpAddr;

/// An address, a range `a-b`, or a network `a/n`, as its first and last address.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct IpRange {
    first: IpAddr,
    last: IpAddr,
}

fn bits(a: IpAddr) -> u128 {
    match a {
        IpAddr::V4(a) => u128::from(u32::from(a)),
        IpAddr::V6(a) => u128::from(a),
    }
}

impl IpRange {
    pub(crate) fn parse(text: &str) -> Result<IpRange, String> {
        let wrong = || format!("{text:?} is no address, range (a-b) or network (a/n)");
        let address = |s: &str| s.trim().parse::<IpAddr>().map_err(|_| wrong());
        if let Some((first, last)) = text.split_once('-') {
            let r = IpRange { first: address(first)?, last: address(last)? };
            return if r.first.is_ipv4() == r.last.is_ipv4() && r.first <= r.last {
                Ok(r)
            } else {
                Err(wrong())
            };
        }
        let Some((base, prefix)) = text.split_once('/') else {
            let a = address(text)?;
            return Ok(IpRange { first: a, last: a });
        };
        let (base, prefix): (IpAddr, u32) = (address(base)?, prefix.parse().map_err(|_| wrong())?);
        match base {
            IpAddr::V4(a) if prefix <= 32 => {
                let host = u32::MAX.checked_shr(prefix).unwrap_or(0);
                let first = u32::from(a) & !host;
                Ok(IpRange { first: IpAddr::V4(first.into()), last: IpAddr::V4((first | host).into()) })
            }
            IpAddr::V6(a) if prefix <= 128 => {
                let host = u128::MAX.checked_shr(prefix).unwrap_or(0);
                let first = u128::from(a) & !host;
                Ok(IpRange { first: IpAddr::V6(first.into()), last: IpAddr::V6((first | host).into()) })
            }
            _ => Err(wrong()),
        }
    }

    pub(crate) fn has(&self, text: &str) -> bool {
        text.parse::<IpAddr>().is_ok_and(|a| {
            a.is_ipv4() == self.first.is_ipv4() && (bits(self.first)..=bits(self.last)).contains(&bits(a))
        })
    }

    /// Whether any address in the line is in the range.
    pub(crate) fn is_in(&self, line: &str) -> bool {
        line.split(|c: char| !(c.is_ascii_hexdigit() || c == '.' || c == ':')).any(|word| {
            // An address may have a port behind it, and a sentence may end behind it.
            let bare = word.trim_end_matches(['.', ':']);
            self.has(bare) || bare.rsplit_once(':').is_some_and(|(a, _)| a.contains('.') && self.has(a))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        for (range, line, expect) in [
            ("192.168.0.0/16", "from 192.168.4.5:8080 to 10.0.0.1", true),
            ("192.168.0.0/16", "from 192.169.4.5", false),
            ("10.0.0.1", "to 10.0.0.1.", true),
            ("10.0.0.1-10.0.0.9", "x=10.0.0.5,", true),
            ("10.0.0.1-10.0.0.9", "x=10.0.0.10,", false),
            ("2001:db8::/32", "[2001:db8::1] connected", true),
            ("0.0.0.0/0", "no address at all", false),
            ("::/0", "10.0.0.1", false),
        ] {
            assert_eq!(IpRange::parse(range).expect(range).is_in(line), expect, "{range} in {line}");
        }
        for bad in ["", "x", "10.0.0.1/33", "10.0.0.9-10.0.0.1", "10.0.0.1-::1"] {
            assert!(IpRange::parse(bad).is_err(), "{bad}");
        }
    }
}
