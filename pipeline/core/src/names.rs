//! The forms of names and codes (contract, section 1): identifiers, printable tokens, currencies, jurisdictions.

use iso_currency::Currency;

/// An `operator`, `source`, `game`, `pool` or `level`: `[a-z0-9][a-z0-9-]{0,63}`.
pub fn is_identifier(text: &str) -> bool {
    let bytes = text.as_bytes();
    let plain = |c: &u8| c.is_ascii_lowercase() || c.is_ascii_digit();
    (1..=64).contains(&bytes.len())
        && bytes.first().is_some_and(plain)
        && bytes.iter().all(|c| plain(c) || *c == b'-')
}

/// A `session`, `player` (`max` 64) or `round` (`max` 128): printable ASCII without space.
pub fn is_token(text: &str, max: usize) -> bool {
    (1..=max).contains(&text.len()) && text.bytes().all(|c| c.is_ascii_graphic())
}

/// Three capitals, active in ISO 4217.
pub fn is_currency(code: &str) -> bool {
    currency(code).is_some()
}

/// How many decimals the currency's minor unit has (EUR 2, JPY 0, BHD 3); 2 where ISO 4217 names none.
pub fn minor_digits(code: &str) -> u32 {
    currency(code).and_then(Currency::exponent).map_or(2, u32::from)
}

fn currency(code: &str) -> Option<Currency> {
    let capitals = code.len() == 3 && code.bytes().all(|c| c.is_ascii_uppercase());
    Currency::from_code(code).filter(|&currency| capitals && is_active(currency))
}

/// Those that were withdrawn are listed with the currency that took their place; so is VES, which is active still.
fn is_active(currency: Currency) -> bool {
    currency == Currency::VES || currency.is_superseded().is_none()
}

/// ISO 3166-1 alpha-2 (`MT`), or ISO 3166-2 (`US-NV`): a country of the standard, then one to three
/// capitals or digits, by form alone.
pub fn is_jurisdiction(code: &str) -> bool {
    let (country, subdivision) = match code.split_once('-') {
        Some((country, subdivision)) => (country, Some(subdivision)),
        None => (code, None),
    };
    let form = |text: &str| {
        (1..=3).contains(&text.len()) && text.bytes().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit())
    };
    is_country(country) && subdivision.is_none_or(form)
}

/// The country of a jurisdiction's code: `US` of `US-NV`, `MT` of `MT`.
pub fn country(code: &str) -> &str {
    code.split_once('-').map_or(code, |(country, _)| country)
}

/// Whether a list of jurisdictions holds this one: itself, or its country.
pub fn listed<'a>(code: &str, list: impl IntoIterator<Item = &'a str>) -> bool {
    let country = country(code);
    list.into_iter().any(|entry| entry == code || entry == country)
}

fn is_country(code: &str) -> bool {
    code.len() == 2
        && code.is_ascii()
        && COUNTRIES.as_bytes().chunks_exact(3).any(|entry| &entry[..2] == code.as_bytes())
}

/// The officially assigned codes of ISO 3166-1 alpha-2 (249), three bytes each.
const COUNTRIES: &str = "\
AD AE AF AG AI AL AM AO AQ AR AS AT AU AW AX AZ BA BB BD BE BF BG BH BI BJ BL BM BN BO BQ BR BS BT BV BW BY BZ \
CA CC CD CF CG CH CI CK CL CM CN CO CR CU CV CW CX CY CZ DE DJ DK DM DO DZ EC EE EG EH ER ES ET FI FJ FK FM FO FR \
GA GB GD GE GF GG GH GI GL GM GN GP GQ GR GS GT GU GW GY HK HM HN HR HT HU ID IE IL IM IN IO IQ IR IS IT JE JM JO JP \
KE KG KH KI KM KN KP KR KW KY KZ LA LB LC LI LK LR LS LT LU LV LY MA MC MD ME MF MG MH MK ML MM MN MO MP MQ MR MS MT \
MU MV MW MX MY MZ NA NC NE NF NG NI NL NO NP NR NU NZ OM PA PE PF PG PH PK PL PM PN PR PS PT PW PY QA RE RO RS RU RW \
SA SB SC SD SE SG SH SI SJ SK SL SM SN SO SR SS ST SV SX SY SZ TC TD TF TG TH TJ TK TL TM TN TO TR TT TV TW TZ UA UG \
UM US UY UZ VA VC VE VG VI VN VU WF WS YE YT ZA ZM ZW ";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers() {
        for good in ["a", "0", "acme-spin-eu1", &"x".repeat(64)] {
            assert!(is_identifier(good), "{good}");
        }
        for bad in ["", "-a", "A", "a_b", "a.b", "é", &"x".repeat(65)] {
            assert!(!is_identifier(bad), "{bad}");
        }
    }

    #[test]
    fn currencies() {
        assert!(is_currency("EUR") && is_currency("JPY") && is_currency("BHD"));
        assert!(is_currency("VES") && is_currency("VED") && is_currency("XCG"));
        assert!(["BGN", "CUC", "HRK", "SLL", "ZWL"].iter().all(|code| !is_currency(code)), "withdrawn");
        assert!(!is_currency("eur") && !is_currency("XYZ") && !is_currency("EURO") && !is_currency("DEM"));
        assert_eq!((minor_digits("EUR"), minor_digits("JPY"), minor_digits("BHD")), (2, 0, 3));
    }

    #[test]
    fn jurisdictions() {
        assert_eq!(COUNTRIES.len(), 249 * 3);
        for good in ["MT", "US", "US-NV", "GB-ENG", "FR-75", "CA-ON"] {
            assert!(is_jurisdiction(good), "{good}");
        }
        for bad in ["", "XX", "mt", "USA", "US-", "US-NEVA", "US-nv", "US-N-V", "ÄÖ"] {
            assert!(!is_jurisdiction(bad), "{bad}");
        }
        assert!(listed("US-NV", ["US"]) && listed("US-NV", ["US-NV"]) && !listed("US", ["US-NV"]));
    }
}
