//! Exact money (contract, section 1): a wager is a whole number of micro-units, everything in a pool a whole
//! number of pico-units. micro × ppm = pico, so no contribution is ever rounded.
//! No floating point, no rounding but the one of a currency conversion.

use std::fmt;

/// Micro-units in one unit of a currency.
pub const MICRO: u128 = 1_000_000;
/// Pico-units in one unit of a currency.
pub const PICO: i128 = 1_000_000_000_000;
/// Pico-units in one micro-unit.
const PICO_PER_MICRO: i128 = 1_000_000;

/// Why a text is no amount.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AmountError {
    /// Not of the form `^(0|[1-9][0-9]*)(\.[0-9]{1,6})?$` with the digits that are allowed here.
    #[error("is no decimal with at most 6 digits after the point")]
    Form,
    /// Above what is allowed here.
    #[error("is above the maximum")]
    TooLarge,
}

/// A non-negative amount of money in micro-units (10⁻⁶ of a currency's unit).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Micro(pub u128);

impl Micro {
    /// The largest amount of one wager: 1,000,000,000 units.
    pub const WAGER_MAX: Self = Self(1_000_000_000 * MICRO);
    /// The largest amount in terms: 10¹⁵ units.
    pub const TERMS_MAX: Self = Self(1_000_000_000_000_000 * MICRO);

    /// Reads a wager's amount: `^(0|[1-9][0-9]{0,9})(\.[0-9]{1,6})?$`, at most 1000000000.
    pub fn parse_wager(text: &str) -> Result<Self, AmountError> {
        let value = Self(parse_decimal(text, 10, 6)?);
        if value > Self::WAGER_MAX { Err(AmountError::TooLarge) } else { Ok(value) }
    }

    /// Reads an amount of terms: at most 10¹⁵ units, at most 6 decimals.
    pub fn parse_terms(text: &str) -> Result<Self, AmountError> {
        let value = Self(parse_decimal(text, 16, 6)?);
        if value > Self::TERMS_MAX { Err(AmountError::TooLarge) } else { Ok(value) }
    }

    /// In pico-units, exactly.
    pub fn pico(self) -> Pico {
        Pico(self.signed() * PICO_PER_MICRO)
    }

    /// This share of the amount, exactly: micro × ppm = pico.
    pub fn share(self, rate: Ppm) -> Pico {
        Pico(self.signed() * i128::from(rate.0))
    }

    /// Converted at `rate`, rounded half to even to a whole micro-unit: the only rounding of a contribution.
    /// A wager's maximum at the highest rate is 10²¹ micro-units.
    pub fn convert(self, rate: Rate) -> Self {
        let one = u128::from(Rate::ONE.0);
        let product = self.0.checked_mul(u128::from(rate.0)).expect("10¹⁵ micro-units at 10¹⁵ are 10³⁰");
        let (quotient, rest) = (product / one, product % one);
        let up = rest > one / 2 || (rest == one / 2 && quotient % 2 == 1);
        Self(quotient + u128::from(up))
    }

    fn signed(self) -> i128 {
        i128::try_from(self.0).expect("sums of wagers stay below 10³⁰ micro-units")
    }
}

impl fmt::Display for Micro {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.pico().fmt(f)
    }
}

/// An amount of money in a pool, in pico-units (10⁻¹² of the pool's currency); may be negative.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Pico(pub i128);

impl Pico {
    /// Nothing.
    pub const ZERO: Self = Self(0);

    /// Reads an amount of terms: at most 10¹⁵ units, at most 6 decimals.
    pub fn parse_terms(text: &str) -> Result<Self, AmountError> {
        Micro::parse_terms(text).map(Micro::pico)
    }

    /// Reads what [`fmt::Display`] writes: an optional sign, at most 12 decimals.
    pub fn parse(text: &str) -> Result<Self, AmountError> {
        let (sign, digits) = text.strip_prefix('-').map_or((1, text), |rest| (-1, rest));
        let value = parse_decimal(digits, 26, 12)?;
        i128::try_from(value).map(|value| Self(sign * value)).map_err(|_| AmountError::TooLarge)
    }

    /// Rounded down to a whole minor unit of a currency with `minor_digits` decimals (EUR 2, JPY 0, BHD 3).
    pub fn floor_to_minor(self, minor_digits: u32) -> Self {
        let unit = PICO / 10_i128.pow(minor_digits.min(12));
        Self(self.0.div_euclid(unit) * unit)
    }
}

impl std::ops::Add for Pico {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self(self.0.checked_add(other.0).expect("a pool's amounts fit i128 by 11 orders of magnitude"))
    }
}

impl std::ops::Sub for Pico {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        Self(self.0.checked_sub(other.0).expect("a pool's amounts fit i128 by 11 orders of magnitude"))
    }
}

impl std::ops::AddAssign for Pico {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl std::ops::SubAssign for Pico {
    fn sub_assign(&mut self, other: Self) {
        *self = *self - other;
    }
}

/// The canonical decimal: no exponent, no trailing zeros, no trailing point.
impl fmt::Display for Pico {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let magnitude = self.0.unsigned_abs();
        let unit = PICO.unsigned_abs();
        let (whole, mut fraction) = (magnitude / unit, magnitude % unit);
        if self.0 < 0 {
            f.write_str("-")?;
        }
        write!(f, "{whole}")?;
        if fraction == 0 {
            return Ok(());
        }
        let mut width = 12;
        while fraction.is_multiple_of(10) {
            fraction /= 10;
            width -= 1;
        }
        write!(f, ".{fraction:0width$}")
    }
}

