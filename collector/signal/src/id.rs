//! Trace and span ids, as W3C Trace Context has them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $len:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; $len]);

        impl $name {
            /// The all-zero id, which means "none".
            pub const INVALID: $name = $name([0; $len]);

            pub fn is_valid(&self) -> bool {
                self.0 != [0; $len]
            }

            /// From raw bytes; `None` if the length is wrong.
            pub fn from_slice(bytes: &[u8]) -> Option<Self> {
                bytes.try_into().ok().map($name)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = &'static str;

            /// From lower- or upper-case hex of full length.
            fn from_str(s: &str) -> Result<Self, Self::Err> {
                if s.len() != $len * 2 || !s.is_ascii() {
                    return Err(concat!("an id of this kind has ", stringify!($len), " bytes in hex"));
                }
                let mut out = [0; $len];
                for (i, b) in out.iter_mut().enumerate() {
                    *b = u8::from_str_radix(&s[2 * i..2 * i + 2], 16).map_err(|_| "not hexadecimal")?;
                }
                Ok($name(out))
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                let s = String::deserialize(d)?;
                s.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

id!(
    /// Names a trace: 16 bytes, printed as 32 hex digits.
    TraceId,
    16
);
id!(
    /// Names a span within a trace: 8 bytes, printed as 16 hex digits.
    SpanId,
    8
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_round_trips() {
        let s = "0af7651916cd43dd8448eb211c80319c";
        assert_eq!(s.parse::<TraceId>().expect("hex").to_string(), s);
        assert!("0af7".parse::<TraceId>().is_err());
        assert!("zzzzzzzzzzzzzzzz".parse::<SpanId>().is_err());
        assert!(!TraceId::INVALID.is_valid());
    }
}
