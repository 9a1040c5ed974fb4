//! Instants as the contract writes them: RFC 3339 in UTC, milliseconds.
//! The one clock of the process lives here; stages never see it.

use std::fmt;
use std::sync::Arc;

/// Milliseconds since 1970-01-01T00:00:00Z; negative before.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Millis(pub i64);

impl Millis {
    /// The first instant that can be written: 0000-01-01T00:00:00.000Z.
    pub const FIRST: Self = Self(-62_167_219_200_000);
    /// The last one: 9999-12-31T23:59:59.999Z.
    pub const LAST: Self = Self(253_402_300_799_999);

    /// The present, by this machine's clock. For what is recorded as an observation or shown to people:
    /// no decision of a stage may depend on it (invariant I6).
    #[expect(clippy::disallowed_methods, reason = "this is the clock's one room")]
    pub fn now() -> Self {
        let since = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .expect("the clock stands after 1970");
        Self(i64::try_from(since.as_millis()).expect("milliseconds fit for 292 million years"))
    }

    /// Parses RFC 3339 in UTC: `YYYY-MM-DDThh:mm:ss[.f…]Z`, up to nine decimals, cut to milliseconds.
    /// A leap second (`:60`) is the last millisecond of its minute.
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = text.as_bytes();
        let (body, fraction) = match bytes.strip_suffix(b"Z")? {
            whole if whole.len() == 19 => (whole, &[][..]),
            rest if rest.len() > 20 && rest.len() <= 29 && rest[19] == b'.' => (&rest[..19], &rest[20..]),
            _ => return None,
        };
        let number = |range: std::ops::Range<usize>| {
            body[range]
                .iter()
                .try_fold(0_i16, |n, c| c.is_ascii_digit().then(|| n * 10 + i16::from(c - b'0')))
        };
        let marks = [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':')];
        if marks.iter().any(|&(at, mark)| body[at] != mark) || !fraction.iter().all(u8::is_ascii_digit) {
            return None;
        }
        let small = |range| number(range).and_then(|n| i8::try_from(n).ok());
        let (hour, minute, second) = (small(11..13)?, small(14..16)?, small(17..19)?);
        let leap = second == 60;
        let date = jiff::civil::Date::new(number(0..4)?, small(5..7)?, small(8..10)?).ok()?;
        let time = jiff::civil::Time::new(hour, minute, if leap { 59 } else { second }, 0).ok()?;
        let days = i64::from((date - jiff::civil::date(1970, 1, 1)).get_days());
        let seconds = days * 86_400
            + i64::from(time.hour()) * 3_600
            + i64::from(time.minute()) * 60
            + i64::from(time.second());
        let mut millis = 0;
        for place in 0..3 {
            millis = millis * 10 + fraction.get(place).map_or(0, |c| i64::from(c - b'0'));
        }
        Some(Self(seconds * 1_000 + if leap { 999 } else { millis }))
    }

    /// The second that this instant lies in, counted from 1970.
    pub fn second(self) -> i64 {
        self.0.div_euclid(1_000)
    }

    /// The instant `millis` later (earlier when negative), but none that cannot be written: what is computed of a
    /// wager's time, a watermark for one, is recorded and read back.
    pub fn plus(self, millis: i64) -> Self {
        Self(self.0.saturating_add(millis)).clamp(Self::FIRST, Self::LAST)
    }
}

/// What tells a process the present: the machine's clock, or one that a simulation moves. Cheap to clone.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> Millis + Send + Sync>);

impl Clock {
    /// This machine's clock.
    pub fn machine() -> Self {
        Self::new(Millis::now)
    }

    /// A clock that shows what `now` gives.
    pub fn new(now: impl Fn() -> Millis + Send + Sync + 'static) -> Self {
        Self(Arc::new(now))
    }

    /// The present. What [`Millis::now`] says of its use holds here too.
    pub fn now(&self) -> Millis {
        (self.0)()
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Clock").field(&self.now()).finish()
    }
}

/// What cannot be written with four digits of the year is shown as the nearest that can.
impl fmt::Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let since = jiff::SignedDuration::from_millis((*self).clamp(Self::FIRST, Self::LAST).0);
        let at = jiff::civil::date(1970, 1, 1).at(0, 0, 0, 0).checked_add(since).map_err(|_| fmt::Error)?;
        write!(f, "{at:.3}Z")
    }
}

impl fmt::Debug for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}ms", self.0)
    }
}

impl serde::Serialize for Millis {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.collect_str(self)
        } else {
            self.0.serialize(serializer)
        }
    }
}

impl<'de> serde::Deserialize<'de> for Millis {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if !deserializer.is_human_readable() {
            return i64::deserialize(deserializer).map(Self);
        }
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| serde::de::Error::custom("a time is RFC 3339 in UTC, ending in Z"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expect: Option<i64>) {
        assert_eq!(Millis::parse(text).map(|at| at.0), expect, "{text}");
    }

    #[test]
    fn times_are_read_strictly() {
        check("1970-01-01T00:00:00Z", Some(0));
        check("2026-06-08T20:15:30.123Z", Some(1_780_949_730_123));
        check("2026-06-08T20:15:30.123999999Z", Some(1_780_949_730_123));
        check("2026-06-08T20:15:30.1Z", Some(1_780_949_730_100));
        check("1969-12-31T23:59:59.500Z", Some(-500));
        check("2016-12-31T23:59:60Z", Some(1_483_228_799_999));
        for bad in [
            "",
            "Z",
            "2026-06-08T20:15:30",
            "2026-06-08T20:15:30+00:00",
            "2026-06-08t20:15:30Z",
            "2026-06-08 20:15:30Z",
            "2026-02-29T00:00:00Z",
            "2026-06-08T24:00:00Z",
            "2026-06-08T20:15:30.Z",
            "2026-06-08T20:15:30.1234567890Z",
            "2026-06-08T20:15:30.12aZ",
            "2026-06-08T20:15:é0Z",
        ] {
            check(bad, None);
        }
    }

    #[test]
    fn the_ends_of_time_are_written_and_read() {
        assert_eq!(Millis::FIRST.to_string(), "0000-01-01T00:00:00.000Z");
        assert_eq!(Millis::LAST.to_string(), "9999-12-31T23:59:59.999Z");
        for end in [Millis::FIRST, Millis::LAST] {
            assert_eq!(Millis::parse(&end.to_string()), Some(end));
        }
        assert_eq!((Millis::FIRST.plus(-1), Millis::LAST.plus(1)), (Millis::FIRST, Millis::LAST));
        assert_eq!(Millis(i64::MIN).to_string(), Millis::FIRST.to_string());
        assert_eq!(Millis(i64::MAX).to_string(), Millis::LAST.to_string());
    }

    proptest::proptest! {
        #[test]
        fn text_comes_back(at in Millis::FIRST.0..=Millis::LAST.0) {
            proptest::prop_assert_eq!(Millis::parse(&Millis(at).to_string()), Some(Millis(at)));
        }
    }
}
