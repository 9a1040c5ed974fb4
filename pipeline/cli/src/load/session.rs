//! One synthetic player's session: who, where, with what money, and its wagers one after the other.
//! Numbers come from the source's generator alone; amounts are whole minor units.

use jackpot_core::frame::batch::Funds;
use jackpot_core::money::Micro;
use jackpot_core::names;
use jackpot_core::time::Millis;
use serde::Serialize;
use serde_json::value::RawValue;

use super::market::{Market, Player};
use super::places;
use super::random::Random;

/// One session in so many is played from where its operator may take no wagers.
const ABROAD_ODDS: u64 = 256;
/// One wager in so many wins a level.
const HIT_ODDS: u64 = 4_096;
/// One wager in so many is told late, by up to [`LATE_MS_MAX`].
const LATE_ODDS: u64 = 1_000;
/// How late a late wager is at most.
const LATE_MS_MAX: u64 = 6_000;
/// How far wagers are out of order otherwise, at most.
const JITTER_MS_MAX: u64 = 120;
/// Stakes that games offer, in cents of the euro.
const STAKES: [u64; 20] = [
    10, 20, 40, 50, 60, 80, 100, 160, 200, 250, 300, 400, 500, 800, 1_000, 1_500, 2_500, 5_000, 10_000,
    20_000,
];

/// A player at the machine.
#[derive(Debug)]
pub struct Session {
    id: String,
    player: String,
    jurisdiction: String,
    currency: String,
    minor_digits: u32,
    funds: Funds,
    opt_in: bool,
    pools: Vec<usize>,
    point: Option<(i64, i64)>,
    /// Whether the jurisdiction is declared; not always where there are coordinates.
    claims: bool,
    game: usize,
    stake: usize,
    interaction: u64,
    left: u64,
    round: u64,
    checked_until: Millis,
    location: Box<RawValue>,
}

/// A wager as it is written (contract, section 2).
#[derive(Serialize)]
struct Wager<'a> {
    session: &'a str,
    interaction: u64,
    player: &'a str,
    game: &'a str,
    round: String,
    amount: String,
    currency: &'a str,
    funds: Funds,
    opt_in: bool,
    occurred_at: Millis,
    location: &'a RawValue,
    #[serde(skip_serializing_if = "Option::is_none")]
    hits: Option<[Hit<'a>; 1]>,
}

#[derive(Serialize)]
struct Hit<'a> {
    pool: &'a str,
    level: &'a str,
}

/// Where an operator's players are.
#[derive(Debug)]
pub struct Ground {
    /// The operator.
    pub operator: String,
    /// Where it may take wagers; at least one.
    pub open: Vec<String>,
    /// Where it may not.
    pub closed: Vec<String>,
}

impl Session {
    /// A player sits down at `now`.
    pub fn begin(market: &Market, ground: &Ground, now: Millis, random: &mut Random) -> Self {
        let abroad = !ground.closed.is_empty() && random.once_in(ABROAD_ODDS);
        let list = if abroad { &ground.closed } else { &ground.open };
        // The smaller of two draws: the first of an operator's jurisdictions is its largest market.
        let jurisdiction = list[random.index(list.len()).min(random.index(list.len()))].clone();
        let currency = market.currency(&jurisdiction, random).to_owned();
        let funds = match random.below(20) {
            0..17 => Funds::Cash,
            17..19 => Funds::Bonus,
            _ => Funds::Free,
        };
        let opt_in = random.below(10) < 7;
        let player = Player {
            operator: &ground.operator,
            jurisdiction: &jurisdiction,
            currency: &currency,
            funds,
            opt_in,
        };
        let pools = market.pools_of(&player);
        let spread = |random: &mut Random| {
            random.below(2 * places::SPREAD + 1).cast_signed() - places::SPREAD.cast_signed()
        };
        let point = places::town(&jurisdiction)
            .filter(|_| random.below(5) < 3)
            .map(|(latitude, longitude)| (latitude + spread(random), longitude + spread(random)));
        let tail = random.doublings(9);
        let mut session = Self {
            id: uuid(random),
            player: format!("p-{:08x}", random.below(1 << 32)),
            minor_digits: names::minor_digits(&currency),
            currency,
            funds,
            opt_in,
            pools,
            claims: point.is_none() || !random.once_in(6),
            point,
            game: market.game(random),
            stake: 3 + usize::try_from(random.doublings(14)).unwrap_or(0),
            interaction: 0,
            left: random.between(4 << tail, 8 << tail),
            round: random.below(1 << 40),
            checked_until: now,
            location: RawValue::NULL.to_owned(),
            jurisdiction,
        };
        session.check_location(market, now, random);
        session
    }

    /// Whether the player has left.
    pub fn is_over(&self) -> bool {
        self.left == 0
    }

