//! OpenTelemetry's names as Prometheus' (opentelemetry.io: "Prometheus and OpenMetrics compatibility"), by one of
//! Prometheus' four strategies.

use std::str::FromStr;

/// What becomes of names (Prometheus: `otlp.translation_strategy`, whose words these are).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Translation {
    /// `http.server.duration` in `ms` → `http_server_duration_milliseconds`.
    #[default]
    UnderscoreEscapingWithSuffixes,
    /// → `http_server_duration`.
    UnderscoreEscapingWithoutSuffixes,
    /// → `http.server.duration_milliseconds`.
    NoUtf8EscapingWithSuffixes,
    /// → `http.server.duration`.
    NoTranslation,
}

/// Not one of the four words.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "unknown translation strategy {0:?}: use UnderscoreEscapingWithSuffixes, UnderscoreEscapingWithoutSuffixes, \
     NoUTF8EscapingWithSuffixes or NoTranslation"
)]
pub struct UnknownTranslation(String);

impl FromStr for Translation {
    type Err = UnknownTranslation;

    fn from_str(s: &str) -> Result<Self, UnknownTranslation> {
        Ok(match s {
            "UnderscoreEscapingWithSuffixes" => Translation::UnderscoreEscapingWithSuffixes,
            "UnderscoreEscapingWithoutSuffixes" => Translation::UnderscoreEscapingWithoutSuffixes,
            "NoUTF8EscapingWithSuffixes" => Translation::NoUtf8EscapingWithSuffixes,
            "NoTranslation" => Translation::NoTranslation,
            other => return Err(UnknownTranslation(other.to_owned())),
        })
    }
}

/// What of a metric's kind shows in its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Gets `_total`.
    Counter,
    /// Gets `_ratio` if its unit is 1.
    Gauge,
    Other,
}

impl Translation {
    fn escapes(self) -> bool {
        matches!(
            self,
            Translation::UnderscoreEscapingWithSuffixes | Translation::UnderscoreEscapingWithoutSuffixes
        )
    }

    fn adds_suffixes(self) -> bool {
        matches!(self, Translation::UnderscoreEscapingWithSuffixes | Translation::NoUtf8EscapingWithSuffixes)
    }

    /// Empty if nothing of the name can be kept.
    pub(super) fn metric_name(self, name: &str, unit: &str, kind: Kind) -> String {
        let suffix = match kind {
            Kind::Counter => Some("total"),
            Kind::Gauge if unit == "1" => Some("ratio"),
            _ => None,
        };
        match (self.escapes(), self.adds_suffixes()) {
            (true, true) => {
                let mut words: Vec<String> =
                    name.split(|c| !is_name_char(c)).filter(|w| !w.is_empty()).map(str::to_owned).collect();
                for word in unit_words(unit).into_iter().map(|w| clean(&w)) {
                    if !word.is_empty() && !words.contains(&word) {
                        words.push(word);
                    }
                }
                if let Some(suffix) = suffix {
                    words.retain(|w| w != suffix);
                    words.push(suffix.to_owned());
                }
                not_a_digit_first(words.join("_"), "_")
            }
            (true, false) => {
                let words = name.split(|c| !is_name_char(c) && c != '_').filter(|w| !w.is_empty());
                not_a_digit_first(words.collect::<Vec<_>>().join("_"), "_")
            }
            (false, true) => {
                let mut out = name.to_owned();
                // The last word stands last, whatever unit there is.
                if let Some(own) = suffix {
                    out = out.strip_suffix(&format!("_{own}")).unwrap_or(&out).to_owned();
                }
                for word in unit_words(unit).iter().map(String::as_str).chain(suffix) {
                    if !word.is_empty() && !out.ends_with(&format!("_{word}")) {
                        out = format!("{out}_{word}");
                    }
                }
                out
            }
            (false, false) => name.to_owned(),
        }
    }

    pub(super) fn label_name(self, name: &str) -> String {
        if !self.escapes() {
            return name.to_owned();
        }
        // `__name__` and its like are reserved, and stay.
        let reserved = name.len() > 4 && name.starts_with("__") && name.ends_with("__");
        let mut out = String::with_capacity(name.len() + 4);
        for c in name.chars() {
            if c.is_ascii_alphanumeric() {
                out.push(c);
            } else if !out.ends_with('_') {
                out.push('_');
            }
        }
        if reserved {
            return format!("_{out}_");
        }
        if out.starts_with('_') { format!("key{out}") } else { not_a_digit_first(out, "key_") }
    }
}

/// A unit as Prometheus' metadata has it.
pub(super) fn unit_name(unit: &str) -> String {
    let words: Vec<String> = unit_words(unit).iter().map(|w| clean(w)).filter(|w| !w.is_empty()).collect();
    words.join("_").trim_matches('_').to_owned()
}

