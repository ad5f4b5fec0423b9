//! Prometheus' text format 0.0.4, as those read it that know no OpenMetrics: a counter's family has the name of its
//! samples, and there are no units, exemplars and last lines.

/// `text` is what our registry writes.
pub(super) fn from_open_metrics(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut help: Option<(&str, &str)> = None;
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            help = rest.split_once(' ');
        } else if let Some((name, ty)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            let (suffix, ty) = match ty {
                "counter" => ("_total", "counter"),
                "info" => ("_info", "gauge"),
                "unknown" => ("", "untyped"),
                "stateset" => ("", "gauge"),
                ty => ("", ty),
            };
            if let Some((_, said)) = help.take().filter(|(of, _)| *of == name) {
                out.push_str(&format!("# HELP {name}{suffix} {said}\n"));
            }
            out.push_str(&format!("# TYPE {name}{suffix} {ty}\n"));
        } else if !line.starts_with('#') {
            out.push_str(without_exemplar(line));
            out.push('\n');
        }
    }
    out
}

/// An exemplar stands behind the value; labels may hold anything, but their values are quoted.
fn without_exemplar(line: &str) -> &str {
    let (mut quoted, mut escaped) = (false, false);
    for (i, b) in line.bytes().enumerate() {
        match b {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'#' if !quoted => return line[..i].trim_end(),
            _ => {}
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_are_named_as_their_samples() {
        let open = "# HELP a Said.\n# TYPE a counter\na_total{l=\"x # \\\" y\"} 1 # {trace_id=\"1\"} 2 3\n\
            # HELP b_seconds Took.\n# TYPE b_seconds histogram\n# UNIT b_seconds seconds\nb_seconds_sum 1\n\
            # TYPE c unknown\nc 1\n# HELP build Of it.\n# TYPE build info\nbuild_info{v=\"1\"} 1\n# EOF\n";
        let expect = "# HELP a_total Said.\n# TYPE a_total counter\na_total{l=\"x # \\\" y\"} 1\n\
            # HELP b_seconds Took.\n# TYPE b_seconds histogram\nb_seconds_sum 1\n\
            # TYPE c untyped\nc 1\n# HELP build_info Of it.\n# TYPE build_info gauge\nbuild_info{v=\"1\"} 1\n";
        assert_eq!(from_open_metrics(open), expect);
    }
}
