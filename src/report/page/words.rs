//! Numbers and names as they are written.

use maud::{Markup, html};

use crate::report::data::written;
use crate::sweep::metric::Metric;
use crate::sweep::objective::Shown;
use crate::sweep::paired::Comparison;
use crate::sweep::score::SplitScore;

/// At most so many letters; control characters become spaces.
pub fn cut(text: &str, limit: usize) -> String {
    let mut out: String = text.chars().take(limit).map(written).collect();
    if text.chars().nth(limit).is_some() {
        out.push('…');
    }
    out
}

/// With a true minus sign, which is as wide as a plus.
fn minus(text: String) -> String {
    text.replace('-', "\u{2212}")
}

/// A number with so many digits after the point; a large one with its magnitude.
pub fn number(number: f64, digits: usize) -> String {
    minus(if number.abs() < 1e6 { format!("{number:.digits$}") } else { format!("{number:.3e}") })
}

/// The loss or a metric with its standard error, in the unit of the column's head.
pub fn score(score: Option<&SplitScore>, metric: Metric) -> Markup {
    let Shown { factor, digits, .. } = metric.facts().shown;
    html! {
        @if let Some(found) = score.and_then(|score| score.get(metric)) {
            (number(factor * found.value, digits)) " " span.se { "± " (number(factor * found.standard_error, digits)) }
        } @else { span.se { "–" } }
    }
}

/// A difference with its sign.
pub fn difference(found: &Comparison) -> Markup {
    let Shown { factor, digits, .. } = found.metric.facts().shown;
    html! {
        (minus(format!("{:+.digits$}", factor * found.difference))) " "
        span.se { "± " (format!("{:.digits$}", factor * found.standard_error)) }
    }
}

/// A time for people.
pub fn time(seconds: f64) -> String {
    match seconds {
        s if !s.is_finite() || s < 0.0 => "–".into(),
        s if s >= 1e9 => format!("{s:.1e} s"),
        s if s < 10.0 => format!("{s:.1} s"),
        s if s < 60.0 => format!("{s:.0} s"),
        s if s < 3600.0 => format!("{:.0} min {:02.0} s", (s / 60.0).floor(), (s % 60.0).floor()),
        s => format!("{:.0} h {:02.0} min", (s / 3600.0).floor(), (s % 3600.0 / 60.0).floor()),
    }
}

/// A count with its digits in groups of three.
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push('\u{202f}');
        }
        out.push(digit);
    }
    out
}

/// Bytes for people.
pub fn bytes(bytes: u64) -> String {
    let bytes = bytes as f64;
    if bytes >= 1e9 { format!("{:.2} GB", bytes / 1e9) } else { format!("{:.0} MB", bytes / 1e6) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sweep::score::testing;

    #[test]
    fn numbers_are_written_for_people() {
        assert_eq!(
            (time(3.21), time(42.0), time(61.9), time(7322.0)),
            ("3.2 s".into(), "42 s".into(), "1 min 01 s".into(), "2 h 02 min".into())
        );
        assert_eq!(time(f64::NAN), "–");
        assert_eq!((count(7).as_str(), count(1234567).as_str()), ("7", "1\u{202f}234\u{202f}567"));
        assert_eq!((number(-0.25, 2).as_str(), number(-1.5e300, 2).as_str()), ("\u{2212}0.25", "\u{2212}1.500e300"));
        assert_eq!((bytes(12_300_000).as_str(), bytes(2_500_000_000).as_str()), ("12 MB", "2.50 GB"));
        let value = score(Some(&testing::score(0.25, 0.9)), Metric::named("accuracy").unwrap());
        assert!(value.into_string().starts_with("90.00 "));
        assert_eq!(cut("a\u{1b}bc", 3), "a b…");
    }
}
