//! OpenTelemetry's metric names as Prometheus' (opentelemetry.io: "Prometheus and OpenMetrics compatibility").

/// `http.server.duration` in `ms` → `http_server_duration_milliseconds`; monotonic sums get `_total`.
pub(super) fn metric_name(name: &str, unit: &str, monotonic: bool) -> String {
    let mut out = sanitize(name);
    for suffix in unit_suffixes(unit) {
        if !suffix.is_empty() && !out.split('_').any(|w| w == suffix) {
            out.push('_');
            out.push_str(&suffix);
        }
    }
    if monotonic && !out.ends_with("_total") {
        out.push_str("_total");
    }
    out
}

/// Label names: letters, digits and underscores, not beginning with a digit.
pub(super) fn label_name(name: &str) -> String {
    sanitize(name).replace(':', "_")
}

fn sanitize(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for c in name.chars() {
        if c.is_ascii_alphanumeric() || c == ':' {
            out.push(c);
        } else if !out.ends_with('_') {
            out.push('_');
        }
    }
    if out.starts_with(|c: char| c.is_ascii_digit()) {
        out.insert(0, '_');
    }
    out.trim_end_matches('_').to_owned()
}

fn unit_suffixes(unit: &str) -> Vec<String> {
    let unit = unit.trim();
    if unit.is_empty() || unit.contains('{') {
        return Vec::new();
    }
    let (main, per) = unit.split_once('/').map_or((unit, None), |(m, p)| (m, Some(p)));
    let word = |u: &str| {
        match u {
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
            "KBy" => "kilobytes",
            "MBy" => "megabytes",
            "GBy" => "gigabytes",
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
        .to_owned()
    };
    let mut out = vec![sanitize(&word(main))];
    if let Some(per) = per {
        let per = match per {
            "s" => "second",
            "m" => "minute",
            "h" => "hour",
            "d" => "day",
            other => other,
        };
        out.push(format!("per_{}", sanitize(per)));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_as_the_specification_says() {
        let check =
            |name, unit, monotonic, expect: &str| assert_eq!(metric_name(name, unit, monotonic), expect);
        check("http.server.duration", "ms", false, "http_server_duration_milliseconds");
        check("requests", "1", true, "requests_total");
        check("system.io_total", "By", true, "system_io_total_bytes_total");
        check("speed", "m/s", false, "speed_meters_per_second");
        check("2xx.count", "{request}", false, "_2xx_count");
        check("duration_seconds", "s", false, "duration_seconds");
    }
}
