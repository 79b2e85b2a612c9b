//! Spans of time, shares and factors as people write them, kept as integers so that a run is the
//! same on every machine.

use std::fmt;

/// Nanoseconds in a second.
pub(crate) const SECOND: u64 = 1_000_000_000;
/// Nanoseconds in a millisecond.
pub(crate) const MILLISECOND: u64 = 1_000_000;

/// A span or moment of virtual time, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Span(pub u64);

impl Span {
    /// So many milliseconds.
    pub const fn millis(millis: u64) -> Span {
        Span(millis * MILLISECOND)
    }

    /// So many seconds.
    pub const fn secs(secs: u64) -> Span {
        Span(secs * SECOND)
    }

    /// Reads `12s`, `3.2s`, `8ms`, `200us`, `50ns`, `2m` or `1h`; none if it is something else or
    /// does not come out in whole nanoseconds.
    pub fn parse(text: &str) -> Option<Span> {
        let unit_at = text.find(|c: char| c.is_ascii_alphabetic())?;
        let (number, unit) = text.split_at(unit_at);
        let nanos = match unit {
            "h" => 3600 * SECOND,
            "m" => 60 * SECOND,
            "s" => SECOND,
            "ms" => MILLISECOND,
            "us" | "µs" => 1000,
            "ns" => 1,
            _ => return None,
        };
        decimal(number, nanos).map(Span)
    }
}

/// In the largest unit up to seconds that leaves a whole part: `3.2s`, `8ms`, `0s`.
impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, name) = match self.0 {
            0 => (1, "s"),
            n if n >= SECOND => (SECOND, "s"),
            n if n >= MILLISECOND => (MILLISECOND, "ms"),
            n if n >= 1000 => (1000, "us"),
            _ => (1, "ns"),
        };
        write_decimal(f, self.0, unit)?;
        f.write_str(name)
    }
}

/// A share, in parts of a million: `0.1%` is 1000.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Share(pub u32);

impl Share {
    /// Reads `0.1%`, from 0 to 100 in steps of 0.0001.
    pub fn parse(text: &str) -> Option<Share> {
        let millionths = decimal(text.strip_suffix('%')?, 10_000)?;
        u32::try_from(millionths).ok().filter(|&share| share <= 1_000_000).map(Share)
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_decimal(f, u64::from(self.0), 10_000)?;
        f.write_str("%")
    }
}

/// A factor, in millionths: `1.1` is 1,100,000.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Factor(pub u64);

impl Factor {
    /// Leaves what it multiplies.
    pub const ONE: Factor = Factor(1_000_000);

    /// Reads `1.1` or `2`.
    pub fn parse(text: &str) -> Option<Factor> {
        decimal(text, 1_000_000).map(Factor)
    }
}

impl fmt::Display for Factor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_decimal(f, self.0, 1_000_000)
    }
}

/// `text`, a decimal number, times `unit`, a product of powers of 2, 3 and 5; none if that is not whole.
fn decimal(text: &str, unit: u64) -> Option<u64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
    if whole.is_empty() || !digits(whole) || !digits(fraction) || fraction.len() > 9 || text.ends_with('.') {
        return None;
    }
    let scale = 10u64.pow(fraction.len() as u32);
    let part = if fraction.is_empty() { 0 } else { fraction.parse::<u64>().ok()?.checked_mul(unit)? };
    if part % scale != 0 {
        return None;
    }
    whole.parse::<u64>().ok()?.checked_mul(unit)?.checked_add(part / scale)
}

fn write_decimal(f: &mut fmt::Formatter<'_>, value: u64, unit: u64) -> fmt::Result {
    write!(f, "{}", value / unit)?;
    let (mut rest, mut unit) = (value % unit, unit);
    if rest > 0 {
        f.write_str(".")?;
    }
    while rest > 0 {
        unit /= 10;
        write!(f, "{}", rest / unit)?;
        rest %= unit;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_read_and_print_alike() {
        for text in ["12s", "3.2s", "8ms", "1.5ms", "200us", "50ns", "0s", "90s"] {
            assert_eq!(Span::parse(text).expect(text).to_string(), text);
        }
        assert_eq!(Span::parse("2m"), Some(Span::secs(120)));
        assert_eq!(Span::parse("1500ms").map(|span| span.to_string()), Some("1.5s".into()));
        for text in
            ["", "5", "s", "1.s", ".5s", "-1s", "1x", "0.1ns", "99999999999999999999s", "9999999999999h"]
        {
            assert_eq!(Span::parse(text), None, "{text}");
        }
    }

    #[test]
    fn shares_stay_within_a_whole() {
        assert_eq!(Share::parse("0.1%"), Some(Share(1000)));
        assert_eq!(Share::parse("100%").map(|share| share.to_string()), Some("100%".into()));
        assert_eq!(Share(1234).to_string(), "0.1234%");
        for text in ["100.1%", "5", "%", "0.00001%"] {
            assert_eq!(Share::parse(text), None, "{text}");
        }
    }

    #[test]
    fn factors_keep_six_decimals() {
        assert_eq!(Factor::parse("1.1"), Some(Factor(1_100_000)));
        assert_eq!(Factor(1_000_001).to_string(), "1.000001");
        assert_eq!(Factor::parse("0.0000001"), None);
    }
}