impl serde::Serialize for Pico {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.collect_str(self)
        } else {
            self.0.serialize(serializer)
        }
    }
}

impl<'de> serde::Deserialize<'de> for Pico {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if !deserializer.is_human_readable() {
            return i128::deserialize(deserializer).map(Self);
        }
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

/// A share in parts per million.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Ppm(pub u32);

impl Ppm {
    /// The whole.
    pub const ONE: Self = Self(1_000_000);
}

/// An exchange rate in units of 10⁻⁹: how much of the target currency one unit of the source currency is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rate(pub u64);

impl Rate {
    /// One for one.
    pub const ONE: Self = Self(1_000_000_000);
    /// The highest rate that terms may name.
    pub const MAX: Self = Self(1_000_000 * Self::ONE.0);

    /// Reads a rate of terms: above 0, at most 1000000, at most 9 decimals.
    pub fn parse(text: &str) -> Result<Self, AmountError> {
        let value = parse_decimal(text, 7, 9)?;
        match u64::try_from(value) {
            Ok(0) => Err(AmountError::Form),
            Ok(value) if value <= Self::MAX.0 => Ok(Self(value)),
            _ => Err(AmountError::TooLarge),
        }
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Pico(i128::from(self.0) * 1_000).fmt(f)
    }
}

/// Reads `(0|[1-9][0-9]*)(\.[0-9]+)?` with at most so many digits before and after the point,
/// as a whole number of 10^-`decimals`.
fn parse_decimal(text: &str, whole_digits: usize, decimals: usize) -> Result<u128, AmountError> {
    let (whole, fraction) = match text.split_once('.') {
        Some((_, "")) => return Err(AmountError::Form),
        Some(parts) => parts,
        None => (text, ""),
    };
    let padded = whole.len() > 1 && whole.starts_with('0');
    if whole.is_empty() || padded || fraction.len() > decimals {
        return Err(AmountError::Form);
    }
    let digit = |c: u8| if c.is_ascii_digit() { Ok(u128::from(c - b'0')) } else { Err(AmountError::Form) };
    if whole.len() > whole_digits {
        whole.bytes().try_for_each(|c| digit(c).map(drop))?;
        return Err(AmountError::TooLarge);
    }
    let mut value = 0_u128;
    for c in whole.bytes().chain(fraction.bytes()) {
        value = value * 10 + digit(c)?;
    }
    for _ in fraction.len()..decimals {
        value *= 10;
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn wager_amounts() {
        let check = |text: &str, expect: Result<u128, AmountError>| {
            assert_eq!(Micro::parse_wager(text).map(|m| m.0), expect, "{text}");
        };
        check("0", Ok(0));
        check("2.50", Ok(2_500_000));
        check("0.000001", Ok(1));
        check("1000000000", Ok(1_000_000_000_000_000));
        check("1000000000.000001", Err(AmountError::TooLarge));
        check("9999999999", Err(AmountError::TooLarge));
        check("10000000000", Err(AmountError::TooLarge));
        for bad in ["", ".", "1.", ".5", "00", "01", "-1", "+1", "1e3", " 1", "1 ", "1.0000001", "١", "1,5"]
        {
            check(bad, Err(AmountError::Form));
        }
    }

    #[test]
    fn amounts_print_canonically() {
        for (pico, text) in [
            (0, "0"),
            (7_500_000_000, "0.0075"),
            (12 * PICO, "12"),
            (5 * PICO / 2, "2.5"),
            (-1, "-0.000000000001"),
        ] {
            assert_eq!(Pico(pico).to_string(), text);
        }
    }

    #[test]
    fn conversion_rounds_half_to_even() {
        let half = Rate::parse("0.5").expect("a rate");
        for (micro, expect) in [(1, 0), (2, 1), (3, 2), (5, 2), (7, 4)] {
            assert_eq!(Micro(micro).convert(half), Micro(expect), "{micro}");
        }
        assert_eq!(Micro(10_000_000).convert(Rate::parse("1.17647").expect("a rate")), Micro(11_764_700));
        assert_eq!(Micro::WAGER_MAX.convert(Rate::MAX), Micro(10_u128.pow(21)));
    }

    #[test]
    fn products_from_the_trade() {
        // Unibo: 50 EUR at 0.20 %, split 20/30/50 (domain.md, test vectors).
        let eligible = Micro(50 * MICRO);
        let shares: Vec<_> = [400, 600, 1_000].map(|ppm| eligible.share(Ppm(ppm)).to_string()).into();
        assert_eq!(shares, ["0.02", "0.03", "0.05"]);
    }

    #[test]
    fn minor_units_floor() {
        assert_eq!(Pico::parse("12.349").expect("an amount").floor_to_minor(2).to_string(), "12.34");
        assert_eq!(Pico::parse("12.999").expect("an amount").floor_to_minor(0).to_string(), "12");
    }

    proptest! {
        #[test]
        fn text_comes_back(value in any::<i64>(), scale in 0_u32..18) {
            let pico = Pico(i128::from(value) * 10_i128.pow(scale) / 7);
            prop_assert_eq!(Pico::parse(&pico.to_string()), Ok(pico));
        }

        #[test]
        fn shares_add_up(parts in proptest::collection::vec(0_u128..1_000_000_000_000, 1..50), ppm in 0_u32..=1_000_000) {
            let whole = Micro(parts.iter().sum());
            let sum = parts.iter().fold(Pico::ZERO, |sum, &part| sum + Micro(part).share(Ppm(ppm)));
            prop_assert_eq!(sum, whole.share(Ppm(ppm)));
        }
    }
}
