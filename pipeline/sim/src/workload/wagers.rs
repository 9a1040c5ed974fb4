//! Wagers: those of players who sit where they say, and ways to spoil them.

use jackpot_core::time::Millis;
use serde_json::{Value, json};

use crate::dice::Dice;

/// A player's session.
pub struct Session {
    name: String,
    interaction: u64,
    home: Home,
    currency: &'static str,
}

/// Where a session is: what its operator claims, and a point where it is known.
#[derive(Clone, Copy)]
struct Home {
    claim: Option<&'static str>,
    point: Option<(&'static str, &'static str)>,
}

const fn home(claim: Option<&'static str>, point: Option<(&'static str, &'static str)>) -> Home {
    Home { claim, point }
}

const MALTA: (&str, &str) = ("35.8904", "14.4378");
const LAS_VEGAS: (&str, &str) = ("36.17", "-115.14");
const NEW_BRUNSWICK: (&str, &str) = ("40.4862", "-74.4518");
const OREBRO: (&str, &str) = ("59.2747", "15.2152");
const LONDON: (&str, &str) = ("51.5074", "-0.1278");

const ACME: [Home; 7] = [
    home(Some("MT"), None),
    home(Some("MT"), Some(MALTA)),
    home(None, Some(MALTA)),
    home(Some("GB"), Some(LONDON)),
    home(Some("GB"), None),
    home(Some("DE"), None),
    home(Some("FR"), None),
];
const FJORDBET: [Home; 6] = [
    home(Some("SE"), None),
    home(Some("SE"), Some(OREBRO)),
    home(None, Some(OREBRO)),
    home(Some("MT"), Some(MALTA)),
    home(Some("MT"), None),
    home(Some("GB"), None),
];
const SILVERSTATE: [Home; 6] = [
    home(Some("US-NV"), None),
    home(Some("US-NV"), Some(LAS_VEGAS)),
    home(None, Some(LAS_VEGAS)),
    home(Some("US-NJ"), Some(NEW_BRUNSWICK)),
    home(Some("US-NJ"), None),
    home(Some("US-UT"), None),
];

impl Session {
    /// A session at an operator's place.
    pub fn draw(dice: &mut Dice, operator: &str, number: usize) -> Self {
        let (homes, currencies): (&[Home], &[&str]) = match operator {
            "silverstate" => (&SILVERSTATE, &["USD", "USD", "EUR"]),
            "fjordbet" => (&FJORDBET, &["SEK", "SEK", "EUR"]),
            _ => (&ACME, &["EUR", "EUR", "GBP"]),
        };
        let (home, currency) = (*dice.pick(homes), *dice.pick(currencies));
        Self { name: format!("session-{number}"), interaction: dice.below(3), home, currency }
    }

    /// Its next wager.
    pub fn play(&mut self, dice: &mut Dice, at: Millis, levels: &[(String, String)]) -> Value {
        self.interaction += dice.pick(&[1, 1, 1, 1, 1, 2, 40]);
        let (units, cents) = (dice.below(30), dice.below(1_000_000));
        let amount = *dice.pick(&[0, 1, 2]);
        let amount = match amount {
            0 => format!("{units}.{:02}", cents % 100),
            1 => format!("{units}"),
            _ => format!("{units}.{cents:06}"),
        };
        let mut wager = json!({
            "session": self.name, "interaction": self.interaction, "player": "p-1",
            "game": dice.pick(&["quick-spin", "quick-spin", "tides", "neon-mile"]), "round": format!("r-{}", self.interaction),
            "amount": amount, "currency": self.currency,
            "funds": dice.pick(&["cash", "cash", "cash", "bonus", "free"]), "opt_in": dice.below(2) == 0,
            "occurred_at": at.to_string(),
            "location": self.home.located(dice, at),
        });
        if dice.below(12) == 0 && !levels.is_empty() {
            let claims: Vec<_> = (0..dice.between(1, 2)).map(|_| dice.pick(levels)).collect();
            wager["hits"] =
                claims.into_iter().map(|(pool, level)| json!({ "pool": pool, "level": level })).collect();
        }
        if dice.below(14) == 0 {
            dice.pick(WAYS)(&mut wager);
        } else if dice.below(25) == 0 {
            travel(&mut wager);
        }
        wager
    }
}

impl Home {
    fn located(self, dice: &mut Dice, at: Millis) -> Value {
        let checked = at.plus(-i64::try_from(dice.below(50_000)).expect("a small number"));
        let mut location = json!({ "checked_at": checked.to_string() });
        if let Some(claim) = self.claim {
            location["jurisdiction"] = claim.into();
        }
        if let Some((latitude, longitude)) = self.point {
            let number = |text: &str| serde_json::from_str::<Value>(text).expect("a coordinate is a number");
            (location["latitude"], location["longitude"]) = (number(latitude), number(longitude));
            location["accuracy_m"] = (*dice.pick(&[0, 50, 1_000])).into();
        }
        location
    }
}

/// The other end of the world, for most: a journey that nobody makes.
fn travel(wager: &mut Value) {
    wager["location"] = json!({
        "latitude": 36.17, "longitude": -115.14, "accuracy_m": 100, "checked_at": wager["occurred_at"],
    });
}

/// Ways to change a wager; most make it one that is refused.
const WAYS: &[fn(&mut Value)] = &[
    |wager| *wager = json!("not an object"),
    |wager| *wager = Value::Null,
    |wager| drop(wager.as_object_mut().expect("an object").remove("session")),
    |wager| wager["session"] = json!("two words"),
    |wager| wager["interaction"] = json!(0),
    |wager| wager["interaction"] = json!("7"),
    |wager| wager["interaction"] = json!(1),
    |wager| wager["round"] = json!(""),
    |wager| wager["funds"] = json!("credit"),
    |wager| wager["game"] = json!("no-such-game"),
    |wager| wager["game"] = json!("No Game"),
    |wager| wager["amount"] = json!(2.5),
    |wager| wager["amount"] = json!("1.2345678"),
    |wager| wager["amount"] = json!("-1"),
    |wager| wager["amount"] = json!("0"),
    |wager| wager["amount"] = json!("1000000000"),
    |wager| wager["currency"] = json!("eur"),
    |wager| wager["currency"] = json!("XQZ"),
    |wager| wager["currency"] = json!("JPY"),
    |wager| wager["occurred_at"] = json!("2199-01-01T00:00:00Z"),
    |wager| wager["occurred_at"] = json!("yesterday"),
    |wager| drop(wager.as_object_mut().expect("an object").remove("location")),
    |wager| wager["location"] = json!("MT"),
    |wager| wager["location"] = json!({ "jurisdiction": "US", "checked_at": wager["occurred_at"] }),
    |wager| wager["location"] = json!({ "jurisdiction": "US-UT", "checked_at": wager["occurred_at"] }),
    |wager| wager["location"] = json!({ "jurisdiction": "MT", "checked_at": "2026-06-08T18:00:00Z" }),
    |wager| wager["hits"] = json!([7, {}, { "pool": "mega", "level": "nobody" }]),
    |wager| {
        wager["hits"] = json!([{ "pool": "mega", "level": "minor" }, { "pool": "mega", "level": "minor" }])
    },
    |wager| wager["hits"] = vec![json!({ "pool": "mega", "level": "minor" }); 17].into(),
    |wager| wager["comment"] = json!({ "of": ["a", "supplier"] }),
];
