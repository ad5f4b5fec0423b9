//! Resource quantities: `100m`, `1Gi`, `2e3`. Exact to a billionth, as upstream
//! (apimachinery: pkg/api/resource/quantity.go).

use std::cmp::Ordering;
use std::fmt;
use std::ops::{Add, AddAssign, Neg, Sub, SubAssign};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

const NANO: i128 = 1_000_000_000;
/// Upstream caps what it cannot hold at this many units.
const MAX_UNITS: i128 = i64::MAX as i128;
const DECIMAL: [(&str, i32); 10] =
    [("n", -9), ("u", -6), ("m", -3), ("", 0), ("k", 3), ("M", 6), ("G", 9), ("T", 12), ("P", 15), ("E", 18)];
const BINARY: [(&str, u32); 6] = [("Ki", 10), ("Mi", 20), ("Gi", 30), ("Ti", 40), ("Pi", 50), ("Ei", 60)];

/// How a quantity was written, and so how it is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Format {
    /// `100m`, `5k`
    #[default]
    DecimalSi,
    /// `1Gi`
    BinarySi,
    /// `2e3`
    DecimalExponent,
}

/// Why a text is not a quantity. The message is upstream's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    #[error("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")]
    Format,
    #[error("unable to parse quantity's suffix")]
    Suffix,
}

/// A fixed-point number with a unit suffix. Compared by value: `1000m` equals `1`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Quantity {
    nanos: i128,
    format: Format,
}

impl Quantity {
    pub const ZERO: Quantity = Quantity { nanos: 0, format: Format::DecimalSi };

    pub const fn from_units(units: i64, format: Format) -> Self {
        Quantity { nanos: units as i128 * NANO, format }
    }

    pub const fn from_milli(milli: i64) -> Self {
        Quantity { nanos: milli as i128 * 1_000_000, format: Format::DecimalSi }
    }

    pub const fn from_nanos(nanos: i128, format: Format) -> Self {
        Quantity { nanos, format }
    }

    /// Bytes, printed as `Ki`, `Mi`, ….
    pub const fn from_bytes(bytes: i64) -> Self {
        Quantity::from_units(bytes, Format::BinarySi)
    }

    pub const fn nanos(self) -> i128 {
        self.nanos
    }

    pub const fn format(self) -> Format {
        self.format
    }

    pub fn is_zero(self) -> bool {
        self.nanos == 0
    }

    /// Whole units, rounded away from zero as upstream's `Value()`.
    pub fn value(self) -> i64 {
        saturate(div_away(self.nanos, NANO))
    }

    /// Thousandths, rounded away from zero as upstream's `MilliValue()`.
    pub fn milli(self) -> i64 {
        saturate(div_away(self.nanos, 1_000_000))
    }

    pub fn to_f64(self) -> f64 {
        // Split, so that whole numbers stay exact where f64 can hold them.
        (self.nanos / NANO) as f64 + (self.nanos % NANO) as f64 / NANO as f64
    }
}

fn saturate(v: i128) -> i64 {
    i64::try_from(v).unwrap_or(if v < 0 { i64::MIN } else { i64::MAX })
}

fn div_away(n: i128, d: i128) -> i128 {
    let q = n / d;
    if n % d == 0 { q } else { q + n.signum() }
}

impl FromStr for Quantity {
    type Err = QuantityError;

