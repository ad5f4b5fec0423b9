//! Floats as Go's `strconv.FormatFloat` writes them.

/// Digits and the exponent of the first one: `1234.5` is `12345` and 3. The value is finite.
fn digits(v: f64, precision: Option<usize>) -> (String, i32) {
    let text = match precision {
        Some(p) => format!("{:.*e}", p.saturating_sub(1), v.abs()),
        None => format!("{:e}", v.abs()),
    };
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    (mantissa.replace('.', ""), exponent.parse().unwrap_or(0))
}

fn special(v: f64) -> Option<String> {
    let word = match v {
        v if v.is_nan() => "NaN",
        f64::INFINITY => "+Inf",
        f64::NEG_INFINITY => "-Inf",
        _ => return None,
    };
    Some(word.to_owned())
}

fn with_exponent(negative: bool, digits: &str, exponent: i32) -> String {
    let (first, rest) = digits.split_at(1.min(digits.len()));
    let point = if rest.is_empty() { "" } else { "." };
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{}{first}{point}{rest}e{sign}{:02}", if negative { "-" } else { "" }, exponent.abs())
}

/// `%e` with the fewest digits that read back the same, or with so many behind the point.
pub fn exponent(v: f64, precision: Option<usize>) -> String {
    special(v).unwrap_or_else(|| {
        let (digits, exponent) = digits(v, precision.map(|p| p + 1));
        with_exponent(v.is_sign_negative(), &digits, exponent)
    })
}

/// `%g` with the fewest digits that read back the same, or with at most so many.
pub fn general(v: f64, precision: Option<usize>) -> String {
    if let Some(s) = special(v) {
        return s;
    }
    let precision = precision.map(|p| p.max(1));
    let (all, exp) = digits(v, precision);
    let digits = match all.trim_end_matches('0') {
        "" => "0",
        d => d,
    };
    // Without a precision Go decides as if it were six.
    let most = precision.map_or(6, |p| i32::try_from(p).unwrap_or(i32::MAX));
    if exp < -4 || exp >= most {
        return with_exponent(v.is_sign_negative(), digits, exp);
    }
    let mut out = String::new();
    if v.is_sign_negative() {
        out.push('-');
    }
    if exp < 0 {
        out.push_str("0.");
        out.extend(std::iter::repeat_n('0', exp.unsigned_abs() as usize - 1));
        out.push_str(digits);
    } else {
        let whole = exp.unsigned_abs() as usize + 1;
        out.push_str(digits.get(..whole).unwrap_or(digits));
        out.extend(std::iter::repeat_n('0', whole.saturating_sub(digits.len())));
        if let Some(fraction) = digits.get(whole..).filter(|f| !f.is_empty()) {
            out.push('.');
            out.push_str(fraction);
        }
    }
    out
}