fn is_name_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == ':'
}

fn not_a_digit_first(name: String, prefix: &str) -> String {
    if name.starts_with(|c: char| c.is_ascii_digit()) { format!("{prefix}{name}") } else { name }
}

/// A unit's word without what a name cannot hold.
fn clean(word: &str) -> String {
    let mut out = String::with_capacity(word.len());
    for c in word.chars() {
        if is_name_char(c) {
            out.push(c);
        } else if !out.ends_with('_') {
            out.push('_');
        }
    }
    out.trim_matches('_').to_owned()
}

/// `By/s` → `bytes`, `per_second`. What stands in braces is a remark, not a unit.
fn unit_words(unit: &str) -> Vec<String> {
    let (main, per) = unit.split_once('/').map_or((unit, ""), |(m, p)| (m, p));
    let said = |u: &str| {
        let u = u.trim();
        (!u.is_empty() && !u.contains(['{', '}'])).then(|| u.to_owned())
    };
    let main = said(main).map(|u| main_word(&u).to_owned());
    let per = said(per).map(|u| format!("per_{}", per_word(&u)));
    main.into_iter().chain(per).collect()
}

fn per_word(unit: &str) -> &str {
    match unit {
        "s" => "second",
        "m" => "minute",
        "h" => "hour",
        "d" => "day",
        "w" => "week",
        "mo" => "month",
        "y" => "year",
        other => other,
    }
}

fn main_word(unit: &str) -> &str {
    match unit {
        "d" => "days",
        "h" => "hours",
        "min" => "minutes",
        "s" => "seconds",
        "ms" => "milliseconds",
        "us" => "microseconds",
        "ns" => "nanoseconds",
        "By" => "bytes",
        "KiBy" => "kibibytes",
        "MiBy" => "mebibytes",
        "GiBy" => "gibibytes",
        "TiBy" => "tibibytes",
        "KBy" => "kilobytes",
        "MBy" => "megabytes",
        "GBy" => "gigabytes",
        "TBy" => "terabytes",
        "m" => "meters",
        "V" => "volts",
        "A" => "amperes",
        "J" => "joules",
        "W" => "watts",
        "g" => "grams",
        "Cel" => "celsius",
        "Hz" => "hertz",
        "%" => "percent",
        "1" => "",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_as_the_specification_says() {
        let check = |name, unit, kind, expect: &str| {
            assert_eq!(Translation::default().metric_name(name, unit, kind), expect);
        };
        check("http.server.duration", "ms", Kind::Other, "http_server_duration_milliseconds");
        check("requests", "1", Kind::Counter, "requests_total");
        check("system.io_total", "By", Kind::Counter, "system_io_bytes_total");
        check("speed", "m/s", Kind::Gauge, "speed_meters_per_second");
        check("2xx.count", "{request}", Kind::Other, "_2xx_count");
        check("packets", "{packet}/s", Kind::Gauge, "packets_per_second");
        check("duration_seconds", "s", Kind::Other, "duration_seconds");
        check("utilization", "1", Kind::Gauge, "utilization_ratio");
        check("a__b", "", Kind::Gauge, "a_b");
        check("字", "", Kind::Gauge, "");
    }

    #[test]
    fn each_strategy_has_its_way() {
        let check = |strategy: &str, name, unit, kind, expect: &str| {
            let t: Translation = strategy.parse().expect("a strategy");
            assert_eq!(t.metric_name(name, unit, kind), expect, "{strategy}");
        };
        check("UnderscoreEscapingWithoutSuffixes", "a.b__c", "ms", Kind::Counter, "a_b__c");
        check("NoUTF8EscapingWithSuffixes", "a.b", "ms", Kind::Counter, "a.b_milliseconds_total");
        check("NoUTF8EscapingWithSuffixes", "a.b_total", "By", Kind::Counter, "a.b_bytes_total");
        check("NoTranslation", "a.b", "ms", Kind::Counter, "a.b");
        assert!("noTranslation".parse::<Translation>().is_err());
    }

    #[test]
    fn labels_are_letters_digits_and_underscores() {
        let check =
            |name: &str, expect: &str| assert_eq!(Translation::default().label_name(name), expect, "{name}");
        check("http.method", "http_method");
        check("label:with:colons", "label_with_colons");
        check("123label", "key_123label");
        check(".foo", "key_foo");
        check("a__b", "a_b");
        check("__reserved__label__", "__reserved_label__");
        assert_eq!(Translation::NoTranslation.label_name("a.b"), "a.b");
    }

    #[test]
    fn units_have_words() {
        let check = |unit: &str, expect: &str| assert_eq!(unit_name(unit), expect, "{unit}");
        check("By/s", "bytes_per_second");
        check("{a}/s", "per_second");
        check("1", "");
        check("ms", "milliseconds");
    }
}
