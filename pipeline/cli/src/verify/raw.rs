//! Raw wagers as whoever proves reads them: by code of its own, from the bytes that the producer sent.
//! Only what was accepted is read here, so whatever cannot be read is a finding. [`crate::explain`] reads them too.

use jackpot_core::digest::Digest;
use jackpot_core::frame::batch::Funds;
use jackpot_core::frame::validated::SessionKey;
use jackpot_core::time::Millis;
use serde::Deserialize;
use serde_json::value::RawValue;

/// A batch, its wagers not yet read.
#[derive(Debug, Deserialize)]
pub struct Batch<'a> {
    /// What it claims to be.
    pub schema: Option<String>,
    /// Its operator.
    pub operator: Option<String>,
    /// Its source.
    pub source: Option<String>,
    /// The source's number of it.
    pub sequence: Option<u64>,
    /// Its wagers.
    #[serde(borrow)]
    pub wagers: Option<Vec<&'a RawValue>>,
}

/// A wager.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wager {
    /// The key of its session.
    pub session: SessionKey,
    /// The number in it.
    pub interaction: u64,
    /// The game.
    pub game: String,
    /// The round.
    pub round: String,
    /// The amount in millionths.
    pub amount: u128,
    /// Its currency.
    pub currency: String,
    /// Whose money.
    pub funds: Funds,
    /// Whether the player opted in.
    pub opt_in: bool,
    /// When it happened.
    pub occurred_at: Millis,
    /// Where, if that was told.
    pub location: Option<Location>,
    /// What it claims to have won: pool and level, `None` where an entry cannot be read.
    pub hits: Vec<Option<(String, String)>>,
}

/// A location.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Location {
    /// The declared jurisdiction.
    pub jurisdiction: Option<String>,
    /// Whether there are coordinates.
    pub measured: bool,
    /// When it was checked.
    pub checked_at: Millis,
}

#[derive(Deserialize)]
struct WagerFields<'a> {
    session: Option<String>,
    interaction: Option<u64>,
    player: Option<String>,
    game: Option<String>,
    round: Option<String>,
    amount: Option<String>,
    currency: Option<String>,
    funds: Option<Funds>,
    opt_in: Option<bool>,
    occurred_at: Option<Millis>,
    location: Option<LocationFields>,
    #[serde(borrow)]
    hits: Option<Vec<&'a RawValue>>,
}

#[derive(Deserialize)]
struct LocationFields {
    jurisdiction: Option<String>,
    latitude: Option<f64>,
    checked_at: Option<Millis>,
}

#[derive(Deserialize)]
struct HitFields {
    pool: Option<String>,
    level: Option<String>,
}

/// Reads a wager that was accepted; why it cannot be is a clause about it.
pub fn wager(raw: &RawValue) -> Result<Wager, String> {
    let fields: WagerFields<'_> =
        serde_json::from_str(raw.get()).map_err(|error| format!("cannot be read ({error})"))?;
    let WagerFields { session, player, game, round, currency, location, .. } = fields;
    let missing = |field: &str| format!("has no {field}");
    player.ok_or_else(|| missing("player"))?;
    let amount = fields.amount.ok_or_else(|| missing("amount"))?;
    let session = session.ok_or_else(|| missing("session"))?;
    let location = location
        .map(|location| {
            let checked_at = location.checked_at.ok_or_else(|| missing("location.checked_at"))?;
            let (jurisdiction, measured) = (location.jurisdiction, location.latitude.is_some());
            Ok::<_, String>(Location { jurisdiction, measured, checked_at })
        })
        .transpose()?;
    Ok(Wager {
        session: Digest::of(session.as_bytes()).short(),
        interaction: fields.interaction.ok_or_else(|| missing("interaction"))?,
        game: game.ok_or_else(|| missing("game"))?,
        round: round.ok_or_else(|| missing("round"))?,
        amount: micro(&amount).ok_or_else(|| format!("is of {amount:?}, which is no amount"))?,
        currency: currency.ok_or_else(|| missing("currency"))?,
        funds: fields.funds.ok_or_else(|| missing("funds"))?,
        opt_in: fields.opt_in.unwrap_or(false),
        occurred_at: fields.occurred_at.ok_or_else(|| missing("occurred_at"))?,
        location,
        hits: fields.hits.unwrap_or_default().into_iter().map(hit).collect(),
    })
}