    /// Writes the next wager, made at about `now` and not later.
    pub fn play(&mut self, market: &Market, now: Millis, random: &mut Random, body: &mut Vec<u8>) {
        self.left -= 1;
        self.interaction += 1;
        self.round += random.between(1, 9);
        if random.once_in(40) {
            self.game = market.game(random);
        }
        match random.below(32) {
            0 => self.stake = (self.stake + 1).min(STAKES.len() - 1),
            1 => self.stake = self.stake.saturating_sub(1),
            _ => {}
        }
        if now >= self.checked_until {
            self.check_location(market, now, random);
        }
        let late = if random.once_in(LATE_ODDS) { LATE_MS_MAX } else { JITTER_MS_MAX };
        let occurred_at = now.plus(-random.below(late).cast_signed());
        let minor = self.stake_minor();
        let won = random.once_in(HIT_ODDS).then(|| {
            market.hit(&self.pools, self.game, micro(minor, self.minor_digits), &self.currency, random)
        });
        let wager = Wager {
            session: &self.id,
            interaction: self.interaction,
            player: &self.player,
            game: market.game_name(self.game),
            round: format!("r-{:x}", self.round),
            amount: decimal(minor, self.minor_digits),
            currency: &self.currency,
            funds: self.funds,
            opt_in: self.opt_in,
            occurred_at,
            location: &self.location,
            hits: won.flatten().map(|(pool, level)| [Hit { pool, level }]),
        };
        serde_json::to_writer(body, &wager).expect("a wager is plain data, and a buffer takes it");
    }

    /// Finds out where the player is; good for a third to two thirds of the time that the rules allow.
    fn check_location(&mut self, market: &Market, now: Millis, random: &mut Random) {
        let third_ms = market.location_max_age_s(&self.jurisdiction).clamp(3, 1_000_000) * 1_000 / 3;
        self.checked_until = now.plus(random.between(third_ms, 2 * third_ms).cast_signed());
        // Wagers are told up to LATE_MS_MAX after they happened, never before their location was checked.
        let checked_at = now.plus(-LATE_MS_MAX.cast_signed());
        let mut fields = Vec::new();
        if self.claims {
            fields.push(format!("\"jurisdiction\":\"{}\"", self.jurisdiction));
        }
        if let Some((latitude, longitude)) = self.point {
            let (latitude, longitude) = (degrees(latitude), degrees(longitude));
            let accuracy_m = random.between(5, places::ACCURACY_M_MAX);
            fields.push(format!(
                "\"latitude\":{latitude},\"longitude\":{longitude},\"accuracy_m\":{accuracy_m}"
            ));
        }
        fields.push(format!("\"checked_at\":\"{checked_at}\""));
        let text = format!("{{{}}}", fields.join(","));
        self.location = RawValue::from_string(text).expect("the location is JSON by its construction");
    }

    /// What a round costs, in minor units of the session's currency.
    fn stake_minor(&self) -> u64 {
        let cents = STAKES[self.stake.min(STAKES.len() - 1)] * per_euro(&self.currency);
        (cents * 10_u64.pow(self.minor_digits.min(4)) / 100).max(1)
    }
}

/// About how many of its units a euro is, so that stakes look alike.
fn per_euro(currency: &str) -> u64 {
    match currency {
        "SEK" | "NOK" | "ZAR" | "MXN" => 10,
        "DKK" => 8,
        "PLN" | "RON" | "BRL" => 5,
        "CZK" => 25,
        "JPY" => 150,
        _ => 1,
    }
}

fn micro(minor: u64, digits: u32) -> Micro {
    Micro(u128::from(minor) * 10_u128.pow(6_u32.saturating_sub(digits)))
}

/// `250` with two digits is `2.50`.
fn decimal(minor: u64, digits: u32) -> String {
    let unit = 10_u64.pow(digits.min(4));
    let width = usize::try_from(digits.min(4)).unwrap_or(0);
    if width == 0 { minor.to_string() } else { format!("{}.{:0width$}", minor / unit, minor % unit) }
}

/// Millionths of a degree as a JSON number.
fn degrees(micro: i64) -> String {
    let sign = if micro < 0 { "-" } else { "" };
    let magnitude = micro.unsigned_abs();
    format!("{sign}{}.{:06}", magnitude / 1_000_000, magnitude % 1_000_000)
}

/// A random id in the form of a UUID, version 4.
fn uuid(random: &mut Random) -> String {
    let (high, low) = (random.number(), random.number());
    format!(
        "{:08x}-{:04x}-4{:03x}-{:04x}-{:012x}",
        high >> 32,
        high >> 16 & 0xffff,
        high & 0xfff,
        low >> 48 & 0x3fff | 0x8000,
        low & 0xffff_ffff_ffff
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_the_contract_wants_them() {
        assert_eq!(decimal(250, 2), "2.50");
        assert_eq!(decimal(7, 0), "7");
        assert_eq!(decimal(1_005, 3), "1.005");
        assert_eq!(micro(250, 2), Micro(2_500_000));
        assert_eq!(degrees(-1_890_401), "-1.890401");
        assert_eq!(degrees(400), "0.000400");
    }
}