    fn from_str(s: &str) -> Result<Self, QuantityError> {
        let (negative, body) = match s.as_bytes().first() {
            Some(b'-') => (true, &s[1..]),
            Some(b'+') => (false, &s[1..]),
            _ => (false, s),
        };
        let end = body.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(body.len());
        let (number, suffix) = body.split_at(end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if whole.len() + fraction.len() == 0 || fraction.contains('.') {
            return Err(QuantityError::Format);
        }
        let (format, exponent, shift) = parse_suffix(suffix)?;
        // Digits as one integer with `scale` decimal places; what lies below a nano only rounds.
        let scale = exponent.saturating_sub(i32::try_from(fraction.len()).unwrap_or(i32::MAX));
        let digits = whole.bytes().chain(fraction.bytes()).skip_while(|b| *b == b'0');
        let mut nanos: i128 = 0;
        let mut dropped = false;
        let count = i32::try_from(digits.clone().count()).unwrap_or(i32::MAX);
        // Position of the last digit that still counts: 10^-9 in decimal, deeper for binary suffixes.
        let floor = if shift > 0 { -27 } else { -9 };
        let keep = (count + scale.saturating_sub(floor)).clamp(0, 38);
        for (i, b) in digits.enumerate() {
            if i as i64 >= i64::from(keep) {
                if count.saturating_add(scale) > 30 {
                    return Ok(Quantity { nanos: cap(negative), format });
                }
                dropped |= b != b'0';
                continue;
            }
            nanos = match nanos.checked_mul(10).and_then(|n| n.checked_add(i128::from(b - b'0'))) {
                Some(n) => n,
                None => return Ok(Quantity { nanos: cap(negative), format }),
            };
        }
        let kept_scale = scale.saturating_add((count - keep).max(0));
        // nanos × 10^(kept_scale + 9) × 2^shift
        let mut value = Some(nanos);
        if shift > 0 {
            value = value.and_then(|n| n.checked_mul(1i128 << shift));
        }
        let power = kept_scale.saturating_add(9);
        if nanos != 0 {
            if power >= 0 {
                value = u32::try_from(power)
                    .ok()
                    .and_then(|p| 10i128.checked_pow(p))
                    .and_then(|p| value.and_then(|n| n.checked_mul(p)));
            } else {
                let d = u32::try_from(-power).ok().and_then(|p| 10i128.checked_pow(p));
                value = match (value, d) {
                    (Some(n), Some(d)) => {
                        dropped |= n % d != 0;
                        Some(n / d)
                    }
                    _ => Some(0),
                };
            }
        }
        let mut nanos = match value {
            Some(n) if n <= MAX_UNITS * NANO => n,
            _ => MAX_UNITS * NANO,
        };
        if dropped {
            nanos += 1;
        }
        Ok(Quantity { nanos: if negative { -nanos } else { nanos }, format })
    }
}

fn cap(negative: bool) -> i128 {
    if negative { -MAX_UNITS * NANO } else { MAX_UNITS * NANO }
}

/// Suffix → format, decimal exponent, binary shift.
fn parse_suffix(suffix: &str) -> Result<(Format, i32, u32), QuantityError> {
    if let Some((_, e)) = DECIMAL.iter().find(|(s, _)| *s == suffix) {
        return Ok((Format::DecimalSi, *e, 0));
    }
    if let Some((_, b)) = BINARY.iter().find(|(s, _)| *s == suffix) {
        return Ok((Format::BinarySi, 0, *b));
    }
    if let Some(rest) = suffix.strip_prefix(['e', 'E']) {
        let digits = rest.strip_prefix(['+', '-']).unwrap_or(rest);
        if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
            return Err(QuantityError::Suffix);
        }
        let e: i32 = rest.parse().map_err(|_| QuantityError::Suffix)?;
        return Ok((Format::DecimalExponent, e, 0));
    }
    if suffix.bytes().all(|b| b"eEinumkKMGTP+-0123456789".contains(&b)) {
        Err(QuantityError::Suffix)
    } else {
        Err(QuantityError::Format)
    }
}

impl fmt::Display for Quantity {
    /// The canonical form.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nanos == 0 {
            return f.write_str("0");
        }
        let binary = self.format == Format::BinarySi && self.nanos.abs() >= 1024 * NANO;
        if binary {
            let mut n = div_away(self.nanos, NANO);
            let mut suffix = "";
            for (s, _) in BINARY {
                if n % 1024 != 0 {
                    break;
                }
                n /= 1024;
                suffix = s;
            }
            return write!(f, "{n}{suffix}");
        }
        let mut n = self.nanos;
        let mut i = 0;
        while n % 1000 == 0 && i + 1 < DECIMAL.len() {
            n /= 1000;
            i += 1;
        }
        let (suffix, exponent) = DECIMAL[i];
        match self.format {
            Format::DecimalExponent if exponent != 0 => write!(f, "{n}e{exponent}"),
            Format::DecimalExponent => write!(f, "{n}"),
            _ => write!(f, "{n}{suffix}"),
        }
    }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nanos == other.nanos
    }
}

impl Eq for Quantity {}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> Ordering {
        self.nanos.cmp(&other.nanos)
    }
}

impl Add for Quantity {
    type Output = Quantity;

