//! Durations and moments as flags write them: `500ms`, `30s`, `5m`, `2h`; a moment also as RFC 3339.

use std::time::Duration;

use jackpot_core::time::Millis;

/// Reads a duration: a whole number with `ms`, `s`, `m` or `h`.
pub fn parse(text: &str) -> Result<Duration, String> {
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let scale_ms = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err("give a whole number with ms, s, m or h, such as 30s".into()),
    };
    let millis = number.parse::<u64>().ok().and_then(|number| number.checked_mul(scale_ms));
    millis
        .filter(|&millis| millis <= 1_000 * 365 * 86_400_000)
        .map(Duration::from_millis)
        .ok_or_else(|| "give a whole number with ms, s, m or h, such as 30s".into())
}

/// Reads a moment: RFC 3339 in UTC, or how long ago it was (`10m`).
pub fn moment(text: &str) -> Result<Millis, String> {
    if let Some(at) = Millis::parse(text) {
        return Ok(at);
    }
    let ago = parse(text)
        .map_err(|_| "give a time as 2026-06-08T20:15:30Z, or how long ago it was, such as 10m".to_owned())?;
    Ok(Millis::now().plus(-i64::try_from(ago.as_millis()).unwrap_or(i64::MAX)))
}

/// Reads a time of RFC 3339 in UTC.
pub fn time(text: &str) -> Result<Millis, String> {
    Millis::parse(text).ok_or_else(|| "give a time as 2026-06-08T20:15:30Z".into())
}

/// A duration as flags write it.
pub fn show(duration: Duration) -> String {
    match duration.as_millis() {
        ms if ms.is_multiple_of(1_000) => format!("{}s", ms / 1_000),
        ms => format!("{ms}ms"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        let check = |text, ms| assert_eq!(parse(text).ok(), ms, "{text}");
        check("500ms", Some(Duration::from_millis(500)));
        check("30s", Some(Duration::from_secs(30)));
        check("5m", Some(Duration::from_secs(300)));
        check("2h", Some(Duration::from_secs(7_200)));
        for bad in ["", "s", "30", "1.5s", "-1s", "30 s", "99999999999999999999s", "18446744073709551615h"] {
            check(bad, None);
        }
        assert_eq!([show(Duration::from_secs(30)), show(Duration::from_millis(1_500))], ["30s", "1500ms"]);
    }

    #[test]
    fn moments() {
        assert_eq!(moment("1970-01-01T00:00:01Z"), Ok(Millis(1_000)));
        assert!(moment("10m").is_ok_and(|at| at < Millis::now()));
        assert!(moment("yesterday").is_err() && time("10m").is_err());
    }
}