/// What an entry of `hits` names, if it is an object with two identifiers.
fn hit(raw: &RawValue) -> Option<(String, String)> {
    // Serde would take an array for the fields of an object.
    let object = raw.get().trim_start().starts_with('{');
    let fields: HitFields = serde_json::from_str(raw.get()).ok().filter(|_| object)?;
    let (pool, level) = (fields.pool?, fields.level?);
    (is_identifier(&pool) && is_identifier(&level)).then_some((pool, level))
}

/// `[a-z0-9][a-z0-9-]{0,63}`.
fn is_identifier(text: &str) -> bool {
    let mut bytes = text.bytes();
    let begins = bytes.next().is_some_and(|c| matches!(c, b'a'..=b'z' | b'0'..=b'9'));
    begins && text.len() <= 64 && bytes.all(|c| matches!(c, b'a'..=b'z' | b'0'..=b'9' | b'-'))
}

/// An amount in millionths: `^(0|[1-9][0-9]{0,9})(\.[0-9]{1,6})?$`, at most 1000000000.
pub fn micro(text: &str) -> Option<u128> {
    const MILLION: u128 = 1_000_000;
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|c| c.is_ascii_digit());
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let form = digits(whole)
        && digits(fraction)
        && whole.len() <= 10
        && fraction.len() <= 6
        && (whole == "0" || !whole.starts_with('0'));
    if !form {
        return None;
    }
    let whole: u128 = whole.parse().ok()?;
    let fraction: u128 = format!("{fraction:0<6}").parse().ok()?;
    Some(whole * MILLION + fraction).filter(|&amount| amount <= 1_000_000_000 * MILLION)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_those_of_the_contract() {
        let check = |text, expect| assert_eq!(micro(text), expect, "{text}");
        check("0", Some(0));
        check("2.50", Some(2_500_000));
        check("0.000001", Some(1));
        check("1000000000", Some(1_000_000_000_000_000));
        for bad in ["", ".", "1.", ".5", "00", "01", "-1", "1e3", " 1", "1.0000001", "1000000000.1", "1,5"] {
            check(bad, None);
        }
    }

    #[test]
    fn wagers_are_read_with_their_defaults() {
        let text = r#"{"session":"s","interaction":3,"player":"p","game":"g","round":"r","amount":"2.5",
            "currency":"EUR","funds":"bonus","opt_in":null,"occurred_at":"1970-01-01T00:00:01.5Z","new":1e999,
            "location":{"jurisdiction":"MT","checked_at":"1970-01-01T00:00:01Z"},
            "hits":[{"pool":"mega","level":"grand"},["mega","grand"],{"pool":"Mega","level":"x"},null]}"#;
        let raw: &RawValue = serde_json::from_str(text).expect("JSON");
        let read = wager(raw).expect("a wager");
        assert_eq!((read.amount, read.funds, read.opt_in), (2_500_000, Funds::Bonus, false));
        assert_eq!(read.occurred_at, Millis(1_500));
        assert_eq!(read.hits, [Some(("mega".into(), "grand".into())), None, None, None]);
        let location = read.location.expect("a location");
        assert_eq!((location.jurisdiction.as_deref(), location.measured), (Some("MT"), false));
        let without = text.replace("\"game\"", "\"other\"");
        let raw: &RawValue = serde_json::from_str(&without).expect("JSON");
        assert_eq!(wager(raw), Err("has no game".into()));
    }
}