    /// The sum, in the format of the first that is not zero.
    fn add(self, other: Quantity) -> Quantity {
        let format = if self.nanos == 0 { other.format } else { self.format };
        Quantity { nanos: self.nanos.saturating_add(other.nanos), format }
    }
}

impl Neg for Quantity {
    type Output = Quantity;

    fn neg(self) -> Quantity {
        Quantity { nanos: -self.nanos, format: self.format }
    }
}

impl Sub for Quantity {
    type Output = Quantity;

    fn sub(self, other: Quantity) -> Quantity {
        self + -other
    }
}

impl AddAssign for Quantity {
    fn add_assign(&mut self, other: Quantity) {
        *self = *self + other;
    }
}

impl SubAssign for Quantity {
    fn sub_assign(&mut self, other: Quantity) {
        *self = *self - other;
    }
}

impl Serialize for Quantity {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Quantity {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        match serde_json::Value::deserialize(d)? {
            serde_json::Value::String(s) => s.parse().map_err(serde::de::Error::custom),
            serde_json::Value::Number(n) => n.to_string().parse().map_err(serde::de::Error::custom),
            _ => Err(serde::de::Error::custom(QuantityError::Format)),
        }
    }
}

impl TryFrom<&k8s_openapi::apimachinery::pkg::api::resource::Quantity> for Quantity {
    type Error = QuantityError;

    fn try_from(q: &k8s_openapi::apimachinery::pkg::api::resource::Quantity) -> Result<Self, QuantityError> {
        q.0.parse()
    }
}

impl From<Quantity> for k8s_openapi::apimachinery::pkg::api::resource::Quantity {
    fn from(q: Quantity) -> Self {
        k8s_openapi::apimachinery::pkg::api::resource::Quantity(q.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(text: &str, canonical: &str) {
        assert_eq!(text.parse::<Quantity>().expect(text).to_string(), canonical, "{text}");
    }

    #[test]
    fn canonical_forms() {
        check("0", "0");
        check("100m", "100m");
        check("1000m", "1");
        check("1500m", "1500m");
        check("0.1", "100m");
        check("1.5", "1500m");
        check("1Gi", "1Gi");
        check("1024Mi", "1Gi");
        check("1.5Gi", "1536Mi");
        check("1000Ki", "1000Ki");
        check("512", "512");
        check("1e3", "1e3");
        check("1E3", "1e3");
        check("12e-1", "1200e-3");
        check("1000000", "1M");
        check("123456k", "123456k");
        check("-1.5", "-1500m");
        check("0.5Ki", "512");
        check("0.0000000001", "1n");
        check("9999999999999999999999", "9223372036854775807");
        check("5n", "5n");
    }

    #[test]
    fn refused() {
        for bad in ["", "m", "1.2.3", "1x", "abc", "1 Gi", "--1", "1e", "1Kii", "é"] {
            assert!(bad.parse::<Quantity>().is_err(), "{bad}");
        }
    }

    #[test]
    fn huge_exponents_end() {
        assert!("1e5000".parse::<Quantity>().is_ok());
        assert!("1e-5000".parse::<Quantity>().is_ok());
        let long = format!("0.{}1e5000", "0".repeat(4999));
        assert!(long.parse::<Quantity>().is_ok());
    }

    #[test]
    fn rounds_away_from_zero() {
        let q: Quantity = "1100u".parse().expect("quantity");
        assert_eq!((q.milli(), q.value()), (2, 1));
        assert_eq!("2.5".parse::<Quantity>().expect("quantity").value(), 3);
        assert_eq!("100m".parse::<Quantity>().expect("quantity").to_f64(), 0.1);
    }

    proptest! {
        #[test]
        fn printing_round_trips(units in -1_000_000_000_000i64..1_000_000_000_000, fraction in 0i128..1_000_000_000, binary: bool) {
            let format = if binary { Format::BinarySi } else { Format::DecimalSi };
            let nanos = i128::from(units) * NANO + if binary { 0 } else { fraction };
            let q = Quantity::from_nanos(nanos, format);
            prop_assert_eq!(q.to_string().parse::<Quantity>().expect("own output"), q);
        }

        #[test]
        fn any_text_ends(s in "[-+]?[0-9.]{0,60}[eEinumkKMGTP]{0,3}[-+]?[0-9]{0,8}") {
            let _ = s.parse::<Quantity>();
        }
    }
}
